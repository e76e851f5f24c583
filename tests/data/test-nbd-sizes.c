/* SPDX-License-Identifier: BSD-3-Clause */
/* test-nbd-sizes: NBD servers that say sizes which no file has. Whatever an
 * export is opened for, the process lives, and nothing is made of a size that
 * cannot be.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "io-mem.h"
#include "nbd-server.h"
#include "rng.h"
#include "tmpdir.h"

enum { C = 4096, SIZE = 1 << 20 };

static const uint64_t impossible[] = {
    UINT64_C(1) << 63, (UINT64_C(1) << 63) + 512, UINT64_MAX - 511,
    UINT64_MAX,
};
static const uint64_t odd[] = {
    0, 1, 511, SIZE - 1, SIZE, UINT64_C(1) << 56, UINT64_C(1) << 62,
    (UINT64_C(1) << 63) - 512, (UINT64_C(1) << 63) - 1,
};

static const char *const allow[] = { "nbd+unix:///" };

static struct mem *
new_mem(void)
{
    unsigned char *bytes = malloc(SIZE);
    struct mem *mem;

    EXPECT(bytes, "memory");
    pattern_fill(bytes, SIZE, 1, 0);
    mem = mem_new(bytes, SIZE);
    free(bytes);
    return mem;
}

static struct nbd_server *
serve(struct mem *mem, unsigned can, uint64_t size)
{
    struct nbd_server *server;

    expect_case("a server of %" PRIu64 " bytes", size);
    server = nbd_server_start(io_mem_open(mem, false), can);
    nbd_server_claim_size(server, size);
    return server;
}

static void
begin(void)
{
    char recipe[1400];

    if (!qcow2_has_feature("nbd"))
        skip();
    tmpdir_clear();
    snprintf(recipe, sizeof recipe, "size 1M; backing %s raw; data 0 1",
             nbd_server_uri());
    builder_make(tmpdir_path("overlay"), recipe);
    snprintf(recipe, sizeof recipe, "size 1M; backing %s qcow2; data 0 1",
             nbd_server_uri());
    builder_make(tmpdir_path("overlay2"), recipe);
    builder_make(tmpdir_path("source"), "size 1M; data 0-15 1");
}

static struct qcow2_options
options_of(enum qcow2_format format, bool readonly)
{
    struct qcow2_options o = QCOW2_OPTIONS_INIT;

    o.format = format;
    o.readonly = readonly;
    o.allow = allow;
    o.nr_allow = 1;
    return o;
}

static void
expect_refused(const char *path, enum qcow2_format format, bool readonly)
{
    struct qcow2_options o = options_of(format, readonly);
    struct qcow2_error err;

    EXPECT(!qcow2_open(path, &o, &err), "%s was opened", path);
    EXPECT(err.errnum != 0 && strstr(err.text, "size"), "%s", err.text);
}

/* A convert to the export, which is there already. */
static int
convert_to_export(struct qcow2_error *err)
{
    struct qcow2_options o = options_of(QCOW2_FORMAT_AUTO, true);
    struct qcow2_convert_options c = {
        .format = QCOW2_FORMAT_RAW, .no_create = true,
    };
    struct qcow2_disk *source = qcow2_open(tmpdir_path("source"), &o, err);
    struct qcow2_job *job;
    int r;

    EXPECT(source, "%s", err->text);
    job = qcow2_convert(&source, 1, nbd_server_uri(), &c, err);
    while ((r = job ? qcow2_job_step(job, err) : -1) == 1)
        ;
    qcow2_job_free(job);
    qcow2_close(source, NULL);
    return r;
}

static void
impossible_sizes_are_refused(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < sizeof impossible / sizeof impossible[0]; i++) {
        struct qcow2_info_options io = { .nbd_timeout_ms = 0 };
        struct qcow2_check_options co = { .repair = QCOW2_REPAIR_ALL };
        struct qcow2_check_result result;
        struct mem *mem = new_mem();
        struct nbd_server *s = serve(mem, NBD_SERVER_ALL, impossible[i]);
        struct qcow2_error err;

        expect_refused(nbd_server_uri(), QCOW2_FORMAT_RAW, false);
        expect_refused(nbd_server_uri(), QCOW2_FORMAT_RAW, true);
        expect_refused(nbd_server_uri(), QCOW2_FORMAT_QCOW2, false);
        expect_refused(nbd_server_uri(), QCOW2_FORMAT_AUTO, true);
        expect_refused(tmpdir_path("overlay"), QCOW2_FORMAT_QCOW2, true);
        expect_refused(tmpdir_path("overlay"), QCOW2_FORMAT_QCOW2, false);
        expect_refused(tmpdir_path("overlay2"), QCOW2_FORMAT_QCOW2, true);
        EXPECT(!qcow2_get_info(nbd_server_uri(), &io, &err)
               && strstr(err.text, "size"), "info: %s", err.text);
        EXPECT(qcow2_check(nbd_server_uri(), &co, &result, &err) == -1
               && strstr(err.text, "size"), "check: %s", err.text);
        EXPECT(convert_to_export(&err) == -1 && strstr(err.text, "size"),
               "convert: %s", err.text);
        nbd_server_stop(s);
        mem_free(mem);
    }
}

