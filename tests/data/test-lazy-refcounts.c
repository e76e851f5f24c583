/* SPDX-License-Identifier: BSD-3-Clause */
/* test-lazy-refcounts: when refcounts of an image with lazy refcounts are
 * written, and when its dirty bit comes and goes. That no power cut does harm
 * meanwhile is for crash/test-lazy-refcounts, the order of writes for what
 * watches all images (io-order.h).
 */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "disk/open-disk.h"
#include "expect.h"
#include "rig.h"

enum { C = 65536 };

static const char recipe[] =
    "compatible 0; cluster 64K; size 16M; backing base.raw raw;"
    "data 0-15 1; compressed 16-19 2; zero-alloc 20-23";

static void
open_rig(struct rig *r, const char *text, uint64_t backing_bytes)
{
    expect_case("%s", text);
    rig_init(r, text, backing_bytes);
    rig_open(r);
    fault_reset_counts(&r->plan);
}

static void
close_rig(struct rig *r)
{
    rig_close(r); /* which finds nothing wrong */
    rig_free(r);
}

static struct audit
audit_file(struct rig *r)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(r->mem, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.nr_corruptions == audit_nr_mendable(&a), "%s", a.first);
    return a;
}

static void
expect_marked(struct rig *r, bool dirty, bool uncounted)
{
    struct audit a = audit_file(r);

    EXPECT(a.dirty == dirty, "the dirty bit is %d", a.dirty);
    EXPECT((a.nr_uncounted > 0) == uncounted, "%u refcounts are too low",
           a.nr_uncounted);
}

/* Makes refcounts differ from what is on disk. */
static void
allocate(struct rig *r, unsigned cluster)
{
    rig_play(r, OP_WRITE, (uint64_t)cluster * C, 5000, 0);
    rig_flush(r);
    expect_marked(r, true, true);
}

static void
flushes_leave_refcounts_to_the_close(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    rig_play(&r, OP_WRITE, 3 * C, 5000, 0);
    rig_flush(&r);
    expect_marked(&r, false, false);
    for (unsigned i = 40; i < 48; i++)
        allocate(&r, i);
    rig_play(&r, OP_TRIM, 0, 8 * C, 0);
    rig_play(&r, OP_WRITE, 16 * C, 2 * C, QCOW2_FUA);
    expect_marked(&r, true, true);
    close_rig(&r);
}

static void
what_only_frees_clusters_is_marked_as_well(void **state)
{
    struct audit a;
    struct rig r;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    rig_play(&r, OP_ZERO, 0, 8 * C, QCOW2_MAY_TRIM | QCOW2_FUA);
    a = audit_file(&r);
    EXPECT(a.dirty && a.nr_leaks == 8, "dirty %d, %u leaks", a.dirty,
           a.nr_leaks);
    close_rig(&r);
}

static void
a_flush_writes_nothing_else_for_it(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    allocate(&r, 40);
    fault_reset_counts(&r.plan);
    allocate(&r, 41);
    /* The cluster, and a slice of its L2 table. */
    EXPECT(fault_count(&r.plan, FAULT_WRITE) == 2, "%d writes",
           (int)fault_count(&r.plan, FAULT_WRITE));
    EXPECT(fault_count(&r.plan, FAULT_FLUSH) == 2, "%d barriers",
           (int)fault_count(&r.plan, FAULT_FLUSH));
    close_rig(&r);
}

static void
what_only_drops_clusters_takes_one_barrier(void **state)
{
    struct rig r;

    (void)state;
    expect_case("%s", recipe);
    rig_init(&r, recipe, 8 << 20);
    r.options.no_discard = true; /* nor a punched cluster */
    rig_open(&r);
    allocate(&r, 40);
    for (unsigned i = 0; i < 5; i++) {
        rig_play(&r, OP_ZERO, i * C, C, QCOW2_MAY_TRIM);
        fault_reset_counts(&r.plan);
        rig_flush(&r);
        EXPECT(fault_count(&r.plan, FAULT_FLUSH) == 1, "%d barriers",
               (int)fault_count(&r.plan, FAULT_FLUSH));
    }
    close_rig(&r);
}

