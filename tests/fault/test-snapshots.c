/* SPDX-License-Identifier: BSD-3-Clause */
/* test-snapshots: lets the 1st, the 2nd, … operation on the file fail, once
 * and for good, while a snapshot is created, applied or deleted, the size
 * changes, or clusters are preallocated. The failure is reported; the image
 * is what it was before, or what it was to become; and it goes on, or has
 * failed and says so. TEST_SEED gives other random sequences.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "audit.h"
#include "expect.h"
#include "faults.h"
#include "history.h"
#include "tmpdir.h"
#include "whole-scenes.h"

struct trial {
    struct rig rig;
    struct history history;
    struct contents now;
    struct aftermath sum;
    const struct fault *fault;
    uint64_t moment;
    struct qcow2_error err;
};

static void
begin(struct trial *t)
{
    rig_open(&t->rig);
    contents_read(&t->now, t->rig.play.disk);
    history_begin(&t->history, &t->now);
    t->moment = 0;
}

static void
end(struct trial *t)
{
    EXPECT(fault_retried(&t->rig.plan) == 0, "a flush after one that failed");
    history_free(&t->history);
    contents_free(&t->now);
    rig_end(&t->rig);
}

/* A write; t->now is what is read afterwards if it succeeded. */
static int
play_write(struct trial *t, uint64_t off, uint64_t seed)
{
    struct contents after;
    int r;

    if (off + 1500 > t->now.size)
        return 0;
    contents_copy(&after, &t->now);
    pattern_fill(after.disk + off, 1500, seed, off);
    history_request(&t->history, &after, ++t->moment);
    r = qcow2_pwrite(t->rig.play.disk, after.disk + off, 1500, off, 0,
                     &t->err);
    contents_free(&t->now);
    t->now = after;
    return r;
}

static int
play_flush(struct trial *t)
{
    int r = qcow2_flush(t->rig.play.disk, &t->err);

    if (r == 0)
        history_durable(&t->history, ++t->moment);
    return r;
}

static void
expect_failure_told(struct trial *t, int r)
{
    EXPECT(r == -1 && t->err.text[0], "returned %d", r);
    EXPECT(t->err.errnum == EIO || t->err.errnum == t->fault->errnum,
           "errno %d: %s", t->err.errnum, t->err.text);
}

/* The handle shows what was before, or what is after; that is what the next
 * flush that succeeds makes durable. */
static void
expect_one_of_both(struct trial *t)
{
    struct contents got;
    const char *why;

    contents_read(&got, t->rig.play.disk);
    why = history_forbids(&t->history, &got, t->moment);
    EXPECT(!why, "after the failure: %s", why);
    contents_free(&t->now);
    t->now = got;
    history_whole(&t->history, &got, ++t->moment);
}

static int
play_whole(struct trial *t, const struct whole_op *op)
{
    struct contents after;
    int r;

    contents_copy(&after, &t->now);
    whole_model(&after, op);
    history_whole(&t->history, &after, ++t->moment);
    r = whole_run(t->rig.play.disk, &t->now, op, &t->err);
    if (r == 0) {
        history_durable(&t->history, ++t->moment);
        contents_free(&t->now);
        t->now = after;
    } else {
        contents_free(&after);
    }
    return r;
}

/* Nothing fails any more: either all goes on, or nothing that changes the
 * image does. */
static void
expect_usable_or_failed(struct trial *t, const struct whole_op *op)
{
    bool usable = play_write(t, 1024, 501) == 0;
    bool flushed = play_flush(t) == 0;

    EXPECT(usable || !flushed, "flushes, but does not write: %s",
           t->err.text);
    if (!flushed) {
        expect_one_of_both(t);
        return;
    }
    contents_expect(t->rig.play.disk, &t->now);
    if (!whole_possible(&t->now, rig_version(t->rig.mem), op))
        return;
    EXPECT_OK(play_whole(t, op), &t->err);
    contents_expect(t->rig.play.disk, &t->now);
}

