/* SPDX-License-Identifier: BSD-3-Clause */
/* expect.h: assertions that say in which of many generated cases they
 * failed. For the main thread of a cmocka test.
 */
#ifndef EXPECT_H
#define EXPECT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "qcow2.h"

/* What is being tried, with its seed; printed by the next failure. */
void expect_case(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* What happens inside the case: appended to it when something fails. */
void expect_step(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

_Noreturn void expect_failed(const char *file, int line, const char *what,
                             const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define EXPECT(cond, ...)                                               \
    do {                                                                \
        if (!(cond))                                                    \
            expect_failed(__FILE__, __LINE__, #cond, __VA_ARGS__);      \
    } while (0)

/* call returns 0 on success and fills err. */
#define EXPECT_OK(call, err)                                            \
    do {                                                                \
        if ((call) != 0)                                                \
            expect_failed(__FILE__, __LINE__, #call, "%s (errno %d)",   \
                          (err)->text, (err)->errnum);                  \
    } while (0)

/* Both hold the same nr_bytes; off is where they are on the disk. */
void expect_same(const char *what, const void *got, const void *want,
                 size_t nr_bytes, uint64_t off);

#endif /* EXPECT_H */
