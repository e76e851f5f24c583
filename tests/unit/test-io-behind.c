/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-behind.c: when the kernel is told to begin to write. */
#include "storage/io-behind.h"

#include "expect.h"

enum { MIB = 1024 * 1024 };

static void
small_writes_are_left_to_the_kernel(void **state)
{
    struct io_behind b;
    uint64_t from, to;

    (void)state;
    io_behind_init(&b);
    for (uint64_t i = 0; i < 4096; i++)
        EXPECT(!io_behind_written(&b, i * 4096, IO_BEHIND_LARGE - 1, &from,
                                  &to), "write %u", (unsigned)i);
    io_behind_destroy(&b);
}

static void
large_writes_begin_once_they_are_enough(void **state)
{
    struct io_behind b;
    uint64_t from, to, first = 0;

    (void)state;
    io_behind_init(&b);
    for (uint64_t i = 0; i < 64; i++) {
        bool begin = io_behind_written(&b, 7 * MIB + i * MIB, MIB, &from,
                                       &to);

        EXPECT(begin == ((i + 1) % 16 == 0), "after %u MiB",
               (unsigned)i + 1);
        if (begin) {
            EXPECT(from == 7 * MIB + first * MIB
                   && to == 7 * MIB + (i + 1) * MIB, "what was begun");
            first = i + 1;
        }
    }
    io_behind_destroy(&b);
}

static void
all_that_was_written_is_begun_in_whatever_order_it_came(void **state)
{
    struct io_behind b;
    uint64_t from, to;

    (void)state;
    io_behind_init(&b);
    EXPECT(!io_behind_written(&b, UINT64_C(1) << 40, 8 * MIB, &from, &to),
           "too early");
    EXPECT(io_behind_written(&b, 3 * MIB, 8 * MIB, &from, &to), "too late");
    EXPECT(from == 3 * MIB && to == (UINT64_C(1) << 40) + 8 * MIB,
           "what was begun");
    io_behind_destroy(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_writes_are_left_to_the_kernel),
        cmocka_unit_test(large_writes_begin_once_they_are_enough),
        cmocka_unit_test(
            all_that_was_written_is_begun_in_whatever_order_it_came),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
