/* SPDX-License-Identifier: BSD-3-Clause */
/* tree-search.c: does a table of an image refer to certain host clusters? See
 * tree.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "meta/l2-slice.h"
#include "meta/tree.h"

enum { PIECE_BYTES = 64 << 10 };

struct search {
    struct image *img;
    const struct freed_run *runs;
    size_t nr;
    struct cluster_set seen; /* L2 tables */
    uint64_t budget;        /* bytes that may still be read */
    be64 *piece;
};

/* Is one of the clusters of [host_off, host_off + nr_bytes) searched for? */
static bool
is_hit(const struct search *s, uint64_t host_off, uint64_t nr_bytes)
{
    uint64_t first = host_off >> s->img->cluster_bits;
    uint64_t last = (host_off + nr_bytes - 1) >> s->img->cluster_bits;
    size_t low = 0, high = s->nr;

    /* The first run that ends behind `first`. */
    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (s->runs[mid].cluster + s->runs[mid].nr <= first)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->nr && s->runs[low].cluster <= last;
}

static bool
is_entry_hit(const struct search *s, const struct l2_entry *e)
{
    if (e->host_off == 0
        || (!s->img->data->counted && e->kind != MAP_COMPRESSED))
        return false;
    return is_hit(s, e->host_off, e->kind == MAP_COMPRESSED
                                      ? e->compressed_len : 1);
}

/* Does an entry of this table hit? */
static int
search_l2(struct search *s, uint64_t host_off, struct qcow2_error *err)
{
    const struct geometry *geo = &s->img->geo;
    struct l2_slice entries = l2_slice_in_memory(s->piece, geo,
                                                 s->img->hdr.version);
    uint64_t nr_bytes = s->img->cluster_size, n;

    if (nr_bytes > s->budget)
        return error_set(err, E2BIG, "the tables are too many");
    s->budget -= nr_bytes;
    for (uint64_t at = 0; at < nr_bytes; at += n) {
        n = min_u64(nr_bytes - at, PIECE_BYTES);
        if (io_pread(s->img->io, s->piece, n, host_off + at, err) == -1)
            return -1;
        for (uint64_t i = 0; i < n >> geo->l2_entry_bits; i++) {
            struct l2_entry e = l2_get(&entries, i, 0);

            if (is_entry_hit(s, &e))
                return 1;
        }
    }
    return 0;
}

/* Snapshots share tables: each is looked through once. */
static int
search_l1_entry(struct search *s, uint64_t entry, struct qcow2_error *err)
{
    struct l1_entry e = entry_decode_l1(entry, s->img->cluster_bits);
    uint64_t cluster = e.host_off >> s->img->cluster_bits;

    if (e.host_off == 0 || cluster_set_has(&s->seen, cluster, 1))
        return 0;
    if (is_hit(s, e.host_off, s->img->cluster_size))
        return 1;
    if (cluster_set_add(&s->seen, cluster, 1, err) == -1)
        return -1;
    return search_l2(s, e.host_off, err);
}

static int
search_l1(struct search *s, uint64_t l1_off, uint32_t l1_entries,
          struct qcow2_error *err)
{
    uint64_t nr_bytes = l1_entries * sizeof(be64);
    CLEANUP_FREE be64 *l1 = malloc(nr_bytes + 1);
    int r = 0;

    if (!l1)
        return error_nomem(err);
    if (nr_bytes > s->budget)
        return error_set(err, E2BIG, "the tables are too many");
    s->budget -= nr_bytes;
    if (io_pread(s->img->io, l1, nr_bytes, l1_off, err) == -1)
        return -1;
    for (uint32_t i = 0; r == 0 && i < l1_entries; i++)
        r = search_l1_entry(s, be64_get(l1[i]), err);
    return r;
}

int
tree_search(struct image *img, const struct freed_run *runs, size_t nr,
            struct qcow2_error *err)
{
    CLEANUP_FREE be64 *piece = malloc(PIECE_BYTES);
    struct search s = { .img = img, .runs = runs, .nr = nr, .piece = piece,
                        .budget = MAX_SEARCHED_BYTES };
    int r;

    if (!piece)
        return error_nomem(err);
    if (cluster_set_init(&s.seen, err) == -1)
        return -1;
    r = search_l1(&s, img->hdr.l1_offset, img->hdr.l1_size, err);
    for (uint32_t i = 0; r == 0 && i < img->snaptab.nr; i++)
        r = search_l1(&s, img->snaptab.snapshots[i].l1_offset,
                      img->snaptab.snapshots[i].l1_size, err);
    cluster_set_destroy(&s.seen);
    return r;
}
