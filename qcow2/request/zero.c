/* SPDX-License-Identifier: BSD-3-Clause */
/* zero.c: zero and trim requests: as metadata where the format allows it, as
 * data where it does not.
 */
#include "request/request.h"

#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "meta/data.h"
#include "meta/flush.h"

enum { ZERO_BUFFER_BYTES = 65536 };
static const unsigned char zero_buffer[ZERO_BUFFER_BYTES];

bool
zero_is_fast(const struct image *img)
{
    return img->hdr.version >= 3 && !img->data->zeroes_are_data;
}

/* Does an unallocated cluster show a backing file, here or wherever the image
 * is opened with the backing file that it names?
 */
static bool
has_backing(const struct image *img)
{
    return img->chain->nr_layers > 1 || img->hdr.backing_file;
}

/* How whole subclusters become zero without writing data; false: they do not.
 * Version 2 has no zero flag, and without one an unallocated cluster would
 * show the backing file. */
static bool
metadata_change(const struct image *img, bool free_space,
                enum map_change *change)
{
    if (img->data->zeroes_are_data)
        return false;
    if (img->hdr.version >= 3)
        *change = free_space ? MAP_TO_ZERO : MAP_TO_ZERO_KEEP;
    else if (free_space && !has_backing(img))
        *change = MAP_TO_UNALLOCATED;
    else
        return false;
    return true;
}

/* How whole subclusters become zero. */
struct zeroing {
    enum map_change change;
    bool free_space;
    bool record; /* also where they read as zeroes through the chain: it may
                  * come to hold something else there */
};

/* Do the subclusters of m, at guest_off, need no change? Shortens m to what the
 * answer holds for. */
static int
is_done(struct image *img, uint64_t guest_off, const struct zeroing *z,
        struct mapping *m, bool *done, struct qcow2_error *err)
{
    struct mapping below;

    *done = false;
    if (z->free_space && m->has_host)
        return 0;
    *done = m->kind == MAP_ZERO;
    if (m->kind != MAP_UNALLOCATED || (z->record && has_backing(img)))
        return 0;
    if (source_chain_lookup(img->chain, 1, guest_off, m->nr_bytes, &below,
                            NULL, err) == -1)
        return -1;
    *done = below.kind == MAP_ZERO;
    /* Part of a subcluster that is zero below does not settle it. */
    if (below.nr_bytes < m->nr_bytes) {
        m->nr_bytes = round_down(below.nr_bytes, img->subcluster_size);
        if (m->nr_bytes == 0) {
            m->nr_bytes = img->subcluster_size;
            *done = false;
        }
    }
    return 0;
}

/* Gives back the space of what has a place outside of the image's file, before
 * the entries change. A power cut may keep this alone: then what a client gave
 * up reads as zeroes, as it would a moment later. */
static int
punch_outside(struct image *img, uint64_t guest_off, const struct mapping *m,
              struct qcow2_error *err)
{
    struct qcow2_error why;

    if (img->data->counted || !m->has_host || m->kind == MAP_COMPRESSED
        || store_zero(img->data, guest_off, m->host_off, m->nr_bytes,
                      IO_ZERO_PUNCH | IO_ZERO_FAST, &why) == 0
        || why.errnum == ENOTSUP)
        return 0;
    if (err)
        *err = why;
    return -1;
}

/* Of compressed data no part can be zeroed. */
static bool
is_part_of_compressed(const struct image *img, const struct mapping *m)
{
    return m->kind == MAP_COMPRESSED
           && (m->skip > 0 || m->nr_bytes < img->cluster_size);
}

/* Changes whole subclusters [*from, to) of one piece, whose clusters are held
 * exclusively; up to *from, if that becomes less than `to`, which is then a
 * part of a compressed cluster. */
