/* SPDX-License-Identifier: BSD-3-Clause */
/* layers.h: random backing chains in the temporary directory, of layers of
 * any version and geometry, and what each of them shows.
 */
#ifndef LAYERS_H
#define LAYERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "builder.h"
#include "qcow2.h"
#include "rng.h"

enum { MAX_TEST_LAYERS = 6 };

struct test_layer {
    bool raw, extended; /* L2 entries */
    unsigned version, cluster_bits;
    uint64_t size;
    char name[16];          /* in the temporary directory */
    struct builder *image;  /* NULL: raw */
    unsigned char *shows;   /* of size: what it reads as, on those below */
};

/* Layer 0 is at the bottom, and may be raw. */
struct layers {
    struct rng *rng;
    unsigned nr;
    bool snapshots;
    struct test_layer layer[MAX_TEST_LAYERS];
    uint64_t next_seed;
};

/* Makes nr layers, whose sizes are multiples of 512. The top one has
 * snapshots if told to: "first" and "second". prefix sets several chains
 * apart.
 */
void layers_make(struct layers *l, struct rng *rng, unsigned nr,
                 bool snapshots, const char *prefix);
void layers_free(struct layers *l);

struct test_layer *layers_top(struct layers *l);

/* In words, for expect_case. */
const char *layers_text(const struct layers *l);

/* Opens an image of the temporary directory, read-only. */
struct qcow2_disk *layers_open(const char *name, enum qcow2_format format);

/* What a disk reads as; the caller frees it. */
unsigned char *layers_read(struct qcow2_disk *disk);

/* The image named `name` reads as content[0, nr_bytes), by the engine and by
 * the other implementation, and a check finds it clean. */
void layers_expect(const char *name, enum qcow2_format format,
                   const unsigned char *content, uint64_t nr_bytes);

/* The snapshots of the top layer hold what they held, on a layer below that
 * shows below[0, nr_bytes). */
void layers_expect_snapshots(const struct layers *l,
                             const unsigned char *below, uint64_t nr_bytes);

/* Do they show something else on a layer below that shows new[0, nr_new) than
 * on one that shows old[0, nr_old)? */
bool layers_snapshots_differ(const struct layers *l,
                             const unsigned char *old, uint64_t nr_old,
                             const unsigned char *new, uint64_t nr_new);

#endif /* LAYERS_H */
