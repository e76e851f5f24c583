/* SPDX-License-Identifier: BSD-3-Clause */
/* bounds.h: what an input may cost, whatever is in it.
 *
 * Memory: what is allocated at one time while it is worked on, counted by
 * AddressSanitizer; without it, what the whole process ever had in memory (but
 * not with ThreadSanitizer, which has several times as much).
 *
 * Work: reads of the file, and bytes read. They stand for time where nothing
 * may be timed. While fuzzing, CPU time is limited as well: not time on the
 * wall, as the machine may have other things to do.
 */
#ifndef BOUNDS_H
#define BOUNDS_H

#include <stdint.h>

#include "sparse.h"

enum { MAX_INPUT_BYTES = 1 << 20, MAX_MEMORY_BYTES = 256 << 20 };

/* Prints what is wrong, and aborts. */
_Noreturn void bounds_broken(const char *file, int line, const char *cond,
                             const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define MUST(cond, ...)                                                 \
    do {                                                                \
        if (!(cond))                                                    \
            bounds_broken(__FILE__, __LINE__, #cond, __VA_ARGS__);      \
    } while (0)

/* From now on an input that takes more than that much CPU time aborts. */
void bounds_limit_cpu(unsigned ms);

/* Around the work on an input. */
void bounds_begin(void);
void bounds_end(void);

/* What was done to a file is within bounds. */
void bounds_of_work(const struct sparse_counts *counts);

/* The most memory that an input took, as far as it was counted. */
uint64_t bounds_max_memory(void);

#endif /* BOUNDS_H */
