/* SPDX-License-Identifier: BSD-3-Clause */
/* io-window.c: a part of a file as a file; see io-window.h. */
#include "storage/io-window.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

struct window {
    struct io io;
    struct io *below;
    uint64_t offset, size; /* inside of below */
};

static struct window *
to_window(struct io *io)
{
    return (struct window *)io;
}

/* The first nr_bytes of iov to first[], which has room; what follows reads as
 * zeroes. */
static int
split(const struct iovec *iov, int nr_iov, uint64_t nr_bytes,
      struct iovec *first)
{
    int nr = 0;

    for (int i = 0; i < nr_iov; i++) {
        size_t n = min_u64(iov[i].iov_len, nr_bytes);

        if (n > 0)
            first[nr++] = (struct iovec){ iov[i].iov_base, n };
        memset((char *)iov[i].iov_base + n, 0, iov[i].iov_len - n);
        nr_bytes -= n;
    }
    return nr;
}

static int
window_preadv(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    struct window *w = to_window(io);
    uint64_t inside = host_off < w->size ? w->size - host_off : 0;
    struct iovec first[IO_MAX_IOV];
    int nr = split(iov, nr_iov, inside, first);

    return nr == 0 ? 0 : io_preadv(w->below, first, nr, w->offset + host_off,
                                   err);
}

static int
check_inside(const struct window *w, uint64_t host_off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    if (range_inside(host_off, nr_bytes, w->size))
        return 0;
    return error_set(err, ENOSPC, "%s: the image has %" PRIu64 " bytes of the "
                     "file, and cannot get longer", w->io.name, w->size);
}

static int
window_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
               uint64_t host_off, struct qcow2_error *err)
{
    struct window *w = to_window(io);
    uint64_t nr_bytes = 0;

    for (int i = 0; i < nr_iov; i++)
        nr_bytes += iov[i].iov_len;
    if (check_inside(w, host_off, nr_bytes, err) == -1)
        return -1;
    return io_pwritev(w->below, iov, nr_iov, w->offset + host_off, err);
}

static int
window_flush(struct io *io, struct qcow2_error *err)
{
    return io_flush(to_window(io)->below, err);
}

static int
window_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            unsigned flags, struct qcow2_error *err)
{
    struct window *w = to_window(io);

    if (check_inside(w, host_off, nr_bytes, err) == -1)
        return -1;
    return io_zero(w->below, w->offset + host_off, nr_bytes, flags, err);
}

/* Past the end there is nothing to give back. */
static int
window_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    struct window *w = to_window(io);

    if (host_off >= w->size)
        return 0;
    nr_bytes = min_u64(nr_bytes, w->size - host_off);
    return io_punch(w->below, w->offset + host_off, nr_bytes, err);
}

static int
window_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    (void)size;
    return error_set(err, ENOTSUP, "%s: the size of an image inside of a file "
                     "cannot be changed", io->name);
}

static int
window_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    (void)err;
    *size = to_window(io)->size;
    return 0;
}

static int
window_get_allocated(struct io *io, uint64_t *nr_bytes,
                     struct qcow2_error *err)
{
    return io_get_allocated(to_window(io)->below, nr_bytes, err);
}

static int
window_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
              struct qcow2_error *err)
{
    struct window *w = to_window(io);

    if (host_off >= w->size) {
        *is_hole = true;
        return 0;
    }
    *len = min_u64(*len, w->size - host_off);
    return io_extent(w->below, w->offset + host_off, len, is_hole, err);
}

static void
window_prefetch(struct io *io, uint64_t host_off, uint64_t nr_bytes)
{
    struct window *w = to_window(io);

    if (host_off < w->size)
        io_prefetch(w->below, w->offset + host_off,
                    min_u64(nr_bytes, w->size - host_off));
}

static void
window_drop_cache(struct io *io)
{
    io_drop_cache(to_window(io)->below);
}

static void
window_close(struct io *io)
{
    io_close(to_window(io)->below);
    free(io);
}

static const struct io_ops window_ops = {
    .close = window_close,
    .preadv = window_preadv,
    .pwritev = window_pwritev,
    .flush = window_flush,
    .zero = window_zero,
    .punch = window_punch,
    .truncate = window_truncate,
    .get_size = window_get_size,
    .get_allocated = window_get_allocated,
    .extent = window_extent,
    .prefetch = window_prefetch,
    .drop_cache = window_drop_cache,
};

static int
check_window(struct io *below, const struct qcow2_window *window,
             uint64_t *size, struct qcow2_error *err)
{
    uint64_t has;

    if (io_get_size(below, &has, err) == -1)
        return -1;
    if (!range_inside(window->offset, window->size, has))
        return error_set(err, EINVAL, "%s: it has %" PRIu64 " bytes, and so "
                         "none of %" PRIu64 " at offset %" PRIu64,
                         below->name, has, window->size, window->offset);
    *size = window->size ? window->size : has - window->offset;
    return 0;
}

struct io *
io_window_new(struct io *below, const struct qcow2_window *window,
              struct qcow2_error *err)
{
    struct window *w;
    uint64_t size = 0;

    if (window->offset == 0 && window->size == 0)
        return below;
    if (check_window(below, window, &size, err) == -1) {
        io_close(below);
        return NULL;
    }
    w = calloc(1, sizeof *w);
    if (!w) {
        io_close(below);
        error_nomem(err);
        return NULL;
    }
    below->keeps_size = true;
    w->io = *below; /* what it is; its name stays below's */
    w->io.ops = &window_ops;
    w->io.below = below;
    w->io.window = (struct qcow2_window){ window->offset, size };
    w->io.can_grow = w->io.reads_zero_past_end = false;
    w->io.end_is_guessed = window->size == 0;
    w->below = below;
    w->offset = window->offset;
    w->size = size;
    return &w->io;
}

int
io_window_check_end(const struct io *io, struct qcow2_error *err)
{
    if (!io->end_is_guessed)
        return 0;
    error_set(err, EROFS, "%s: to write an image inside of a file its size "
              "must be given, too: what lies behind it may belong to others",
              io->name);
    return error_hint(err, QCOW2_HINT_READONLY);
}
