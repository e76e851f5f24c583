/* SPDX-License-Identifier: BSD-3-Clause */
/* io-order-walk.c: what the clusters of an image are, in a world that a power
 * cut may leave; see io-order-private.h.
 */
#include "io-order-private.h"

#include <endian.h>
#include <string.h>

#include "base/checked.h"

uint64_t
order_number(const struct order *o, const unsigned char *world, uint64_t off,
          unsigned nr_bytes)
{
    uint64_t n = 0;

    if (!range_inside(off, nr_bytes, o->capacity))
        return 0;
    if (nr_bytes == 8) {
        memcpy(&n, world + off, 8);
        return be64toh(n);
    }
    for (unsigned i = 0; i < nr_bytes; i++)
        n = n << 8 | world[off + i];
    return n;
}

static void
give_role(const struct walk *w, unsigned role, uint64_t off,
          uint64_t nr_bytes)
{
    uint64_t end;

    if (nr_bytes == 0 || add_overflows(off, nr_bytes, &end))
        return;
    for (uint64_t u = off >> w->o->unit_bits;
         u << w->o->unit_bits < end && u < w->o->nr_units; u++)
        w->fn(w->o, u, role, w->opaque);
}

struct order_entry
order_l2_entry(const struct order *o, const unsigned char *world,
               uint64_t table, uint64_t index)
{
    uint64_t at = table + index * o->l2_entry_bytes;
    struct order_entry e = { .word = order_number(o, world, at, 8) };

    if (o->l2_entry_bytes > 8)
        e.bitmap = order_number(o, world, at + 8, 8);
    return e;
}

/* Each subcluster that is not allocated is only kept for the owner. */
static void
walk_place(const struct walk *w, struct order_entry e, uint64_t off)
{
    const struct order *o = w->o;
    uint64_t nr = o->cluster_size >> o->unit_bits;

    if (o->l2_entry_bytes == 8) {
        give_role(w, e.word & ZERO ? ROLE_RESERVED : ROLE_DATA, off,
                  o->cluster_size);
        return;
    }
    for (uint64_t i = 0; i < nr; i++)
        give_role(w, e.bitmap >> i & 1 ? ROLE_DATA : ROLE_RESERVED,
                  off + (i << o->unit_bits), UINT64_C(1) << o->unit_bits);
}

static void
walk_l2(const struct walk *w, uint64_t l2_off)
{
    unsigned bits = 62 - (w->o->cluster_bits - 8);
    bool outside = w->o->version > 2
                   && order_number(w->o, w->world, 72, 8) & DATA_FILE;

    for (uint64_t i = 0; i < w->o->cluster_size / w->o->l2_entry_bytes; i++) {
        struct order_entry e = order_l2_entry(w->o, w->world, l2_off, i);
        uint64_t off = e.word & OFFSET_MASK;

        if (e.word == 0)
            continue;
        if (e.word & COMPRESSED) {
            uint64_t at = e.word & ((UINT64_C(1) << bits) - 1);
            uint64_t sectors = (e.word & ~COMPRESSED & ~COPIED) >> bits;
            uint64_t to_last = sectors * SECTOR - at % SECTOR;

            give_role(w, ROLE_COMPRESSED, at, to_last + SECTOR);
            if (w->packed)
                w->packed(w->o, at, sectors ? to_last + 1 : 1, w->op);
        } else if (off && !outside) {
            walk_place(w, e, off);
        }
    }
}

static void
walk_l1(const struct walk *w, unsigned role, uint64_t l1_off,
        uint64_t l1_entries)
{
    if (l1_entries > w->o->capacity / 8)
        return; /* the audit has complained */
    give_role(w, role, l1_off, l1_entries * 8);
    for (uint64_t i = 0; i < l1_entries; i++) {
        uint64_t l2_off = order_number(w->o, w->world, l1_off + i * 8, 8)
                          & OFFSET_MASK;

        if (l2_off == 0)
            continue;
        give_role(w, ROLE_L2, l2_off, w->o->cluster_size);
        walk_l2(w, l2_off);
    }
}

void
order_walk(const struct walk *w)
{
    const struct order *o = w->o;
    uint64_t reftable = order_number(o, w->world, 48, 8);
    uint64_t reftable_bytes = order_number(o, w->world, 56, 4)
                              << o->cluster_bits;
    uint64_t nr_snapshots = order_number(o, w->world, 60, 4);
    uint64_t table = order_number(o, w->world, 64, 8), off = table;

    give_role(w, ROLE_HEADER, 0, o->cluster_size);
    give_role(w, ROLE_REFTABLE, reftable, reftable_bytes);
    for (uint64_t i = 0; i < min_u64(reftable_bytes, o->capacity) / 8; i++) {
        uint64_t block = order_number(o, w->world, reftable + i * 8, 8);

        if (block)
            give_role(w, ROLE_REFBLOCK, block, o->cluster_size);
    }
    walk_l1(w, ROLE_L1, order_number(o, w->world, 40, 8),
            order_number(o, w->world, 36, 4));
    for (uint64_t i = 0; i < nr_snapshots && off < o->capacity; i++) {
        walk_l1(w, ROLE_SNAPSHOTS, order_number(o, w->world, off, 8),
                order_number(o, w->world, off + 8, 4));
        off += 40 + order_number(o, w->world, off + 12, 2)
               + order_number(o, w->world, off + 14, 2)
               + order_number(o, w->world, off + 36, 4);
        off = round_up(off, 8);
    }
    give_role(w, ROLE_SNAPSHOTS, table, off - table);
}
