/* SPDX-License-Identifier: BSD-3-Clause */
/* test-counters: sparse numbers of clusters agree with a plain array,
 * and take memory in proportion to what was counted.
 */
#include <errno.h>
#include <stdlib.h>

#include "cache/counters.h"
#include "expect.h"
#include "rng.h"

static uint64_t
next_from(struct counters *c, uint64_t from, uint64_t end)
{
    return counters_next(c, &from, end) ? from : UINT64_MAX;
}

static void
test_nothing_is_counted_at_first(void **state)
{
    struct counters c = { 0 };
    struct qcow2_error err;

    (void)state;
    assert_int_equal(counters_get(&c, 0), 0);
    assert_int_equal(counters_get(&c, UINT64_MAX), 0);
    EXPECT_OK(counters_sort(&c, &err), &err);
    assert_true(next_from(&c, 0, UINT64_MAX) == UINT64_MAX);
    counters_free(&c);
}

static void
test_numbers_of_any_size_are_kept_apart(void **state)
{
    const uint64_t numbers[] = {
        1, 3, 4, 15, 16, 255, 256, 65535, 65536, UINT32_MAX,
        UINT64_C(1) << 32, UINT64_MAX,
    };
    enum { NR = sizeof numbers / sizeof numbers[0] };
    struct counters c = { 0 };
    struct qcow2_error err;

    (void)state;
    for (unsigned i = 0; i < NR; i++)
        EXPECT_OK(counters_set(&c, 100 + i, numbers[i], &err), &err);
    for (unsigned i = 0; i < NR; i++)
        assert_true(counters_get(&c, 100 + i) == numbers[i]);
    assert_int_equal(counters_get(&c, 99), 0);
    assert_int_equal(counters_get(&c, 100 + NR), 0);
    counters_free(&c);
}

static void
test_adding_stops_at_the_largest_number(void **state)
{
    struct counters c = { 0 };
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(counters_add(&c, 7, UINT64_MAX - 1, &err), &err);
    EXPECT_OK(counters_add(&c, 7, 5, &err), &err);
    assert_true(counters_get(&c, 7) == UINT64_MAX);
    counters_free(&c);
}

static void
test_random_counts_agree_with_an_array(void **state)
{
    enum { NR = 5000 };
    static uint64_t model[NR];
    struct counters c = { 0 };
    struct qcow2_error err;
    struct rng rng;
    uint64_t seed = rng_seed(1), end;

    (void)state;
    expect_case("seed %llu", (unsigned long long)seed);
    rng_init(&rng, seed, 0);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t k = rng_below(&rng, NR), n = rng_below(&rng, 300);

        if (k % 1000 > 700)
            continue;
        EXPECT_OK(counters_add(&c, k, n, &err), &err);
        model[k] += n;
    }
    EXPECT_OK(counters_sort(&c, &err), &err);
    for (uint64_t from = 0; from < NR; from++) {
        uint64_t next = from;

        EXPECT(counters_get(&c, from) == model[from], "%llu",
               (unsigned long long)from);
        while (next < NR && model[next] == 0)
            next++;
        EXPECT(next_from(&c, from, NR) == (next < NR ? next : UINT64_MAX),
               "from %llu", (unsigned long long)from);
    }
    end = next_from(&c, 0, 1);
    assert_true(end == (model[0] ? 0 : UINT64_MAX));
    counters_free(&c);
}

static void
test_ranges_are_what_each_cluster_of_them_is(void **state)
{
    enum { NR = 2000 };
    uint64_t model[NR] = { 0 };
    struct counters c = { 0 };
    struct qcow2_error err;
    struct rng rng;
    uint64_t seed = rng_seed(2);

    (void)state;
    expect_case("seed %llu", (unsigned long long)seed);
    rng_init(&rng, seed, 0);
    for (unsigned i = 0; i < 300; i++) {
        uint64_t from = rng_below(&rng, NR), n = rng_below(&rng, 3), number;
        uint64_t nr = 1 + rng_below(&rng, NR - from), same;

        EXPECT_OK(counters_add_range(&c, from, nr, n, &err), &err);
        for (uint64_t k = from; k < from + nr; k++)
            model[k] += n;
        from = rng_below(&rng, NR);
        same = counters_run(&c, from, NR - from, &number);
        EXPECT(same > 0 && number == model[from], "number");
        for (uint64_t k = from; k < from + same; k++)
            EXPECT(model[k] == number, "run at %llu", (unsigned long long)k);
    }
    for (uint64_t k = 0; k < NR; k++)
        EXPECT(counters_get(&c, k) == model[k], "%llu", (unsigned long long)k);
    EXPECT_OK(counters_add_range(&c, 250, 20, UINT64_MAX, &err), &err);
    assert_true(counters_get(&c, 250) == UINT64_MAX);
    assert_true(counters_get(&c, 269) == UINT64_MAX);
    assert_true(counters_get(&c, 270) == model[270]);
    counters_free(&c);
}

