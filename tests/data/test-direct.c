/* SPDX-License-Identifier: BSD-3-Clause */
/* test-direct.c: cache modes. Direct I/O does what cached I/O does, on files
 * of any size and images of any cluster size; writethrough makes each request
 * durable, and unsafe none until the disk is closed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builder.h"
#include "expect.h"
#include "io-fault.h"
#include "oracle.h"
#include "play.h"
#include "storage/io-open.h"
#include "tmpdir.h"

enum { NR_REQUESTS = 150 };

static struct fault_plan plan = FAULT_PLAN_INIT;
static struct fault_plan plan_of_base = FAULT_PLAN_INIT;

static bool
matches_any(const struct policy_file *file)
{
    (void)file;
    return true;
}

static struct io *
open_counted(const struct policy_file *file, const struct io_open_options *o,
             struct qcow2_error *err)
{
    struct io_open_options plain = *o;
    struct io *io;

    plain.driver = NULL;
    io = io_open(file, &plain, err);
    if (!io)
        return NULL;
    return io_fault_new(io, file->name && strcmp(file->name, "base") == 0
                                ? &plan_of_base : &plan);
}

static const struct io_driver counted = { .matches = matches_any,
                                          .open = open_counted };

static struct qcow2_options
options_of(enum qcow2_cache cache)
{
    struct qcow2_options o = QCOW2_OPTIONS_INIT;

    o.cache = cache;
    o.driver = &counted;
    return o;
}

static struct qcow2_disk *
open_disk(const char *name, enum qcow2_cache cache, enum qcow2_format format)
{
    struct qcow2_options o = options_of(cache);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    o.format = format;
    if (format == QCOW2_FORMAT_RAW)
        o.driver = NULL; /* what a raw disk asks of its file reaches it */
    disk = qcow2_open(tmpdir_path(name), &o, &err);
    if (!disk && err.errnum == ENOTSUP)
        skip(); /* the file system has no direct I/O */
    EXPECT(disk, "%s", err.text);
    return disk;
}

/* Of this process: how many are open past the cache? */
static unsigned
nr_direct_descriptors(void)
{
    unsigned nr = 0;

    for (int fd = 3; fd < 100; fd++) {
        int flags = fcntl(fd, F_GETFL);

        nr += flags != -1 && flags & O_DIRECT;
    }
    return nr;
}

static void
play_on(const char *name, enum qcow2_format format, uint64_t seed)
{
    struct qcow2_disk *disk = open_disk(name, QCOW2_CACHE_NONE, format);
    uint64_t size = qcow2_get_size(disk);
    unsigned char *content = malloc(size + 1);
    struct qcow2_error err;
    struct play p;
    struct rng r;

    EXPECT_OK(qcow2_pread(disk, content, size, 0, &err), &err);
    memset(&p, 0, sizeof p);
    play_init(&p, content, size);
    p.disk = disk;
    p.cluster_size = qcow2_get_cluster_size(disk);
    rng_init(&r, rng_seed(1), seed);
    for (unsigned i = 0; i < NR_REQUESTS; i++) {
        struct op op = play_random(&p, &r, i);

        /* What a raw disk keeps of trimmed bytes nobody says. */
        if (format == QCOW2_FORMAT_RAW && op.kind == OP_TRIM)
            op.kind = OP_ZERO;
        expect_step("%u: %s", i, play_text(&op));
        EXPECT_OK(play_op(&p, &op, &err), &err);
    }
    play_verify(&p);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    p.disk = open_disk(name, QCOW2_CACHE_WRITEBACK, format);
    expect_step("after it was closed");
    play_verify(&p);
    EXPECT_OK(qcow2_close(p.disk, &err), &err);
    play_free(&p);
    free(content);
}

static void
images_of_all_cluster_sizes_are_played_on(void **state)
{
    static const char *const recipes[] = {
        "cluster 512; size 41000; data 0-9 1; compressed 12-13 2; zero 20",
        "version 2; cluster 1K; size 60000; data 0-9 1; snapshot 1 first",
        "cluster 4K; size 1M; data 0-9 1; compressed 12-13 2",
        "cluster 64K; size 3M; data 0-3 1; compressed 5-6 2; zero-alloc 8",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        expect_case("%s", recipes[i]);
        tmpdir_clear();
        builder_make(tmpdir_path("image"), recipes[i]);
        play_on("image", QCOW2_FORMAT_QCOW2, i);
        oracle_expect_clean(tmpdir_path("image"));
    }
}

