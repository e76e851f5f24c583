/* SPDX-License-Identifier: BSD-3-Clause */
/* io-order.c: keeps the durable and the pending of an image, for the rules
 * of io-order-rules.c; see io-order.h.
 */
#include "io-order-private.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "io-fault.h"

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static struct order *
to_order(struct io *io)
{
    return (struct order *)io;
}

static void
reserve(struct order *o, uint64_t end)
{
    uint64_t unit = UINT64_C(1) << 16, capacity;

    if (end <= o->capacity)
        return;
    /* Whole clusters of any size: an image has three at least. */
    while (unit < end / 4 && unit < UINT64_C(1) << 21)
        unit *= 2;
    capacity = round_up(end + o->capacity / 2, unit);
    o->durable = must_have(realloc(o->durable, capacity));
    o->worst = must_have(realloc(o->worst, capacity));
    memset(o->durable + o->capacity, 0, capacity - o->capacity);
    memset(o->worst + o->capacity, 0, capacity - o->capacity);
    o->capacity = capacity;
    if (o->is_image) {
        uint64_t nr = capacity >> o->unit_bits;

        o->units = must_have(reallocarray(o->units, nr,
                                             sizeof o->units[0]));
        memset(o->units + o->nr_units, 0,
               (nr - o->nr_units) * sizeof o->units[0]);
        o->nr_units = nr;
    }
}

static struct op *
begin_change(struct order *o, struct op proto)
{
    struct op *op = must_have(malloc(sizeof *op));
    LOCK_SCOPE(&o->lock);

    *op = proto;
    op->next = NULL;
    op->begin = ++o->seq;
    reserve(o, op->off + op->nr_bytes);
    order_check(o, op);
    return op;
}

/* What failed may have been done in part, until a flush settles it. */
static int
end_change(struct order *o, struct op *op, int result)
{
    LOCK_SCOPE(&o->lock);

    op->end = ++o->seq;
    op->failed = result != 0;
    return result;
}

static int
order_preadv(struct io *io, const struct iovec *iov, int nr_iov,
             uint64_t host_off, struct qcow2_error *err)
{
    return io_preadv(to_order(io)->below, iov, nr_iov, host_off, err);
}

static int
order_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    struct order *o = to_order(io);
    struct op proto = { .kind = OP_WRITE, .off = host_off };
    struct op *op;
    uint64_t at = 0;

    for (int i = 0; i < nr_iov; i++)
        proto.nr_bytes += iov[i].iov_len;
    proto.data = must_have(malloc(proto.nr_bytes));
    for (int i = 0; i < nr_iov; i++) {
        memcpy(proto.data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    op = begin_change(o, proto);
    return end_change(o, op,
                      io_pwritev(o->below, iov, nr_iov, host_off, err));
}

static int
order_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
           unsigned flags, struct qcow2_error *err)
{
    struct order *o = to_order(io);
    struct op *op = begin_change(o, (struct op){
        .kind = OP_ZERO, .off = host_off, .nr_bytes = nr_bytes });

    return end_change(o, op,
                      io_zero(o->below, host_off, nr_bytes, flags, err));
}

static int
order_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            struct qcow2_error *err)
{
    struct order *o = to_order(io);
    struct op *op = begin_change(o, (struct op){
        .kind = OP_PUNCH, .off = host_off, .nr_bytes = nr_bytes });

    return end_change(o, op, io_punch(o->below, host_off, nr_bytes, err));
}

static int
order_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct order *o = to_order(io);
    struct op *op = begin_change(o, (struct op){
        .kind = OP_TRUNCATE, .off = size });

    return end_change(o, op, io_truncate(o->below, size, err));
}

