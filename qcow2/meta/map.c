/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c: guest bytes to host bytes through L1 and L2 tables; see map.h. */
#include "meta/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "format/entry.h"
#include "meta/alloc.h"
#include "meta/compressed.h"

static int
lookup(struct source *s, uint64_t guest_off, uint64_t nr_bytes,
       struct mapping *m, struct qcow2_error *err)
{
    return map_lookup((struct view *)s, guest_off, nr_bytes, m, err);
}

static void
forget(struct source *s, uint64_t from, uint64_t to)
{
    map_forget((struct view *)s, from, to);
}

static uint64_t
preload(struct source *s, uint64_t from, uint64_t to)
{
    return map_preload((struct view *)s, from, to);
}

const struct source_ops map_source_ops = {
    .lookup = lookup,
    .preload = preload,
    .forget = forget,
    .read_compressed = compressed_read,
};

static unsigned
l1_bits(const struct image *img)
{
    return geometry_l1_reach_bits(&img->geo);
}

static unsigned
slice_window_bits(const struct image *img)
{
    return img->geo.slice_bits + img->cluster_bits;
}

uint64_t
map_piece(const struct view *v, uint64_t guest_off)
{
    uint64_t window = UINT64_C(1) << slice_window_bits(v->img);

    return window - (guest_off & (window - 1));
}

static uint64_t
window_of(const struct image *img, uint64_t guest_off)
{
    return guest_off >> slice_window_bits(img);
}

static uint64_t
l1_load(const struct view *v, uint64_t idx)
{
    return idx < v->l1_entries ? __atomic_load_n(&v->l1[idx],
                                                 __ATOMIC_ACQUIRE)
                               : 0;
}

/* Remembers for the flush that an entry changed; l1_lock is held. */
static void
l1_remember(struct view *v, uint64_t idx)
{
    if (!(v->l1_is_dirty[idx / 8] & 1u << idx % 8)) {
        v->l1_is_dirty[idx / 8] |= 1u << idx % 8;
        v->l1_dirty[v->nr_l1_dirty++] = idx;
    }
}

/* Changes an entry in memory. What is known of linear slices is about the table
 * that was there before. */
static void
l1_store(struct view *v, uint64_t idx, uint64_t entry)
{
    uint64_t slices = geometry_table_slices(&v->img->geo);
    LOCK_SCOPE(&v->l1_lock);

    linear_end(&v->linear, idx * slices, slices);
    __atomic_store_n(&v->l1[idx], entry, __ATOMIC_RELEASE);
    l1_remember(v, idx);
}

static int
compare_indexes(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

int
map_take_l1(struct view *v, struct l1_change *change, struct qcow2_error *err)
{
    LOCK_SCOPE(&v->l1_lock);

    memset(change, 0, sizeof *change);
    if (v->nr_l1_dirty == 0)
        return 0;
    change->indexes = malloc(v->nr_l1_dirty * sizeof *change->indexes);
    change->entries = malloc(v->nr_l1_dirty * sizeof *change->entries);
    if (!change->indexes || !change->entries) {
        l1_change_free(change);
        return error_nomem(err);
    }
    change->nr = v->nr_l1_dirty;
    memcpy(change->indexes, v->l1_dirty, change->nr * sizeof *v->l1_dirty);
    qsort(change->indexes, change->nr, sizeof *change->indexes,
          compare_indexes);
    for (uint32_t i = 0; i < change->nr; i++) {
        uint32_t idx = change->indexes[i];

        change->entries[i] = be64_make(v->l1[idx]);
        v->l1_is_dirty[idx / 8] &= ~(1u << idx % 8);
    }
    v->nr_l1_dirty = 0;
    return 0;
}

void
map_give_back_l1(struct view *v, struct l1_change *change)
{
    LOCK_SCOPE(&v->l1_lock);

    for (uint32_t i = 0; i < change->nr; i++)
        l1_remember(v, change->indexes[i]);
    l1_change_free(change);
}

void
l1_change_free(struct l1_change *change)
{
    free(change->indexes);
    free(change->entries);
    memset(change, 0, sizeof *change);
}

static uint64_t
l2_load(const struct block *b, uint64_t idx)
{
    return be64toh(__atomic_load_n((const uint64_t *)b->data + idx,
                                   __ATOMIC_RELAXED));
}

static void
l2_store(struct block *b, uint64_t idx, uint64_t entry)
{
    __atomic_store_n((uint64_t *)b->data + idx, htobe64(entry),
                     __ATOMIC_RELAXED);
}

static uint64_t
l2_index(const struct image *img, uint64_t guest_off)
{
    return guest_off >> img->cluster_bits
           & ((UINT64_C(1) << img->geo.slice_bits) - 1);
}

/* The slice of guest_off in its table. */
static uint64_t
slice_index(const struct image *img, uint64_t guest_off)
{
    return guest_off >> slice_window_bits(img)
           & (geometry_table_slices(&img->geo) - 1);
}

/* Reads a part of an L2 table, or all of it. */
static int
read_entries(struct image *img, uint64_t host_off, void *data, uint32_t size,
             struct qcow2_error *err)
{
    if (image_check_inside(img, host_off, size, err) == -1
        || io_pread(img->io, data, size, host_off, err) == -1)
        return error_prefix(err, "L2 table");
    return 0;
}

/* By how much each entry of a linear slice exceeds the one before. */
static uint64_t
linear_step(const struct image *img, uint64_t entry)
{
    return entry & L2_OFFSET_MASK ? img->cluster_size : 0;
}

/* Records the slice of a window, just read, if it is linear; returns whether it
 * is. */
static bool
note_linear(struct view *v, uint64_t window, const be64 *slice)
{
    struct image *img = v->img;
    uint64_t first = be64_get(slice[0]), step = linear_step(img, first);
    struct l2_entry e = entry_decode_l2(first, img->cluster_bits,
                                        v->version);

    if (e.kind == MAP_COMPRESSED || e.flaws)
        return false;
    /* At least 64 entries: 16 a step, so that the loop vectorizes. */
    for (uint64_t i = 0; i >> img->geo.slice_bits == 0; i += 16) {
        uint64_t differ = 0;

        for (uint64_t j = i; j < i + 16; j++)
            differ |= be64_get(slice[j]) ^ (first + j * step);
        if (differ)
            return false;
    }
    linear_note(&v->linear, window, first);
    return true;
}

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
        note_linear(l->v, window + i, vec[i].iov_base);
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

    if (read_entries(l->v->img, key, data, size, err) == -1)
        return -1;
    if (note_linear(l->v, l->window, data))
        note_neighbours(l);
    return 0;
}

