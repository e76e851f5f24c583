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

    if (!has_place(img, e) || (e->flaws & ~ENTRY_COPIED_COMPRESSED)
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
        add_old(img, &old, guest_off + i * img->cluster_size, &before, &e);
    }
    if (changed)
        dirty_add(&img->l2_dirty, c->slice);
    pthread_mutex_unlock(&c->slice->lock);
    free_runs(img, &old);
}
