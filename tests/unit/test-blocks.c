/* SPDX-License-Identifier: BSD-3-Clause */
/* test-blocks.c: buffers are cut where blocks begin to be alike, or unlike. */
#include "base/blocks.h"

#include "expect.h"
#include "rng.h"

enum { NR_ROUNDS = 2000, MOST = 64 };

static void
zeroes_are_zeroes_only(void **state)
{
    unsigned char buf[20] = { 0 };

    (void)state;
    for (unsigned n = 1; n <= sizeof buf; n++)
        for (unsigned i = 0; i < n; i++) {
            EXPECT(bytes_are_zero(buf, n), "%u zeroes", n);
            buf[i] = 1;
            EXPECT(!bytes_are_zero(buf, n), "%u bytes, not zero at %u", n, i);
            buf[i] = 0;
        }
}

/* One block after the other, told the slow way. */
static bool
is_same(const unsigned char *a, const unsigned char *b, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (a[i] != (b ? b[i] : 0))
            return false;
    return true;
}

static void
runs_end_where_blocks_differ(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, rng_seed(1), 0);
    for (unsigned i = 0; i < NR_ROUNDS; i++) {
        unsigned char a[MOST], b[MOST] = { 0 };
        const unsigned char *other = i & 1 ? b : NULL;
        uint64_t block = 1u << rng_below(&rng, 6), off = rng_below(&rng, 99);
        uint64_t nr = 1 + rng_below(&rng, MOST), len, at, end;
        bool same, first;

        expect_case("round %u", i);
        for (unsigned j = 0; j < MOST; j++)
            a[j] = rng_percent(&rng, 8);
        len = blocks_alike(a, other, nr, off, block, &same);
        EXPECT(len > 0 && len <= nr, "%llu", (unsigned long long)len);
        EXPECT(len == nr || (off + len) % block == 0, "inside a block");
        for (at = 0; at < len; at = end) {
            end = ((off + at) / block + 1) * block - off;
            end = end < nr ? end : nr;
            EXPECT(is_same(a + at, other, end - at) == same, "another");
        }
        if (len == nr)
            continue;
        end = len + block < nr ? len + block : nr;
        first = is_same(a + len, other, end - len);
        EXPECT(first != same, "it goes on");
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeroes_are_zeroes_only),
        cmocka_unit_test(runs_end_where_blocks_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
