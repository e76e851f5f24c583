/* SPDX-License-Identifier: BSD-3-Clause */
/* tool.h: what the verbs of qcow2-img have in common.
 *
 * A verb is one function and one struct verb that describes it: its help,
 * what getopt takes and what the shell completes all come from that.
 * Mistakes on the command line end the program where they are found, before
 * anything was opened; everything else is returned as an exit status.
 */
#ifndef TOOL_H
#define TOOL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "qcow2.h"

/* --- Verbs and their command lines (main.c, args.c) --------------------- */

/* One option. key: its letter, or one of the KEY_ below for an option that
 * has only a long name. A table of them ends with key 0.
 */
struct tool_option {
    int key;
    const char *name; /* long, or NULL */
    const char *arg;  /* what the argument is, or NULL: takes none */
    const char *help; /* NULL: it is refused, with a reason, or another way to
                       * write one that has help */
};

struct verb {
    const char *name;
    const char *summary;  /* begins the line in the list of verbs */
    const char *operands; /* more than one usage: one a line */
    const struct tool_option *options;
    const char *notes;    /* a paragraph more, or NULL */
    const char *example;
    int cannot_open;      /* exit status for a name that cannot be opened, and
                           * for mistakes on the command line; 0:
                           * EXIT_FAILURE */
    int (*run)(const struct verb *verb, int argc, char **argv);
};

enum {
    KEY_ADD = 256,
    KEY_ALLOW,
    KEY_BACKING,
    KEY_BACKING_CHAIN,
    KEY_BITMAPS,
    KEY_CLEAR,
    KEY_DISABLE,
    KEY_DUMP,
    KEY_ENABLE,
    KEY_MERGE,
    KEY_REMOVE,
    KEY_SKIP_BROKEN_BITMAPS,
    KEY_VERDICT,
    KEY_BACKING_FORMAT,
    KEY_CHANGE_SNAPSHOTS,
    KEY_DATA,
    KEY_FLUSH_INTERVAL,
    KEY_IMAGE_OPTS,
    KEY_KEEP_SNAPSHOTS,
    KEY_NO_CLOBBER,
    KEY_NO_DRAIN,
    KEY_OLD_BACKING,
    KEY_OLD_BACKING_FORMAT,
    KEY_OUTPUT,
    KEY_PATTERN,
    KEY_PLAN,
    KEY_PREALLOCATION,
    KEY_RESTORE,
    KEY_SALVAGE,
    KEY_SHRINK,
    KEY_FORCE,
    KEY_SIZE,
    KEY_TARGET_IMAGE_OPTS,
    KEY_TARGET_IS_ZERO,
    KEY_UNDO,
    NR_KEYS,
};

#define OPTION_QUIET \
    { 'q', "quiet", NULL, "print nothing but errors" }
#define OPTION_PROGRESS \
    { 'p', "progress", NULL, "print how far it is, as (xx.xx/100%)" }
#define OPTION_OUTPUT \
    { KEY_OUTPUT, "output", "human|json", "how to print the result" }

/* Verbs that open a chain have these, and give them to disk_args_take. */
#define OPTION_FORMAT \
    { 'f', "format", "FMT", "format of the image: qcow2, qcow or raw; " \
      "without it the file's first bytes tell" }
#define OPTION_IMAGE_OPTS \
    { KEY_IMAGE_OPTS, "image-opts", NULL, "the image is named by options: " \
      "driver=FMT,file.filename=FILE" }
#define OPTION_FORCE_SHARE \
    { 'U', "force-share", NULL, "take no locks, for images that are in use; " \
      "what is read may be inconsistent" }
#define OPTION_ALLOW \
    { KEY_ALLOW, "allow", "DIR", "backing files may lie in or below DIR " \
      "(repeatable; /: anywhere)" }
#define OPTION_BACKING \
    { KEY_BACKING, "source-backing", "FILE|none", "use FILE instead of the " \
      "backing file that the image names" }, \
    { KEY_BACKING_FORMAT, "source-backing-format", "FMT", "format of the " \
      "backing file, instead of what the image declares" }, \
    { KEY_OLD_BACKING, "backing", "FILE", NULL }, \
    { KEY_OLD_BACKING_FORMAT, "backing-format", "FMT", NULL }
#define OPTION_SNAPSHOTS \
    { KEY_KEEP_SNAPSHOTS, "keep-snapshots", NULL, "copy into the image what " \
      "its snapshots would read differently" }, \
    { KEY_CHANGE_SNAPSHOTS, "change-snapshots", NULL, "let snapshots of the " \
      "image read differently" }
