/* SPDX-License-Identifier: BSD-3-Clause */
/* test-snapshots: snapshots created, applied and deleted, sizes changed and
 * clusters preallocated on a tiny image, with requests between them, and
 * after each sequence every state that a power cut may leave. CRASH_LONG=1
 * takes longer sequences and more states of each; TEST_SEED gives other
 * random ones.
 */
#include <stdlib.h>

#include "audit.h"
#include "expect.h"
#include "history.h"
#include "io-crash.h"
#include "states.h"
#include "whole-scenes.h"

/* A sequence on one of the images. */
struct workload {
    struct rig rig;
    struct crash_log *log;
    struct history history;
    struct contents now;
    struct aftermath sum, recoveries;
    uint64_t nr_workloads;
    unsigned max_unsynced;
};

static void
workload_init(struct workload *w, const struct scene *s)
{
    memset(w, 0, sizeof *w);
    rig_init(&w->rig, s->recipe, s->backing_bytes);
}

static void
workload_free(struct workload *w, const char *name)
{
    aftermath_report(&w->sum, name);
    print_message("    %llu workloads, at most %u unsynced operations; %llu "
                  "states of repairs\n", (unsigned long long)w->nr_workloads,
                  w->max_unsynced,
                  (unsigned long long)w->recoveries.nr_states);
    rig_free(&w->rig);
}

static uint64_t
mark(struct workload *w, enum crash_mark what)
{
    return crash_log_mark(w->log, what) + 1;
}

static void
begin(struct workload *w)
{
    rig_start(&w->rig);
    w->log = crash_log_new(w->rig.mem);
    w->rig.play.disk = rig_open_disk(&w->rig, io_crash_open(w->log));
    contents_read(&w->now, w->rig.play.disk);
    history_begin(&w->history, &w->now);
}

/* A state whose repair is cut short as well. */
struct recovery {
    struct workload *w;
    uint64_t moment;
    char what[256]; /* the first cut */
};

static int
check_recovery(void *opaque, const struct crash_state *state)
{
    struct recovery *r = opaque;

    expect_step("%s; then in the repair: %s", r->what, state->what);
    history_check(&r->w->history, &r->w->rig, state->image, r->moment,
                  &r->w->recoveries);
    return 0;
}

static void
cut_recovery(struct workload *w, const struct crash_state *state)
{
    struct crash_options options = {
        .nr_random = 10, .nr_torn = 10, .seed = 1
    };
    struct recovery r = { .w = w, .moment = state->nr_marks };
    struct crash_log *log = crash_log_new(state->image);
    struct qcow2_error err;

    snprintf(r.what, sizeof r.what, "%s", state->what);
    EXPECT_OK(qcow2_close(rig_open_disk(&w->rig, io_crash_open(log)), &err),
              &err);
    crash_log_enumerate(log, &options, check_recovery, &r, NULL);
    crash_log_free(log);
}

static int
check_state(void *opaque, const struct crash_state *state)
{
    struct workload *w = opaque;

    expect_step("%s", state->what);
    if (w->sum.nr_dirty % 100 == 50)
        cut_recovery(w, state);
    history_check(&w->history, &w->rig, state->image, state->nr_marks,
                  &w->sum);
    return 0;
}

/* Nothing got lost: nothing may be left over either. */
static void
expect_clean(struct mem *m)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(m, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
}

static void
end(struct workload *w, const struct crash_options *options)
{
    struct crash_stats stats;
    struct qcow2_error err;

    expect_step("the end");
    contents_expect(w->rig.play.disk, &w->now);
    EXPECT_OK(qcow2_close(w->rig.play.disk, &err), &err);
    history_durable(&w->history, mark(w, CRASH_MARK_DEMANDS));
    expect_clean(crash_log_content(w->log));
    crash_log_enumerate(w->log, options, check_state, w, &stats);
    if (stats.max_unsynced > w->max_unsynced)
        w->max_unsynced = stats.max_unsynced;
    w->nr_workloads++;
    history_free(&w->history);
    contents_free(&w->now);
    crash_log_free(w->log);
    rig_end(&w->rig);
}

static bool
possible(const struct workload *w, const struct whole_op *op)
{
    return whole_possible(&w->now, rig_version(crash_log_content(w->log)), op);
}

/* A write that stays unsynced until something else syncs it. */
static void
play_write(struct workload *w, uint64_t off, uint64_t nr_bytes, uint64_t seed)
{
    struct qcow2_error err;

    if (off >= w->now.size)
        return;
    if (nr_bytes > w->now.size - off)
        nr_bytes = w->now.size - off;
    pattern_fill(w->now.disk + off, nr_bytes, seed, off);
    history_request(&w->history, &w->now, mark(w, CRASH_MARK_ALLOWS));
    EXPECT_OK(qcow2_pwrite(w->rig.play.disk, w->now.disk + off, nr_bytes,
                           off, 0, &err), &err);
}

/* Zeroes, which free what was there; or a flush. */
static void
play_zero(struct workload *w, struct rng *r)
{
    uint64_t off = rng_below(r, w->now.size / 512 + 1) * 512;
    uint64_t nr_bytes = rng_below(r, 20) * 512;
    struct qcow2_error err;

    if (nr_bytes > w->now.size - off)
        nr_bytes = w->now.size - off;
    memset(w->now.disk + off, 0, nr_bytes);
    history_request(&w->history, &w->now, mark(w, CRASH_MARK_ALLOWS));
    EXPECT_OK(qcow2_zero(w->rig.play.disk, nr_bytes, off, QCOW2_MAY_TRIM,
                         &err), &err);
}

