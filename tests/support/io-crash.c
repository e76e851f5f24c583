/* SPDX-License-Identifier: BSD-3-Clause */
/* io-crash.c: records operations; see io-crash.h. */
#include "io-crash-private.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

struct crash_io {
    struct io io;
    struct io *below;
    struct crash_log *log;
};

static struct crash_io *
to_crash(struct io *io)
{
    return (struct crash_io *)io;
}

static void
add_event(struct crash_log *log, struct event event)
{
    if (log->nr_events == log->max_events) {
        log->max_events = log->max_events * 2 + 64;
        log->events = must_have(reallocarray(
            log->events, log->max_events, sizeof log->events[0]));
    }
    log->events[log->nr_events++] = event;
}

static uint64_t
tick(struct crash_log *log)
{
    return __atomic_add_fetch(log->clock, 1, __ATOMIC_SEQ_CST);
}

static unsigned
add_op(struct crash_log *log, struct op op)
{
    if (log->nr_ops == log->max_ops) {
        log->max_ops = log->max_ops * 2 + 64;
        log->ops = must_have(reallocarray(log->ops, log->max_ops,
                                          sizeof log->ops[0]));
    }
    op.begin = tick(log);
    log->ops[log->nr_ops] = op;
    return log->nr_ops++;
}

/* Others may run between an operation's effect and its return, as they may
 * with real files: what they do then must not rely on it.
 */
static void
end_op(struct crash_log *log, unsigned index)
{
    sched_yield();
    LOCK_SCOPE(&log->lock);
    log->ops[index].end = tick(log);
    if (log->ops[index].kind == OP_FLUSH)
        add_event(log, (struct event){ EVENT_FLUSH_ENDS, index, 0 });
}

static int
apply(struct io *below, const struct op *op, unsigned zero_flags,
      struct qcow2_error *err)
{
    switch (op->kind) {
    case OP_WRITE:
        return io_pwrite(below, op->data, op->nr_bytes, op->off, err);
    case OP_ZERO:
        return io_zero(below, op->off, op->nr_bytes, zero_flags, err);
    case OP_PUNCH:
        return io_punch(below, op->off, op->nr_bytes, err);
    case OP_TRUNCATE:
        return io_truncate(below, op->off, err);
    case OP_FLUSH:
        break;
    }
    return 0;
}

static int
change(struct io *io, struct op op, unsigned zero_flags,
       struct qcow2_error *err)
{
    struct crash_io *ci = to_crash(io);
    struct crash_log *log = ci->log;
    unsigned index;
    int r;

    /* One lock over both: effects follow each other as in the log. */
    pthread_mutex_lock(&log->lock);
    r = apply(ci->below, &op, zero_flags, err);
    op.failed = r < 0;
    index = add_op(log, op);
    add_event(log, (struct event){ EVENT_OP_BEGINS, index, 0 });
    pthread_mutex_unlock(&log->lock);
    end_op(log, index);
    return r;
}

static int
crash_preadv(struct io *io, const struct iovec *iov, int nr_iov,
             uint64_t host_off, struct qcow2_error *err)
{
    return io_preadv(to_crash(io)->below, iov, nr_iov, host_off, err);
}

static int
crash_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    struct op op = { .kind = OP_WRITE, .off = host_off };
    uint64_t at = 0;

    for (int i = 0; i < nr_iov; i++)
        op.nr_bytes += iov[i].iov_len;
    op.data = must_have(malloc(op.nr_bytes));
    for (int i = 0; i < nr_iov; i++) {
        memcpy(op.data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    return change(io, op, 0, err);
}

/* What of an operation is written although the flush fails. A part of its
 * sectors: it becomes that part. */
static void
lose(struct crash_log *log, struct op *op)
{
    uint64_t dice = rng_below(&log->rng, 3), from, end, nr;

    if (log->survival == CRASH_ALL)
        return;
    op->failed = log->survival == CRASH_NOTHING || dice == 0;
    nr = div_round_up(op->off % 512 + op->nr_bytes, 512);
    if (op->failed || dice == 1 || op->kind == OP_TRUNCATE || nr == 1)
        return;
    from = rng_below(&log->rng, nr);
    end = from + 1 + rng_below(&log->rng, nr - from);
    from = max_u64(op->off, (op->off / 512 + from) * 512);
    end = min_u64(op->off + op->nr_bytes, (op->off / 512 + end) * 512);
    if (op->kind == OP_WRITE)
        memmove(op->data, op->data + (from - op->off), end - from);
    op->off = from;
    op->nr_bytes = end - from;
}

static int
fail_flush(struct crash_log *log, struct qcow2_error *err)
{
    uint64_t flushed = crash_log_last_flush(log, UINT64_MAX);

    for (unsigned i = 0; i < log->nr_ops; i++) {
        struct op *op = &log->ops[i];

        if (op->kind != OP_FLUSH && op->end > flushed && !op->failed)
            lose(log, op);
    }
    log->flush_failed = log->cache_lies = true;
    return error_set(err, EIO, "crash log: the flush fails");
}

static int
crash_flush(struct io *io, struct qcow2_error *err)
{
    struct crash_log *log = to_crash(io)->log;
    unsigned index;
    int r = 0;

    pthread_mutex_lock(&log->lock);
    if (log->nr_until_failure > 0 && --log->nr_until_failure == 0)
        r = fail_flush(log, err);
    if (r == -1) {
        pthread_mutex_unlock(&log->lock);
        return -1;
    }
    index = add_op(log, (struct op){ .kind = OP_FLUSH });
    pthread_mutex_unlock(&log->lock);
    end_op(log, index);
    return 0;
}

static int
crash_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
           unsigned flags, struct qcow2_error *err)
{
    struct op op = { .kind = OP_ZERO, .off = host_off, .nr_bytes = nr_bytes };

    return change(io, op, flags, err);
}

