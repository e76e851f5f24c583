/* SPDX-License-Identifier: BSD-3-Clause */
/* l2-table.c: L2 tables as a whole; see l2-table.h. */
#include "meta/l2-table.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "format/entry.h"
#include "meta/alloc.h"
#include "meta/l1.h"
#include "meta/l2-slice.h"
#include "meta/table.h"

int
l2_table_read_part(struct image *img, uint64_t host_off, void *data,
                   uint32_t nr_bytes, struct qcow2_error *err)
{
    if (image_check_inside(img, host_off, nr_bytes, err) == -1
        || io_pread(img->io, data, nr_bytes, host_off, err) == -1)
        return error_prefix(err, "L2 table");
    return 0;
}

/* Fills the new table at to_off with what the shared one at from_off holds.
 * A shared table has no dirty slices: the file has its content. */
static int
copy_table(struct image *img, uint64_t from_off, uint64_t to_off,
           struct qcow2_error *err)
{
    CLEANUP_FREE be64 *table = malloc(img->cluster_size);
    struct l2_slice s;

    if (!table)
        return error_nomem(err);
    if (image_check_inside(img, from_off, img->cluster_size, err) == -1
        || io_pread(img->io, table, img->cluster_size, from_off, err) == -1)
        return error_prefix(err, "L2 table");
    /* What a shared table points to is shared as well (I4), unless nothing
     * counts it: then COPIED says that host offset 0 is a place. */
    s = l2_slice_in_memory(table, &img->geo, img->hdr.version);
    for (uint32_t i = 0; img->data->counted && i >> img->geo.l2_bits == 0; i++)
        l2_set_copied(&s, i, false);
    table_forget(img, to_off);
    return io_pwrite(img->io, table, img->cluster_size, to_off, err);
}

int
l2_table_make(struct view *v, uint64_t guest_off, uint64_t old_off,
           uint64_t *new_off, struct qcow2_error *err)
{
    struct image *img = v->img;
    struct alloc_run run;
    uint64_t cluster;
    int r;

    if (alloc_clusters(img, 1, &run, err) == -1)
        return -1;
    cluster = run.host_off >> img->cluster_bits;
    if (cluster_set_add(&img->overlap, cluster, 1, err) == -1) {
        alloc_free(img, run.host_off, 1);
        return -1;
    }
    r = old_off ? copy_table(img, old_off, run.host_off, err)
                : table_zero(img, run.host_off, err);
    if (r == -1) {
        cluster_set_remove(&img->overlap, cluster, 1);
        alloc_free(img, run.host_off, 1);
        return -1;
    }
    l1_set(v, l1_index(v, guest_off), entry_make_l1(run.host_off));
    if (old_off)
        alloc_free_table(img, old_off);
    *new_off = run.host_off;
    return 0;
}

int
l2_table_read(struct image *img, uint64_t table_off, be64 *table,
              struct qcow2_error *err)
{
    return l2_table_read_part(img, table_off, table, img->cluster_size, err);
}

/* Readers of snapshots may be loading slices just now, from before the table
 * was written. */
void
l2_table_refresh(struct image *img, uint64_t table_off, const be64 *table)
{
    for (uint32_t off = 0; off < img->cluster_size; off += img->slice_size) {
        struct block *b = cache_get(img->meta, img, table_off + off,
                                    img->slice_size, NULL, NULL, NULL);

        if (!b)
            continue;
        pthread_mutex_lock(&b->lock);
        l2_copy_words(b, table + off / sizeof *table);
        pthread_mutex_unlock(&b->lock);
        cache_put(b);
    }
}
