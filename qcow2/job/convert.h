/* SPDX-License-Identifier: BSD-3-Clause */
/* convert.h: between convert.c (the job), convert-source.c (the disks copied
 * from, as one) and convert-target.c (where it goes).
 */
#ifndef QCOW2_CONVERT_H
#define QCOW2_CONVERT_H

#include "job/copy.h"
#include "qcow2.h"
#include "storage/path-policy.h"

/* Disks one behind the other, each from a multiple of 512 on. */
struct convert_source {
    struct convert_part *parts;
    size_t nr_parts;
    uint64_t size;          /* bytes of it that are to be copied, */
    uint64_t skip;          /* from this on */
    bool top_layers_only;   /* what lower layers hold is left out */
    bool ignore_errors;
};

int convert_source_init(struct convert_source *s,
                        struct qcow2_disk *const *disks, size_t nr_disks,
                        const struct qcow2_convert_options *o,
                        struct qcow2_error *err);
void convert_source_free(struct convert_source *s);

/* As copy_ops.plan. */
int convert_source_plan(const struct convert_source *s, uint64_t off,
                        uint64_t nr_bytes, enum copy_kind *kind,
                        uint64_t *len, struct qcow2_error *err);
int convert_source_read(const struct convert_source *s, void *buf,
                        size_t nr_bytes, uint64_t off,
                        struct qcow2_error *err);

/* Is the file, or the export with its URI, one that is read? */
bool convert_source_has_file(const struct convert_source *s,
                             const struct policy_file *file);

/* The mode of a new file with what is read: what all files that are read
 * allow; 0600 where something else is read. */
mode_t convert_source_mode(const struct convert_source *s);

/* Is some of it read over a network, or may be? */
bool convert_source_is_remote(const struct convert_source *s);

struct convert_target {
    struct qcow2_disk *disk;
    bool reads_zero;        /* what was not written */
    bool allocate_all, compress;
    int compress_level;
    uint32_t block_bytes;   /* unit in which zeroes are looked for in data */
    struct policy_target file; /* a file to be removed on failure, if it was
                             * created */
    enum qcow2_preallocation prealloc;
    uint64_t preallocated;  /* bytes so far */
};

/* Creates (if told to) and opens the target of a source. On failure
 * convert_target_close is still to be called.
 */
int convert_target_open(struct convert_target *t, const char *path,
                        const struct convert_source *source,
                        const struct qcow2_convert_options *o,
                        struct qcow2_error *err);

/* The same with a disk that is open already, and is the target's then;
 * options->no_create is set. */
int convert_target_take(struct convert_target *t, struct qcow2_disk *disk,
                        const char *path, const struct convert_source *source,
                        const struct qcow2_convert_options *o,
                        struct qcow2_error *err);

/* As qcow2_convert, to that disk; takes it over, also on failure. */
struct qcow2_job *convert_new(struct qcow2_disk *const *sources,
                              size_t nr_sources, struct qcow2_disk *target,
                              const struct qcow2_convert_options *options,
                              struct qcow2_error *err);

/* A step of preallocating the disk: 1 there is more, 0 it is done. */
int convert_target_preallocate(struct convert_target *t,
                               struct qcow2_error *err);

/* Has the steps above begin again: an image that was written to may have given
 * back clusters of zeroes. */
void convert_target_restart_preallocation(struct convert_target *t);

/* A regular file: the kernel lets one write at a time, and the others spin,
 * where they could read.
 */
bool convert_target_is_file(const struct convert_target *t);

/* Unit of whole blocks that chunks are made of. */
uint32_t convert_target_align(const struct convert_target *t);

/* Work on a data chunk that any thread can do, and the writing. */
int convert_target_prepare(const struct convert_target *t,
                           struct copy_chunk *c, struct qcow2_error *err);
int convert_target_write(const struct convert_target *t,
                         struct copy_chunk *c, struct qcow2_error *err);

/* complete: flushes, and keeps the file. Otherwise the error does not
 * matter. */
int convert_target_close(struct convert_target *t, bool complete,
                         struct qcow2_error *err);

#endif /* QCOW2_CONVERT_H */
