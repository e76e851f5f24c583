/* SPDX-License-Identifier: BSD-3-Clause */
/* check-refcounts.c: the refcount table and blocks: are they where they can
 * be, and do they say what was counted?
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check-private.h"
#include "meta/refcount.h"

static uint64_t
entry_place(const struct check *c, uint32_t idx)
{
    return c->hdr->reftable_offset + idx * UINT64_C(8);
}

int
check_load_reftable(struct check *c, struct qcow2_error *err)
{
    uint64_t nr_bytes = scale_up(c->hdr->reftable_clusters, c->cluster_bits);
    CLEANUP_FREE be64 *disk = malloc(nr_bytes ? nr_bytes : 1);

    c->reftable_entries = nr_bytes / sizeof *disk;
    c->reftable = calloc(c->reftable_entries + 1, sizeof *c->reftable);
    c->blocks = calloc(c->reftable_entries + 1, 1);
    if (!disk || !c->reftable || !c->blocks)
        return error_nomem(err);
    if (check_read(c, disk, nr_bytes, c->hdr->reftable_offset, NULL, err)
        == -1)
        return -1;
    for (uint32_t i = 0; i < c->reftable_entries; i++) {
        c->reftable[i] = be64_get(disk[i]);
        c->total += c->reftable[i] != 0;
    }
    return 0;
}

static int
count_refblock(struct check *c, uint32_t idx, struct qcow2_error *err)
{
    uint64_t entry = c->reftable[idx];
    uint64_t host_off = entry & REFTABLE_OFFSET_MASK;
    enum problem problem;

    if (entry & REFTABLE_RESERVED_MASK) {
        problem = PROBLEM_REFTABLE_RESERVED;
        host_off = entry;
    } else if (!is_aligned(host_off, c->cluster_size)) {
        problem = PROBLEM_REFBLOCK_MISALIGNED;
    } else if (host_off >= c->file_size) {
        problem = PROBLEM_REFBLOCK_PAST_END;
    } else if (scale_up(idx, c->refblock_bits)
               >= MAX_HOST_OFFSET >> c->cluster_bits) {
        problem = PROBLEM_REFBLOCK_UNREACHABLE;
    } else {
        c->blocks[idx] = BLOCK_COUNTED | BLOCK_USABLE;
        return check_refer(c, host_off, c->cluster_size, 1, err);
    }
    c->rebuild = true;
    check_report(c, problem, entry_place(c, idx), host_off, 0);
    return 0;
}

int
check_count_refblocks(struct check *c, struct qcow2_error *err)
{
    for (uint32_t i = 0; i < c->reftable_entries; i++)
        if (c->reftable[i] && count_refblock(c, i, err) == -1)
            return -1;
    for (uint32_t i = 0; i < c->reftable_entries; i++)
        if (c->blocks[i] & BLOCK_USABLE
            && counters_get(&c->refs, c->reftable[i] >> c->cluster_bits) > 1) {
            c->blocks[i] &= ~BLOCK_USABLE;
            c->rebuild = true;
            check_report(c, PROBLEM_REFBLOCK_SHARED, c->reftable[i], 0, 0);
        }
    return 0;
}

/* One cluster whose refcount on disk is `stored`. */
static int
compare_cluster(struct check *c, uint64_t cluster, uint64_t stored,
                uint64_t refs, uint8_t *block, struct qcow2_error *err)
{
    uint64_t at = scale_up(cluster, c->cluster_bits);
    bool overflow = refs > c->refcount_max;

    if (refs > 0 || at < c->file_size)
        c->end = max_u64(c->end, cluster + 1);
    if (stored == refs)
        return 0;
    if (overflow)
        check_report(c, PROBLEM_REFCOUNT_OVERFLOW, at, c->refcount_max, refs);
    if (stored > refs) {
        *block |= BLOCK_LOWER;
        check_report(c, PROBLEM_REFCOUNT_HIGH, at, stored, refs);
    } else if (stored < c->refcount_max) {
        *block |= BLOCK_RAISE;
        if (!overflow)
            check_report(c, PROBLEM_REFCOUNT_LOW, at, stored, refs);
    }
    return counters_set(&c->stored, cluster,
                      stored == UINT64_MAX ? stored : stored + 1, err);
}

