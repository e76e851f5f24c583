/* SPDX-License-Identifier: BSD-3-Clause */
/* test-drivers.c: an I/O driver of a test's serves every file that a disk or
 * a job opens or makes by its name, and so lets each operation of it fail.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "builder.h"
#include "expect.h"
#include "io-fault.h"
#include "oracle.h"
#include "storage/io-open.h"
#include "tmpdir.h"

/* A local file, with faults by this plan. */
static struct fault_plan plan = FAULT_PLAN_INIT;
static unsigned nr_opened, nr_writable, nr_made;

static bool
matches_local(const struct policy_file *file)
{
    return !policy_is_remote(file);
}

static struct io *
open_faulty(const struct policy_file *file, const struct io_open_options *o,
            struct qcow2_error *err)
{
    struct io_open_options plain = *o;
    struct io *io;

    plain.driver = NULL;
    io = io_open(file, &plain, err);
    nr_opened++;
    nr_writable += !o->readonly;
    return io ? io_fault_new(io, &plan) : NULL;
}

static struct io *
create_faulty(struct policy_target *t, mode_t mode, struct qcow2_error *err)
{
    const struct io_create_options plain = { .mode = mode };
    struct io *io = io_create(t, &plain, err);

    nr_made++;
    return io ? io_fault_new(io, &plan) : NULL;
}

static const struct io_driver faulty = {
    matches_local, open_faulty, create_faulty,
};

static void
make_chain(void)
{
    tmpdir_clear();
    builder_make(tmpdir_path("bottom"),
                 "cluster 512; size 41000; data 0-9 1; data 20-50 2");
    builder_make(tmpdir_path("base"),
                 "cluster 1K; size 41000; backing bottom qcow2; data 3-8 4");
    builder_make(tmpdir_path("top"),
                 "cluster 1K; size 41000; backing base qcow2; data 2-4 5;"
                 "zero 7");
    nr_opened = nr_writable = 0;
    fault_arm(&plan, 0, 0, 0, 0);
}

static struct qcow2_options
options_of(const struct io_driver *driver)
{
    struct qcow2_options o = QCOW2_OPTIONS_INIT;

    o.format = QCOW2_FORMAT_QCOW2;
    o.driver = driver;
    return o;
}

/* What the disk reads as, without the driver. */
static unsigned char *
read_all(const char *name, size_t nr_bytes)
{
    struct qcow2_options o = options_of(NULL);
    unsigned char *bytes = malloc(nr_bytes);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    o.readonly = true;
    disk = qcow2_open(tmpdir_path(name), &o, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pread(disk, bytes, nr_bytes, 0, &err), &err);
    qcow2_close(disk, NULL);
    return bytes;
}

