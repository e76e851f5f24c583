/* SPDX-License-Identifier: BSD-3-Clause */
/* test-faults: lets the 1st, the 2nd, … operation of a scenario fail, once
 * and for good, until the scenario passes. A failure is reported, by the
 * request or by the flush after it; nothing flushed is lost; a failed flush
 * is not forgotten; the file is left with leaks at worst.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "audit.h"
#include "disk/open.h"
#include "expect.h"
#include "faults.h"
#include "powercut.h"
#include "scenes.h"
#include "tmpdir.h"

struct scenario {
    struct powercut *pc;
    const struct fault *fault;
    bool failed;        /* something was reported */
    bool flush_failed;
    bool may_be_failed; /* so may have the flush in a FUA request */
    struct qcow2_error err;
};

static const struct op flush = { .kind = OP_FLUSH };

/* Nothing but writes failed, for want of space: the handle goes on. */
static bool
lacked_space(const struct scenario *s)
{
    return s->fault->errnum == ENOSPC && !(s->fault->kinds & FAULT_FLUSH);
}

static uint64_t
moment_of(struct powercut *pc)
{
    return pc->rig.play.now(pc, PLAY_ANSWERED);
}

/* The disk as the handle shows it, now that nothing fails any more. What it
 * shows of a request that failed is what later ones build on. */
static void
expect_legal(struct scenario *s)
{
    struct play *p = &s->pc->rig.play;
    uint64_t bad;

    EXPECT_OK(qcow2_pread(p->disk, p->scratch, p->model.size, 0, &s->err),
              &s->err);
    EXPECT(model_legal(&p->model, p->scratch, moment_of(s->pc), &bad),
           "after the failure sector %llu reads wrong",
           (unsigned long long)bad);
    memcpy(p->model.disk, p->scratch, p->model.size);
}

static void
note_failure(struct scenario *s, const struct op *op)
{
    const char *what = op ? play_text(op) : "close";

    s->failed = true;
    s->flush_failed |= !op || op->kind == OP_FLUSH;
    /* After the close nobody flushes any more. */
    s->may_be_failed |= !op
                        || (!lacked_space(s)
                            && (s->flush_failed || (op->flags & QCOW2_FUA)));
    EXPECT(s->err.errnum == EIO || s->err.errnum == s->fault->errnum,
           "%s: errno %d: %s", what, s->err.errnum, s->err.text);
    EXPECT(s->err.text[0], "%s: no text", what);
}

/* The handle goes on, or has failed and says so; it has not failed if what
 * it lacked was space, of which there is enough by now. */
static void
expect_usable_or_failed(struct scenario *s)
{
    struct play *p = &s->pc->rig.play;
    struct op again = letter_op(&letters[3], play_unit(p), p->model.size,
                                500);
    bool wrote = play_op(p, &again, &s->err) == 0;
    bool flushed = play_op(p, &flush, &s->err) == 0;

    EXPECT(!flushed || !s->flush_failed || lacked_space(s),
           "a flush succeeds after one that failed");
    EXPECT(flushed || !lacked_space(s), "there is space again, but: %s",
           s->err.text);
    EXPECT(wrote || !flushed, "flushes, but does not write: %s", s->err.text);
    expect_legal(s);
}

/* Fails the nth operation; false if there were fewer. */
static bool
run_with_fault(struct scenario *s, const struct letter *l, unsigned nth)
{
    struct play *p = &s->pc->rig.play;
    struct op before = { OP_WRITE, 0, 700, 0, 400 };
    struct op op;
    bool fired;

    s->failed = s->flush_failed = s->may_be_failed = false;
    powercut_begin_faulty(s->pc);
    EXPECT_OK(play_op(p, &before, &s->err), &s->err);
    EXPECT_OK(play_op(p, &flush, &s->err), &s->err);

    op = letter_op(l, play_unit(p), p->model.size, 300);
    fault_arm_with(&s->pc->rig.plan, s->fault, nth);
    if (play_op(p, &op, &s->err) != 0)
        note_failure(s, &op);
    if (play_op(p, &flush, &s->err) != 0)
        note_failure(s, &flush);
    fired = fault_fired(&s->pc->rig.plan) > 0;
    fault_arm(&s->pc->rig.plan, 0, 0, 0, 0);
    if (fired) {
        expect_legal(s);
        if (nth % 2)
            expect_usable_or_failed(s);
    }
    if (qcow2_close(p->disk, &s->err) != 0) {
        note_failure(s, NULL);
        EXPECT(!lacked_space(s), "there is space again, but closing fails: "
               "%s", s->err.text);
    }
    EXPECT(!fired || s->failed || s->fault->kinds != FAULT_FLUSH,
           "nobody says that a flush has failed");
    return fired;
}

static void
expect_file_intact(struct scenario *s)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(s->pc->rig.mem, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT(s->may_be_failed || audit_is_clean(&a), "all flushes succeeded, "
           "but the file has %u corruptions (%s) and %u leaks",
           a.nr_corruptions, a.first, a.nr_leaks);
    EXPECT(fault_retried(&s->pc->rig.plan) == 0, "a flush after one that "
           "failed");
    powercut_check(s->pc, s->pc->rig.mem, moment_of(s->pc));
}

