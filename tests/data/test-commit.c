/* SPDX-License-Identifier: BSD-3-Clause */
/* test-commit: commit over random chains: the base then reads as the overlay
 * did, the overlay as before; whatever fails or whenever it is killed, the
 * overlay keeps reading right, and doing it again completes it. TEST_ROUNDS
 * and TEST_SEED make longer and other runs.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit.h"
#include "disk/open.h"
#include "expect.h"
#include "io-fault.h"
#include "job/commit.h"
#include "layers.h"
#include "oracle.h"
#include "tmpdir.h"

struct trial {
    struct rng rng;
    struct layers chain;
    unsigned base;          /* layer to commit to */
    bool keep;
    enum qcow2_left_to_backing snapshots;
    unsigned char *wanted;  /* what the base must read as */
    uint64_t wanted_size;
};

static void
trial_begin(struct trial *t, uint64_t seed, unsigned round, bool deep)
{
    struct test_layer *top, *base;

    tmpdir_clear();
    rng_init(&t->rng, seed, round);
    layers_make(&t->chain, &t->rng,
                deep ? 2 + rng_below(&t->rng, MAX_TEST_LAYERS - 1) : 2,
                rng_percent(&t->rng, 50), "l");
    top = layers_top(&t->chain);
    t->base = deep ? rng_below(&t->rng, t->chain.nr - 1) : t->chain.nr - 2;
    t->keep = deep && rng_percent(&t->rng, 30);
    t->snapshots = rng_percent(&t->rng, 70) ? QCOW2_SNAPSHOTS_KEEP
                                            : QCOW2_SNAPSHOTS_CHANGE;
    base = &t->chain.layer[t->base];
    t->wanted_size = top->size > base->size ? top->size : base->size;
    t->wanted = calloc(1, t->wanted_size);
    memcpy(t->wanted, base->shows, base->size);
    memcpy(t->wanted, top->shows, top->size);
    expect_case("seed %llu round %u: commit to layer %u%s of %s, snapshots "
                "%s", (unsigned long long)seed, round, t->base,
                t->keep ? ", keep" : "", layers_text(&t->chain),
                t->snapshots == QCOW2_SNAPSHOTS_KEEP ? "stay" : "change");
}

static void
trial_end(struct trial *t)
{
    free(t->wanted);
    layers_free(&t->chain);
}

static enum qcow2_format
format_of(const struct test_layer *l)
{
    return l->raw ? QCOW2_FORMAT_RAW : QCOW2_FORMAT_QCOW2;
}

static void
run(struct qcow2_job *job)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
}

static void
commit_by_path(struct trial *t)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_commit_options commit = {
        .keep = t->keep, .snapshots = t->snapshots,
    };
    struct qcow2_error err;
    struct qcow2_job *job;

    if (t->base != t->chain.nr - 2 || rng_percent(&t->rng, 50))
        commit.base = tmpdir_path(t->chain.layer[t->base].name);
    job = qcow2_commit(tmpdir_path(layers_top(&t->chain)->name), &options,
                       &commit, &err);
    EXPECT(job, "%s", err.text);
    run(job);
}

static struct audit
audit_of(const char *name)
{
    struct audit a;
    size_t nr_bytes;
    unsigned char *bytes = tmpdir_read_file(tmpdir_path(name), &nr_bytes);

    audit_image(bytes, nr_bytes, &a);
    free(bytes);
    return a;
}

/* No corruption, and no leaks, or what an interrupted write leaves. */
static struct audit
expect_sound(const char *name, bool may_leak)
{
    struct audit a = audit_of(name);

    EXPECT(may_leak ? a.nr_corruptions == 0 : audit_is_clean(&a),
           "%s: %s, %u leaks", name, a.first, a.nr_leaks);
    if (a.nr_leaks > 0)
        oracle_run("qemu-img check -q -r leaks '%s' >/dev/null 2>&1",
                   tmpdir_path(name));
    return a;
}

