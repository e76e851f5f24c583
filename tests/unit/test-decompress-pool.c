/* SPDX-License-Identifier: BSD-3-Clause */
/* test-decompress-pool.c: spaces to work in, and what was read lately. */
#include "cache/decompress-pool.h"

#include "expect.h"

static const char disk, other;

static struct decompress_pool *
make(void)
{
    struct decompress_pool *c = decompress_pool_new(16 << 20, NULL);

    assert_non_null(c);
    return c;
}

static void
a_space_is_used_again(void **state)
{
    struct decompress_pool *c = make();
    struct workspace *a = decompress_pool_take_space(c, 1000, 0, NULL), *b;

    (void)state;
    assert_non_null(a);
    memset(a->in, 1, 1000);
    b = decompress_pool_take_space(c, 10, 10, NULL);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    decompress_pool_put_space(c, b);
    decompress_pool_put_space(c, a);
    b = decompress_pool_take_space(c, 2000, 500, NULL);
    assert_ptr_equal(a, b);
    memset(b->in, 1, 2000);
    memset(b->out, 1, 500);
    decompress_pool_put_space(c, b);
    decompress_pool_free(c);
}

static void
large_buffers_are_not_kept(void **state)
{
    struct decompress_pool *c = make();
    struct workspace *a = decompress_pool_take_space(c, 4 << 20, 0, NULL), *b;

    (void)state;
    assert_non_null(a);
    memset(a->in, 1, 4 << 20);
    decompress_pool_put_space(c, a);
    b = decompress_pool_take_space(c, 1, 1, NULL);
    assert_ptr_equal(a, b);
    assert_true(b->in_bytes < 4 << 20);
    decompress_pool_put_space(c, a);
    decompress_pool_free(c);
}

static void
readers_in_sequence_are_noticed(void **state)
{
    struct decompress_pool *c = make();

    (void)state;
    assert_int_equal(decompress_pool_note(c, &disk, 0), CLUSTER_FIRST);
    assert_int_equal(decompress_pool_note(c, &disk, 0), CLUSTER_AGAIN);
    assert_int_equal(decompress_pool_note(c, &other, 1), CLUSTER_FIRST);
    assert_int_equal(decompress_pool_note(c, &disk, 1), CLUSTER_NEXT);
    assert_int_equal(decompress_pool_note(c, &disk, 1), CLUSTER_NEXT);
    assert_int_equal(decompress_pool_note(c, &disk, 3), CLUSTER_FIRST);
    assert_int_equal(decompress_pool_note(c, &disk, 2), CLUSTER_NEXT);
    decompress_pool_free(c);
}

static void
long_ago_is_not_just_now(void **state)
{
    struct decompress_pool *c = make();

    (void)state;
    assert_int_equal(decompress_pool_note(c, &disk, 5), CLUSTER_FIRST);
    for (unsigned i = 0; i < 100; i++)
        decompress_pool_note(c, &disk, 20);
    assert_int_equal(decompress_pool_note(c, &disk, 6), CLUSTER_FIRST);
    assert_int_equal(decompress_pool_note(c, &disk, 5), CLUSTER_AGAIN);
    decompress_pool_free(c);
}

static void
much_that_was_read_is_forgotten(void **state)
{
    struct decompress_pool *c = make();

    (void)state;
    decompress_pool_note(c, &disk, 0);
    for (uint64_t i = 2; i < 100000; i += 2)
        assert_int_equal(decompress_pool_note(c, &disk, i), CLUSTER_FIRST);
    assert_int_equal(decompress_pool_note(c, &disk, 0), CLUSTER_FIRST);
    decompress_pool_free(c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_space_is_used_again),
        cmocka_unit_test(large_buffers_are_not_kept),
        cmocka_unit_test(readers_in_sequence_are_noticed),
        cmocka_unit_test(long_ago_is_not_just_now),
        cmocka_unit_test(much_that_was_read_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
