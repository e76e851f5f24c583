/* SPDX-License-Identifier: BSD-3-Clause */
/* test-source.c: guest bytes looked up through layers, and raw layers. */
#include "layer/source.h"

#include <errno.h>
#include <stdlib.h>

#include "expect.h"
#include "fakes.h"
#include "io-mem.h"

enum { B = FAKE_BLOCK, NR = 3 };

struct stack {
    struct fake fakes[NR];
    struct source *layers[NR];
    struct source_chain chain;
};

static int
set_up(void **state)
{
    struct stack *s = calloc(1, sizeof *s);

    if (!s)
        return -1;
    for (unsigned i = 0; i < NR; i++) {
        fake_init(&s->fakes[i], 100 * B, B);
        s->layers[i] = &s->fakes[i].src;
    }
    s->chain = (struct source_chain){ .nr_layers = NR,
                                      .layers = s->layers };
    *state = s;
    return 0;
}

static int
tear_down(void **state)
{
    free(*state);
    return 0;
}

static void
expect_found(struct stack *s, unsigned first, uint64_t off, uint64_t n,
             enum map_kind kind, unsigned layer, uint64_t nr_bytes)
{
    struct qcow2_error err;
    struct mapping m;
    unsigned depth;

    EXPECT_OK(source_chain_lookup(&s->chain, first, off, n, &m, &depth,
                                  &err), &err);
    EXPECT(m.kind == kind && depth == layer && m.nr_bytes == nr_bytes,
           "kind %d in layer %u for %llu bytes", (int)m.kind, depth,
           (unsigned long long)m.nr_bytes);
    EXPECT(m.source == (layer < NR && off < s->layers[layer]->size
                        ? s->layers[layer] : NULL), "source");
}

static void
the_first_layer_that_has_it_decides(void **state)
{
    struct stack *s = *state;

    fake_fill(&s->fakes[0], 10, 20, MAP_DATA);
    fake_fill(&s->fakes[1], 15, 25, MAP_ZERO);
    fake_fill(&s->fakes[2], 0, 100, MAP_DATA);
    expect_found(s, 0, 10 * B, 100, MAP_DATA, 0, 100);
    expect_found(s, 0, 19 * B, 2 * B, MAP_DATA, 0, B);
    expect_found(s, 0, 20 * B, 20 * B, MAP_ZERO, 1, 5 * B);
    expect_found(s, 0, 5 * B + 7, 20 * B, MAP_DATA, 2, 5 * B - 7);
    expect_found(s, 1, 10 * B, 20 * B, MAP_DATA, 2, 5 * B);
    expect_found(s, 2, 15 * B, 20 * B, MAP_DATA, 2, 20 * B);
}

static void
what_no_layer_has_is_zero(void **state)
{
    struct stack *s = *state;

    expect_found(s, 0, 0, 100 * B, MAP_ZERO, NR, 100 * B);
    expect_found(s, NR, 5, 10, MAP_ZERO, NR, 10);
}

static void
past_the_end_of_a_layer_nothing_shows_through(void **state)
{
    struct stack *s = *state;

    s->fakes[1].src.size = 50 * B + 100;
    fake_fill(&s->fakes[2], 0, 100, MAP_DATA);
    expect_found(s, 0, 49 * B, 10 * B, MAP_DATA, 2, B + 100);
    expect_found(s, 0, 50 * B + 100, 10 * B, MAP_ZERO, 1, 10 * B);
    expect_found(s, 0, 60 * B, 10 * B, MAP_ZERO, 1, 10 * B);
    expect_found(s, 0, 100 * B, 10 * B, MAP_ZERO, 0, 10 * B);
}

static void
a_failure_is_the_callers(void **state)
{
    struct stack *s = *state;
    struct qcow2_error err;
    struct mapping m;
    bool zero;

    s->fakes[1].fails[3] = true;
    fake_fill(&s->fakes[0], 4, 5, MAP_DATA);
    s->fakes[1].fails[4] = true;
    EXPECT(source_chain_lookup(&s->chain, 0, 3 * B, B, &m, NULL, &err) == -1
           && err.errnum == EIO, "block 3");
    EXPECT(source_chain_is_zero(&s->chain, 0, 0, 4 * B, &zero, &err) == -1,
           "is zero");
    expect_found(s, 0, 4 * B, B, MAP_DATA, 0, B);
}

static void
zero_is_zero_in_all_of_a_range(void **state)
{
    struct stack *s = *state;
    struct qcow2_error err;
    bool zero;

    fake_fill(&s->fakes[0], 0, 10, MAP_ZERO);
    fake_fill(&s->fakes[2], 0, 12, MAP_DATA);
    EXPECT_OK(source_chain_is_zero(&s->chain, 0, 0, 10 * B, &zero, &err), &err);
    EXPECT(zero, "zero clusters");
    EXPECT_OK(source_chain_is_zero(&s->chain, 0, 0, 10 * B + 1, &zero, &err),
              &err);
    EXPECT(!zero, "data below");
    EXPECT_OK(source_chain_is_zero(&s->chain, 0, 12 * B, 200 * B, &zero, &err),
              &err);
    EXPECT(zero, "nothing, and past the end");
    EXPECT_OK(source_chain_is_zero(&s->chain, 0, 5, 5, &zero, &err), &err);
    EXPECT(zero, "no bytes");
}

static void
a_raw_layer_is_its_file(void **state)
{
    static const unsigned char bytes[1000] = { 1 };
    struct mem *mem = mem_new(bytes, sizeof bytes);
    struct qcow2_error err;
    struct source *raw = raw_new(io_mem_open(mem, true), &err);
    struct mapping m;

    (void)state;
    EXPECT(raw, "%s", err.text);
    EXPECT(raw->size == sizeof bytes, "size");
    EXPECT_OK(raw->ops->lookup(raw, 100, 900, &m, &err), &err);
    EXPECT(m.kind == MAP_DATA && m.host_off == 100 && m.nr_bytes == 900
           && m.source == raw && m.has_host, "mapping");
    raw_free(raw);
    mem_free(mem);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_layer_that_has_it_decides,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_no_layer_has_is_zero, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(
            past_the_end_of_a_layer_nothing_shows_through, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(a_failure_is_the_callers, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(zero_is_zero_in_all_of_a_range,
                                        set_up, tear_down),
        cmocka_unit_test(a_raw_layer_is_its_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
