/* SPDX-License-Identifier: BSD-3-Clause */
/* refcount-array.c: arrays of refcounts, many at once; see
 * refcount-array.h.
 */
#include "format/refcount-array.h"

#include <stdbool.h>
#include <string.h>

#include "base/checked.h"

uint64_t
refcount_max(unsigned order)
{
    return UINT64_MAX >> (64 - (1u << order));
}

/* 16 bits are what nearly all images have: worth loops of their own. */
enum { USUAL_ORDER = 4 };

/* Bytes of a refcount; 0: less than one. */
static size_t
width_of(unsigned order)
{
    return (1u << order) / 8;
}

/* A byte of narrow refcounts that are all 1. */
static unsigned
ones(unsigned order)
{
    return 0xff / ((1u << (1u << order)) - 1);
}

/* Do nr narrow refcounts fill bytes? */
static bool
fills_bytes(unsigned order, uint64_t idx, uint64_t nr)
{
    return is_aligned(idx | nr, 8u >> order);
}

/* Are nr > 0 refcounts known to be the same? In a row of clusters they mostly
 * are. */
static bool
all_same(const void *table, unsigned order, uint64_t idx, uint64_t nr)
{
    size_t width = width_of(order), nr_bytes = nr * width;
    const unsigned char *first = (const unsigned char *)table + idx * width;

    if (width == 0) {
        width = 1;
        nr_bytes = nr << order >> 3;
        first = (const unsigned char *)table + (idx << order >> 3);
        if (!fills_bytes(order, idx, nr)
            || *first != ones(order) * refcount_get(first, order, 0))
            return false;
    }
    return memcmp(first, first + width, nr_bytes - width) == 0;
}

/* Makes nr refcounts, of which all_same is true, n. */
static void
set_all(void *table, unsigned order, uint64_t idx, uint64_t nr, uint64_t n)
{
    size_t width = width_of(order), nr_bytes = nr * width;
    unsigned char *first = (unsigned char *)table + idx * width;

    if (width == 0) {
        memset((unsigned char *)table + (idx << order >> 3),
               ones(order) * n, nr << order >> 3);
        return;
    }
    refcount_set(first, order, 0, n);
    for (size_t done = width, more; done < nr_bytes; done += more) {
        more = min_u64(done, nr_bytes - done);
        memcpy(first + done, first, more);
    }
}

void
refcount_bounds(const void *table, unsigned order, uint64_t idx, uint64_t nr,
                uint64_t *least, uint64_t *most)
{
    uint64_t lo = UINT64_MAX, hi = 0;

    if (all_same(table, order, idx, nr)) {
        lo = hi = refcount_get(table, order, idx);
    } else if (order == USUAL_ORDER) {
        const be16 *t = (const be16 *)table + idx;

        for (uint64_t i = 0; i < nr; i++) {
            uint64_t refcount = be16_get(t[i]);

            lo = min_u64(lo, refcount);
            hi = max_u64(hi, refcount);
        }
    } else {
        for (uint64_t i = 0; i < nr; i++) {
            uint64_t refcount = refcount_get(table, order, idx + i);

            lo = min_u64(lo, refcount);
            hi = max_u64(hi, refcount);
        }
    }
    *least = lo;
    *most = hi;
}

void
refcount_add(void *table, unsigned order, uint64_t idx, uint64_t nr,
             int delta)
{
    if (all_same(table, order, idx, nr)) {
        set_all(table, order, idx, nr,
                refcount_get(table, order, idx) + delta);
    } else if (order == USUAL_ORDER) {
        be16 *t = (be16 *)table + idx;

        for (uint64_t i = 0; i < nr; i++)
            t[i] = be16_make(be16_get(t[i]) + delta);
    } else {
        for (uint64_t i = idx; i < idx + nr; i++)
            refcount_set(table, order, i,
                         refcount_get(table, order, i) + delta);
    }
}

uint64_t
refcount_run(const void *table, unsigned order, uint64_t idx, uint64_t nr)
{
    uint64_t first = refcount_get(table, order, idx), n = 1;

    if (all_same(table, order, idx, nr))
        return nr;
    while (n < nr && refcount_get(table, order, idx + n) == first)
        n++;
    return n;
}

/* Is one of four refcounts of 16 bits 0? */
static bool
has_zero(const be16 *t)
{
    uint64_t four;

    memcpy(&four, t, sizeof four);
    return ((four - UINT64_C(0x0001000100010001)) & ~four
            & UINT64_C(0x8000800080008000)) != 0;
}

uint64_t
refcount_find_zero(const void *table, unsigned order, uint64_t from,
                   uint64_t to)
{
    if (order == USUAL_ORDER) {
        const be16 *t = table;

        while (from + 4 <= to && !has_zero(t + from))
            from += 4;
        while (from < to && be16_get(t[from]) != 0)
            from++;
    } else {
        while (from < to && refcount_get(table, order, from) != 0)
            from++;
    }
    return from;
}