static void
raw_disks_keep_their_size(void **state)
{
    static const uint64_t sizes[] = { 512, 4096, 41000, 70144, 1 << 20 };
    unsigned char *bytes = calloc(1, 1 << 20);

    (void)state;
    memset(bytes, 'r', 1 << 20);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct stat st;

        expect_case("%llu bytes", (unsigned long long)sizes[i]);
        tmpdir_clear();
        tmpdir_write_file(tmpdir_path("raw"), bytes, sizes[i]);
        play_on("raw", QCOW2_FORMAT_RAW, i);
        assert_int_equal(stat(tmpdir_path("raw"), &st), 0);
        assert_int_equal(st.st_size, sizes[i]);
    }
    free(bytes);
}

static void
make_overlay(void)
{
    tmpdir_clear();
    builder_make(tmpdir_path("base"), "cluster 4K; size 1M; data 0-99 1");
    builder_make(tmpdir_path("top"),
                 "cluster 4K; size 1M; backing base qcow2; data 2-4 5");
}

static void
make_overlay_with_data_files(void)
{
    tmpdir_clear();
    builder_make(tmpdir_path("base"), "cluster 4K; size 1M; "
                 "data-file base.raw; data 0-99 1");
    builder_make(tmpdir_path("top"), "cluster 4K; size 1M; "
                 "data-file top.raw; backing base qcow2; data 2-4 5");
}

static void
the_modes_are_of_the_files_they_name(void **state)
{
    static const struct {
        enum qcow2_cache own, below;
        unsigned nr;
    } cases[] = {
        { QCOW2_CACHE_WRITEBACK, QCOW2_CACHE_WRITEBACK, 0 },
        { QCOW2_CACHE_NONE, QCOW2_CACHE_WRITEBACK, 1 },
        { QCOW2_CACHE_DIRECTSYNC, QCOW2_CACHE_UNSAFE, 1 },
        { QCOW2_CACHE_WRITETHROUGH, QCOW2_CACHE_NONE, 1 },
        { QCOW2_CACHE_NONE, QCOW2_CACHE_DIRECTSYNC, 2 },
    };
    const unsigned nr_cases = sizeof cases / sizeof cases[0];

    (void)state;
    make_overlay();
    qcow2_close(open_disk("top", QCOW2_CACHE_NONE, QCOW2_FORMAT_QCOW2), NULL);
    for (unsigned i = 0; i < 2 * nr_cases; i++) {
        struct qcow2_options o = options_of(cases[i % nr_cases].own);
        unsigned nr = cases[i % nr_cases].nr;
        struct qcow2_disk *disk;
        struct qcow2_error err;

        o.backing_cache = cases[i % nr_cases].below;
        if (i == nr_cases)
            make_overlay_with_data_files();
        disk = qcow2_open(tmpdir_path("top"), &o, &err);
        EXPECT(disk, "%s", err.text);
        /* Each image, and its data file. */
        assert_int_equal(nr_direct_descriptors(), i < nr_cases ? nr : 2 * nr);
        EXPECT_OK(qcow2_close(disk, &err), &err);
    }
}

/* Barriers that three writes and a flush, and closing, take. */
static void
count_flushes(enum qcow2_cache cache, uint64_t counts[5])
{
    struct qcow2_disk *disk;
    struct qcow2_error err;
    char buf[4096] = "x";

    make_overlay();
    disk = open_disk("top", cache, QCOW2_FORMAT_QCOW2);
    for (int i = 0; i < 5; i++) {
        fault_reset_counts(&plan);
        if (i < 3)
            EXPECT_OK(qcow2_pwrite(disk, buf, sizeof buf, i * 65536,
                                   i == 2 ? QCOW2_FUA : 0, &err), &err);
        else if (i == 3)
            EXPECT_OK(qcow2_flush(disk, &err), &err);
        else
            EXPECT_OK(qcow2_close(disk, &err), &err);
        counts[i] = fault_count(&plan, FAULT_FLUSH);
    }
}