static int
change_subclusters(struct image *img, uint64_t *from, uint64_t to,
                   const struct zeroing *z, struct qcow2_error *err)
{
    struct map_cursor c = map_cursor(&img->active);
    int r = 0;

    while (r == 0 && *from < to) {
        struct mapping m;
        bool done;

        r = map_find(&c, *from, to - *from, &m, err);
        if (r == 0 && is_part_of_compressed(img, &m))
            break;
        if (r == 0)
            r = is_done(img, *from, z, &m, &done, err);
        if (r == 0 && !done) {
            r = map_prepare(&c, *from, err);
            if (r == 0 && z->free_space)
                r = punch_outside(img, *from, &m, err);
            if (r == 0)
                map_set(&c, *from, m.nr_bytes, z->change, 0);
        }
        *from += m.nr_bytes;
    }
    map_done(&c);
    return r;
}

/* The same with their clusters not held yet. */
static int
change_piece(struct image *img, uint64_t *from, uint64_t to,
             const struct zeroing *z, struct qcow2_error *err)
{
    struct range r;
    int ret;

    if (flush_make_room(img, err) == -1)
        return -1;
    range_lock_exclusive(&img->ranges, &r,
                         round_down(*from, img->cluster_size),
                         round_up(to, img->cluster_size));
    ret = change_subclusters(img, from, to, z, err);
    range_unlock(&img->ranges, &r);
    return ret;
}

static int zero_data(struct image *img, uint64_t from, uint64_t to,
                     unsigned flags, struct qcow2_error *err);

/* Zeroes, or trims, whole subclusters [from, to). */
static int
zero_subclusters(struct image *img, uint64_t from, uint64_t to,
                 unsigned flags, const struct zeroing *z,
                 struct qcow2_error *err)
{
    while (from < to) {
        uint64_t end = from + min_u64(to - from,
                                      map_piece(&img->active, from));
        uint64_t reach;

        if (!has_backing(img)
            && map_table_absent(&img->active, from, &reach)) {
            from += min_u64(to - from, reach);
            continue;
        }
        if (change_piece(img, &from, end, z, err) == -1)
            return -1;
        if (from < end) {
            end = min_u64(end, round_up(from + 1, img->cluster_size));
            if (z->record && zero_data(img, from, end, flags, err) == -1)
                return -1;
            from = end;
        }
    }
    return 0;
}

/* How much of guest data, from their start on, the store can zero in their
 * place. */
static uint64_t
zeroable(const struct store *s, const struct mapping *m)
{
    return s->can_zero && is_aligned(m->host_off, s->align)
               ? round_down(m->nr_bytes, s->align) : 0;
}

/* Zeroes from guest_off on, inside one piece, what needs no new cluster:
 * *done may be 0. */
static int
zero_in_place(struct image *img, uint64_t guest_off, uint64_t nr_bytes,
              unsigned io_flags, uint64_t *done, struct qcow2_error *err)
{
    struct range r;
    int ret = 0;

    *done = 0;
    range_lock_shared(&img->ranges, &r, guest_off, guest_off + nr_bytes);
    while (*done < nr_bytes) {
        struct mapping m;
        unsigned depth;

        ret = source_chain_lookup(img->chain, 0, guest_off + *done,
                                  nr_bytes - *done, &m, &depth, err);
        if (ret == -1)
            break;
        if (m.kind == MAP_DATA && m.source == &img->active.src && m.copied) {
            m.nr_bytes = zeroable(img->data, &m);
            if (m.nr_bytes == 0)
                break;
            ret = data_check_write(img, m.host_off, m.nr_bytes, err);
            if (ret == 0)
                ret = store_zero(img->data, guest_off + *done, m.host_off,
                                 m.nr_bytes, io_flags, err);
            if (ret == -1)
                break;
        } else if (m.kind != MAP_ZERO || (depth > 0 && has_backing(img))) {
            break;
        }
        *done += m.nr_bytes;
    }
    range_unlock(&img->ranges, &r);
    return ret;
}

/* Does the subcluster at from show the backing file, which reads as zeroes all
 * over it? The caller holds its range. */
