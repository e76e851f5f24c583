/* SPDX-License-Identifier: BSD-3-Clause */
/* test-full: a flush lacks space for one of its writes, and is made again
 * after more requests: every state that a power cut may leave before, in
 * between and after is an image that holds what was flushed. CRASH_LONG=1
 * takes all requests, and more states of each.
 */
#include <errno.h>

#include "expect.h"
#include "powercut.h"
#include "scenes.h"
#include "states.h"

static const struct op flush = { .kind = OP_FLUSH };

static struct op
letter(struct powercut *pc, unsigned k, uint64_t seed)
{
    return letter_op(&letters[k % nr_letters], play_unit(&pc->rig.play),
                     pc->rig.play.model.size, seed);
}

/* A request, a flush whose nth write fails, another request, a flush; false
 * if the flush has fewer writes. */
static bool
try_full(struct powercut *pc, const char *scene, unsigned k, unsigned nth,
         const struct crash_options *options)
{
    struct play *p = &pc->rig.play;
    struct qcow2_error err;
    struct op op;
    bool failed;

    powercut_begin(pc);
    expect_case("%s; %s; write %u fails", scene, letters[k].name, nth);
    op = letter(pc, k, 100);
    EXPECT_OK(play_op(p, &op, &err), &err);
    fault_arm(&pc->rig.plan, FAULT_WRITE, nth, ENOSPC,
              nth % 2 ? FAULT_TORN : FAULT_ONCE);
    failed = play_op(p, &flush, &err) == -1;
    fault_arm(&pc->rig.plan, 0, 0, 0, 0);
    EXPECT(!failed || err.errnum == ENOSPC, "%s", err.text);
    if (failed) {
        op = letter(pc, k + 1 + nth, 101);
        EXPECT_OK(play_op(p, &op, &err), &err);
        EXPECT_OK(play_op(p, &flush, &err), &err);
    }
    powercut_end(pc, options);
    return failed;
}

static void
a_flush_that_lacks_space_may_be_cut(void **state)
{
    bool is_long = states_are_many();
    struct crash_options options = {
        .nr_random = is_long ? 30 : 5, .nr_torn = is_long ? 20 : 3,
        .seed = rng_seed(1)
    };
    unsigned nr_failures = 0;

    (void)state;
    for (unsigned i = 0; i < nr_scenes; i++) {
        struct powercut pc;

        powercut_init(&pc, &scenes[i]);
        for (unsigned k = is_long ? 0 : i % 3; k < nr_letters;
             k += is_long ? 1 : 3)
            for (unsigned nth = 1;
                 try_full(&pc, scenes[i].name, k, nth, &options); nth++)
                nr_failures++;
        powercut_report(&pc, scenes[i].name);
        powercut_free(&pc);
    }
    EXPECT(nr_failures > 20, "only %u failures", nr_failures);
    print_message("%u failures\n", nr_failures);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flush_that_lacks_space_may_be_cut),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
