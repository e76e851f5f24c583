/* SPDX-License-Identifier: BSD-3-Clause */
/* repair-rebuild.c: writes all refcounts anew behind everything else, and
 * switches the header to them (I5). The old ones are free from then on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check-private.h"
#include "meta/refcount.h"

enum { MAX_ENTRIES = MAX_REFTABLE_BYTES / 8 };

/* Where the new snapshot table lies, if there is one; copies of data, the new
 * refcount table and its refblocks follow it. */
struct rebuild {
    uint64_t first;           /* host cluster */
    unsigned char *snapshots; /* the table */
    uint64_t snapshot_bytes, snapshot_clusters;
    uint64_t nr_copies;       /* repair-unshare.c */
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
        if (counters_set(&c->refs, table + i,
                       counters_get(&c->refs, table + i) - 1, err) == -1)
            return -1;
    for (uint32_t i = 0; i < c->reftable_entries; i++) {
        uint64_t block = c->reftable[i] >> c->cluster_bits;

        if (c->blocks[i] & BLOCK_COUNTED
            && counters_set(&c->refs, block, counters_get(&c->refs, block) - 1,
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

    while (counters_next(&c->refs, &i, UINT64_MAX)) {
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

/* Clusters from r->first on that lie before the refblocks. */
static uint64_t
before_blocks(const struct rebuild *r)
{
    return r->snapshot_clusters + r->nr_copies + r->table_clusters;
}

/* The new table and blocks must be counted in the new blocks too. */
static int
lay_out(struct check *c, struct rebuild *r, struct qcow2_error *err)
{
    uint64_t total;

    do {
        total = before_blocks(r) + r->nr_blocks;
        if (total > 0)
            for (uint64_t idx = r->first >> c->refblock_bits;
                 idx <= (r->first + total - 1) >> c->refblock_bits; idx++)
                if (need_block(r, idx, err) == -1)
                    return -1;
        r->table_clusters = div_round_up(r->nr_entries * 8,
                                         c->cluster_size);
    } while (total != before_blocks(r) + r->nr_blocks);
    if (scale_up(r->table_clusters, c->cluster_bits) > MAX_REFTABLE_BYTES)
        return error_set(err, EFBIG, "a refcount table for this file would "
                         "have more than the limit of %d bytes",
                         MAX_REFTABLE_BYTES);
    if (check_room(c, r, total, err) == -1)
        return -1;
    for (uint64_t i = 0; i < total; i++)
        if (counters_add(&c->refs, r->first + i, 1, err) == -1)
            return -1;
    return repair_unshare_reserve(c, r->first + r->snapshot_clusters, err);
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
    uint64_t place = scale_up(r->first + before_blocks(r), c->cluster_bits);

    for (uint64_t idx = 0; idx < r->nr_entries; idx++) {
        if (!r->needed[idx])
            continue;
        fill_block(c, scale_up(idx, c->refblock_bits));
        if (repair_write(c, "new refcount block", c->table, c->cluster_size,
                         place, err) == -1)
            return -1;
        table[idx] = be64_make(place);
        c->new_reftable[idx] = place;
        place += c->cluster_size;
    }
    return 0;
}

/* One write: from then on the new ones count, and only they; so for the new
 * snapshot table. */
static int
switch_header(struct check *c, const struct rebuild *r, uint64_t table_off,
              struct qcow2_error *err)
{
    struct header *h = c->hdr;
    struct {
        be64 reftable_offset;
        be32 reftable_clusters;
        be32 nr_snapshots;
        be64 snapshots_offset;
    } field;
    size_t nr_bytes = c->mend_snapshots ? sizeof field
                                        : offsetof(__typeof__(field),
                                                   nr_snapshots);

    h->reftable_offset = table_off;
    h->reftable_clusters = r->table_clusters;
    if (c->mend_snapshots) {
        h->nr_snapshots = c->snaptab->nr;
        h->snapshots_offset = h->nr_snapshots
                              ? scale_up(r->first, c->cluster_bits) : 0;
        c->snaptab->nr_bytes = r->snapshot_bytes;
    }
    field.reftable_offset = be64_make(h->reftable_offset);
    field.reftable_clusters = be32_make(h->reftable_clusters);
    field.nr_snapshots = be32_make(h->nr_snapshots);
    field.snapshots_offset = be64_make(h->snapshots_offset);
    if (repair_write(c, c->mend_snapshots
                     ? "switch to the new refcount and snapshot tables"
                     : "switch to the new refcount table", &field, nr_bytes,
                     HEADER_AT_REFCOUNT_TABLE, err) == -1)
        return -1;
    return repair_barrier(c, err);
}

static int
write_new(struct check *c, const struct rebuild *r, struct qcow2_error *err)
{
    uint64_t nr_bytes = scale_up(r->table_clusters, c->cluster_bits);
    uint64_t host_off = scale_up(r->first + r->snapshot_clusters
                                     + r->nr_copies, c->cluster_bits);
    CLEANUP_FREE be64 *table = calloc(1, nr_bytes);

    c->new_reftable = calloc(r->nr_entries + 1, sizeof *c->new_reftable);
    if (!table || !c->new_reftable)
        return error_nomem(err);
    if (r->snapshot_bytes > 0
        && repair_write(c, "new snapshot table", r->snapshots,
                        r->snapshot_bytes, scale_up(r->first,
                                                    c->cluster_bits), err)
           == -1)
        return -1;
    if (repair_l2_write(c, err) == -1)
        return -1;
    if (repair_unshare_write(c, err) == -1
        || write_blocks(c, r, table, err) == -1
        || repair_write(c, "new refcount table", table, nr_bytes, host_off,
                        err) == -1
        || repair_barrier(c, err) == -1)
        return -1;
    return switch_header(c, r, host_off, err);
}

/* Drops what cannot be read, and counts the old table no more. */
static int
prepare_snapshots(struct check *c, struct rebuild *r,
                  struct qcow2_error *err)
{
    struct snapshot_table *t = c->snaptab;
    uint64_t first = c->hdr->snapshots_offset >> c->cluster_bits;
    uint32_t nr = 0;

    if (!c->mend_snapshots)
        return 0;
    for (uint64_t i = 0; i < div_round_up(t->nr_bytes, c->cluster_size); i++)
        if (counters_set(&c->refs, first + i,
                       counters_get(&c->refs, first + i) - 1, err) == -1)
            return -1;
    for (uint32_t i = 0; i < t->nr; i++) {
        if (!t->snapshots[i].flaw || t->snapshots[i].usable)
            t->snapshots[nr++] = t->snapshots[i];
        else
            snaptab_free_entry(&t->snapshots[i]);
    }
    t->nr = nr;
    if (snaptab_encode(t, &r->snapshots, &r->snapshot_bytes, err) == -1)
        return -1;
    r->snapshot_clusters = div_round_up(r->snapshot_bytes, c->cluster_size);
    return 0;
}

int
repair_rebuild(struct check *c, struct qcow2_error *err)
{
    CLEANUP_FREE uint8_t *needed = calloc(MAX_ENTRIES, 1);
    struct rebuild r = {
        .needed = needed, .first = c->end, .nr_copies = repair_unshare_nr(c),
    };
    int ret;

    if (!needed)
        return error_nomem(err);
    /* Past the end of a file nothing can be overwritten that somebody might
     * still want. */
    if (c->io->can_grow)
        r.first = max_u64(r.first, div_round_up(c->file_size,
                                                c->cluster_size));
    ret = repair_l2_reserve(c, &r.first, err);
    if (ret == 0)
        ret = repair_l1_write(c, &r.first, err);
    if (ret == 0)
        ret = prepare_snapshots(c, &r, err);
    if (ret == 0 && need_blocks_in_use(c, &r, err) == -1)
        ret = -1;
    if (ret == 0 && lay_out(c, &r, err) == -1)
        ret = -1;
    if (ret == 0)
        ret = write_new(c, &r, err);
    free(r.snapshots);
    return ret;
}

int
repair_rebuild_write_refcount(struct check *c, uint64_t cluster,
                              struct qcow2_error *err)
{
    unsigned order = c->hdr->refcount_order;
    uint64_t first = round_down(cluster, UINT64_C(1) << c->refblock_bits);
    uint64_t from = ((cluster - first) << order) / 8;
    uint64_t to = div_round_up((cluster - first + 1) << order, 8);

    fill_block(c, first);
    return repair_write(c, "lower refcounts", c->table + from, to - from,
                        c->new_reftable[cluster >> c->refblock_bits] + from,
                        err);
}

int
repair_rebuild_lower(struct check *c, struct qcow2_error *err)
{
    for (uint64_t i = 0; counters_next(&c->moved, &i, UINT64_MAX); i++) {
        uint64_t refs = counters_get(&c->refs, i);

        if (counters_set(&c->refs, i, refs - counters_get(&c->moved, i), err)
                == -1
            || repair_rebuild_write_refcount(c, i, err) == -1)
            return -1;
    }
    return repair_barrier(c, err);
}