/* The L2 table of guest_off: its place, 0 if there is none. */
static int
find_table(struct view *v, uint64_t guest_off, struct l1_entry *e,
           struct qcow2_error *err)
{
    struct image *img = v->img;
    uint64_t idx = guest_off >> l1_bits(img);

    *e = entry_decode_l1(l1_load(v, idx), img->cluster_bits);
    if (e->flaws)
        return image_damaged(img, err, "L1 entry %llu is invalid",
                             (unsigned long long)idx);
    return 0;
}

static struct block *
get_slice(struct view *v, uint64_t table_off, uint64_t guest_off,
          struct qcow2_error *err)
{
    struct image *img = v->img;
    struct load l = {
        v, window_of(img, guest_off),
        table_off + slice_index(img, guest_off) * img->slice_size,
    };

    return cache_get(img->meta, img, l.key, img->slice_size, load_slice, &l,
                     err);
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
    uint64_t idx = l2_index(img, guest_off), first, key;
    struct block *b;

    if (linear_find(&v->linear, window_of(img, guest_off), &first)) {
        *entry = first + idx * linear_step(img, first);
        *run_nr = nr;
        return 0;
    }
    b = get_slice(v, table_off, guest_off, err);
    if (!b)
        return -1;
    *entry = l2_load(b, idx);
    *run_nr = run_length(b, idx, nr, linear_step(img, *entry));
    key = b->key;
    cache_put(b);
    /* If it was just recorded as linear, nobody needs the slice itself. */
    if (linear_find(&v->linear, window_of(img, guest_off), &first))
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

