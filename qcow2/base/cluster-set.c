/* SPDX-License-Identifier: BSD-3-Clause */
/* cluster-set.c: a set of host clusters; see cluster-set.h. */
#include "base/cluster-set.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/shared.h"

/* Open addressing with linear probing. A slot holds a host cluster index
 * plus one; 0 is empty, TOMBSTONE was removed. Beside the clusters stand the
 * regions that had one of them ever: most runs of data meet none. */
struct cluster_table {
    struct cluster_table *next;
    uint64_t mask;
    uint64_t nr_used;           /* tombstones included */
    shared_u64 slots[];         /* atomic */
};
#define TOMBSTONE UINT64_MAX
#define REGION_BITS 6

static uint64_t
region_of(uint64_t host_cluster)
{
    return UINT64_C(1) << 63 | host_cluster >> REGION_BITS;
}

static struct cluster_table *
table_new(uint64_t nr_slots)
{
    struct cluster_table *t = calloc(1, sizeof *t
                                            + nr_slots * sizeof t->slots[0]);

    if (t)
        t->mask = nr_slots - 1;
    return t;
}

/* The address keeps whoever made the image from choosing values that meet in
 * one slot. */
static uint64_t
slot_of(const struct cluster_table *t, uint64_t value)
{
    uint64_t h = (value ^ (uintptr_t)t) * UINT64_C(0x9e3779b97f4a7c15);

    h ^= h >> 32;
    return (h * UINT64_C(0x9e3779b97f4a7c15) >> 20) & t->mask;
}

int
cluster_set_init(struct cluster_set *set, struct qcow2_error *err)
{
    memset(set, 0, sizeof *set);
    pthread_mutex_init(&set->lock, NULL);
    set->table = table_new(64);
    return set->table ? 0 : error_nomem(err);
}

void
cluster_set_destroy(struct cluster_set *set)
{
    while (set->retired) {
        struct cluster_table *next = set->retired->next;

        free(set->retired);
        set->retired = next;
    }
    free(set->table);
    pthread_mutex_destroy(&set->lock);
}

static bool
table_has(const struct cluster_table *t, uint64_t value)
{
    for (uint64_t i = slot_of(t, value);; i = (i + 1) & t->mask) {
        uint64_t slot = __atomic_load_n(&t->slots[i], __ATOMIC_RELAXED);

        if (slot == value)
            return true;
        if (slot == 0)
            return false;
    }
}

static void
table_insert(struct cluster_table *t, uint64_t value)
{
    uint64_t i = slot_of(t, value);

    while (t->slots[i] != 0)
        i = (i + 1) & t->mask;
    __atomic_store_n(&t->slots[i], value, __ATOMIC_RELAXED);
    t->nr_used++;
}

/* Makes room for nr more, at most half full. Readers may be in the old table,
 * so it stays until the end: all retired tables together are smaller than the
 * newest. */
static int
reserve(struct cluster_set *set, uint64_t nr, struct qcow2_error *err)
{
    struct cluster_table *old = set->table, *t;
    uint64_t nr_slots = old->mask + 1;

    while (2 * (old->nr_used + nr) >= nr_slots)
        nr_slots *= 2;
    if (nr_slots == old->mask + 1)
        return 0;
    t = table_new(nr_slots);
    if (!t)
        return error_nomem(err);
    for (uint64_t i = 0; i <= old->mask; i++)
        if (old->slots[i] != 0 && old->slots[i] != TOMBSTONE)
            table_insert(t, old->slots[i]);
    old->next = set->retired;
    set->retired = old;
    __atomic_store_n(&set->table, t, __ATOMIC_RELEASE);
    return 0;
}

int
cluster_set_add(struct cluster_set *set, uint64_t host_cluster, uint64_t nr,
                struct qcow2_error *err)
{
    LOCK_SCOPE(&set->lock);

    /* First, so that all of it is added or nothing: what stayed behind would
     * be taken for damage later. */
    if (reserve(set, nr + (nr >> REGION_BITS) + 2, err) == -1)
        return -1;
    for (uint64_t i = host_cluster; i < host_cluster + nr; i++) {
        if (!table_has(set->table, region_of(i)))
            table_insert(set->table, region_of(i));
        if (!table_has(set->table, i + 1))
            table_insert(set->table, i + 1);
    }
    return 0;
}

void
cluster_set_remove(struct cluster_set *set, uint64_t host_cluster, uint64_t nr)
{
    LOCK_SCOPE(&set->lock);
    struct cluster_table *t = set->table;

    for (uint64_t n = 0; n < nr; n++) {
        uint64_t value = host_cluster + n + 1;

        for (uint64_t i = slot_of(t, value); t->slots[i] != 0;
             i = (i + 1) & t->mask)
            if (t->slots[i] == value) {
                __atomic_store_n(&t->slots[i], TOMBSTONE, __ATOMIC_RELAXED);
                break;
            }
    }
}

bool
cluster_set_has(const struct cluster_set *set, uint64_t host_cluster,
                uint64_t nr)
{
    const struct cluster_table *t = __atomic_load_n(&set->table,
                                                    __ATOMIC_ACQUIRE);
    uint64_t i = host_cluster, end = host_cluster + nr;

    if (nr == 1) /* as most requests have it */
        return table_has(t, i + 1);
    while (i < end) {
        uint64_t next = min_u64(end, (i | ((1 << REGION_BITS) - 1)) + 1);

        if (next - i > 1 && !table_has(t, region_of(i)))
            i = next;
        for (; i < next; i++)
            if (table_has(t, i + 1))
                return true;
    }
    return false;
}

void
cluster_set_exchange(struct cluster_set *a, struct cluster_set *b)
{
    struct cluster_table *table = a->table, *retired = a->retired;

    a->table = b->table;
    a->retired = b->retired;
    b->table = table;
    b->retired = retired;
}
