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
#include "meta/alloc.h"
#include "meta/flush.h"

/* Reads twice rather than copy more than this to no purpose. */
enum { SMALL_BYTES = 16384 };

/* A write into new clusters. Guest offsets; [start, end) are whole clusters,
 * [from, to) in them is what the caller writes.
 */
struct cow {
    uint64_t start, from, to, end;
    const void *buf;
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

/* How far from start on, at most to end, clusters must be allocated. The
 * first of them is known to. */
static int
find_end(struct image *img, uint64_t start, uint64_t *end,
         struct qcow2_error *err)
{
    uint64_t pos = start;

    while (pos < *end) {
        struct mapping m;

        if (map_lookup(&img->active, pos, *end - pos, &m, err) == -1)
            return -1;
        if (is_in_place(&m) || is_preallocated(&m))
            break;
        pos += m.nr_bytes;
    }
    *end = pos;
    return 0;
}

/* Reads what [from, to) holds now into space, unless the new place reads as
 * zeroes anyway and so shall it: then *needed is false. */
static int
read_old(struct image *img, const struct cow *c, uint64_t from, uint64_t to,
         unsigned char *space, bool *needed, struct qcow2_error *err)
{
    uint64_t inside = max_u64(from, min_u64(to, img->active.src.size));
    bool zero;

    *needed = false;
    if (from == to)
        return 0;
    if (source_chain_is_zero(&img->chain, from, to, &zero, err) == -1)
        return -1;
    if (zero && c->run.reads_zero)
        return 0;
    *needed = true;
    memset(space + (inside - from), 0, to - inside);
    return read_chain(&img->chain, 0, space, inside - from, from, err);
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
    return io_pwritev(img->io, iov, n, c->run.host_off + (head ? 0 : before),
                      err);
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
        if (overlap_check(img, m->host_off, m->nr_bytes, err) == -1)
            return -1;
    } else {
        if (find_end(img, c->start, &c->end, err) == -1
            || alloc_clusters(img, (c->end - c->start) >> img->cluster_bits,
                              &c->run, err) == -1)
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
    struct view *v = &img->active;
    struct map_slice slice;
    struct mapping m;
    int r;

    if (map_lookup(v, c->start, c->end - c->start, &m, err) == -1)
        return -1;
    if (is_in_place(&m)) {
        /* Somebody was faster. */
        uint64_t head = c->from - c->start;

        c->to = min_u64(c->to, c->start + m.nr_bytes);
        if (overlap_check(img, m.host_off + head, c->to - c->from, err)
            == -1)
            return -1;
        return io_pwrite(img->io, c->buf, c->to - c->from,
                         m.host_off + head, err);
    }
    if (map_prepare(v, c->start, &slice, err) == -1)
        return -1;
    r = place_run(img, c, &m, err);
    if (r == 0) {
        r = write_run(img, c, err);
        if (r == 0)
            map_set(v, &slice, c->start, c->run.nr_clusters, MAP_TO_DATA,
                    c->run.host_off);
        else if (c->allocated)
            alloc_free(img, c->run.host_off, c->run.nr_clusters);
    }
    map_done(&slice);
    return r;
}

int
cow_write(struct image *img, const void *buf, size_t nr_bytes,
          uint64_t guest_off, size_t *done, struct qcow2_error *err)
{
    struct cow c = {
        .start = round_down(guest_off, img->cluster_size),
        .from = guest_off,
        .to = guest_off + nr_bytes,
        .end = round_up(guest_off + nr_bytes, img->cluster_size),
        .buf = buf,
    };
    struct range r;
    int ret;

    if (flush_make_room(img, err) == -1)
        return -1;
    range_lock_exclusive(&img->ranges, &r, c.start, c.end);
    ret = cow_run(img, &c, err);
    range_unlock(&img->ranges, &r);
    *done = c.to - c.from;
    return ret;
}
