/* SPDX-License-Identifier: BSD-3-Clause */
/* test-open-snapshots.c: internal snapshots as disks. */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "disk/open-disk.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "rng.h"
#include "snapshots.h"
#include "tmpdir.h"

static const struct qcow2_options defaults = { .fd = -1 };
static const struct qcow2_options readonly = { .fd = -1, .readonly = true };

static struct mem *
mem_of(const char *recipe)
{
    expect_case("%s", recipe);
    return mem_from_recipe(recipe);
}

static struct qcow2_disk *
open_mem(struct mem *m, const struct qcow2_options *options)
{
    struct qcow2_error err = { 0 };
    struct qcow2_disk *disk;

    disk = disk_open_io(io_mem_open(m, options->readonly), "memory", options,
                        &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
expect_clean(struct mem *m)
{
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    bytes = mem_bytes(m, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "%u corruptions, %u leaks: %s",
           a.nr_corruptions, a.nr_leaks, a.first);
}

/* Others may change it, and close the disk. */
static void
test_a_list_stays_as_it_was(void **state)
{
    static const struct qcow2_snapshot_create_options plain;
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct mem *m = mem_of("size 1M; data 0 1; snapshot 7 first;"
                           "data 0 2; snapshot 8 second vmstate=2");
    struct qcow2_disk *disk = open_mem(m, &options);
    struct qcow2_snapshot_list list;
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(qcow2_get_snapshots(disk, &list, &err), &err);
    EXPECT_OK(qcow2_snapshot_delete(disk, "second", &err), &err);
    EXPECT_OK(qcow2_snapshot_delete(disk, "first", &err), &err);
    EXPECT_OK(qcow2_snapshot_create(disk, "third", &plain, &err), &err);
    EXPECT_OK(qcow2_snapshot_create(disk, "fourth", &plain, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
    assert_int_equal(list.nr, 2);
    assert_string_equal(list.snapshots[0].id, "7");
    assert_string_equal(list.snapshots[0].name, "first");
    assert_string_equal(list.snapshots[1].id, "8");
    assert_string_equal(list.snapshots[1].name, "second");
    assert_int_equal(list.snapshots[1].vm_state_size, 2 * 65536);
    qcow2_snapshot_list_free(&list);
    assert_int_equal(list.nr, 0);
}

static void
test_snapshots_are_listed(void **state)
{
    struct mem *m = mem_of("size 1M; data 0 1; snapshot 7 first;"
                           "data 0 2; snapshot 8 second vmstate=2");
    struct qcow2_disk *disk = open_mem(m, &readonly);
    struct qcow2_snapshot s;

    (void)state;
    assert_int_equal(qcow2_get_nr_snapshots(disk), 2);
    snapshot_get(disk, 1, &s);
    assert_string_equal(s.id, "8");
    assert_string_equal(s.name, "second");
    assert_int_equal(s.disk_size, 1 << 20);
    assert_int_equal(s.vm_state_size, 2 * 65536);
    assert_int_equal(s.date_sec, 1600000000);
    assert_int_equal(s.date_nsec, 500);
    assert_int_equal(s.vm_clock_nsec, 7000);
    assert_int_equal(s.icount, UINT64_MAX);
    qcow2_close(disk, NULL);
    mem_free(m);
}

static struct qcow2_disk *
open_snapshot(struct qcow2_disk *disk, const char *name)
{
    struct qcow2_error err = { 0 };
    struct qcow2_disk *snapshot = qcow2_open_snapshot(disk, name, &err);

    EXPECT(snapshot, "%s", err.text);
    return snapshot;
}

static void
expect_content(struct qcow2_disk *disk, uint64_t seed, uint64_t cluster)
{
    unsigned char got[512], want[512];
    struct qcow2_error err;

    pattern_fill(want, sizeof want, seed, 0);
    EXPECT_OK(qcow2_pread(disk, got, sizeof got, cluster << 16, &err), &err);
    expect_same("content", got, want, sizeof want, cluster << 16);
}

static void
test_snapshot_is_a_readonly_disk_of_its_own_size(void **state)
{
    struct mem *m = mem_of("size 1M; data 0 1; snapshot 1 s size=3M;"
                           "data 0 2");
    struct qcow2_disk *disk = open_mem(m, &defaults);
    struct qcow2_disk *snapshot = open_snapshot(disk, "s");
    struct qcow2_error err;

    (void)state;
    assert_int_equal(qcow2_get_size(snapshot), 3 << 20);
    assert_int_equal(qcow2_get_size(disk), 1 << 20);
    assert_true(qcow2_is_readonly(snapshot));
    assert_false(qcow2_is_readonly(disk));
    expect_content(snapshot, 1, 0);
    expect_content(disk, 2, 0);
    assert_int_equal(qcow2_pwrite(snapshot, "x", 1, 0, 0, &err), -1);
    assert_int_equal(err.errnum, EROFS);
    EXPECT_OK(qcow2_flush(snapshot, &err), &err);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    expect_content(snapshot, 1, 0);
    EXPECT_OK(qcow2_close(snapshot, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    expect_clean(m);
    mem_free(m);
}

static void
test_disk_may_be_closed_before_its_snapshot(void **state)
{
    struct mem *m = mem_of("size 1M; data 0 1; snapshot 1 s; data 0 2");
    struct qcow2_disk *disk = open_mem(m, &defaults);
    struct qcow2_disk *snapshot = open_snapshot(disk, "1");
    struct qcow2_disk *again = open_snapshot(snapshot, "s");
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 65536, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    expect_content(snapshot, 1, 0);
    EXPECT_OK(qcow2_close(snapshot, &err), &err);
    expect_content(again, 1, 0);
    EXPECT_OK(qcow2_close(again, &err), &err);
    expect_clean(m);
    mem_free(m);
}

static void
test_snapshot_shows_the_backing_file(void **state)
{
    const char *path = tmpdir_path("image");
    struct qcow2_disk *disk, *snapshot;
    struct qcow2_error err;
    char byte;

    (void)state;
    tmpdir_write_file(tmpdir_path("base"), "base", 4);
    builder_make(path, "size 1M; backing base raw; snapshot 1 s; data 0");
    disk = qcow2_open(path, &defaults, &err);
    EXPECT(disk, "%s", err.text);
    snapshot = open_snapshot(disk, "s");
    qcow2_close(disk, NULL);
    EXPECT_OK(qcow2_pread(snapshot, &byte, 1, 0, &err), &err);
    assert_int_equal(byte, 'b');
    qcow2_close(snapshot, NULL);
    tmpdir_clear();
}

static void
test_snapshots_that_are_not_there_are_told(void **state)
{
    struct mem *m = mem_of("size 1M; snapshot 1 s; snapshot 2 s");
    struct qcow2_options options = defaults;
    struct qcow2_disk *disk = open_mem(m, &options);
    struct qcow2_error err;

    (void)state;
    assert_null(qcow2_open_snapshot(disk, "gone", &err));
    assert_int_equal(err.errnum, ENOENT);
    assert_null(qcow2_open_snapshot(disk, "s", &err));
    assert_int_equal(err.errnum, EINVAL);
    qcow2_close(disk, NULL);

    options.format = QCOW2_FORMAT_RAW;
    disk = open_mem(m, &options);
    assert_int_equal(qcow2_get_nr_snapshots(disk), 0);
    assert_null(qcow2_open_snapshot(disk, "s", &err));
    assert_int_equal(err.errnum, ENOENT);
    qcow2_close(disk, NULL);
    mem_free(m);
}

static struct qcow2_disk *
snapshot_of(struct qcow2_disk *disk, const char *name)
{
    struct qcow2_error err = { 0 };
    struct qcow2_disk *s = qcow2_open_snapshot(disk, name, &err);

    EXPECT(s, "%s", err.text);
    return s;
}

/* However many clients open however many snapshots whose L1 tables, of the
 * largest size, may even be the same bytes. */
static void
test_tables_of_all_open_snapshots_are_bounded(void **state)
{
    static const char recipe[] =
        "cluster 64K; size 1M; data 0 1; snapshot 1 a; snapshot 2 b;"
        "snapshot 3 c; snapshot 4 small;"
        "poke snapshot[0].l1_table_offset = 1M; poke snapshot[0].l1_size = 4M;"
        "poke snapshot[1].l1_table_offset = 2M; poke snapshot[1].l1_size = 4M;"
        "poke snapshot[2].l1_table_offset = 3M; poke snapshot[2].l1_size = 4M";
    enum { TABLE = 32 << 20, END = TABLE + (3 << 20) };
    struct qcow2_disk *disk, *a[3], *b, *small;
    unsigned char *bytes = malloc(END);
    struct qcow2_error err;
    struct mem *m = mem_of(recipe);
    struct io *io = io_mem_open(m, false);
    struct image *img;

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 1, END);
    EXPECT_OK(io_pwrite(io, bytes, END, 1 << 20, &err), &err);
    free(bytes);
    io_close(io);

    disk = open_mem(m, &readonly);
    img = disk->file->image;
    for (unsigned i = 0; i < 3; i++)
        a[i] = snapshot_of(disk, "a");
    assert_int_equal(img->snapshot_memory, TABLE);
    b = snapshot_of(disk, "b");
    assert_null(qcow2_open_snapshot(disk, "c", &err));
    assert_int_equal(err.errnum, ENOMEM);
    EXPECT_OK(qcow2_close(b, &err), &err);
    small = snapshot_of(disk, "small");
    assert_true(img->snapshot_memory > TABLE);
    EXPECT_OK(qcow2_close(small, &err), &err);
    b = snapshot_of(disk, "c");
    EXPECT_OK(qcow2_close(b, &err), &err);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(image_snapshot_in_use(img, 0));
        EXPECT_OK(qcow2_close(a[i], &err), &err);
    }
    assert_false(image_snapshot_in_use(img, 0));
    assert_int_equal(img->snapshot_memory, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    mem_free(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshots_are_listed),
        cmocka_unit_test(test_a_list_stays_as_it_was),
        cmocka_unit_test(test_snapshot_is_a_readonly_disk_of_its_own_size),
        cmocka_unit_test(test_disk_may_be_closed_before_its_snapshot),
        cmocka_unit_test(test_snapshot_shows_the_backing_file),
        cmocka_unit_test(test_snapshots_that_are_not_there_are_told),
        cmocka_unit_test(test_tables_of_all_open_snapshots_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
