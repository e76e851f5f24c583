/* SPDX-License-Identifier: BSD-3-Clause */
/* powercut.c: see powercut.h. */
#include "powercut.h"

#include <stdlib.h>

#include "audit.h"
#include "check/check.h"
#include "expect.h"
#include "rng.h"
#include "states.h"

/* What is written over all of the disk at the end. */
enum { LAST_CONTENT = 4711 };

/* Of so many states one that leaks is repaired; one is used and cut again. */
enum { REPAIR_EVERY = 10, CUT_AGAIN_EVERY = 4000 };

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

void
powercut_init(struct powercut *pc, const struct scene *scene)
{
    memset(pc, 0, sizeof *pc);
    rig_init(&pc->rig, scene->recipe, scene->backing_bytes);
    pc->rig.device_bytes = scene->device_bytes;
}

void
powercut_free(struct powercut *pc)
{
    rig_free(&pc->rig);
}

static uint64_t
now(void *opaque, enum play_event event)
{
    struct powercut *pc = opaque;

    if (!pc->log)
        return ++pc->moment;
    return crash_log_mark(pc->log, event == PLAY_DURABLE
                                       ? CRASH_MARK_DEMANDS
                                       : CRASH_MARK_ALLOWS) + 1;
}

static void
remember(struct powercut *pc)
{
    struct play *p = &pc->rig.play;

    model_remember(&p->model);
    p->now = now;
    p->opaque = pc;
}

void
powercut_begin(struct powercut *pc)
{
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    rig_start(&pc->rig);
    bytes = mem_bytes(pc->rig.mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    pc->nr_old_leaks = a.nr_leaks;
    pc->closed = UINT64_MAX;
    pc->log = crash_log_new(pc->rig.mem);
    remember(pc);
    pc->rig.play.disk = rig_open_disk(&pc->rig,
                                      io_fault_new(io_crash_open(pc->log),
                                                   &pc->rig.plan));
}

void
powercut_begin_faulty(struct powercut *pc)
{
    pc->closed = UINT64_MAX;
    rig_open(&pc->rig);
    remember(pc);
}

/* Two owners of one cluster show when one of them writes. */
static void
rewrite_disk(struct powercut *pc, struct qcow2_disk *disk)
{
    uint64_t size = pc->rig.play.model.size;
    unsigned char *want = must_have(malloc(2 * size + 1));
    unsigned char *got = want + size;
    struct qcow2_error err;

    pattern_fill(want, size, LAST_CONTENT, 0);
    EXPECT_OK(qcow2_pwrite(disk, want, size, 0, 0, &err), &err);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    EXPECT_OK(qcow2_pread(disk, got, size, 0, &err), &err);
    expect_same("rewritten disk", got, want, size, 0);
    free(want);
}

static struct audit
audit_mem(struct mem *m, const char *when)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(m, &nr_bytes);
    struct audit a;

    unsigned nr_mendable;

    audit_image(bytes, nr_bytes, &a);
    nr_mendable = a.dirty && a.lazy ? audit_nr_mendable(&a) : 0;
    EXPECT(a.nr_corruptions == nr_mendable, "%s: %u corruptions: %s", when,
           a.nr_corruptions - nr_mendable, a.first);
    EXPECT((a.nr_uncopied == 0 || (a.dirty && a.lazy)) && !a.corrupt,
           "%s: %u without COPIED", when, a.nr_uncopied);
    return a;
}

/* What leaked is given back by a repair, and nothing else changes. */
static void
repair_leaks(struct powercut *pc, struct mem *m)
{
    const struct qcow2_check_options options = {
        .repair = QCOW2_REPAIR_LEAKS,
    };
    uint64_t size = pc->rig.play.model.size;
    unsigned char *want = must_have(malloc(2 * size + 1));
    struct io *io = io_mem_open(m, false);
    struct qcow2_check_result result;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct audit a;

    EXPECT_OK(check_io(io, &options, &result, &err), &err);
    io_close(io);
    EXPECT(result.corruptions + result.leaks + result.corruptions_fixed == 0,
           "%llu corruptions and %llu leaks are left",
           (unsigned long long)result.corruptions,
           (unsigned long long)result.leaks);
    a = audit_mem(m, "state without leaks");
    EXPECT(audit_is_clean(&a), "%u leaks", a.nr_leaks);
    pattern_fill(want, size, LAST_CONTENT, 0);
    disk = rig_open_disk(&pc->rig, io_mem_open(m, false));
    EXPECT_OK(qcow2_pread(disk, want + size, size, 0, &err), &err);
    expect_same("disk without leaks", want + size, want, size, 0);
    rig_expect_snapshots(&pc->rig, disk);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(want);
}

