/* SPDX-License-Identifier: BSD-3-Clause */
/* test-resolve.c: what is remembered of a chain says what a walk would. */
#include "layer/resolve.h"

#include <errno.h>
#include <stdlib.h>

#include "expect.h"
#include "fakes.h"
#include "rng.h"

/* Granules of 1 KiB; layers have blocks of 512 bytes to 4 KiB, sizes of any
 * kind, and each block may be anything. */
enum {
    NR_LAYERS = 6, GRANULE_BITS = 10,
    SIZE = FAKE_BLOCKS * FAKE_BLOCK,
};

struct stack {
    struct fake fakes[NR_LAYERS];
    struct source *layers[NR_LAYERS];
    struct source_chain chain;
    struct cache *cache;
};

static void
stack_init(struct stack *s)
{
    s->cache = cache_new(1 << 20, NULL);
    assert_non_null(s->cache);
    for (unsigned i = 0; i < NR_LAYERS; i++) {
        fake_init(&s->fakes[i], SIZE, FAKE_BLOCK);
        s->fakes[i].host_off = i * UINT64_C(0x10000000000);
        s->layers[i] = &s->fakes[i].src;
    }
    s->chain = (struct source_chain){ .nr_layers = NR_LAYERS,
                                      .layers = s->layers };
    s->chain.resolver = resolver_new(s->cache, GRANULE_BITS, NULL);
    assert_non_null(s->chain.resolver);
}

static void
stack_free(struct stack *s)
{
    resolver_free(s->chain.resolver);
    assert_int_equal(cache_used_bytes(s->cache), 0);
    cache_free(s->cache);
    free(s);
}

static struct stack *
random_stack(struct rng *r)
{
    struct stack *s = calloc(1, sizeof *s);

    assert_non_null(s);
    stack_init(s);
    for (unsigned i = 0; i < NR_LAYERS; i++) {
        struct fake *f = &s->fakes[i];
        unsigned bits = rng_below(r, 4);

        f->block_bytes = FAKE_BLOCK << bits;
        f->src.size = i == 0 || rng_percent(r, 50)
                      ? SIZE : 1 + rng_below(r, SIZE);
        for (unsigned b = 0; b < FAKE_BLOCKS;) {
            unsigned n = 1 + rng_below(r, rng_percent(r, 30) ? 600 : 4);
            enum map_kind kind = rng_percent(r, 75) ? MAP_UNALLOCATED
                                 : rng_percent(r, 30) ? MAP_ZERO
                                 : rng_percent(r, 20) ? MAP_COMPRESSED
                                 : MAP_DATA;

            n = n < FAKE_BLOCKS - b ? n : FAKE_BLOCKS - b;
            fake_fill(f, b, b + n, kind);
            b += n;
        }
    }
    return s;
}

static void
expect_same_answer(struct stack *s, unsigned first, uint64_t off, uint64_t n)
{
    struct mapping got, want;
    unsigned got_depth, want_depth;
    struct qcow2_error err;

    EXPECT_OK(source_chain_lookup(&s->chain, first, off, n, &got, &got_depth,
                                  &err), &err);
    EXPECT_OK(source_chain_walk(&s->chain, first, off, n, &want, &want_depth,
                                &err), &err);
    EXPECT(got.kind == want.kind && got.source == want.source
           && got.has_host == want.has_host && got.host_off == want.host_off
           && got_depth == want_depth, "%llu: layer %u, should be %u",
           (unsigned long long)off, got_depth, want_depth);
    EXPECT(got.nr_bytes > 0 && got.nr_bytes <= n, "%llu: %llu bytes",
           (unsigned long long)off, (unsigned long long)got.nr_bytes);
    /* It may hold for longer or shorter than a walk says, but must hold. */
    EXPECT_OK(source_chain_walk(&s->chain, first, off + got.nr_bytes - 1, 1,
                                &want, &want_depth, &err), &err);
    EXPECT(got.kind == want.kind && got_depth == want_depth, "end of %llu",
           (unsigned long long)off);
}