static void
a_driver_opens_every_layer(void **state)
{
    struct qcow2_options o = options_of(&faulty);
    struct qcow2_disk *disk;
    struct qcow2_error err;
    char byte;

    (void)state;
    make_chain();
    disk = qcow2_open(tmpdir_path("top"), &o, &err);
    EXPECT(disk, "%s", err.text);
    assert_int_equal(nr_opened, 3);
    assert_int_equal(nr_writable, 1);
    fault_arm(&plan, FAULT_READ, 1, EIO, FAULT_ONCE);
    assert_int_equal(qcow2_pread(disk, &byte, 1, 30 * 512, &err), -1);
    assert_int_equal(err.errnum, EIO);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

static int
run_job(struct qcow2_job *job, struct qcow2_error *err)
{
    int r = job ? qcow2_job_run(job, NULL, NULL, err) : -1;

    qcow2_job_free(job);
    return r;
}

static int
commit(struct qcow2_error *err)
{
    const struct qcow2_commit_options commit = { .base = NULL };
    struct qcow2_options o = options_of(&faulty);

    return run_job(qcow2_commit(tmpdir_path("top"), &o, &commit, err), err);
}

static int
rebase(struct qcow2_error *err)
{
    const struct qcow2_rebase_options rebase = {
        .backing = "bottom", .backing_format = QCOW2_FORMAT_QCOW2,
    };
    struct qcow2_options o = options_of(&faulty);

    return run_job(qcow2_rebase(tmpdir_path("top"), &o, &rebase, err), err);
}

/* Each operation fails in turn. Whatever it was, top reads as before, nothing
 * stays locked, and doing it again completes it. */
static void
fail_everywhere(int (*job)(struct qcow2_error *err), unsigned wanted_files)
{
    enum { SIZE = 41000, STEP = 3 };
    unsigned char *before;
    bool done = false;

    make_chain();
    before = read_all("top", SIZE);
    for (unsigned n = 1; !done; n += STEP) {
        struct qcow2_error err = { .errnum = 0 };
        unsigned char *after;

        make_chain();
        expect_case("operation %u fails", n);
        fault_arm(&plan, FAULT_ALL, n, EIO, FAULT_ONCE);
        done = job(&err) == 0 && fault_fired(&plan) == 0;
        fault_arm(&plan, 0, 0, 0, 0);
        after = read_all("top", SIZE);
        expect_same("top", after, before, SIZE, 0);
        free(after);
        if (!done)
            EXPECT_OK(job(&err), &err);
        EXPECT(nr_opened >= wanted_files, "%u files", nr_opened);
        after = read_all("top", SIZE);
        expect_same("top, completed", after, before, SIZE, 0);
        free(after);
    }
    free(before);
}

static void
a_commit_by_names_fails_anywhere(void **state)
{
    (void)state;
    fail_everywhere(commit, 3);
    assert_true(nr_writable >= 2);
}

static void
a_rebase_by_names_fails_anywhere(void **state)
{
    (void)state;
    fail_everywhere(rebase, 4);
}

static int
create_qcow2(struct qcow2_error *err)
{
    const struct qcow2_create_options o = {
        .size = 41000, .backing = "base", .backing_format = QCOW2_FORMAT_QCOW2,
        .driver = &faulty,
    };

    return qcow2_create(tmpdir_path("new"), &o, err);
}

static int
create_raw(struct qcow2_error *err)
{
    const struct qcow2_create_options o = {
        .size = 41000, .prealloc = QCOW2_PREALLOC_FULL, .driver = &faulty,
    };

    return qcow2_create_raw(tmpdir_path("new"), &o, err);
}

static int
convert(struct qcow2_error *err)
{
    const struct qcow2_convert_options convert = {
        .format = QCOW2_FORMAT_QCOW2, .create.driver = &faulty,
        .nr_threads = 1,
    };
    struct qcow2_options o = options_of(NULL);
    struct qcow2_disk *source;
    int r;

    o.readonly = true;
    source = qcow2_open(tmpdir_path("top"), &o, err);
    EXPECT(source, "%s", err->text);
    r = run_job(qcow2_convert(&source, 1, tmpdir_path("new"), &convert, err),
                err);
    qcow2_close(source, NULL);
    return r;
}

/* Where making it fails it is not there, and nothing stays locked. */
static void
fail_making(int (*make)(struct qcow2_error *err))
{
    bool done = false;

    make_chain();
    for (unsigned n = 1; !done; n++) {
        struct qcow2_error err = { .errnum = 0 };
        int r;

        expect_case("operation %u fails", n);
        nr_made = 0;
        fault_arm(&plan, FAULT_ALL, n, EIO, FAULT_ONCE);
        r = make(&err);
        done = fault_fired(&plan) == 0;
        fault_arm(&plan, 0, 0, 0, 0);
        EXPECT(unlink(tmpdir_path("new")) == r, "%s", err.text);
    }
    assert_int_equal(nr_made, 1);
}

static void
a_driver_makes_files_which_fails_anywhere(void **state)
{
    (void)state;
    fail_making(create_qcow2);
    fail_making(create_raw);
    fail_making(convert);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_driver_opens_every_layer),
        cmocka_unit_test(a_commit_by_names_fails_anywhere),
        cmocka_unit_test(a_rebase_by_names_fails_anywhere),
        cmocka_unit_test(a_driver_makes_files_which_fails_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
