/* SPDX-License-Identifier: BSD-3-Clause */
/* l1.h: the L1 table of a view, in memory: looking entries up, changing them,
 * and what the flush writes of the changes.
 */
#ifndef QCOW2_L1_H
#define QCOW2_L1_H

#include "base/bytes.h"
#include "format/entry.h"
#include "meta/image.h"

/* An entry as it is; 0 past the end of the table. */
static inline uint64_t
l1_get(const struct view *v, uint64_t idx)
{
    return idx < v->l1_entries ? __atomic_load_n(&v->l1[idx],
                                                 __ATOMIC_ACQUIRE)
                               : 0;
}

static inline uint64_t
l1_index(const struct view *v, uint64_t guest_off)
{
    return guest_off >> geometry_l1_reach_bits(&v->img->geo);
}

/* Fails: the entry is invalid. */
int l1_refuse(struct view *v, uint64_t idx, struct qcow2_error *err);

/* The entry of guest_off; host_off is 0 if there is no L2 table. An invalid
 * one fails (image_damaged).
 */
static inline int
l1_find(struct view *v, uint64_t guest_off, struct l1_entry *e,
        struct qcow2_error *err)
{
    uint64_t idx = l1_index(v, guest_off);

    *e = entry_decode_l1(l1_get(v, idx), v->img->cluster_bits);
    if (e->flaws)
        return l1_refuse(v, idx, err);
    return 0;
}

/* Changes an entry of the active disk, unless it is so already. */
void l1_set(struct view *v, uint64_t idx, uint64_t entry);

/* Changes the COPIED flag of an entry of the active disk, which the caller
 * writes; returns whether it was different. */
bool l1_set_copied(struct view *v, uint32_t idx, bool copied);

/* For flush.c: entries that changed since they were last taken. Taking
 * leaves none; on failure (ENOMEM) nothing is taken. Giving back makes them
 * changed again.
 */
struct l1_change {
    uint32_t nr;
    uint32_t *indexes;  /* ascending */
    be64 *entries;
};
int l1_take(struct view *v, struct l1_change *change,
            struct qcow2_error *err);
void l1_give_back(struct view *v, struct l1_change *change);
void l1_change_free(struct l1_change *change);

#endif /* QCOW2_L1_H */
