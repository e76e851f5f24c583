/* SPDX-License-Identifier: BSD-3-Clause */
/* io-align.c: makes whole blocks of requests; see io-align.h. */
#include "storage/io-align.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/range.h"

enum {
    STEP_BYTES = 1 << 20,    /* copied at once; a multiple of any block */
    /* Blocks around what is merged are read at once if they are no more: a
     * second request to a server takes longer. */
    MERGE_BYTES = 65536,
    BLOCKS_WINDOW_BITS = 63, /* requests may lock any range at once */
};

struct align {
    struct io io;
    struct io *below;
    uint32_t block;
    uint32_t memory; /* what addresses of buffers must be multiples of */
    struct range_lock blocks;
};

static struct align *
to_align(struct io *io)
{
    return (struct align *)io;
}

/* A place in a list of buffers. */
struct cursor {
    const struct iovec *iov;
    size_t pos;
};

static void
copy_next(struct cursor *c, unsigned char *space, size_t nr_bytes,
          bool to_space)
{
    while (nr_bytes > 0) {
        size_t n = min_u64(nr_bytes, c->iov->iov_len - c->pos);
        unsigned char *buf = (unsigned char *)c->iov->iov_base + c->pos;

        if (n == 0) {
            c->iov++;
            c->pos = 0;
            continue;
        }
        if (to_space)
            memcpy(space, buf, n);
        else
            memcpy(buf, space, n);
        space += n;
        c->pos += n;
        nr_bytes -= n;
    }
}

/* Part of a request, at most STEP_BYTES with the blocks it lies in. */
struct step {
    uint64_t start, from, to, end; /* the part, in whole blocks */
};

static bool
is_whole(const struct step *s)
{
    return s->start == s->from && s->end == s->to;
}

/* The step of a request [off, end) that begins at off. */
static struct step
next_step(const struct align *a, uint64_t off, uint64_t end)
{
    struct step s = { .start = round_down(off, a->block), .from = off };

    s.to = min_u64(end, round_down(off, STEP_BYTES) + STEP_BYTES);
    s.end = round_up(s.to, a->block);
    return s;
}

/* For the longest step of a request; to be freed. */
static unsigned char *
step_space(const struct align *a, uint64_t off, uint64_t nr_bytes,
           struct qcow2_error *err)
{
    uint64_t size = round_up(off + nr_bytes, a->block)
                    - round_down(off, a->block);
    void *space;

    if (posix_memalign(&space, max_u64(max_u64(a->block, a->memory),
                                       sizeof(void *)),
                       min_u64(size, STEP_BYTES)) != 0) {
        error_nomem(err);
        return NULL;
    }
    return space;
}

/* Is every buffer whole blocks, in the right place? *nr_bytes is the length
 * of all. */
static bool
needs_no_copy(const struct align *a, const struct iovec *iov, int nr_iov,
              uint64_t off, uint64_t *nr_bytes)
{
    uint64_t bits = off, places = 0;

    *nr_bytes = 0;
    for (int i = 0; i < nr_iov; i++) {
        bits |= iov[i].iov_len;
        places |= (uintptr_t)iov[i].iov_base;
        *nr_bytes += iov[i].iov_len;
    }
    return is_aligned(bits, a->block) && is_aligned(places, a->memory);
}

static int
align_preadv(struct io *io, const struct iovec *iov, int nr_iov,
             uint64_t host_off, struct qcow2_error *err)
{
    struct align *a = to_align(io);
    CLEANUP_FREE unsigned char *space = NULL;
    struct cursor c = { .iov = iov };
    uint64_t nr_bytes, off = host_off;

    if (needs_no_copy(a, iov, nr_iov, host_off, &nr_bytes))
        return io_preadv(a->below, iov, nr_iov, host_off, err);
    space = step_space(a, host_off, nr_bytes, err);
    if (!space)
        return -1;
    while (off < host_off + nr_bytes) {
        struct step s = next_step(a, off, host_off + nr_bytes);

        if (io_pread(a->below, space, s.end - s.start, s.start, err) == -1)
            return -1;
        copy_next(&c, space + (s.from - s.start), s.to - s.from, false);
        off = s.to;
    }
    return 0;
}

