/* SPDX-License-Identifier: BSD-3-Clause */
/* test-refcount.c: refcounts of every width in memory, and those of images.
 */
#include "meta/refcount.h"

#include <errno.h>

#include "bare.h"
#include "expect.h"
#include "meta/map.h"
#include "rng.h"

enum { TABLE_BYTES = 512 };

static void
neighbours_do_not_touch_each_other(void **state)
{
    struct rng r;

    (void)state;
    rng_init(&r, rng_seed(1), 0);
    for (unsigned order = 0; order <= MAX_REFCOUNT_ORDER; order++) {
        uint64_t want[TABLE_BYTES * 8] = { 0 };
        unsigned char table[TABLE_BYTES] = { 0 };
        unsigned nr = TABLE_BYTES * 8 >> order;

        expect_case("width %u", 1u << order);
        for (unsigned i = 0; i < 20000; i++) {
            unsigned at = rng_below(&r, nr);

            want[at] = rng_next(&r) & refcount_max(order);
            refcount_set(table, order, at, want[at]);
            at = rng_below(&r, nr);
            EXPECT(refcount_get(table, order, at) == want[at], "%u", at);
        }
        for (unsigned at = 0; at < nr; at++)
            EXPECT(refcount_get(table, order, at) == want[at], "%u", at);
    }
}

static void
narrow_refcounts_fill_bytes_from_below(void **state)
{
    unsigned char table[4] = { 0 };

    (void)state;
    refcount_set(table, 0, 1, 1);
    refcount_set(table, 0, 8, 1);
    assert_int_equal(table[0], 2);
    assert_int_equal(table[1], 1);
    refcount_set(table, 1, 9, 3);
    assert_int_equal(table[2], 3 << 2);
    refcount_set(table, 2, 7, 10);
    assert_int_equal(table[3], 10 << 4);
}

static void
wide_refcounts_are_big_endian(void **state)
{
    static const unsigned char want[8] = { 0, 0, 0, 0, 0, 0, 1, 2 };
    unsigned char table[8] = { 0 };

    (void)state;
    refcount_set(table, 4, 3, 0x102);
    assert_memory_equal(table, want, 8);
    assert_int_equal(refcount_get(table, 5, 1), 0x102);
    assert_int_equal(refcount_get(table, 6, 0), 0x102);
    assert_int_equal(refcount_get(table, 3, 7), 2);
}

static void
most_is_all_ones(void **state)
{
    (void)state;
    assert_int_equal(refcount_max(0), 1);
    assert_int_equal(refcount_max(1), 3);
    assert_int_equal(refcount_max(4), 65535);
    assert_true(refcount_max(6) == UINT64_MAX);
}

static void
the_first_zero_is_found(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= MAX_REFCOUNT_ORDER; order++) {
        unsigned char table[TABLE_BYTES];
        unsigned nr = TABLE_BYTES * 8 >> order;

        memset(table, 0xff, sizeof table);
        assert_int_equal(refcount_find_zero(table, order, 0, nr), nr);
        for (unsigned at = 0; at < nr; at += 7) {
            refcount_set(table, order, at, 0);
            assert_int_equal(refcount_find_zero(table, order, 0, nr), at);
            assert_int_equal(refcount_find_zero(table, order, at, nr), at);
            assert_int_equal(refcount_find_zero(table, order, at + 1, nr),
                             nr);
            assert_int_equal(refcount_find_zero(table, order, 0, at), at);
            refcount_set(table, order, at, 1);
        }
    }
}

/* Of one value, of one with an exception, and of any. */
static void
fill_part(struct rng *r, unsigned char *table, unsigned order, unsigned from,
          unsigned to)
{
    unsigned kind = rng_below(r, 3);
    uint64_t most = refcount_max(order) - 1, one = rng_next(r) & most;

    for (unsigned i = from; i < to; i++)
        refcount_set(table, order, i,
                     most && kind == 2 ? rng_next(r) % most : one);
    if (kind == 1)
        refcount_set(table, order, from + rng_below(r, to - from), 0);
}

