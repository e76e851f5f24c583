/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c: guest bytes to host bytes through L1 and L2 tables; see map.h. */
#include "meta/map.h"

#include "base/checked.h"
#include "base/error.h"
#include "format/entry.h"
#include "meta/l1.h"
#include "meta/l2-cache.h"
#include "meta/l2-linear.h"
#include "meta/l2-slice.h"
#include "meta/l2-table.h"

uint64_t
map_piece(const struct view *v, uint64_t guest_off)
{
    uint64_t window = UINT64_C(1) << geometry_window_bits(&v->img->geo);

    return window - (guest_off & (window - 1));
}

/* How many entries from idx on, at most nr, continue what idx begins. */
static uint64_t
run_length(const struct block *b, uint64_t idx, uint64_t nr, uint64_t step)
{
    uint64_t entry = l2_load(b, idx), n = 1;

    while (n < nr && l2_load(b, idx + n) == entry + n * step)
        n++;
    return n;
}

/* The entry of guest_off, and how many, at most nr (of its slice), continue
 * it. */
static int
find_entries(struct view *v, uint64_t table_off, uint64_t guest_off,
             uint64_t nr, uint64_t *entry, uint64_t *run_nr,
             struct qcow2_error *err)
{
    struct image *img = v->img;
    uint64_t window = geometry_window(&img->geo, guest_off), first, key;
    uint64_t idx = geometry_slice_entry(&img->geo, guest_off);
    struct block *b;

    if (linear_find(&v->linear, window, &first)) {
        *entry = first + idx * l2_linear_step(img, first);
        *run_nr = nr;
        return 0;
    }
    b = l2_cache_get(v, table_off, guest_off, err);
    if (!b)
        return -1;
    *entry = l2_load(b, idx);
    *run_nr = run_length(b, idx, nr, l2_linear_step(img, *entry));
    key = b->key;
    cache_put(b);
    /* If it was just recorded as linear, nobody needs the slice itself. */
    if (linear_find(&v->linear, window, &first))
        cache_drop(img->meta, img, key);
    return 0;
}

/* What an entry says that run_nr - 1 more continue. own_table: its table is
 * not shared. What a shared one points to is shared as well, whatever its
 * COPIED flags say (I4). */
static int
fill_mapping(struct view *v, uint64_t entry, uint64_t run_nr, bool own_table,
             uint64_t guest_off, uint64_t nr_bytes, struct mapping *m,
             struct qcow2_error *err)
{
    struct image *img = v->img;
    uint32_t in_cluster = guest_off & (img->cluster_size - 1);
    struct l2_entry e = entry_decode_l2(entry, img->cluster_bits,
                                        v->version);

    if (e.flaws & ~ENTRY_COPIED_COMPRESSED)
        return image_damaged(img, err, "the L2 entry of guest offset 0x%llx "
                             "is invalid", (unsigned long long)guest_off);
    *m = (struct mapping){ .kind = e.kind, .source = &v->src };
    if (e.kind == MAP_COMPRESSED) {
        run_nr = 1;
        m->host_off = e.host_off;
        m->compressed_len = e.compressed_len;
        m->skip = in_cluster;
    } else {
        m->has_host = e.host_off != 0;
        m->copied = e.copied && m->has_host && own_table;
        m->host_off = m->has_host ? e.host_off + in_cluster : 0;
    }
    if (e.host_off != 0
        && image_check_inside(img, e.host_off,
                              e.kind == MAP_COMPRESSED
                                  ? 1 : run_nr * img->cluster_size,
                              err) == -1)
        return error_prefix(err, "guest offset 0x%llx",
                            (unsigned long long)guest_off);
    m->nr_bytes = min_u64(nr_bytes, run_nr * img->cluster_size - in_cluster);
    return 0;
}

int
map_lookup(struct view *v, uint64_t guest_off, uint64_t nr_bytes,
           struct mapping *m, struct qcow2_error *err)
{
    uint32_t in_cluster = guest_off & (v->img->cluster_size - 1);
    struct l1_entry table;
    uint64_t entry, nr;

    if (l1_find(v, guest_off, &table, err) == -1)
        return -1;
    if (table.host_off == 0) {
        uint64_t reach = UINT64_C(1) << geometry_l1_reach_bits(&v->img->geo);

        *m = (struct mapping){ .kind = MAP_UNALLOCATED, .source = &v->src };
        m->nr_bytes = min_u64(nr_bytes, reach - (guest_off & (reach - 1)));
        return 0;
    }
    nr_bytes = min_u64(nr_bytes, map_piece(v, guest_off));
    nr = div_round_up(in_cluster + nr_bytes, v->img->cluster_size);
    if (find_entries(v, table.host_off, guest_off, nr, &entry, &nr, err) == -1
        || fill_mapping(v, entry, nr, table.copied, guest_off, nr_bytes, m,
                        err) == -1)
        return -1;
    IMAGE_DEBUG(v->img, QCOW2_DEBUG_MAP, "map 0x%llx+0x%llx: kind %d at 0x%llx",
                (unsigned long long)guest_off,
                (unsigned long long)m->nr_bytes, (int)m->kind,
                (unsigned long long)m->host_off);
    return 0;
}

bool
map_table_absent(const struct view *v, uint64_t guest_off,
                 uint64_t *nr_bytes)
{
    uint64_t reach = UINT64_C(1) << geometry_l1_reach_bits(&v->img->geo);

    *nr_bytes = reach - (guest_off & (reach - 1));
    return l1_get(v, l1_index(v, guest_off)) == 0;
}

int
map_prepare(struct view *v, uint64_t guest_off, struct map_slice *s,
            struct qcow2_error *err)
{
    struct image *img = v->img;
    uint64_t idx = l1_index(v, guest_off), host_off;
    struct l1_entry table;
    struct range r;
    int ret;

    s->block = NULL;
    linear_end(&v->linear, geometry_window(&img->geo, guest_off), 1);
    if (l1_find(v, guest_off, &table, err) == -1)
        return -1;
    host_off = table.host_off;
    if (host_off == 0 || !table.copied) {
        range_lock_exclusive(&img->tables, &r, idx, idx + 1);
        ret = l1_find(v, guest_off, &table, err);
        host_off = table.host_off;
        if (ret == 0 && (host_off == 0 || !table.copied))
            ret = l2_table_make(v, guest_off, host_off, &host_off, err);
        range_unlock(&img->tables, &r);
        if (ret == -1)
            return -1;
    }
    s->block = l2_cache_get(v, host_off, guest_off, err);
    return s->block ? 0 : -1;
}

void
map_done(struct map_slice *s)
{
    cache_put(s->block);
    s->block = NULL;
}
