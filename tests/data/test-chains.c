/* SPDX-License-Identifier: BSD-3-Clause */
/* test-chains: disks on chains of layers that differ in all they can differ
 * in, read, written and mapped against a flat model, and compared with what
 * qemu-img reads. TEST_SEED and TEST_ROUNDS make other and longer runs.
 */
#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "oracle.h"
#include "play.h"
#include "tmpdir.h"

enum { MAX_SIZE = 3 << 20, MAX_LAYERS = 8 };

/* What a chain of files reads as from its top. */
struct chain {
    struct rng rng;
    unsigned char *content; /* MAX_SIZE bytes; zeroes past size */
    uint64_t size;
    char top[32];           /* file name */
    bool top_is_raw;
    uint32_t cluster_size;  /* the top's */
    unsigned version;
};

static uint64_t
random_size(struct chain *c)
{
    return (1 + rng_below(&c->rng, MAX_SIZE / 512)) * 512;
}

/* Past the end of a layer the ones above read zeroes. */
static void
set_size(struct chain *c, uint64_t size)
{
    memset(c->content + size, 0, MAX_SIZE - size);
    c->size = size;
}

static void
add_raw(struct chain *c, unsigned n)
{
    set_size(c, random_size(c));
    pattern_fill(c->content, c->size, 50 + n, 0);
    memset(c->content + c->size / 4, 0, c->size / 4);
    snprintf(c->top, sizeof c->top, "layer%u", n);
    tmpdir_write_file(tmpdir_path(c->top), c->content, c->size);
    c->top_is_raw = true;
}

static void
add_clusters(struct chain *c, struct builder *b, unsigned n)
{
    static const char *const kinds[] = {
        "data", "data", "compressed", "unallocated", "zero", "zero-alloc"
    };
    uint64_t nr = (c->size + c->cluster_size - 1) / c->cluster_size;

    for (unsigned i = 0; i < 10; i++) {
        uint64_t first = rng_below(&c->rng, nr);
        uint64_t last = first + rng_below(&c->rng, nr / 16 + 2);

        if (last >= nr)
            last = nr - 1;
        builder_add(b, "%s %llu-%llu %u",
                    kinds[rng_below(&c->rng, c->version == 2 ? 4 : 6)],
                    (unsigned long long)first, (unsigned long long)last,
                    1000 * n + i + 1);
    }
}

static void
add_qcow2(struct chain *c, unsigned n)
{
    struct builder *b = builder_new();

    c->version = 2 + rng_below(&c->rng, 2);
    c->cluster_size = 512 << rng_below(&c->rng, 8);
    set_size(c, random_size(c));
    builder_add(b, "version %u; cluster %u; size %llu", c->version,
                c->cluster_size, (unsigned long long)c->size);
    if (c->top[0])
        builder_add(b, "backing %s %s", c->top,
                    c->top_is_raw ? "raw" : "qcow2");
    add_clusters(c, b, n);
    builder_overlay(b, -1, c->content, c->size);
    snprintf(c->top, sizeof c->top, "layer%u", n);
    builder_write(b, tmpdir_path(c->top));
    builder_free(b);
    c->top_is_raw = false;
}

static void
make_chain(struct chain *c, uint64_t stream)
{
    unsigned nr;

    memset(c, 0, sizeof *c);
    rng_init(&c->rng, rng_seed(1), stream);
    nr = 2 + rng_below(&c->rng, MAX_LAYERS - 1);
    c->content = calloc(1, MAX_SIZE);
    if (!c->content)
        abort();
    for (unsigned n = 0; n < nr; n++) {
        if (n == 0 && rng_percent(&c->rng, 50))
            add_raw(c, n);
        else
            add_qcow2(c, n);
    }
}

static void
try_chain(uint64_t stream)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct play play = { .cluster_size = 0 };
    struct qcow2_error err;
    struct chain c;
    const char *path;

    expect_case("TEST_SEED=%llu, chain %llu",
                (unsigned long long)rng_seed(1), (unsigned long long)stream);
    make_chain(&c, stream);
    path = tmpdir_path(c.top);
    play_init(&play, c.content, c.size);
    play.cluster_size = c.cluster_size;
    play.may_keep_trimmed = c.version == 2;
    play.must_be_fast = c.version == 3;
    oracle_expect_content(path, play.model.disk, c.size);
    play.disk = qcow2_open(path, &options, &err);
    EXPECT(play.disk, "%s", err.text);
    play_verify(&play);
    for (unsigned i = 0; i < 60; i++) {
        struct op op = play_random(&play, &c.rng, 100000 + i);

        expect_step("%u: %s", i, play_text(&op));
        EXPECT_OK(play_op(&play, &op, &err), &err);
    }
    play_verify(&play);
    EXPECT_OK(qcow2_close(play.disk, &err), &err);
    oracle_expect_clean(path);
    oracle_expect_content(path, play.model.disk, c.size);
    play_free(&play);
    free(c.content);
    tmpdir_clear();
}

static void
random_chains(void **state)
{
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned i = 0; i < 20 * rounds; i++)
        try_chain(i);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_chains),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
