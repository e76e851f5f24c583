/* SPDX-License-Identifier: BSD-3-Clause */
/* check-copied.c: COPIED must be set in the active disk's tables exactly
 * where the refcount is 1 (I4). Snapshots' own tables need not have it right.
 */
#include <stdlib.h>

#include "check-private.h"
#include "checked.h"
#include "entry.h"
#include "error.h"

static void
check_flag(struct check *c, bool copied, uint64_t host_off, uint64_t at)
{
    uint64_t stored = check_stored(c, host_off >> c->cluster_bits);

    if (copied && stored != 1)
        check_report(c, PROBLEM_COPIED_SET, at, stored, 0);
    else if (!copied && stored == 1)
        check_report(c, PROBLEM_COPIED_CLEAR, at, stored, 0);
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

static int
check_l2_flag(struct check *c, uint64_t entry, uint64_t at, uint64_t weight,
              struct qcow2_error *err)
{
    struct l2_entry e = entry_decode_l2(entry, c->cluster_bits,
                                        c->hdr->version);

    (void)weight, (void)err;
    if (e.kind == MAP_ZERO && e.flaws & ENTRY_MISALIGNED)
        return 0;
    if (e.host_off && e.kind != MAP_COMPRESSED
        && e.host_off < c->file_size)
        check_flag(c, e.copied, e.host_off, at);
    return 0;
}

int
check_copied(struct check *c, struct qcow2_error *err)
{
    if (check_entries(c, c->l1[0].start, c->l1[0].end, 1, check_l1_flag, err)
        == -1)
        return -1;
    for (uint64_t i = 0; counts_next(&c->l2_active, &i, UINT64_MAX); i++) {
        uint64_t at = i << c->cluster_bits;

        if (check_entries(c, at, at + c->cluster_size, 1, check_l2_flag, err)
            == -1)
            return -1;
    }
    return 0;
}
