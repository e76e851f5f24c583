/* SPDX-License-Identifier: BSD-3-Clause */
/* memory.h: lets allocations of the engine fail. For programs that are linked
 * with the flags of the same name in Makefile.am.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* The nth allocation of this thread from now on fails, once; 0: none. */
void memory_fail(uint64_t nth);

/* Has it? */
bool memory_has_failed(void);

/* The same for the nth allocation in any thread: also in those that an
 * operation begins. */
void memory_fail_anywhere(uint64_t nth);
bool memory_has_failed_anywhere(void);

#endif /* MEMORY_H */
