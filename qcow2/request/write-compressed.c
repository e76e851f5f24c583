/* SPDX-License-Identifier: BSD-3-Clause */
/* write-compressed.c: writes clusters that are compressed already. */
#include "request/request.h"

#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "meta/alloc.h"
#include "meta/data-file.h"
#include "meta/flush.h"
#include "meta/overlap.h"

/* Gives back the references of data that are not used after all. */
static void
give_back(struct image *img, uint64_t host_off, uint32_t nr_bytes)
{
    uint64_t first = round_down(host_off, img->cluster_size);
    uint64_t end = round_up(host_off + nr_bytes, img->cluster_size);

    alloc_free(img, first, (end - first) >> img->cluster_bits);
}

/* With the cluster's range held exclusively. */
static int
write_held(struct image *img, const void *packed, uint32_t nr_bytes,
           uint64_t guest_off, struct qcow2_error *err)
{
    struct map_cursor c = map_cursor(&img->active);
    struct mapping old;
    uint64_t host_off;
    int r;

    /* Meets damage, as map_set cannot fail. */
    r = map_find(&c, guest_off, img->cluster_size, &old, err);
    if (r == 0)
        r = map_prepare(&c, guest_off, err);
    if (r == 0)
        r = alloc_packed(img, nr_bytes, &host_off, err);
    if (r == 0) {
        r = overlap_check(img, host_off, nr_bytes, err);
        if (r == 0)
            r = io_pwrite(img->io, packed, nr_bytes, host_off, err);
        if (r == 0) {
            /* Something else may have been decompressed from there. */
            cache_drop(decompress_pool_cache(img->decompress), img, host_off);
            map_set_compressed(&c, guest_off, host_off, nr_bytes);
        } else {
            give_back(img, host_off, nr_bytes);
        }
    }
    map_done(&c);
    return r;
}

int
write_compressed(struct image *img, const void *packed, uint32_t nr_bytes,
                 uint64_t guest_off, struct qcow2_error *err)
{
    struct range r;
    int ret;

    if (data_file_is_used(img))
        return error_set(err, ENOTSUP, "%s: an image with a data file has no "
                         "compressed clusters", img->name);
    if (flush_make_room(img, err) == -1)
        return -1;
    range_lock_exclusive(&img->ranges, &r, guest_off,
                         guest_off + img->cluster_size);
    ret = write_held(img, packed, nr_bytes, guest_off, err);
    range_unlock(&img->ranges, &r);
    return ret;
}
