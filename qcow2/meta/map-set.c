/* SPDX-License-Identifier: BSD-3-Clause */
/* map-set.c: changes L2 entries, and frees what they pointed to; see map.h. */
#include "meta/map.h"

#include "base/checked.h"
#include "format/entry.h"
#include "meta/data.h"
#include "meta/l2-slice.h"
#include "meta/overlap.h"

enum { MAX_SLICE_ENTRIES = 512 };

/* Host clusters that entries pointed to, in a row. */
struct old_run {
    uint64_t first, nr;
    uint64_t guest_off;         /* of data */
    bool is_data;               /* else they are of compressed data */
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
    uint64_t nr_bytes = run->nr << img->cluster_bits;

    if (run->is_data && data_check_write(img, host_off, nr_bytes, NULL) == 0)
        data_release(img, run->guest_off, host_off, run->nr);
    if (!run->is_data && overlap_check(img, host_off, nr_bytes, NULL) == 0)
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

static bool
has_place(const struct image *img, const struct l2_entry *e)
{
    return e->host_off != 0 || e->kind == MAP_DATA || data_is_at_0(img, e);
}

/* Does what continues the run on the host do so in the guest, too? Where data
 * are counted it does not matter. */
static bool
continues(const struct image *img, const struct old_run *run,
          const struct old_run *next)
{
    return run->first + run->nr == next->first
           && (img->data->counted
               || (run->is_data && next->is_data
                   && run->guest_off + (run->nr << img->cluster_bits)
                      == next->guest_off));
}

/* Adds what the old entry of guest_off pointed to, but for what stays in use.
 */
static void
add_old(const struct image *img, struct old_runs *old, uint64_t guest_off,
        const struct l2_entry *e, const struct l2_entry *new)
{
    struct old_run *run = &old->runs[old->nr];
    struct old_run next = {
        .first = e->host_off >> img->cluster_bits, .nr = 1,
        .guest_off = guest_off, .is_data = e->kind != MAP_COMPRESSED,
    };

    if (!has_place(img, e) || data_entry_flaws(img, e)
        || (has_place(img, new) && e->host_off == new->host_off))
        return;
    if (e->kind == MAP_COMPRESSED)
        next.nr = ((e->host_off + e->compressed_len - 1) >> img->cluster_bits)
                  - next.first + 1;
    if (old->nr > 0 && continues(img, &run[-1], &next)) {
        run[-1].nr += next.nr;
        return;
    }
    *run = next;
    old->nr++;
}

/* The bits of subclusters [from, to), in bytes of their cluster. */
static uint32_t
mask_of(const struct geometry *geo, uint64_t from, uint64_t to)
{
    unsigned bits = geo->subcluster_bits;
    unsigned first = from >> bits, end = to >> bits;

    if (bits == geo->cluster_bits)
        return ALL_SUBCLUSTERS;
    return (ALL_SUBCLUSTERS >> (32 - (end - first))) << first;
}

/* Can an entry have this place and subclusters that are zero? */
static bool
can_keep(const struct image *img, const struct l2_entry *e)
{
    return e->host_off != 0
           || (geometry_has_subclusters(&img->geo) && data_is_at_0(img, e));
}

/* Without a place nothing of it may be data. */
static void
drop_place(struct l2_entry *e)
{
    if (e->alloc_mask != 0)
        return;
    e->host_off = 0;
    e->copied = false;
}

static void
give_place(struct l2_entry *e, uint64_t host_off)
{
    e->host_off = host_off;
    e->copied = true;
}

/* The entry of a cluster of which the subclusters of mask change. host_off is
 * the place of the whole cluster. */
static struct l2_entry
new_entry(const struct image *img, const struct l2_entry *old, uint32_t mask,
          enum map_change change, uint64_t host_off)
{
    struct l2_entry e = {
        .host_off = old->kind == MAP_COMPRESSED ? 0 : old->host_off,
        .copied = old->copied,
        .alloc_mask = old->alloc_mask & ~mask,
        .zero_mask = old->zero_mask & ~mask,
    };

    switch (change) {
    case MAP_TO_DATA:
        e.alloc_mask |= mask;
        give_place(&e, host_off);
        break;
    case MAP_TO_PLACE:
        e.alloc_mask = old->alloc_mask;
        e.zero_mask = old->zero_mask;
        give_place(&e, host_off);
        break;
    case MAP_TO_ZERO:
        e.zero_mask |= mask;
        drop_place(&e);
        break;
    case MAP_TO_ZERO_KEEP:
        e.zero_mask |= mask;
        e.copied &= can_keep(img, old);
        break;
    case MAP_TO_UNALLOCATED:
        drop_place(&e);
        break;
    }
    e.kind = entry_subcluster_kind(e.alloc_mask, e.zero_mask, 0);
    return e;
}

void
map_set_compressed(struct map_cursor *c, uint64_t guest_off,
                   uint64_t host_off, uint32_t nr_bytes)
{
    struct image *img = c->view->img;
    struct l2_slice s = l2_slice_of(c->slice, &img->geo, c->view->version);
    uint64_t idx = geometry_slice_entry(&img->geo, guest_off);
    struct l2_entry e = l2_compressed(host_off, nr_bytes), before;
    const struct l2_entry nothing = { .kind = MAP_UNALLOCATED };
    struct old_runs old;

    old.nr = 0;
    pthread_mutex_lock(&c->slice->lock);
    before = l2_get(&s, idx, 0);
    l2_set(&s, idx, &e);
    dirty_add(&img->l2_dirty, c->slice);
    pthread_mutex_unlock(&c->slice->lock);
    add_old(img, &old, guest_off, &before, &nothing);
    free_runs(img, &old);
}

void
map_set(struct map_cursor *c, uint64_t guest_off, uint64_t nr_bytes,
        enum map_change change, uint64_t host_off)
{
    struct image *img = c->view->img;
    struct l2_slice s = l2_slice_of(c->slice, &img->geo, c->view->version);
    uint64_t start = round_down(guest_off, img->cluster_size);
    uint64_t end = guest_off + nr_bytes, place = host_off - (guest_off - start);
    struct old_runs old;
    bool changed = false;

    old.nr = 0;
    pthread_mutex_lock(&c->slice->lock);
    for (uint64_t at = start; at < end; at += img->cluster_size) {
        uint64_t idx = geometry_slice_entry(&img->geo, at);
        uint32_t mask = mask_of(&img->geo, max_u64(at, guest_off) - at,
                                min_u64(end - at, img->cluster_size));
        struct l2_entry before = l2_get(&s, idx, 0);
        struct l2_entry e = new_entry(img, &before, mask, change,
                                      place + (at - start));

        changed |= l2_set(&s, idx, &e);
        add_old(img, &old, at, &before, &e);
    }
    if (changed)
        dirty_add(&img->l2_dirty, c->slice);
    pthread_mutex_unlock(&c->slice->lock);
    free_runs(img, &old);
}
