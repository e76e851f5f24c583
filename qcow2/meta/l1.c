/* SPDX-License-Identifier: BSD-3-Clause */
/* l1.c: the L1 table of a view, in memory; see l1.h. */
#include "meta/l1.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

int
l1_refuse(struct view *v, uint64_t idx, struct qcow2_error *err)
{
    return image_damaged(v->img, err, "L1 entry %llu is invalid",
                         (unsigned long long)idx);
}

/* Remembers for the flush that an entry changed; l1_lock is held. */
static void
remember(struct view *v, uint64_t idx)
{
    if (!(v->l1_is_dirty[idx / 8] & 1u << idx % 8)) {
        v->l1_is_dirty[idx / 8] |= 1u << idx % 8;
        v->l1_dirty[v->nr_l1_dirty++] = idx;
    }
}

/* What is known of linear slices is about the table that was there before. */
void
l1_set(struct view *v, uint64_t idx, uint64_t entry)
{
    uint64_t slices = geometry_table_slices(&v->img->geo);
    LOCK_SCOPE(&v->l1_lock);

    if (l1_get(v, idx) == entry)
        return;
    linear_end(&v->linear, idx * slices, slices);
    __atomic_store_n(&v->l1[idx], entry, __ATOMIC_RELEASE);
    remember(v, idx);
}

bool
l1_set_copied(struct view *v, uint32_t idx, bool copied)
{
    uint64_t old = l1_get(v, idx), entry = entry_with_copied(old, copied);

    if (old == 0 || entry == old)
        return false;
    __atomic_store_n(&v->l1[idx], entry, __ATOMIC_RELEASE);
    return true;
}

static int
compare_indexes(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

int
l1_take(struct view *v, struct l1_change *change, struct qcow2_error *err)
{
    LOCK_SCOPE(&v->l1_lock);

    memset(change, 0, sizeof *change);
    if (v->nr_l1_dirty == 0)
        return 0;
    change->indexes = malloc(v->nr_l1_dirty * sizeof *change->indexes);
    change->entries = malloc(v->nr_l1_dirty * sizeof *change->entries);
    if (!change->indexes || !change->entries) {
        l1_change_free(change);
        return error_nomem(err);
    }
    change->nr = v->nr_l1_dirty;
    memcpy(change->indexes, v->l1_dirty, change->nr * sizeof *v->l1_dirty);
    qsort(change->indexes, change->nr, sizeof *change->indexes,
          compare_indexes);
    for (uint32_t i = 0; i < change->nr; i++) {
        uint32_t idx = change->indexes[i];

        change->entries[i] = be64_make(v->l1[idx]);
        v->l1_is_dirty[idx / 8] &= ~(1u << idx % 8);
    }
    v->nr_l1_dirty = 0;
    return 0;
}

void
l1_give_back(struct view *v, struct l1_change *change)
{
    LOCK_SCOPE(&v->l1_lock);

    for (uint32_t i = 0; i < change->nr; i++)
        remember(v, change->indexes[i]);
    l1_change_free(change);
}

void
l1_change_free(struct l1_change *change)
{
    free(change->indexes);
    free(change->entries);
    memset(change, 0, sizeof *change);
}