/* may_leak: where no dirty bit makes up for an interruption. */
static void
expect_committed(struct trial *t, bool may_leak)
{
    struct test_layer *top = layers_top(&t->chain);
    struct test_layer *base = &t->chain.layer[t->base];
    struct test_layer *below = &t->chain.layer[t->chain.nr - 2];
    struct audit a = expect_sound(top->name, may_leak && top->version == 2);

    if (t->base == t->chain.nr - 2 && !t->keep)
        EXPECT(a.nr_data == 0, "%llu data clusters",
               (unsigned long long)a.nr_data);
    if (!base->raw)
        expect_sound(base->name, may_leak);
    layers_expect(base->name, format_of(base), t->wanted, t->wanted_size);
    layers_expect(top->name, QCOW2_FORMAT_QCOW2, top->shows, top->size);
    if (t->chain.snapshots && t->snapshots == QCOW2_SNAPSHOTS_KEEP)
        layers_expect_snapshots(&t->chain, below->shows, below->size);
    else if (t->chain.snapshots && t->base == t->chain.nr - 2)
        layers_expect_snapshots(&t->chain, t->wanted, t->wanted_size);
}

static void
the_base_reads_as_the_overlay_did(void **state)
{
    uint64_t seed = rng_seed(1);
    unsigned rounds = env_number("TEST_ROUNDS", 40);

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        struct trial t;

        trial_begin(&t, seed, i, true);
        commit_by_path(&t);
        expect_committed(&t, false);
        commit_by_path(&t);
        expect_committed(&t, false);
        trial_end(&t);
    }
}

/* Exactly where a snapshot would read differently; and nothing is changed. */
static void
without_leave_no_snapshot_changes(void **state)
{
    uint64_t seed = rng_seed(5);
    unsigned rounds = env_number("TEST_ROUNDS", 40), nr_refused = 0;

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        struct qcow2_commit_options commit = { .keep = i % 2 };
        unsigned char *before, *after;
        struct test_layer *top, *base;
        struct qcow2_error err;
        struct qcow2_job *job;
        size_t nr_before, nr_after;
        bool differ;
        struct trial t;

        trial_begin(&t, seed, i, false);
        t.keep = commit.keep;
        top = layers_top(&t.chain);
        base = &t.chain.layer[t.base];
        differ = layers_snapshots_differ(&t.chain, base->shows, base->size,
                                         t.wanted, t.wanted_size);
        before = tmpdir_read_file(tmpdir_path(top->name), &nr_before);
        job = qcow2_commit(tmpdir_path(top->name), &options, &commit, &err);
        EXPECT(job, "%s", err.text);
        if (differ) {
            EXPECT(qcow2_job_run(job, NULL, NULL, &err) == -1, "no refusal");
            EXPECT(err.errnum == ENOTEMPTY
                   && err.hints == QCOW2_HINT_SNAPSHOTS
                   && (strstr(err.text, "'first'")
                       || strstr(err.text, "'second'")), "%s", err.text);
            qcow2_job_free(job);
            after = tmpdir_read_file(tmpdir_path(top->name), &nr_after);
            EXPECT(nr_before == nr_after
                   && memcmp(before, after, nr_after) == 0, "it changed");
            free(after);
            layers_expect(base->name, format_of(base), base->shows,
                          base->size);
            nr_refused++;
        } else {
            run(job);
            t.snapshots = QCOW2_SNAPSHOTS_KEEP;
            expect_committed(&t, false);
        }
        free(before);
        trial_end(&t);
    }
    EXPECT(nr_refused > 0 && nr_refused < rounds, "%u refused", nr_refused);
}

/* Then the other implementation shows what the base's last cluster holds past
 * its end. */
static bool
grows_in_a_cluster(const struct trial *t)
{
    const struct test_layer *base = &t->chain.layer[0];

    return !base->raw && base->size < t->wanted_size
           && base->size % (UINT64_C(1) << base->cluster_bits) != 0;
}

