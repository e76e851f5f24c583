/* SPDX-License-Identifier: BSD-3-Clause */
/* test-linear.c: histories of blocks that fit some order pass, and forged
 * ones that fit none are refused.
 */
#include <stdlib.h>

#include "expect.h"
#include "linear.h"
#include "rng.h"

/* In block 7, which held LINEAR_INITIAL. */
struct line {
    char kind;              /* 'w' or 'r' */
    uint64_t value, start, end;
};

static bool
fits(const struct line *lines, unsigned nr, char *why, size_t size)
{
    struct linear_history h = { NULL, 0, 0 };
    bool ok;

    linear_add(&h, (struct linear_event){ .block = 7,
                                          .value = LINEAR_INITIAL });
    /* Another block, of which nobody complains. */
    linear_add(&h, (struct linear_event){ .block = 8, .value = 0 });
    for (unsigned i = 0; i < nr; i++)
        linear_add(&h, (struct linear_event){
            .block = 7, .is_read = lines[i].kind == 'r',
            .value = lines[i].value, .start = lines[i].start,
            .end = lines[i].end,
        });
    ok = linear_check(&h, why, size);
    linear_free(&h);
    return ok;
}

#define EXPECT_FITS(...)                                                \
    do {                                                                \
        const struct line lines_[] = { __VA_ARGS__ };                   \
        char why_[256];                                                 \
        EXPECT(fits(lines_, sizeof lines_ / sizeof lines_[0], why_,     \
                    sizeof why_), "%s", why_);                          \
    } while (0)

#define EXPECT_REFUSED(...)                                             \
    do {                                                                \
        const struct line lines_[] = { __VA_ARGS__ };                   \
        char why_[256] = "";                                            \
        EXPECT(!fits(lines_, sizeof lines_ / sizeof lines_[0], why_,    \
                     sizeof why_), "accepted");                         \
        EXPECT(strstr(why_, "block 7"), "%s", why_);                    \
    } while (0)

static void
requests_one_after_the_other_fit(void **state)
{
    (void)state;
    EXPECT_FITS({ 'r', LINEAR_INITIAL, 1, 2 }, { 'w', 20, 3, 4 },
                { 'r', 20, 5, 6 }, { 'w', 0, 7, 8 }, { 'r', 0, 9, 10 },
                { 'w', 0, 11, 12 }, { 'r', 0, 13, 14 });
}

static void
overlapping_writes_fit_in_either_order(void **state)
{
    (void)state;
    EXPECT_FITS({ 'w', 20, 1, 4 }, { 'w', 30, 2, 3 }, { 'r', 20, 5, 6 });
    EXPECT_FITS({ 'w', 20, 1, 4 }, { 'w', 30, 2, 3 }, { 'r', 30, 5, 6 });
    /* Read before it returns. */
    EXPECT_FITS({ 'w', 20, 1, 10 }, { 'r', 20, 2, 3 }, { 'w', 30, 4, 5 },
                { 'r', 30, 6, 7 }, { 'r', 30, 11, 12 });
    /* An order that is found only by trying again. */
    EXPECT_FITS({ 'w', 20, 1, 20 }, { 'w', 30, 2, 21 }, { 'w', 40, 3, 22 },
                { 'r', 40, 4, 5 }, { 'r', 20, 6, 7 }, { 'r', 30, 8, 9 },
                { 'r', 30, 23, 24 });
}

static void
a_stale_read_is_refused(void **state)
{
    (void)state;
    EXPECT_REFUSED({ 'w', 20, 1, 2 }, { 'r', LINEAR_INITIAL, 3, 4 });
    EXPECT_REFUSED({ 'w', 20, 1, 2 }, { 'w', 30, 3, 4 }, { 'r', 20, 5, 6 });
    /* Zeroes were written once before. */
    EXPECT_REFUSED({ 'w', 0, 1, 2 }, { 'w', 30, 3, 4 }, { 'r', 0, 5, 6 });
}

static void
a_lost_write_is_refused(void **state)
{
    (void)state;
    EXPECT_REFUSED({ 'w', 20, 1, 4 }, { 'w', 30, 2, 3 },
                   { 'r', LINEAR_INITIAL, 5, 6 });
    /* It was there, and went. */
    EXPECT_REFUSED({ 'w', 20, 1, 2 }, { 'w', 30, 3, 6 }, { 'r', 30, 4, 5 },
                   { 'r', 20, 7, 8 });
}

static void
what_nobody_wrote_or_wrote_later_is_refused(void **state)
{
    (void)state;
    EXPECT_REFUSED({ 'w', 20, 1, 2 }, { 'r', 99, 3, 4 });
    EXPECT_REFUSED({ 'r', 20, 1, 2 }, { 'w', 20, 3, 4 });
}

