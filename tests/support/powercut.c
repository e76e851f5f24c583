/* SPDX-License-Identifier: BSD-3-Clause */
/* powercut.c: see powercut.h. */
#include "powercut.h"

#include <stdlib.h>

#include "audit.h"
#include "expect.h"
#include "open.h"
#include "oracle.h"
#include "tmpdir.h"

/* What is written over all of the disk at the end. */
enum { LAST_CONTENT = 4711 };

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
    unsigned char *bytes;
    uint64_t size;

    memset(pc, 0, sizeof *pc);
    pc->image = builder_new();
    builder_add(pc->image, "%s", scene->recipe);
    size = builder_disk_size(pc->image, -1);
    pc->below = must_have(calloc(1, size));
    pc->pool = must_have(qcow2_pool_new(0, NULL));
    pc->qemu_every = 1000;
    if (scene->backing_bytes == 0)
        return;
    bytes = must_have(malloc(scene->backing_bytes));
    pattern_fill(bytes, scene->backing_bytes, 77, 0);
    tmpdir_write_file(tmpdir_path("base.raw"), bytes, scene->backing_bytes);
    memcpy(pc->below, bytes,
           scene->backing_bytes < size ? scene->backing_bytes : size);
    free(bytes);
}

void
powercut_free(struct powercut *pc)
{
    qcow2_pool_free(pc->pool);
    free(pc->below);
    builder_free(pc->image);
}

static struct qcow2_disk *
open_disk(struct powercut *pc, struct io *io)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    options.pool = pc->pool;
    disk = disk_open_io(io, tmpdir_path("image"), &options, &err);
    EXPECT(disk, "open: %s", err.text);
    return disk;
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

struct mem *
powercut_start(struct powercut *pc)
{
    size_t nr_bytes;
    const unsigned char *bytes = builder_bytes(pc->image, &nr_bytes);

    return mem_new(bytes, nr_bytes);
}

void
powercut_begin_on(struct powercut *pc, struct io *io)
{
    uint64_t size = builder_disk_size(pc->image, -1);
    unsigned char *content = must_have(malloc(size));

    memcpy(content, pc->below, size);
    builder_overlay(pc->image, -1, content, size);
    memset(&pc->play, 0, sizeof pc->play);
    play_init(&pc->play, content, size);
    free(content);
    model_remember(&pc->play.model);
    pc->play.now = now;
    pc->play.opaque = pc;
    pc->play.disk = open_disk(pc, io);
    pc->play.cluster_size = qcow2_get_cluster_size(pc->play.disk);
    pc->play.may_keep_trimmed = builder_version(pc->image) == 2;
}

void
powercut_begin(struct powercut *pc)
{
    struct mem *start = powercut_start(pc);

    pc->log = crash_log_new(start);
    mem_free(start);
    powercut_begin_on(pc, io_crash_open(pc->log));
}

static void
expect_snapshots(struct powercut *pc, struct qcow2_disk *disk)
{
    size_t nr = qcow2_get_nr_snapshots(disk);
    struct qcow2_error err;

    for (size_t i = 0; i < nr; i++) {
        struct qcow2_snapshot info;
        struct qcow2_disk *s;
        uint64_t size = builder_disk_size(pc->image, i);
        unsigned char *want = must_have(calloc(2, size));
        unsigned char *got = want + size;

        qcow2_get_snapshot(disk, i, &info);
        s = qcow2_open_snapshot(disk, info.name, &err);
        EXPECT(s, "snapshot %s: %s", info.name, err.text);
        memcpy(want, pc->below, size);
        builder_overlay(pc->image, i, want, size);
        EXPECT_OK(qcow2_pread(s, got, size, 0, &err), &err);
        expect_same("snapshot", got, want, size, 0);
        EXPECT_OK(qcow2_close(s, &err), &err);
        free(want);
    }
}

/* Two owners of one cluster show when one of them writes. */
static void
rewrite_disk(struct powercut *pc, struct qcow2_disk *disk)
{
    uint64_t size = pc->play.model.size;
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

    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.nr_corruptions == 0, "%s: %u corruptions: %s", when,
           a.nr_corruptions, a.first);
    EXPECT(a.nr_uncopied == 0 && !a.corrupt, "%s: %u without COPIED", when,
           a.nr_uncopied);
    return a;
}

static void
ask_qemu(struct powercut *pc, struct mem *m)
{
    const char *path = tmpdir_path("state.qcow2");
    struct oracle_check c;

    if (!pc->qemu_every || pc->nr_states % pc->qemu_every != 0 ||
        !oracle_present())
        return;
    mem_save(m, path);
    oracle_check(path, &c);
    EXPECT(c.corruptions == 0 && c.check_errors == 0,
           "qemu-img check: exit status %d, %ld corruptions", c.exit_status,
           c.corruptions);
}

void
powercut_check(struct powercut *pc, struct mem *m, uint64_t moment)
{
    uint64_t size = pc->play.model.size, bad;
    unsigned char *content = must_have(malloc(size + 1));
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct audit before, after;

    pc->nr_states++;
    before = audit_mem(m, "state");
    pc->nr_leaky += before.nr_leaks > 0;
    if (before.nr_leaks > pc->max_leaks)
        pc->max_leaks = before.nr_leaks;
    ask_qemu(pc, m);

    disk = open_disk(pc, io_mem_open(m, false));
    EXPECT_OK(qcow2_pread(disk, content, size, 0, &err), &err);
    EXPECT(model_legal(&pc->play.model, content, moment, &bad),
           "sector %llu holds neither what was flushed nor what was sent "
           "later (%02x %02x %02x %02x…)", (unsigned long long)bad,
           content[bad * SECTOR], content[bad * SECTOR + 1],
           content[bad * SECTOR + 2], content[bad * SECTOR + 3]);
    expect_snapshots(pc, disk);
    rewrite_disk(pc, disk);
    expect_snapshots(pc, disk);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    after = audit_mem(m, "rewritten state");
    EXPECT(after.nr_leaks <= before.nr_leaks && !after.dirty,
           "%u leaks became %u", before.nr_leaks, after.nr_leaks);
    free(content);
}

static int
check_state(void *opaque, const struct crash_state *state)
{
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

    EXPECT_OK(qcow2_close(pc->play.disk, &err), &err);
    model_flushed(&pc->play.model, sent, now(pc, PLAY_DURABLE));
    crash_log_enumerate(pc->log, options, check_state, pc, &stats);
    if (stats.max_unsynced > pc->max_unsynced)
        pc->max_unsynced = stats.max_unsynced;
    pc->nr_workloads++;
    crash_log_free(pc->log);
    pc->log = NULL;
    play_free(&pc->play);
}

void
powercut_report(const struct powercut *pc, const char *name)
{
    print_message("%s: %llu workloads, %llu states (%llu with leaks, at most "
                  "%u), at most %u unsynced operations\n", name,
                  (unsigned long long)pc->nr_workloads,
                  (unsigned long long)pc->nr_states,
                  (unsigned long long)pc->nr_leaky, pc->max_leaks,
                  pc->max_unsynced);
}
