/* SPDX-License-Identifier: BSD-3-Clause */
/* check-walk.c: finds all references to host clusters.
 *
 * Tables may be shared, on purpose (snapshots) or by malice (65536 snapshots
 * with one huge L1 table). So L1 tables are swept as intervals of the file,
 * and L2 tables visited in order of their place, each stretch once, with the
 * number of tables it belongs to as the weight of its references.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check-private.h"
#include "format/entry.h"

enum {
    PIECE_BYTES = 64 << 10,
    MAX_ENTRY_BYTES = 1 << EXTENDED_L2_ENTRY_BITS,
};

bool
check_inside(const struct check *c, uint64_t host_off, uint64_t nr_bytes)
{
    return range_inside(host_off, nr_bytes,
                        round_up(c->file_size, c->cluster_size));
}

void
check_report_past_end(struct check *c, enum problem problem, uint64_t at,
                      uint64_t host_off, uint64_t b)
{
    check_report(c, problem, at, host_off, b);
    c->first_past_end = min_u64(c->first_past_end, host_off);
    c->lost = true;
}

int
check_refer(struct check *c, uint64_t host_off, uint64_t nr_bytes,
            uint64_t weight, struct qcow2_error *err)
{
    uint64_t first = host_off >> c->cluster_bits;
    uint64_t last = (host_off + nr_bytes - 1) >> c->cluster_bits;

    if (nr_bytes == 0)
        return 0;
    return counters_add_range(&c->refs, first, last - first + 1, weight, err);
}

static int
compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int
check_sweep(struct check *c, const struct span *spans, size_t nr,
            check_sweep_fn *fn, struct qcow2_error *err)
{
    CLEANUP_FREE uint64_t *starts = malloc((2 * nr + 1) * sizeof *starts);
    uint64_t pos = 0, weight = 0, *ends;
    size_t i = 0, j = 0;

    if (!starts)
        return error_nomem(err);
    ends = starts + nr;
    for (size_t k = 0; k < nr; k++) {
        starts[k] = spans[k].start;
        ends[k] = spans[k].end;
    }
    qsort(starts, nr, sizeof *starts, compare_offsets);
    qsort(ends, nr, sizeof *ends, compare_offsets);
    while (j < nr) {
        bool begins = i < nr && starts[i] <= ends[j];
        uint64_t next = begins ? starts[i] : ends[j];

        if (weight > 0 && next > pos
            && fn(c, pos, next, weight, err) == -1)
            return -1;
        pos = next;
        if (begins) {
            i++;
            weight++;
        } else {
            j++;
            weight--;
        }
    }
    return 0;
}

/* The spans with all of the clusters they touch; the caller frees it. */
static struct span *
clusters_of(const struct check *c, const struct span *spans, size_t nr)
{
    struct span *whole = calloc(nr + 1, sizeof *whole);

    for (size_t i = 0; i < nr && whole; i++) {
        whole[i].start = spans[i].start;
        whole[i].end = round_up(spans[i].end, c->cluster_size);
    }
    return whole;
}

static int
refer_stretch(struct check *c, uint64_t start, uint64_t end, uint64_t weight,
              struct qcow2_error *err)
{
    return check_refer(c, start, end - start, weight, err);
}

int
check_refer_spans(struct check *c, const struct span *spans, size_t nr,
                  struct qcow2_error *err)
{
    CLEANUP_FREE struct span *whole = clusters_of(c, spans, nr);

    if (!whole)
        return error_nomem(err);
    return check_sweep(c, whole, nr, refer_stretch, err);
}

