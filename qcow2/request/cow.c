/* SPDX-License-Identifier: BSD-3-Clause */
/* cow.c: writes into clusters that must be allocated first: one merged write
 * of the data and what surrounds it in its first and last cluster.
 */
#include "request/request.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "meta/data.h"
#include "meta/flush.h"

/* Reads twice rather than copy more than this to no purpose. */
enum { SMALL_BYTES = 16384 };

/* A write into new clusters. Guest offsets; [start, end) are whole clusters,
 * [from, to) in them is what the caller writes.
 */
struct cow {
    uint64_t start, from, to, end;
    const void *buf;
    struct map_cursor cursor;
    unsigned first; /* layer that has what is there now: 1 if not layer 0 */
    struct alloc_run run;
    bool allocated; /* run is new, not the preallocated place it has */
};

static bool
is_in_place(const struct mapping *m)
{
    return m->kind == MAP_DATA && m->copied;
}

static bool
is_preallocated(const struct mapping *m)
{
    return m->kind == MAP_ZERO && m->copied;
}

/* How far, at most to c->end, clusters must be allocated: those of m, which c
 * begins with, and what follows. Finds out which layer has their content.
 */
static int
find_end(struct cow *c, const struct mapping *m, struct qcow2_error *err)
{
    uint64_t pos = c->start + m->nr_bytes;

    c->first = m->kind == MAP_UNALLOCATED;
    while (pos < c->end) {
        struct mapping next;

        if (map_find(&c->cursor, pos, c->end - pos, &next, err) == -1)
            return -1;
        if (is_in_place(&next) || is_preallocated(&next))
            break;
        if (next.kind != MAP_UNALLOCATED)
            c->first = 0;
        pos += next.nr_bytes;
    }
    c->end = pos;
    return 0;
}

/* Reads [from, to), inside the disk and not empty, into space, unless it reads
 * as zeroes and so do the new clusters: then *needed is false.
 */
static int
read_inside(struct image *img, const struct cow *c, uint64_t from,
            uint64_t to, unsigned char *space, bool *needed,
            struct qcow2_error *err)
{
    struct mapping m;
    bool zero;

    if (source_chain_lookup(img->chain, c->first, from, to - from, &m, NULL,
                            err) == -1)
        return -1;
    /* Mostly it is one run, and the lookup was all there is to look up. */
    if (m.nr_bytes == to - from && m.kind != MAP_COMPRESSED) {
        *needed = m.kind != MAP_ZERO || !c->run.reads_zero;
        return *needed ? read_mapping(&m, space, from, err) : 0;
    }
    if (source_chain_is_zero(img->chain, c->first, from, to, &zero, err)
        == -1)
        return -1;
    *needed = !zero || !c->run.reads_zero;
    return *needed ? read_chain(img->chain, c->first, space, to - from, from,
                                err) : 0;
}

/* Reads what [from, to) holds now, or shall hold past the disk's end; needed
 * as for read_inside.
 */
static int
read_old(struct image *img, const struct cow *c, uint64_t from, uint64_t to,
         unsigned char *space, bool *needed, struct qcow2_error *err)
{
    uint64_t inside = max_u64(from, min_u64(to, img->active.src.size));

    *needed = from < to && !c->run.reads_zero;
    if (from < inside
        && read_inside(img, c, from, inside, space, needed, err) == -1)
        return -1;
    if (*needed)
        memset(space + (inside - from), 0, to - inside);
    return 0;
}

/* One merged write of the data and what surrounds it in the first and the
 * last cluster. Around little data one read takes less than two. */
