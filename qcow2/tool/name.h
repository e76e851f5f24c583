/* SPDX-License-Identifier: BSD-3-Clause */
/* name.h: names of images on the command line, in all the forms that qemu-img
 * takes.
 *
 * The engine knows paths and NBD URIs. Here "file:PATH", "nbd:unix:PATH",
 * "nbd:HOST:PORT", "json:{...}" and the text after --image-opts become one of
 * these; names that begin with another protocol of QEMU's end the program, as
 * a file of that name is hardly meant.
 */
#ifndef NAME_H
#define NAME_H

#include "tool.h"

/* Of a switch that a name may have. */
enum name_switch { NAME_UNSAID = 0, NAME_OFF, NAME_ON };

/* How to open what is named, as far as the name says. */
struct name_settings {
    struct qcow2_window window;
    enum name_switch direct, no_flush; /* cache.direct, cache.no-flush */
    enum name_switch discard;          /* on: unmap */
    enum name_switch read_only;
    bool has_detect_zeroes;
    enum qcow2_detect_zeroes detect_zeroes;
};

struct name {
    const char *path;         /* or a URI; kept until the program ends */
    enum qcow2_format format; /* AUTO: the name does not say */
    const char *backing;      /* as qcow2_options has them; NULL: the name
                               * does not say */
    enum qcow2_format backing_format;
    bool backing_none;
    struct name_settings settings;
};

/* The program ends if the name is none that is supported. */
struct name name_parse(const struct args *a, const char *text,
                       bool image_opts);

/* The same of text that may only say where the file is, and its format, which
 * goes to *format (which may be NULL) or must be what that is. */
const char *name_path(const struct args *a, const char *text,
                      enum qcow2_format *format);

/* Has *o be what the settings say; what they do not say stays. */
void name_apply(const struct name_settings *s, struct qcow2_options *o);

/* What the name says is *format, or what is known of it already. */
void name_settle_format(const struct args *a, const char *text,
                        enum qcow2_format says, enum qcow2_format *format);

/* Is it a string that begins with "json:"? */
bool name_is_json(const char *text);

/* A mistake in a name. Ends the program as a file does that cannot be
 * opened. text is printed escaped, in front. */
void name_error(const struct args *a, const char *text, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));

/* Takes over text, which is kept until the program ends. */
const char *name_keep(char *text);

/* An NBD export, and what becomes a URI of it, which is kept. */
struct name_export {
    const char *socket;       /* path of a Unix socket, or NULL: */
    const char *host, *port;  /* port NULL: the usual one */
    const char *export;       /* NULL: the default one */
};
const char *name_of_export(const struct args *a, const char *text,
                           const struct name_export *e);

/* What a plain string names: a path or a protocol. Kept. */
const char *name_of_plain(const struct args *a, const char *text);

/* A path that is no URI, whatever it begins with. Kept. */
const char *name_of_path(const struct args *a, const char *text,
                         const char *path);

/* Options of QEMU's, of --image-opts or "json:" (name-options.c). */
struct name name_of_options(const struct args *a, const char *text,
                            bool json);

#endif /* NAME_H */