int
check_pieces(struct check *c, uint64_t start, uint64_t end,
             check_piece_fn *fn, void *opaque, struct qcow2_error *err)
{
    CLEANUP_FREE be64 *piece = malloc(PIECE_BYTES);

    if (!piece)
        return error_nomem(err);
    while (start < end) {
        uint64_t n = min_u64(end - start, PIECE_BYTES);
        uint64_t hole;

        if (check_hole(c, start, end - start, &hole, err) == -1)
            return -1;
        hole = round_down(hole, MAX_ENTRY_BYTES);
        if (hole > 0) {
            start += hole;
            continue;
        }
        if (check_read(c, piece, n, start, NULL, err) == -1
            || fn(c, piece, n / sizeof *piece, start, opaque, err) == -1)
            return -1;
        start += n;
    }
    return 0;
}

/* What check_entries does to each. */
struct each {
    check_entry_fn *fn;
    uint64_t weight;
};

static int
entries_of_piece(struct check *c, const be64 *piece, uint64_t nr,
                 uint64_t at, void *opaque, struct qcow2_error *err)
{
    const struct each *e = opaque;

    for (uint64_t i = 0; i < nr; i++) {
        uint64_t entry = be64_get(piece[i]);

        if (entry && e->fn(c, entry, at + i * sizeof *piece, e->weight, err)
                     == -1)
            return -1;
    }
    return 0;
}

int
check_entries(struct check *c, uint64_t start, uint64_t end, uint64_t weight,
              check_entry_fn *fn, struct qcow2_error *err)
{
    struct each e = { fn, weight };

    return check_pieces(c, start, end, entries_of_piece, &e, err);
}

uint64_t
check_row(const struct check *c, const struct l2_slice *s, uint64_t idx,
          uint64_t nr, struct l2_entry *e)
{
    uint64_t end = c->outside ? MAX_HOST_OFFSET : c->file_size;

    *e = l2_get(s, idx, 0);
    if (e->alloc_mask == 0 || e->flaws || e->host_off >= end)
        return 1;
    nr = min_u64(nr, (end - e->host_off) >> c->cluster_bits);
    nr = min_u64(nr, (MAX_HOST_OFFSET - e->host_off) >> c->cluster_bits);
    return nr > 1 ? l2_row(s, idx, nr, e) : 1;
}

/* One L1 entry: counts its L2 table. */
static int
count_l1_entry(struct check *c, uint64_t entry, uint64_t at, uint64_t weight,
               struct qcow2_error *err)
{
    struct l1_entry e = entry_decode_l1(entry, c->cluster_bits);
    bool inside = check_inside(c, e.host_off, c->cluster_size);

    if (e.flaws & ENTRY_RESERVED_BITS)
        check_report(c, PROBLEM_L1_RESERVED, at, entry, 0);
    if (e.host_off == 0) {
        if (e.copied)
            check_report(c, PROBLEM_L1_COPIED_NOTHING, at, 0, 0);
        return 0;
    }
    if (inside && check_refer(c, e.host_off, c->cluster_size, weight, err)
                  == -1)
        return -1;
    if (!inside) {
        check_report_past_end(c, PROBLEM_L1_PAST_END, at, e.host_off, 0);
        return 0;
    }
    if (e.flaws & ENTRY_MISALIGNED) {
        check_report(c, PROBLEM_L1_MISALIGNED, at, e.host_off, 0);
        c->lost = true;
        return 0;
    }
    return counters_add(&c->l2, e.host_off >> c->cluster_bits, weight, err);
}

static int
count_active_l1_entry(struct check *c, uint64_t entry, uint64_t at,
                      uint64_t weight, struct qcow2_error *err)
{
    struct l1_entry e = entry_decode_l1(entry, c->cluster_bits);
    bool aligned = !(e.flaws & ENTRY_MISALIGNED);

    if (count_l1_entry(c, entry, at, weight, err) == -1)
        return -1;
    if (e.host_off == 0 || !aligned || e.host_off >= c->file_size)
        return 0;
    if (c->outside && counters_get(&c->l2_index, e.host_off >> c->cluster_bits)
                      == 0
        && counters_set(&c->l2_index, e.host_off >> c->cluster_bits,
                        (at - c->l1[0].start) / sizeof entry + 1, err) == -1)
        return -1;
    return counters_add(&c->l2_active, e.host_off >> c->cluster_bits, weight,
                      err);
}

