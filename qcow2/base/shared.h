/* SPDX-License-Identifier: BSD-3-Clause */
/* shared.h: 64-bit numbers that threads share without a lock. */
#ifndef QCOW2_SHARED_H
#define QCOW2_SHARED_H

#include <stdint.h>

/* For the __atomic functions. 32-bit machines may align uint64_t to 4 bytes
 * only, and a number that lies in two cache lines is loaded in two halves,
 * between which another thread may store. Arrays of uint64_t that malloc or
 * mmap returned are aligned.
 */
typedef uint64_t shared_u64 __attribute__((aligned(8)));

#endif /* QCOW2_SHARED_H */
