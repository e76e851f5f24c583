/* SPDX-License-Identifier: BSD-3-Clause */
/* test-nbd: disks, targets and backing files that another program exports
 * over NBD.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "expect.h"
#include "layers.h"
#include "oracle.h"
#include "tmpdir.h"

enum { SIZE = 1 << 20 };

/* The URI of a file in the temporary directory while it is exported. */
static char uri[1200];

/* qemu-nbd returns when it can be connected to, and goes on alone. */
static void
serve(const char *name, const char *options)
{
    EXPECT(oracle_run("qemu-nbd --fork -t -e 0 --discard=unmap -f raw %s "
                      "--pid-file='%s' -k '%s' '%s'", options,
                      tmpdir_path("pid"), tmpdir_path("socket"),
                      tmpdir_path(name)) == 0, "qemu-nbd");
    snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s",
             tmpdir_path("socket"));
}

/* A server that insists on blocks of 4096 bytes, and at most 16 of them. */
static void
serve_blocks(const char *name)
{
    if (oracle_run("PATH=\"$PATH:/usr/sbin\"; nbdkit --dump-plugin file "
                   "2>&1 | grep -q path=") != 0)
        skip();
    EXPECT(oracle_run("PATH=\"$PATH:/usr/sbin\"; nbdkit -U '%s' -P '%s' "
                      "--filter=blocksize-policy file '%s' "
                      "blocksize-minimum=4096 blocksize-preferred=4096 "
                      "blocksize-maximum=64K blocksize-error-policy=error",
                      tmpdir_path("socket"), tmpdir_path("pid"),
                      tmpdir_path(name)) == 0, "nbdkit");
    snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s",
             tmpdir_path("socket"));
}

static void
stop_serving(void)
{
    EXPECT(oracle_run("pid=$(cat '%s') && kill $pid && "
                      "tail --pid=$pid -f /dev/null", tmpdir_path("pid"))
           == 0, "stop qemu-nbd");
}

static void
nbd_or_skip(void)
{
    if (!qcow2_has_feature("nbd")
        || oracle_run("qemu-nbd --version >/dev/null 2>&1") != 0)
        skip();
    tmpdir_clear();
}