static void
modes_say_when_writes_are_durable(void **state)
{
    uint64_t n[5];

    (void)state;
    count_flushes(QCOW2_CACHE_WRITEBACK, n);
    assert_true(n[0] == 0 && n[1] == 0 && n[2] > 0 && n[3] == 0);
    count_flushes(QCOW2_CACHE_NONE, n);
    assert_true(n[0] == 0 && n[1] == 0 && n[2] > 0 && n[3] == 0);
    count_flushes(QCOW2_CACHE_WRITETHROUGH, n);
    assert_true(n[0] > 0 && n[1] > 0 && n[2] > 0 && n[3] == 0);
    count_flushes(QCOW2_CACHE_DIRECTSYNC, n);
    assert_true(n[0] > 0 && n[1] > 0 && n[2] > 0 && n[3] == 0);
    count_flushes(QCOW2_CACHE_UNSAFE, n);
    assert_true(n[0] == 0 && n[1] == 0 && n[2] == 0 && n[3] == 0 && n[4] > 0);
}

static int
run_job(struct qcow2_job *job, struct qcow2_error *err)
{
    int r = job ? qcow2_job_run(job, NULL, NULL, err) : -1;

    qcow2_job_free(job);
    return r;
}

/* What the overlay holds leaves it once the base has it for good, so not if
 * that fails. */