static int
sweep_l1(struct check *c, uint64_t start, uint64_t end, uint64_t weight,
         struct qcow2_error *err)
{
    return check_entries(c, start, end, weight, count_l1_entry, err);
}

/* An L2 table being walked. */
struct walk {
    uint64_t weight;         /* L1 entries that point to it */
    uint64_t active;         /* of the active disk */
    uint64_t guest_off;      /* of its first entry, where data are outside */
    uint64_t next_host_off;  /* 0, or where unfragmented data goes on */
};

/* An entry, and n - 1 more in a row. */
static void
note_allocated(struct check *c, struct walk *w, const struct l2_entry *e,
               uint64_t n)
{
    struct qcow2_check_result *r = &c->result;

    if (w->active == 0)
        return;
    r->allocated_clusters += n * w->active;
    if (e->kind == MAP_COMPRESSED) {
        r->compressed_clusters += w->active;
        r->fragmented_clusters += w->active;
        return;
    }
    if (w->next_host_off && w->next_host_off != e->host_off)
        r->fragmented_clusters += w->active;
    w->next_host_off = e->host_off + n * c->cluster_size;
}

static void
report_flaws(struct check *c, const struct l2_entry *e, uint64_t entry,
             uint64_t at)
{
    if (e->flaws & ENTRY_RESERVED_BITS && entry & L2_RESERVED_MASK)
        check_report(c, PROBLEM_L2_RESERVED, at, entry, 0);
    if (e->flaws & ENTRY_RESERVED_BITS && entry & L2_ZERO
        && header_has_extended_l2(c->hdr))
        check_report(c, PROBLEM_L2_ZERO_FLAG, at, entry, 0);
    if (e->flaws & ENTRY_ZERO_IN_V2)
        check_report(c, PROBLEM_L2_ZERO_IN_V2, at, 0, 0);
    if (e->flaws & ENTRY_COPIED_COMPRESSED)
        check_report(c, PROBLEM_COPIED_COMPRESSED, at, 0, 0);
    if (e->flaws & ENTRY_MISALIGNED)
        check_report(c, check_has_data(e) ? PROBLEM_L2_MISALIGNED
                                          : PROBLEM_L2_ZERO_MISALIGNED,
                     at, e->host_off, 0);
}

static void
report_bitmap_flaws(struct check *c, const struct l2_entry *e, uint64_t at)
{
    uint64_t bitmap = e->alloc_mask | (uint64_t)e->zero_mask << 32;

    if (e->flaws & ENTRY_ALLOCATED_ZERO)
        check_report(c, PROBLEM_SUBCLUSTERS_ODD, at, bitmap, 0);
    if (e->flaws & ENTRY_ALLOCATED_NOWHERE)
        check_report(c, PROBLEM_SUBCLUSTERS_NOWHERE, at, bitmap, 0);
    if (e->flaws & ENTRY_COMPRESSED_BITMAP)
        check_report(c, PROBLEM_SUBCLUSTERS_COMPRESSED, at, 0, 0);
    /* Its data is somewhere. */
    c->lost |= (e->flaws & ENTRY_ALLOCATED_NOWHERE) != 0;
}

/* An entry at `at`, whose first word is `entry`, and n - 1 more in a row
 * (check_row). */
static int
count_l2_entry(struct check *c, struct walk *w, struct l2_entry e,
               uint64_t entry, uint64_t n, uint64_t at,
               struct qcow2_error *err)
{
    bool misaligned = e.flaws & ENTRY_MISALIGNED;
    uint64_t len = e.kind == MAP_COMPRESSED ? e.compressed_len
                                            : n * c->cluster_size;
    bool inside = check_inside(c, e.host_off, len);

