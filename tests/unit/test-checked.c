/* SPDX-License-Identifier: BSD-3-Clause */
/* test-checked.c: arithmetic at the edge of 64 bits. */
#include "base/checked.h"

#include "expect.h"

static void
overflow_is_told_exactly(void **state)
{
    uint64_t r;

    (void)state;
    assert_false(add_overflows(UINT64_MAX, 0, &r));
    assert_true(r == UINT64_MAX);
    assert_true(add_overflows(UINT64_MAX, 1, &r));
}

static void
powers_of_two_are_known(void **state)
{
    (void)state;
    assert_false(is_power_of_2(0));
    assert_true(is_power_of_2(1));
    assert_false(is_power_of_2(3));
    assert_true(is_power_of_2(UINT64_C(1) << 63));
    assert_false(is_power_of_2(UINT64_MAX));
}

static void
rounding_keeps_what_is_aligned(void **state)
{
    (void)state;
    assert_true(round_down(4095, 512) == 3584);
    assert_true(round_down(4096, 512) == 4096);
    assert_true(round_up(4095, 512) == 4096);
    assert_true(round_up(4096, 512) == 4096);
    assert_true(round_up(0, 512) == 0);
    assert_true(is_aligned(4096, 512));
    assert_false(is_aligned(4097, 512));
    assert_true(is_aligned(0, 512));
}

static void
division_rounds_up_without_overflow(void **state)
{
    (void)state;
    assert_true(div_round_up(0, 8) == 0);
    assert_true(div_round_up(8, 8) == 1);
    assert_true(div_round_up(9, 8) == 2);
    assert_true(div_round_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
}

static void
a_range_is_inside_only_with_all_of_it(void **state)
{
    (void)state;
    assert_true(range_inside(0, 10, 10));
    assert_true(range_inside(10, 0, 10));
    assert_false(range_inside(11, 0, 10));
    assert_false(range_inside(9, 2, 10));
    assert_false(range_inside(1, UINT64_MAX, 10));
    assert_false(range_inside(UINT64_MAX, 2, 10));
}

static void
the_smaller_and_the_larger(void **state)
{
    (void)state;
    assert_true(min_u64(1, UINT64_MAX) == 1);
    assert_true(max_u64(1, UINT64_MAX) == UINT64_MAX);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_is_told_exactly),
        cmocka_unit_test(powers_of_two_are_known),
        cmocka_unit_test(rounding_keeps_what_is_aligned),
        cmocka_unit_test(division_rounds_up_without_overflow),
        cmocka_unit_test(a_range_is_inside_only_with_all_of_it),
        cmocka_unit_test(the_smaller_and_the_larger),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
