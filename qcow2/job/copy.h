/* SPDX-License-Identifier: BSD-3-Clause */
/* copy.h: what commit, rebase and convert have in common: a disk is gone
 * through from its start, cut into chunks, and several threads read, work on
 * and write chunks at a time, as a step of a job.
 */
#ifndef QCOW2_COPY_H
#define QCOW2_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow2.h"

enum {
    /* Most bytes of a data chunk; they begin and end at multiples of it
     * where they can, so that every cluster lies in one chunk. */
    COPY_CHUNK_BYTES = 2 << 20,
    /* Of a zero chunk: most targets need no writing for it. */
    COPY_ZERO_BYTES = 32 << 20,
    COPY_MAX_THREADS = 64,
};

enum copy_kind {
    COPY_SKIP,  /* nothing to do */
    COPY_ZERO,  /* zeroes are to be written */
    COPY_DATA,  /* must be read to know */
};

struct copy_chunk {
    enum copy_kind kind;
    uint64_t guest_off;
    uint64_t nr_bytes;
    /* COPY_DATA: work space of the thread at hand, COPY_CHUNK_BYTES each.
     * buf begins with guest_off's byte. */
    unsigned char *buf, *space;
};

struct copy_ops {
    /* Says what is to be done from guest_off on, and how far (> 0, at most
     * nr_bytes) that holds. Called by one thread. */
    int (*plan)(void *opaque, uint64_t guest_off, uint64_t nr_bytes,
                enum copy_kind *kind, uint64_t *len,
                struct qcow2_error *err);

    /* Fills the buffers of a COPY_DATA chunk. Any thread, any order. */
    int (*read)(void *opaque, struct copy_chunk *c, struct qcow2_error *err);

    /* Writes a chunk of either kind: in the order of guest_off, one at a
     * time, or, out_of_order, from any thread. */
    int (*write)(void *opaque, struct copy_chunk *c,
                 struct qcow2_error *err);
};

struct copy {
    /* Filled by the operation. */
    const struct copy_ops *ops;
    void *opaque;
    uint64_t end;
    uint32_t align;     /* power of two up to COPY_CHUNK_BYTES: such a block
                         * is data as a whole if any of it is data */
    unsigned nr_threads;
    bool out_of_order;
    bool one_writer;    /* out_of_order, but one at a time */
    bool needs_space;   /* ops use chunk.space */

    /* Where the steps have come to; zero at first. */
    uint64_t scanned, pos;
    uint64_t nr_data, nr_done; /* bytes of data chunks: found, copied */
    unsigned char *buffers;
};

/* A step: 1 there is more, 0 end is reached, -1 failure (which leaves pos
 * where it was, and no thread behind). The first steps only count what there
 * is to do, so that progress can be told.
 */
int copy_step(struct copy *c, struct qcow2_error *err);

void copy_end(struct copy *c);

#endif /* QCOW2_COPY_H */
