/* SPDX-License-Identifier: BSD-3-Clause */
/* stores.c: see stores.h. */
#include "stores.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "expect.h"
#include "meta/alloc.h"

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static size_t
total(const struct iovec *iov, int nr_iov)
{
    size_t n = 0;

    for (int i = 0; i < nr_iov; i++)
        n += iov[i].iov_len;
    return n;
}

static void
expect_whole(const struct store *s, uint64_t guest_off, uint64_t host_off,
             uint64_t nr_bytes)
{
    EXPECT(nr_bytes > 0 && store_is_whole(s, guest_off | host_off, nr_bytes),
           "parts of blocks are written: guest 0x%llx, host 0x%llx, %llu "
           "bytes", (unsigned long long)guest_off,
           (unsigned long long)host_off, (unsigned long long)nr_bytes);
}

/* --- Scrambled ----------------------------------------------------------- */

struct scrambled {
    struct store store; /* first */
    struct store *below;
};

static unsigned char
fold(uint64_t off)
{
    return off ^ off >> 8 ^ off >> 16 ^ off >> 24;
}

/* Never 0, so that what was not encoded does not pass for it. */
static unsigned char
key(uint64_t guest_off, uint64_t host_off)
{
    return (fold(guest_off) * 31 + fold(host_off) * 17) | 1;
}

static void
apply_keys(unsigned char *p, size_t n, uint64_t guest_off, uint64_t host_off)
{
    for (size_t i = 0; i < n; i++)
        p[i] ^= key(guest_off + i, host_off + i);
}

static int
scrambled_read(struct store *s, const struct iovec *iov, int nr_iov,
               uint64_t guest_off, uint64_t host_off,
               struct qcow2_error *err)
{
    struct store *below = ((struct scrambled *)s)->below;

    if (store_readv(below, iov, nr_iov, guest_off, host_off, err) == -1)
        return -1;
    for (int i = 0; i < nr_iov; i++) {
        apply_keys(iov[i].iov_base, iov[i].iov_len, guest_off, host_off);
        guest_off += iov[i].iov_len;
        host_off += iov[i].iov_len;
    }
    sched_yield();
    return 0;
}

static int
scrambled_write(struct store *s, const struct iovec *iov, int nr_iov,
                uint64_t guest_off, uint64_t host_off,
                struct qcow2_error *err)
{
    struct store *below = ((struct scrambled *)s)->below;
    size_t n = total(iov, nr_iov), at = 0;
    unsigned char *copy = must_have(malloc(n + 1));
    int r;

