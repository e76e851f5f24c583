/* SPDX-License-Identifier: BSD-3-Clause */
/* store.c: calls on a store; see store.h. */
#include "layer/store.h"

struct store
store_plain(struct io *io)
{
    return (struct store){
        .io = io, .align = 1, .is_plain = true, .can_zero = true,
        .place_0 = true,
    };
}

struct store
store_in_image(struct io *io)
{
    return (struct store){
        .io = io, .align = 1, .is_plain = true, .counted = true,
        .fresh_is_zero = true, .can_zero = true,
    };
}

void
store_close(struct store *s)
{
    if (s->ops && s->ops->close)
        s->ops->close(s);
}

int
store_readv(struct store *s, const struct iovec *iov, int nr_iov,
            uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    if (s->is_plain)
        return io_preadv(s->io, iov, nr_iov, host_off, err);
    return s->ops->read(s, iov, nr_iov, guest_off, host_off, err);
}

int
store_writev(struct store *s, const struct iovec *iov, int nr_iov,
             uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    if (s->is_plain)
        return io_pwritev(s->io, iov, nr_iov, host_off, err);
    return s->ops->write(s, iov, nr_iov, guest_off, host_off, err);
}

int
store_zero(struct store *s, uint64_t guest_off, uint64_t host_off,
           uint64_t nr_bytes, unsigned flags, struct qcow2_error *err)
{
    if (s->is_plain)
        return io_zero(s->io, host_off, nr_bytes, flags, err);
    return s->ops->zero(s, guest_off, host_off, nr_bytes, flags, err);
}
