/* SPDX-License-Identifier: BSD-3-Clause */
/* test-failures: a file of which a flush has failed is refused for as long as
 * its record lives, and read anew only from the disk. The linker sends calls
 * of fdatasync and posix_fadvise here (--wrap).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builder.h"
#include "expect.h"
#include "qcow2.h"
#include "storage/failures.h"
#include "storage/io.h"
#include "tmpdir.h"

static bool flush_fails;
static unsigned nr_flushes, nr_drops;

int __wrap_fdatasync(int fd);
int __wrap_posix_fadvise(int fd, off_t off, off_t len, int advice);
/* What it is called where off_t had 32 bits once. */
int __wrap_posix_fadvise64(int fd, off_t off, off_t len, int advice)
    __attribute__((alias("__wrap_posix_fadvise")));

int
__wrap_fdatasync(int fd)
{
    (void)fd;
    nr_flushes++;
    errno = EIO;
    return flush_fails ? -1 : 0;
}

int
__wrap_posix_fadvise(int fd, off_t off, off_t len, int advice)
{
    (void)fd;
    if (advice == POSIX_FADV_DONTNEED) {
        assert_int_equal(off, 0);
        assert_int_equal(len, 0);
        nr_drops++;
    }
    return 0;
}

static struct qcow2_failures *
new_failures(void)
{
    struct qcow2_failures *f = qcow2_failures_new(NULL);

    assert_non_null(f);
    flush_fails = false;
    nr_flushes = nr_drops = 0;
    return f;
}

static struct qcow2_disk *
open_disk(struct qcow2_failures *f, const char *name, bool readonly,
          struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;

    options.format = QCOW2_FORMAT_AUTO;
    options.probe_raw = true;
    options.readonly = readonly;
    options.failures = f;
    return qcow2_open(tmpdir_path(name), &options, err);
}

static void
make_image(const char *name, const char *recipe)
{
    struct builder *b = builder_new();

    builder_add(b, "%s", recipe);
    builder_write(b, tmpdir_path(name));
    builder_free(b);
}

/* Each is a kind of disk, in a new file. */
static const char *const recipes[] = {
    "cluster 512; size 40000; data 0-3 1",
    "version 2; cluster 512; size 40000; data 0-3 1",
    NULL, /* raw */
};
enum { NR_RECIPES = sizeof recipes / sizeof recipes[0] };

static void
make_file(unsigned i, const char *name)
{
    unlink(tmpdir_path(name));
    if (recipes[i])
        make_image(name, recipes[i]);
    else
        tmpdir_write_file(tmpdir_path(name), "nothing", 8);
}

static void
fail_a_flush(struct qcow2_failures *f, const char *name)
{
    struct qcow2_error err;
    struct qcow2_disk *disk = open_disk(f, name, false, &err);

    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    flush_fails = true;
    EXPECT(qcow2_flush(disk, &err) == -1, "the flush succeeds");
    flush_fails = false;
    nr_flushes = 0;
    EXPECT(qcow2_flush(disk, &err) == -1 && err.errnum == EIO,
           "the next flush succeeds");
    nr_drops = 0;
    EXPECT(qcow2_close(disk, &err) == -1, "closing it succeeds");
    EXPECT(nr_flushes == 0, "%u flushes more", nr_flushes);
    EXPECT(nr_drops > 0, "the cache was dropped %u times by the close",
           nr_drops);
}

static void
expect_refused(struct qcow2_failures *f, const char *name)
{
    struct qcow2_error err;

    EXPECT(!open_disk(f, name, false, &err), "it opens for writing");
    EXPECT(err.errnum == EIO && strstr(err.text, "restart the process"),
           "errno %d: %s", err.errnum, err.text);
}

static void
it_stays_failed_for_whoever_opens_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_RECIPES; i++) {
        struct qcow2_failures *f = new_failures();
        struct qcow2_disk *disk;
        struct qcow2_error err;

        expect_case("kind %u", i);
        make_file(i, "file");
        fail_a_flush(f, "file");
        for (unsigned again = 0; again < 3; again++)
            expect_refused(f, "file");
        unlink(tmpdir_path("other"));
        assert_int_equal(link(tmpdir_path("file"), tmpdir_path("other")), 0);
        expect_refused(f, "other");
        nr_drops = 0;
        disk = open_disk(f, "file", true, &err);
        EXPECT(disk, "read-only: %s", err.text);
        EXPECT(nr_drops > 0, "what is read may not be on the disk");
        EXPECT_OK(qcow2_close(disk, &err), &err);
        EXPECT(nr_flushes == 0, "%u flushes", nr_flushes);
        qcow2_failures_free(f);
    }
}

/* As by another process. */
static void
without_the_record_it_opens(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_RECIPES; i++) {
        struct qcow2_failures *f = new_failures(), *other = new_failures();
        struct qcow2_disk *disk;
        struct qcow2_error err;

        expect_case("kind %u", i);
        make_file(i, "file");
        fail_a_flush(f, "file");
        nr_drops = 0;
        disk = open_disk(other, "file", false, &err);
        EXPECT(disk, "%s", err.text);
        /* The dirty bit says so, or there is none. */
        EXPECT(nr_drops > 0 || !recipes[i], "the cache was not dropped");
        EXPECT_OK(qcow2_pwrite(disk, "y", 1, 0, 0, &err), &err);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        qcow2_failures_free(f);
        qcow2_failures_free(other);
    }
}

