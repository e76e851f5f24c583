/* SPDX-License-Identifier: BSD-3-Clause */
/* builder-layout.c: turns what a recipe said into the bytes of an image. */
#include "builder-private.h"

#include <stdlib.h>
#include <string.h>

#define COPIED (UINT64_C(1) << 63)

void
builder_put(struct builder *b, uint64_t off, unsigned nr_bytes,
            uint64_t value)
{
    if (off + nr_bytes > b->nr_bytes)
        builder_mistake("0x%llx is past the end of the file",
                        (unsigned long long)off);
    for (unsigned i = 0; i < nr_bytes; i++)
        b->bytes[off + i] = value >> (8 * (nr_bytes - 1 - i));
}

uint64_t
builder_get(const struct builder *b, uint64_t off, unsigned nr_bytes)
{
    uint64_t n = 0;

    if (off + nr_bytes > b->nr_bytes)
        builder_mistake("0x%llx is past the end of the file",
                        (unsigned long long)off);
    for (unsigned i = 0; i < nr_bytes; i++)
        n = n << 8 | b->bytes[off + i];
    return n;
}

static void
layout_l1(struct builder *b, struct test_view *v)
{
    uint64_t nr_bytes = (uint64_t)v->nr_l1 * 8;

    if (nr_bytes > 0)
        v->l1_off = builder_alloc(b, (nr_bytes + b->cluster_size - 1) /
                                     b->cluster_size);
}

static uint64_t
put_bytes(struct builder *b, uint64_t off, const void *bytes, size_t n)
{
    if (n > 0)
        memcpy(b->bytes + off, bytes, n);
    return off + n;
}

static uint64_t
snapshot_entry_len(const struct test_snapshot *s)
{
    return (40 + s->extra_len + strlen(s->id) + strlen(s->name) + 7) &
           ~UINT64_C(7);
}

static void
put_snapshot(struct builder *b, struct test_snapshot *s, uint64_t off)
{
    uint64_t extra[3] = {
        s->vm_state_clusters * b->cluster_size, s->view.size, UINT64_MAX
    };

    s->entry_off = off;
    builder_put(b, off, 8, s->view.l1_off);
    builder_put(b, off + 8, 4, s->view.nr_l1);
    builder_put(b, off + 12, 2, strlen(s->id));
    builder_put(b, off + 14, 2, strlen(s->name));
    builder_put(b, off + 16, 4, 1600000000);
    builder_put(b, off + 20, 4, 500);
    builder_put(b, off + 24, 8, 7000);
    builder_put(b, off + 32, 4, extra[0]);
    builder_put(b, off + 36, 4, s->extra_len);
    off += 40;
    for (uint32_t i = 0; i < s->extra_len; i++) {
        if (i + 8 <= s->extra_len && i % 8 == 0 && i < sizeof extra)
            builder_put(b, off + i, 8, extra[i / 8]);
        else if (i >= sizeof extra)
            builder_put(b, off + i, 1, 0xa5);
    }
    off = put_bytes(b, off + s->extra_len, s->id, strlen(s->id));
    put_bytes(b, off, s->name, strlen(s->name));
}

static void
layout_snapshots(struct builder *b)
{
    uint64_t off;

    for (unsigned i = 0; i < b->nr_snapshots; i++) {
        layout_l1(b, &b->snapshots[i].view);
        b->snapshots_len += snapshot_entry_len(&b->snapshots[i]);
    }
    if (b->nr_snapshots == 0)
        return;
    off = builder_alloc(b, (b->snapshots_len + b->cluster_size - 1) /
                           b->cluster_size);
    b->snapshots_off = off;
    for (unsigned i = 0; i < b->nr_snapshots; i++) {
        put_snapshot(b, &b->snapshots[i], off);
        off += snapshot_entry_len(&b->snapshots[i]);
    }
}

/* Refcount blocks for all of the file, themselves included. */
static void
layout_refblocks(struct builder *b)
{
    uint64_t per_block = ((uint64_t)b->cluster_size * 8) >> b->refcount_order;
    uint64_t per_cluster = b->cluster_size / 8;
    uint64_t used = b->nr_bytes / b->cluster_size;
    uint64_t nr_blocks = 1, nr_table = 1, off;

    while (nr_blocks * per_block < used + nr_blocks + nr_table ||
           nr_table * per_cluster < nr_blocks) {
        if (nr_table * per_cluster < nr_blocks)
            nr_table++;
        else
            nr_blocks++;
    }
    b->reftable_off = builder_alloc(b, nr_table);
    b->reftable_clusters = nr_table;
    off = builder_alloc(b, nr_blocks);
    for (uint64_t i = 0; i < nr_blocks; i++)
        builder_put(b, b->reftable_off + i * 8, 8, off + i * b->cluster_size);
}

