/* SPDX-License-Identifier: BSD-3-Clause */
/* counters.c: sparse numbers; see counters.h.
 *
 * Leaves of 256 clusters each: found by their index where that is below the
 * number of slots, as all are of a file in use from end to end, else in a
 * hash. Numbers begin 2 bits wide, as most clusters have few references, and a
 * leaf is widened when one of its numbers outgrows it: 8 TiB of 64 KiB
 * clusters take less than 64 MiB.
 */
#include "cache/counters.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/refcount-array.h"

enum {
    LEAF_BITS = 8,
    LEAF_ENTRIES = 1 << LEAF_BITS,
    FIRST_ORDER = 1,
};

/* An image made to need more is not worth it: this is enough for 50 TiB in
 * clusters of 64 KiB, or 512 GiB in clusters of 512 bytes. */
#define MAX_BYTES (UINT64_C(512) << 20)

struct counters_leaf {
    uint64_t key;               /* cluster >> LEAF_BITS */
    uint64_t most;              /* that a number can be */
    unsigned order;             /* numbers are 1 << order bits wide */
    unsigned char numbers[];
};

static size_t
leaf_bytes(unsigned order)
{
    return sizeof(struct counters_leaf) + ((LEAF_ENTRIES / 8u) << order);
}

void
counters_free(struct counters *c)
{
    for (size_t i = 0; i < c->nr_slots; i++) {
        free(c->slots[i]);
        free(c->direct[i]);
    }
    free(c->slots);
    free(c->direct);
    free(c->keys);
    memset(c, 0, sizeof *c);
}

/* The slot of key, or the free one where it belongs. There is always a free
 * one. The address keeps whoever made the image from choosing keys that meet
 * in one slot. */
static size_t
find_slot(const struct counters *c, uint64_t key)
{
    uint64_t h = (key ^ (uintptr_t)c->slots) * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (h ^ h >> 32) * UINT64_C(0x9e3779b97f4a7c15) >> 16
               & (c->nr_slots - 1);

    while (c->slots[i] && c->slots[i]->key != key)
        i = (i + 1) & (c->nr_slots - 1);
    return i;
}

/* Likewise, of either kind. There are slots. */
static struct counters_leaf **
place_of(const struct counters *c, uint64_t key)
{
    return key < c->nr_slots ? &c->direct[key]
                             : &c->slots[find_slot(c, key)];
}

static int
account(struct counters *c, uint64_t nr_bytes, struct qcow2_error *err)
{
    if (nr_bytes > MAX_BYTES - c->nr_bytes)
        return error_set(err, ENOMEM, "counting its references takes more "
                         "than %" PRIu64 " MiB of memory", MAX_BYTES >> 20);
    c->nr_bytes += nr_bytes;
    return 0;
}

static void
move_leaves(struct counters *to, struct counters_leaf **from, size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        if (from[i])
            *place_of(to, from[i]->key) = from[i];
}

static int
grow(struct counters *c, struct qcow2_error *err)
{
    struct counters bigger = *c;

    bigger.nr_slots = c->nr_slots ? c->nr_slots * 2 : 64;
    if (account(&bigger, (bigger.nr_slots - c->nr_slots)
                             * (sizeof *c->slots + sizeof *c->direct),
                err) == -1)
        return -1;
    bigger.slots = calloc(bigger.nr_slots, sizeof *bigger.slots);
    bigger.direct = calloc(bigger.nr_slots, sizeof *bigger.direct);
    if (!bigger.slots || !bigger.direct) {
        free(bigger.slots);
        free(bigger.direct);
        return error_nomem(err);
    }
    move_leaves(&bigger, c->slots, c->nr_slots);
    move_leaves(&bigger, c->direct, c->nr_slots);
    free(c->slots);
    free(c->direct);
    *c = bigger;
    return 0;
}

static struct counters_leaf *
find_leaf(struct counters *c, uint64_t key)
{
    if (!c->last || c->last->key != key)
        c->last = c->nr_slots ? *place_of(c, key) : NULL;
    return c->last;
}

/* The leaf, with numbers at least as wide as order; made if there is none. */
static struct counters_leaf *
make_leaf(struct counters *c, uint64_t key, unsigned order,
          struct qcow2_error *err)
{
    struct counters_leaf *old = find_leaf(c, key), *leaf;

    if (old && old->order >= order)
        return old;
    if (!old && c->nr_leaves >= c->nr_slots / 2 && grow(c, err) == -1)
        return NULL;
    if (account(c, leaf_bytes(order), err) == -1)
        return NULL;
    leaf = calloc(1, leaf_bytes(order));
    if (!leaf) {
        error_nomem(err);
        return NULL;
    }
    leaf->key = key;
    leaf->order = order;
    leaf->most = refcount_max(order);
    if (old) {
        for (unsigned i = 0; i < LEAF_ENTRIES; i++)
            refcount_set(leaf->numbers, order, i,
                         refcount_get(old->numbers, old->order, i));
        c->nr_bytes -= leaf_bytes(old->order);
    } else {
        c->nr_leaves++;
    }
    *place_of(c, key) = leaf;
    free(old);
    c->last = leaf;
    return leaf;
}