/* Fails the nth operation; false if there were fewer. */
static bool
run_with_fault(struct trial *t, const struct whole_op *op, unsigned nth)
{
    bool fired;
    int r;

    begin(t);
    EXPECT_OK(play_write(t, 700, 500), &t->err);
    fault_arm_with(&t->rig.plan, t->fault, nth);
    r = play_whole(t, op);
    fired = fault_fired(&t->rig.plan) > 0;
    EXPECT(fired || r == 0, "%s", t->err.text);
    fault_arm(&t->rig.plan, 0, 0, 0, 0);
    if (r == -1) {
        expect_failure_told(t, r);
        expect_one_of_both(t);
        if (nth % 2)
            expect_usable_or_failed(t, op);
    }
    if (qcow2_close(t->rig.play.disk, &t->err) == 0)
        history_durable(&t->history, ++t->moment);
    else
        EXPECT(fired, "close: %s", t->err.text);
    return fired;
}

static unsigned
try_operation(struct trial *t, const struct whole_op *op)
{
    unsigned nth = 1;
    bool fired;

    do {
        expect_case("%s, %s: operation %u", t->fault->name, whole_text(op),
                    nth);
        alarm(20); /* ends the program if requests wait for each other */
        fired = run_with_fault(t, op, nth++);
        expect_step("the file");
        history_check(&t->history, &t->rig, t->rig.mem, t->moment, &t->sum);
        end(t);
    } while (fired);
    alarm(0);
    return nth - 2;
}

static void
every_operation_survives_every_failure(void **state)
{
    (void)state;
    for (unsigned i = 0; i < nr_whole_scenes; i++) {
        const struct scene *s = &whole_scenes[i];
        unsigned nr = 0;
        struct trial t;

        memset(&t, 0, sizeof t);
        rig_init(&t.rig, s->recipe, s->backing_bytes);
        for (unsigned k = 0; k < nr_faults * nr_whole_words; k++) {
            const struct whole_op *op = &whole_words[k % nr_whole_words];

            t.fault = &faults[k / nr_whole_words];
            begin(&t);
            if (whole_possible(&t.now, rig_version(t.rig.mem), op)) {
                EXPECT_OK(qcow2_close(t.rig.play.disk, &t.err), &t.err);
                end(&t);
                nr += try_operation(&t, op);
            } else {
                EXPECT_OK(qcow2_close(t.rig.play.disk, &t.err), &t.err);
                end(&t);
            }
        }
        aftermath_report(&t.sum, s->name);
        print_message("    %u failures\n", nr);
        rig_free(&t.rig);
    }
}

static int
play_anything(struct trial *t, struct rng *r, unsigned number)
{
    unsigned dice = rng_below(r, 100);
    struct whole_op op;

    if (dice < 35) {
        expect_step("%u: write", number);
        return play_write(t, rng_below(r, t->now.size + 1), 1000 + number);
    }
    if (dice < 45) {
        expect_step("%u: flush", number);
        return play_flush(t);
    }
    op = whole_random(&t->now, r, t->rig.play.cluster_size, 70000, 512,
                      number);
    expect_step("%u: %s", number, whole_text(&op));
    if (!whole_possible(&t->now, builder_version(t->rig.image), &op))
        return 0;
    return play_whole(t, &op);
}

static void
play_sequence(struct trial *t, struct rng *r)
{
    begin(t);
    fault_arm_with(&t->rig.plan, t->fault, 1 + rng_below(r, 150));
    for (unsigned i = 0; i < 14; i++) {
        int result = play_anything(t, r, i);

        if (result == 0)
            continue;
        EXPECT(fault_fired(&t->rig.plan) > 0, "failed for no reason: %s",
               t->err.text);
        fault_arm(&t->rig.plan, 0, 0, 0, 0);
        expect_failure_told(t, result);
        expect_one_of_both(t);
        for (i++; i < 14; i++)
            if (play_anything(t, r, i) != 0)
                expect_one_of_both(t);
    }
    fault_arm(&t->rig.plan, 0, 0, 0, 0);
    expect_step("the file");
    if (qcow2_close(t->rig.play.disk, &t->err) == 0)
        history_durable(&t->history, ++t->moment);
    history_check(&t->history, &t->rig, t->rig.mem, t->moment, &t->sum);
    end(t);
}

