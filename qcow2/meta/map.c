/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c: guest bytes to host bytes through L1 and L2 tables; see map.h. */
#include "meta/map.h"

#include "base/checked.h"
#include "base/error.h"
#include "format/entry.h"
#include "meta/data-file.h"
#include "meta/data.h"
#include "meta/l1.h"
#include "meta/l2-cache.h"
#include "meta/l2-linear.h"
#include "meta/l2-slice.h"
#include "meta/l2-table.h"

void
map_done(struct map_cursor *c)
{
    cache_put(c->slice);
    c->slice = NULL;
    c->is_prepared = false;
}

static int
find_slice(struct map_cursor *c, uint64_t table_off, uint64_t guest_off,
           struct qcow2_error *err)
{
    uint64_t key = l2_cache_key(c->view->img, table_off, guest_off);

    if (c->slice && c->slice->key == key)
        return 0;
    map_done(c);
    c->slice = l2_cache_get(c->view, table_off, guest_off, err);
    return c->slice ? 0 : -1;
}

/* The entry of guest_off, and how many bytes, at most *nr_bytes (of its
 * slice), continue it. */
static int
find_entry(struct map_cursor *c, uint64_t table_off, uint64_t guest_off,
           uint64_t *nr_bytes, struct l2_entry *e, struct qcow2_error *err)
{
    struct view *v = c->view;
    struct image *img = v->img;
    uint64_t window = geometry_window(&img->geo, guest_off), first, key;
    struct l2_slice s;

    if (linear_find(&v->linear, window, &first)) {
        *e = l2_linear_entry(v, first, guest_off);
        return 0;
    }
    if (find_slice(c, table_off, guest_off, err) == -1)
        return -1;
    s = l2_slice_of(c->slice, &img->geo, v->version);
    *nr_bytes = l2_run(&s, guest_off, *nr_bytes, e);
    /* If it was just recorded as linear, nobody needs the slice itself. */
    if (linear_find(&v->linear, window, &first)) {
        key = c->slice->key;
        map_done(c);
        cache_drop(img->meta, img, key);
    }
    return 0;
}

static int
check_place(uint64_t guest_off, int r, struct qcow2_error *err)
{
    return r == 0 ? 0 : error_prefix(err, "guest offset 0x%llx",
                                     (unsigned long long)guest_off);
}

/* What an entry says of nr_bytes from guest_off on. own_table: its table is
 * not shared. What a shared one points to is shared as well, whatever its
 * COPIED flags say (I4). */
static int
fill_mapping(struct view *v, const struct l2_entry *e, bool own_table,
             uint64_t guest_off, uint64_t nr_bytes, struct mapping *m,
             struct qcow2_error *err)
{
    struct image *img = v->img;
    uint32_t in_cluster = guest_off & (img->cluster_size - 1);

    if (e->flaws && data_entry_flaws(img, e))
        return image_damaged(img, err, "the L2 entry of guest offset 0x%llx "
                             "is invalid", (unsigned long long)guest_off);
    *m = (struct mapping){
        .kind = e->kind, .nr_bytes = nr_bytes, .source = &v->src,
    };
    if (data_is_at_0(img, e)) {
        if (!geometry_has_subclusters(&img->geo))
            m->kind = MAP_DATA;
        m->has_host = true;
        m->nr_bytes = min_u64(nr_bytes, img->cluster_size - in_cluster);
    }
    if (e->kind == MAP_COMPRESSED && data_file_is_used(img))
        return image_damaged(img, err, "the L2 entry of guest offset 0x%llx "
                             "is of compressed data, which an image with a "
                             "data file cannot have",
                             (unsigned long long)guest_off);
    if (e->kind == MAP_COMPRESSED) {
        m->host_off = e->host_off;
        m->compressed_len = e->compressed_len;
        m->skip = in_cluster;
        /* The rest may end past the file's end. */
        return check_place(guest_off,
                           image_check_inside(img, m->host_off, 1, err), err);
    }
    m->has_host |= e->host_off != 0;
    if (!m->has_host)
        return 0;
    m->copied = e->copied && own_table;
    m->host_off = e->host_off + in_cluster;
    return check_place(guest_off,
                       data_check_place(img, guest_off, m->host_off,
                                        m->nr_bytes, err), err);
}

int
map_find(struct map_cursor *c, uint64_t guest_off, uint64_t nr_bytes,
         struct mapping *m, struct qcow2_error *err)
{
    struct view *v = c->view;
    struct l1_entry table;
    struct l2_entry e;

    if (l1_find(v, guest_off, &table, err) == -1)
        return -1;
    if (table.host_off == 0) {
        uint64_t reach = UINT64_C(1) << geometry_l1_reach_bits(&v->img->geo);

        *m = (struct mapping){ .kind = MAP_UNALLOCATED, .source = &v->src };
        m->nr_bytes = min_u64(nr_bytes, reach - (guest_off & (reach - 1)));
        return 0;
    }
    nr_bytes = min_u64(nr_bytes, map_piece(v, guest_off));
    if (find_entry(c, table.host_off, guest_off, &nr_bytes, &e, err) == -1
        || fill_mapping(v, &e, table.copied, guest_off, nr_bytes, m, err)
           == -1)
        return -1;
    IMAGE_DEBUG(v->img, QCOW2_DEBUG_MAP, "map 0x%llx+0x%llx: kind %d at 0x%llx",
                (unsigned long long)guest_off,
                (unsigned long long)m->nr_bytes, (int)m->kind,
                (unsigned long long)m->host_off);
    return 0;
}

int
map_lookup(struct view *v, uint64_t guest_off, uint64_t nr_bytes,
           struct mapping *m, struct qcow2_error *err)
{
    struct map_cursor c = map_cursor(v);
    int r = map_find(&c, guest_off, nr_bytes, m, err);

    map_done(&c);
    return r;
}

bool
map_table_absent(const struct view *v, uint64_t guest_off,
                 uint64_t *nr_bytes)
{
    uint64_t reach = UINT64_C(1) << geometry_l1_reach_bits(&v->img->geo);

    *nr_bytes = reach - (guest_off & (reach - 1));
    return l1_get(v, l1_index(v, guest_off)) == 0;
}

/* The L2 table of guest_off, which is ours alone: made, or copied, if need be.
 */
static int
own_table(struct view *v, uint64_t guest_off, uint64_t *host_off,
          struct qcow2_error *err)
{
    struct range_lock *tables = &v->img->tables;
    uint64_t idx = l1_index(v, guest_off);
    struct l1_entry table;
    struct range r;
    int ret;

    if (l1_find(v, guest_off, &table, err) == -1)
        return -1;
    *host_off = table.host_off;
    if (table.host_off != 0 && table.copied)
        return 0;
    range_lock_exclusive(tables, &r, idx, idx + 1);
    ret = l1_find(v, guest_off, &table, err);
    *host_off = table.host_off;
    if (ret == 0 && (table.host_off == 0 || !table.copied))
        ret = l2_table_make(v, guest_off, table.host_off, host_off, err);
    range_unlock(tables, &r);
    return ret;
}

int
map_prepare(struct map_cursor *c, uint64_t guest_off, struct qcow2_error *err)
{
    struct view *v = c->view;
    uint64_t window = geometry_window(&v->img->geo, guest_off), host_off;

    if (c->is_prepared && c->window == window)
        return 0;
    linear_end(&v->linear, window, 1);
    if (own_table(v, guest_off, &host_off, err) == -1
        || find_slice(c, host_off, guest_off, err) == -1)
        return -1;
    c->is_prepared = true;
    c->window = window;
    return 0;
}
