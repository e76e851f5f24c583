/* SPDX-License-Identifier: BSD-3-Clause */
/* check.c: runs a check; repairs an image that was not closed. See
 * check-private.h.
 */
#include "check/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check-private.h"
#include "meta/txn.h"

/* Tells what was held back for others to join. */
static void
tell_last(struct check *c)
{
    const struct problem_kind *kind = &problem_kinds[c->last.problem];
    char text[256];
    struct qcow2_problem p = {
        .code = kind->code,
        .text = text,
        .severity = kind->severity,
        .remedy = problem_remedy(kind->remedy),
        .host_off = c->last.at,
        .nr_clusters = c->last.nr,
    };

    if (c->last.nr > 0 && c->options.problem) {
        problem_text(&c->last, text, sizeof text);
        c->options.problem(c->options.opaque, &p);
    }
    c->last.nr = 0;
}

static void
report(struct check *c, const struct finding *f)
{
    const struct problem_kind *kind = &problem_kinds[f->problem];
    struct finding *last = &c->last;
    bool joins = kind->remedy == REMEDY_REFCOUNT
                 || kind->remedy == REMEDY_LEAK;

    c->nr[f->problem]++;
    if (c->quiet)
        return;
    switch (kind->severity) {
    case QCOW2_CORRUPTION:
        c->result.corruptions++;
        break;
    case QCOW2_LEAK:
        c->result.leaks++;
        break;
    case QCOW2_INFO:
        break;
    }
    if (!c->any_damage && problem_is_damage(f->problem)) {
        c->any_damage = true;
        c->first_damage = *f;
    }
    if (joins && last->nr > 0 && last->problem == f->problem
        && last->a == f->a && last->b == f->b
        && last->at + last->nr * c->cluster_size == f->at) {
        last->nr++;
        return;
    }
    tell_last(c);
    *last = *f;
}

void
check_report(struct check *c, enum problem problem, uint64_t at, uint64_t a,
             uint64_t b)
{
    report(c, &(struct finding){ problem, at, 1, a, b, NULL });
}

void
check_report_text(struct check *c, enum problem problem, uint64_t at,
                  uint64_t a, const char *text)
{
    report(c, &(struct finding){ problem, at, 1, a, 0, text });
}

int
check_hole(struct check *c, uint64_t host_off, uint64_t nr_bytes,
           uint64_t *hole, struct qcow2_error *err)
{
    uint64_t len = nr_bytes;
    bool is_hole = false;

    if (host_off >= c->file_size) {
        *hole = nr_bytes;
        return 0;
    }
    if (io_extent(c->io, host_off, &len, &is_hole, err) == -1)
        return -1;
    *hole = is_hole ? min_u64(len, nr_bytes) : 0;
    return 0;
}

int
check_read(struct check *c, void *buf, size_t nr_bytes, uint64_t host_off,
           bool *is_hole, struct qcow2_error *err)
{
    uint64_t hole;

    if (is_hole) {
        if (check_hole(c, host_off, nr_bytes, &hole, err) == -1)
            return -1;
        *is_hole = hole == nr_bytes;
        if (*is_hole) {
            memset(buf, 0, nr_bytes);
            return 0;
        }
    }
    return io_pread(c->io, buf, nr_bytes, host_off, err);
}

int
check_step(struct check *c, struct qcow2_error *err)
{
    const struct qcow2_check_options *o = &c->options;

    c->done++;
    if (o->progress && o->progress(o->opaque, c->done, c->total) != 0)
        return error_set(err, ECANCELED, "%s: the check was cancelled",
                         c->io->name);
    return 0;
}

uint64_t
check_stored(struct check *c, uint64_t cluster)
{
    uint64_t stored = counters_get(&c->stored, cluster);

    return stored ? stored - 1 : counters_get(&c->refs, cluster);
}

uint64_t
check_stored_run(struct check *c, uint64_t cluster, uint64_t nr,
                 uint64_t *stored)
{
    uint64_t n = counters_run(&c->stored, cluster, nr, stored);

    if (*stored == 0)
        return counters_run(&c->refs, cluster, n, stored);
    --*stored;
    return n;
}

static uint64_t
settle(const struct check *c, uint64_t stored, uint64_t refs)
{
    uint64_t want = min_u64(refs, c->refcount_max);

    if (stored < want)
        return c->options.repair == QCOW2_REPAIR_ALL ? want : stored;
    return c->options.repair == QCOW2_REPAIR_NONE || c->lost ? stored : want;
}

uint64_t
check_settled(struct check *c, uint64_t cluster)
{
    return settle(c, check_stored(c, cluster), counters_get(&c->refs, cluster));
}

uint64_t
check_settled_run(struct check *c, uint64_t cluster, uint64_t nr,
                  uint64_t *settled)
{
    uint64_t stored, refs;
    uint64_t n = check_stored_run(c, cluster, nr, &stored);

    n = counters_run(&c->refs, cluster, n, &refs);
    *settled = settle(c, stored, refs);
    return n;
}