#define OPTION_CACHE(letter, name, what) \
    { letter, name, "CACHE", what ": writeback, none (direct I/O), " \
      "writethrough, directsync or unsafe [writeback]" }
#define OPTION_NO_CLOBBER \
    { KEY_NO_CLOBBER, "no-clobber", NULL, "fail if the target exists" }
#define OPTION_END { 0, NULL, NULL, NULL }

extern const struct verb *const verbs[]; /* ends with NULL */

struct args {
    const struct verb *verb;
    int argc;
    char **argv;
    const char *value;     /* argument of the option that args_next gave */
    char **operands;       /* once args_next gave -1 */
    int nr_operands;
    char *letters;         /* as getopt wants them */
    struct option *longs;
};

/* argv[0] is the verb's name. */
void args_start(struct args *a, const struct verb *verb, int argc,
                char **argv);

/* Key of the next option, -1 after the last one. -h and --help are done
 * here.
 */
int args_next(struct args *a);

/* Does the verb that args_start was called with have the option? */
bool args_accept(int key);

/* From here on it does not: not for what it was asked to do, or for the files
 * that it is about to use. */
void args_withdraw(int key);

/* Exactly nr operands there are, or the program ends. */
void args_need(const struct args *a, int nr, const char *what);

/* A mistake on the command line. */
void usage_error(const struct verb *verb, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

void help_print(const struct verb *verb);

/* What arguments say. The program ends if it is not that. */
bool parse_output(const struct args *a);  /* json? */
uint64_t parse_bytes(const struct args *a, const char *what, const char *s);
                                          /* "+1G" is "1G" */
uint64_t parse_number(const struct args *a, const char *what, const char *s,
                      uint64_t min, uint64_t max);
bool parse_on_off(const struct args *a, const char *what, const char *s);
enum qcow2_format parse_format(const struct args *a, const char *s);
enum qcow2_format parse_new_format(const struct args *a, const char *s);
                                          /* of an image to be made */
enum qcow2_cache parse_cache(const struct args *a);
enum qcow2_preallocation parse_prealloc(const struct args *a, const char *s);

/* Value of size suffixes from "1.5G" on; false: not a size. */
bool text_to_bytes(const char *s, uint64_t *nr_bytes);

/* --- The name it goes by (as-qemu-img.c) -------------------------------- */

/* By its first argument, as a link or a shell's `exec -a` sets it. */
bool called_as_qemu_img(void);
const char *program_name(void);

/* The answer to --version, which has qemu-img's form under its name. */
void version_print(void);

/* The answer to --help under the name qemu-img: a line for each verb. */
void overview_print_as_qemu_img(void);

/* --- Messages and text (report.c, text.c) ------------------------------- */

void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void report_warning(const char *fmt, ...)
    __attribute__((format(printf, 1, 2)));

/* The same for what the engine warns of: a qcow2_warn_fn. */
void report_engine_warning(void *opaque, const char *text);

/* Prints to stderr what report and report_warning print, without a prefix. */
void report_text(const char *fmt, va_list ap)
    __attribute__((format(printf, 1, 0)));

/* Fills *err, without hints, as the engine would. Returns -1. */
int set_error(struct qcow2_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints an error of the engine. Returns EXIT_FAILURE. */
int report_error(const struct qcow2_error *err);

/* Ends the program if p is NULL; else p. */
void *check_memory(void *p);

/* A name made safe for a terminal: what the locale cannot show, control
 * characters, and the backslash become \xNN. To be freed.
 */
char *text_escape(const char *name);

/* The same of a text in which names were escaped already, by this or by the
 * engine, which knows no locale: keeps backslashes, and shows characters
 * whose bytes are \xNN as such if the locale has them. To be freed.
 */
char *text_without_controls(const char *text);

/* Is one word the beginning of the other, or do they differ in one place, or
 * in two neighbours that changed places? Then one may be meant by the other.
 */
bool text_is_close(const char *a, const char *b);

/* Prints what begins a line at this level of a tree. The levels of a deep one
 * become numbers, as their spaces would be more than all else.
 */
enum { TEXT_MAX_INDENT = 16 };
void text_indent(unsigned level);

/* "1 GiB", and "1 GiB (1073741824 bytes)"; 64 bytes are enough. */
enum { TEXT_SIZE = 64 };
const char *text_size(char buf[TEXT_SIZE], uint64_t nr_bytes);
const char *text_exact_size(char buf[TEXT_SIZE], uint64_t nr_bytes);
#define SIZE_TEXT(n) text_size((char[TEXT_SIZE]){ 0 }, (n))
#define EXACT_SIZE_TEXT(n) text_exact_size((char[TEXT_SIZE]){ 0 }, (n))

static inline void
tool_cleanup_free(void *p)
{
    free(*(void **)p);
}
#define CLEANUP_FREE __attribute__((cleanup(tool_cleanup_free)))

/* --- Disks (disk.c) ------------------------------------------------------ */

/* How the command line says disks are opened. */
struct disk_args {
    struct qcow2_options options;
    const char **allow;
    bool image_opts;
};
#define DISK_ARGS_INIT \
    { .options = { .fd = -1, .probe_raw = true, .failures = failures,       \
                   .warn = report_engine_warning,                           \
                   .allow = always_allowed.names,                           \
                   .nr_allow = always_allowed.nr } }

/* The files of which a flush failed, for all calls of the engine (main.c). */
extern struct qcow2_failures *failures;

/* What every verb may open besides: QCOW2_ALLOW and the system's file. */
extern struct qcow2_allow_list always_allowed;

/* Was the key one of the options that OPTION_FORMAT to OPTION_BACKING are? */
bool disk_args_take(struct disk_args *d, const struct args *a, int key);
void disk_args_free(struct disk_args *d);

/* For the disk's own file and those below it. */
void disk_args_set_cache(struct disk_args *d, enum qcow2_cache cache);

/* The verb is about to write, with locks: ends the program if -U was given,
 * and says why. No message advises -U from here on. */
void disk_args_need_locks(const struct disk_args *d, const struct args *a,
                          const char *why);

/* Ends the program if text, the name on the command line, said read-only=on;
 * disk_open does so itself. */
void disk_args_need_writable(const struct disk_args *d, const struct args *a,
                             const char *text);

/* The path or URI of the image with this name on the command line; what else
 * the name says goes to d->options. Ends the program if it is none (name.h).
 */
const char *disk_args_name(struct disk_args *d, const struct args *a,
                           const char *text);

/* Backing files may lie below this directory, or URI, or be this file. place
 * must live as long as *d. */
void disk_args_allow(struct disk_args *d, const char *place);

/* Opens and, on failure, reports. A path of a disk to be written whose
 * format was guessed to be raw gets a warning.
 */
struct qcow2_disk *disk_open(const char *path, const struct disk_args *d,
                             bool readonly);
/* The same for reading, and for an internal snapshot if not NULL: a word of
 * qcow2_open_snapshot. */
struct qcow2_disk *disk_open_view(const char *path,
                                  const struct disk_args *d,
                                  const char *snapshot);

/* EXIT_FAILURE, reported, if what was written may be lost; else status. */
int disk_close(struct qcow2_disk *disk, int status);

/* A name that the image at path has for a file, for use in the current
 * directory: relative ones start where the image is. URIs are not relative.
 * To be freed.
 */
char *disk_join_name(const char *path, const char *name);

/* Paths of all layers, from the disk itself down, as those above name them.
 * Neither fails.
 */
char **disk_layer_names(struct qcow2_disk *disk, const char *path,
                        const struct disk_args *d);
void disk_layer_names_free(struct qcow2_disk *disk, char **names);

/* --- Long operations (progress.c) ---------------------------------------- */

/* For one operation at a time. On a terminal there is a bar unless quiet;
 * else, if wanted, a line that ends in '\r' for each percent. SIGUSR1 shows
 * it at once. SIGINT, SIGTERM and SIGHUP cancel the operation.
 */
void progress_begin(bool wanted, bool quiet);
int progress_show(void *opaque, uint64_t done, uint64_t total); /* a
                                                * qcow2_progress_fn */
void progress_end(void);

/* From here on these signals only set what the second function returns, the
 * first time they come: for verbs that may not be cut short.
 */
void progress_catch_signals(void);
bool progress_interrupted(void);

/* For main: catches SIGUSR1; dies of the signal that was caught. */
void progress_init(void);
void progress_die_if_interrupted(void);

/* Bytes a second that progress_show lets pass; 0: all. */
void progress_limit_rate(uint64_t bytes_per_second);

/* Runs the job and frees it. 0, or EXIT_FAILURE with the error reported.
 * NULL with *err is a failure too.
 */
int job_finish(struct qcow2_job *job, bool progress, bool quiet,
               struct qcow2_error *err);

/* The same for a job that may change what snapshots read, which begin makes.
 * Where such a job is refused, as qemu-img there is a warning, and it is done.
 */
typedef struct qcow2_job *job_begin_fn(void *opaque,
                                       enum qcow2_left_to_backing snapshots,
                                       struct qcow2_error *err);
int job_finish_overlay(job_begin_fn *begin, void *opaque,
                       enum qcow2_left_to_backing snapshots, bool progress,
                       bool quiet);

#endif /* TOOL_H */
