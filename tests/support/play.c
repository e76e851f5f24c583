/* SPDX-License-Identifier: BSD-3-Clause */
/* play.c: see play.h. */
#include "play.h"

#include <errno.h>
#include <stdlib.h>

#include "expect.h"

static uint64_t
smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t
sent(const struct play *p)
{
    return p->now ? p->now(p->opaque, PLAY_SENT) : 0;
}

static void
answered(struct play *p, const struct op *op, uint64_t nr_bytes,
         uint64_t off)
{
    bool fua = op->flags & QCOW2_FUA;
    uint64_t now = 0;

    if (p->now)
        now = p->now(p->opaque, fua ? PLAY_DURABLE : PLAY_ANSWERED);
    model_answered(&p->model, nr_bytes, off, now, fua);
}

void
play_init(struct play *p, const void *content, uint64_t size)
{
    model_init(&p->model, content, size);
    p->scratch = malloc(size ? size : 1);
    if (!p->scratch)
        abort();
}

void
play_free(struct play *p)
{
    model_free(&p->model);
    free(p->scratch);
    p->scratch = NULL;
}

uint32_t
play_unit(const struct play *p)
{
    return p->subcluster_size ? p->subcluster_size : p->cluster_size;
}

static void
random_range(const struct play *p, struct rng *r, struct op *op)
{
    static const uint32_t units[] = { 1, 512, 512, 4096, 0, 0, 0 };
    uint64_t unit = units[rng_below(r, sizeof units / sizeof units[0])];
    uint64_t size = p->model.size, len;

    if (unit == 0)
        unit = p->subcluster_size && rng_percent(r, 50) ? p->subcluster_size
                                                        : p->cluster_size;
    op->off = rng_below(r, size) / unit * unit;
    switch (rng_below(r, 4)) {
    case 0:
        len = 1 + rng_below(r, p->cluster_size);
        break;
    case 1:
        len = rng_below(r, 4 * (uint64_t)p->cluster_size);
        break;
    case 2:
        len = unit * (1 + rng_below(r, 3));
        break;
    default:
        len = 1 + rng_below(r, 2000);
        break;
    }
    if (rng_percent(r, 60))
        len = (len + unit - 1) / unit * unit;
    op->nr_bytes = smaller(len, size - op->off);
}

struct op
play_random(const struct play *p, struct rng *r, uint64_t seed)
{
    struct op op = { .seed = seed };
    unsigned dice = rng_below(r, 100);

    if (p->model.size > 0)
        random_range(p, r, &op);
    if (rng_percent(r, 5))
        op.flags |= QCOW2_FUA;
    if (dice < 40) {
        op.kind = OP_WRITE;
        if (rng_percent(r, 10))
            op.seed = 0; /* zeroes */
    } else if (dice < 55) {
        op.kind = OP_ZERO;
        op.flags |= (rng_percent(r, 50) ? QCOW2_MAY_TRIM : 0) |
                    (rng_percent(r, 25) ? QCOW2_FAST : 0);
    } else if (dice < 67) {
        op.kind = OP_TRIM;
    } else if (dice < 82) {
        op.kind = OP_READ;
    } else if (dice < 90) {
        op.kind = OP_EXTENTS;
    } else if (dice < 98) {
        op.kind = OP_FLUSH;
    } else {
        op.kind = OP_REOPEN;
    }
    if (op.kind >= OP_FLUSH || op.kind == OP_READ || op.kind == OP_EXTENTS)
        op.flags = 0;
    return op;
}

const char *
play_text(const struct op *op)
{
    static const char *const names[] = {
        "read", "write", "zero", "trim", "flush", "extents", "reopen"
    };
    static char text[128];

    snprintf(text, sizeof text, "%s %llu+%llu%s%s%s", names[op->kind],
             (unsigned long long)op->off, (unsigned long long)op->nr_bytes,
             op->flags & QCOW2_FUA ? " fua" : "",
             op->flags & QCOW2_MAY_TRIM ? " may-trim" : "",
             op->flags & QCOW2_FAST ? " fast" : "");
    return text;
}

static int
play_read(struct play *p, const struct op *op, struct qcow2_error *err)
{
    if (qcow2_pread(p->disk, p->scratch, op->nr_bytes, op->off, err) != 0)
        return -1;
    if (op->nr_bytes > 0)
        expect_same("read", p->scratch, p->model.disk + op->off,
                    op->nr_bytes, op->off);
    return 0;
}

static int
play_write(struct play *p, const struct op *op, struct qcow2_error *err)
{
    pattern_fill(p->scratch, op->nr_bytes, op->seed, op->off);
    model_write(&p->model, p->scratch, op->nr_bytes, op->off, sent(p));
    if (qcow2_pwrite(p->disk, p->scratch, op->nr_bytes, op->off, op->flags,
                     err) != 0)
        return -1;
    answered(p, op, op->nr_bytes, op->off);
    return 0;
}

/* A fast request may be refused, which then changes nothing; clusters of a
 * v3 image can always be zeroed fast. */
