/* SPDX-License-Identifier: BSD-3-Clause */
/* cow.c: writes into subclusters that the disk does not have yet: one merged
 * write of the data and what surrounds it in its first and last subcluster.
 * Without extended L2 entries a subcluster is a cluster.
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

/* A write where the disk has no data of its own. Guest offsets; [start, end)
 * are whole subclusters, [from, to) in them is what the caller writes.
 */
struct cow {
    uint64_t start, from, to, end;
    const void *buf;
    struct map_cursor cursor;
    bool only_subclusters; /* the rest of their clusters is not held */
    unsigned first;     /* layer that has what is there now: 1 if not layer 0 */
    struct alloc_run run; /* new clusters, from that of start on */
    bool allocated;     /* else they have a place, which is the disk's alone */
    uint64_t place;     /* host offset of start */
};

static bool
is_data(const struct mapping *m)
{
    return m->kind == MAP_DATA || m->kind == MAP_COMPRESSED;
}

static bool
is_in_place(const struct mapping *m)
{
    return m->kind == MAP_DATA && m->copied;
}

/* Is there a place for data, which are not there? */
static bool
is_preallocated(const struct mapping *m)
{
    return m->kind != MAP_DATA && m->copied;
}

/* May subclusters beside those of m be data in a place that is given up? */
static bool
is_moved(const struct mapping *m)
{
    return m->kind == MAP_COMPRESSED || m->has_host;
}

/* How far, at most to c->end, clusters must be allocated: those of m, which c
 * begins with, and what follows. Finds out which layer has their content;
 * *moved is whether what ends there is_moved.
 */
static int
find_end(struct cow *c, const struct mapping *m, bool *moved,
         struct qcow2_error *err)
{
    uint64_t pos = c->start + m->nr_bytes;

    c->first = m->kind == MAP_UNALLOCATED;
    *moved = is_moved(m);
    while (pos < c->end) {
        struct mapping next;

        if (map_find(&c->cursor, pos, c->end - pos, &next, err) == -1)
            return -1;
        if (is_in_place(&next) || is_preallocated(&next))
            break;
        if (next.kind != MAP_UNALLOCATED)
            c->first = 0;
        *moved = is_moved(&next);
        pos += next.nr_bytes;
    }
    c->end = pos;
    return 0;
}

/* Data that ends where c starts move with it. */
static int
widen_start(struct cow *c, uint64_t pos, struct qcow2_error *err)
{
    while (pos < c->start) {
        struct mapping m;

        if (map_find(&c->cursor, pos, c->start - pos, &m, err) == -1)
            return -1;
        if (is_data(&m) && pos + m.nr_bytes == c->start) {
            c->start = pos;
            c->first = 0;
            return 0;
        }
        pos += m.nr_bytes;
    }
    return 0;
}

/* The same of data that begins where c ends, in the same cluster. */
static int
widen_end(struct cow *c, uint64_t limit, struct qcow2_error *err)
{
    struct mapping m;

    if (c->end == limit)
        return 0;
    if (map_find(&c->cursor, c->end, limit - c->end, &m, err) == -1)
        return -1;
    if (is_data(&m)) {
        c->end += m.nr_bytes;
        c->first = 0;
    }
    return 0;
}

/* Copies the data of [from, to), in one cluster that gets a new place, which
 * are not in one piece with what is written. */
static int
copy_apart(struct image *img, struct cow *c, uint64_t from, uint64_t to,
           struct qcow2_error *err)
{
    while (from < to) {
        CLEANUP_FREE void *space = NULL;
        struct mapping m;

        if (map_find(&c->cursor, from, to - from, &m, err) == -1)
            return -1;
        if (m.kind == MAP_DATA) {
            space = malloc(m.nr_bytes);
            if (!space)
                return error_nomem(err);
            if (read_mapping(&m, space, from, err) == -1
                || store_write(img->data, space, m.nr_bytes, from,
                               c->place + from - c->start, err) == -1)
                return -1;
        }
        from += m.nr_bytes;
    }
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
 * last subcluster. Around little data one read takes less than two. */
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
                        c->place + before, err);
}

/* New clusters, for all that lies between those of c->start and c->end. */
static int
allocate(struct image *img, struct cow *c, const struct mapping *m,
         struct qcow2_error *err)
{
    uint64_t cluster = round_down(c->start, img->cluster_size), end;
    bool end_moved;

