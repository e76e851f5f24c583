/* SPDX-License-Identifier: BSD-3-Clause */
/* test-workloads: every sequence of a few requests on a tiny image, and
 * after each every state that a power cut may leave; then longer random
 * ones. CRASH_LONG=1 takes longer sequences and more states of each;
 * TEST_SEED gives other random ones.
 */
#include <stdlib.h>

#include "expect.h"
#include "powercut.h"
#include "scenes.h"
#include "states.h"

/* Every so manieth is tried, in each scene others; all pairs with
 * CRASH_LONG. */
enum { PART_OF_PAIRS = 5, PART_OF_TRIPLES = 4 };

/* The n-th word of `length` letters. The last letter is the new one: cuts
 * before it were tried with the word without it.
 */
static void
try_word(struct powercut *pc, const struct scene *s, unsigned length,
         uint64_t n, const struct crash_options *options)
{
    struct crash_options now = *options;
    char text[256] = "";
    struct qcow2_error err;

    powercut_begin(pc);
    for (unsigned i = 0; i < length; i++, n /= nr_letters) {
        const struct letter *l = &letters[n % nr_letters];
        struct op op = letter_op(l, play_unit(&pc->rig.play),
                                 pc->rig.play.model.size, 100 + i);

        snprintf(text + strlen(text), sizeof text - strlen(text), "; %s",
                 l->name);
        expect_case("%s%s", s->name, text);
        now.first_mark = crash_log_nr_marks(pc->log);
        EXPECT_OK(play_op(&pc->rig.play, &op, &err), &err);
    }
    powercut_end(pc, &now);
}

static void
every_short_sequence(void **state)
{
    bool is_long = states_are_many();
    struct crash_options options = {
        .nr_random = is_long ? 30 : 12, .nr_torn = is_long ? 20 : 8,
        .seed = rng_seed(1)
    };

    (void)state;
    for (unsigned i = 0; i < nr_scenes; i++) {
        struct powercut pc;
        uint64_t nr = nr_letters;

        powercut_init(&pc, &scenes[i]);
        for (unsigned length = 1; length <= (is_long ? 3 : 2); length++) {
            uint64_t step = length == 3 ? PART_OF_TRIPLES
                            : length == 2 && !is_long ? PART_OF_PAIRS : 1;

            for (uint64_t n = i % step; n < nr; n += step)
                try_word(&pc, &scenes[i], length, n, &options);
            nr *= nr_letters;
        }
        powercut_report(&pc, scenes[i].name);
        powercut_free(&pc);
    }
}

static void
random_sequences(void **state)
{
    bool is_long = states_are_many();
    struct crash_options options = {
        .nr_random = is_long ? 30 : 5, .nr_torn = is_long ? 20 : 3,
        .seed = rng_seed(1)
    };
    unsigned nr = is_long ? 20 : 2;

    (void)state;
    for (unsigned i = 0; i < nr_scenes; i++) {
        struct powercut pc;

        powercut_init(&pc, &scenes[i]);
        for (unsigned n = 0; n < nr; n++) {
            struct qcow2_error err;
            struct rng r;

            rng_init(&r, rng_seed(1), i * 100000 + n);
            powercut_begin(&pc);
            for (unsigned k = 0; k < 25; k++) {
                struct op op = play_random(&pc.rig.play, &r, 100 + k);

                expect_case("TEST_SEED=%llu: %s, random sequence %u, "
                            "request %u: %s",
                            (unsigned long long)rng_seed(1), scenes[i].name,
                            n, k, play_text(&op));
                EXPECT_OK(play_op(&pc.rig.play, &op, &err), &err);
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
        "data 0-3 1; leak 3966; data 20-70 6; gap 3", 0, 0
    };
    struct crash_options options = {
        .nr_random = 10, .nr_torn = 10, .seed = 1
    };
    const unsigned char *header;
    struct powercut pc;
    struct qcow2_error err;
    uint64_t nr_bytes;

    (void)state;
    powercut_init(&pc, &s);
    powercut_begin(&pc);
    for (unsigned i = 0; i < 3; i++) {
        struct op op = { OP_WRITE, 0, 3 * 512, 0, 9 + i };
        struct op flush = { .kind = OP_FLUSH };

        expect_case("%s: %u", s.name, i);
        op.off = (71 + i * 10) * 512;
        EXPECT_OK(play_op(&pc.rig.play, &op, &err), &err);
        if (i > 0)
            EXPECT_OK(play_op(&pc.rig.play, &flush, &err), &err);
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

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