static bool
refused_fast_zero(const struct play *p, const struct op *op,
                  const struct qcow2_error *err)
{
    uint64_t end = op->off + op->nr_bytes;
    bool whole = op->off % p->cluster_size == 0 &&
                 (end % p->cluster_size == 0 || end == p->model.size);

    if (!(op->flags & QCOW2_FAST) || err->errnum != ENOTSUP)
        return false;
    EXPECT(!(whole && p->must_be_fast), "%s: %s", play_text(op), err->text);
    return true;
}

static int
play_zero(struct play *p, const struct op *op, struct qcow2_error *err)
{
    uint64_t when = sent(p);
    int r = qcow2_zero(p->disk, op->nr_bytes, op->off, op->flags, err);

    if (r != 0 && refused_fast_zero(p, op, err))
        return 0;
    model_write(&p->model, NULL, op->nr_bytes, op->off, when);
    if (r == 0)
        answered(p, op, op->nr_bytes, op->off);
    return r;
}

static bool
is_zero(const unsigned char *p, uint64_t n)
{
    while (n > 0 && p[n - 1] == 0)
        n--;
    return n == 0;
}

/* Whole units read as zeroes after a trim, or, where that cannot be said
 * without showing the backing file, or is a part of a compressed cluster, as
 * before. */
static int
play_trim(struct play *p, const struct op *op, struct qcow2_error *err)
{
    uint64_t c = play_unit(p), when = sent(p);
    bool may_keep = p->may_keep_trimmed || p->subcluster_size;
    uint64_t end = op->off + op->nr_bytes;
    uint64_t to = end == p->model.size ? end : end / c * c;
    int r = qcow2_trim(p->disk, op->nr_bytes, op->off, op->flags, err);

    for (uint64_t off = (op->off + c - 1) / c * c; off < to; off += c) {
        uint64_t n = smaller(c, to - off);

        if (r == 0 && may_keep)
            r = qcow2_pread(p->disk, p->scratch, n, off, err);
        if (r == 0 && may_keep && !is_zero(p->scratch, n)) {
            expect_same("trimmed cluster", p->scratch, p->model.disk + off, n,
                        off);
            continue;
        }
        model_write(&p->model, NULL, n, off, when);
        if (r == 0)
            answered(p, op, n, off);
    }
    return r;
}

struct extent_list {
    struct qcow2_extent *extents;
    size_t nr;
};

static int
keep_extent(void *opaque, const struct qcow2_extent *e)
{
    struct extent_list *l = opaque;

    l->extents = realloc(l->extents, (l->nr + 1) * sizeof *l->extents);
    if (!l->extents)
        abort();
    l->extents[l->nr++] = *e;
    return 0;
}

static void
check_extent(struct play *p, const struct qcow2_extent *e, uint64_t next,
             uint64_t end)
{
    unsigned long long off = e->guest_off, nr_bytes = e->nr_bytes;
    const unsigned char *content = p->model.disk + off;

    EXPECT(off == next && nr_bytes > 0 && nr_bytes <= end - off,
           "extent %llu+%llu, expected from %llu to %llu", off, nr_bytes,
           (unsigned long long)next, (unsigned long long)end);
    EXPECT(e->zero || !e->hole, "a hole at %llu that is not zero", off);
    EXPECT(!e->zero || is_zero(content, nr_bytes),
           "zero extent %llu+%llu holds data", off, nr_bytes);
    if (p->host && e->has_host_off && !e->zero && !e->compressed &&
        e->depth == 0) {
        EXPECT(io_pread(p->host, p->scratch, nr_bytes, e->host_off,
                        NULL) == 0, "host read");
        expect_same("data at the extent's place", p->scratch, content,
                    nr_bytes, off);
    }
}

static int
play_extents(struct play *p, const struct op *op, struct qcow2_error *err)
{
    struct extent_list l = { 0 };
    uint64_t next = op->off, end = op->off + op->nr_bytes;
    int r = qcow2_map(p->disk, op->nr_bytes, op->off, keep_extent, &l, err);

    for (size_t i = 0; i < l.nr && r == 0; i++) {
        check_extent(p, &l.extents[i], next, end);
        next += l.extents[i].nr_bytes;
    }
    free(l.extents);
    EXPECT(r != 0 || next == end, "extents end at %llu, not %llu",
           (unsigned long long)next, (unsigned long long)end);
    return r;
}

static int
play_flush(struct play *p, struct qcow2_error *err)
{
    uint64_t when = p->now ? p->now(p->opaque, PLAY_ANSWERED) : 0;

    if (qcow2_flush(p->disk, err) != 0)
        return -1;
    if (p->now)
        model_flushed(&p->model, when, p->now(p->opaque, PLAY_DURABLE));
    return 0;
}

int
play_op(struct play *p, const struct op *op, struct qcow2_error *err)
{
    switch (op->kind) {
    case OP_READ:
        return play_read(p, op, err);
    case OP_WRITE:
        return play_write(p, op, err);
    case OP_ZERO:
        return play_zero(p, op, err);
    case OP_TRIM:
        return play_trim(p, op, err);
    case OP_EXTENTS:
        return play_extents(p, op, err);
    case OP_FLUSH:
        return play_flush(p, err);
    case OP_REOPEN:
        break;
    }
    return 0;
}

void
play_verify(struct play *p)
{
    struct op all = { .kind = OP_READ, .nr_bytes = p->model.size };
    struct qcow2_error err;

    EXPECT_OK(play_read(p, &all, &err), &err);
}