static void
the_other_implementation_agrees(void **state)
{
    uint64_t seed = rng_seed(2);

    (void)state;
    oracle_or_skip();
    for (unsigned i = 0; i < 12; i++) {
        struct trial t;

        trial_begin(&t, seed, i, false);
        EXPECT(oracle_run("qemu-img commit -q '%s' >/dev/null",
                          tmpdir_path(layers_top(&t.chain)->name)) == 0,
               "qemu-img commit");
        if (!grows_in_a_cluster(&t))
            layers_expect(t.chain.layer[0].name,
                          format_of(&t.chain.layer[0]), t.wanted,
                          t.wanted_size);
        trial_end(&t);
    }
}

/* The job on the disks, with every operation on both files counted and, if
 * the plan says so, failing. NULL: one of them could not be opened. */
static struct qcow2_job *
commit_with_faults(struct trial *t, struct fault_plan *plan,
                   struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct test_layer *base = &t->chain.layer[t->base];
    const char *top_path = tmpdir_path(layers_top(&t->chain)->name);
    const char *base_path = tmpdir_path(base->name);
    struct chain_stop stop = { .ino = 0 };
    struct qcow2_disk *top, *below;

    top = disk_open_above(
        io_fault_new(io_file_open(top_path, -1, false, IO_LOCK_WRITE, err),
                     plan), top_path, &options, &stop, err);
    policy_file_free(&stop.file);
    if (!top)
        return NULL;
    options.format = format_of(base);
    below = disk_open_io(
        io_fault_new(io_file_open(base_path, -1, false, IO_LOCK_WRITE, err),
                     plan), base_path, &options, err);
    if (!below) {
        qcow2_close(top, NULL);
        return NULL;
    }
    return commit_new(top, below, true, t->snapshots, err);
}

/* Whatever was interrupted: the overlay reads as ever. */
static void
expect_overlay_intact(struct trial *t)
{
    struct test_layer *top = layers_top(&t->chain);
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct audit a = audit_of(top->name);
    struct qcow2_error err;
    struct qcow2_disk *disk;
    unsigned char *got;

    EXPECT(a.nr_corruptions == 0, "%s", a.first);
    options.readonly = true;
    disk = qcow2_open(tmpdir_path(top->name), &options, &err);
    EXPECT(disk, "%s", err.text);
    got = layers_read(disk);
    expect_same("overlay", got, top->shows, top->size, 0);
    free(got);
    qcow2_close(disk, NULL);
}

/* Commits in a child that is killed at its n-th write or flush; true if it
 * lived to the end. */
static bool
commit_killed(struct trial *t, unsigned nth)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct fault_plan plan = FAULT_PLAN_INIT;
        struct qcow2_job *job;

        fault_arm(&plan, FAULT_CHANGE | FAULT_FLUSH, nth, EIO, FAULT_KILL);
        job = commit_with_faults(t, &plan, NULL);
        _exit(job && qcow2_job_run(job, NULL, NULL, NULL) == 0 ? 0 : 1);
    }
    EXPECT(pid > 0 && waitpid(pid, &status, 0) == pid, "fork");
    EXPECT(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "commit failed");
    return !WIFSIGNALED(status);
}

static void
killed_anywhere_and_run_again_it_completes(void **state)
{
    uint64_t seed = rng_seed(3);
    unsigned rounds = env_number("TEST_ROUNDS", 4), nr_kills = 0;

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        bool lived = false;

        for (unsigned nth = 1; !lived; nth += 1 + nth / 8) {
            struct trial t;

            trial_begin(&t, seed, i, false);
            expect_step("killed at %u", nth);
            lived = commit_killed(&t, nth);
            nr_kills += !lived;
            expect_overlay_intact(&t);
            commit_by_path(&t);
            expect_committed(&t, true);
            trial_end(&t);
        }
    }
    print_message("%u kills\n", nr_kills);
}

