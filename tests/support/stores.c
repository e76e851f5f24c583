/* SPDX-License-Identifier: BSD-3-Clause */
/* stores.c: see stores.h. */
#include "stores.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "expect.h"

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