/* Clusters [first, end) have no refcount: none should have a reference. Or
 * their refcounts are not known, then nothing can be said. */
static int
compare_with_nothing(struct check *c, uint64_t first, uint64_t end,
                     bool unknown, uint8_t *block, struct qcow2_error *err)
{
    for (uint64_t i = first; counters_next(&c->refs, &i, end); i++) {
        uint64_t refs = counters_get(&c->refs, i);
        uint64_t stored = unknown ? min_u64(refs, c->refcount_max) : 0;

        if (compare_cluster(c, i, stored, refs, block, err) == -1)
            return -1;
    }
    return 0;
}

uint64_t
check_skip_zeroes(struct check *c, uint64_t first, uint64_t i,
                  uint64_t *next)
{
    uint64_t end = first + (UINT64_C(1) << c->refblock_bits);
    unsigned order = c->hdr->refcount_order, per_word = 64u >> order;
    uint64_t word;

    while (i < end && (i & (per_word - 1)) == 0) {
        memcpy(&word, c->table + ((i - first) << order) / 8, sizeof word);
        if (word != 0)
            break;
        if (*next <= i) {
            *next = i;
            if (!counters_next(&c->refs, next, end))
                *next = end;
        }
        if (*next - i < per_word)
            break;
        i += per_word;
    }
    return i;
}

/* nr clusters that are alike. */
static int
compare_run(struct check *c, uint64_t cluster, uint64_t nr, uint64_t stored,
            uint64_t refs, uint8_t *block, struct qcow2_error *err)
{
    if (stored == refs) {
        if (refs > 0)
            c->end = max_u64(c->end, cluster + nr);
        return 0;
    }
    for (uint64_t i = 0; i < nr; i++)
        if (compare_cluster(c, cluster + i, stored, refs, block, err) == -1)
            return -1;
    return 0;
}

static int
compare_refblock(struct check *c, uint32_t idx, struct qcow2_error *err)
{
    uint64_t first = scale_up(idx, c->refblock_bits);
    uint64_t end = first + (UINT64_C(1) << c->refblock_bits);
    unsigned order = c->hdr->refcount_order;
    uint64_t next = 0;
    bool is_hole;

    if (check_read(c, c->table, c->cluster_size, c->reftable[idx], &is_hole,
                   err) == -1)
        return -1;
    if (is_hole)
        return compare_with_nothing(c, first, end, false, &c->blocks[idx],
                                    err);
    for (uint64_t i = first, n;
         (i = check_skip_zeroes(c, first, i, &next)) < end; i += n) {
        uint64_t stored = refcount_get(c->table, order, i - first), refs;

        n = counters_run(&c->refs, i, end - i, &refs);
        n = refcount_run(c->table, order, i - first, n);
        if (compare_run(c, i, n, stored, refs, &c->blocks[idx], err) == -1)
            return -1;
    }
    return 0;
}

int
check_compare(struct check *c, struct qcow2_error *err)
{
    uint64_t covered = scale_up(c->reftable_entries, c->refblock_bits);
    uint8_t none = 0;

    for (uint32_t i = 0; i < c->reftable_entries; i++) {
        uint64_t first = scale_up(i, c->refblock_bits);
        uint64_t end = first + (UINT64_C(1) << c->refblock_bits);
        int r = 0;

        if (c->blocks[i] & BLOCK_USABLE)
            r = compare_refblock(c, i, err);
        else
            r = compare_with_nothing(c, first, end, c->reftable[i] != 0,
                                     &none, err);
        if (r == -1 || (c->reftable[i] && check_step(c, err) == -1))
            return -1;
    }
    if (compare_with_nothing(c, covered, UINT64_MAX,
                             c->flaws & 1u << HEADER_REFTABLE, &none, err)
        == -1)
        return -1;
    if (none)
        c->rebuild = true;
    return 0;
}
