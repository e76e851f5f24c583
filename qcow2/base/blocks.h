/* SPDX-License-Identifier: BSD-3-Clause */
/* blocks.h: buffers looked at block by block. */
#ifndef QCOW2_BLOCKS_H
#define QCOW2_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* nr_bytes > 0. Data gives itself away in the first bytes. */
static inline bool
bytes_are_zero(const void *buf, size_t nr_bytes)
{
    const unsigned char *bytes = buf;

    return bytes[0] == 0 && memcmp(bytes, bytes + 1, nr_bytes - 1) == 0;
}

/* Of nr_bytes (> 0) at off, in blocks that end at multiples of block_bytes, a
 * power of two: how many bytes the first blocks have that are all the same as
 * in `other` (NULL: zeroes), or all are not, which *same says.
 */
uint64_t blocks_alike(const void *buf, const void *other, uint64_t nr_bytes,
                      uint64_t off, uint64_t block_bytes, bool *same);

#endif /* QCOW2_BLOCKS_H */
