/* SPDX-License-Identifier: BSD-3-Clause */
/* write-compressed.c: writes clusters that are compressed already. */
#include "request/request.h"

#include "base/checked.h"
#include "base/error.h"
#include "meta/alloc.h"
#include "meta/flush.h"

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
    struct view *v = &img->active;
    struct map_slice slice;
    struct mapping old;
    uint64_t host_off;
    int r;

    /* Meets damage, as map_set cannot fail. */
    if (map_lookup(v, guest_off, img->cluster_size, &old, err) == -1
        || map_prepare(v, guest_off, &slice, err) == -1)
        return -1;
    r = alloc_packed(img, nr_bytes, &host_off, err);
    if (r == 0) {
        r = overlap_check(img, host_off, nr_bytes, err);
        if (r == 0)
            r = io_pwrite(img->io, packed, nr_bytes, host_off, err);
        if (r == 0) {
            /* Something else may have been decompressed from there. */
            cache_drop(decompress_pool_cache(img->decompress), img, host_off);
            map_set_compressed(v, &slice, guest_off, host_off, nr_bytes);
        } else {
            give_back(img, host_off, nr_bytes);
        }
    }
    map_done(&slice);
    return r;
}

int
write_compressed(struct image *img, const void *packed, uint32_t nr_bytes,
                 uint64_t guest_off, struct qcow2_error *err)
{
    struct range r;
    int ret;

    if (flush_make_room(img, err) == -1)
        return -1;
    range_lock_exclusive(&img->ranges, &r, guest_off,
                         guest_off + img->cluster_size);
    ret = write_held(img, packed, nr_bytes, guest_off, err);
    range_unlock(&img->ranges, &r);
    return ret;
}