/* Reads the blocks of which the step has only a part. */
static int
read_edges(struct align *a, const struct step *s, unsigned char *space,
           struct qcow2_error *err)
{
    uint64_t nr_bytes = s->end - s->start;

    if (nr_bytes <= MERGE_BYTES)
        return io_pread(a->below, space, nr_bytes, s->start, err);
    if (s->start < s->from
        && io_pread(a->below, space, a->block, s->start, err) == -1)
        return -1;
    if (s->to == s->end)
        return 0;
    return io_pread(a->below, space + (nr_bytes - a->block), a->block,
                    s->end - a->block, err);
}

/* A file that keeps its size ends in its last block: what the block has more
 * is cut off again. Whoever else writes there waits for the block. */
static int
write_blocks(struct align *a, const struct step *s, const void *space,
             struct qcow2_error *err)
{
    uint64_t size = UINT64_MAX;

    if (a->io.keeps_size && !is_whole(s)
        && io_get_size(a->below, &size, err) == -1)
        return -1;
    if (io_pwrite(a->below, space, s->end - s->start, s->start, err) == -1)
        return -1;
    return s->end > size ? io_truncate(a->below, size, err) : 0;
}

static int
merge_held(struct align *a, const struct step *s, struct cursor *c,
           unsigned char *space, struct qcow2_error *err)
{
    if (!is_whole(s) && read_edges(a, s, space, err) == -1)
        return -1;
    copy_next(c, space + (s->from - s->start), s->to - s->from, true);
    return write_blocks(a, s, space, err);
}

static int
write_step(struct align *a, const struct step *s, struct cursor *c,
           unsigned char *space, struct qcow2_error *err)
{
    struct range held;
    int r;

    if (is_whole(s))
        range_lock_shared(&a->blocks, &held, s->start, s->end);
    else
        range_lock_exclusive(&a->blocks, &held, s->start, s->end);
    r = merge_held(a, s, c, space, err);
    range_unlock(&a->blocks, &held);
    return r;
}

/* Bytes of which some are parts of blocks. */
static int
write_parts(struct align *a, const struct iovec *iov, uint64_t nr_bytes,
            uint64_t host_off, struct qcow2_error *err)
{
    CLEANUP_FREE unsigned char *space = NULL;
    struct cursor c = { .iov = iov };
    uint64_t off = host_off;

    space = step_space(a, host_off, nr_bytes, err);
    if (!space)
        return -1;
    while (off < host_off + nr_bytes) {
        struct step s = next_step(a, off, host_off + nr_bytes);

        if (write_step(a, &s, &c, space, err) == -1)
            return -1;
        off = s.to;
    }
    return 0;
}

static int
align_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    struct align *a = to_align(io);
    struct range held;
    uint64_t nr_bytes;
    int r;

    if (!needs_no_copy(a, iov, nr_iov, host_off, &nr_bytes))
        return write_parts(a, iov, nr_bytes, host_off, err);
    range_lock_shared(&a->blocks, &held, host_off, host_off + nr_bytes);
    r = io_pwritev(a->below, iov, nr_iov, host_off, err);
    range_unlock(&a->blocks, &held);
    return r;
}

static int
align_flush(struct io *io, struct qcow2_error *err)
{
    return io_flush(to_align(io)->below, err);
}

/* Less than two blocks. */
static int
write_zeroes(struct align *a, uint64_t off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    static const unsigned char zeroes[2 * IO_ALIGN_MAX_BYTES];
    struct iovec iov = { (void *)zeroes, nr_bytes };

    return nr_bytes == 0 ? 0 : write_parts(a, &iov, nr_bytes, off, err);
}

static int
align_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
           unsigned flags, struct qcow2_error *err)
{
    struct align *a = to_align(io);
    uint64_t end = host_off + nr_bytes;
    uint64_t from = round_up(host_off, a->block);
    uint64_t to = round_down(end, a->block);
    struct range held;
    int r;

    if (flags & IO_ZERO_FAST && !is_aligned(host_off | nr_bytes, a->block))
        return error_set(err, ENOTSUP, "%s: zeroing parts of blocks needs "
                         "data to be written", io->name);
    if (from >= to)
        return write_zeroes(a, host_off, nr_bytes, err);
    range_lock_shared(&a->blocks, &held, from, to);
    r = io_zero(a->below, from, to - from, flags, err);
    range_unlock(&a->blocks, &held);
    if (r == -1 || write_zeroes(a, host_off, from - host_off, err) == -1)
        return -1;
    return write_zeroes(a, to, end - to, err);
}