static struct qcow2_disk *
open_uri(bool readonly)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.readonly = readonly;
    options.format = QCOW2_FORMAT_RAW;
    disk = qcow2_open(uri, &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static unsigned char *
make_raw(const char *name)
{
    unsigned char *content = calloc(1, SIZE);

    pattern_fill(content, 200000, 1, 0);
    pattern_fill(content + 700000, 90000, 2, 0);
    tmpdir_write_file(tmpdir_path(name), content, SIZE);
    return content;
}

static void
try_requests(unsigned char *content)
{
    unsigned char *got;
    struct qcow2_disk *disk = open_uri(false);
    struct qcow2_error err;

    EXPECT(qcow2_get_size(disk) == SIZE, "size");
    pattern_fill(content + 12345, 54321, 3, 0);
    EXPECT_OK(qcow2_pwrite(disk, content + 12345, 54321, 12345, 0, &err),
              &err);
    memset(content + 100001, 0, 50001);
    EXPECT_OK(qcow2_zero(disk, 50001, 100001, QCOW2_MAY_TRIM, &err), &err);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    got = layers_read(disk);
    expect_same("disk", got, content, SIZE, 0);
    free(got);
    EXPECT(qcow2_pwrite(disk, content, 2, SIZE - 1, 0, &err) == -1, "past");
    EXPECT(qcow2_resize(disk, 2 * SIZE, false, &err) == -1
           && err.errnum == ENOSPC, "%s", err.text);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    stop_serving();
    layers_expect("disk", QCOW2_FORMAT_RAW, content, SIZE);
    free(content);
}

static void
requests_of_any_alignment(void **state)
{
    unsigned char *content;

    (void)state;
    nbd_or_skip();
    expect_case("requests");
    content = make_raw("disk");
    serve("disk", "");
    try_requests(content);
}

static void
requests_to_a_server_of_blocks(void **state)
{
    unsigned char *content;

    (void)state;
    nbd_or_skip();
    expect_case("blocks");
    content = make_raw("disk");
    serve_blocks("disk");
    try_requests(content);
}

static int
count_holes(void *opaque, const struct qcow2_extent *e)
{
    if (e->zero)
        *(uint64_t *)opaque += e->nr_bytes;
    return 0;
}

static void
holes_are_seen_and_copied(void **state)
{
    struct qcow2_convert_options o = { .format = QCOW2_FORMAT_QCOW2 };
    uint64_t holes = 0;
    unsigned char *content;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct qcow2_job *job;

    (void)state;
    nbd_or_skip();
    expect_case("holes");
    content = make_raw("disk");
    EXPECT(oracle_run("fallocate -d '%s'", tmpdir_path("disk")) == 0, "-");
    serve("disk", "-r");
    disk = open_uri(true);
    EXPECT_OK(qcow2_map(disk, SIZE, 0, count_holes, &holes, &err), &err);
    EXPECT(holes > SIZE / 2, "%llu bytes", (unsigned long long)holes);
    job = qcow2_convert(&disk, 1, tmpdir_path("copy"), &o, &err);
    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
    qcow2_close(disk, NULL);
    stop_serving();
    layers_expect("copy", QCOW2_FORMAT_QCOW2, content, SIZE);
    free(content);
}

static void
an_export_is_a_target(void **state)
{
    struct qcow2_convert_options o = {
        .format = QCOW2_FORMAT_RAW, .no_create = true, .out_of_order = true,
    };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    unsigned char *want;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct qcow2_job *job;

    (void)state;
    nbd_or_skip();
    expect_case("target");
    free(make_raw("target"));
    builder_make(tmpdir_path("source"), "cluster 4K; size 1M; data 3-9 1;"
                 "zero 10-12; data 200 2");
    options.readonly = true;
    disk = qcow2_open(tmpdir_path("source"), &options, &err);
    EXPECT(disk, "%s", err.text);
    want = layers_read(disk);
    serve("target", "");
    job = qcow2_convert(&disk, 1, uri, &o, &err);
    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
    qcow2_close(disk, NULL);
    stop_serving();
    layers_expect("target", QCOW2_FORMAT_RAW, want, SIZE);
    free(want);
}

/* A backing file by URI: by leave only, and then committed to. */
static void
an_export_is_a_backing_file(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_commit_options commit = { .keep = false };
    const char *allow[] = { "nbd+unix:///" };
    unsigned char *content, *got;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct qcow2_job *job;
    char recipe[1400];

    (void)state;
    nbd_or_skip();
    expect_case("backing");
    content = make_raw("base");
    serve("base", "");
    snprintf(recipe, sizeof recipe, "cluster 4K; size 1M; backing %s raw;"
             "data 5-7 9", uri);
    builder_make(tmpdir_path("top"), recipe);

    EXPECT(!qcow2_open(tmpdir_path("top"), &options, &err)
           && err.errnum == EPERM, "%s", err.text);
    options.allow = allow;
    options.nr_allow = 1;
    allow[0] = "nbd+unix:///?socket=/other";
    EXPECT(!qcow2_open(tmpdir_path("top"), &options, &err)
           && err.errnum == EPERM, "%s", err.text);
    allow[0] = "nbd+unix:///";
    disk = qcow2_open(tmpdir_path("top"), &options, &err);
    EXPECT(disk, "%s", err.text);
    got = layers_read(disk);
    pattern_fill(content + 5 * 4096, 3 * 4096, 9, 5 * 4096);
    expect_same("overlay", got + 8 * 4096, content + 8 * 4096,
                SIZE - 8 * 4096, 8 * 4096);
    qcow2_close(disk, NULL);

    job = qcow2_commit(tmpdir_path("top"), &options, &commit, &err);
    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
    stop_serving();
    layers_expect("base", QCOW2_FORMAT_RAW, got, SIZE);
    free(got);
    free(content);
}

static void
what_is_not_there_is_told(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;

    (void)state;
    nbd_or_skip();
    expect_case("missing");
    snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s",
             tmpdir_path("nobody"));
    EXPECT(!qcow2_open(uri, &options, &err), "opened");
    EXPECT(err.errnum == ENOENT && strstr(err.text, "nobody"), "%s",
           err.text);
    free(make_raw("disk"));
    serve("disk", "-r");
    options.format = QCOW2_FORMAT_RAW;
    EXPECT(!qcow2_open(uri, &options, &err) && err.errnum == EROFS, "%s",
           err.text);
    stop_serving();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_any_alignment),
        cmocka_unit_test(requests_to_a_server_of_blocks),
        cmocka_unit_test(holes_are_seen_and_copied),
        cmocka_unit_test(an_export_is_a_target),
        cmocka_unit_test(an_export_is_a_backing_file),
        cmocka_unit_test(what_is_not_there_is_told),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
