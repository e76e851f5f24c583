/* SPDX-License-Identifier: BSD-3-Clause */
/* repair-rebuild.c: writes all refcounts anew behind everything else, and
 * switches the header to them (I5). The old ones are free from then on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check-private.h"
#include "meta/refcount.h"

enum { MAX_ENTRIES = MAX_REFTABLE_BYTES / 8 };

/* Where the new table lies; its refblocks follow it. */
struct rebuild {
    uint64_t first;           /* host cluster */
    uint64_t table_clusters;
    uint64_t nr_entries;
    uint64_t nr_blocks;
    uint8_t *needed;          /* MAX_ENTRIES: which refblocks there are */
};

int
repair_drop_refcounts(struct check *c, struct qcow2_error *err)
{
    uint64_t table = c->hdr->reftable_offset >> c->cluster_bits;

    for (uint32_t i = 0; i < c->hdr->reftable_clusters; i++)
        if (counts_set(&c->refs, table + i,
                       counts_get(&c->refs, table + i) - 1, err) == -1)
            return -1;
    for (uint32_t i = 0; i < c->reftable_entries; i++) {
        uint64_t block = c->reftable[i] >> c->cluster_bits;

        if (c->blocks[i] & BLOCK_COUNTED
            && counts_set(&c->refs, block, counts_get(&c->refs, block) - 1,
                          err) == -1)
            return -1;
    }
    return 0;
}

static int
need_block(struct rebuild *r, uint64_t idx, struct qcow2_error *err)
{
    if (idx >= MAX_ENTRIES)
        return error_set(err, EFBIG, "a refcount table for this file would "
                         "have more than the limit of %d bytes",
                         MAX_REFTABLE_BYTES);
    r->nr_blocks += !r->needed[idx];
    r->needed[idx] = 1;
    r->nr_entries = max_u64(r->nr_entries, idx + 1);
    return 0;
}

static int
need_blocks_in_use(struct check *c, struct rebuild *r,
                   struct qcow2_error *err)
{
    uint64_t i = 0;

    while (counts_next(&c->refs, &i, UINT64_MAX)) {
        uint64_t idx = i >> c->refblock_bits;

        if (need_block(r, idx, err) == -1)
            return -1;
        i = scale_up(idx + 1, c->refblock_bits);
    }
    /* What seems to be free keeps its refcount when it may not be. */
    for (uint32_t idx = 0; idx < c->reftable_entries && c->lost; idx++)
        if (c->blocks[idx] & BLOCK_USABLE && need_block(r, idx, err) == -1)
            return -1;
    return 0;
}

/* Is there room behind what is in use? A file cut short must not grow over
 * what it lost: that would be found again, as new refcounts. */
static int
check_room(const struct check *c, const struct rebuild *r, uint64_t total,
           struct qcow2_error *err)
{
    uint64_t end = scale_up(r->first + total, c->cluster_bits);

    if (end > MAX_HOST_OFFSET)
        return error_set(err, EFBIG, "new refcounts would lie beyond the "
                         "largest host offset of the format");
    if (!c->io->can_grow && end > c->file_size)
        return error_set(err, ENOSPC, "new refcounts need %" PRIu64
                         " clusters at the end, which the device has not",
                         total);
    if (c->io->can_grow && c->first_past_end < end) {
        error_set(err, EIO, "the file is cut short: some entry points to "
                  "0x%" PRIx64 ", past its end, where new refcounts would "
                  "have to be written; the image can only be read",
                  c->first_past_end);
        return error_hint(err, QCOW2_HINT_READONLY | QCOW2_HINT_CONVERT);
    }
    return 0;
}