    if (find_table(v, guest_off, &table, err) == -1)
        return -1;
    if (table.host_off == 0) {
        uint64_t reach = UINT64_C(1) << l1_bits(v->img);

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

uint64_t
map_preload(struct view *v, uint64_t from, uint64_t to)
{
    struct image *img = v->img;
    uint64_t reach = UINT64_C(1) << l1_bits(img);
    uint64_t window = UINT64_C(1) << slice_window_bits(img);
    uint64_t start = round_down(from, window);
    uint64_t end = min_u64(to, round_down(from, reach) + reach), nr, first;
    struct l1_entry table = entry_decode_l1(l1_load(v, from >> l1_bits(img)),
                                            img->cluster_bits);
    struct load l = { .v = v };

    if (table.host_off == 0 || table.flaws)
        return end;
    while (start < end
           && linear_find(&v->linear, window_of(img, start), &first))
        start += window;
    if (start >= end)
        return end;
    l.window = window_of(img, start);
    l.key = table.host_off + slice_index(img, start) * img->slice_size;
    nr = min_u64(div_round_up(end - start, window), CACHE_MAX_PRELOAD);
    cache_preload(img->meta, img, l.key, img->slice_size, nr, load_slices, &l);
    return min_u64(to, start + nr * window);
}

void
map_forget(struct view *v, uint64_t from, uint64_t to)
{
    struct image *img = v->img;
    uint64_t window = UINT64_C(1) << slice_window_bits(img);

    for (uint64_t off = round_up(from, window); off + window <= to;
         off += window) {
        struct l1_entry table;

        if (find_table(v, off, &table, NULL) == 0 && table.host_off != 0)
            cache_drop(img->meta, img,
                       table.host_off + slice_index(img, off)
                                            * img->slice_size);
    }
}

bool
map_table_absent(const struct view *v, uint64_t guest_off,
                 uint64_t *nr_bytes)
{
    uint64_t reach = UINT64_C(1) << l1_bits(v->img);

    *nr_bytes = reach - (guest_off & (reach - 1));
    return l1_load(v, guest_off >> l1_bits(v->img)) == 0;
}

/* Fills the new table at to_off with what the shared one at from_off holds.
 * A shared table has no dirty slices: the file has its content. */
static int
copy_table(struct image *img, uint64_t from_off, uint64_t to_off,
           struct qcow2_error *err)
{
    CLEANUP_FREE be64 *table = malloc(img->cluster_size);

    if (!table)
        return error_nomem(err);
    if (image_check_inside(img, from_off, img->cluster_size, err) == -1
        || io_pread(img->io, table, img->cluster_size, from_off, err) == -1)
        return error_prefix(err, "L2 table");
    /* What a shared table points to is shared as well (I4). */
    for (uint32_t i = 0; i < img->cluster_size / sizeof *table; i++)
        table[i] = be64_make(entry_with_copied(be64_get(table[i]), false));
    alloc_forget_table(img, to_off);
    return io_pwrite(img->io, table, img->cluster_size, to_off, err);
}

/* Gives guest_off an L2 table of its own: a copy of the one at old_off, or
 * an empty one when that is 0. */
static int
make_table(struct view *v, uint64_t guest_off, uint64_t old_off,
           uint64_t *new_off, struct qcow2_error *err)
{
    struct image *img = v->img;
    struct alloc_run run;
    int r;

    if (alloc_clusters(img, 1, &run, err) == -1)
        return -1;
    if (overlap_add(&img->overlap, run.host_off >> img->cluster_bits, 1, err)
        == -1) {
        alloc_free(img, run.host_off, 1);
        return -1;
    }
    r = old_off ? copy_table(img, old_off, run.host_off, err)
                : alloc_zero_table(img, run.host_off, err);
    if (r == -1) {
        overlap_remove(&img->overlap, run.host_off >> img->cluster_bits, 1);
        alloc_free(img, run.host_off, 1);
        return -1;
    }
    l1_store(v, guest_off >> l1_bits(img), entry_make_l1(run.host_off));
    if (old_off)
        alloc_free_table(img, old_off);
    *new_off = run.host_off;
    return 0;
}

int
map_prepare(struct view *v, uint64_t guest_off, struct map_slice *s,
            struct qcow2_error *err)
{
    struct image *img = v->img;
    uint64_t idx = guest_off >> l1_bits(img), host_off;
    struct l1_entry table;
    struct range r;
    int ret;

    s->block = NULL;
    linear_end(&v->linear, window_of(img, guest_off), 1);
    if (find_table(v, guest_off, &table, err) == -1)
        return -1;
    host_off = table.host_off;
    if (host_off == 0 || !table.copied) {
        range_lock_exclusive(&img->tables, &r, idx, idx + 1);
        ret = find_table(v, guest_off, &table, err);
        host_off = table.host_off;
        if (ret == 0 && (host_off == 0 || !table.copied))
            ret = make_table(v, guest_off, host_off, &host_off, err);
        range_unlock(&img->tables, &r);
        if (ret == -1)
            return -1;
    }
    s->block = get_slice(v, host_off, guest_off, err);
    return s->block ? 0 : -1;
}

void
map_done(struct map_slice *s)
{
    cache_put(s->block);
    s->block = NULL;
}

int
map_read_table(struct image *img, uint64_t table_off, be64 *table,
               struct qcow2_error *err)
{
    return read_entries(img, table_off, table, img->cluster_size, err);
}

/* Readers of snapshots may be loading slices just now, from before the table
 * was written. */
void
map_refresh_table(struct image *img, uint64_t table_off, const be64 *table)
{
    uint32_t per_slice = UINT32_C(1) << img->geo.slice_bits;

    for (uint32_t off = 0; off < img->cluster_size; off += img->slice_size) {
        struct block *b = cache_get(img->meta, img, table_off + off,
                                    img->slice_size, NULL, NULL, NULL);
        const be64 *slice = table + off / sizeof *table;

        if (!b)
            continue;
        pthread_mutex_lock(&b->lock);
        for (uint32_t i = 0; i < per_slice; i++)
            l2_store(b, i, be64_get(slice[i]));
        pthread_mutex_unlock(&b->lock);
        cache_put(b);
    }
}

bool
map_set_l1_flag(struct view *v, uint32_t idx, bool copied)
{
    uint64_t old = l1_load(v, idx), entry = entry_with_copied(old, copied);

    if (old == 0 || entry == old)
        return false;
    __atomic_store_n(&v->l1[idx], entry, __ATOMIC_RELEASE);
    return true;
}

void
map_set_l1(struct view *v, uint32_t idx, uint64_t entry)
{
    if (l1_load(v, idx) != entry)
        l1_store(v, idx, entry);
}

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
    uint64_t idx = l2_index(img, guest_off), old;
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
    uint64_t idx = l2_index(img, guest_off);
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
