/* SPDX-License-Identifier: BSD-3-Clause */
/* io-jitter.c: see io-jitter.h. */
#include "io-jitter.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

struct jitter {
    struct io io;
    struct io *below;
    unsigned nr; /* atomic: operations so far */
};

static struct io *
below(struct io *io)
{
    return ((struct jitter *)io)->below;
}

/* Now and then for long. */
static void
wait_a_while(struct io *io)
{
    struct jitter *j = (struct jitter *)io;
    unsigned n = __atomic_add_fetch(&j->nr, 1, __ATOMIC_RELAXED);

    for (unsigned i = n % 13 == 0 ? 40 : n % 3; i > 0; i--)
        sched_yield();
}

static int
after(struct io *io, int result)
{
    wait_a_while(io);
    return result;
}

static void
jitter_close(struct io *io)
{
    io_close(below(io));
    free(io->name);
    free(io);
}

static int
jitter_preadv(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    wait_a_while(io);
    return after(io, io_preadv(below(io), iov, nr_iov, host_off, err));
}

static int
jitter_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
               uint64_t host_off, struct qcow2_error *err)
{
    wait_a_while(io);
    return after(io, io_pwritev(below(io), iov, nr_iov, host_off, err));
}

static int
jitter_flush(struct io *io, struct qcow2_error *err)
{
    wait_a_while(io);
    return after(io, io_flush(below(io), err));
}

static int
jitter_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            unsigned flags, struct qcow2_error *err)
{
    wait_a_while(io);
    return after(io, io_zero(below(io), host_off, nr_bytes, flags, err));
}

static int
jitter_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    wait_a_while(io);
    return after(io, io_punch(below(io), host_off, nr_bytes, err));
}

static int
jitter_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    wait_a_while(io);
    return after(io, io_truncate(below(io), size, err));
}

static int
jitter_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(below(io), size, err);
}

static int
jitter_get_allocated(struct io *io, uint64_t *nr_bytes,
                     struct qcow2_error *err)
{
    return io_get_allocated(below(io), nr_bytes, err);
}

static int
jitter_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
              struct qcow2_error *err)
{
    return io_extent(below(io), host_off, len, is_hole, err);
}

static const struct io_ops jitter_ops = {
    .close = jitter_close,
    .preadv = jitter_preadv,
    .pwritev = jitter_pwritev,
    .flush = jitter_flush,
    .zero = jitter_zero,
    .punch = jitter_punch,
    .truncate = jitter_truncate,
    .get_size = jitter_get_size,
    .get_allocated = jitter_get_allocated,
    .extent = jitter_extent,
};

struct io *
io_jitter_new(struct io *io)
{
    struct jitter *j = calloc(1, sizeof *j);

    if (!j)
        abort();
    j->io = *io; /* what it is and can do */
    j->io.ops = &jitter_ops;
    j->io.name = strdup("jitter");
    j->below = io;
    return &j->io;
}