static void
random_sequences_with_a_failure_among_them(void **state)
{
    uint64_t seed = rng_seed(1);

    (void)state;
    for (unsigned i = 0; i < nr_whole_scenes; i++) {
        const struct scene *s = &whole_scenes[i];
        struct trial t;

        memset(&t, 0, sizeof t);
        rig_init(&t.rig, s->recipe, s->backing_bytes);
        for (unsigned n = 0; n < 80; n++) {
            struct rng r;

            t.fault = &faults[n % nr_faults];
            expect_case("TEST_SEED=%llu: %s, %s, round %u",
                        (unsigned long long)seed, s->name, t.fault->name, n);
            rng_init(&r, seed, i * 1000 + n);
            alarm(20);
            play_sequence(&t, &r);
            alarm(0);
        }
        aftermath_report(&t.sum, s->name);
        rig_free(&t.rig);
    }
}

/* An image with more L2 tables than the smallest cache holds. */
enum { NR_TABLES = 2500 };

static void
init_many_tables(struct rig *r)
{
    char *recipe = malloc(100 + NR_TABLES * 20), *p = recipe;

    if (!recipe)
        abort();
    p += sprintf(p, "cluster 512; refcount-bits 64; size %u;",
                 NR_TABLES * 32768);
    for (unsigned i = 0; i < NR_TABLES; i++)
        p += sprintf(p, "data %u 1;%s", i * 64,
                     i == 10 ? "snapshot 1 first;" : "");
    rig_init(r, recipe, 0);
    free(recipe);
    qcow2_pool_free(r->options.pool);
    r->options.pool = qcow2_pool_new(1, NULL);
}

static struct audit
audit_mem(struct mem *m)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(m, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    return a;
}

/* They are read while references are counted: a failure there comes too late
 * to take everything back. */
static void
what_a_late_failure_leaves_stays_marked_until_it_is_settled(void **state)
{
    static const struct whole_op ops[] = {
        { .kind = WHOLE_RESIZE, .size = 5000000 },
        { .kind = WHOLE_DELETE },
    };
    static const struct qcow2_snapshot_create_options plain = { 0 };
    struct saved first = { .id = "1" };
    struct contents ids = { .saved = &first, .nr = 1 };
    struct qcow2_error err;
    struct audit a;
    struct rig r;

    (void)state;
    init_many_tables(&r);
    for (unsigned i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        expect_case("%s after a failure", whole_text(&ops[i]));
        rig_open(&r);
        fault_arm(&r.plan, FAULT_READ, NR_TABLES / 2, EIO, FAULT_ONCE);
        EXPECT(qcow2_snapshot_create(r.play.disk, "late", &plain, &err) == -1
               && err.errnum == EIO, "no failure");
        EXPECT_OK(whole_run(r.play.disk, &ids, &ops[i], &err), &err);
        EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
        a = audit_mem(r.mem);
        EXPECT(a.nr_corruptions == a.nr_miscopied && a.dirty && a.nr_leaks,
               "%u corruptions (%s), %u leaks%s", a.nr_corruptions, a.first,
               a.nr_leaks, a.dirty ? ", dirty" : "");
        EXPECT_OK(qcow2_close(rig_open_disk(&r, io_mem_open(r.mem, false)),
                              &err), &err);
        a = audit_mem(r.mem);
        EXPECT(audit_is_clean(&a), "not settled");
        rig_end(&r);
    }
    rig_free(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_survives_every_failure),
        cmocka_unit_test(random_sequences_with_a_failure_among_them),
        cmocka_unit_test(
            what_a_late_failure_leaves_stays_marked_until_it_is_settled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