/* What a failed operation left is durable, unless it is written anew. */
static void
settle_failed(struct order *o, struct op *op)
{
    uint64_t nr_bytes = op->kind == OP_TRUNCATE ? o->capacity - op->off
                                                : op->nr_bytes;
    struct op left = { .kind = OP_WRITE, .off = op->off,
                       .nr_bytes = nr_bytes, .begin = op->begin };

    for (const struct op *p = o->pending; p; p = p->next)
        if (p != op && p->off < op->off + nr_bytes
            && (p->kind == OP_TRUNCATE || op->off < p->off + p->nr_bytes))
            return;
    left.data = must_have(malloc(nr_bytes));
    if (io_pread(io_fault_below(o->below), left.data, nr_bytes, op->off,
                 NULL) == 0)
        order_make_durable(o, &left);
    free(left.data);
}

/* All that had ended before the flush began is durable. */
static void
settle(struct order *o, uint64_t flush_begin)
{
    struct op **link = &o->pending, *op;
    bool metadata = false, any = false;

    o->seq++;
    while ((op = *link)) {
        if (op->end == 0 || op->end > flush_begin) {
            link = &op->next;
            continue;
        }
        any = true;
        if (op->failed)
            settle_failed(o, op);
        else
            metadata |= order_make_durable(o, op);
        *link = op->next;
        free(op->data);
        free(op);
    }
    o->pending_end = link;
    if (any)
        order_apply_pending(o);
    if (metadata || (any && !o->is_image))
        order_rescan(o);
}

static int
order_flush(struct io *io, struct qcow2_error *err)
{
    struct order *o = to_order(io);
    uint64_t begin;

    pthread_mutex_lock(&o->lock);
    begin = ++o->seq;
    pthread_mutex_unlock(&o->lock);
    if (io_flush(o->below, err) < 0)
        return -1;
    LOCK_SCOPE(&o->lock);
    settle(o, begin);
    return 0;
}

static int
order_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(to_order(io)->below, size, err);
}

static int
order_get_allocated(struct io *io, uint64_t *nr_bytes,
                    struct qcow2_error *err)
{
    return io_get_allocated(to_order(io)->below, nr_bytes, err);
}

static int
order_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
             struct qcow2_error *err)
{
    return io_extent(to_order(io)->below, host_off, len, is_hole, err);
}

static void
order_prefetch(struct io *io, uint64_t host_off, uint64_t nr_bytes)
{
    io_prefetch(to_order(io)->below, host_off, nr_bytes);
}

static void
order_close(struct io *io)
{
    struct order *o = to_order(io);
    struct op *op, *next;

    for (op = o->pending; op; op = next) {
        next = op->next;
        free(op->data);
        free(op);
    }
    for (uint64_t c = 0; c < o->nr_units; c++)
        free(o->units[c].covered);
    free(o->units);
    free(o->durable);
    free(o->worst);
    pthread_mutex_destroy(&o->lock);
    io_close(o->below);
    free(io->name);
    free(o);
}

static const struct io_ops order_ops = {
    .close = order_close,
    .preadv = order_preadv,
    .pwritev = order_pwritev,
    .flush = order_flush,
    .zero = order_zero,
    .punch = order_punch,
    .truncate = order_truncate,
    .get_size = order_get_size,
    .get_allocated = order_get_allocated,
    .extent = order_extent,
    .prefetch = order_prefetch,
};

struct io *
io_order_new(struct io *below, struct order_report *report)
{
    struct order *o = must_have(calloc(1, sizeof *o));
    uint64_t size;

    o->io = *below; /* what it is and can do */
    o->io.ops = &order_ops;
    o->io.failure = NULL; /* below has it */
    o->io.name = must_have(strdup(below->name));
    o->below = below;
    o->report = report;
    o->pending_end = &o->pending;
    pthread_mutex_init(&o->lock, NULL);
    if (io_get_size(io_fault_below(below), &size, NULL) < 0)
        abort();
    reserve(o, max_u64(size, 1));
    if (io_pread(io_fault_below(below), o->durable, size, 0, NULL) < 0)
        abort();
    memcpy(o->worst, o->durable, o->capacity);
    order_rescan(o);
    return &o->io;
}

bool
io_order_is(const struct io *io)
{
    return io->ops == &order_ops;
}