static void
raw_disks_drop_the_cache_at_once(void **state)
{
    struct qcow2_failures *f = new_failures();
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    make_file(2, "file");
    disk = open_disk(f, "file", false, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    flush_fails = true;
    EXPECT(qcow2_flush(disk, &err) == -1 && nr_drops == 1, "%u times",
           nr_drops);
    qcow2_close(disk, NULL);
    qcow2_failures_free(f);
}

static void
other_files_are_not_concerned(void **state)
{
    struct qcow2_failures *f = new_failures();
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    make_file(0, "file");
    make_file(0, "other");
    fail_a_flush(f, "file");
    nr_drops = 0;
    disk = open_disk(f, "other", false, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    EXPECT(nr_drops == 0, "for nothing");
    qcow2_failures_free(f);
}

static struct io *
watched(struct qcow2_failures *f, bool readonly)
{
    struct qcow2_error err;
    struct io *io = io_file_open(tmpdir_path("file"), -1, readonly,
                                 IO_LOCK_NONE, &err);

    EXPECT(io, "%s", err.text);
    EXPECT_OK(failures_watch(f, io, &err), &err);
    return io;
}

/* Its own tables may refer to what is in the cache alone. */
static void
what_is_still_open_keeps_its_cache(void **state)
{
    struct qcow2_failures *f = new_failures();
    struct io *io;

    (void)state;
    make_file(0, "file");
    io = watched(f, false);
    assert_int_equal(io_pwrite(io, "x", 1, 4096, NULL), 0);
    flush_fails = true;
    assert_int_equal(io_flush(io, NULL), -1);
    io_close(watched(f, true));
    assert_int_equal(nr_drops, 0);
    io_close(io);
    assert_int_equal(nr_drops, 1);
    io_close(watched(f, true));
    assert_int_equal(nr_drops, 2);
    qcow2_failures_free(f);
}

/* An inode number is used again. */
static void
a_file_with_another_birth_time_is_another(void **state)
{
    struct qcow2_failures *f = new_failures();
    struct qcow2_error err;
    struct io *io;

    (void)state;
    make_file(0, "file");
    io = watched(f, false);
    assert_int_equal(io_pwrite(io, "x", 1, 4096, NULL), 0);
    flush_fails = true;
    assert_int_equal(io_flush(io, NULL), -1);
    io_close(io);
    io = io_file_open(tmpdir_path("file"), -1, false, IO_LOCK_NONE, &err);
    EXPECT(failures_watch(f, io, &err) == -1 && err.errnum == EIO, "same");
    io->born++;
    EXPECT_OK(failures_watch(f, io, &err), &err);
    io_close(io);
    qcow2_failures_free(f);
}

/* A device is the same by whatever node. */
static void
a_device_is_known_by_its_number(void **state)
{
    struct qcow2_failures *f = new_failures();
    struct qcow2_error err;
    struct io *io;

    (void)state;
    make_file(0, "file");
    make_file(0, "other");
    for (unsigned i = 0; i < 2; i++) {
        io = io_file_open(tmpdir_path(i ? "other" : "file"), -1, false,
                          IO_LOCK_NONE, &err);
        io->device = 0x801;
        EXPECT((failures_watch(f, io, &err) == -1) == (i == 1), "node %u",
               i);
        io_pwrite(io, "x", 1, 4096, NULL);
        flush_fails = true;
        io_flush(io, NULL);
        io_close(io);
    }
    qcow2_failures_free(f);
}

static void
expect_drops(const char *what, unsigned want)
{
    EXPECT(nr_drops == want, "%s: the cache was dropped %u times", what,
           nr_drops);
    nr_drops = 0;
}

/* Whatever opens an image with the dirty bit begins with the disk; but not
 * who only looks at a file that may be in use. */
static void
the_dirty_bit_has_the_cache_dropped(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_info_options info = { .format = QCOW2_FORMAT_QCOW2 };
    struct qcow2_check_options check = { .no_lock = false };
    struct qcow2_check_result result;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    (void)state;
    qcow2_failures_free(new_failures());
    make_image("base", "cluster 512; size 40000; incompatible 0; data 0 1");
    make_image("top", "cluster 512; size 40000; backing base qcow2");
    qcow2_info_free(qcow2_get_info(tmpdir_path("base"), &info, &err));
    expect_drops("info", 1);
    info.no_lock = true;
    qcow2_info_free(qcow2_get_info(tmpdir_path("base"), &info, &err));
    expect_drops("info without a lock", 0);
    EXPECT_OK(qcow2_check(tmpdir_path("base"), &check, &result, &err), &err);
    expect_drops("check", 1);
    options.readonly = true;
    disk = qcow2_open(tmpdir_path("top"), &options, &err);
    EXPECT(disk, "%s", err.text);
    expect_drops("backing file", 1);
    qcow2_close(disk, NULL);
    disk = open_disk(NULL, "base", false, &err);
    EXPECT(disk, "%s", err.text);
    expect_drops("repair", 1);
    qcow2_close(disk, NULL);
    disk = open_disk(NULL, "base", false, &err);
    EXPECT(disk, "%s", err.text);
    expect_drops("repaired", 0);
    qcow2_close(disk, NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_stays_failed_for_whoever_opens_it),
        cmocka_unit_test(without_the_record_it_opens),
        cmocka_unit_test(raw_disks_drop_the_cache_at_once),
        cmocka_unit_test(other_files_are_not_concerned),
        cmocka_unit_test(what_is_still_open_keeps_its_cache),
        cmocka_unit_test(a_file_with_another_birth_time_is_another),
        cmocka_unit_test(a_device_is_known_by_its_number),
        cmocka_unit_test(the_dirty_bit_has_the_cache_dropped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