static void
commit_keeps_its_order_in_unsafe_mode(void **state)
{
    const struct qcow2_commit_options commit = { .base = NULL };
    struct qcow2_options o = options_of(QCOW2_CACHE_UNSAFE);
    struct qcow2_disk *disk;
    struct qcow2_error err;
    char byte = 0;

    (void)state;
    make_overlay();
    fault_arm(&plan_of_base, FAULT_FLUSH, 1, EIO, FAULT_FOR_GOOD);
    assert_int_equal(run_job(qcow2_commit(tmpdir_path("top"), &o, &commit,
                                          &err), &err), -1);
    fault_arm(&plan_of_base, 0, 0, 0, 0);
    o.backing_none = true;
    disk = qcow2_open(tmpdir_path("top"), &o, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pread(disk, &byte, 1, 2 * 4096, &err), &err);
    assert_int_not_equal(byte, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

static void
unsafe_raw_disks_are_durable_when_closed(void **state)
{
    struct qcow2_options o = options_of(QCOW2_CACHE_UNSAFE);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    tmpdir_write_file(tmpdir_path("raw"), "0123456789", 10);
    o.format = QCOW2_FORMAT_RAW;
    disk = qcow2_open(tmpdir_path("raw"), &o, &err);
    EXPECT(disk, "%s", err.text);
    fault_reset_counts(&plan);
    EXPECT_OK(qcow2_pwrite(disk, "x", 1, 3, QCOW2_FUA, &err), &err);
    assert_int_equal(fault_count(&plan, FAULT_FLUSH), 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    assert_int_equal(fault_count(&plan, FAULT_FLUSH), 1);
}

static void
convert(enum qcow2_cache cache, bool compress)
{
    struct qcow2_options o = options_of(cache);
    struct qcow2_convert_options c = {
        .format = QCOW2_FORMAT_QCOW2, .open = &o, .compress = compress,
        .create = { .overwrite = true, .cluster_size = 4096 },
    };
    struct qcow2_disk *source;
    struct qcow2_error err;

    source = open_disk("top", cache, QCOW2_FORMAT_QCOW2);
    expect_case("mode %d%s", cache, compress ? ", compressed" : "");
    EXPECT_OK(run_job(qcow2_convert(&source, 1, tmpdir_path("copy"), &c, &err),
                      &err), &err);
    EXPECT_OK(qcow2_close(source, &err), &err);
    oracle_expect_clean(tmpdir_path("copy"));
}

static void
copies_are_whole_in_every_mode(void **state)
{
    (void)state;
    make_overlay();
    for (int mode = 0; mode <= QCOW2_CACHE_UNSAFE; mode++)
        for (int compress = 0; compress < 2; compress++) {
            struct qcow2_compare_result result;
            struct qcow2_disk *a, *b;
            struct qcow2_error err;

            convert(mode, compress);
            a = open_disk("copy", mode, QCOW2_FORMAT_QCOW2);
            b = open_disk("base", mode, QCOW2_FORMAT_QCOW2);
            EXPECT_OK(run_job(qcow2_compare(a, b, false, &result, &err),
                              &err), &err);
            assert_int_equal(result.difference, QCOW2_DIFFERENT_CONTENT);
            assert_int_equal(result.guest_off, 2 * 4096);
            qcow2_close(a, NULL);
            qcow2_close(b, NULL);
        }
}

/* A file whose file system has no direct I/O. */
static int
refuse_direct(struct io *io, struct io_blocks *blocks,
              struct qcow2_error *err)
{
    (void)blocks;
    snprintf(err->text, sizeof err->text, "%s: has none", io->name);
    err->errnum = ENOTSUP;
    return -1;
}

static struct io *
open_without_direct(const struct policy_file *file,
                    const struct io_open_options *o, struct qcow2_error *err)
{
    static struct io_ops ops;
    struct io_open_options plain = *o;
    struct io *io;

    plain.driver = NULL;
    plain.direct = false;
    io = io_open(file, &plain, err);
    if (!io)
        return NULL;
    ops = *io->ops;
    ops.set_direct = refuse_direct;
    io->ops = &ops;
    return io;
}

static void
what_has_no_direct_access_is_refused(void **state)
{
    static const struct io_driver none = { .matches = matches_any,
                                           .open = open_without_direct };
    struct qcow2_options o = options_of(QCOW2_CACHE_NONE);
    struct qcow2_error err;

    (void)state;
    make_overlay();
    o.driver = &none;
    assert_null(qcow2_open(tmpdir_path("top"), &o, &err));
    assert_int_equal(err.errnum, ENOTSUP);
    o.cache = QCOW2_CACHE_WRITEBACK;
    o.backing_cache = QCOW2_CACHE_NONE;
    assert_null(qcow2_open(tmpdir_path("top"), &o, &err));
    assert_int_equal(err.errnum, ENOTSUP);
}

/* What was there is not lost. */
static void
a_target_without_direct_access_is_kept(void **state)
{
    static const struct io_driver none = { .matches = matches_any,
                                           .open = open_without_direct };
    struct qcow2_options o = options_of(QCOW2_CACHE_NONE);
    const struct qcow2_convert_options c = {
        .format = QCOW2_FORMAT_RAW, .open = &o,
        .create = { .overwrite = true },
    };
    struct qcow2_disk *source;
    struct qcow2_error err;
    unsigned char *bytes;
    size_t nr_bytes;

    (void)state;
    make_overlay();
    tmpdir_write_file(tmpdir_path("copy"), "precious", 8);
    source = open_disk("top", QCOW2_CACHE_WRITEBACK, QCOW2_FORMAT_QCOW2);
    o.driver = &none;
    assert_int_equal(run_job(qcow2_convert(&source, 1, tmpdir_path("copy"),
                                           &c, &err), &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    EXPECT_OK(qcow2_close(source, &err), &err);
    bytes = tmpdir_read_file(tmpdir_path("copy"), &nr_bytes);
    assert_int_equal(nr_bytes, 8);
    assert_memory_equal(bytes, "precious", 8);
    free(bytes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_of_all_cluster_sizes_are_played_on),
        cmocka_unit_test(raw_disks_keep_their_size),
        cmocka_unit_test(the_modes_are_of_the_files_they_name),
        cmocka_unit_test(modes_say_when_writes_are_durable),
        cmocka_unit_test(commit_keeps_its_order_in_unsafe_mode),
        cmocka_unit_test(unsafe_raw_disks_are_durable_when_closed),
        cmocka_unit_test(copies_are_whole_in_every_mode),
        cmocka_unit_test(what_has_no_direct_access_is_refused),
        cmocka_unit_test(a_target_without_direct_access_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
