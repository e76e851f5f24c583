/* SPDX-License-Identifier: BSD-3-Clause */
/* check-public.h: the public interface of check and repair. */
#ifndef QCOW2_CHECK_PUBLIC_H
#define QCOW2_CHECK_PUBLIC_H

#include "qcow2.h"

enum qcow2_severity {
    QCOW2_CORRUPTION, /* data or structure is, or will be, damaged */
    QCOW2_LEAK,       /* space in the file that nothing uses */
    QCOW2_INFO,       /* worth knowing */
};

/* One thing that is wrong. Strings are valid during the callback. */
struct qcow2_problem {
    const char *code;      /* short and stable, as "refcount-too-low" */
    const char *text;      /* one sentence, with the numbers */
    enum qcow2_severity severity;
    const char *remedy;    /* what repair does; NULL: nothing it could do
                            * without losing something */
    uint64_t host_off;     /* of the entry or cluster that is wrong */
    uint64_t nr_clusters;  /* with just this problem, from there on */
};
typedef void qcow2_problem_fn(void *opaque, const struct qcow2_problem *p);

/* One write of a repair, before it is made. */
struct qcow2_repair_write {
    uint64_t host_off;
    size_t nr_bytes;
    const void *old_bytes; /* past the file's end: zeroes */
    const void *new_bytes;
    uint64_t file_size;    /* before the write */
    const char *why;       /* a few words */
};
typedef int qcow2_repair_write_fn(void *opaque,
                                  const struct qcow2_repair_write *w);

enum qcow2_repair {
    QCOW2_REPAIR_NONE = 0,
    QCOW2_REPAIR_LEAKS, /* only what leaks is given back */
    QCOW2_REPAIR_ALL,
};

struct qcow2_check_options {
    enum qcow2_repair repair;
    bool plan;      /* say by `write` what would be written; write nothing */
    bool no_lock;

    /* All may be NULL. problem: called for each problem found first, then,
     * if something was repaired, with recheck, for each that is left.
     * write: called before each write of a repair; when it returns not 0,
     * the repair ends there (ECANCELED). To undo a repair, put old_bytes
     * back in reverse order and cut the file to the first file_size; so
     * that this survives a power cut, `write` must make what it keeps
     * durable before it returns. progress: not 0 cancels.
     */
    qcow2_problem_fn *problem;
    void (*recheck)(void *opaque);
    qcow2_repair_write_fn *write;
    qcow2_progress_fn *progress;
    void *opaque;
};

/* Figures have the names and meanings of qemu-img check --output=json. */
struct qcow2_check_result {
    uint64_t image_end_offset;
    uint64_t total_clusters, allocated_clusters;
    uint64_t fragmented_clusters, compressed_clusters;
    uint64_t corruptions, leaks;             /* left when it returned */
    uint64_t corruptions_fixed, leaks_fixed;
};

/* Checks the qcow2 image at path, and repairs it if told to. -1 if that
 * could not be done to the end; an image with problems is not an error.
 * Backing files are not looked at. Nothing is ever written unless repair
 * is set and plan is not. A repair that is cut short leaves the image no
 * worse than it was.
 */
QCOW2_PUBLIC int qcow2_check(const char *path,
                             const struct qcow2_check_options *options,
                             struct qcow2_check_result *result,
                             struct qcow2_error *err);

#endif /* QCOW2_CHECK_PUBLIC_H */
