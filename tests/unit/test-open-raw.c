/* SPDX-License-Identifier: BSD-3-Clause */
/* test-open-raw.c: raw files as disks. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "disk/open.h"
#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"

static const struct qcow2_options said_raw = {
    .fd = -1, .format = QCOW2_FORMAT_RAW,
};
static const struct qcow2_options probed_raw = {
    .fd = -1, .probe_raw = true,
};

/* A disk on the file, over a backend that can fail if there is a plan. */
static struct qcow2_disk *
open_mem(struct mem *m, struct fault_plan *plan,
         const struct qcow2_options *options)
{
    struct io *io = io_mem_open(m, options->readonly);
    struct qcow2_error err = { 0 };
    struct qcow2_disk *disk;

    if (plan)
        io = io_fault_new(io, plan);
    disk = disk_open_io(io, "memory", options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

/* call fails and fills err. */
#define EXPECT_FAILS(call, err, want, part)                             \
    do {                                                                \
        memset((err), 0, sizeof *(err));                                \
        EXPECT((call) == -1, "succeeded");                              \
        EXPECT((err)->errnum == (want) && strstr((err)->text, (part)),  \
               "errno %d: %s", (err)->errnum, (err)->text);             \
    } while (0)

/* Sum of what the map says of a range. */
struct sums {
    uint64_t data, zero, hole;
};

static int
add_extent(void *opaque, const struct qcow2_extent *e)
{
    struct sums *s = opaque;

    *(e->zero ? &s->zero : &s->data) += e->nr_bytes;
    s->hole += e->hole ? e->nr_bytes : 0;
    return 0;
}

static struct sums
map_of(struct qcow2_disk *disk)
{
    struct sums s = { 0, 0, 0 };
    struct qcow2_error err;

    EXPECT_OK(qcow2_map(disk, qcow2_get_size(disk), 0, add_extent, &s, &err),
              &err);
    return s;
}

static void
test_raw_disk_has_exactly_its_bytes(void **state)
{
    struct mem *m = mem_new(NULL, 10001);
    struct qcow2_disk *disk;
    struct qcow2_error err;
    uint64_t nr_bytes;
    char byte;

    (void)state;
    disk = open_mem(m, NULL, &said_raw);
    assert_int_equal(qcow2_get_size(disk), 10001);
    assert_int_equal(qcow2_get_cluster_size(disk), 4096);
    assert_true(qcow2_can_fast_zero(disk));
    EXPECT_OK(qcow2_pwrite(disk, "xyz", 3, 9998, QCOW2_FUA, &err), &err);
    EXPECT_OK(qcow2_pread(disk, &byte, 1, 10000, &err), &err);
    assert_int_equal(byte, 'z');
    EXPECT_OK(qcow2_zero(disk, 2, 9999, QCOW2_MAY_TRIM, &err), &err);
    EXPECT_OK(qcow2_trim(disk, 10001, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_bytes(m, &nr_bytes);
    assert_int_equal(nr_bytes, 10001);
    mem_free(m);
}

static void
test_raw_holes_are_told(void **state)
{
    struct qcow2_options options = said_raw;
    struct mem *m = mem_new(NULL, 1 << 20);
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct sums sums;
    char data[65536];

    (void)state;
    memset(data, 1, sizeof data);
    disk = open_mem(m, NULL, &options);
    EXPECT_OK(qcow2_pwrite(disk, data, 65536, 65536, 0, &err), &err);
    sums = map_of(disk);
    assert_int_equal(sums.data, 65536);
    assert_int_equal(sums.hole, (1 << 20) - 65536);
    EXPECT_OK(qcow2_trim(disk, 65536, 65536, 0, &err), &err);
    assert_int_equal(map_of(disk).data, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);

    options.no_discard = true;
    disk = open_mem(m, NULL, &options);
    EXPECT_OK(qcow2_pwrite(disk, data, 65536, 65536, 0, &err), &err);
    EXPECT_OK(qcow2_trim(disk, 65536, 65536, 0, &err), &err);
    assert_int_equal(map_of(disk).data, 65536);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
}

static void
test_trim_of_what_cannot_punch_is_no_error(void **state)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct mem *m = mem_new(NULL, 1 << 20);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    disk = open_mem(m, &plan, &said_raw);
    fault_arm(&plan, FAULT_PUNCH, 1, ENOTSUP, FAULT_FOR_GOOD);
    EXPECT_OK(qcow2_trim(disk, 65536, 0, 0, &err), &err);
    fault_arm(&plan, FAULT_PUNCH, 1, EIO, FAULT_ONCE);
    EXPECT_FAILS(qcow2_trim(disk, 65536, 0, 0, &err), &err, EIO, "");
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
}

static void
test_probed_raw_disk_does_not_become_another_format(void **state)
{
    struct mem *m = mem_new(NULL, 4096);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    disk = open_mem(m, NULL, &probed_raw);
    EXPECT_FAILS(qcow2_pwrite(disk, "QFI\xfb\0\0\0\3", 8, 0, 0, &err), &err,
                 EPERM, "look like qcow2");
    /* Nor bit by bit. */
    EXPECT_OK(qcow2_pwrite(disk, "QFI", 3, 0, 0, &err), &err);
    EXPECT_FAILS(qcow2_pwrite(disk, "\xfb", 1, 3, 0, &err), &err, EPERM, "");
    EXPECT_FAILS(qcow2_pwrite(disk, "\x7f\x10\xda\xbe", 4, 64, 0, &err),
                 &err, EPERM, "vdi");
    EXPECT_OK(qcow2_pwrite(disk, "QFI\xfb", 4, 512, 0, &err), &err);
    /* Nor by zeroes. */
    EXPECT_OK(qcow2_pwrite(disk, "QEDx", 4, 0, 0, &err), &err);
    EXPECT_FAILS(qcow2_zero(disk, 1, 3, 0, &err), &err, EPERM, "qed");
    EXPECT_FAILS(qcow2_zero(disk, 1, 3, QCOW2_MAY_TRIM, &err), &err, EPERM,
                 "qed");
    EXPECT_FAILS(qcow2_trim(disk, 1, 3, 0, &err), &err, EPERM, "qed");
    EXPECT_OK(qcow2_zero(disk, 4096, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);

    /* A format of raw that is given is final. */
    disk = open_mem(m, NULL, &said_raw);
    EXPECT_OK(qcow2_pwrite(disk, "QFI\xfb\0\0\0\3", 8, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
}

static void
test_guard_reports_a_failed_read(void **state)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct mem *m = mem_new(NULL, 4096);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    disk = open_mem(m, &plan, &probed_raw);
    fault_arm(&plan, FAULT_READ, 1, EIO, FAULT_ONCE);
    EXPECT_FAILS(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err, EIO, "");
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    EXPECT_OK(qcow2_close(NULL, &err), &err);
    mem_free(m);
}

static void
test_a_flush_is_one_and_sticks_when_it_fails(void **state)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct mem *m = mem_new(NULL, 10000);
    struct qcow2_disk *disk = open_mem(m, &plan, &said_raw);
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    fault_reset_counts(&plan);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    EXPECT(fault_count(&plan, FAULT_FLUSH) == 1, "no flush");
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, QCOW2_FUA, &err), &err);
    EXPECT(fault_count(&plan, FAULT_FLUSH) == 2, "no flush for FUA");
    EXPECT_OK(qcow2_pwrite(disk, "y", 1, 0, 0, &err), &err);
    fault_arm(&plan, FAULT_FLUSH, 1, EIO, FAULT_ONCE);
    EXPECT_FAILS(qcow2_flush(disk, &err), &err, EIO, "");
    EXPECT_FAILS(qcow2_flush(disk, &err), &err, EIO, "");
    EXPECT(fault_count(&plan, FAULT_FLUSH) == 3, "it was tried again");
    EXPECT(qcow2_close(disk, &err) == -1, "closing it succeeds");
    mem_free(m);
}

/* A file that has another thread write, as soon as it said where a hole is. */
static struct {
    struct io_ops ops;
    int (*extent)(struct io *io, uint64_t host_off, uint64_t *len,
                  bool *is_hole, struct qcow2_error *err);
    struct qcow2_disk *disk;
    pthread_t writer;
    bool begun;
    unsigned done; /* atomic */
} meddler;

static void *
meddle(void *opaque)
{
    struct qcow2_error err;

    (void)opaque;
    EXPECT_OK(qcow2_pwrite(meddler.disk, "precious", 8, 70000, 0, &err),
              &err);
    __atomic_store_n(&meddler.done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Waits a while for the write, which has to wait itself. */
static int
extent_then_meddle(struct io *io, uint64_t host_off, uint64_t *len,
                   bool *is_hole, struct qcow2_error *err)
{
    int r = meddler.extent(io, host_off, len, is_hole, err);

    if (!meddler.begun) {
        meddler.begun = true;
        EXPECT(pthread_create(&meddler.writer, NULL, meddle, NULL) == 0,
               "thread");
        for (unsigned i = 0; i < 10000; i++)
            if (!__atomic_load_n(&meddler.done, __ATOMIC_ACQUIRE))
                sched_yield();
    }
    return r;
}

static void
test_preallocating_keeps_what_is_written_meanwhile(void **state)
{
    static const enum qcow2_preallocation modes[] = {
        QCOW2_PREALLOC_FALLOC, QCOW2_PREALLOC_FULL,
    };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct mem *m = mem_new(NULL, 1 << 20);
        struct io *io = io_mem_open(m, false);
        struct qcow2_disk *disk;
        struct qcow2_error err;
        char got[8];

        meddler.ops = *io->ops;
        meddler.extent = io->ops->extent;
        meddler.ops.extent = extent_then_meddle;
        meddler.begun = false;
        meddler.done = 0;
        io->ops = &meddler.ops;
        disk = disk_open_io(io, "memory", &said_raw, &err);
        EXPECT(disk, "%s", err.text);
        meddler.disk = disk;
        EXPECT_OK(qcow2_preallocate(disk, 1 << 20, 0, modes[i], &err), &err);
        EXPECT(meddler.begun && pthread_join(meddler.writer, NULL) == 0,
               "no writer");
        EXPECT_OK(qcow2_pread(disk, got, 8, 70000, &err), &err);
        assert_memory_equal(got, "precious", 8);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        mem_free(m);
    }
}

static void
test_full_preallocation_writes_what_is_a_hole(void **state)
{
    static const struct {
        enum qcow2_preallocation mode;
        uint64_t nr_writes, nr_zeroes;
    } cases[] = {
        { QCOW2_PREALLOC_FALLOC, 0, 2 },
        { QCOW2_PREALLOC_FULL, 10, 0 }, /* 96 KiB and 508 KiB, by 64 KiB */
    };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct fault_plan plan = FAULT_PLAN_INIT;
        struct mem *m = mem_new(NULL, 1 << 20);
        struct qcow2_disk *disk = open_mem(m, &plan, &said_raw);
        struct qcow2_error err;
        char got[8];

        EXPECT_OK(qcow2_pwrite(disk, "precious", 8, 96 << 10, 0, &err), &err);
        fault_reset_counts(&plan);
        EXPECT_OK(qcow2_preallocate(disk, 608 << 10, 0, cases[i].mode, &err),
                  &err);
        assert_int_equal(fault_count(&plan, FAULT_WRITE), cases[i].nr_writes);
        assert_int_equal(fault_count(&plan, FAULT_ZERO), cases[i].nr_zeroes);
        EXPECT_OK(qcow2_pread(disk, got, 8, 96 << 10, &err), &err);
        assert_memory_equal(got, "precious", 8);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        mem_free(m);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw_disk_has_exactly_its_bytes),
        cmocka_unit_test(test_raw_holes_are_told),
        cmocka_unit_test(test_trim_of_what_cannot_punch_is_no_error),
        cmocka_unit_test(test_probed_raw_disk_does_not_become_another_format),
        cmocka_unit_test(test_guard_reports_a_failed_read),
        cmocka_unit_test(test_a_flush_is_one_and_sticks_when_it_fails),
        cmocka_unit_test(test_preallocating_keeps_what_is_written_meanwhile),
        cmocka_unit_test(test_full_preallocation_writes_what_is_a_hole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
