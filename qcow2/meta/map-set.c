/* SPDX-License-Identifier: BSD-3-Clause */
/* map-set.c: changes L2 entries, and frees what they pointed to; see map.h. */
#include "meta/map.h"

#include "base/checked.h"
#include "format/entry.h"
#include "meta/alloc.h"
#include "meta/l2-slice.h"

/* Host clusters that entries pointed to, in a row. */
struct old_run {
    uint64_t first, nr;
};

/* A damaged image may claim that metadata is guest data: then it stays, and
 * the image is marked. */
static void
free_run(struct image *img, struct old_run *run)
{
    uint64_t host_off = run->first << img->cluster_bits;

    if (run->nr > 0
        && overlap_check(img, host_off, run->nr << img->cluster_bits, NULL)
           == 0)
        alloc_free(img, host_off, run->nr);
    run->nr = 0;
}

/* Frees what an old entry pointed to, but for what stays in use: adds it to
 * run, or frees that and begins another. */
static void
free_old(struct image *img, struct old_run *run, uint64_t old,
         uint64_t kept_host_off)
{
    struct l2_entry e = entry_decode_l2(old, img->cluster_bits,
                                        img->active.version);
    uint64_t first = e.host_off >> img->cluster_bits, last = first;

    if (e.host_off == 0 || e.host_off == kept_host_off
        || (e.flaws & ~ENTRY_COPIED_COMPRESSED))
        return;
    if (e.kind == MAP_COMPRESSED)
        last = (e.host_off + e.compressed_len - 1) >> img->cluster_bits;
    if (run->nr == 0 || first != run->first + run->nr) {
        free_run(img, run);
        run->first = first;
    }
    run->nr += last - first + 1;
}

static uint64_t
new_entry(const struct image *img, uint64_t old, enum map_change change,
          uint64_t host_off)
{
    struct l2_entry e;

    switch (change) {
    case MAP_TO_DATA:
        return entry_make_data(host_off);
    case MAP_TO_ZERO:
        return entry_make_zero(0);
    case MAP_TO_ZERO_KEEP:
        e = entry_decode_l2(old, img->cluster_bits, img->active.version);
        return e.kind == MAP_COMPRESSED || e.host_off == 0
                   ? entry_make_zero(0) : old | L2_ZERO;
    case MAP_TO_UNALLOCATED:
        return 0;
    }
    __builtin_unreachable();
}

void
map_set_compressed(struct view *v, struct map_slice *s, uint64_t guest_off,
                   uint64_t host_off, uint32_t nr_bytes)
{
    struct image *img = v->img;
    uint64_t idx = geometry_slice_entry(&img->geo, guest_off), old;
    struct old_run run = { 0 };

    pthread_mutex_lock(&s->block->lock);
    old = l2_load(s->block, idx);
    l2_store(s->block, idx,
             entry_make_compressed(host_off, nr_bytes, img->cluster_bits));
    dirty_add(&img->l2_dirty, s->block);
    pthread_mutex_unlock(&s->block->lock);
    free_old(img, &run, old, 0); /* after the change, as map_set does */
    free_run(img, &run);
}

void
map_set(struct view *v, struct map_slice *s, uint64_t guest_off,
        uint64_t nr_clusters, enum map_change change, uint64_t host_off)
{
    struct image *img = v->img;
    uint64_t idx = geometry_slice_entry(&img->geo, guest_off);
    uint64_t old[MAX_SLICE_ENTRIES], kept[MAX_SLICE_ENTRIES];
    struct old_run run = { 0 };
    bool changed = false;

    pthread_mutex_lock(&s->block->lock);
    for (uint64_t i = 0; i < nr_clusters; i++) {
        uint64_t entry;

        old[i] = l2_load(s->block, idx + i);
        entry = new_entry(img, old[i], change,
                          host_off + i * img->cluster_size);
        kept[i] = entry & L2_OFFSET_MASK;
        if (entry != old[i]) {
            l2_store(s->block, idx + i, entry);
            changed = true;
        }
    }
    if (changed)
        dirty_add(&img->l2_dirty, s->block);
    pthread_mutex_unlock(&s->block->lock);

    /* After the entries changed, so that a flush that takes these frees
     * takes the change as well (I3). */
    for (uint64_t i = 0; i < nr_clusters; i++)
        free_old(img, &run, old[i], kept[i]);
    free_run(img, &run);
}
