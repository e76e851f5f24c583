/* SPDX-License-Identifier: BSD-3-Clause */
/* plugin.h: what the files of the nbdkit plugin share:
 * plugin.c   nbdkit's callbacks
 * config.c   key=value parameters
 * exports.c  export names and what they mean
 * list.c     the list of exports
 * images.c   the images that are open, shared by connections
 * report.c   errors of the engine, for nbdkit's log
 * sandbox.c  what the process gives up before it serves; see sandbox.h
 */
#ifndef PLUGIN_H
#define PLUGIN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "qcow2.h"

/* sandbox=; DEFAULT restricts as far as the kernel can, ON fails if it cannot
 * do all of it.
 */
enum sandbox { SANDBOX_DEFAULT, SANDBOX_OFF, SANDBOX_ON };

/* What the command line said; constant once nbdkit serves. */
struct config {
    const char *file; /* file=, or a name for fd= */
    const char *dir;  /* dir= without symbolic links, for messages; or NULL */
    int dir_fd;       /* the directory itself: its name is not used again */
    int fd;           /* fd=, or -1 */
    const char *snapshot;
    struct qcow2_window window; /* image-offset=, image-size= */
    bool backing_none;
    const char *backing;
    enum qcow2_format backing_format;
    const char **allow;
    size_t nr_allow;
    bool discard, lock;
    enum qcow2_detect_zeroes detect_zeroes;
    enum qcow2_cache cache;
    uint64_t cache_bytes;
    unsigned nbd_timeout_ms;
    enum sandbox sandbox;
};
extern struct config config;

extern const char config_help[];
int config_set(const char *key, const char *value);
int config_complete(void);

/* What an export name means: a file, and perhaps a snapshot in it. */
struct export {
    char *path;     /* for messages */
    struct qcow2_file *file; /* held from the decision on; NULL: fd= */
    char *snapshot; /* a word of qcow2_open_snapshot; NULL: the active disk */
    enum qcow2_format format;
};

/* Finds what name means. Returns 0, or -1 after nbdkit_error. The time
 * does not depend on the name, which comes from a client. *out is the
 * caller's to free.
 */
int exports_find(const char *name, struct export *out);
void exports_free(struct export *export);

/* Looks for a file to serve in the directory of dir=: the first nr_bytes of
 * name. Where there is one fills path and format of *out, which the caller
 * frees.
 */
bool exports_find_file(const char *name, size_t nr_bytes, struct export *out);
bool exports_is_file(const char *name);

/* Does a word for a snapshot begin with what says how to look it up? */
bool exports_has_prefix(const char *word);

/* Can this be an export's name, and be shown to people? It is UTF-8 without
 * control characters then.
 */
bool exports_is_printable(const char *name);

/* A few words about an export, written to text; NULL if there is nothing to
 * say. disk is the active disk of its image.
 */
enum { EXPORT_TEXT_SIZE = 256 };
const char *exports_describe(char text[EXPORT_TEXT_SIZE],
                             const struct qcow2_disk *disk,
                             const char *snapshot);
const char *exports_describe_disk(char text[EXPORT_TEXT_SIZE],
                                  enum qcow2_format format, uint64_t size);
const char *exports_describe_snapshot(char text[EXPORT_TEXT_SIZE],
                                      const struct qcow2_snapshot *s);

int exports_list(int readonly, int is_tls, struct nbdkit_exports *exports);

int images_init(void);
void images_free(void);

/* A file, and the connections to exports of it. */
struct open_image {
    struct open_image *next;
    uint64_t dev, ino;
    enum qcow2_format format;
    int state;               /* enum image_state of images.c */
    unsigned nr_users;       /* those that wait for it included */
    struct qcow2_disk *disk; /* the active disk; constant while in use */
    struct qcow2_error error; /* why it could not be opened */
};

/* The image of an export, opened if nobody has it open yet. Returns NULL
 * after nbdkit_error. To be given back by images_put.
 */
struct open_image *images_get(const struct export *export, bool readonly);
void images_put(struct open_image *image);

/* nbdkit_error with an error of the engine after `before`, and what helps in
 * the words of the command line.
 */
void report_error(const char *before, const struct qcow2_error *err);

/* Each returns 0, or -1 after nbdkit_error. In config_complete, get_ready and
 * after_fork: check that what is asked for can be had; gather what is needed
 * from what the command line names; give up the rest, for good.
 */
int sandbox_check(void);
int sandbox_prepare(void);
int sandbox_enter(void);

#endif /* PLUGIN_H */
