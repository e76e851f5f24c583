/* SPDX-License-Identifier: BSD-3-Clause */
/* jobs.h: operations on whole files, to be cut short and to fail: creation,
 * conversion, commit, rebase, repair, and the repair that opening a dirty
 * image begins with.
 */
#ifndef JOBS_H
#define JOBS_H

#include <stdbool.h>

#include "builder.h"
#include "io-mem.h"
#include "qcow2.h"

enum job_kind {
    JOB_CREATE, JOB_CREATE_ON_DEVICE, JOB_CONVERT, JOB_COMPRESS, JOB_COMMIT,
    JOB_REBASE, JOB_REBASE_HEADER, JOB_REPAIR, JOB_OPEN_DIRTY
};

struct job_scene {
    const char *name;
    enum job_kind kind;
    const char *file;  /* recipe of the file that changes; NULL: none */
    const char *below; /* of its backing file, which commit changes too */
    const char *other; /* of what is converted, or rebased to; or NULL */
};

extern const struct job_scene job_scenes[];
extern const unsigned nr_job_scenes;

/* Files that it changes: 0 the image, and of a commit 1 the base. */
enum { MAX_JOB_FILES = 2 };

struct job_trial {
    const struct job_scene *scene;
    struct qcow2_pool *pool;
    struct qcow2_failures *failures; /* or NULL; the test's */
    struct builder *image, *below, *other;
    unsigned nr_files;
    struct mem *files[MAX_JOB_FILES]; /* as they are before; kept */
    uint64_t size, base_size;       /* bytes of the disks */
    unsigned char *before, *after;  /* what the image shows */
    unsigned char *held;            /* commit: what the base showed */
    bool *own;                      /* commit: bytes the base lends not */
};

void job_begin(struct job_trial *t, const struct job_scene *scene);
void job_end(struct job_trial *t);

/* The image on io as it is in the temporary directory; backing files lie
 * there. alone: without them. */
struct qcow2_disk *job_open_io(struct job_trial *t, struct io *io,
                               bool readonly, bool alone,
                               struct qcow2_error *err);

/* Does it, on backends of the files, which it takes over. */
int job_run(struct job_trial *t, struct io *const *io,
            struct qcow2_error *err);

/* What must hold of one of the files, cut short anywhere or (done) after it
 * returned 0: no corruption, at worst leaks; it shows what it did or what it
 * shall, and if done the latter; snapshots hold what they held; all of it
 * can be written, and repair ends all that is not in order. m changes.
 */
void job_check(struct job_trial *t, unsigned file, struct mem *m, bool done);

/* Commit: the overlay on the base reads as ever. Nothing for the others. */
void job_check_together(struct job_trial *t, struct mem *const *files);

/* Both of all files, of which copies are used up. */
void job_check_files(struct job_trial *t, struct mem *const *files,
                     bool done);

#endif /* JOBS_H */