static int
shows_zeroes(struct image *img, uint64_t from, bool *shows,
             struct qcow2_error *err)
{
    uint64_t to = min_u64(from + img->subcluster_size, img->active.src.size);
    struct mapping m;

    *shows = false;
    if (map_lookup(&img->active, from, to - from, &m, err) == -1)
        return -1;
    if (m.kind != MAP_UNALLOCATED)
        return 0;
    return source_chain_is_zero(img->chain, 1, from, to, shows, err);
}

/* Makes the subcluster at from zero if all of it reads as zeroes already, so
 * that a part of it is zeroed without writing data. */
static int
mark_subcluster(struct image *img, uint64_t from, bool *marked,
                struct qcow2_error *err)
{
    uint64_t start = round_down(from, img->cluster_size);
    uint64_t to = from + img->subcluster_size;
    const struct zeroing z = { .change = MAP_TO_ZERO_KEEP, .record = true };
    struct range r;
    int ret;

    *marked = false;
    if (img->hdr.version < 3 || !has_backing(img))
        return 0;
    if (flush_make_room(img, err) == -1)
        return -1;
    range_lock_exclusive(&img->ranges, &r, start, start + img->cluster_size);
    ret = shows_zeroes(img, from, marked, err);
    if (ret == 0 && *marked)
        ret = change_subclusters(img, &from, to, &z, err);
    range_unlock(&img->ranges, &r);
    return ret;
}

/* Zeroes to write from guest_off on: as far as that is the start of a block
 * only, if the rest can be zeroed in place. */
static uint64_t
bytes_to_write(const struct store *s, uint64_t guest_off)
{
    return s->can_zero && !is_aligned(guest_off, s->align)
               ? round_up(guest_off, s->align) - guest_off
               : ZERO_BUFFER_BYTES;
}

/* Zeroes [from, to) without changing what clusters are, or by writing. */
static int
zero_data(struct image *img, uint64_t from, uint64_t to, unsigned flags,
          struct qcow2_error *err)
{
    unsigned io_flags = flags & QCOW2_MAY_TRIM && !img->no_discard
                        ? IO_ZERO_PUNCH : 0;

    while (from < to) {
        uint64_t piece = min_u64(to - from, map_piece(&img->active, from));
        uint64_t done;

        if (zero_in_place(img, from, piece, io_flags, &done, err) == -1)
            return -1;
        if (done == 0) {
            uint64_t start = round_down(from, img->subcluster_size);
            bool marked;

            /* To its end: beyond it things may be different. */
            done = min_u64(piece, start + img->subcluster_size - from);
            if (mark_subcluster(img, start, &marked, err) == -1)
                return -1;
            if (!marked) {
                done = min_u64(done, bytes_to_write(img->data, from));
                if (write_data(img, zero_buffer, done, from, err) == -1)
                    return -1;
            }
        }
        from += done;
    }
    return 0;
}

/* Can [from, to), inside one subcluster, be zeroed without writing data? */
static int
part_is_fast(struct image *img, uint64_t from, uint64_t to, bool *fast,
             struct qcow2_error *err)
{
    bool whole = to - from == img->subcluster_size;
    struct mapping m;

    if (map_lookup(&img->active, from, to - from, &m, err) == -1)
        return -1;
    *fast = m.kind == MAP_ZERO || (whole && m.kind != MAP_COMPRESSED)
            || (m.kind == MAP_UNALLOCATED && !has_backing(img));
    if (*fast)
        return 0;
    return shows_zeroes(img, round_down(from, img->subcluster_size), fast,
                        err);
}

/* The same of a part of a cluster, or of any range of such. */
static int
is_fast(struct image *img, uint64_t from, uint64_t to, bool *fast,
        struct qcow2_error *err)
{
    for (*fast = true; *fast && from < to;) {
        uint64_t start = round_down(from, img->subcluster_size);
        uint64_t end = start + img->subcluster_size;
        struct range r;
        int ret;

        range_lock_shared(&img->ranges, &r, start, end);
        ret = part_is_fast(img, from, min_u64(to, end), fast, err);
        range_unlock(&img->ranges, &r);
        if (ret == -1)
            return -1;
        from = end;
    }
    return 0;
}

