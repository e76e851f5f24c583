/* SPDX-License-Identifier: BSD-3-Clause */
/* contents.h: all that an image holds: the disk, and its snapshots with their
 * sizes and VM states; and the operations that change more than bytes of the
 * disk, done to an image and to a model of it.
 */
#ifndef CONTENTS_H
#define CONTENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "builder.h"
#include "qcow2.h"
#include "rng.h"

struct saved {
    char id[32], name[32];
    unsigned char *disk;
    uint64_t size;
    unsigned char *vm_state;
    uint64_t vm_state_size;
};

struct contents {
    unsigned char *disk;
    uint64_t size;
    struct saved *saved; /* in the table's order */
    unsigned nr;
};

/* content is copied; NULL: zeroes. */
void contents_init(struct contents *c, const void *content, uint64_t size);
void contents_free(struct contents *c);
void contents_copy(struct contents *to, const struct contents *from);

/* It is what a recipe builds on a layer that shows below[0, nr_below). */
void contents_expect_built(const struct contents *c, const struct builder *b,
                           const void *below, uint64_t nr_below);

/* All that the engine shows of an image; a failure ends the cmocka test. */
void contents_read(struct contents *c, struct qcow2_disk *disk);

/* The first difference in words, valid until the next call; NULL: none.
 * contents_differ_in_saved does not look at the disk's bytes. */
const char *contents_differ(const struct contents *got,
                            const struct contents *want);
const char *contents_differ_in_saved(const struct contents *got,
                                     const struct contents *want);

/* The image holds exactly that. */
void contents_expect(struct qcow2_disk *disk, const struct contents *want);

enum whole_kind {
    WHOLE_CREATE, WHOLE_APPLY, WHOLE_DELETE, WHOLE_RESIZE, WHOLE_PREALLOCATE,
    WHOLE_AMEND
};

struct whole_op {
    enum whole_kind kind;
    unsigned i;             /* APPLY, DELETE: which snapshot */
    unsigned number;        /* CREATE: it is named s<number> */
    uint64_t vm_state_size; /* CREATE: 0: none */
    uint64_t size;          /* RESIZE */
    uint64_t off, nr_bytes; /* PREALLOCATE */
    enum qcow2_preallocation mode;
    struct qcow2_amend_options amend;
};

const char *whole_text(const struct whole_op *op); /* until the next call */

/* What it makes of the model. */
void whole_model(struct contents *c, const struct whole_op *op);

/* Does it to the image, of which c is the model, which stays as it is. */
int whole_run(struct qcow2_disk *disk, const struct contents *c,
              const struct whole_op *op, struct qcow2_error *err);

/* Any that makes sense; sizes up to max_size, multiples of `unit`. */
struct whole_op whole_random(const struct contents *c, struct rng *r,
                             uint32_t cluster_size, uint64_t max_size,
                             unsigned unit, unsigned number);

#endif /* CONTENTS_H */
