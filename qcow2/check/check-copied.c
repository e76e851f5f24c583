/* SPDX-License-Identifier: BSD-3-Clause */
/* check-copied.c: COPIED must be set in the active disk's tables exactly
 * where the refcount is 1 (I4). Snapshots' own tables need not have it right.
 */
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "check/check-private.h"
#include "format/entry.h"

static void
check_flag(struct check *c, bool copied, uint64_t host_off, uint64_t at)
{
    uint64_t cluster = host_off >> c->cluster_bits;
    uint64_t stored = check_stored(c, cluster);

    if (copied && stored != 1) {
        check_report(c, PROBLEM_COPIED_SET, at, stored, 0);
        c->nr_true_when_lowered += check_settled(c, cluster) == 1;
    } else if (!copied && stored == 1) {
        check_report(c, PROBLEM_COPIED_CLEAR, at, stored, 0);
    }
}

static int
check_l1_flag(struct check *c, uint64_t entry, uint64_t at, uint64_t weight,
              struct qcow2_error *err)
{
    struct l1_entry e = entry_decode_l1(entry, c->cluster_bits);

    (void)weight, (void)err;
    if (e.host_off && e.host_off < c->file_size)
        check_flag(c, e.copied, e.host_off, at);
    return 0;
}

/* Entries of data in a row (check_row), all with the same flag. */
static void
check_row_flags(struct check *c, const struct l2_entry *e, uint64_t nr,
                uint64_t at)
{
    uint64_t cluster = e->host_off >> c->cluster_bits;

    for (uint64_t i = 0, n; i < nr; i += n) {
        uint64_t stored;

        n = check_stored_run(c, cluster + i, nr - i, &stored);
        for (uint64_t j = i; e->copied != (stored == 1) && j < i + n; j++)
            check_flag(c, e->copied, scale_up(cluster + j, c->cluster_bits),
                       check_entry_place(c, at, j));
    }
}

static void
check_l2_flag(struct check *c, const struct l2_entry *e, uint64_t at)
{
    if (e->flaws & ENTRY_MISALIGNED && !check_has_data(e))
        return;
    if (e->host_off && e->kind != MAP_COMPRESSED
        && e->host_off < c->file_size)
        check_flag(c, e->copied, e->host_off, at);
}

static int
check_l2_flags(struct check *c, const be64 *piece, uint64_t nr, uint64_t at,
               void *opaque, struct qcow2_error *err)
{
    const struct l2_slice s = check_slice(c, piece);

    (void)opaque, (void)err;
    nr = check_l2_entries(c, nr);
    for (uint64_t i = 0, n; i < nr; i += n) {
        struct l2_entry e;

        n = 1;
        if (check_is_empty(&s, i))
            continue;
        n = check_row(c, &s, i, nr - i, &e);
        if (n > 1)
            check_row_flags(c, &e, n, check_entry_place(c, at, i));
        else
            check_l2_flag(c, &e, check_entry_place(c, at, i));
    }
    return 0;
}

int
check_copied(struct check *c, struct qcow2_error *err)
{
    if (check_entries(c, c->l1[0].start, c->l1[0].end, 1, check_l1_flag, err)
        == -1)
        return -1;
    /* What no refcount counts is nobody else's. */
    if (c->outside)
        return 0;
    for (uint64_t i = 0; counters_next(&c->l2_active, &i, UINT64_MAX); i++) {
        uint64_t at = scale_up(i, c->cluster_bits);

        if (check_pieces(c, at, at + c->cluster_size, check_l2_flags, NULL,
                         err) == -1)
            return -1;
    }
    return 0;
}