/* A range, and the whole subclusters in it. The last cluster of the disk is
 * whole when the range reaches from its start to the end of the disk. */
struct parts {
    uint64_t from, to;
    uint64_t body_from, body_to; /* equal: no whole subcluster */
};

static struct parts
split(const struct image *img, uint64_t guest_off, uint64_t nr_bytes)
{
    struct parts p = { .from = guest_off, .to = guest_off + nr_bytes };

    p.body_from = round_up(p.from, img->subcluster_size);
    p.body_to = p.to == img->active.src.size
                ? round_up(p.to, img->cluster_size)
                : round_down(p.to, img->subcluster_size);
    if (p.body_from >= p.body_to)
        p.body_from = p.body_to = p.to;
    return p;
}

/* Nothing may be changed before we know that all of it is fast: as whole
 * clusters are, what lies before the first and behind the last one. */
static int
check_fast(struct image *img, const struct parts *p, bool by_metadata,
           struct qcow2_error *err)
{
    uint64_t head_end = min_u64(p->to, round_up(p->from, img->cluster_size));
    uint64_t tail = p->to == img->active.src.size
                    ? p->to : round_down(p->to, img->cluster_size);
    bool head_is = true, tail_is = true;

    if (by_metadata
        && (is_fast(img, p->from, head_end, &head_is, err) == -1
            || is_fast(img, max_u64(head_end, tail), p->to, &tail_is, err)
               == -1))
        return -1;
    if (!by_metadata || !head_is || !tail_is)
        return error_set(err, ENOTSUP, "%s: zeroing this range needs data to "
                         "be written", img->name);
    return 0;
}

int
zero_range(struct image *img, uint64_t nr_bytes, uint64_t guest_off,
           unsigned flags, struct qcow2_error *err)
{
    struct parts p = split(img, guest_off, nr_bytes);
    struct zeroing z = {
        .free_space = flags & QCOW2_MAY_TRIM && !img->no_discard,
        .record = true,
    };
    bool by_metadata = metadata_change(img, z.free_space, &z.change);

    if (flags & QCOW2_FAST && check_fast(img, &p, by_metadata, err) == -1)
        return -1;
    if (!by_metadata)
        return zero_data(img, p.from, p.to, flags, err);
    if (zero_data(img, p.from, p.body_from, flags, err) == -1
        || zero_subclusters(img, p.body_from, p.body_to, flags, &z, err)
           == -1)
        return -1;
    return p.body_to < p.to ? zero_data(img, p.body_to, p.to, flags, err)
                            : 0;
}

/* Trims where zeroes are data: what cannot be punched stays. */
static int
trim_data(struct image *img, uint64_t from, uint64_t to,
          struct qcow2_error *err)
{
    while (from < to) {
        uint64_t piece = min_u64(to - from, map_piece(&img->active, from));
        struct qcow2_error why;
        uint64_t done;

        if (zero_in_place(img, from, piece, IO_ZERO_PUNCH | IO_ZERO_FAST, &done,
                          &why) == -1) {
            if (why.errnum == ENOTSUP)
                return 0;
            if (err)
                *err = why;
            return -1;
        }
        from += done > 0 ? done : piece;
    }
    return 0;
}

int
zero_trim(struct image *img, uint64_t nr_bytes, uint64_t guest_off,
          struct qcow2_error *err)
{
    struct parts p = split(img, guest_off, nr_bytes);
    struct zeroing z = { .free_space = true };

    if (!img->no_discard && img->data->zeroes_are_data)
        return trim_data(img, p.body_from, min_u64(p.body_to, p.to), err);
    if (img->no_discard || !metadata_change(img, true, &z.change))
        return 0;
    return zero_subclusters(img, p.body_from, p.body_to, 0, &z, err);
}