    expect_whole(s, guest_off, host_off, n);
    for (int i = 0; i < nr_iov; i++) {
        memcpy(copy + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    apply_keys(copy, n, guest_off, host_off);
    sched_yield();
    r = store_write(below, copy, n, guest_off, host_off, err);
    free(copy);
    return r;
}

static void
scrambled_close(struct store *s)
{
    store_close(((struct scrambled *)s)->below);
    free(s);
}

static const struct store_ops scrambled_ops = {
    .read = scrambled_read,
    .write = scrambled_write,
    .close = scrambled_close,
};

struct store *
store_scrambled_new(struct store *below, uint32_t align)
{
    struct scrambled *s = must_have(calloc(1, sizeof *s));

    s->below = below;
    s->store = (struct store){
        .ops = &scrambled_ops, .io = below->io, .align = align,
        .counted = below->counted, .place_0 = below->place_0,
    };
    return &s->store;
}

/* --- In a file of its own ------------------------------------------------- */

struct beside {
    struct store store; /* first */
    uint32_t cluster_size;
    unsigned nr_clusters;
    struct beside_state *state;
};

/* What a disk is before the store places anything there. */
enum { GARBAGE = 0xee };

static void
expect_placed(const struct beside *b, uint64_t guest_off, uint64_t host_off,
              uint64_t nr_bytes)
{
    uint64_t last = (guest_off + nr_bytes - 1) / b->cluster_size;

    EXPECT(host_off == guest_off, "guest 0x%llx is sought at 0x%llx",
           (unsigned long long)guest_off, (unsigned long long)host_off);
    EXPECT(last < b->nr_clusters, "past the end");
    for (uint64_t c = guest_off / b->cluster_size; c <= last; c++)
        EXPECT(b->state->placed[c], "cluster %llu has no place",
               (unsigned long long)c);
}

static void
changes(const struct beside *b, uint64_t guest_off, uint64_t nr_bytes)
{
    for (uint64_t c = guest_off / b->cluster_size;
         c <= (guest_off + nr_bytes - 1) / b->cluster_size; c++)
        b->state->unflushed[c] = true;
}

static int
beside_read(struct store *s, const struct iovec *iov, int nr_iov,
            uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    expect_placed((struct beside *)s, guest_off, host_off,
                  total(iov, nr_iov));
    return io_preadv(s->io, iov, nr_iov, host_off, err);
}

static int
beside_write(struct store *s, const struct iovec *iov, int nr_iov,
             uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    expect_whole(s, guest_off, host_off, total(iov, nr_iov));
    expect_placed((struct beside *)s, guest_off, host_off,
                  total(iov, nr_iov));
    changes((struct beside *)s, guest_off, total(iov, nr_iov));
    return io_pwritev(s->io, iov, nr_iov, host_off, err);
}

static int
beside_zero(struct store *s, uint64_t guest_off, uint64_t host_off,
            uint64_t nr_bytes, unsigned flags, struct qcow2_error *err)
{
    expect_whole(s, guest_off, host_off, nr_bytes);
    expect_placed((struct beside *)s, guest_off, host_off, nr_bytes);
    changes((struct beside *)s, guest_off, nr_bytes);
    return io_zero(s->io, host_off, nr_bytes, flags, err);
}

static int
beside_place(struct store *s, uint64_t guest_off, uint64_t want,
             struct alloc_run *run, struct qcow2_error *err)
{
    struct beside *b = (struct beside *)s;
    unsigned char *junk = must_have(malloc(want * b->cluster_size));
    int r;

    for (uint64_t i = 0; i < want; i++) {
        uint64_t c = guest_off / b->cluster_size + i;

        EXPECT(c < b->nr_clusters && !b->state->placed[c],
               "cluster %llu has a place", (unsigned long long)c);
        b->state->placed[c] = true;
    }
    memset(junk, GARBAGE, want * b->cluster_size);
    r = io_pwrite(s->io, junk, want * b->cluster_size, guest_off, err);
    free(junk);
    changes(b, guest_off, want * b->cluster_size);
    *run = (struct alloc_run){ guest_off, want, true };
    return r;
}

static void
beside_release(struct store *s, uint64_t guest_off, uint64_t host_off,
               uint64_t nr_clusters)
{
    struct beside *b = (struct beside *)s;

    expect_placed(b, guest_off, host_off, nr_clusters * b->cluster_size);
    memset(b->state->placed + guest_off / b->cluster_size, 0, nr_clusters);
}

static int
beside_check(struct store *s, uint64_t guest_off, uint64_t host_off,
             uint64_t nr_bytes, struct qcow2_error *err)
{
    (void)s, (void)nr_bytes;
    return host_off == guest_off ? 0
           : error_set(err, EIO, "guest data are not where they belong");
}

static void
beside_close(struct store *s)
{
    io_close(s->io);
    free(s);
}

static const struct store_ops beside_ops = {
    .read = beside_read,
    .write = beside_write,
    .zero = beside_zero,
    .place = beside_place,
    .release = beside_release,
    .check = beside_check,
    .close = beside_close,
};

struct store *
store_beside_new(struct io *io, uint32_t align, uint32_t cluster_size,
                 struct beside_state *state)
{
    struct beside *b = must_have(calloc(1, sizeof *b));

    b->cluster_size = cluster_size;
    b->nr_clusters = MAX_BESIDE_CLUSTERS;
    b->state = state;
    b->store = (struct store){
        .ops = &beside_ops, .io = io, .align = align, .can_zero = true,
        .place_0 = true,
    };
    return &b->store;
}