static unsigned
try_letter(struct scenario *s, const struct letter *l)
{
    unsigned nth = 1;
    bool fired;

    do {
        expect_case("%s, %s: operation %u", l->name, s->fault->name, nth);
        alarm(20); /* ends the program if requests wait for each other */
        fired = run_with_fault(s, l, nth++);
        expect_file_intact(s);
        rig_end(&s->pc->rig);
    } while (fired);
    alarm(0);
    return nth - 1;
}

/* In files that take whole blocks, which is where merging can fail, too; of
 * the requests every so manieth. */
static void
try_requests(uint32_t block, unsigned every)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < nr_scenes; i++) {
        struct powercut pc;

        powercut_init(&pc, &scenes[i]);
        pc.rig.block = block;
        for (unsigned f = 0; f < nr_faults; f++) {
            struct scenario s = {
                .pc = &pc, .fault = &faults[f]
            };

            for (unsigned k = (i + f) % every; k < nr_letters; k += every)
                nr += try_letter(&s, &letters[k]);
        }
        powercut_free(&pc);
    }
    print_message("%u failures\n", nr);
}

static void
every_request_survives_every_failure(void **state)
{
    (void)state;
    try_requests(0, 1);
}

static void
requests_in_blocks_survive_every_failure(void **state)
{
    (void)state;
    try_requests(4096, 5);
}

/* Goes on after the failure, in what state the handle may be. */
static void
play_on(struct scenario *s, struct rng *r, unsigned nr_ops)
{
    struct play *p = &s->pc->rig.play;

    for (unsigned i = 0; i < nr_ops; i++) {
        struct op op = play_random(p, r, 1000 + i);

        op.flags &= ~QCOW2_FAST;
        expect_step("%u: %s", i, play_text(&op));
        if (play_op(p, &op, &s->err) == 0) {
            EXPECT(op.kind != OP_FLUSH || !s->flush_failed || lacked_space(s),
                   "a flush succeeds after one that failed");
            continue;
        }
        note_failure(s, &op);
        EXPECT(fault_fired(&s->pc->rig.plan) > 0, "failed for no reason: %s",
               s->err.text);
        expect_legal(s);
    }
}

static void
random_requests_with_a_failure_among_them(void **state)
{
    uint64_t seed = rng_seed(1);

    (void)state;
    for (unsigned i = 0; i < nr_scenes; i++) {
        struct powercut pc;

        powercut_init(&pc, &scenes[i]);
        for (unsigned n = 0; n < 150; n++) {
            struct scenario s = {
                .pc = &pc, .fault = &faults[n % nr_faults]
            };
            struct rng r;

            if (s.fault->flags & FAULT_FOR_GOOD)
                continue;
            expect_case("TEST_SEED=%llu: %s, %s, round %u",
                        (unsigned long long)seed, scenes[i].name,
                        s.fault->name, n);
            rng_init(&r, seed, i * 1000 + n);
            powercut_begin_faulty(&pc);
            fault_arm_with(&pc.rig.plan, s.fault, 1 + rng_below(&r, 30));
            alarm(20);
            play_on(&s, &r, 30);
            if (qcow2_close(pc.rig.play.disk, &s.err) != 0)
                note_failure(&s, NULL);
            fault_arm(&pc.rig.plan, 0, 0, 0, 0);
            expect_step("the end");
            expect_file_intact(&s);
            alarm(0);
            rig_end(&pc.rig);
        }
        powercut_free(&pc);
    }
}

/* Opens the disk and its snapshot with the nth read failing; false if there
 * were fewer. */
static bool
open_with_fault(struct rig *r, unsigned nth)
{
    struct qcow2_disk *disk, *snapshot;
    struct qcow2_error err;
    bool fired;

    rig_start(r);
    fault_arm(&r->plan, FAULT_READ, nth, EIO, FAULT_ONCE);
    disk = disk_open_io(io_fault_new(io_mem_open(r->mem, false), &r->plan),
                        tmpdir_path("image"), &r->options, &err);
    EXPECT(disk || err.errnum == EIO, "open: %s", err.text);
    if (disk && qcow2_get_nr_snapshots(disk) > 0) {
        snapshot = qcow2_open_snapshot(disk, "first", &err);
        EXPECT(snapshot || err.errnum == EIO, "snapshot: %s", err.text);
        if (snapshot)
            EXPECT_OK(qcow2_close(snapshot, &err), &err);
    }
    if (disk)
        EXPECT_OK(qcow2_close(disk, &err), &err);
    fired = fault_fired(&r->plan) > 0;
    rig_end(r);
    return fired;
}

static void
opening_reports_what_fails(void **state)
{
    (void)state;
    for (unsigned i = 0; i < nr_scenes; i++) {
        struct powercut pc;
        unsigned nth = 1;

        powercut_init(&pc, &scenes[i]);
        while (open_with_fault(&pc.rig, nth++))
            expect_case("%s: read %u", scenes[i].name, nth);
        EXPECT(nth > 3, "nothing was read");
        powercut_free(&pc);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_survives_every_failure),
        cmocka_unit_test(requests_in_blocks_survive_every_failure),
        cmocka_unit_test(random_requests_with_a_failure_among_them),
        cmocka_unit_test(opening_reports_what_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
