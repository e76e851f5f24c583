/* SPDX-License-Identifier: BSD-3-Clause */
/* chain.h: opens the backing layers of a disk, each name by the path policy
 * (path-policy.h), and shares them between disks (pool.h).
 */
#ifndef QCOW2_CHAIN_H
#define QCOW2_CHAIN_H

#include "disk/pool.h"

/* A file at which opening a chain stops: neither it nor what is
 * below it is opened.
 */
struct chain_stop {
    uint64_t dev, ino;      /* 0: the first backing file, whatever it is */

    /* What was found out: */
    bool reached;           /* the file is in the chain */
    unsigned depth;         /* as a layer: the first backing file has 1 */
    struct policy_file file;  /* to open it by; the caller frees it */
    enum qcow2_format format;
    bool guessed;           /* raw, as it looks like nothing else */
};

/* Decides what the backing file of the image at `path` is, which says this of
 * it, was opened with options, and is in this place (NULL: where path is); has
 * the path policy decide on its name, and opens it and all below it, up to
 * stop (which may be NULL). *top is NULL if there is none. Iterative: depth
 * costs no stack.
 */
int chain_open(struct qcow2_pool *pool, const char *path,
               const struct policy_place *place,
               const struct backing_name *says,
               const struct qcow2_options *options,
               uint64_t dev, uint64_t ino, struct chain_stop *stop,
               struct layer **top, struct qcow2_error *err);

/* The format that an image declares its backing file to have; *format stays
 * as it is if declared is NULL. ENOTSUP for what there is no driver for.
 */
int chain_declared_format(const char *declared, enum qcow2_format *format,
                          struct qcow2_error *err);

/* A chain with `top`, the caller's, as layer 0, and below it (NULL: nothing)
 * layers of the pool, whose use it takes over, also on failure.
 */
struct source_chain *chain_new(struct qcow2_pool *pool, struct source *top,
                               struct layer *below, struct qcow2_error *err);

/* The same layers below another top. */
struct source_chain *chain_new_beside(const struct source_chain *chain,
                                      struct source *top,
                                      struct qcow2_error *err);

#endif /* QCOW2_CHAIN_H */
