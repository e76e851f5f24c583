/* SPDX-License-Identifier: BSD-3-Clause */
/* blocks.c: see blocks.h. */
#include "base/blocks.h"

#include "base/checked.h"

static bool
is_same(const unsigned char *buf, const unsigned char *other, uint64_t at,
        uint64_t nr_bytes)
{
    return other ? memcmp(buf + at, other + at, nr_bytes) == 0
                 : bytes_are_zero(buf + at, nr_bytes);
}

uint64_t
blocks_alike(const void *buf, const void *other, uint64_t nr_bytes,
             uint64_t off, uint64_t block_bytes, bool *same)
{
    uint64_t len = block_bytes - (off & (block_bytes - 1)), next;

    len = min_u64(len, nr_bytes);
    *same = is_same(buf, other, 0, len);
    while ((next = min_u64(block_bytes, nr_bytes - len)) > 0
           && is_same(buf, other, len, next) == *same)
        len += next;
    return len;
}
