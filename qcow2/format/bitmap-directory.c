/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-directory.c: decodes what an image says of its bitmaps; see
 * bitmap-directory.h.
 */
#include "format/bitmap-directory.h"

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
        .granularity_bits = d.granularity_bits,
        .name = (const char *)directory + *pos + name_at,
        .name_size = be16_get(d.name_size),
    };
    *pos += length;
    return true;
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