/* Each read alone could be explained. */
static void
readers_who_disagree_on_the_order_are_refused(void **state)
{
    (void)state;
    EXPECT_REFUSED({ 'w', 20, 1, 20 }, { 'w', 30, 2, 21 }, { 'r', 20, 3, 4 },
                   { 'r', 30, 5, 6 }, { 'r', 20, 7, 8 });
    EXPECT_REFUSED({ 'w', 20, 1, 20 }, { 'w', 30, 2, 21 }, { 'r', 20, 22, 23 },
                   { 'r', 30, 24, 25 });
}

static void
a_torn_block_is_nobodys(void **state)
{
    /* Each byte differs, and is not 0: a block that was torn within its first
     * word has neither value, whatever order bytes have on this machine. */
    const uint64_t value_a = UINT64_C(0x1414141414141414);
    const uint64_t value_b = UINT64_C(0x1e1e1e1e1e1e1e1e);
    unsigned char initial[LINEAR_BLOCK], a[LINEAR_BLOCK], b[LINEAR_BLOCK];
    uint64_t value;

    (void)state;
    pattern_fill(initial, sizeof initial, 5, 4096);
    linear_make_block(a, value_a, 4096);
    linear_make_block(b, value_b, 4096);
    assert_true(linear_value_of(initial, 4096, initial, &value));
    assert_int_equal(value, LINEAR_INITIAL);
    assert_true(linear_value_of(a, 4096, initial, &value));
    assert_int_equal(value, value_a);
    /* Somebody else's place. */
    assert_false(linear_value_of(a, 8192, initial, &value));
    for (size_t n = 1; n < LINEAR_BLOCK; n++) {
        unsigned char torn[LINEAR_BLOCK];

        memcpy(torn, a, sizeof torn);
        memcpy(torn + n, b + n, sizeof torn - n);
        if (memcmp(torn, b, sizeof torn) != 0)
            assert_false(linear_value_of(torn, 4096, initial, &value));
        memset(torn + n, 0, sizeof torn - n);
        assert_false(linear_value_of(torn, 4096, initial, &value));
    }
}

/* Requests of several threads that happened at moments between call and
 * return: any such history fits. A read of a later or a lost value does not.
 */
static void
random_histories_fit_until_one_read_is_forged(void **state)
{
    enum { NR = 400, THREADS = 16 };
    uint64_t seed = rng_seed(1);

    (void)state;
    expect_case("TEST_SEED=%llu", (unsigned long long)seed);
    for (unsigned round = 0; round < 20; round++) {
        uint64_t free_at[THREADS] = { 0 }, content = LINEAR_INITIAL;
        struct line lines[NR + 1];
        char why[256];
        struct rng r;

        rng_init(&r, seed, round);
        for (unsigned i = 0; i < NR; i++) {
            /* At 1000 (i + 1) it happens; nobody else has its moments. */
            uint64_t at = UINT64_C(1000) * (i + 1);
            unsigned t = rng_below(&r, THREADS);
            uint64_t early = rng_below(&r, 8000);

            if (free_at[t] >= at)
                free_at[t] = at - 1;
            lines[i].start = at > early + free_at[t] ? at - early
                                                     : free_at[t] + 1;
            lines[i].start = lines[i].start / 1000 * 1000 + 1 + i % 400;
            if (lines[i].start >= at)
                lines[i].start = at - 500 + i % 400;
            lines[i].end = at + 1000 * rng_below(&r, 8) + 401 + i % 400;
            free_at[t] = lines[i].end;
            lines[i].kind = rng_percent(&r, 50) ? 'r' : 'w';
            lines[i].value = rng_percent(&r, 20) ? 0 : 100 + i;
            if (lines[i].kind == 'r')
                lines[i].value = content;
            content = lines[i].value;
        }
        EXPECT(fits(lines, NR, why, sizeof why), "round %u: %s", round, why);

        lines[NR] = (struct line){ 'w', 50, 1000000, 1000001 };
        EXPECT(fits(lines, NR + 1, why, sizeof why), "%s", why);
        lines[NR] = (struct line){ 'r', LINEAR_INITIAL, 1000000, 1000001 };
        EXPECT(!fits(lines, NR + 1, why, sizeof why), "accepted");
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_one_after_the_other_fit),
        cmocka_unit_test(overlapping_writes_fit_in_either_order),
        cmocka_unit_test(a_stale_read_is_refused),
        cmocka_unit_test(a_lost_write_is_refused),
        cmocka_unit_test(what_nobody_wrote_or_wrote_later_is_refused),
        cmocka_unit_test(readers_who_disagree_on_the_order_are_refused),
        cmocka_unit_test(a_torn_block_is_nobodys),
        cmocka_unit_test(random_histories_fit_until_one_read_is_forged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