    report_flaws(c, &e, entry, at);
    report_bitmap_flaws(c, &e, at);
    if (c->outside && e.kind == MAP_COMPRESSED)
        check_report(c, PROBLEM_COMPRESSED_OUTSIDE, at, 0, 0);
    if (e.host_off == 0 && e.kind != MAP_COMPRESSED)
        return 0;
    if (misaligned && !check_has_data(&e)) {
        /* Nobody can use its place, and repair takes it away. */
        c->lost |= c->options.repair != QCOW2_REPAIR_ALL;
        return 0;
    }
    c->lost |= misaligned;
    note_allocated(c, w, &e, n);
    if (inside && check_refer(c, e.host_off, len, w->weight, err) == -1)
        return -1;
    if (inside && e.kind == MAP_COMPRESSED && c->options.data
        && check_compressed(c, &e, at, err) == -1)
        return -1;
    if (!inside)
        check_report_past_end(c, e.kind == MAP_COMPRESSED
                                 ? PROBLEM_COMPRESSED_PAST_END
                                 : PROBLEM_L2_PAST_END, at, e.host_off, 0);
    return 0;
}

/* Where data are outside: the first guest byte that a table is about. */
static uint64_t
table_guest_off(struct check *c, uint64_t cluster)
{
    uint64_t index = counters_get(&c->l2_index, cluster);

    return index ? (index - 1) << geometry_l1_reach_bits(&c->hdr->geo) : 0;
}

/* The same of data outside of the image's file, which refers to nothing here:
 * of the cluster at guest_off, and those that follow. */
static void
count_outside(struct check *c, struct walk *w, struct l2_entry e,
              uint64_t entry, uint64_t n, uint64_t guest_off, uint64_t at)
{
    bool is_at_0 = check_is_at_0(c, &e);

    if (is_at_0)
        e.flaws &= ~ENTRY_ALLOCATED_NOWHERE;
    report_flaws(c, &e, entry, at);
    report_bitmap_flaws(c, &e, at);
    if (e.host_off == 0 && !is_at_0)
        return;
    note_allocated(c, w, &e, n);
    for (uint64_t i = 0; i < n && e.host_off != guest_off
                         && !(e.flaws & ENTRY_MISALIGNED); i++)
        check_report(c, PROBLEM_DATA_MISPLACED, check_entry_place(c, at, i),
                     e.host_off + i * c->cluster_size, 0);
}

static int
count_l2_table(struct check *c, uint64_t cluster, struct qcow2_error *err)
{
    struct walk w = {
        .weight = counters_get(&c->l2, cluster),
        .active = counters_get(&c->l2_active, cluster),
        .guest_off = table_guest_off(c, cluster),
    };
    uint64_t host_off = scale_up(cluster, c->cluster_bits);
    const struct l2_slice s = check_slice(c, (const be64 *)c->table);
    uint64_t nr = check_l2_entries(c, c->cluster_size / sizeof(be64));
    bool is_hole;

    if (check_read(c, c->table, c->cluster_size, host_off, &is_hole, err)
        == -1)
        return -1;
    for (uint64_t i = 0, n; i < nr && !is_hole; i += n) {
        struct l2_entry e;
        uint64_t entry, at;

        n = 1;
        if (check_is_empty(&s, i))
            continue;
        n = check_row(c, &s, i, nr - i, &e);
        entry = l2_load_word(&s, i * check_l2_words(c));
        at = check_entry_place(c, host_off, i);
        if (c->outside && e.kind != MAP_COMPRESSED)
            count_outside(c, &w, e, entry, n,
                          w.guest_off + scale_up(i, c->cluster_bits), at);
        else if (count_l2_entry(c, &w, e, entry, n, at, err) == -1)
            return -1;
    }
    return check_step(c, err);
}

/* Metadata that must not be used by anything else (an L2 table may be by
 * several L1 entries). */
static int
expect_alone(struct check *c, uint64_t cluster, enum problem problem,
             struct qcow2_error *err)
{
    if (counters_get(&c->refs, cluster)
        <= max_u64(1, counters_get(&c->l2, cluster)))
        return 0;
    check_report(c, problem, scale_up(cluster, c->cluster_bits), 0, 0);
    if (problem != PROBLEM_METADATA_SHARED || c->quiet)
        return 0;
    return counters_set(&c->shared, cluster, 1, err);
}