static void
test_memory_is_for_what_is_counted(void **state)
{
    struct counters c = { 0 };
    struct qcow2_error err;

    (void)state;
    /* Far apart: what a file may claim does not matter. */
    for (uint64_t i = 0; i < 64; i++)
        EXPECT_OK(counters_add(&c, i << 50, 1, &err), &err);
    EXPECT(c.nr_bytes < 16384, "%llu bytes", (unsigned long long)c.nr_bytes);
    counters_free(&c);

    /* A million clusters in a row: half a byte each. */
    for (uint64_t i = 0; i < 1 << 20; i++)
        EXPECT_OK(counters_add(&c, i, 1, &err), &err);
    EXPECT(c.nr_bytes < 1 << 19, "%llu bytes",
           (unsigned long long)c.nr_bytes);
    counters_free(&c);
}

static void
test_too_much_to_count_is_refused(void **state)
{
    struct counters c = { 0 };
    struct qcow2_error err;
    uint64_t i = 0;

    (void)state;
    EXPECT_OK(counters_set(&c, i, 1, &err), &err);
    c.nr_bytes += (UINT64_C(512) << 20) - 65536; /* as if there were more */
    while (counters_set(&c, i << 8, UINT64_MAX, &err) == 0)
        i++;
    assert_int_equal(err.errnum, ENOMEM);
    assert_in_range(i, 8, 64);
    assert_int_equal(counters_get(&c, 0), UINT64_MAX);
    counters_free(&c);
}

/* Few clusters in a row, far apart, and so many that what lay in the hash is
 * found by its index: nothing is lost nor counted twice on the way. */
static void
test_dense_and_sparse_clusters_stand_side_by_side(void **state)
{
    enum { NR = 3000, STEP = 256 };
    const uint64_t far = UINT64_C(1) << 45;
    struct counters c = { 0 };
    struct qcow2_error err;
    uint64_t at = 0;

    (void)state;
    for (uint64_t i = NR; i-- > 0;) {
        EXPECT_OK(counters_add(&c, i * STEP, 1 + i % 5, &err), &err);
        EXPECT_OK(counters_add(&c, far + i * STEP * STEP, 2, &err), &err);
    }
    for (uint64_t i = 0; i < NR; i++) {
        assert_int_equal(counters_get(&c, i * STEP), 1 + i % 5);
        assert_int_equal(counters_get(&c, i * STEP + 1), 0);
        assert_int_equal(counters_get(&c, far + i * STEP * STEP), 2);
    }
    assert_int_equal(counters_get(&c, (uint64_t)NR * STEP), 0);
    EXPECT_OK(counters_sort(&c, &err), &err);
    for (uint64_t i = 0; i < 2 * NR; i++, at++) {
        assert_true(counters_next(&c, &at, UINT64_MAX));
        assert_true(at == (i < NR ? i * STEP
                                  : far + (i - NR) * STEP * STEP));
    }
    assert_false(counters_next(&c, &at, UINT64_MAX));
    counters_free(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_counted_at_first),
        cmocka_unit_test(test_numbers_of_any_size_are_kept_apart),
        cmocka_unit_test(test_adding_stops_at_the_largest_number),
        cmocka_unit_test(test_random_counts_agree_with_an_array),
        cmocka_unit_test(test_ranges_are_what_each_cluster_of_them_is),
        cmocka_unit_test(test_memory_is_for_what_is_counted),
        cmocka_unit_test(test_too_much_to_count_is_refused),
        cmocka_unit_test(test_dense_and_sparse_clusters_stand_side_by_side),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