static void
reads_and_overwrites_leave_the_image_as_it_is(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    rig_play(&r, OP_READ, 0, 4 << 20, 0);
    rig_play(&r, OP_WRITE, 5 * C, C, QCOW2_FUA);
    rig_play(&r, OP_TRIM, 60 * C, C, QCOW2_FUA);
    expect_marked(&r, false, false);
    close_rig(&r);
}

static void
what_has_the_image_alone_finds_refcounts_written(void **state)
{
    const struct qcow2_snapshot_create_options none = {
        .vm_clock_nsec = 0,
    };
    const struct qcow2_amend_options narrow = { .refcount_bits = 8 };
    struct qcow2_error err;
    struct rig r;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    allocate(&r, 40);
    EXPECT_OK(qcow2_snapshot_create(r.play.disk, "s", &none, &err), &err);
    expect_marked(&r, false, false);
    allocate(&r, 40); /* the snapshot has it, too */
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "s", &err), &err);
    expect_marked(&r, false, false);
    allocate(&r, 50);
    EXPECT_OK(qcow2_amend(r.play.disk, &narrow, &err), &err);
    EXPECT(audit_file(&r).nr_uncounted == 0, "refcounts are too low");
    rig_play(&r, OP_WRITE, 60 * C, 5000, QCOW2_FUA);
    EXPECT(audit_file(&r).nr_uncounted > 0, "it does not go on");
    close_rig(&r);
}

static void
amended_on_and_off_while_it_is_open(void **state)
{
    struct qcow2_amend_options o = { .lazy_refcounts = QCOW2_AMEND_OFF };
    struct qcow2_error err;
    struct rig r;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    allocate(&r, 40);
    EXPECT_OK(qcow2_amend(r.play.disk, &o, &err), &err);
    rig_play(&r, OP_WRITE, 41 * C, 5000, QCOW2_FUA);
    EXPECT(audit_file(&r).nr_uncounted == 0, "refcounts are too low");
    o.lazy_refcounts = QCOW2_AMEND_ON;
    EXPECT_OK(qcow2_amend(r.play.disk, &o, &err), &err);
    allocate(&r, 42);
    close_rig(&r);
}

static void
version_2_has_no_dirty_bit_left(void **state)
{
    const struct qcow2_amend_options old = { .version = 2 };
    struct qcow2_error err;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct rig r;

    (void)state;
    open_rig(&r, "compatible 0; cluster 64K; size 16M; data 0-15 1", 0);
    allocate(&r, 40);
    EXPECT_OK(qcow2_amend(r.play.disk, &old, &err), &err);
    bytes = mem_bytes(r.mem, &nr_bytes);
    EXPECT(bytes[7] == 2 && audit_file(&r).nr_corruptions == 0, "amended");
    close_rig(&r);
}

/* Of a cache of 1 MiB an eighth may be refcounts: 256 slices of 64. */
static void
memory_for_refcounts_is_bounded(void **state)
{
    static const char text[] =
        "compatible 0; cluster 512; refcount-bits 64; size 12M; data 0-19 1";
    const struct qcow2_amend_options lazy = {
        .lazy_refcounts = QCOW2_AMEND_ON,
    };
    enum { DISK = 12 << 20, PART = 96 << 10, BOUND = 256 * 64 };
    struct qcow2_error err;
    struct rig r;
    unsigned most = 0;

    (void)state;
    expect_case("%s", text);
    rig_init(&r, text, 0);
    qcow2_pool_free(r.options.pool);
    r.options.pool = qcow2_pool_new(1 << 20, NULL);
    rig_open(&r);
    /* There are refblocks now: making some has a flush write all. */
    rig_play(&r, OP_WRITE, 0, DISK, QCOW2_FUA);
    rig_play(&r, OP_TRIM, 0, DISK, QCOW2_FUA);
    EXPECT_OK(qcow2_amend(r.play.disk, &lazy, &err), &err); /* writes all */
    for (unsigned i = 0; i < DISK / PART; i++) {
        struct audit a;

        rig_play(&r, OP_WRITE, i * PART, PART, QCOW2_FUA);
        a = audit_file(&r);
        if (a.nr_uncounted > most)
            most = a.nr_uncounted;
    }
    /* The flag of each cluster counts as well. */
    EXPECT(most > BOUND / 4 && most <= 2 * BOUND, "%u are too low",
           most);
    close_rig(&r);
}

