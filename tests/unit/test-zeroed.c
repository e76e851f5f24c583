/* SPDX-License-Identifier: BSD-3-Clause */
/* test-zeroed.c: arrays of zeroes take memory where they are written. */
#include "base/zeroed.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "expect.h"

enum { SIZE = 256 << 20 };

static void
test_all_of_an_array_is_zeroes(void **state)
{
    static const size_t sizes[] = { 0, 1, 4095, 65535, 65536, 1 << 20 };

    (void)state;
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *p = zeroed_new(sizes[i]);

        assert_non_null(p);
        for (size_t at = 0; at < sizes[i]; at++)
            assert_int_equal(p[at], 0);
        memset(p, 1, sizes[i]);
        zeroed_free(p, sizes[i]);
    }
    zeroed_free(NULL, 1);
    zeroed_free(NULL, SIZE);
}

static void
test_zeroes_are_not_copied(void **state)
{
    unsigned char *to = zeroed_new(1 << 20), *from = calloc(1, 1 << 20);

    (void)state;
    assert_true(to && from);
    from[5000] = 1;
    from[(1 << 20) - 1] = 2;
    assert_int_equal(zeroed_copy(to, from, 1 << 20), 2 * 4096);
    assert_memory_equal(to, from, 1 << 20);
    assert_int_equal(zeroed_copy(to, from, 5001), 5001 - 4096);
    assert_int_equal(zeroed_copy(to, from, 0), 0);
    zeroed_free(to, 1 << 20);
    free(from);
}

#ifndef __SANITIZE_ADDRESS__
static uint64_t
kib_in_memory(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    unsigned long kib = 0;
    char line[256];

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %lu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib;
}

/* Huge pages, too, are none: one byte each 2 MiB. */
static void
test_what_is_not_written_takes_no_memory(void **state)
{
    uint64_t before = kib_in_memory(), sum = 0;
    unsigned char *p = zeroed_new(SIZE);

    (void)state;
    assert_non_null(p);
    for (size_t at = 0; at < SIZE; at += 4096)
        sum += ((volatile unsigned char *)p)[at];
    assert_int_equal(sum, 0);
    for (size_t at = 0; at < SIZE; at += 2 << 20)
        p[at] = 1;
    assert_true(before == 0 || kib_in_memory() < before + (16 << 10));
    zeroed_free(p, SIZE);
}
#endif

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_of_an_array_is_zeroes),
        cmocka_unit_test(test_zeroes_are_not_copied),
#ifndef __SANITIZE_ADDRESS__
        cmocka_unit_test(test_what_is_not_written_takes_no_memory),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
