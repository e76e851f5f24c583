/* SPDX-License-Identifier: BSD-3-Clause */
/* io-fault.c: see io-fault.h. */
#include "io-fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"

struct fault_io {
    struct io io;
    struct io *below;
    struct fault_plan *plan;
    bool flush_failed; /* plan->lock */
};

static struct fault_io *
to_fault(struct io *io)
{
    return (struct fault_io *)io;
}

void
fault_arm(struct fault_plan *plan, unsigned kinds, uint64_t nth, int errnum,
          unsigned flags)
{
    LOCK_SCOPE(&plan->lock);

    plan->kinds = kinds;
    plan->nth = nth;
    plan->errnum = errnum;
    plan->flags = flags;
    plan->nr_since_armed = plan->nr_fired = 0;
}

uint64_t
fault_fired(struct fault_plan *plan)
{
    LOCK_SCOPE(&plan->lock);

    return plan->nr_fired;
}

uint64_t
fault_count(struct fault_plan *plan, unsigned kinds)
{
    uint64_t sum = 0;
    LOCK_SCOPE(&plan->lock);

    for (unsigned i = 0; i < FAULT_NR_KINDS; i++)
        if (kinds & 1 << i)
            sum += plan->counts[i];
    return sum;
}

void
fault_reset_counts(struct fault_plan *plan)
{
    LOCK_SCOPE(&plan->lock);

    memset(plan->counts, 0, sizeof plan->counts);
}

uint64_t
fault_retried(struct fault_plan *plan)
{
    LOCK_SCOPE(&plan->lock);

    return plan->nr_retried;
}

/* Counts an operation, and makes it fail if it is its turn. */
static int
begin(struct fault_io *fi, unsigned kind, struct qcow2_error *err)
{
    struct fault_plan *plan = fi->plan;
    LOCK_SCOPE(&plan->lock);

    plan->counts[__builtin_ctz(kind)]++;
    if (kind == FAULT_FLUSH)
        plan->nr_retried += fi->flush_failed;
    if (plan->nth == 0 || !(plan->kinds & kind))
        return 0;
    plan->nr_since_armed++;
    if (plan->nr_since_armed < plan->nth
        || (plan->nr_since_armed > plan->nth
            && !(plan->flags & FAULT_FOR_GOOD)))
        return 0;
    if (plan->flags & FAULT_KILL)
        raise(SIGKILL);
    plan->nr_fired++;
    fi->flush_failed |= kind == FAULT_FLUSH;
    return error_set_errno(err, plan->errnum, "%s: injected fault",
                           fi->io.name);
}

static bool
has_flag(struct fault_plan *plan, unsigned flag)
{
    LOCK_SCOPE(&plan->lock);

    return plan->flags & flag;
}

static int
fault_preadv(struct io *io, const struct iovec *iov, int nr_iov,
             uint64_t host_off, struct qcow2_error *err)
{
    struct fault_io *fi = to_fault(io);

    if (begin(fi, FAULT_READ, err) < 0)
        return -1;
    return io_preadv(fi->below, iov, nr_iov, host_off, err);
}

static void
write_first_half(struct fault_io *fi, const struct iovec *iov, int nr_iov,
                 uint64_t host_off)
{
    struct iovec part[IO_MAX_IOV];
    uint64_t nr_bytes = 0, left;
    int n;

    for (int i = 0; i < nr_iov; i++)
        nr_bytes += iov[i].iov_len;
    left = max_u64(round_down(host_off + nr_bytes / 2, 512), host_off)
           - host_off;
    for (n = 0; left > 0; n++) {
        part[n].iov_base = iov[n].iov_base;
        part[n].iov_len = min_u64(iov[n].iov_len, left);
        left -= part[n].iov_len;
    }
    /* It fails in any case. */
    io_pwritev(fi->below, part, n, host_off, NULL);
}

static int
fault_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    struct fault_io *fi = to_fault(io);

    if (begin(fi, FAULT_WRITE, err) < 0) {
        if (has_flag(fi->plan, FAULT_TORN))
            write_first_half(fi, iov, nr_iov, host_off);
        if (has_flag(fi->plan, FAULT_WRITTEN))
            io_pwritev(fi->below, iov, nr_iov, host_off, NULL);
        return -1;
    }
    return io_pwritev(fi->below, iov, nr_iov, host_off, err);
}

static int
fault_flush(struct io *io, struct qcow2_error *err)
{
    struct fault_io *fi = to_fault(io);

    if (begin(fi, FAULT_FLUSH, err) < 0)
        return -1;
    return io_flush(fi->below, err);
}

static int
fault_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
           unsigned flags, struct qcow2_error *err)
{
    struct fault_io *fi = to_fault(io);

    if (begin(fi, FAULT_ZERO, err) < 0)
        return -1;
    return io_zero(fi->below, host_off, nr_bytes, flags, err);
}

static int
fault_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            struct qcow2_error *err)
{
    struct fault_io *fi = to_fault(io);

    if (begin(fi, FAULT_PUNCH, err) < 0)
        return -1;
    return io_punch(fi->below, host_off, nr_bytes, err);
}

static int
fault_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct fault_io *fi = to_fault(io);

    if (begin(fi, FAULT_TRUNCATE, err) < 0)
        return -1;
    return io_truncate(fi->below, size, err);
}

static int
fault_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(to_fault(io)->below, size, err);
}

static int
fault_get_allocated(struct io *io, uint64_t *nr_bytes,
                    struct qcow2_error *err)
{
    return io_get_allocated(to_fault(io)->below, nr_bytes, err);
}

static int
fault_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
             struct qcow2_error *err)
{
    return io_extent(to_fault(io)->below, host_off, len, is_hole, err);
}

static void
fault_prefetch(struct io *io, uint64_t host_off, uint64_t nr_bytes)
{
    io_prefetch(to_fault(io)->below, host_off, nr_bytes);
}

static void
fault_close(struct io *io)
{
    io_close(to_fault(io)->below);
    free(io->name);
    free(io);
}

static const struct io_ops fault_ops = {
    .close = fault_close,
    .preadv = fault_preadv,
    .pwritev = fault_pwritev,
    .flush = fault_flush,
    .zero = fault_zero,
    .punch = fault_punch,
    .truncate = fault_truncate,
    .get_size = fault_get_size,
    .get_allocated = fault_get_allocated,
    .extent = fault_extent,
    .prefetch = fault_prefetch,
};

struct io *
io_fault_new(struct io *below, struct fault_plan *plan)
{
    struct fault_io *fi = calloc(1, sizeof *fi);

    if (!fi)
        abort();
    fi->io = *below; /* what it is and can do */
    fi->io.ops = &fault_ops;
    fi->io.name = strdup(below->name);
    if (!fi->io.name)
        abort();
    fi->below = below;
    fi->plan = plan;
    return &fi->io;
}

struct io *
io_fault_below(struct io *io)
{
    return io->ops == &fault_ops ? to_fault(io)->below : io;
}
