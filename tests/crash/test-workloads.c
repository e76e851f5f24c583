/* SPDX-License-Identifier: BSD-3-Clause */
/* test-workloads: every sequence of a few requests on a tiny image, and
 * after each every state that a power cut may leave; then longer random
 * ones. CRASH_LONG=1 takes longer sequences and more states of each;
 * TEST_SEED gives other random ones.
 */
#include <stdlib.h>

#include "expect.h"
#include "powercut.h"
#include "tmpdir.h"

/* An image in the smallest geometry, where a few clusters fill tables. */
struct scene {
    const char *name;
    const char *recipe;
    uint64_t backing_bytes;
};

static const struct scene scenes[] = {
    /* 64 clusters fill an L2 table, or a refcount block. */
    { "overlay with snapshot",
      "version 3; cluster 512; refcount-bits 64; size 41000;"
      "backing base.raw raw;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "snapshot 1 first; data 2 4; zero-alloc 3; gap 3", 9000 },
    { "table shared with snapshot",
      "version 3; cluster 512; refcount-bits 64; size 41000;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-11 3;"
      "data 70 5; snapshot 1 first", 0 },
    { "nearly full refcount block",
      "version 3; cluster 512; refcount-bits 64; size 41000;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "data 20-57 6", 0 },
    { "version 2 overlay",
      "version 2; cluster 512; size 41000; backing base.raw raw;"
      "data 0-3 1; compressed 6-7 2; snapshot 1 first; data 2 4", 9000 },
    { "clusters of four sectors",
      "version 3; cluster 2K; refcount-bits 16; size 60000;"
      "backing base.raw raw;"
      "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
      "snapshot 1 first; data 2 4; zero-alloc 3", 30000 },
};

/* A request of the alphabet; places are in eighths of clusters. */
struct letter {
    const char *name;
    enum op_kind kind;
    unsigned off, len;
    unsigned flags;
};

static const struct letter letters[] = {
    { "write in place", OP_WRITE, 0, 8, 0 },
    { "write part in place", OP_WRITE, 10, 4, 0 },
    { "write part of what the snapshot shares", OP_WRITE, 64, 4, 0 },
    { "write over several kinds", OP_WRITE, 20, 40, 0 },
    { "write part of what is not allocated", OP_WRITE, 84, 6, 0 },
    { "write what needs an L2 table", OP_WRITE, 560, 12, 0 },
    { "write many clusters", OP_WRITE, 96, 200, 0 },
    { "write FUA", OP_WRITE, 16, 8, QCOW2_FUA },
    { "zero", OP_ZERO, 8, 8, 0 },
    { "zero, over several kinds", OP_ZERO, 20, 56, QCOW2_MAY_TRIM },
    { "trim", OP_TRIM, 0, 40, 0 },
    { "trim FUA", OP_TRIM, 48, 32, QCOW2_FUA },
    { "flush", OP_FLUSH, 0, 0, 0 },
};

enum { NR_LETTERS = sizeof letters / sizeof letters[0] };

static struct op
op_of(const struct letter *l, uint32_t cluster_size, uint64_t seed)
{
    return (struct op){
        .kind = l->kind, .flags = l->flags, .seed = seed,
        .off = (uint64_t)l->off * (cluster_size / 8),
        .nr_bytes = (uint64_t)l->len * (cluster_size / 8),
    };
}

static struct op
clipped(struct op op, uint64_t size)
{
    if (op.off > size)
        op.off = 0;
    if (op.nr_bytes > size - op.off)
        op.nr_bytes = size - op.off;
    return op;
}

static void
set_up(struct powercut *pc, const struct scene *s)
{
    struct builder *b = builder_new();

    builder_add(b, "%s", s->recipe);
    powercut_init(pc, b, s->backing_bytes);
}

static void
begin(struct powercut *pc, const struct scene *s)
{
    powercut_begin(pc);
    pc->play.may_keep_trimmed = strncmp(s->recipe, "version 2", 9) == 0;
}

/* The n-th word of `length` letters. */
static void
try_word(struct powercut *pc, const struct scene *s, unsigned length,
         uint64_t n, const struct crash_options *options)
{
    char text[256] = "";
    struct qcow2_error err;

    begin(pc, s);
    for (unsigned i = 0; i < length; i++, n /= NR_LETTERS) {
        const struct letter *l = &letters[n % NR_LETTERS];
        struct op op = clipped(op_of(l, pc->play.cluster_size, 100 + i),
                               pc->play.model.size);

        snprintf(text + strlen(text), sizeof text - strlen(text), "; %s",
                 l->name);
        expect_case("%s%s", s->name, text);
        EXPECT_OK(play_op(&pc->play, &op, &err), &err);
    }
    powercut_end(pc, options);
}

static void
every_short_sequence(void **state)
{
    bool is_long = env_number("CRASH_LONG", 0);
    struct crash_options options = {
        .max_exhaustive = is_long ? 8 : 6, .nr_random = is_long ? 30 : 12,
        .nr_torn = is_long ? 20 : 8, .seed = rng_seed(1)
    };

    (void)state;
    for (unsigned i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        struct powercut pc;
        uint64_t nr = NR_LETTERS;

        set_up(&pc, &scenes[i]);
        for (unsigned length = 1; length <= (is_long ? 3 : 2); length++) {
            for (uint64_t n = 0; n < nr; n++)
                try_word(&pc, &scenes[i], length, n, &options);
            nr *= NR_LETTERS;
        }
        powercut_report(&pc, scenes[i].name);
        powercut_free(&pc);
    }
}

static void
random_sequences(void **state)
{
    bool is_long = env_number("CRASH_LONG", 0);
    struct crash_options options = {
        .max_exhaustive = 3, .nr_random = is_long ? 30 : 5,
        .nr_torn = is_long ? 20 : 3, .seed = rng_seed(1)
    };
    unsigned nr = is_long ? 400 : 12;

    (void)state;
    for (unsigned i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        struct powercut pc;

        set_up(&pc, &scenes[i]);
        for (unsigned n = 0; n < nr; n++) {
            struct qcow2_error err;
            struct rng r;

            rng_init(&r, rng_seed(1), i * 100000 + n);
            begin(&pc, &scenes[i]);
            for (unsigned k = 0; k < 25; k++) {
                struct op op = play_random(&pc.play, &r, 100 + k);

                expect_case("TEST_SEED=%llu: %s, random sequence %u, "
                            "request %u: %s",
                            (unsigned long long)rng_seed(1), scenes[i].name,
                            n, k, play_text(&op));
                EXPECT_OK(play_op(&pc.play, &op, &err), &err);
            }
            powercut_end(&pc, &options);
        }
        powercut_report(&pc, scenes[i].name);
        powercut_free(&pc);
    }
}

/* A refcount table of one cluster, 64 entries, describes 2 MiB of clusters
 * of 512 bytes; the next cluster moves it. */
static void
growing_the_refcount_table(void **state)
{
    static const struct scene s = {
        "full refcount table",
        "version 3; cluster 512; refcount-bits 64; size 60000;"
        "data 0-3 1; leak 3966; data 20-70 6; gap 3", 0
    };
    struct crash_options options = {
        .max_exhaustive = 4, .nr_random = 10, .nr_torn = 10, .seed = 1
    };
    const unsigned char *header;
    struct powercut pc;
    struct qcow2_error err;
    uint64_t nr_bytes;

    (void)state;
    set_up(&pc, &s);
    begin(&pc, &s);
    for (unsigned i = 0; i < 3; i++) {
        struct op op = { OP_WRITE, 0, 3 * 512, 0, 9 + i };
        struct op flush = { .kind = OP_FLUSH };

        expect_case("%s: %u", s.name, i);
        op.off = (71 + i * 10) * 512;
        EXPECT_OK(play_op(&pc.play, &op, &err), &err);
        if (i > 0)
            EXPECT_OK(play_op(&pc.play, &flush, &err), &err);
    }
    header = mem_bytes(crash_log_content(pc.log), &nr_bytes);
    EXPECT(header[59] > 1, "the table has not moved");
    powercut_end(&pc, &options);
    powercut_report(&pc, s.name);
    powercut_free(&pc);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_short_sequence),
        cmocka_unit_test(random_sequences),
        cmocka_unit_test(growing_the_refcount_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
