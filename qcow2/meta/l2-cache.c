/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-cache.c: slices of L2 tables, through the cache; see l2-cache.h. */
#include "meta/l2-cache.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "meta/l1.h"
#include "meta/l2-linear.h"
#include "meta/l2-table.h"

/* Slices to load: of v from window on; the first one's place is key. */
struct load {
    struct view *v;
    uint64_t window;
    uint64_t key;
};

/* Errors are met again, and reported, by the lookup that needs the slice. */
static int
load_slices(void *opaque, uint64_t key, const struct iovec *vec, int nr)
{
    const struct load *l = opaque;
    struct image *img = l->v->img;
    uint64_t end = __atomic_load_n(&img->known_end, __ATOMIC_RELAXED);
    uint64_t window = l->window + (key - l->key) / img->slice_size;

    if (!range_inside(key, nr * (uint64_t)img->slice_size, end)
        || io_preadv(img->io, vec, nr, key, NULL) == -1)
        return -1;
    for (int i = 0; i < nr; i++)
        l2_linear_note(l->v, window + i, vec[i].iov_base);
    return 0;
}

/* If one slice is linear, those beside it probably are, which one read finds
 * out. Any of them that is known already shows that this was done. */
static void
note_neighbours(const struct load *l)
{
    struct image *img = l->v->img;
    unsigned nr = min_u64(geometry_table_slices(&img->geo),
                          CACHE_MAX_PRELOAD);
    struct load all = { l->v, round_down(l->window, nr), 0 };
    struct iovec vec[CACHE_MAX_PRELOAD];
    CLEANUP_FREE unsigned char *buf = NULL;

    all.key = l->key - (l->window - all.window) * img->slice_size;
    if (nr == 1 || linear_any(&l->v->linear, all.window, nr, l->window))
        return;
    buf = malloc(nr * (size_t)img->slice_size);
    if (!buf)
        return;
    for (unsigned i = 0; i < nr; i++)
        vec[i] = (struct iovec){ buf + i * img->slice_size, img->slice_size };
    load_slices(&all, all.key, vec, nr);
}

static int
load_slice(void *opaque, uint64_t key, void *data, uint32_t size,
           struct qcow2_error *err)
{
    const struct load *l = opaque;

    if (l2_table_read_part(l->v->img, key, data, size, err) == -1)
        return -1;
    if (l2_linear_note(l->v, l->window, data))
        note_neighbours(l);
    return 0;
}

struct block *
l2_cache_get(struct view *v, uint64_t table_off, uint64_t guest_off,
             struct qcow2_error *err)
{
    struct image *img = v->img;
    struct load l = {
        v, geometry_window(&img->geo, guest_off),
        l2_cache_key(img, table_off, guest_off),
    };

    return cache_get(img->meta, img, l.key, img->slice_size, load_slice, &l,
                     err);
}

uint64_t
l2_cache_preload(struct view *v, uint64_t from, uint64_t to)
{
    struct image *img = v->img;
    uint64_t reach = UINT64_C(1) << geometry_l1_reach_bits(&img->geo);
    uint64_t window = UINT64_C(1) << geometry_window_bits(&img->geo);
    uint64_t start = round_down(from, window);
    uint64_t end = min_u64(to, round_down(from, reach) + reach), nr, first;
    struct l1_entry table = entry_decode_l1(l1_get(v, l1_index(v, from)),
                                            img->cluster_bits);
    struct load l = { .v = v };

    if (table.host_off == 0 || table.flaws)
        return end;
    while (start < end
           && linear_find(&v->linear, geometry_window(&img->geo, start),
                          &first))
        start += window;
    if (start >= end)
        return end;
    l.window = geometry_window(&img->geo, start);
    l.key = l2_cache_key(img, table.host_off, start);
    nr = min_u64(div_round_up(end - start, window), CACHE_MAX_PRELOAD);
    cache_preload(img->meta, img, l.key, img->slice_size, nr, load_slices, &l);
    return min_u64(to, start + nr * window);
}

void
l2_cache_forget(struct view *v, uint64_t from, uint64_t to)
{
    struct image *img = v->img;
    uint64_t window = UINT64_C(1) << geometry_window_bits(&img->geo);

    for (uint64_t off = round_up(from, window); off + window <= to;
         off += window) {
        struct l1_entry table;

        if (l1_find(v, off, &table, NULL) == 0 && table.host_off != 0)
            cache_drop(img->meta, img,
                       l2_cache_key(img, table.host_off, off));
    }
}