void
powercut_check(struct powercut *pc, struct mem *m, uint64_t moment)
{
    uint64_t size = pc->rig.play.model.size, bad;
    unsigned char *content = must_have(malloc(size + 1));
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct audit before, after;

    pc->nr_states++;
    before = audit_mem(m, "state");
    EXPECT(before.nr_leaks <= pc->nr_old_leaks || moment < pc->closed,
           "%u leaks, though it was closed before the cut", before.nr_leaks);
    pc->nr_leaky += before.nr_leaks > 0;
    pc->nr_uncounted += before.nr_uncounted > 0;
    if (before.nr_leaks > pc->max_leaks)
        pc->max_leaks = before.nr_leaks;
    states_ask_qemu(m, before.dirty, false);

    disk = rig_open_disk(&pc->rig, io_mem_open(m, false));
    EXPECT_OK(qcow2_pread(disk, content, size, 0, &err), &err);
    EXPECT(model_legal(&pc->rig.play.model, content, moment, &bad),
           "sector %llu holds neither what was flushed nor what was sent "
           "later (%02x %02x %02x %02x…)", (unsigned long long)bad,
           content[bad * SECTOR], content[bad * SECTOR + 1],
           content[bad * SECTOR + 2], content[bad * SECTOR + 3]);
    rig_expect_snapshots(&pc->rig, disk);
    rewrite_disk(pc, disk);
    rig_expect_snapshots(&pc->rig, disk);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    after = audit_mem(m, "rewritten state");
    EXPECT(after.nr_leaks <= before.nr_leaks && !after.dirty,
           "%u leaks became %u", before.nr_leaks, after.nr_leaks);
    if (after.nr_leaks > 0 && pc->nr_states % REPAIR_EVERY == 0)
        repair_leaks(pc, m);
    free(content);
}

/* A state is used, and that is cut: what it held, and what is written. */
struct second_cut {
    struct powercut *pc;
    const char *what; /* the first cut */
    unsigned char *before, *after;
};

static int
check_second(void *opaque, const struct crash_state *state)
{
    struct second_cut *c = opaque;
    uint64_t size = c->pc->rig.play.model.size;
    unsigned char *got = must_have(malloc(size + 1));
    struct qcow2_disk *disk;
    struct qcow2_error err;
    bool dirty;

    expect_step("%s; then %s", c->what, state->what);
    dirty = audit_mem(state->image, "second cut").dirty;
    states_ask_qemu(state->image, dirty, false);
    disk = rig_open_disk(&c->pc->rig, io_mem_open(state->image, false));
    EXPECT_OK(qcow2_pread(disk, got, size, 0, &err), &err);
    for (uint64_t off = 0; off < size; off += SECTOR) {
        size_t n = size - off < SECTOR ? size - off : SECTOR;

        EXPECT(memcmp(got + off, c->after + off, n) == 0
               || (state->nr_marks == 0
                   && memcmp(got + off, c->before + off, n) == 0),
               "second cut: the sector at 0x%llx",
               (unsigned long long)off);
    }
    rewrite_disk(c->pc, disk);
    rig_expect_snapshots(&c->pc->rig, disk);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    audit_mem(state->image, "rewritten second cut");
    free(got);
    return 0;
}

static void
change(struct second_cut *c, struct qcow2_disk *disk, bool zero,
       uint64_t off, uint64_t nr_bytes)
{
    struct qcow2_error err;

    pattern_fill(c->after + off, nr_bytes, zero ? 0 : LAST_CONTENT + 1, off);
    if (zero)
        EXPECT_OK(qcow2_zero(disk, nr_bytes, off, QCOW2_MAY_TRIM, &err),
                  &err);
    else
        EXPECT_OK(qcow2_pwrite(disk, c->after + off, nr_bytes, off, 0, &err),
                  &err);
}

static void
cut_again(struct powercut *pc, const struct crash_state *state)
{
    const struct crash_options options = {
        .nr_random = 5, .nr_torn = 5, .seed = rng_seed(1),
    };
    uint64_t size = pc->rig.play.model.size;
    struct second_cut c = { .pc = pc, .what = state->what };
    struct crash_log *log = crash_log_new(state->image);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    c.before = must_have(malloc(2 * size + 1));
    c.after = c.before + size;
    disk = rig_open_disk(&pc->rig, io_crash_open(log));
    EXPECT_OK(qcow2_pread(disk, c.before, size, 0, &err), &err);
    memcpy(c.after, c.before, size);
    change(&c, disk, false, 512, 1536);
    change(&c, disk, true, 3072, 3072);
    change(&c, disk, false, 20 * 1024, 1024);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    crash_log_mark(log, CRASH_MARK_DEMANDS);
    crash_log_enumerate(log, &options, check_second, &c, NULL);
    crash_log_free(log);
    free(c.before);
}

static int
check_state(void *opaque, const struct crash_state *state)
{
    struct powercut *pc = opaque;

    if (pc->nr_states % CUT_AGAIN_EVERY == CUT_AGAIN_EVERY / 2)
        cut_again(pc, state);
    expect_step("%s", state->what);
    powercut_check(opaque, state->image, state->nr_marks);
    return 0;
}

void
powercut_end(struct powercut *pc, const struct crash_options *options)
{
    struct crash_stats stats;
    struct qcow2_error err;
    uint64_t sent = now(pc, PLAY_SENT);

    EXPECT_OK(qcow2_close(pc->rig.play.disk, &err), &err);
    pc->closed = now(pc, PLAY_DURABLE);
    model_flushed(&pc->rig.play.model, sent, pc->closed);
    crash_log_enumerate(pc->log, options, check_state, pc, &stats);
    if (stats.max_unsynced > pc->max_unsynced)
        pc->max_unsynced = stats.max_unsynced;
    pc->nr_workloads++;
    crash_log_free(pc->log);
    pc->log = NULL;
    rig_end(&pc->rig);
}

void
powercut_report(const struct powercut *pc, const char *name)
{
    print_message("%s: %llu workloads, %llu states (%llu with leaks, at most "
                  "%u, %llu with refcounts too low), at most %u unsynced "
                  "operations\n", name,
                  (unsigned long long)pc->nr_workloads,
                  (unsigned long long)pc->nr_states,
                  (unsigned long long)pc->nr_leaky, pc->max_leaks,
                  (unsigned long long)pc->nr_uncounted, pc->max_unsynced);
}
