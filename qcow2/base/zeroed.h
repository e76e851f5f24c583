/* SPDX-License-Identifier: BSD-3-Clause */
/* zeroed.h: large arrays of zeroes that take memory where they are written.
 *
 * A file may claim tables that are holes for the most part. What is not
 * written of such an array costs address space alone; pages are the unit, of
 * the small kind. Reading does not take memory.
 */
#ifndef QCOW2_ZEROED_H
#define QCOW2_ZEROED_H

#include <stddef.h>

/* nr_bytes of zeroes (at least 1), aligned for any type; NULL: no memory. */
void *zeroed_new(size_t nr_bytes);

/* NULL is fine. nr_bytes as it was made. */
void zeroed_free(void *p, size_t nr_bytes);

/* Copies into an array, leaving out pieces that are zeroes, where `to` must
 * have zeroes already. Returns the bytes of all the others. */
size_t zeroed_copy(void *to, const void *from, size_t nr_bytes);

#endif /* QCOW2_ZEROED_H */
