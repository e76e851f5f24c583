/* SPDX-License-Identifier: BSD-3-Clause */
/* test-data-file: lets the 1st, the 2nd, … operation on an image or its data
 * file fail, once and for good, until a scenario passes. What was flushed is
 * not lost, the image is sound, and a data file whose flush failed takes no
 * more writes in this process.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "disk/open.h"
#include "expect.h"
#include "rig.h"
#include "storage/io-open.h"
#include "tmpdir.h"

enum { SIZE = 20 << 10 };

static const char *const recipes[] = {
    "cluster 1K; size 20K; data-file data.raw; data 0-3 1; zero-alloc 6",
    "cluster 1K; size 20K; data-file data.raw raw; data 0-19 1",
    "cluster 16K; extended-l2; size 20K; data-file data.raw;"
    "subclusters 0 dzup",
};

struct trial {
    struct rig rig;
    struct mem *data;
    uint64_t moment;
};

/* Of the test that runs. */
static struct trial *now;

static bool
is_data_file(const struct policy_file *file)
{
    return file->name && strcmp(file->name, "data.raw") == 0;
}

static struct io *
open_data_file(const struct policy_file *file,
               const struct io_open_options *o, struct qcow2_error *err)
{
    (void)file, (void)o, (void)err;
    return io_fault_new(io_mem_open(now->data, false), &now->rig.plan);
}

static const struct io_driver driver = {
    .matches = is_data_file, .open = open_data_file,
};

static uint64_t
next_moment(void *opaque, enum play_event event)
{
    (void)event;
    return ++((struct trial *)opaque)->moment;
}

static void
begin(struct trial *t, const char *recipe)
{
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct io *io;

    memset(t, 0, sizeof *t);
    now = t;
    rig_init(&t->rig, recipe, 0);
    t->rig.options.driver = &driver;
    rig_start(&t->rig);
    bytes = builder_data(t->rig.image, &nr_bytes);
    t->data = mem_new(bytes, nr_bytes);
    io = io_mem_open(t->data, false);
    EXPECT(io_truncate(io, SIZE, NULL) == 0, "size");
    io_close(io);
    t->rig.play.disk = rig_open_disk(&t->rig,
                                     io_fault_new(io_mem_open(t->rig.mem,
                                                              false),
                                                  &t->rig.plan));
    t->rig.play.may_keep_trimmed = true;
    if (strstr(recipe, "extended-l2"))
        t->rig.play.cluster_size /= 32;
    model_remember(&t->rig.play.model);
    t->rig.play.now = next_moment;
    t->rig.play.opaque = t;
}

static void
expect_sound(const struct trial *t)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(t->rig.mem, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.nr_corruptions == 0, "%s", a.first);
}