static int
sweep_alone(struct check *c, uint64_t start, uint64_t end, uint64_t weight,
            struct qcow2_error *err)
{
    (void)weight;
    for (; start < end; start += c->cluster_size)
        if (expect_alone(c, start >> c->cluster_bits,
                         PROBLEM_METADATA_SHARED, err) == -1)
            return -1;
    return 0;
}

static int
find_shared_metadata(struct check *c, struct qcow2_error *err)
{
    const struct header *h = c->hdr;
    CLEANUP_FREE struct span *l1 = clusters_of(c, c->l1, c->nr_l1);
    struct span others[] = {
        { 0, 1 },
        { h->snapshots_offset, h->snapshots_offset + c->snaptab->nr_bytes },
        { h->bitmap_directory_offset,
          h->bitmap_directory_offset + h->bitmap_directory_size },
    };

    if (!l1)
        return error_nomem(err);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        for (uint64_t at = others[i].start; at < others[i].end;
             at += c->cluster_size)
            if (expect_alone(c, at >> c->cluster_bits,
                             PROBLEM_METADATA_SHARED, err) == -1)
                return -1;
    if (check_sweep(c, l1, c->nr_l1, sweep_alone, err) == -1)
        return -1;
    for (uint64_t i = 0; counters_next(&c->l2, &i, UINT64_MAX); i++)
        if (expect_alone(c, i, PROBLEM_METADATA_SHARED, err) == -1)
            return -1;
    for (uint32_t i = 0; i < h->reftable_clusters; i++)
        if (expect_alone(c, (h->reftable_offset >> c->cluster_bits) + i,
                         PROBLEM_REFTABLE_SHARED, err) == -1)
            return -1;
    c->rebuild |= c->nr[PROBLEM_REFTABLE_SHARED] > 0;
    return 0;
}

static int
count_tables(struct check *c, struct qcow2_error *err)
{
    const struct header *h = c->hdr;

    if (check_refer(c, 0, c->cluster_size, 1, err) == -1
        || check_refer(c, h->snapshots_offset, c->snaptab->nr_bytes, 1, err)
           == -1
        || check_refer(c, h->reftable_offset,
                       scale_up(h->reftable_clusters, c->cluster_bits), 1,
                       err) == -1)
        return -1;
    return check_refer_spans(c, c->l1, c->nr_l1, err);
}

int
check_count(struct check *c, struct qcow2_error *err)
{
    if (count_tables(c, err) == -1
        || check_entries(c, c->l1[0].start, c->l1[0].end, 1,
                         count_active_l1_entry, err) == -1
        || check_sweep(c, c->l1 + 1, c->nr_l1 - 1, sweep_l1, err) == -1
        || counters_sort(&c->l2, err) == -1
        || counters_sort(&c->l2_active, err) == -1)
        return -1;
    for (uint64_t i = 0; counters_next(&c->l2, &i, UINT64_MAX); i++)
        c->total++;
    for (uint64_t i = 0; counters_next(&c->l2, &i, UINT64_MAX); i++)
        if (count_l2_table(c, i, err) == -1)
            return -1;
    if (check_count_bitmaps(c, err) == -1
        || check_count_refblocks(c, err) == -1)
        return -1;
    return find_shared_metadata(c, err);
}

int
check_recount_lasting(struct check *c, struct qcow2_error *err)
{
    c->quiet = true;
    c->nr[PROBLEM_METADATA_SHARED] = c->nr[PROBLEM_REFCOUNT_OVERFLOW] = 0;
    for (uint64_t i = 0; counters_next(&c->refs, &i, UINT64_MAX); i++)
        c->nr[PROBLEM_REFCOUNT_OVERFLOW]
            += counters_get(&c->refs, i) > c->refcount_max;
    return find_shared_metadata(c, err);
}
