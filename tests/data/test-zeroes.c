/* SPDX-License-Identifier: BSD-3-Clause */
/* test-zeroes: what was zeroed over a backing file stays zero when the image
 * gets another backing file, although it read as zeroes all along.
 */
#include <errno.h>
#include <stdio.h>

#include "builder.h"
#include "expect.h"
#include "oracle.h"
#include "tmpdir.h"

enum { C = 4096, NR_BYTES = 16 * C };

/* Requests over a backing file that reads as zeroes. In version 3 the rest of
 * a cluster may become zero with a part of it. */
static const struct {
    uint64_t off, nr_bytes;
    unsigned flags;
} requests[] = {
    { 0, C, 0 },
    { 2 * C, 2 * C, QCOW2_MAY_TRIM },
    { 5 * C + 512, 1000, 0 },
    { 7 * C + 100, 2 * C, QCOW2_MAY_TRIM },
    { 13 * C - 1, 2, 0 },
    { 15 * C, NR_BYTES - 15 * C, 0 },
};
enum { NR_REQUESTS = sizeof requests / sizeof requests[0] };

static bool
was_zeroed(uint64_t off)
{
    for (unsigned i = 0; i < NR_REQUESTS; i++)
        if (off >= requests[i].off
            && off < requests[i].off + requests[i].nr_bytes)
            return true;
    return false;
}

static bool
in_zeroed_cluster(uint64_t off)
{
    for (uint64_t pos = off / C * C; pos < off / C * C + C; pos++)
        if (was_zeroed(pos))
            return true;
    return false;
}

static void
zero_parts(const char *path, const struct qcow2_options *options, bool fast)
{
    struct qcow2_error err;
    struct qcow2_disk *disk = qcow2_open(path, options, &err);

    EXPECT(disk, "%s", err.text);
    for (unsigned i = 0; i < NR_REQUESTS; i++) {
        unsigned flags = requests[i].flags | (fast ? QCOW2_FAST : 0);

        EXPECT_OK(qcow2_zero(disk, requests[i].nr_bytes, requests[i].off,
                             flags, &err), &err);
    }
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

/* The image on a backing file that is full of other bytes. */
static void
expect_recorded(const char *path, unsigned version)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    unsigned char bytes[NR_BYTES], full[NR_BYTES];
    struct qcow2_disk *disk;
    struct qcow2_error err;

    memset(full, 0x7e, sizeof full);
    tmpdir_write_file(tmpdir_path("full"), full, sizeof full);
    options.backing = tmpdir_path("full");
    options.backing_format = QCOW2_FORMAT_RAW;
    disk = qcow2_open(path, &options, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pread(disk, bytes, sizeof bytes, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    for (unsigned i = 0; i < NR_BYTES; i++) {
        if (was_zeroed(i))
            EXPECT(bytes[i] == 0, "byte %u shows the backing file", i);
        if (!in_zeroed_cluster(i))
            EXPECT(bytes[i] == 0x7e, "byte %u was not zeroed", i);
    }
    if (version == 3)
        oracle_expect_clean(path);
}

static void
zeroes_over_zeroes_are_recorded(void **state)
{
    static const char *const bases[] = {
        "cluster 4K; size 64K",            /* not allocated */
        "cluster 4K; size 64K; zero 0-15",
        "cluster 4K; size 512",            /* it ends before */
    };

    (void)state;
    for (unsigned i = 0; i < 3 * 2; i++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        unsigned version = 2 + i % 2;
        char recipe[128];

        tmpdir_clear();
        snprintf(recipe, sizeof recipe, "version %u; cluster 4K; size 64K;"
                 "backing base qcow2", version);
        expect_case("%s on %s", recipe, bases[i / 2]);
        builder_make(tmpdir_path("base"), bases[i / 2]);
        builder_make(tmpdir_path("top"), recipe);
        zero_parts(tmpdir_path("top"), &options, version == 3);
        expect_recorded(tmpdir_path("top"), version);
    }
}

/* Opened without the backing file that it names. */
static void
so_are_those_without_the_backing_file_in_sight(void **state)
{
    (void)state;
    for (unsigned version = 2; version <= 3; version++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        char recipe[128];

        tmpdir_clear();
        snprintf(recipe, sizeof recipe, "version %u; cluster 4K; size 64K;"
                 "backing base qcow2", version);
        expect_case("%s", recipe);
        builder_make(tmpdir_path("base"), "size 64K; data 0 1");
        builder_make(tmpdir_path("top"), recipe);
        options.backing_none = true;
        zero_parts(tmpdir_path("top"), &options, false);
        expect_recorded(tmpdir_path("top"), version);
    }
}

static void
a_cluster_with_other_bytes_keeps_them(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    unsigned char bytes[C], want[C];
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    expect_case("a zeroed part beside other bytes");
    tmpdir_clear();
    memset(want, 0, sizeof want);
    memset(want + C / 2, 5, C / 2);
    tmpdir_write_file(tmpdir_path("base"), want, sizeof want);
    builder_make(tmpdir_path("top"), "cluster 4K; size 4K; backing base raw");
    disk = qcow2_open(tmpdir_path("top"), &options, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT(qcow2_zero(disk, 512, 0, QCOW2_FAST, &err) == -1
           && err.errnum == ENOTSUP, "fast zero");
    EXPECT_OK(qcow2_zero(disk, 512, 0, 0, &err), &err);
    EXPECT_OK(qcow2_pread(disk, bytes, C, 0, &err), &err);
    expect_same("the cluster", bytes, want, C, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeroes_over_zeroes_are_recorded),
        cmocka_unit_test(so_are_those_without_the_backing_file_in_sight),
        cmocka_unit_test(a_cluster_with_other_bytes_keeps_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