static int
align_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            struct qcow2_error *err)
{
    struct align *a = to_align(io);
    struct range held;
    int r;

    if (!is_aligned(host_off | nr_bytes, a->block))
        return error_set(err, ENOTSUP, "%s: cannot trim parts of blocks",
                         io->name);
    range_lock_shared(&a->blocks, &held, host_off, host_off + nr_bytes);
    r = io_punch(a->below, host_off, nr_bytes, err);
    range_unlock(&a->blocks, &held);
    return r;
}

/* A merge in the block where the file is cut would write again what it read
 * past the cut, where others rely on zeroes from now on. */
static int
align_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct align *a = to_align(io);
    uint64_t start = round_down(size, a->block);
    struct range held;
    int r;

    range_lock_exclusive(&a->blocks, &held, start, start + a->block);
    r = io_truncate(a->below, size, err);
    range_unlock(&a->blocks, &held);
    return r;
}

static int
align_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(to_align(io)->below, size, err);
}

static int
align_get_allocated(struct io *io, uint64_t *nr_bytes,
                    struct qcow2_error *err)
{
    return io_get_allocated(to_align(io)->below, nr_bytes, err);
}

/* An answer too short to reach host_off is none: that is data then. */
static int
align_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
             struct qcow2_error *err)
{
    struct align *a = to_align(io);
    uint64_t start = round_down(host_off, a->block);
    uint64_t n = min_u64(round_up(host_off + *len, a->block), INT64_MAX)
                 - start;

    if (io_extent(a->below, start, &n, is_hole, err) == -1)
        return -1;
    if (n <= host_off - start) {
        *is_hole = false;
        n = a->block;
    }
    *len = min_u64(*len, start + n - host_off);
    return 0;
}

static void
align_prefetch(struct io *io, uint64_t host_off, uint64_t nr_bytes)
{
    io_prefetch(to_align(io)->below, host_off, nr_bytes);
}

static void
align_drop_cache(struct io *io)
{
    io_drop_cache(to_align(io)->below);
}

static void
align_close(struct io *io)
{
    struct align *a = to_align(io);

    io_close(a->below);
    range_lock_destroy(&a->blocks);
    free(a);
}

static const struct io_ops align_ops = {
    .close = align_close,
    .preadv = align_preadv,
    .pwritev = align_pwritev,
    .flush = align_flush,
    .zero = align_zero,
    .punch = align_punch,
    .truncate = align_truncate,
    .get_size = align_get_size,
    .get_allocated = align_get_allocated,
    .extent = align_extent,
    .prefetch = align_prefetch,
    .drop_cache = align_drop_cache,
};

static struct io *
align_new(struct io *below, const struct io_blocks *blocks,
          struct qcow2_error *err)
{
    struct align *a;

    assert(is_power_of_2(blocks->file) && is_power_of_2(blocks->memory)
           && blocks->file <= IO_ALIGN_MAX_BYTES
           && blocks->memory <= IO_ALIGN_MAX_BYTES);
    a = calloc(1, sizeof *a);
    if (!a) {
        io_close(below);
        error_nomem(err);
        return NULL;
    }
    a->io = *below; /* what it is and can do; its name stays below's */
    a->io.ops = &align_ops;
    a->io.below = below;
    a->below = below;
    a->block = blocks->file;
    a->memory = blocks->memory;
    if (range_lock_init(&a->blocks, BLOCKS_WINDOW_BITS, err) == -1) {
        align_close(&a->io);
        return NULL;
    }
    return &a->io;
}

struct io *
io_align_new(struct io *below, uint32_t align, struct qcow2_error *err)
{
    const struct io_blocks blocks = { .file = align, .memory = 1 };

    return align == 1 ? below : align_new(below, &blocks, err);
}

struct io *
io_align_direct(struct io *below, struct qcow2_error *err)
{
    struct io_blocks blocks;

    if (!below->ops->set_direct)
        return below;
    if (below->ops->set_direct(below, &blocks, err) == -1) {
        io_close(below);
        return NULL;
    }
    return align_new(below, &blocks, err);
}