static int
write_run(struct image *img, const struct cow *c, struct qcow2_error *err)
{
    size_t before = c->from - c->start, after = c->end - c->to;
    size_t nr_bytes = c->to - c->from;
    bool at_once = before > 0 && after > 0 && nr_bytes <= SMALL_BYTES;
    size_t size = before + after + (at_once ? nr_bytes : 0);
    CLEANUP_FREE unsigned char *space = size > 0 ? malloc(size) : NULL;
    bool head = false, tail = false;
    struct iovec iov[3];
    int n = 0, r;

    if (size > 0 && !space)
        return error_nomem(err);
    r = read_old(img, c, c->start, at_once ? c->end : c->from, space, &head,
                 err);
    if (r == 0 && at_once)
        tail = head;
    else if (r == 0 && after > 0)
        r = read_old(img, c, c->to, c->end, space + before, &tail, err);
    if (r == -1)
        return -1;
    if (head)
        iov[n++] = (struct iovec){ space, before };
    iov[n++] = (struct iovec){ (void *)c->buf, nr_bytes };
    if (tail)
        iov[n++] = (struct iovec){ space + size - after, after };
    if (head)
        before = 0;
    return store_writev(img->data, iov, n, c->start + before,
                        c->run.host_off + before, err);
}

/* Decides where the clusters go. */
static int
place_run(struct image *img, struct cow *c, const struct mapping *m,
          struct qcow2_error *err)
{
    if (is_preallocated(m)) {
        c->run = (struct alloc_run){
            .host_off = m->host_off,
            .nr_clusters = m->nr_bytes >> img->cluster_bits,
        };
        if (data_check_write(img, m->host_off, m->nr_bytes, err) == -1)
            return -1;
    } else {
        if (find_end(c, m, err) == -1
            || data_place(img, c->start,
                          (c->end - c->start) >> img->cluster_bits, &c->run,
                          err) == -1)
            return -1;
        c->allocated = true;
    }
    c->end = c->start + (c->run.nr_clusters << img->cluster_bits);
    c->to = min_u64(c->to, c->end);
    return 0;
}

/* With the range held exclusively: writes what is in `to`, shortened to
 * what could be done at once. */
static int
cow_run(struct image *img, struct cow *c, struct qcow2_error *err)
{
    struct mapping m;
    int r;

    if (map_find(&c->cursor, c->start, c->end - c->start, &m, err) == -1)
        return -1;
    if (is_in_place(&m)) {
        /* Somebody was faster. */
        uint64_t head = c->from - c->start;

        c->to = min_u64(c->to, c->start + m.nr_bytes);
        if (data_check_write(img, m.host_off + head, c->to - c->from, err)
            == -1)
            return -1;
        return store_merge(img->data, c->buf, c->to - c->from, c->from,
                           m.host_off + head, err);
    }
    if (map_prepare(&c->cursor, c->start, err) == -1
        || place_run(img, c, &m, err) == -1)
        return -1;
    r = write_run(img, c, err);
    if (r == 0)
        map_set(&c->cursor, c->start, c->run.nr_clusters, MAP_TO_DATA,
                c->run.host_off);
    else if (c->allocated)
        data_release(img, c->start, c->run.host_off, c->run.nr_clusters);
    return r;
}

int
cow_write_held(struct image *img, const void *buf, size_t nr_bytes,
               uint64_t guest_off, size_t *done, struct qcow2_error *err)
{
    struct cow c = {
        .start = round_down(guest_off, img->cluster_size),
        .from = guest_off,
        .to = guest_off + nr_bytes,
        .end = round_up(guest_off + nr_bytes, img->cluster_size),
        .buf = buf,
        .cursor = map_cursor(&img->active),
    };
    int r = cow_run(img, &c, err);

    map_done(&c.cursor);
    *done = c.to - c.from;
    return r;
}

int
cow_write(struct image *img, const void *buf, size_t nr_bytes,
          uint64_t guest_off, size_t *done, struct qcow2_error *err)
{
    uint64_t start = round_down(guest_off, img->cluster_size);
    uint64_t end = round_up(guest_off + nr_bytes, img->cluster_size);
    struct range r;
    int ret;

    if (flush_make_room(img, err) == -1)
        return -1;
    range_lock_exclusive(&img->ranges, &r, start, end);
    ret = cow_write_held(img, buf, nr_bytes, guest_off, done, err);
    range_unlock(&img->ranges, &r);
    return ret;
}