/* The new table and blocks must be counted in the new blocks too. */
static int
lay_out(struct check *c, struct rebuild *r, struct qcow2_error *err)
{
    uint64_t total;

    do {
        total = r->table_clusters + r->nr_blocks;
        if (total > 0)
            for (uint64_t idx = r->first >> c->refblock_bits;
                 idx <= (r->first + total - 1) >> c->refblock_bits; idx++)
                if (need_block(r, idx, err) == -1)
                    return -1;
        r->table_clusters = div_round_up(r->nr_entries * 8,
                                         c->cluster_size);
    } while (total != r->table_clusters + r->nr_blocks);
    if (scale_up(r->table_clusters, c->cluster_bits) > MAX_REFTABLE_BYTES)
        return error_set(err, EFBIG, "a refcount table for this file would "
                         "have more than the limit of %d bytes",
                         MAX_REFTABLE_BYTES);
    if (check_room(c, r, total, err) == -1)
        return -1;
    for (uint64_t i = 0; i < total; i++)
        if (counts_add(&c->refs, r->first + i, 1, err) == -1)
            return -1;
    return 0;
}

static void
fill_block(struct check *c, uint64_t first)
{
    uint64_t nr = UINT64_C(1) << c->refblock_bits;

    memset(c->table, 0, c->cluster_size);
    for (uint64_t i = 0, n; i < nr; i += n) {
        uint64_t settled;

        n = check_settled_run(c, first + i, nr - i, &settled);
        if (settled > 0)
            for (uint64_t j = i; j < i + n; j++)
                refcount_set(c->table, c->hdr->refcount_order, j, settled);
    }
}

static int
write_blocks(struct check *c, const struct rebuild *r, be64 *table,
             struct qcow2_error *err)
{
    uint64_t place = scale_up(r->first + r->table_clusters,
                              c->cluster_bits);

    for (uint64_t idx = 0; idx < r->nr_entries; idx++) {
        if (!r->needed[idx])
            continue;
        fill_block(c, scale_up(idx, c->refblock_bits));
        if (repair_write(c, "new refcount block", c->table, c->cluster_size,
                         place, err) == -1)
            return -1;
        table[idx] = be64_make(place);
        place += c->cluster_size;
    }
    return 0;
}

/* One write: from then on the new ones count, and only they. */
static int
switch_header(struct check *c, uint64_t host_off, uint32_t nr_clusters,
              struct qcow2_error *err)
{
    struct {
        be64 offset;
        be32 clusters;
    } field = { be64_make(host_off), be32_make(nr_clusters) };

    if (repair_write(c, "switch to the new refcount table", &field,
                     sizeof field, HEADER_AT_REFCOUNT_TABLE, err) == -1)
        return -1;
    c->hdr->reftable_offset = host_off;
    c->hdr->reftable_clusters = nr_clusters;
    return repair_barrier(c, err);
}

static int
write_new(struct check *c, const struct rebuild *r, struct qcow2_error *err)
{
    uint64_t nr_bytes = scale_up(r->table_clusters, c->cluster_bits);
    uint64_t host_off = scale_up(r->first, c->cluster_bits);
    CLEANUP_FREE be64 *table = calloc(1, nr_bytes);

    if (!table)
        return error_nomem(err);
    if (write_blocks(c, r, table, err) == -1
        || repair_write(c, "new refcount table", table, nr_bytes, host_off,
                        err) == -1
        || repair_barrier(c, err) == -1)
        return -1;
    return switch_header(c, host_off, r->table_clusters, err);
}

int
repair_rebuild(struct check *c, struct qcow2_error *err)
{
    CLEANUP_FREE uint8_t *needed = calloc(MAX_ENTRIES, 1);
    struct rebuild r = { .needed = needed, .first = c->end };

    if (!needed)
        return error_nomem(err);
    /* Past the end of a file nothing can be overwritten that somebody might
     * still want. */
    if (c->io->can_grow)
        r.first = max_u64(r.first, div_round_up(c->file_size,
                                                c->cluster_size));
    if (need_blocks_in_use(c, &r, err) == -1
        || lay_out(c, &r, err) == -1)
        return -1;
    return write_new(c, &r, err);
}
