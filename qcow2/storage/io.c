/* SPDX-License-Identifier: BSD-3-Clause */
/* io.c: what every backend has in common; see io.h. */
#include "storage/io.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "storage/failures.h"

static int
refuse_readonly(const struct io *io, struct qcow2_error *err)
{
    return error_set(err, EROFS, "%s: is open read-only", io->name);
}

/* Backends have offsets as off_t: others have no place in any file. */
_Static_assert(sizeof(off_t) == 8, "files have 64-bit offsets");

static int
check_range(const struct io *io, uint64_t host_off, uint64_t nr_bytes,
            struct qcow2_error *err)
{
    if (range_inside(host_off, nr_bytes, INT64_MAX))
        return 0;
    return error_set(err, EFBIG,
                     "%s: host offset %" PRIu64 " with length %" PRIu64
                     " is beyond what a file can hold",
                     io->name, host_off, nr_bytes);
}

static uint64_t
iov_bytes(const struct iovec *iov, int nr_iov)
{
    uint64_t sum = 0;

    assert(nr_iov >= 0 && nr_iov <= IO_MAX_IOV);
    for (int i = 0; i < nr_iov; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* A request that changed the file, or failed to, returned. */
static int
changed(struct io *io, int r)
{
    __atomic_add_fetch(&io->nr_changes, 1, __ATOMIC_ACQ_REL);
    return r;
}

int
io_preadv(struct io *io, const struct iovec *iov, int nr_iov,
          uint64_t host_off, struct qcow2_error *err)
{
    uint64_t nr_bytes = iov_bytes(iov, nr_iov);

    if (nr_bytes == 0)
        return 0;
    if (check_range(io, host_off, nr_bytes, err) < 0)
        return -1;
    return io->ops->preadv(io, iov, nr_iov, host_off, err);
}

int
io_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
           uint64_t host_off, struct qcow2_error *err)
{
    uint64_t nr_bytes = iov_bytes(iov, nr_iov);

    if (io->readonly)
        return refuse_readonly(io, err);
    if (nr_bytes == 0)
        return 0;
    if (check_range(io, host_off, nr_bytes, err) < 0)
        return -1;
    return changed(io, io->ops->pwritev(io, iov, nr_iov, host_off, err));
}

int
io_pread(struct io *io, void *buf, size_t nr_bytes, uint64_t host_off,
         struct qcow2_error *err)
{
    struct iovec iov = { .iov_base = buf, .iov_len = nr_bytes };

    return io_preadv(io, &iov, 1, host_off, err);
}

int
io_pwrite(struct io *io, const void *buf, size_t nr_bytes,
          uint64_t host_off, struct qcow2_error *err)
{
    struct iovec iov = { .iov_base = (void *)buf, .iov_len = nr_bytes };

    return io_pwritev(io, &iov, 1, host_off, err);
}

int
io_flush(struct io *io, struct qcow2_error *err)
{
    /* What returned before this call has been counted. */
    uint64_t nr = __atomic_load_n(&io->nr_changes, __ATOMIC_ACQUIRE) + 1;
    uint64_t durable = __atomic_load_n(&io->nr_durable, __ATOMIC_ACQUIRE);

    if (io_flush_has_failed(io))
        return error_set(err, EIO, "%s: " IO_FLUSH_FAILED, io->name);
    if (io->readonly || io->no_barriers || durable >= nr)
        return 0;
    if (io->ops->flush(io, err) == -1) {
        __atomic_store_n(&io->flush_failed, true, __ATOMIC_RELEASE);
        failures_record(io);
        return -1;
    }
    while (durable < nr
           && !__atomic_compare_exchange_n(&io->nr_durable, &durable, nr,
                                           false, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE))
        ;
    return 0;
}

int
io_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes, unsigned flags,
        struct qcow2_error *err)
{
    if (io->readonly)
        return refuse_readonly(io, err);
    if (nr_bytes == 0)
        return 0;
    if (check_range(io, host_off, nr_bytes, err) < 0)
        return -1;
    return changed(io, io->ops->zero(io, host_off, nr_bytes, flags, err));
}

int
io_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
         struct qcow2_error *err)
{
    if (io->readonly)
        return refuse_readonly(io, err);
    if (nr_bytes == 0)
        return 0;
    if (check_range(io, host_off, nr_bytes, err) < 0)
        return -1;
    return changed(io, io->ops->punch(io, host_off, nr_bytes, err));
}

int
io_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    if (io->readonly)
        return refuse_readonly(io, err);
    if (check_range(io, 0, size, err) < 0)
        return -1;
    return changed(io, io->ops->truncate(io, size, err));
}

int
io_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io->ops->get_size(io, size, err);
}

int
io_get_allocated(struct io *io, uint64_t *nr_bytes, struct qcow2_error *err)
{
    return io->ops->get_allocated(io, nr_bytes, err);
}

int
io_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
          struct qcow2_error *err)
{
    if (!io->ops->extent) {
        *is_hole = false;
        return 0;
    }
    if (check_range(io, host_off, *len, err) < 0)
        return -1;
    return io->ops->extent(io, host_off, len, is_hole, err);
}

void
io_prefetch(struct io *io, uint64_t host_off, uint64_t nr_bytes)
{
    if (io->ops->prefetch && nr_bytes
        && range_inside(host_off, nr_bytes, INT64_MAX))
        io->ops->prefetch(io, host_off, nr_bytes);
}

void
io_drop_cache(struct io *io)
{
    if (io->ops->drop_cache)
        io->ops->drop_cache(io);
}

void
io_advise_layout(struct io *io, bool nocow, uint32_t extent_bytes)
{
    if (io->ops->advise_layout && (nocow || extent_bytes > 0))
        io->ops->advise_layout(io, nocow, extent_bytes);
}

bool
io_flush_has_failed(const struct io *io)
{
    return __atomic_load_n(&io->flush_failed, __ATOMIC_ACQUIRE);
}

bool
io_is_lost(const struct io *io)
{
    bool lost = false;

    for (; io && !lost; io = io->below)
        lost = __atomic_load_n(&io->lost, __ATOMIC_RELAXED);
    return lost;
}

/* Whoever opens the file next shall find what is on the disk, also another
 * program, so the cache is dropped while the file is still locked. */
void
io_close(struct io *io)
{
    if (!io)
        return;
    if (io_flush_has_failed(io))
        io_drop_cache(io);
    failures_closing(io);
    io->ops->close(io);
}
