/* SPDX-License-Identifier: BSD-3-Clause */
/* play.h: plays requests on a disk and a model, and compares. */
#ifndef PLAY_H
#define PLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "model.h"
#include "qcow2.h"
#include "rng.h"
#include "storage/io.h"

enum op_kind {
    OP_READ, OP_WRITE, OP_ZERO, OP_TRIM, OP_FLUSH, OP_EXTENTS, OP_REOPEN
};

struct op {
    enum op_kind kind;
    uint64_t off, nr_bytes;
    unsigned flags; /* QCOW2_FUA … */
    uint64_t seed;  /* of what is written */
};

enum play_event {
    PLAY_SENT,
    PLAY_ANSWERED,
    PLAY_DURABLE, /* answered, and it promises durability */
};

/* A disk being played on. */
struct play {
    struct qcow2_disk *disk;
    struct model model;
    uint32_t cluster_size;
    uint32_t subcluster_size; /* 0: clusters have none */
    bool may_keep_trimmed; /* v2 on a backing file: trim may do nothing */
    bool must_be_fast;     /* v3: fast zeroing of clusters works */
    struct io *host;       /* to look up extents in, or NULL */
    unsigned char *scratch;

    /* The moment it is, for a model that remembers; NULL: always 0. */
    uint64_t (*now)(void *opaque, enum play_event event);
    void *opaque;
};

/* disk[0, size) is how the disk reads. The disk is opened by the caller. */
void play_init(struct play *p, const void *content, uint64_t size);
void play_free(struct play *p);

/* What is trimmed as a whole, and what is allocated. */
uint32_t play_unit(const struct play *p);

/* Any request; lengths and alignments as guests have them: mostly small,
 * mostly aligned to something. */
struct op play_random(const struct play *p, struct rng *r, uint64_t seed);

const char *play_text(const struct op *op); /* valid until the next call */

/* Does it; not OP_REOPEN. 0, or -1 with *err set when the engine said so:
 * then the model knows that it may have been done in part only where it
 * remembers. Content that differs fails the cmocka test.
 */
int play_op(struct play *p, const struct op *op, struct qcow2_error *err);

/* The whole disk reads as the model. */
void play_verify(struct play *p);

#endif /* PLAY_H */
