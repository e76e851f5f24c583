/* SPDX-License-Identifier: BSD-3-Clause */
/* check-metadata.c: lists the metadata that a check found, so that a caller
 * can notice later whether it changed.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check-private.h"

struct list {
    struct span *spans;
    size_t nr, capacity;
};

/* Adds the clusters of [host_off, host_off + nr_bytes) that the file has. */
static int
add(const struct check *c, struct list *l, uint64_t host_off,
    uint64_t nr_bytes, struct qcow2_error *err)
{
    uint64_t start = round_down(host_off, c->cluster_size);
    uint64_t end;

    if (nr_bytes == 0 || start >= c->file_size)
        return 0;
    end = host_off + min_u64(nr_bytes, c->file_size - host_off);
    end = min_u64(round_up(end, c->cluster_size), c->file_size);
    if (l->nr == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 64;
        struct span *spans = realloc(l->spans, capacity * sizeof *spans);

        if (!spans)
            return error_nomem(err);
        l->spans = spans;
        l->capacity = capacity;
    }
    l->spans[l->nr++] = (struct span){ start, end };
    return 0;
}

static int
add_spans(const struct check *c, struct list *l, const struct span *spans,
          size_t nr, struct qcow2_error *err)
{
    for (size_t i = 0; i < nr; i++)
        if (add(c, l, spans[i].start, spans[i].end - spans[i].start, err)
            == -1)
            return -1;
    return 0;
}

static int
add_all(struct check *c, struct list *l, struct qcow2_error *err)
{
    const struct header *h = c->hdr;

    if (add(c, l, 0, c->cluster_size, err) == -1
        || add_spans(c, l, c->l1, c->nr_l1, err) == -1
        || add(c, l, h->snapshots_offset, c->snaptab->nr_bytes, err) == -1
        || add(c, l, h->reftable_offset,
               scale_up(h->reftable_clusters, c->cluster_bits), err) == -1
        || add(c, l, h->bitmap_directory_offset, h->bitmap_directory_size,
               err) == -1
        || add_spans(c, l, c->bitmap_tables, c->nr_bitmap_tables, err) == -1)
        return -1;
    for (uint64_t i = 0; counters_next(&c->l2, &i, UINT64_MAX); i++)
        if (add(c, l, scale_up(i, c->cluster_bits), c->cluster_size, err) == -1)
            return -1;
    for (uint32_t i = 0; i < c->reftable_entries; i++)
        if (c->blocks[i] & BLOCK_COUNTED
            && add(c, l, c->reftable[i], c->cluster_size, err) == -1)
            return -1;
    return 0;
}

static int
compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

static int
pass_span(struct check *c, const struct span *s, struct qcow2_error *err)
{
    enum { PIECE_BYTES = 64 << 10, LEAST_HOLE = 512 };
    CLEANUP_FREE unsigned char *piece = malloc(PIECE_BYTES);

    if (!piece)
        return error_nomem(err);
    for (uint64_t at = s->start, n; at < s->end; at += n) {
        uint64_t hole;
        int r;

        if (check_hole(c, at, s->end - at, &hole, err) == -1)
            return -1;
        if (hole < s->end - at)
            hole = round_down(hole, LEAST_HOLE);
        n = hole ? hole : min_u64(s->end - at, PIECE_BYTES);
        if (hole == 0 && check_read(c, piece, n, at, NULL, err) == -1)
            return -1;
        r = c->options.metadata(c->options.opaque, at, n,
                                hole ? NULL : piece);
        if (r != 0)
            return error_set(err, ECANCELED, "%s: the check was cancelled",
                             c->io->name);
    }
    return 0;
}

static int
pass_all(struct check *c, struct list *l, struct qcow2_error *err)
{
    qsort(l->spans, l->nr, sizeof *l->spans, compare_spans);
    for (size_t i = 0, j; i < l->nr; i = j) {
        struct span s = l->spans[i];

        for (j = i + 1; j < l->nr && l->spans[j].start <= s.end; j++)
            s.end = max_u64(s.end, l->spans[j].end);
        if (pass_span(c, &s, err) == -1)
            return -1;
    }
    return 0;
}

int
check_pass_metadata(struct check *c, struct qcow2_error *err)
{
    struct list l = { .nr = 0 };
    int r = add_all(c, &l, err);

    if (r == 0)
        r = pass_all(c, &l, err);
    free(l.spans);
    return r;
}
