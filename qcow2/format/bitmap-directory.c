/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-directory.c: decodes what an image says of its bitmaps; see
 * bitmap-directory.h.
 */
#include "format/bitmap-directory.h"

#include <stddef.h>
#include <string.h>

#include "base/checked.h"

bool
bitmap_entry_next(const unsigned char *directory, uint64_t nr_bytes,
                  uint64_t *pos, struct bitmap_entry *e)
{
    struct disk_bitmap_entry d;
    uint64_t name_at, length;

    if (!range_inside(*pos, sizeof d, nr_bytes))
        return false;
    memcpy(&d, directory + *pos, sizeof d);
    name_at = sizeof d + (uint64_t)be32_get(d.extra_data_size);
    length = round_up(name_at + be16_get(d.name_size), 8);
    if (!range_inside(*pos, length, nr_bytes))
        return false;
    *e = (struct bitmap_entry){
        .table_off = be64_get(d.table_offset),
        .table_entries = be32_get(d.table_size),
        .flags = be32_get(d.flags),
        .type = d.type,
        .granularity_bits = d.granularity_bits,
        .extra = directory + *pos + sizeof d,
        .extra_size = be32_get(d.extra_data_size),
        .name = (const char *)directory + *pos + name_at,
        .name_size = be16_get(d.name_size),
    };
    *pos += length;
    return true;
}

uint64_t
bitmap_entry_bytes(const struct bitmap_entry *e)
{
    return round_up(sizeof(struct disk_bitmap_entry) + e->extra_size
                        + e->name_size, 8);
}

void
bitmap_entry_put(unsigned char *to, const struct bitmap_entry *e)
{
    const struct disk_bitmap_entry d = {
        .table_offset = be64_make(e->table_off),
        .table_size = be32_make(e->table_entries),
        .flags = be32_make(e->flags),
        .type = e->type,
        .granularity_bits = e->granularity_bits,
        .name_size = be16_make(e->name_size),
        .extra_data_size = be32_make(e->extra_size),
    };

    memset(to, 0, bitmap_entry_bytes(e));
    memcpy(to, &d, sizeof d);
    if (e->extra_size > 0)
        memcpy(to + sizeof d, e->extra, e->extra_size);
    memcpy(to + sizeof d + e->extra_size, e->name, e->name_size);
}

void
bitmap_entry_put_flags(unsigned char *entry, uint32_t flags)
{
    be32 field = be32_make(flags);

    memcpy(entry + offsetof(struct disk_bitmap_entry, flags), &field,
           sizeof field);
}

uint64_t
bitmap_bytes(uint64_t disk_size, unsigned granularity_bits)
{
    return div_round_up(div_round_up(disk_size,
                                     UINT64_C(1) << granularity_bits), 8);
}

uint64_t
bitmap_table_entries(uint64_t disk_size, unsigned granularity_bits,
                     unsigned cluster_bits)
{
    return div_round_up(bitmap_bytes(disk_size, granularity_bits),
                        UINT64_C(1) << cluster_bits);
}

/* What QEMU refuses, too, but for extra data that may be ignored. */
const char *
bitmap_entry_flaw(const struct bitmap_entry *e, uint64_t disk_size,
                  unsigned cluster_bits)
{
    if (e->type != BITMAP_DIRTY_TRACKING)
        return "its type is unknown";
    if (e->flags & ~(uint32_t)BITMAP_FLAGS)
        return "it has unknown flags";
    if (e->extra_size > 0 && !(e->flags & BITMAP_EXTRA_COMPATIBLE))
        return "it has extra data that must be understood";
    if (e->name_size == 0 || e->name_size > MAX_BITMAP_NAME_BYTES)
        return "its name is too short or too long";
    if (e->granularity_bits < MIN_BITMAP_GRANULARITY_BITS
        || e->granularity_bits > MAX_BITMAP_GRANULARITY_BITS)
        return "its granularity is out of bounds";
    if (!is_aligned(e->table_off, UINT64_C(1) << cluster_bits)
        || (e->table_entries > 0 && e->table_off == 0))
        return "its table is not at a cluster";
    if (scale_up(e->table_entries, cluster_bits) > MAX_BITMAP_BYTES)
        return "its table is too large";
    if (!(e->flags & BITMAP_IN_USE)
        && e->table_entries != bitmap_table_entries(
                                   disk_size, e->granularity_bits,
                                   cluster_bits))
        return "its table does not fit the disk";
    return NULL;
}

bool
bitmap_entry_cluster(uint64_t table_entry, uint32_t cluster_size,
                     uint64_t *host_off)
{
    *host_off = table_entry & BITMAP_OFFSET_MASK;
    return !(table_entry & BITMAP_RESERVED_MASK)
           && is_aligned(*host_off, cluster_size)
           && !(*host_off && table_entry & BITMAP_ALL_ONES);
}