static void
answers_are_those_of_a_walk(void **state)
{
    struct rng r;

    (void)state;
    rng_init(&r, rng_seed(1), 0);
    for (unsigned round = 0; round < 20; round++) {
        struct stack *s = random_stack(&r);

        expect_case("TEST_SEED=%llu: round %u",
                    (unsigned long long)rng_seed(1), round);
        for (unsigned i = 0; i < 2000; i++) {
            uint64_t off = rng_below(&r, SIZE), n = 1 + rng_below(&r, 9000);

            n = n < SIZE - off ? n : SIZE - off;
            expect_same_answer(s, rng_below(&r, 2), off, n);
        }
        stack_free(s);
    }
}

static unsigned
nr_lookups(struct stack *s)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < NR_LAYERS; i++) {
        nr += s->fakes[i].nr_lookups;
        s->fakes[i].nr_lookups = 0;
    }
    return nr;
}

static void
what_was_found_once_costs_no_more_walks(void **state)
{
    struct stack *s = calloc(1, sizeof *s);
    struct mapping m;
    unsigned depth;

    (void)state;
    assert_non_null(s);
    stack_init(s);
    fake_fill(&s->fakes[4], 0, 64, MAP_DATA);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(source_chain_lookup(&s->chain, 0, i * 300, 10, &m,
                                             &depth, NULL), 0);
        assert_int_equal(depth, 4);
        /* One in the disk, to see that it is not there. */
        if (i > 0)
            assert_int_equal(nr_lookups(s), 1);
        nr_lookups(s);
    }
    stack_free(s);
}

/* However many granules a window has: each layer is looked through once. */
static void
a_window_costs_a_lookup_for_each_piece_of_a_layer(void **state)
{
    struct stack *s = calloc(1, sizeof *s);
    struct mapping m;
    unsigned depth;

    (void)state;
    assert_non_null(s);
    stack_init(s);
    fake_fill(&s->fakes[2], 10, 20, MAP_DATA);
    fake_fill(&s->fakes[5], 0, FAKE_BLOCKS, MAP_DATA);
    assert_int_equal(source_chain_lookup(&s->chain, 1, 0, 10, &m, &depth,
                                         NULL), 0);
    assert_int_equal(depth, 5);
    /* Three pieces of layer 2, two of the last, one of each other. */
    EXPECT(nr_lookups(s) <= NR_LAYERS - 1 + 2 + 1, "too many");
    stack_free(s);
}

/* Damage fails the reads that meet it, and no others. */
static void
a_failure_concerns_its_place_alone(void **state)
{
    struct stack *s = calloc(1, sizeof *s);
    struct qcow2_error err;
    struct mapping m;
    unsigned depth;

    (void)state;
    assert_non_null(s);
    stack_init(s);
    fake_fill(&s->fakes[5], 0, FAKE_BLOCKS, MAP_DATA);
    s->fakes[3].fails[100] = true;
    for (unsigned i = 0; i < 200; i++) {
        int r = source_chain_lookup(&s->chain, 0, i * FAKE_BLOCK, FAKE_BLOCK,
                                    &m, &depth, &err);

        EXPECT((r == -1) == (i == 100), "block %u", i);
        EXPECT(r == -1 ? err.errnum == EIO : depth == 5, "block %u", i);
    }
    /* It is not remembered either. */
    s->fakes[3].fails[100] = false;
    assert_int_equal(source_chain_lookup(&s->chain, 0, 100 * FAKE_BLOCK, 1,
                                         &m, &depth, NULL), 0);
    assert_int_equal(depth, 5);
    stack_free(s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_a_walk),
        cmocka_unit_test(what_was_found_once_costs_no_more_walks),
        cmocka_unit_test(a_window_costs_a_lookup_for_each_piece_of_a_layer),
        cmocka_unit_test(a_failure_concerns_its_place_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
