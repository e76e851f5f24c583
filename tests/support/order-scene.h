/* SPDX-License-Identifier: BSD-3-Clause */
/* order-scene.h: an image on the backend that asserts the order of writes,
 * and hands to write to it by.
 *
 * The image has clusters of 512 bytes: data in guest clusters 0 and 1, and
 * free clusters at its end, of which `fresh` was never written and `stale`
 * holds somebody's old bytes.
 */
#ifndef ORDER_SCENE_H
#define ORDER_SCENE_H

#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "io-mem.h"
#include "io-order.h"
#include "rng.h"

enum { CLUSTER = 512 };

#define COPIED (UINT64_C(1) << 63)
#define ZERO   UINT64_C(1)

#define TWO_CLUSTERS "data 0-1 5"

struct scene {
    struct mem *mem;
    struct io *io;
    struct order_report report;
    uint64_t l1, l2, reftable, refblock; /* host offsets */
    uint64_t data[2], fresh, stale, fresh2;
};

static inline uint64_t
get(struct scene *s, uint64_t off, unsigned nr_bytes)
{
    unsigned char buf[8];
    uint64_t n = 0;

    assert_int_equal(io_pread(s->io, buf, nr_bytes, off, NULL), 0);
    for (unsigned i = 0; i < nr_bytes; i++)
        n = n << 8 | buf[i];
    return n;
}

static inline void
put(struct scene *s, uint64_t off, unsigned nr_bytes, uint64_t n)
{
    unsigned char buf[8];

    for (unsigned i = nr_bytes; i-- > 0; n >>= 8)
        buf[i] = n;
    assert_int_equal(io_pwrite(s->io, buf, nr_bytes, off, NULL), 0);
}

static inline void
set_up(struct scene *s, const char *recipe)
{
    struct builder *b = builder_new();
    unsigned char junk[CLUSTER];
    const unsigned char *bytes;
    struct io *plain;
    size_t nr_bytes;

    memset(s, 0, sizeof *s);
    builder_add(b, "cluster 512; size 64K; %s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    s->mem = mem_new(bytes, nr_bytes);
    builder_free(b);

    /* Past all that the image has, whole clusters on. */
    s->stale = (nr_bytes + 4 * CLUSTER) / CLUSTER * CLUSTER;
    s->fresh = s->stale + CLUSTER;
    s->fresh2 = s->fresh + CLUSTER;
    memset(junk, 0x77, sizeof junk);
    plain = io_mem_open(s->mem, false);
    io_pwrite(plain, junk, CLUSTER, s->stale, NULL);
    s->io = io_order_new(plain, &s->report);

    s->l1 = get(s, 40, 8);
    s->l2 = get(s, s->l1, 8) & ~COPIED;
    s->reftable = get(s, 48, 8);
    s->refblock = get(s, s->reftable, 8);
    for (int i = 0; i < 2; i++)
        s->data[i] = get(s, s->l2 + 8 * i, 8) & ~COPIED;
}

static inline void
tear_down(struct scene *s)
{
    io_close(s->io);
    mem_free(s->mem);
}

/* The steps that allocations are made of. */

static inline void
fill_cluster(struct scene *s, uint64_t off)
{
    unsigned char buf[CLUSTER];

    memset(buf, 'd', sizeof buf);
    assert_int_equal(io_pwrite(s->io, buf, sizeof buf, off, NULL), 0);
}

/* Slices are written as a whole: here they are clusters. */
static inline void
put_in_slice(struct scene *s, uint64_t off, unsigned nr_bytes, uint64_t n)
{
    unsigned char slice[CLUSTER];
    uint64_t start = off / CLUSTER * CLUSTER;

    assert_int_equal(io_pread(s->io, slice, CLUSTER, start, NULL), 0);
    for (unsigned i = nr_bytes; i-- > 0; n >>= 8)
        slice[off - start + i] = n;
    assert_int_equal(io_pwrite(s->io, slice, CLUSTER, start, NULL), 0);
}

static inline void
set_refcount(struct scene *s, uint64_t off, unsigned n)
{
    put_in_slice(s, s->refblock + off / CLUSTER * 2, 2, n);
}

static inline void
set_l2(struct scene *s, unsigned index, uint64_t entry)
{
    put_in_slice(s, s->l2 + 8 * index, 8, entry);
}

static inline void
flush(struct scene *s)
{
    assert_int_equal(io_flush(s->io, NULL), 0);
}

static inline void
expect_in_order(struct scene *s)
{
    EXPECT(s->report.nr_violations == 0, "%s", s->report.first);
    tear_down(s);
}

static inline void
expect_violation(struct scene *s, const char *what)
{
    EXPECT(s->report.nr_violations > 0, "not seen: %s", what);
    EXPECT(strstr(s->report.first, what), "%s instead of %s",
           s->report.first, what);
    tear_down(s);
}

#endif /* ORDER_SCENE_H */