static void
ranges_are_what_each_of_them_is(void **state)
{
    struct rng r;

    (void)state;
    rng_init(&r, rng_seed(2), 0);
    for (unsigned round = 0; round < 7000; round++) {
        unsigned order = round % 7, nr = TABLE_BYTES * 8 >> order;
        unsigned from = rng_below(&r, nr);
        unsigned to = from + 1 + rng_below(&r, nr - from), run = 1;
        unsigned char table[TABLE_BYTES], after[TABLE_BYTES];
        uint64_t lo = UINT64_MAX, hi = 0, least, most;

        memset(table, 0x55, sizeof table);
        fill_part(&r, table, order, from, to);
        memcpy(after, table, sizeof after);
        for (unsigned i = from; i < to; i++) {
            uint64_t n = refcount_get(table, order, i);

            lo = n < lo ? n : lo;
            hi = n > hi ? n : hi;
            refcount_set(after, order, i, n + 1);
        }
        while (from + run < to && refcount_get(table, order, from + run)
                                  == refcount_get(table, order, from))
            run++;
        expect_case("width %u, %u to %u", 1u << order, from, to);
        refcount_bounds(table, order, from, to - from, &least, &most);
        EXPECT(least == lo && most == hi, "bounds");
        EXPECT(refcount_run(table, order, from, to - from) == run, "run");
        refcount_add(table, order, from, to - from, 1);
        assert_memory_equal(table, after, sizeof after);
    }
}

static void
those_of_an_image_are_read(void **state)
{
    static const unsigned widths[] = { 1, 2, 4, 8, 16, 32, 64 };

    (void)state;
    for (unsigned i = 0; i < 7; i++) {
        struct qcow2_error err;
        uint64_t gap, end, n, nr;
        struct mapping m;
        char recipe[128];
        struct bare b;

        snprintf(recipe, sizeof recipe, "cluster 8K; refcount-bits %u;"
                 "size 1M; data 0-9 1; gap 1; data 10 1", widths[i]);
        bare_open(&b, recipe);
        EXPECT_OK(map_lookup(&b.img->active, 10 << 13, 1, &m, &err), &err);
        gap = (m.host_off >> 13) - 1;
        mem_bytes(b.mem, &end);
        end >>= 13;
        for (uint64_t c = 0; c < end; c++) {
            nr = end - c;
            EXPECT_OK(refcount_read(b.img, c, &nr, &n, &err), &err);
            EXPECT(n == (c != gap), "cluster %llu: %llu",
                   (unsigned long long)c, (unsigned long long)n);
            EXPECT(nr == (c < gap ? gap - c : c == gap ? 1 : end - c),
                   "cluster %llu: %llu are alike", (unsigned long long)c,
                   (unsigned long long)nr);
        }
        /* Past all that is counted. */
        nr = 1;
        EXPECT_OK(refcount_read(b.img, UINT64_C(1) << 40, &nr, &n, &err),
                  &err);
        EXPECT(n == 0, "far away: %llu", (unsigned long long)n);
        bare_close(&b);
    }
}

static void
a_damaged_table_is_not_followed(void **state)
{
    static const char *const pokes[] = {
        "reftable[0] | 256", "reftable[0] | 0x100000000000000",
        "reftable[0] = 0x7ffffffffffff000", "reftable[0] = @end + @cluster",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        struct qcow2_error err;
        char recipe[128];
        struct bare b;
        uint64_t n;

        snprintf(recipe, sizeof recipe, "cluster 4K; size 1M; data 0 1;"
                 "poke %s", pokes[i]);
        bare_open(&b, recipe);
        EXPECT(refcount_read(b.img, 1, &(uint64_t){ 1 }, &n, &err) == -1
               && err.errnum == EIO, "followed");
        bare_drop(&b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_do_not_touch_each_other),
        cmocka_unit_test(narrow_refcounts_fill_bytes_from_below),
        cmocka_unit_test(wide_refcounts_are_big_endian),
        cmocka_unit_test(most_is_all_ones),
        cmocka_unit_test(the_first_zero_is_found),
        cmocka_unit_test(ranges_are_what_each_of_them_is),
        cmocka_unit_test(those_of_an_image_are_read),
        cmocka_unit_test(a_damaged_table_is_not_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
