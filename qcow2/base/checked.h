/* SPDX-License-Identifier: BSD-3-Clause */
/* checked.h: arithmetic on numbers that come from an image, where overflow
 * is an answer instead of a surprise.
 */
#ifndef QCOW2_CHECKED_H
#define QCOW2_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

/* True if the result overflowed; *r is then undefined. */
static inline bool
add_overflows(uint64_t a, uint64_t b, uint64_t *r)
{
    return __builtin_add_overflow(a, b, r);
}

/* n << bits, bits < 64; UINT64_MAX where that overflows, which is past the
 * end of every file. For cluster indexes and counts that come from a file. */
static inline uint64_t
scale_up(uint64_t n, unsigned bits)
{
    return n > UINT64_MAX >> bits ? UINT64_MAX : n << bits;
}

static inline bool
is_power_of_2(uint64_t n)
{
    return n && (n & (n - 1)) == 0;
}

/* align must be a power of two. */
static inline bool
is_aligned(uint64_t n, uint64_t align)
{
    return (n & (align - 1)) == 0;
}

static inline uint64_t
round_down(uint64_t n, uint64_t align)
{
    return n & ~(align - 1);
}

/* The caller knows that n + align - 1 does not overflow. */
static inline uint64_t
round_up(uint64_t n, uint64_t align)
{
    return (n + align - 1) & ~(align - 1);
}

static inline uint64_t
div_round_up(uint64_t n, uint64_t d)
{
    return n / d + (n % d != 0);
}

static inline uint64_t
min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t
max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Does [off, off+len) lie inside [0, size)? Never overflows. */
static inline bool
range_inside(uint64_t off, uint64_t len, uint64_t size)
{
    return off <= size && len <= size - off;
}

#endif /* QCOW2_CHECKED_H */