uint64_t
counters_get(struct counters *c, uint64_t cluster)
{
    struct counters_leaf *leaf = find_leaf(c, cluster >> LEAF_BITS);

    return leaf ? refcount_get(leaf->numbers, leaf->order,
                               cluster % LEAF_ENTRIES) : 0;
}

int
counters_set(struct counters *c, uint64_t cluster, uint64_t n,
           struct qcow2_error *err)
{
    unsigned order = FIRST_ORDER;
    struct counters_leaf *leaf;

    while (n > refcount_max(order))
        order++;
    leaf = make_leaf(c, cluster >> LEAF_BITS, order, err);
    if (!leaf)
        return -1;
    refcount_set(leaf->numbers, leaf->order, cluster % LEAF_ENTRIES, n);
    return 0;
}

int
counters_add(struct counters *c, uint64_t cluster, uint64_t n,
           struct qcow2_error *err)
{
    struct counters_leaf *leaf = find_leaf(c, cluster >> LEAF_BITS);
    uint64_t i = cluster % LEAF_ENTRIES, sum = n;

    if (leaf
        && __builtin_add_overflow(refcount_get(leaf->numbers, leaf->order, i),
                                  n, &sum))
        sum = UINT64_MAX;
    if (!leaf || sum > leaf->most)
        return counters_set(c, cluster, sum, err);
    refcount_set(leaf->numbers, leaf->order, i, sum);
    return 0;
}

uint64_t
counters_run(struct counters *c, uint64_t cluster, uint64_t nr,
           uint64_t *number)
{
    struct counters_leaf *leaf = find_leaf(c, cluster >> LEAF_BITS);
    uint64_t i = cluster % LEAF_ENTRIES, part = min_u64(nr,
                                                        LEAF_ENTRIES - i);

    *number = leaf ? refcount_get(leaf->numbers, leaf->order, i) : 0;
    return leaf ? refcount_run(leaf->numbers, leaf->order, i, part) : part;
}

/* Adds n to a part of a leaf, if that is simple. */
static bool
add_to_leaf(struct counters_leaf *leaf, uint64_t i, uint64_t nr, uint64_t n)
{
    uint64_t least, most;

    refcount_bounds(leaf->numbers, leaf->order, i, nr, &least, &most);
    if (n > INT_MAX || n > leaf->most - most)
        return false;
    refcount_add(leaf->numbers, leaf->order, i, nr, n);
    return true;
}

int
counters_add_range(struct counters *c, uint64_t cluster, uint64_t nr,
                   uint64_t n, struct qcow2_error *err)
{
    for (uint64_t part; nr > 0; nr -= part, cluster += part) {
        uint64_t i = cluster % LEAF_ENTRIES;
        struct counters_leaf *leaf = make_leaf(c, cluster >> LEAF_BITS,
                                             FIRST_ORDER, err);

        if (!leaf)
            return -1;
        part = min_u64(nr, LEAF_ENTRIES - i);
        if (add_to_leaf(leaf, i, part, n))
            continue;
        for (uint64_t j = 0; j < part; j++)
            if (counters_add(c, cluster + j, n, err) == -1)
                return -1;
    }
    return 0;
}

static int
compare_keys(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int
counters_sort(struct counters *c, struct qcow2_error *err)
{
    free(c->keys);
    c->nr_keys = c->at = 0;
    c->keys = malloc((c->nr_leaves + 1) * sizeof *c->keys);
    if (!c->keys)
        return error_nomem(err);
    for (size_t i = 0; i < c->nr_slots; i++) {
        if (c->slots[i])
            c->keys[c->nr_keys++] = c->slots[i]->key;
        if (c->direct[i])
            c->keys[c->nr_keys++] = i;
    }
    qsort(c->keys, c->nr_keys, sizeof *c->keys, compare_keys);
    return 0;
}

/* Moves c->at to the first key that is at least `key`. */
static void
seek(struct counters *c, uint64_t key)
{
    size_t low = 0, high = c->nr_keys;

    if (c->at < high && c->keys[c->at] == key)
        return;
    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (c->keys[mid] < key)
            low = mid + 1;
        else
            high = mid;
    }
    c->at = low;
}

bool
counters_next(struct counters *c, uint64_t *cluster, uint64_t end)
{
    uint64_t i = *cluster;

    for (seek(c, i >> LEAF_BITS); i < end && c->at < c->nr_keys; c->at++) {
        uint64_t key = c->keys[c->at];
        struct counters_leaf *leaf = find_leaf(c, key);

        if (i >> LEAF_BITS != key)
            i = key << LEAF_BITS;
        for (; i < end && i >> LEAF_BITS == key; i++)
            if (refcount_get(leaf->numbers, leaf->order, i % LEAF_ENTRIES)) {
                *cluster = i;
                return true;
            }
    }
    return false;
}