static uint64_t
refcount_place(const struct builder *b, uint64_t host_cluster, unsigned *bit)
{
    uint64_t per_block = ((uint64_t)b->cluster_size * 8) >> b->refcount_order;
    uint64_t bits = host_cluster % per_block << b->refcount_order;
    uint64_t block = builder_get(b, b->reftable_off +
                                    host_cluster / per_block * 8, 8);

    if (block == 0)
        builder_mistake("cluster %llu has no refcount",
                        (unsigned long long)host_cluster);
    *bit = bits % 8;
    return block + bits / 8;
}

uint64_t
builder_get_refcount(const struct builder *b, uint64_t host_cluster)
{
    unsigned bit, width = 1U << b->refcount_order;
    uint64_t off = refcount_place(b, host_cluster, &bit);

    if (width >= 8)
        return builder_get(b, off, width / 8);
    return builder_get(b, off, 1) >> bit & ((1U << width) - 1);
}

void
builder_set_refcount(struct builder *b, uint64_t host_cluster,
                     uint64_t refcount)
{
    unsigned bit, width = 1U << b->refcount_order, mask;
    uint64_t off = refcount_place(b, host_cluster, &bit);

    if (width < 64 && refcount >> width)
        builder_mistake("%llu does not fit a refcount of %u bits",
                        (unsigned long long)refcount, width);
    if (width >= 8) {
        builder_put(b, off, width / 8, refcount);
        return;
    }
    mask = ((1U << width) - 1) << bit;
    builder_put(b, off, 1,
                (builder_get(b, off, 1) & ~mask) | refcount << bit);
}

static void
refer(struct builder *b, uint64_t off, uint64_t nr_bytes)
{
    if (nr_bytes == 0)
        return;
    for (uint64_t c = off / b->cluster_size;
         c <= (off + nr_bytes - 1) / b->cluster_size; c++)
        builder_set_refcount(b, c, builder_get_refcount(b, c) + 1);
}

static void
refer_view(struct builder *b, const struct test_view *v)
{
    refer(b, v->l1_off, (uint64_t)v->nr_l1 * 8);
    for (uint32_t i = 0; i < v->nr_l1; i++) {
        const struct table *t = v->l1[i];

        if (!t)
            continue;
        refer(b, t->host_off, b->cluster_size);
        for (uint32_t j = 0; j < builder_l2_entries(b); j++) {
            const struct slot *s = &t->slots[j];

            if (s->kind == SLOT_COMPRESSED)
                refer(b, s->host_off, s->packed_len);
            else if (s->has_place && !b->data_file[0])
                refer(b, s->host_off, b->cluster_size);
        }
    }
}

static void
count_references(struct builder *b)
{
    uint64_t nr_blocks = 0;

    refer(b, 0, b->cluster_size);
    refer(b, b->reftable_off, b->reftable_clusters * b->cluster_size);
    while (nr_blocks < b->reftable_clusters * b->cluster_size / 8) {
        uint64_t off = builder_get(b, b->reftable_off + nr_blocks++ * 8, 8);

        if (off)
            refer(b, off, b->cluster_size);
    }
    refer_view(b, &b->active);
    for (unsigned i = 0; i < b->nr_snapshots; i++)
        refer_view(b, &b->snapshots[i].view);
    refer(b, b->snapshots_off, b->snapshots_len);
    for (unsigned i = 0; i < b->nr_leaks; i++)
        refer(b, b->leaks[i].off, b->leaks[i].nr_bytes);
}

static uint64_t
copied_flag(const struct builder *b, uint64_t off)
{
    return builder_get_refcount(b, off / b->cluster_size) == 1 ? COPIED : 0;
}

static uint64_t
l2_entry(const struct builder *b, const struct slot *s, bool active)
{
    unsigned bits = 62 - (b->cluster_bits - 8);
    uint64_t entry = 0, sectors;

    switch (s->kind) {
    case SLOT_UNALLOCATED:
        return 0;
    case SLOT_ZERO:
    case SLOT_ZERO_ALLOC:
        entry = builder_l2_entry_bytes(b) == 8; /* fall through */
    case SLOT_SUBCLUSTERS:
    case SLOT_DATA:
        entry |= s->host_off;
        if (active && s->has_place)
            entry |= b->data_file[0] ? COPIED : copied_flag(b, s->host_off);
        return entry;
    case SLOT_COMPRESSED:
        sectors = (s->host_off + s->packed_len - 1) / 512 - s->host_off / 512;
        return UINT64_C(1) << 62 | sectors << bits | s->host_off;
    }
    return 0;
}