static int
crash_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            struct qcow2_error *err)
{
    struct op op = { .kind = OP_PUNCH, .off = host_off,
                     .nr_bytes = nr_bytes };

    return change(io, op, 0, err);
}

static int
crash_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    return change(io, (struct op){ .kind = OP_TRUNCATE, .off = size }, 0,
                  err);
}

static int
crash_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(to_crash(io)->below, size, err);
}

static int
crash_get_allocated(struct io *io, uint64_t *nr_bytes,
                    struct qcow2_error *err)
{
    return io_get_allocated(to_crash(io)->below, nr_bytes, err);
}

static int
crash_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
             struct qcow2_error *err)
{
    return io_extent(to_crash(io)->below, host_off, len, is_hole, err);
}

static void
crash_drop_cache(struct io *io)
{
    struct crash_log *log = to_crash(io)->log;
    struct io *below = to_crash(io)->below;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct mem *m;
    LOCK_SCOPE(&log->lock);

    if (!log->cache_lies || log->keep_cache)
        return;
    m = crash_log_state_at(log, UINT64_MAX, CRASH_ALL, NULL);
    bytes = mem_bytes(m, &nr_bytes);
    below->readonly = false;
    if ((below->can_grow && io_truncate(below, nr_bytes, NULL) == -1)
        || io_pwrite(below, bytes, nr_bytes, 0, NULL) == -1)
        abort();
    mem_free(m);
    log->cache_lies = false;
}

static void
crash_close(struct io *io)
{
    io_close(to_crash(io)->below);
    free(io->name);
    free(io);
}

static const struct io_ops crash_ops = {
    .close = crash_close,
    .preadv = crash_preadv,
    .pwritev = crash_pwritev,
    .flush = crash_flush,
    .zero = crash_zero,
    .punch = crash_punch,
    .truncate = crash_truncate,
    .get_size = crash_get_size,
    .get_allocated = crash_get_allocated,
    .extent = crash_extent,
    .drop_cache = crash_drop_cache,
};

struct io *
io_crash_open(struct crash_log *log)
{
    struct crash_io *ci = must_have(calloc(1, sizeof *ci));

    ci->below = io_mem_open(log->now, false);
    ci->io = *ci->below; /* what it is and can do */
    ci->io.ops = &crash_ops;
    ci->io.name = must_have(strdup("crash log"));
    ci->io.device = (uintptr_t)log; /* to be known by */
    ci->log = log;
    return &ci->io;
}

struct crash_log *
crash_log_new(struct mem *start)
{
    struct crash_log *log = must_have(calloc(1, sizeof *log));

    pthread_mutex_init(&log->lock, NULL);
    log->start = mem_copy(start);
    log->now = mem_copy(start);
    log->clock = &log->seq;
    return log;
}

void
crash_log_fail_flush(struct crash_log *log, unsigned nth,
                     enum crash_survival survival, uint64_t seed)
{
    LOCK_SCOPE(&log->lock);

    log->nr_until_failure = nth;
    log->survival = survival;
    rng_init(&log->rng, seed, nth);
}

bool
crash_log_flush_failed(struct crash_log *log)
{
    LOCK_SCOPE(&log->lock);

    return log->flush_failed;
}

void
crash_log_keep_cache(struct crash_log *log, bool keep)
{
    LOCK_SCOPE(&log->lock);

    log->keep_cache = keep;
}

void
crash_log_share_clock(struct crash_log *log, struct crash_log *other)
{
    log->clock = other->clock;
}

uint64_t
crash_log_moment(struct crash_log *log)
{
    return __atomic_load_n(log->clock, __ATOMIC_SEQ_CST);
}

void
crash_log_free(struct crash_log *log)
{
    if (!log)
        return;
    for (unsigned i = 0; i < log->nr_ops; i++)
        free(log->ops[i].data);
    free(log->ops);
    free(log->events);
    mem_free(log->start);
    mem_free(log->now);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

struct mem *
crash_log_content(struct crash_log *log)
{
    return log->now;
}

unsigned
crash_log_mark(struct crash_log *log, enum crash_mark mark)
{
    LOCK_SCOPE(&log->lock);

    add_event(log, (struct event){ EVENT_MARK, 0, mark });
    return log->nr_marks++;
}

unsigned
crash_log_nr_marks(struct crash_log *log)
{
    LOCK_SCOPE(&log->lock);

    return log->nr_marks;
}
