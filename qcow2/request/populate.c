/* SPDX-License-Identifier: BSD-3-Clause */
/* populate.c: gives a disk clusters of its own with what it shows from below,
 * for jobs that put it on other layers.
 *
 * Requests go on meanwhile, and a plain write would overwrite what one of them
 * wrote after the bytes were read. So with the range held exclusively it is
 * looked up again, and only what is still unallocated is written. The bytes
 * themselves may be read before: layers below do not change.
 */
#include "request/request.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "meta/flush.h"
#include "request/change.h"

/* Bytes read at once, unless a cluster is larger. */
enum { POPULATE_BYTES = 1 << 20 };

/* Does the subcluster become zero? bytes: to its end, or the disk's. Version 2
 * has no zero clusters. */
static bool
becomes_zero(const struct image *img, const unsigned char *bytes,
             size_t nr_bytes)
{
    return img->hdr.version >= 3
           && (!bytes || (bytes[0] == 0
                          && memcmp(bytes, bytes + 1, nr_bytes - 1) == 0));
}

static int
put_zeroes(struct image *img, uint64_t from, uint64_t to,
           struct qcow2_error *err)
{
    struct map_cursor c = map_cursor(&img->active);
    int r = map_prepare(&c, from, err);

    if (r == 0)
        map_set(&c, from, to - from, MAP_TO_ZERO, 0);
    map_done(&c);
    return r;
}

static int
put_data(struct image *img, const unsigned char *bytes, uint64_t from,
         uint64_t to, struct qcow2_error *err)
{
    to = min_u64(to, img->active.src.size);
    while (from < to) {
        size_t done;

        if (cow_write_held(img, bytes, to - from, from, &done, err) == -1)
            return -1;
        bytes += done;
        from += done;
    }
    return 0;
}

/* Fills subclusters [from, to) with one or the other. They read as before, but
 * observers see that the disk has them now. */
static int
put(struct image *img, bool zero, const unsigned char *bytes, uint64_t from,
    uint64_t to, struct qcow2_error *err)
{
    const struct guest_change c = {
        .kind = zero ? CHANGE_ZERO : CHANGE_WRITE,
        .guest_off = from,
        .nr_bytes = min_u64(to, img->active.src.size) - from,
        .buf = bytes,
    };
    int r;

    if (change_announce(img->observers, &c, err) == -1)
        return -1;
    r = zero ? put_zeroes(img, from, to, err)
             : put_data(img, bytes, from, to, err);
    change_finish(img->observers, &c, r);
    return r;
}

/* Fills subclusters [from, to), all unallocated, in runs of zeroes and of data.
 * bytes NULL: zeroes. */
static int
fill_run(struct image *img, const unsigned char *bytes, uint64_t from,
         uint64_t to, struct qcow2_error *err)
{
    uint64_t size = img->active.src.size, unit = img->subcluster_size, end;

    for (; from < to; from = end) {
        const unsigned char *b = bytes;
        bool zero = false;

        for (end = from; end < to; end += unit) {
            size_t n = min_u64(unit, size - end);
            bool is_zero = becomes_zero(img, b, n);

            if (end > from && is_zero != zero)
                break;
            zero = is_zero;
            b = b ? b + unit : NULL;
        }
        if (put(img, zero, bytes, from, end, err) == -1)
            return -1;
        bytes = b;
    }
    return 0;
}

/* Fills what is still unallocated of [from, to), in one piece. */
static int
fill_piece(struct image *img, const unsigned char *bytes, uint64_t from,
           uint64_t to, struct qcow2_error *err)
{
    struct range held;
    int r = flush_make_room(img, err);

    if (r == -1)
        return -1;
    range_lock_exclusive(&img->ranges, &held,
                         round_down(from, img->cluster_size),
                         round_up(to, img->cluster_size));
    while (r == 0 && from < to) {
        struct mapping m;

        r = map_lookup(&img->active, from, to - from, &m, err);
        if (r == 0 && m.kind == MAP_UNALLOCATED)
            r = fill_run(img, bytes, from, from + m.nr_bytes, err);
        bytes = bytes ? bytes + m.nr_bytes : NULL;
        from += m.nr_bytes;
    }
    range_unlock(&img->ranges, &held);
    return r;
}

int
populate_shown(struct image *img, const void *shown, uint64_t nr_bytes,
               uint64_t guest_off, struct qcow2_error *err)
{
    const unsigned char *bytes = shown;
    uint64_t to = round_up(guest_off + nr_bytes, img->subcluster_size);

    while (guest_off < to) {
        uint64_t piece = min_u64(to - guest_off,
                                 map_piece(&img->active, guest_off));

        if (fill_piece(img, bytes, guest_off, guest_off + piece, err) == -1)
            return -1;
        bytes += piece;
        guest_off += piece;
    }
    return 0;
}

/* Reads what is shown from `from` on of subclusters [from, *to), which is
 * shortened to what the buffer has room for, or to what is zero. */
static int
read_shown(struct image *img, unsigned char *buf, size_t buf_size,
           uint64_t from, uint64_t *to, bool *zero, struct qcow2_error *err)
{
    uint64_t end = min_u64(*to, img->active.src.size), n;
    uint32_t unit = img->subcluster_size;
    struct mapping m;

    if (source_chain_lookup(img->chain, 1, from, end - from, &m, NULL, err)
        == -1)
        return -1;
    *zero = m.kind == MAP_ZERO && img->hdr.version >= 3
            && (m.nr_bytes == end - from || m.nr_bytes >= unit);
    if (*zero && m.nr_bytes < end - from)
        *to = from + round_down(m.nr_bytes, unit);
    if (*zero)
        return 0;
    n = min_u64(round_up(m.nr_bytes, unit), buf_size);
    *to = min_u64(*to, from + n);
    end = min_u64(*to, end);
    return read_chain(img->chain, 1, buf, end - from, from, err);
}

/* A first look, for what need not be read. */
static int
look(struct image *img, uint64_t from, uint64_t to, struct mapping *m,
     struct qcow2_error *err)
{
    struct range held;
    int r;

    range_lock_shared(&img->ranges, &held, from, to);
    r = map_lookup(&img->active, from, to - from, m, err);
    range_unlock(&img->ranges, &held);
    return r;
}

static int
populate_piece(struct image *img, unsigned char *buf, size_t buf_size,
               uint64_t from, uint64_t to, struct qcow2_error *err)
{
    while (from < to) {
        struct mapping m;
        uint64_t end;
        bool zero;

        if (look(img, from, to, &m, err) == -1)
            return -1;
        end = from + m.nr_bytes;
        if (m.kind == MAP_UNALLOCATED
            && (read_shown(img, buf, buf_size, from, &end, &zero, err) == -1
                || fill_piece(img, zero ? NULL : buf, from, end, err) == -1))
            return -1;
        from = end;
    }
    return 0;
}

int
populate_range(struct image *img, uint64_t nr_bytes, uint64_t guest_off,
               struct qcow2_error *err)
{
    uint64_t to = round_up(guest_off + nr_bytes, img->subcluster_size);
    size_t buf_size = max_u64(POPULATE_BYTES, img->cluster_size);
    CLEANUP_FREE unsigned char *buf = malloc(buf_size);

    if (!buf)
        return error_nomem(err);
    guest_off = round_down(guest_off, img->subcluster_size);
    while (guest_off < to) {
        uint64_t piece = min_u64(to - guest_off,
                                 map_piece(&img->active, guest_off));

        if (populate_piece(img, buf, buf_size, guest_off, guest_off + piece,
                           err) == -1)
            return -1;
        guest_off += piece;
    }
    return 0;
}
