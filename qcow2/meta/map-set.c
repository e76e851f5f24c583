/* SPDX-License-Identifier: BSD-3-Clause */
/* map-set.c: changes L2 entries, and frees what they pointed to; see map.h. */
#include "meta/map.h"

#include "base/checked.h"
#include "format/entry.h"
#include "meta/alloc.h"
#include "meta/l2-slice.h"
#include "meta/overlap.h"

enum { MAX_SLICE_ENTRIES = 512 };

/* Host clusters that entries pointed to, in a row. */
struct old_run {
    uint64_t first, nr;
};

struct old_runs {
    unsigned nr;
    struct old_run runs[MAX_SLICE_ENTRIES];
};

/* A damaged image may claim that metadata is guest data: then it stays, and
 * the image is marked. */
static void
free_run(struct image *img, const struct old_run *run)
{
    uint64_t host_off = run->first << img->cluster_bits;

    if (overlap_check(img, host_off, run->nr << img->cluster_bits, NULL) == 0)
        alloc_free(img, host_off, run->nr);
}

/* After the entries changed, so that a flush that takes these frees takes the
 * change as well (I3). */
static void
free_runs(struct image *img, const struct old_runs *old)
{
    for (unsigned i = 0; i < old->nr; i++)
        free_run(img, &old->runs[i]);
}

/* Adds what an old entry pointed to, but for what stays in use. */
static void
add_old(const struct image *img, struct old_runs *old,
        const struct l2_entry *e, uint64_t kept_host_off)
{
    uint64_t first = e->host_off >> img->cluster_bits, last = first;
    struct old_run *run = &old->runs[old->nr];

    if (e->host_off == 0 || e->host_off == kept_host_off
        || (e->flaws & ~ENTRY_COPIED_COMPRESSED))
        return;
    if (e->kind == MAP_COMPRESSED)
        last = (e->host_off + e->compressed_len - 1) >> img->cluster_bits;
    if (old->nr > 0 && run[-1].first + run[-1].nr == first) {
        run[-1].nr += last - first + 1;
        return;
    }
    *run = (struct old_run){ first, last - first + 1 };
    old->nr++;
}

static struct l2_entry
new_entry(const struct l2_entry *old, enum map_change change,
          uint64_t host_off)
{
    struct l2_entry e;

    switch (change) {
    case MAP_TO_DATA:
        return l2_data(host_off);
    case MAP_TO_ZERO:
        return l2_zero(0);
    case MAP_TO_ZERO_KEEP:
        e = l2_zero(old->kind == MAP_COMPRESSED ? 0 : old->host_off);
        e.copied = e.host_off && old->copied;
        return e;
    case MAP_TO_UNALLOCATED:
        return (struct l2_entry){ .kind = MAP_UNALLOCATED };
    }
    __builtin_unreachable();
}

void
map_set_compressed(struct map_cursor *c, uint64_t guest_off,
                   uint64_t host_off, uint32_t nr_bytes)
{
    struct image *img = c->view->img;
    struct l2_slice s = l2_slice_of(c->slice, &img->geo, c->view->version);
    uint64_t idx = geometry_slice_entry(&img->geo, guest_off);
    struct l2_entry e = l2_compressed(host_off, nr_bytes), before;
    struct old_runs old;

    old.nr = 0;
    pthread_mutex_lock(&c->slice->lock);
    before = l2_get(&s, idx, 0);
    l2_set(&s, idx, &e);
    dirty_add(&img->l2_dirty, c->slice);
    pthread_mutex_unlock(&c->slice->lock);
    add_old(img, &old, &before, 0);
    free_runs(img, &old);
}

void
map_set(struct map_cursor *c, uint64_t guest_off, uint64_t nr_clusters,
        enum map_change change, uint64_t host_off)
{
    struct image *img = c->view->img;
    struct l2_slice s = l2_slice_of(c->slice, &img->geo, c->view->version);
    uint64_t idx = geometry_slice_entry(&img->geo, guest_off);
    struct old_runs old;
    bool changed = false;

    old.nr = 0;
    pthread_mutex_lock(&c->slice->lock);
    for (uint64_t i = 0; i < nr_clusters; i++) {
        struct l2_entry before = l2_get(&s, idx + i, 0);
        struct l2_entry e = new_entry(&before, change,
                                      host_off + i * img->cluster_size);

        changed |= l2_set(&s, idx + i, &e);
        add_old(img, &old, &before, e.host_off);
    }
    if (changed)
        dirty_add(&img->l2_dirty, c->slice);
    pthread_mutex_unlock(&c->slice->lock);
    free_runs(img, &old);
}