static void
what_was_not_closed_is_mended_by_the_next_opening(void **state)
{
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct mem *cut;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;
    struct rig r;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    for (unsigned i = 40; i < 48; i++)
        allocate(&r, i);
    rig_play(&r, OP_TRIM, 0, 8 * C, QCOW2_FUA);
    bytes = mem_bytes(r.mem, &nr_bytes);
    cut = mem_new(bytes, nr_bytes);
    disk = rig_open_disk(&r, io_mem_open(cut, false));
    bytes = mem_bytes(cut, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "%u corruptions (%s), %u leaks",
           a.nr_corruptions, a.first, a.nr_leaks);
    EXPECT_OK(qcow2_pread(disk, r.play.scratch, 16 << 20, 0, &err), &err);
    expect_same("after the opening", r.play.scratch, r.play.model.disk,
                16 << 20, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(cut);
    close_rig(&r);
}

/* The image stays marked: nobody knows what its refcounts are on disk. */
static void
a_close_that_fails_leaves_the_bit(void **state)
{
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    for (unsigned nth = 1; ; nth++) {
        bool fired, failed;
        struct rig r;

        open_rig(&r, recipe, 8 << 20);
        allocate(&r, 40);
        fault_arm(&r.plan, FAULT_WRITE | FAULT_FLUSH, nth, EIO,
                  FAULT_FOR_GOOD);
        failed = qcow2_close(r.play.disk, &err) == -1;
        fired = fault_fired(&r.plan) > 0;
        EXPECT(failed == fired, "operation %u", nth);
        fault_arm(&r.plan, 0, 0, 0, 0);
        EXPECT(audit_file(&r).nr_uncounted == 0 || audit_file(&r).dirty,
               "operation %u", nth);
        disk = rig_open_disk(&r, io_mem_open(r.mem, false));
        EXPECT(audit_file(&r).nr_uncounted == 0, "operation %u", nth);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        rig_end(&r);
        rig_free(&r);
        if (!fired)
            break;
    }
}

/* What is on disk is not to be relied on, so nothing says that it is. */
static void
damage_leaves_the_bit(void **state)
{
    struct qcow2_error err;
    struct audit a;
    struct rig r;
    const unsigned char *bytes;
    uint64_t nr_bytes;

    (void)state;
    rig_init(&r, "compatible 0; cluster 64K; size 16M; data 0-15 1;"
             "poke l2[15] = 0x8000000040000000", 0);
    rig_open(&r);
    rig_play(&r, OP_WRITE, 40 * C, 5000, QCOW2_FUA);
    EXPECT(qcow2_pread(r.play.disk, r.play.scratch, C, 15 * C, &err) == -1
           && err.errnum == EIO, "damage is not met");
    qcow2_close(r.play.disk, NULL);
    bytes = mem_bytes(r.mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.dirty && a.corrupt, "it is not marked");
    rig_end(&r);
    rig_free(&r);
}

enum { MIN_AHEAD = 1 << 20 };

static uint64_t
file_size(struct rig *r)
{
    uint64_t nr_bytes;

    mem_bytes(r->mem, &nr_bytes);
    return nr_bytes;
}

/* Each in a cluster of its own, in places that a few tables map. */
static void
flush_often(struct rig *r, unsigned first, unsigned nr)
{
    for (unsigned i = first; i < first + nr; i++)
        rig_play(r, OP_WRITE, (uint64_t)i * C, 5000, QCOW2_FUA);
}

static void
many_small_flushes_write_space_ahead(void **state)
{
    uint64_t before, after;
    struct qcow2_error err;
    struct rig r;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    flush_often(&r, 40, 7);
    before = file_size(&r);
    flush_often(&r, 47, 3);
    after = file_size(&r);
    EXPECT(after >= before + MIN_AHEAD, "%llu bytes ahead",
           (unsigned long long)(after - before));
    /* It is used. */
    flush_often(&r, 50, 10);
    EXPECT(file_size(&r) == after, "the file grows");
    /* What is freed meanwhile does not have it cut off. */
    rig_play(&r, OP_TRIM, 50 * C, 2 * C, QCOW2_FUA);
    EXPECT(file_size(&r) == after, "it was cut off");
    flush_often(&r, 60, 40);
    before = file_size(&r);
    EXPECT(before > after, "no more is written");
    play_verify(&r.play);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(file_size(&r) < before && audit_file(&r).nr_leaks == 0,
           "the close keeps what was not used");
    rig_end(&r);
    rig_free(&r);
}

static void
nothing_is_written_ahead_of_others(void **state)
{
    struct rig r;
    uint64_t end;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    for (unsigned i = 0; i < 12; i++) {
        rig_play(&r, OP_WRITE, (40 + i * 8) * C, 8 * C, QCOW2_FUA);
        flush_often(&r, 0, 8); /* in place */
    }
    end = (uint64_t)r.play.disk->file->image->alloc.end * C;
    EXPECT(file_size(&r) == end, "large writes");
    close_rig(&r);

    open_rig(&r, "cluster 64K; size 16M; data 0-15 1", 0);
    flush_often(&r, 40, 40);
    end = (uint64_t)r.play.disk->file->image->alloc.end * C;
    EXPECT(builder_is_lazy() || file_size(&r) == end, "without lazy refcounts");
    close_rig(&r);
}

static void
without_space_nothing_is_written_ahead(void **state)
{
    struct rig r;
    uint64_t before, used;

    (void)state;
    open_rig(&r, recipe, 8 << 20);
    flush_often(&r, 40, 7);
    before = file_size(&r);
    used = mem_set_room(r.mem, UINT64_MAX);
    mem_set_room(r.mem, used + 9 * C);
    flush_often(&r, 47, 6);
    EXPECT(file_size(&r) < before + MIN_AHEAD, "%llu bytes",
           (unsigned long long)file_size(&r));
    flush_often(&r, 53, 2);
    mem_set_room(r.mem, UINT64_MAX);
    flush_often(&r, 55, 20);
    close_rig(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flushes_leave_refcounts_to_the_close),
        cmocka_unit_test(what_only_frees_clusters_is_marked_as_well),
        cmocka_unit_test(a_flush_writes_nothing_else_for_it),
        cmocka_unit_test(what_only_drops_clusters_takes_one_barrier),
        cmocka_unit_test(reads_and_overwrites_leave_the_image_as_it_is),
        cmocka_unit_test(what_has_the_image_alone_finds_refcounts_written),
        cmocka_unit_test(amended_on_and_off_while_it_is_open),
        cmocka_unit_test(version_2_has_no_dirty_bit_left),
        cmocka_unit_test(memory_for_refcounts_is_bounded),
        cmocka_unit_test(what_was_not_closed_is_mended_by_the_next_opening),
        cmocka_unit_test(a_close_that_fails_leaves_the_bit),
        cmocka_unit_test(damage_leaves_the_bit),
        cmocka_unit_test(many_small_flushes_write_space_ahead),
        cmocka_unit_test(nothing_is_written_ahead_of_others),
        cmocka_unit_test(without_space_nothing_is_written_ahead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
