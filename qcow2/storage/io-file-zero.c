/* SPDX-License-Identifier: BSD-3-Clause */
/* io-file-zero.c: zeroes and holes in files and on block devices. The modes of
 * fallocate that matter are not in POSIX.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "storage/io-file.h"

enum way { WAY_ZERO_RANGE, WAY_PUNCH, WAY_ALLOCATE };

/* 1: done. 0: the file cannot do it this way, and nothing changed. */
static int
try_fallocate(struct file *f, enum way way, uint64_t host_off,
              uint64_t nr_bytes, struct qcow2_error *err)
{
#if defined(FALLOC_FL_PUNCH_HOLE) && defined(FALLOC_FL_ZERO_RANGE)
    static const struct {
        int mode;
        const char *verb;
    } ways[] = {
        [WAY_ZERO_RANGE] = {
            FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero"
        },
        [WAY_PUNCH] = {
            FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch a hole of"
        },
        [WAY_ALLOCATE] = { 0, "allocate" },
    };
    atomic_bool *never = way == WAY_PUNCH      ? &f->no_punch
                         : way == WAY_ALLOCATE ? &f->no_allocate
                                               : &f->no_zero_range;
    int r;

    if (atomic_load_explicit(never, memory_order_relaxed))
        return 0;
    do
        r = fallocate(f->fd, ways[way].mode, host_off, nr_bytes);
    while (r < 0 && errno == EINTR);
    if (way != WAY_ALLOCATE)
        file_forget_data(f); /* zeroes count as a hole, too */
    if (r == 0)
        return 1;
    switch (errno) {
    case EOPNOTSUPP:
    case ENOSYS:
        atomic_store_explicit(never, true, memory_order_relaxed);
        return 0;
    case EINVAL: /* alignment that this range lacks (block devices) */
        return 0;
    }
    return file_request_error(f, ways[way].verb, nr_bytes, host_off, err);
#else
    (void)f, (void)way, (void)host_off, (void)nr_bytes, (void)err;
    return 0;
#endif
}

enum { SMALL_ZERO_BYTES = 65536 };
_Static_assert(SMALL_ZERO_BYTES % MAX_MEMORY_ALIGN == 0, "whole pages");

static int
write_zeroes(struct file *f, uint64_t host_off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    /* A page's alignment is enough for direct I/O. */
    static const unsigned char zeroes[SMALL_ZERO_BYTES]
        __attribute__((aligned(MAX_MEMORY_ALIGN)));
    struct iovec iov[IO_MAX_IOV];

    while (nr_bytes > 0) {
        uint64_t done = 0;
        int n;

        for (n = 0; n < IO_MAX_IOV && done < nr_bytes; n++) {
            iov[n].iov_base = (void *)zeroes;
            iov[n].iov_len = min_u64(sizeof zeroes, nr_bytes - done);
            done += iov[n].iov_len;
        }
        if (file_pwritev(&f->io, iov, n, host_off, err) < 0)
            return -1;
        host_off += done;
        nr_bytes -= done;
    }
    return 0;
}

/* Zeroes a range inside the file. */
static int
zero_inside(struct file *f, uint64_t host_off, uint64_t nr_bytes,
            unsigned flags, struct qcow2_error *err)
{
    int r = 0;

    if (flags & IO_ZERO_PUNCH)
        r = try_fallocate(f, WAY_PUNCH, host_off, nr_bytes, err);
    /* For a block device the kernel may write the zeroes: not fast. */
    if (r == 0 && !(f->is_block && flags & IO_ZERO_FAST))
        r = try_fallocate(f, WAY_ZERO_RANGE, host_off, nr_bytes, err);
    if (r != 0)
        return r < 0 ? -1 : 0;
    if (flags & IO_ZERO_FAST)
        return error_set(err, ENOTSUP, "%s: cannot zero without writing",
                         f->io.name);
    return write_zeroes(f, host_off, nr_bytes, err);
}

/* Allocates a range past the end, and grows the file to its end. A small one
 * is written: delayed allocation then places it with the data around it.
 */
static int
allocate_past_end(struct file *f, uint64_t host_off, uint64_t nr_bytes,
                  struct qcow2_error *err)
{
    int r = 0;

    if (nr_bytes > SMALL_ZERO_BYTES)
        r = try_fallocate(f, WAY_ALLOCATE, host_off, nr_bytes, err);
    if (r != 0)
        return r < 0 ? -1 : 0;
    return write_zeroes(f, host_off, nr_bytes, err);
}

/* What is past the end reads as zeroes once the file reaches that far. Where
 * no space is wanted, a write of the last byte, or block, makes it: ftruncate
 * would cut off what another thread writes behind the range meanwhile. The
 * block in which the file ends counts as inside, as it is written whole.
 */
int
file_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
          unsigned flags, struct qcow2_error *err)
{
    struct file *f = to_file(io);
    uint64_t end = host_off + nr_bytes, size, inside;

    if (file_get_size(io, &size, err) < 0)
        return -1;
    inside = round_up(size, f->block);
    if (host_off < inside
        && zero_inside(f, host_off, min_u64(end, inside) - host_off, flags,
                       err) < 0)
        return -1;
    if (end <= size)
        return 0;
    if (flags == 0 && end > inside) {
        host_off = max_u64(host_off, inside);
        return allocate_past_end(f, host_off, end - host_off, err);
    }
    return write_zeroes(f, end - f->block, f->block, err);
}

int
file_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
           struct qcow2_error *err)
{
    struct file *f = to_file(io);
    int r = try_fallocate(f, WAY_PUNCH, host_off, nr_bytes, err);

    if (r == 0)
        return error_set(err, ENOTSUP, "%s: cannot give back space",
                         io->name);
    return r < 0 ? -1 : 0;
}
