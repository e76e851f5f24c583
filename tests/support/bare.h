/* SPDX-License-Identifier: BSD-3-Clause */
/* bare.h: an image from a recipe, in memory, as the files below the request
 * layer know it: for unit tests of single files.
 */
#ifndef BARE_H
#define BARE_H

#include "builder.h"
#include "cache/cache.h"
#include "io-fault.h"
#include "io-mem.h"
#include "meta/image.h"

struct bare {
    struct builder *recipe;
    struct cache *meta;
    struct decompress_pool *decompress;
    struct mem *mem;
    struct fault_plan plan;     /* counts what is done to it, and fails it */
    struct image *img;
};

/* Opens it for writing; a failure ends the cmocka test. */
void bare_open(struct bare *b, const char *recipe);

/* The same on a block device of that many bytes. */
void bare_open_device(struct bare *b, const char *recipe, uint64_t nr_bytes);

/* In steps, where opening may fail. */
void bare_start(struct bare *b, const char *recipe, uint64_t device_bytes);
struct image *bare_try(struct bare *b, struct qcow2_error *err);

/* Closes it; nothing is damaged or leaked. */
void bare_close(struct bare *b);

/* Closes it without writing, and without a look at it. */
void bare_drop(struct bare *b);

#endif /* BARE_H */