static void
expect_pattern(struct qcow2_disk *disk, uint64_t off, uint64_t nr_bytes)
{
    unsigned char got[C], want[C];
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(disk, got, nr_bytes, off, &err), &err);
    pattern_fill(want, nr_bytes, 1, off);
    expect_same("read", got, want, nr_bytes, off);
}

static int
count_extent(void *opaque, const struct qcow2_extent *e)
{
    unsigned *nr = opaque;

    return e->nr_bytes == 0 || ++*nr > 100;
}

/* What is there is served; what is not is an error of that request alone. */
static void
use_raw(struct qcow2_disk *disk, uint64_t size)
{
    uint64_t have = size < SIZE ? size : SIZE;
    struct qcow2_error err;
    unsigned nr = 0;
    char byte;

    EXPECT(qcow2_get_size(disk) == size, "size");
    if (have > 0)
        expect_pattern(disk, have - 1, 1);
    if (size > SIZE) {
        EXPECT(qcow2_pread(disk, &byte, 1, size - 1, &err) == -1
               && err.errnum == EIO, "past what it has: %s", err.text);
        EXPECT(qcow2_zero(disk, C, size - C, QCOW2_MAY_TRIM, &err) == -1,
               "zeroed past what it has");
        EXPECT(qcow2_trim(disk, size - SIZE, SIZE, 0, &err) == 0
               || err.errnum != 0, "no reason");
    }
    EXPECT(qcow2_pread(disk, &byte, 1, size, &err) == -1, "past the end");
    EXPECT(qcow2_pwrite(disk, &byte, 1, size, 0, &err) == -1, "past the end");
    if (size > 0)
        qcow2_map(disk, size, 0, count_extent, &nr, NULL);
    if (have > 0)
        expect_pattern(disk, 0, 1);
}

static void
odd_sizes_are_served_as_far_as_there_is_anything(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < 2 * sizeof odd / sizeof odd[0]; i++) {
        struct qcow2_options o = options_of(QCOW2_FORMAT_RAW, false);
        unsigned can = i % 2 ? NBD_SERVER_ALL : NBD_SERVER_FLUSH;
        struct mem *mem = new_mem();
        struct nbd_server *s = serve(mem, can, odd[i / 2]);
        struct qcow2_disk *disk;
        struct qcow2_error err;

        disk = qcow2_open(nbd_server_uri(), &o, &err);
        EXPECT(disk, "%s", err.text);
        use_raw(disk, odd[i / 2]);
        qcow2_close(disk, NULL);
        nbd_server_stop(s);
        mem_free(mem);
    }
}

/* A backing file of any size: past its end the disk reads as zeroes. */
static void
overlays_stand_on_exports_of_any_size(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        struct qcow2_options o = options_of(QCOW2_FORMAT_QCOW2, false);
        struct nbd_server *s;
        struct qcow2_disk *disk;
        struct qcow2_error err;
        unsigned char last;
        struct mem *mem;

        begin(); /* the overlay anew */
        mem = new_mem();
        s = serve(mem, NBD_SERVER_ALL, odd[i]);
        disk = qcow2_open(tmpdir_path("overlay"), &o, &err);
        EXPECT(disk, "%s", err.text);
        EXPECT_OK(qcow2_pread(disk, &last, 1, SIZE - 1, &err), &err);
        EXPECT_OK(qcow2_pwrite(disk, "x", 1, SIZE - 1, 0, &err), &err);
        if (odd[i] >= SIZE)
            expect_pattern(disk, SIZE - 1 - C, C);
        else
            EXPECT(last == 0, "not zero");
        EXPECT_OK(qcow2_close(disk, &err), &err);
        nbd_server_stop(s);
        mem_free(mem);
    }
}

/* An image in an export that claims to be larger, or smaller. */
static void
images_in_exports_of_any_size(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        struct qcow2_options o = options_of(QCOW2_FORMAT_QCOW2, false);
        struct mem *mem = mem_from_recipe("size 512K; data 0-3 1; gap 4");
        struct nbd_server *s = serve(mem, NBD_SERVER_ALL, odd[i]);
        struct qcow2_disk *disk;
        struct qcow2_error err;
        unsigned char got[C];

        disk = qcow2_open(nbd_server_uri(), &o, &err);
        EXPECT(disk || err.text[0], "no reason");
        EXPECT(disk || odd[i] < SIZE, "%s", err.text);
        if (disk) {
            EXPECT_OK(qcow2_pread(disk, got, C, 0, &err), &err);
            qcow2_pwrite(disk, got, C, 300000, QCOW2_FUA, NULL);
            qcow2_close(disk, NULL);
        }
        nbd_server_stop(s);
        mem_free(mem);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(odd_sizes_are_served_as_far_as_there_is_anything),
        cmocka_unit_test(overlays_stand_on_exports_of_any_size),
        cmocka_unit_test(images_in_exports_of_any_size),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