static void
play_flush(struct workload *w)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_flush(w->rig.play.disk, &err), &err);
    history_durable(&w->history, mark(w, CRASH_MARK_DEMANDS));
}

static void
play_whole(struct workload *w, const struct whole_op *op)
{
    struct contents after;
    struct qcow2_error err;

    contents_copy(&after, &w->now);
    whole_model(&after, op);
    history_whole(&w->history, &after, mark(w, CRASH_MARK_ALLOWS));
    EXPECT_OK(whole_run(w->rig.play.disk, &w->now, op, &err), &err);
    history_durable(&w->history, mark(w, CRASH_MARK_DEMANDS));
    contents_free(&w->now);
    w->now = after;
}

/* The n-th sequence of `length` words, with writes before and between. */
static void
try_sequence(struct workload *w, const struct scene *s, unsigned length,
             unsigned n, const struct crash_options *options)
{
    char text[256] = "";

    begin(w);
    for (unsigned i = 0; i < length; i++, n /= nr_whole_words) {
        const struct whole_op *op = &whole_words[n % nr_whole_words];

        if (!possible(w, op))
            continue;
        play_write(w, 700 + 1024 * i, 2000, 100 + i);
        snprintf(text + strlen(text), sizeof text - strlen(text), "; %s",
                 whole_text(op));
        expect_case("%s%s", s->name, text);
        play_whole(w, op);
    }
    play_write(w, 0, 1024, 200);
    end(w, options);
}

static void
every_operation(void **state)
{
    bool is_long = states_are_many();
    struct crash_options options = {
        .nr_random = is_long ? 100 : 30, .nr_torn = is_long ? 60 : 20,
        .seed = rng_seed(1)
    };

    (void)state;
    for (unsigned i = 0; i < nr_whole_scenes; i++) {
        struct workload w;

        workload_init(&w, &whole_scenes[i]);
        for (unsigned n = 0; n < nr_whole_words; n++)
            try_sequence(&w, &whole_scenes[i], 1, n, &options);
        workload_free(&w, whole_scenes[i].name);
    }
}

/* Direct I/O to a disk whose sectors are larger than clusters. */
static void
operations_in_blocks(void **state)
{
    unsigned step = states_are_many() ? 1 : 6;
    struct crash_options options = {
        .nr_random = 20, .nr_torn = 20, .seed = rng_seed(1)
    };

    (void)state;
    for (unsigned i = 0; i < nr_whole_scenes; i++) {
        struct workload w;

        workload_init(&w, &whole_scenes[i]);
        w.rig.block = 4096;
        for (unsigned n = i % step; n < nr_whole_words; n += step)
            try_sequence(&w, &whole_scenes[i], 1, n, &options);
        workload_free(&w, whole_scenes[i].name);
    }
}

static void
every_pair_of_operations(void **state)
{
    bool is_long = states_are_many();
    struct crash_options options = {
        .nr_random = is_long ? 20 : 2, .nr_torn = is_long ? 12 : 2,
        .seed = rng_seed(1)
    };
    /* In each scene others. */
    unsigned step = is_long ? 1 : 7;

    (void)state;
    for (unsigned i = 0; i < nr_whole_scenes; i++) {
        struct workload w;

        workload_init(&w, &whole_scenes[i]);
        for (unsigned n = i % step; n < nr_whole_words * nr_whole_words;
             n += step)
            try_sequence(&w, &whole_scenes[i], 2, n, &options);
        workload_free(&w, whole_scenes[i].name);
    }
}

static void
play_anything(struct workload *w, struct rng *r, unsigned number)
{
    uint32_t cluster_size = w->rig.play.cluster_size;
    unsigned dice = rng_below(r, 100);
    struct whole_op op;

    if (dice < 30) {
        expect_step("write");
        play_write(w, rng_below(r, w->now.size / 512 + 1) * 512,
                   (1 + rng_below(r, 12)) * 512, 1000 + number);
    } else if (dice < 45 && w->now.size > 512) {
        expect_step("zero");
        play_zero(w, r);
    } else if (dice < 55) {
        expect_step("flush");
        play_flush(w);
    } else {
        op = whole_random(&w->now, r, cluster_size, 70000, 512, number);
        expect_step("%s", whole_text(&op));
        if (possible(w, &op))
            play_whole(w, &op);
    }
}

static void
random_sequences(void **state)
{
    bool is_long = states_are_many();
    struct crash_options options = {
        .nr_random = is_long ? 20 : 2, .nr_torn = is_long ? 12 : 2,
        .seed = rng_seed(1)
    };

    (void)state;
    for (unsigned i = 0; i < nr_whole_scenes; i++) {
        const struct scene *s = &whole_scenes[i];
        struct workload w;

        workload_init(&w, s);
        for (unsigned n = 0; n < (is_long ? 10 : 1); n++) {
            struct rng r;

            expect_case("TEST_SEED=%llu: %s, random sequence %u",
                        (unsigned long long)rng_seed(1), s->name, n);
            rng_init(&r, rng_seed(1), i * 10000 + n);
            begin(&w);
            for (unsigned k = 0; k < 12; k++)
                play_anything(&w, &r, k);
            end(&w, &options);
        }
        workload_free(&w, s->name);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation),
        cmocka_unit_test(operations_in_blocks),
        cmocka_unit_test(every_pair_of_operations),
        cmocka_unit_test(random_sequences),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