static void
a_failure_anywhere_loses_nothing(void **state)
{
    static const unsigned kinds[] = {
        FAULT_WRITE, FAULT_FLUSH, FAULT_READ,
        FAULT_ZERO | FAULT_PUNCH | FAULT_TRUNCATE,
    };
    uint64_t seed = rng_seed(4);

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        bool fired = true;

        for (unsigned nth = 1; fired; nth += 1 + nth / 8) {
            struct fault_plan plan = FAULT_PLAN_INIT;
            struct qcow2_error err;
            struct qcow2_job *job;
            struct trial t;
            int r = -1;

            trial_begin(&t, seed, i, false);
            expect_step("fault %u of kind %u", nth, kinds[i % 4]);
            fault_arm(&plan, kinds[i % 4], nth, nth & 1 ? EIO : ENOSPC,
                      i & 4 ? FAULT_FOR_GOOD : FAULT_ONCE);
            job = commit_with_faults(&t, &plan, &err);
            if (job)
                r = qcow2_job_run(job, NULL, NULL, &err);
            qcow2_job_free(job);
            fired = fault_fired(&plan) > 0;
            EXPECT(fired || r == 0, "%s", err.text);
            EXPECT(r == 0 || err.errnum == (nth & 1 ? EIO : ENOSPC), "%s",
                   err.text);
            expect_overlay_intact(&t);
            commit_by_path(&t);
            expect_committed(&t, true);
            trial_end(&t);
        }
    }
}

static void
expect_refused(const char *name, const char *base, int errnum,
               const char *text)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_commit_options commit = { .base = base };
    struct qcow2_error err = { .errnum = 0 };
    struct qcow2_job *job = qcow2_commit(tmpdir_path(name), &options,
                                         &commit, &err);

    EXPECT(!job, "commit of %s to %s began", name, base ? base : "-");
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
}

static void
what_cannot_be_is_refused_in_words(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *user;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    expect_case("refusals");
    builder_make(tmpdir_path("base"), "size 1M; data 0-3 1");
    builder_make(tmpdir_path("other"), "size 1M; data 0-3 1");
    builder_make(tmpdir_path("top"), "size 1M; backing base qcow2; data 1 2");
    builder_make(tmpdir_path("loop1"), "size 1M; backing loop2 qcow2");
    builder_make(tmpdir_path("loop2"), "size 1M; backing loop1 qcow2");
    builder_make(tmpdir_path("unsure"), "size 1M; backing base -");
    builder_make(tmpdir_path("corrupt"), "size 1M; incompatible 1;"
                 "backing base qcow2");

    expect_refused("base", NULL, EINVAL, "no backing file");
    expect_refused("top", tmpdir_path("other"), EINVAL,
                   "not in its backing chain");
    expect_refused("top", "other", EINVAL, "not in its backing chain");
    expect_refused("top", tmpdir_path("top"), EINVAL,
                   "not in its backing chain");
    expect_refused("top", "missing", ENOENT, "missing");
    expect_refused("loop1", NULL, EIO, "loop");
    expect_refused("unsure", NULL, EPERM, "looks like qcow2");
    expect_refused("corrupt", NULL, EROFS, "corrupt");

    options.readonly = true;
    user = qcow2_open(tmpdir_path("base"), &options, &err);
    EXPECT(user, "%s", err.text);
    expect_refused("top", NULL, EBUSY, "base");
    qcow2_close(user, NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_reads_as_the_overlay_did),
        cmocka_unit_test(without_leave_no_snapshot_changes),
        cmocka_unit_test(the_other_implementation_agrees),
        cmocka_unit_test(killed_anywhere_and_run_again_it_completes),
        cmocka_unit_test(a_failure_anywhere_loses_nothing),
        cmocka_unit_test(what_cannot_be_is_refused_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