/* Opened anew it holds what it may, and takes writes. */
static void
end(struct trial *t, bool resized)
{
    static unsigned char buf[2 * SIZE];
    struct qcow2_disk *disk;
    struct qcow2_error err;
    uint64_t size, bad;

    expect_sound(t);
    disk = rig_open_disk(&t->rig, io_mem_open(t->rig.mem, false));
    size = qcow2_get_size(disk);
    EXPECT(size == SIZE || (resized && (size == SIZE / 2 || size == 2 * SIZE)),
           "%llu bytes", (unsigned long long)size);
    memset(buf, 0, sizeof buf);
    EXPECT_OK(qcow2_pread(disk, buf, size, 0, &err), &err);
    if (size < SIZE)
        memcpy(buf + size, t->rig.play.model.disk + size, SIZE - size);
    EXPECT(model_legal(&t->rig.play.model, buf, t->moment, &bad),
           "sector %llu", (unsigned long long)bad);
    memset(buf, 0x77, sizeof buf);
    EXPECT_OK(qcow2_pwrite(disk, buf, size, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    expect_sound(t);
    mem_free(t->data);
    rig_end(&t->rig);
    rig_free(&t->rig);
    tmpdir_clear();
}

/* Lets the nth operation fail; false if there were fewer. */
static bool
run(const char *recipe, const struct op *op, uint64_t new_size, unsigned nth,
    int errnum, unsigned flags)
{
    const struct op before = { OP_WRITE, 3000, 5000, 0, 400 };
    const struct op flush = { .kind = OP_FLUSH };
    struct qcow2_error err;
    struct trial t;
    bool fired, failed;

    expect_case("%s: %s, operation %u fails with %d, flags %u", recipe,
                new_size ? "resize" : play_text(op), nth, errnum, flags);
    begin(&t, recipe);
    EXPECT_OK(play_op(&t.rig.play, &before, &err), &err);
    EXPECT_OK(play_op(&t.rig.play, &flush, &err), &err);
    fault_arm(&t.rig.plan, FAULT_CHANGE | FAULT_FLUSH, nth, errnum, flags);
    failed = new_size
                 ? qcow2_resize(t.rig.play.disk, new_size, true, &err) == -1
                 : play_op(&t.rig.play, op, &err) == -1;
    failed |= play_op(&t.rig.play, &flush, &err) == -1;
    failed |= qcow2_close(t.rig.play.disk, &err) == -1;
    fired = fault_fired(&t.rig.plan) > 0;
    EXPECT(fired || !failed, "%s", err.text);
    EXPECT(fault_retried(&t.rig.plan) == 0, "a failed flush was tried again");
    fault_arm(&t.rig.plan, 0, 0, 0, 0);
    end(&t, new_size != 0);
    return fired;
}

static void
every_operation_may_fail(void **state)
{
    static const struct op ops[] = {
        { OP_WRITE, 0, 700, 0, 300 },
        { OP_WRITE, 9000, 4000, 0, 301 },
        { OP_WRITE, 17000, SIZE - 17000, QCOW2_FUA, 302 },
        { OP_ZERO, 500, 9000, 0, 0 },
        { OP_ZERO, 500, 9000, QCOW2_MAY_TRIM, 0 },
        { OP_TRIM, 0, SIZE, 0, 0 },
    };
    static const struct { int errnum; unsigned flags; } faults[] = {
        { EIO, FAULT_ONCE }, { EIO, FAULT_ONCE | FAULT_WRITTEN },
        { EIO, FAULT_FOR_GOOD | FAULT_TORN },
        { ENOSPC, FAULT_FOR_GOOD }, { ENOSPC, FAULT_ONCE },
    };
    static const uint64_t sizes[] = { SIZE / 2, 2 * SIZE };
    unsigned nr = 0, nth;

    (void)state;
    for (unsigned i = 0; i < sizeof recipes / sizeof recipes[0]; i++)
        for (unsigned f = 0; f < sizeof faults / sizeof faults[0]; f++) {
            for (unsigned k = 0; k < sizeof ops / sizeof ops[0]; k++, nr += nth)
                for (nth = 1; run(recipes[i], &ops[k], 0, nth,
                                  faults[f].errnum, faults[f].flags); nth++)
                    ;
            for (unsigned k = 0; k < 2; k++, nr += nth)
                for (nth = 1; run(recipes[i], NULL, sizes[k], nth,
                                  faults[f].errnum, faults[f].flags); nth++)
                    ;
        }
    print_message("%u failures\n", nr);
}

/* A file, whose flushes fail. */
static struct fault_plan plan = FAULT_PLAN_INIT;

static struct io *
open_real(const struct policy_file *file, const struct io_open_options *o,
          struct qcow2_error *err)
{
    struct io_open_options plain = *o;
    struct io *io;

    plain.driver = NULL;
    io = io_open(file, &plain, err);
    return io ? io_fault_new(io, &plan) : NULL;
}

static const struct io_driver faulty = {
    .matches = is_data_file, .open = open_real,
};

static void
a_data_file_whose_flush_failed_takes_no_more_writes(void **state)
{
    struct qcow2_failures *failures = qcow2_failures_new(NULL);
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    char byte;

    (void)state;
    builder_make(tmpdir_path("image"), recipes[0]);
    builder_make(tmpdir_path("other"), recipes[0]);
    options.failures = failures;
    options.driver = &faulty;
    disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 0, 0, &err), &err);
    fault_arm(&plan, FAULT_FLUSH, 1, EIO, FAULT_ONCE);
    EXPECT(qcow2_flush(disk, &err) == -1 && err.errnum == EIO, "flushed");
    EXPECT(qcow2_pwrite(disk, "x", 1, 0, 0, &err) == -1, "written");
    EXPECT_OK(qcow2_pread(disk, &byte, 1, 0, &err), &err);
    qcow2_close(disk, NULL);
    /* By whatever image. */
    options.driver = NULL;
    EXPECT(!qcow2_open(tmpdir_path("image"), &options, &err)
           && strstr(err.text, "data file"), "%s", err.text);
    EXPECT(!qcow2_open(tmpdir_path("other"), &options, &err)
           && strstr(err.text, "data file"), "%s", err.text);
    options.readonly = true;
    disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(disk, "%s", err.text);
    qcow2_close(disk, NULL);
    qcow2_failures_free(failures);
    tmpdir_clear();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_may_fail),
        cmocka_unit_test(a_data_file_whose_flush_failed_takes_no_more_writes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