/* As much of an L1 table as the file has, if it is known where it begins. */
static struct span
usable_l1(const struct check *c)
{
    const struct header *h = c->hdr;
    uint64_t room = round_up(c->file_size, c->cluster_size);
    uint64_t nr_bytes = min_u64(h->l1_size, MAX_L1_BYTES / 8) * UINT64_C(8);

    if (h->l1_offset == 0 || !is_aligned(h->l1_offset, c->cluster_size)
        || h->l1_offset >= c->file_size)
        return (struct span){ 0, 0 };
    nr_bytes = min_u64(nr_bytes, room - h->l1_offset);
    return (struct span){ h->l1_offset, h->l1_offset + nr_bytes };
}

static int
collect_l1(struct check *c, struct qcow2_error *err)
{
    const struct snapshot_table *t = c->snaptab;

    c->l1 = calloc((size_t)t->nr + 1, sizeof *c->l1);
    if (!c->l1)
        return error_nomem(err);
    c->nr_l1 = (size_t)t->nr + 1;
    for (size_t i = 0; i < c->nr_l1; i++) {
        uint64_t start = i ? t->snapshots[i - 1].l1_offset
                           : c->hdr->l1_offset;
        uint64_t entries = i ? t->snapshots[i - 1].l1_size
                             : c->hdr->l1_size;

        c->l1[i] = (struct span){ start, start + entries * 8 };
        if (entries == 0)
            c->l1[i] = (struct span){ 0, 0 };
    }
    if (c->flaws & 1u << HEADER_L1)
        c->l1[0] = usable_l1(c);
    return 0;
}

int
check_begin(struct check *c, struct io *io, struct header *hdr,
            struct snapshot_table *snaptab,
            const struct qcow2_check_options *options,
            struct qcow2_error *err)
{
    memset(c, 0, sizeof *c);
    c->options = *options;
    c->io = io;
    c->hdr = hdr;
    c->snaptab = snaptab;
    c->cluster_bits = hdr->cluster_bits;
    c->cluster_size = UINT64_C(1) << hdr->cluster_bits;
    c->refcount_max = UINT64_MAX >> (64 - (1u << hdr->refcount_order));
    c->first_past_end = UINT64_MAX;
    c->refblock_bits = hdr->geo.refblock_bits;
    c->outside = hdr->incompatible & INCOMPAT_DATA_FILE;
    c->table = malloc(c->cluster_size);
    if (!c->table)
        return error_nomem(err);
    return io_get_size(io, &c->file_size, err);
}

void
check_end(struct check *c)
{
    counters_free(&c->refs);
    counters_free(&c->stored);
    counters_free(&c->l2);
    counters_free(&c->l2_active);
    counters_free(&c->l2_index);
    counters_free(&c->shared);
    counters_free(&c->moved);
    counters_free(&c->copies);
    free(c->l1_moves);
    counters_free(&c->l2_moves);
    counters_free(&c->l2_origins);
    free(c->new_reftable);
    repair_drop_pending(c);
    check_free_decompressor(c);
    free(c->bitmap_tables);
    free(c->reftable);
    free(c->blocks);
    free(c->l1);
    free(c->table);
}

static void
report_features(struct check *c)
{
    if (c->hdr->incompatible & INCOMPAT_DIRTY)
        check_report(c, PROBLEM_DIRTY, HEADER_AT_INCOMPATIBLE, 0, 0);
    if (c->hdr->incompatible & INCOMPAT_CORRUPT)
        check_report(c, PROBLEM_CORRUPT, HEADER_AT_INCOMPATIBLE, 0, 0);
}

int
check_run(struct check *c, struct qcow2_error *err)
{
    int r = -1;

    report_features(c);
    if (collect_l1(c, err) == 0
        && check_load_reftable(c, err) == 0
        && check_count(c, err) == 0
        && counters_sort(&c->refs, err) == 0
        && check_compare(c, err) == 0
        && check_copied(c, err) == 0)
        r = 0;
    tell_last(c);
    c->result.total_clusters = div_round_up(c->hdr->size, c->cluster_size);
    c->result.image_end_offset = scale_up(c->end, c->cluster_bits);
    return r;
}

/* Only what a crash can do to an image is put right unasked. */
static int
repair_unasked(struct check *c, struct qcow2_error *err)
{
    char text[256];

    if (check_run(c, err) == -1)
        return -1;
    if (c->any_damage) {
        problem_text(&c->first_damage, text, sizeof text);
        error_set(err, EIO, "it is damaged as well: %s", text);
        return error_hint(err, QCOW2_HINT_READONLY | QCOW2_HINT_REPAIR);
    }
    return repair_run(c, err);
}

int
check_repair_dirty(struct image *img, struct qcow2_error *err)
{
    const struct qcow2_check_options options = {
        .repair = QCOW2_REPAIR_ALL,
    };
    struct check c;
    struct txn t;
    int r = txn_begin(&t, img, TXN_ANY_VIEW | TXN_PAST_IMAGE, err);

    if (r == 0) {
        r = check_begin(&c, img->io, &img->hdr, &img->snaptab, &options, err);
        if (r == 0)
            r = repair_unasked(&c, err);
        check_end(&c);
        r = txn_end(&t, r, err);
    }
    if (r == -1)
        return error_prefix(err, "%s: was not closed cleanly, and its "
                            "refcounts are not repaired", img->name);
    IMAGE_DEBUG(img, QCOW2_DEBUG_OPEN, "%s: refcounts repaired", img->name);
    return 0;
}
