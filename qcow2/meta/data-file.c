/* SPDX-License-Identifier: BSD-3-Clause */
/* data-file.c: keeps guest data in a file beside the image; see data-file.h. */
#include "meta/data-file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/format.h"
#include "meta/data.h"

struct data_file {
    struct store store; /* first */
    shared_u64 end;     /* atomic: of the disk; nothing is written past it.
                         * Changes while the image is held exclusively */
};

static struct data_file *
data_file_of(struct store *s)
{
    return (struct data_file *)s;
}

static int
load_bytes(struct store *s, const struct iovec *iov, int nr_iov,
           uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    (void)guest_off;
    return io_preadv(s->io, iov, nr_iov, host_off, err);
}

/* How many of nr_bytes from host_off on lie inside the disk. */
static uint64_t
inside(struct store *s, uint64_t host_off, uint64_t nr_bytes)
{
    uint64_t end = __atomic_load_n(&data_file_of(s)->end, __ATOMIC_RELAXED);

    return host_off < end ? min_u64(nr_bytes, end - host_off) : 0;
}

/* Of the last cluster, what lies past the end of the disk is left out. */
static int
store_bytes(struct store *s, const struct iovec *iov, int nr_iov,
            uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    struct iovec cut[IO_MAX_IOV];
    uint64_t left = 0;
    int n = 0;

    (void)guest_off;
    for (int i = 0; i < nr_iov; i++)
        left += iov[i].iov_len;
    left = inside(s, host_off, left);
    for (; n < nr_iov && left > 0; n++) {
        cut[n] = iov[n];
        cut[n].iov_len = min_u64(left, iov[n].iov_len);
        left -= cut[n].iov_len;
    }
    return n > 0 ? io_pwritev(s->io, cut, n, host_off, err) : 0;
}

static int
zero_bytes(struct store *s, uint64_t guest_off, uint64_t host_off,
           uint64_t nr_bytes, unsigned flags, struct qcow2_error *err)
{
    (void)guest_off;
    nr_bytes = inside(s, host_off, nr_bytes);
    return nr_bytes > 0 ? io_zero(s->io, host_off, nr_bytes, flags, err) : 0;
}

static int
place_clusters(struct store *s, uint64_t guest_off, uint64_t want,
               struct alloc_run *run, struct qcow2_error *err)
{
    /* No run lies on both sides: tables begin there. */
    if (guest_off >= MAX_HOST_OFFSET)
        return error_set(err, EFBIG, "%s: no table can point past %" PRIu64
                         " bytes of a data file", s->io->name,
                         MAX_HOST_OFFSET);
    *run = (struct alloc_run){ .host_off = guest_off, .nr_clusters = want };
    return 0;
}

/* What is there stays: whoever gives up content, as a guest does, zeroes it. */
static void
release_clusters(struct store *s, uint64_t guest_off, uint64_t host_off,
                 uint64_t nr_clusters)
{
    (void)s, (void)guest_off, (void)host_off, (void)nr_clusters;
}

static int
check_offset(struct store *s, uint64_t guest_off, uint64_t host_off,
             uint64_t nr_bytes, struct qcow2_error *err)
{
    (void)s, (void)nr_bytes;
    if (guest_off == host_off)
        return 0;
    return error_set(err, EIO, "a table points to 0x%" PRIx64 " of the data "
                     "file, where data of another guest offset belong",
                     host_off);
}

static void
close_file(struct store *s)
{
    io_close(s->io);
    free(s);
}

static const struct store_ops data_file_ops = {
    .read = load_bytes,
    .write = store_bytes,
    .zero = zero_bytes,
    .place = place_clusters,
    .release = release_clusters,
    .check = check_offset,
    .close = close_file,
};

int
data_file_use(struct image *img, struct io *io, struct qcow2_error *err)
{
    struct data_file *d = calloc(1, sizeof *d);

    if (!d) {
        io_close(io);
        return error_nomem(err);
    }
    d->store = (struct store){
        .ops = &data_file_ops, .io = io, .align = 1, .can_zero = true,
        .place_0 = true, .zeroes_are_data = header_has_raw_data(&img->hdr),
    };
    d->end = img->hdr.size;
    io->keeps_size = true; /* it is as long as the disk */
    data_use_store(img, &d->store);
    return 0;
}

bool
data_file_is_used(const struct image *img)
{
    return img->data->ops == &data_file_ops;
}

/* What a file holds past the end of the disk must not show after growing. */
static int
zero_past_end(struct image *img, uint64_t from, uint64_t to,
              struct qcow2_error *err)
{
    struct io *io = img->data->io;

    return from < to ? io_zero(io, from, to - from, IO_ZERO_PUNCH, err) : 0;
}

int
data_file_grow(struct image *img, uint64_t size, struct qcow2_error *err)
{
    struct io *io = img->data->io;
    uint64_t old = img->hdr.size, length;
    int r = io_get_size(io, &length, err);

    if (r == 0 && length < size && !io->can_grow)
        return error_set(err, ENOSPC, "%s: the data file has %" PRIu64 " bytes "
                         "and cannot grow", io->name, length);
    if (r == 0)
        r = zero_past_end(img, old, min_u64(length, size), err);
    if (r == 0 && length < size)
        r = io_truncate(io, size, err);
    if (r == 0)
        __atomic_store_n(&data_file_of(img->data)->end, size,
                         __ATOMIC_RELAXED);
    return r;
}

void
data_file_cut(struct image *img, uint64_t size)
{
    struct io *io = img->data->io;
    uint64_t length;

    __atomic_store_n(&data_file_of(img->data)->end, size, __ATOMIC_RELAXED);
    if (io->can_grow && io_get_size(io, &length, NULL) == 0 && length > size)
        io_truncate(io, size, NULL);
}
