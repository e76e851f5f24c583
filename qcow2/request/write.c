/* SPDX-License-Identifier: BSD-3-Clause */
/* write.c: writes guest bytes: in place where the cluster is ours alone,
 * else by copy-on-write (cow.c).
 */
#include "request/request.h"

#include "base/checked.h"
#include "base/error.h"
#include "meta/data.h"

/* For a write that begins or ends inside a block of the store. */
static void
lock_blocks(struct image *img, struct range *r, uint64_t guest_off,
            uint64_t nr_bytes)
{
    uint32_t align = img->data->align;

    range_lock_exclusive(&img->ranges, r, round_down(guest_off, align),
                         round_up(guest_off + nr_bytes, align));
}

/* Writes as much of a piece as can be written in place, from its start on:
 * *done may be 0. *has_place: where it stopped, the cluster's place is ours. */
static int
write_in_place(struct image *img, const void *buf, size_t nr_bytes,
               uint64_t guest_off, size_t *done, bool *has_place,
               struct qcow2_error *err)
{
    struct map_cursor c = map_cursor(&img->active);
    struct store *s = img->data;
    bool whole = store_is_whole(s, guest_off, nr_bytes);
    struct range r;
    struct mapping m;
    int ret = 0;

    *done = 0;
    *has_place = false;
    if (whole)
        range_lock_shared(&img->ranges, &r, guest_off, guest_off + nr_bytes);
    else
        lock_blocks(img, &r, guest_off, nr_bytes);
    while (*done < nr_bytes) {
        ret = map_find(&c, guest_off + *done, nr_bytes - *done, &m, err);
        if (ret == -1)
            break;
        *has_place = m.copied;
        if (m.kind != MAP_DATA || !m.copied)
            break;
        ret = data_check_write(img, m.host_off, m.nr_bytes, err);
        if (ret == -1)
            break;
        ret = whole ? store_write(s, (const char *)buf + *done, m.nr_bytes,
                                  guest_off + *done, m.host_off, err)
                    : store_merge(s, (const char *)buf + *done, m.nr_bytes,
                                  guest_off + *done, m.host_off, err);
        if (ret == -1)
            break;
        *done += m.nr_bytes;
    }
    map_done(&c);
    range_unlock(&img->ranges, &r);
    return ret;
}

int
write_data(struct image *img, const void *buf, size_t nr_bytes,
           uint64_t guest_off, struct qcow2_error *err)
{
    while (nr_bytes > 0) {
        size_t piece = min_u64(nr_bytes,
                               map_piece(&img->active, guest_off));
        bool has_place;
        size_t done;

        if (write_in_place(img, buf, piece, guest_off, &done, &has_place, err)
            == -1)
            return -1;
        if (done == 0
            && cow_write(img, buf, piece, guest_off, has_place, &done, err)
               == -1)
            return -1;
        buf = (const char *)buf + done;
        nr_bytes -= done;
        guest_off += done;
    }
    return 0;
}
