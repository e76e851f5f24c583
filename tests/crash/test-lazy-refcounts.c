/* SPDX-License-Identifier: BSD-3-Clause */
/* test-lazy-refcounts: power cuts of images with lazy refcounts, whose flushes
 * leave refcounts to the close: from the first cut that may need one to the
 * last the dirty bit is there, and the next opening counts anew. What else
 * holds for other images (test-workloads) holds here. CRASH_LONG=1 takes more
 * states. All other tests do the same with LAZY_REFCOUNTS=1.
 */
#include <stdlib.h>

#include "expect.h"
#include "powercut.h"
#include "scenes.h"
#include "states.h"

enum { PART_OF_PAIRS = 9 };

static const struct op flush = { .kind = OP_FLUSH };

static struct crash_options
few_states(void)
{
    return (struct crash_options){
        .nr_random = states_are_many() ? 30 : 6,
        .nr_torn = states_are_many() ? 20 : 4, .seed = rng_seed(1)
    };
}

/* Two letters, each with a flush behind it. */
static void
try_pair(struct powercut *pc, const struct scene *s, uint64_t n)
{
    struct crash_options options = few_states();
    struct qcow2_error err;

    powercut_begin(pc);
    for (unsigned i = 0; i < 2; i++, n /= nr_letters) {
        const struct letter *l = &letters[n % nr_letters];
        struct op op = letter_op(l, pc->rig.play.cluster_size,
                                 pc->rig.play.model.size, 100 + i);

        expect_case("%s; %s", s->name, l->name);
        EXPECT_OK(play_op(&pc->rig.play, &op, &err), &err);
        EXPECT_OK(play_op(&pc->rig.play, &flush, &err), &err);
    }
    powercut_end(pc, &options);
}

static void
expect_uncounted(const struct powercut *pc, const struct scene *s)
{
    powercut_report(pc, s->name);
    EXPECT(pc->nr_uncounted > 0 || builder_version(pc->rig.image) == 2,
           "%s: all refcounts were written at once", s->name);
}

static void
no_power_cut_loses_what_was_flushed(void **state)
{
    unsigned step = states_are_many() ? 1 : PART_OF_PAIRS;

    (void)state;
    for (unsigned i = 0; i < nr_scenes; i++) {
        struct powercut pc;

        powercut_init(&pc, &scenes[i]);
        for (uint64_t n = i; n < nr_letters * nr_letters; n += step)
            try_pair(&pc, &scenes[i], n);
        expect_uncounted(&pc, &scenes[i]);
        powercut_free(&pc);
    }
}

static void
nor_after_many_requests(void **state)
{
    struct crash_options options = few_states();
    unsigned nr = states_are_many() ? 20 : 1;

    (void)state;
    for (unsigned i = 0; i < nr * nr_scenes; i++) {
        const struct scene *s = &scenes[i % nr_scenes];
        struct powercut pc;
        struct qcow2_error err;
        struct rng r;

        rng_init(&r, rng_seed(1), i);
        powercut_init(&pc, s);
        powercut_begin(&pc);
        for (unsigned k = 0; k < 25; k++) {
            struct op op = play_random(&pc.rig.play, &r, 100 + k);

            expect_case("TEST_SEED=%llu: %s, request %u: %s",
                        (unsigned long long)rng_seed(1), s->name, k,
                        play_text(&op));
            EXPECT_OK(play_op(&pc.rig.play, &op, &err), &err);
        }
        powercut_end(&pc, &options);
        powercut_report(&pc, s->name);
        powercut_free(&pc);
    }
}

/* Refblocks are made, and the table of them moves. */
static void
nor_where_the_refcount_table_grows(void **state)
{
    static const struct scene s = {
        "full refcount table",
        "version 3; cluster 512; refcount-bits 64; size 60000;"
        "data 0-3 1; leak 3966; data 20-70 6; gap 3", 0, 0
    };
    struct crash_options options = few_states();
    struct powercut pc;
    struct qcow2_error err;

    (void)state;
    powercut_init(&pc, &s);
    powercut_begin(&pc);
    for (unsigned i = 0; i < 4; i++) {
        struct op op = { OP_WRITE, 0, 3 * 512, 0, 9 + i };

        expect_case("%s: %u", s.name, i);
        op.off = (71 + i * 10) * 512;
        EXPECT_OK(play_op(&pc.rig.play, &op, &err), &err);
        EXPECT_OK(play_op(&pc.rig.play, &flush, &err), &err);
    }
    powercut_end(&pc, &options);
    expect_uncounted(&pc, &s);
    powercut_free(&pc);
}

/* So many small flushes that space is written ahead, and used. */
static void
nor_where_space_is_written_ahead(void **state)
{
    static const struct scene s = {
        "space written ahead",
        "version 3; cluster 4K; refcount-bits 16; size 400K;"
        "backing base.raw raw; data 0-3 1", 300000, 0
    };
    struct crash_options options = {
        .nr_random = 1, .nr_torn = 1, .seed = rng_seed(1)
    };
    uint64_t nr_bytes;
    struct powercut pc;
    struct qcow2_error err;

    (void)state;
    powercut_init(&pc, &s);
    powercut_begin(&pc);
    for (unsigned i = 0; i < 16; i++) {
        struct op op = { OP_WRITE, 0, 1024, QCOW2_FUA, 9 + i };

        op.off = (i * 37 % 80 + 10) * 4096 + 512;
        if (i % 5 == 4)
            op.kind = OP_TRIM, op.nr_bytes = 8192;
        EXPECT_OK(play_op(&pc.rig.play, &op, &err), &err);
    }
    mem_bytes(crash_log_content(pc.log), &nr_bytes);
    EXPECT(nr_bytes > 1 << 20, "nothing was written ahead");
    options.first_mark = crash_log_nr_marks(pc.log) / 2;
    powercut_end(&pc, &options);
    expect_uncounted(&pc, &s);
    powercut_free(&pc);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_power_cut_loses_what_was_flushed),
        cmocka_unit_test(nor_after_many_requests),
        cmocka_unit_test(nor_where_the_refcount_table_grows),
        cmocka_unit_test(nor_where_space_is_written_ahead),
    };
    int failed;

    builder_make_lazy();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    states_print();
    return failed;
}
