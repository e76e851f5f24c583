/* SPDX-License-Identifier: BSD-3-Clause */
/* store.c: calls on a store; see store.h. */
#include "layer/store.h"

#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"

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

int
store_merge(struct store *s, const void *buf, size_t nr_bytes,
            uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    uint64_t end = guest_off + nr_bytes;
    size_t before = guest_off - round_down(guest_off, s->align);
    size_t after = round_up(end, s->align) - end;
    CLEANUP_FREE char *edges = NULL;
    struct iovec iov[3];

    if (before + after == 0)
        return store_write(s, buf, nr_bytes, guest_off, host_off, err);
    edges = malloc(before + after);
    if (!edges)
        return error_nomem(err);
    if ((before > 0
         && store_read(s, edges, before, guest_off - before,
                       host_off - before, err) == -1)
        || (after > 0
            && store_read(s, edges + before, after, end, host_off + nr_bytes,
                          err) == -1))
        return -1;
    iov[0] = (struct iovec){ edges, before };
    iov[1] = (struct iovec){ (void *)buf, nr_bytes };
    iov[2] = (struct iovec){ edges + before, after };
    return store_writev(s, iov, 3, guest_off - before, host_off - before,
                        err);
}

int
store_flush(struct store *s, const struct io *own, struct qcow2_error *err)
{
    return s->io == own ? 0 : io_flush(s->io, err);
}
