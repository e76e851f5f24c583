/* SPDX-License-Identifier: BSD-3-Clause */
/* patch.c: changes single values of an image file, by name, as input.h says.
 * Where a place is, is what the file itself says, as it stands just then.
 */
#include "input.h"

#include "base/checked.h"

#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)

static const struct {
    unsigned off, nr_bytes;
} fields[] = {
    { 0, 4 }, { 4, 4 }, { 8, 8 }, { 16, 4 }, { 20, 4 }, { 24, 8 }, { 32, 4 },
    { 36, 4 }, { 40, 8 }, { 48, 8 }, { 56, 4 }, { 60, 4 }, { 64, 8 },
    { 72, 8 }, { 80, 8 }, { 88, 8 }, { 96, 4 }, { 100, 4 }, { 104, 1 },
};
enum { NR_FIELDS = sizeof fields / sizeof fields[0] };

static unsigned
cluster_bits(const struct sparse *f)
{
    return min_u64(max_u64(sparse_get(f, 20, 4), 9), 21);
}

static unsigned
is_extended(const struct sparse *f)
{
    return sparse_get(f, 4, 4) >= 3 && (sparse_get(f, 72, 8) & 16);
}

/* An entry, or word nr of extended ones. */
static uint64_t
l2_word(const struct sparse *f, uint64_t nr)
{
    uint64_t per_table = (UINT64_C(1) << cluster_bits(f)) / 8;
    uint64_t l1 = sparse_get(f, 40, 8);
    uint64_t nr_l1 = min_u64(sparse_get(f, 36, 4), 1024);

    for (uint64_t i = 0; i < nr_l1; i++) {
        uint64_t table = sparse_get(f, l1 + i * 8, 8) & OFFSET_MASK;

        if (table && nr < per_table)
            return table + nr * 8;
        nr -= table ? per_table : 0;
    }
    return 0;
}

static uint64_t
refcount(const struct sparse *f, uint64_t cluster)
{
    unsigned order = min_u64(sparse_get(f, 96, 4), 6);
    uint64_t block_bits = cluster_bits(f) + 3 - order;
    uint64_t entry = sparse_get(f, 48, 8) + (cluster >> block_bits) * 8;
    uint64_t i = cluster & ((UINT64_C(1) << block_bits) - 1);

    return (sparse_get(f, entry, 8) & ~UINT64_C(511)) + ((i << order) >> 3);
}

static uint64_t
snapshot_l1(const struct sparse *f, unsigned snapshot, unsigned entry)
{
    uint64_t at = sparse_get(f, 64, 8);

    for (unsigned i = 0; i < snapshot % 4; i++)
        at += round_up(40 + sparse_get(f, at + 36, 4)
                       + sparse_get(f, at + 12, 2)
                       + sparse_get(f, at + 14, 2), 8);
    return sparse_get(f, at, 8) + entry * 8;
}

/* The bitmaps extension has the directory's place in its bytes 16 to 23. */
static uint64_t
bitmap_directory(const struct sparse *f)
{
    uint64_t at = sparse_get(f, 4, 4) == 2 ? 72 : sparse_get(f, 100, 4);

    for (unsigned i = 0; i < 8; i++) {
        if (sparse_get(f, at, 4) == 0x23852875)
            return sparse_get(f, at + 8 + 16, 8);
        at += 8 + round_up(sparse_get(f, at + 4, 4), 8);
    }
    return 0;
}

static uint64_t
place(const struct sparse *f, enum place kind, uint16_t nr)
{
    switch (kind) {
    case PLACE_HEADER:
        return nr % 1024;
    case PLACE_FIELD:
        return fields[nr % NR_FIELDS].off;
    case PLACE_L1:
        return sparse_get(f, 40, 8) + nr * 8;
    case PLACE_L2:
        return l2_word(f, nr);
    case PLACE_REFTABLE:
        return sparse_get(f, 48, 8) + nr * 8;
    case PLACE_REFCOUNT:
        return refcount(f, nr);
    case PLACE_SNAPSHOTS:
        return sparse_get(f, 64, 8) + nr;
    case PLACE_SNAPSHOT_L1:
        return snapshot_l1(f, nr >> 8, nr & 255);
    case PLACE_DIRECTORY:
        return bitmap_directory(f) + nr;
    case PLACE_BITMAP:
        return sparse_get(f, bitmap_directory(f), 8) + nr * 8;
    case PLACE_DATA:
        return sparse_get(f, l2_word(f, nr << is_extended(f)), 8)
               & OFFSET_MASK;
    case PLACE_END:
        return sparse_size(f) - nr;
    case PLACE_SECTOR:
        return nr * UINT64_C(512);
    case PLACE_CLUSTER:
        return (uint64_t)nr << cluster_bits(f);
    case PLACE_EXTENSIONS:
        return (sparse_get(f, 4, 4) == 2 ? 72 : sparse_get(f, 100, 4)) + nr;
    case PLACE_BACKING:
        return sparse_get(f, 8, 8) + nr;
    case NR_PLACES:
        break;
    }
    return 0;
}

static uint64_t
value(const struct sparse *f, enum value kind, uint64_t c)
{
    uint64_t bits = (c & UINT64_C(7) << 61) | (c >> 20 & 1);

    switch (kind) {
    case VALUE_C:
        return c;
    case VALUE_PLACE:
        return place(f, c & 15, c >> 4) | bits;
    case VALUE_BIT:
        return UINT64_C(1) << (c & 63);
    case VALUE_NEGATIVE:
        return -(c & 0xffff);
    case VALUE_CLUSTER:
        return (c & 0xffff) << cluster_bits(f) | bits;
    case VALUE_SHIFTED:
        return (c & 0xff) << (c >> 8 & 63);
    case NR_VALUES:
        break;
    }
    return c;
}

static uint64_t
changed(unsigned mode, uint64_t old, uint64_t by)
{
    switch (mode) {
    case PATCH_OR:
        return old | by;
    case PATCH_AND:
        return old & by;
    case PATCH_XOR:
        return old ^ by;
    case PATCH_ADD:
        return old + by;
    }
    return by;
}

void
command_decode(struct command *c, const uint8_t *bytes)
{
    c->kind = bytes[0];
    c->a = bytes[1];
    c->b = bytes[2] << 8 | bytes[3];
    c->c = 0;
    for (unsigned i = 4; i < COMMAND_BYTES; i++)
        c->c = c->c << 8 | bytes[i];
}

size_t
patch_file(struct sparse *file, const uint8_t *commands, size_t nr)
{
    struct command c;
    unsigned width;
    uint64_t at, v;

    command_decode(&c, commands);
    at = place(file, c.a & 15, c.b);
    v = value(file, c.a >> 4, c.c);
    if (c.kind == PATCH_SIZE) {
        sparse_truncate(file, v);
        return 1;
    }
    if (c.kind == PATCH_BYTES) {
        nr = min_u64(nr, 2 + (c.c & 15));
        sparse_write(file, at, commands + COMMAND_BYTES,
                     (nr - 1) * COMMAND_BYTES);
        return nr;
    }
    width = 1 << (c.kind & PATCH_WIDTHS);
    if ((c.a & 15) == PLACE_FIELD)
        width = fields[c.b % NR_FIELDS].nr_bytes;
    sparse_put(file, at, width,
               changed(c.kind & PATCH_MODES, sparse_get(file, at, width), v));
    return 1;
}