/* The second word of an extended entry. */
static uint64_t
l2_bitmap(const struct slot *s)
{
    switch (s->kind) {
    case SLOT_UNALLOCATED:
    case SLOT_COMPRESSED:
        return 0;
    case SLOT_ZERO:
    case SLOT_ZERO_ALLOC:
        return UINT64_C(0xffffffff00000000);
    case SLOT_DATA:
        return UINT32_MAX;
    case SLOT_SUBCLUSTERS:
        return (uint64_t)s->zero << 32 | s->allocated;
    }
    return 0;
}

static void
put_l2_entry(struct builder *b, const struct table *t, uint32_t i)
{
    unsigned n = builder_l2_entry_bytes(b);

    builder_put(b, t->host_off + i * n, 8,
                l2_entry(b, &t->slots[i], t->is_active));
    if (n == 16)
        builder_put(b, t->host_off + i * n + 8, 8, l2_bitmap(&t->slots[i]));
}

static void
put_view(struct builder *b, const struct test_view *v, bool active)
{
    for (uint32_t i = 0; i < v->nr_l1; i++) {
        struct table *t = v->l1[i];
        uint64_t flag;

        if (!t)
            continue;
        t->is_active |= active;
        flag = active ? copied_flag(b, t->host_off) : 0;
        builder_put(b, v->l1_off + i * 8, 8, t->host_off | flag);
        for (uint32_t j = 0; j < builder_l2_entries(b); j++)
            put_l2_entry(b, t, j);
    }
}

static uint64_t
put_extension(struct builder *b, uint64_t off, uint32_t type,
              const void *data, uint32_t length)
{
    builder_put(b, off, 4, type);
    builder_put(b, off + 4, 4, length);
    put_bytes(b, off + 8, data, length);
    return off + 8 + ((length + 7) & ~UINT32_C(7));
}

static void
put_extensions(struct builder *b, uint64_t off)
{
    if (b->backing_format[0] && strcmp(b->backing_format, "-") != 0)
        off = put_extension(b, off, 0xe2792aca, b->backing_format,
                            strlen(b->backing_format));
    for (unsigned i = 0; i < b->nr_extensions; i++)
        off = put_extension(b, off, b->extensions[i].type,
                            b->extensions[i].data, b->extensions[i].length);
    off = put_extension(b, off, 0, NULL, 0);
    if (b->backing[0]) {
        builder_put(b, 8, 8, off);
        builder_put(b, 16, 4, strlen(b->backing));
        off = put_bytes(b, off, b->backing, strlen(b->backing));
    }
    if (off > b->cluster_size)
        builder_mistake("the header does not fit its cluster");
}

static void
put_header(struct builder *b)
{
    uint32_t length = b->version == 2 ? 72 : 112;

    if (b->header_length)
        length = b->header_length;
    builder_put(b, 0, 4, 0x514649fb);
    builder_put(b, 4, 4, b->version);
    builder_put(b, 20, 4, b->cluster_bits);
    builder_put(b, 24, 8, b->active.size);
    builder_put(b, 36, 4, b->active.nr_l1);
    builder_put(b, 40, 8, b->active.l1_off);
    builder_put(b, 48, 8, b->reftable_off);
    builder_put(b, 56, 4, b->reftable_clusters);
    builder_put(b, 60, 4, b->nr_snapshots);
    builder_put(b, 64, 8, b->snapshots_off);
    if (b->version >= 3) {
        if (b->zstd)
            b->features[0] |= 8;
        if (builder_is_lazy())
            b->features[1] |= 1;
        for (unsigned i = 0; i < 3; i++)
            builder_put(b, 72 + i * 8, 8, b->features[i]);
        builder_put(b, 96, 4, b->refcount_order);
        builder_put(b, 100, 4, length);
        if (length > 104)
            builder_put(b, 104, 1, b->zstd);
        for (uint32_t i = 112; i < length; i++)
            builder_put(b, i, 1, 0xa5);
    }
    put_extensions(b, length);
}

void
builder_layout(struct builder *b)
{
    layout_l1(b, &b->active);
    layout_snapshots(b);
    layout_refblocks(b);
    count_references(b);
    put_view(b, &b->active, true);
    for (unsigned i = 0; i < b->nr_snapshots; i++)
        put_view(b, &b->snapshots[i].view, false);
    put_header(b);
}
