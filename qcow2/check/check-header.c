/* SPDX-License-Identifier: BSD-3-Clause */
/* check-header.c: reports what is wrong with header and snapshot table: what
 * keeps an image from being opened for writing, or at all.
 *
 * What makes no sense is dropped from the structures in memory, so that the
 * check goes on with what is left; repair_rebuild writes that to the file.
 */
#include "check/check-private.h"

static bool
has(const struct header_flaws *flaws, enum header_part part)
{
    return flaws->parts & 1u << part;
}

/* Without all of its references an image must not lose clusters. */
static void
may_be_lost(struct check *c)
{
    c->lost |= c->options.repair != QCOW2_REPAIR_ALL;
}

void
check_header(struct check *c, const struct header_flaws *flaws)
{
    c->flaws = flaws->parts;
    if (has(flaws, HEADER_L1)) {
        c->lost = true;
        check_report_text(c, PROBLEM_L1_TABLE, HEADER_AT_L1, 0,
                          flaws->text[HEADER_L1]);
    }
    if (has(flaws, HEADER_BACKING_FILE))
        check_report_text(c, PROBLEM_HEADER, HEADER_AT_BACKING_FILE, 0,
                          flaws->text[HEADER_BACKING_FILE]);
    if (has(flaws, HEADER_EXTENSIONS)) {
        c->lost = true; /* there may be bitmaps */
        check_report_text(c, PROBLEM_HEADER, c->hdr->header_length, 0,
                          flaws->text[HEADER_EXTENSIONS]);
    } else if (has(flaws, HEADER_BITMAPS)) {
        may_be_lost(c);
        check_report_text(c, PROBLEM_BITMAPS_UNUSABLE, HEADER_AT_AUTOCLEAR, 0,
                          flaws->text[HEADER_BITMAPS]);
    }
    if (has(flaws, HEADER_REFTABLE)) {
        c->rebuild = true;
        check_report_text(c, PROBLEM_REFTABLE_UNUSABLE,
                          HEADER_AT_REFCOUNT_TABLE, 0,
                          flaws->text[HEADER_REFTABLE]);
    }
    if (has(flaws, HEADER_SNAPSHOTS)) {
        c->mend_snapshots = true;
        may_be_lost(c);
        check_report_text(c, PROBLEM_SNAPSHOT_TABLE, HEADER_AT_SNAPSHOTS,
                          0, flaws->text[HEADER_SNAPSHOTS]);
    }
}

void
check_snapshots(struct check *c, uint32_t nr_lost, const char *why)
{
    struct snapshot_table *t = c->snaptab;

    for (uint32_t i = 0; i < t->nr; i++) {
        const struct snapshot *s = &t->snapshots[i];

        if (!s->flaw)
            continue;
        c->mend_snapshots = true;
        if (!s->usable)
            may_be_lost(c);
        check_report_text(c, s->usable ? PROBLEM_SNAPSHOT_ODD
                                       : PROBLEM_SNAPSHOT_UNUSABLE,
                          c->hdr->snapshots_offset, i + 1, s->flaw);
    }
    if (nr_lost > 0) {
        c->mend_snapshots = true;
        may_be_lost(c);
        check_report_text(c, PROBLEM_SNAPSHOT_TABLE,
                          c->hdr->snapshots_offset, nr_lost, why);
    }
    c->rebuild |= c->mend_snapshots;
}