    if (find_end(c, m, &end_moved, err) == -1
        || (is_moved(m) && widen_start(c, cluster, err) == -1)
        || (end_moved
            && widen_end(c, round_up(c->end, img->cluster_size), err) == -1))
        return -1;
    end = round_up(c->end, img->cluster_size);
    if (data_place(img, cluster, (end - cluster) >> img->cluster_bits,
                   &c->run, err) == -1)
        return -1;
    c->allocated = true;
    c->place = c->run.host_off + (c->start - cluster);
    end = cluster + (c->run.nr_clusters << img->cluster_bits);
    c->end = min_u64(c->end, end);
    return 0;
}

/* Decides where the subclusters go. */
static int
place_run(struct image *img, struct cow *c, const struct mapping *m,
          struct qcow2_error *err)
{
    if (is_preallocated(m)) {
        c->first = m->kind == MAP_UNALLOCATED;
        c->place = m->host_off;
        c->end = c->start + m->nr_bytes;
        if (data_check_write(img, m->host_off, m->nr_bytes, err) == -1)
            return -1;
    } else if (allocate(img, c, m, err) == -1) {
        return -1;
    }
    c->to = min_u64(c->to, c->end);
    return 0;
}

/* Writes all that the new place needs before a table points to it. */
static int
write_place(struct image *img, struct cow *c, struct qcow2_error *err)
{
    if (c->allocated
        && (copy_apart(img, c, round_down(c->start, img->cluster_size),
                       c->start, err) == -1
            || copy_apart(img, c, c->end, round_up(c->end, img->cluster_size),
                          err) == -1))
        return -1;
    return write_run(img, c, err);
}

/* Somebody was faster: m is data, in its place. */
static int
write_over(struct image *img, struct cow *c, const struct mapping *m,
           struct qcow2_error *err)
{
    uint64_t host_off = m->host_off + (c->from - c->start);

    c->to = min_u64(c->to, c->start + m->nr_bytes);
    if (data_check_write(img, host_off, c->to - c->from, err) == -1)
        return -1;
    return store_merge(img->data, c->buf, c->to - c->from, c->from, host_off,
                       err);
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
    if (is_in_place(&m))
        return write_over(img, c, &m, err);
    if (c->only_subclusters && !m.copied) {
        c->to = c->from; /* the place that they had is gone */
        return 0;
    }
    if (map_prepare(&c->cursor, c->start, err) == -1
        || place_run(img, c, &m, err) == -1)
        return -1;
    r = write_place(img, c, err);
    if (r == 0)
        map_set(&c->cursor, c->start, c->end - c->start, MAP_TO_DATA,
                c->place);
    else if (c->allocated)
        data_release(img, round_down(c->start, img->cluster_size),
                     c->run.host_off, c->run.nr_clusters);
    return r;
}

static int
write_held(struct image *img, const void *buf, size_t nr_bytes,
           uint64_t guest_off, bool only_subclusters, size_t *done,
           struct qcow2_error *err)
{
    struct cow c = {
        .start = round_down(guest_off, img->subcluster_size),
        .from = guest_off,
        .to = guest_off + nr_bytes,
        .end = round_up(guest_off + nr_bytes, img->subcluster_size),
        .buf = buf,
        .cursor = map_cursor(&img->active),
        .only_subclusters = only_subclusters,
    };
    int r = cow_run(img, &c, err);

    map_done(&c.cursor);
    *done = c.to - c.from;
    return r;
}

int
cow_write_held(struct image *img, const void *buf, size_t nr_bytes,
               uint64_t guest_off, size_t *done, struct qcow2_error *err)
{
    return write_held(img, buf, nr_bytes, guest_off, false, done, err);
}

int
cow_write(struct image *img, const void *buf, size_t nr_bytes,
          uint64_t guest_off, bool has_place, size_t *done,
          struct qcow2_error *err)
{
    uint32_t unit = has_place ? img->subcluster_size : img->cluster_size;
    uint64_t start = round_down(guest_off, unit);
    uint64_t end = round_up(guest_off + nr_bytes, unit);
    struct range r;
    int ret;

    if (flush_make_room(img, err) == -1)
        return -1;
    range_lock_exclusive(&img->ranges, &r, start, end);
    ret = write_held(img, buf, nr_bytes, guest_off, has_place, done, err);
    range_unlock(&img->ranges, &r);
    return ret;
}
