/* SPDX-License-Identifier: BSD-3-Clause */
/* check-bitmaps.c: counts the references of persistent bitmaps: directory,
 * tables, and clusters of bits.
 */
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check-private.h"
#include "format/bitmap-directory.h"

static int
count_bitmap_cluster(struct check *c, uint64_t entry, uint64_t at,
                     uint64_t weight, struct qcow2_error *err)
{
    uint64_t host_off;

    if (!bitmap_entry_cluster(entry, c->cluster_size, &host_off)) {
        check_report(c, PROBLEM_BITMAP_ENTRY, at, entry, 0);
        c->lost = true;
        return 0;
    }
    if (host_off == 0)
        return 0;
    if (!check_inside(c, host_off, c->cluster_size)) {
        check_report_past_end(c, PROBLEM_BITMAP_PAST_END, at, host_off, 0);
        return 0;
    }
    return check_refer(c, host_off, c->cluster_size, weight, err);
}

static int
sweep_bitmap_table(struct check *c, uint64_t start, uint64_t end,
                   uint64_t weight, struct qcow2_error *err)
{
    return check_entries(c, start, end, weight, count_bitmap_cluster, err);
}

/* Can this be the table of the directory's entry at `at`? */
static bool
is_table(struct check *c, uint64_t at, uint64_t off, uint64_t nr_bytes)
{
    if (!check_inside(c, off, nr_bytes)) {
        check_report_past_end(c, PROBLEM_BITMAP_TABLE, at, off, nr_bytes / 8);
        return false;
    }
    if (!is_aligned(off, c->cluster_size)
        || nr_bytes / 8 * c->cluster_size > MAX_BITMAP_BYTES) {
        check_report(c, PROBLEM_BITMAP_TABLE, at, off, nr_bytes / 8);
        c->lost = true;
        return false;
    }
    return true;
}

/* Decodes the directory into the tables it names. What follows an entry that
 * makes no sense cannot be found, and is not looked for behind more tables
 * than anybody has. */
static void
find_tables(struct check *c, const unsigned char *directory,
            struct span *tables, size_t *nr)
{
    uint64_t len = c->hdr->bitmap_directory_size, pos = 0;
    uint64_t start_at = c->hdr->bitmap_directory_offset, clusters = 0;
    uint64_t at = start_at;

    for (*nr = 0; *nr < c->hdr->nr_bitmaps; ) {
        struct bitmap_entry e;
        uint64_t off, nr_bytes;

        at = start_at + pos;
        if (!bitmap_entry_next(directory, len, &pos, &e))
            break;
        off = e.table_off;
        nr_bytes = e.table_entries * UINT64_C(8);
        if (!is_table(c, at, off, nr_bytes))
            off = nr_bytes = 0;
        clusters += div_round_up(nr_bytes, c->cluster_size);
        if (clusters > MAX_BITMAP_TABLE_CLUSTERS)
            break;
        tables[(*nr)++] = (struct span){ off, off + nr_bytes };
    }
    if (*nr < c->hdr->nr_bitmaps) {
        check_report(c, PROBLEM_BITMAP_DIRECTORY, at, 0, 0);
        c->lost = true;
    }
}

int
check_count_bitmaps(struct check *c, struct qcow2_error *err)
{
    const struct header *h = c->hdr;
    CLEANUP_FREE unsigned char *directory = NULL;
    struct span *tables;
    size_t nr;

    if (h->bitmap_directory_size == 0)
        return 0;
    directory = malloc(h->bitmap_directory_size);
    tables = c->bitmap_tables = calloc(h->nr_bitmaps, sizeof *tables);
    if (!directory || !tables)
        return error_nomem(err);
    if (check_refer(c, h->bitmap_directory_offset, h->bitmap_directory_size,
                    1, err) == -1
        || check_read(c, directory, h->bitmap_directory_size,
                      h->bitmap_directory_offset, NULL, err) == -1)
        return -1;
    find_tables(c, directory, tables, &nr);
    c->nr_bitmap_tables = nr;
    if (check_refer_spans(c, tables, nr, err) == -1)
        return -1;
    return check_sweep(c, tables, nr, sweep_bitmap_table, err);
}
