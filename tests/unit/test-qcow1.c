/* SPDX-License-Identifier: BSD-3-Clause */
/* test-qcow1: what is taken of images of version 1, and what is refused. */
#include "layer/qcow1.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "disk/open.h"
#include "expect.h"
#include "format/qcow1-header.h"
#include "io-mem.h"
#include "qcow1-image.h"

enum { NR_SMASHED = 3000 };

/* 8 clusters of data in an image of 512-byte clusters. */
static void
make_small(struct qcow1_image *image)
{
    struct rng rng;

    *image = (struct qcow1_image){
        .cluster_bits = 9, .l2_bits = 6, .size = 100000, .backing = "below",
    };
    rng_init(&rng, 1, 1);
    qcow1_image_make(image, &rng);
}

static int
read_header(const struct qcow1_image *image, struct qcow1_header *h,
            struct qcow2_error *err)
{
    struct mem *m = mem_new(image->bytes, image->nr_bytes);
    struct io *io = io_mem_open(m, true);
    int r = qcow1_header_read(io, h, err);

    io_close(io);
    mem_free(m);
    return r;
}

static void
header_is_taken(const struct qcow1_image *image)
{
    struct qcow2_error err;
    struct qcow1_header h;

    EXPECT_OK(read_header(image, &h, &err), &err);
    qcow1_header_free(&h);
}

/* With the field changed the header is refused; the field is put back. */
static void
field_is_refused(struct qcow1_image *image, unsigned at, unsigned width,
                 uint64_t value, int errnum, const char *text)
{
    uint64_t old = qcow1_image_get(image, at, width);
    struct qcow2_error err = { 0 };
    struct qcow1_header h;

    expect_case("byte %u is 0x%llx", at, (unsigned long long)value);
    qcow1_image_put(image, at, width, value);
    EXPECT(read_header(image, &h, &err) == -1, "was taken");
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
    qcow1_image_put(image, at, width, old);
}

static void
header_fields_have_limits(void **state)
{
    struct qcow1_image image;
    uint64_t l1;

    (void)state;
    make_small(&image);
    l1 = qcow1_image_get(&image, QCOW1_AT_L1, 8);
    expect_case("as it is");
    header_is_taken(&image);
    field_is_refused(&image, QCOW1_AT_VERSION, 4, 2, EINVAL, "version 1");
    field_is_refused(&image, 0, 4, 0x514649fa, EINVAL, "format qcow");
    field_is_refused(&image, QCOW1_AT_CLUSTER_BITS, 1, 8, EIO, "9 to 16");
    field_is_refused(&image, QCOW1_AT_CLUSTER_BITS, 1, 17, EIO, "9 to 16");
    field_is_refused(&image, QCOW1_AT_CLUSTER_BITS, 1, 255, EIO, "9 to 16");
    field_is_refused(&image, QCOW1_AT_L2_BITS, 1, 5, EIO, "6 to 13");
    field_is_refused(&image, QCOW1_AT_L2_BITS, 1, 14, EIO, "6 to 13");
    field_is_refused(&image, QCOW1_AT_CRYPT_METHOD, 4, 1, ENOTSUP, "AES");
    field_is_refused(&image, QCOW1_AT_CRYPT_METHOD, 4, 2, ENOTSUP,
                     "unknown method 2");
    field_is_refused(&image, QCOW1_AT_SIZE, 8, UINT64_MAX, EIO, "the limit");
    field_is_refused(&image, QCOW1_AT_SIZE, 8,
                     (UINT64_C(4) << 20 << 15) + 1, EIO, "the limit");
    field_is_refused(&image, QCOW1_AT_L1, 8, 0, EIO, "L1 table");
    field_is_refused(&image, QCOW1_AT_L1, 8, 40, EIO, "L1 table");
    field_is_refused(&image, QCOW1_AT_L1, 8, l1 + 4, EIO, "L1 table");
    field_is_refused(&image, QCOW1_AT_L1, 8, image.nr_bytes / 8 * 8, EIO,
                     "L1 table");
    field_is_refused(&image, QCOW1_AT_L1, 8, UINT64_MAX - 7, EIO, "L1 table");
    qcow1_image_free(&image);
}

static void
backing_names_have_limits(void **state)
{
    struct qcow1_image image;

    (void)state;
    make_small(&image);
    field_is_refused(&image, QCOW1_AT_NAME_SIZE, 4, 0, EIO, "backing file");
    field_is_refused(&image, QCOW1_AT_NAME_SIZE, 4, 1024, EIO, "1023");
    field_is_refused(&image, QCOW1_AT_NAME_SIZE, 4, UINT32_MAX, EIO, "1023");
    field_is_refused(&image, QCOW1_AT_NAME, 8, 0, EIO, "backing file");
    field_is_refused(&image, QCOW1_AT_NAME, 8, 44, EIO, "backing file");
    field_is_refused(&image, QCOW1_AT_NAME, 8, image.nr_bytes - 4, EIO,
                     "backing file");
    field_is_refused(&image, QCOW1_AT_NAME, 8, UINT64_MAX - 2, EIO,
                     "backing file");
    field_is_refused(&image, 50, 1, 0, EIO, "a byte of 0");
    expect_case("neither offset nor size");
    qcow1_image_put(&image, QCOW1_AT_NAME, 8, 0);
    qcow1_image_put(&image, QCOW1_AT_NAME_SIZE, 4, 0);
    header_is_taken(&image);
    qcow1_image_free(&image);
}

static void
a_header_that_is_cut_short_is_refused(void **state)
{
    struct qcow2_error err = { 0 };
    struct qcow1_image image;
    struct qcow1_header h;

    (void)state;
    make_small(&image);
    for (image.nr_bytes = 8; image.nr_bytes < 48; image.nr_bytes++) {
        expect_case("%zu bytes", image.nr_bytes);
        EXPECT(read_header(&image, &h, &err) == -1
               && strstr(err.text, "ends inside the header"), "%s", err.text);
    }
    qcow1_image_free(&image);
}

static void
what_is_wrong_leaves_the_rest_to_be_shown(void **state)
{
    struct qcow1_image image;
    struct qcow2_error refusal, err;
    struct qcow1_header h;
    struct mem *m;
    struct io *io;

    (void)state;
    make_small(&image);
    qcow1_image_put(&image, QCOW1_AT_CRYPT_METHOD, 4, 1);
    m = mem_new(image.bytes, image.nr_bytes);
    io = io_mem_open(m, true);
    EXPECT_OK(qcow1_header_read_loosely(io, &h, &refusal, &err), &err);
    assert_int_equal(refusal.errnum, ENOTSUP);
    assert_int_equal(h.size, image.size);
    assert_int_equal(h.crypt_method, 1);
    assert_string_equal(h.backing_file, "below");
    qcow1_header_free(&h);
    io_close(io);
    mem_free(m);
    qcow1_image_free(&image);
}

static struct qcow2_disk *
try_open(struct mem *m, bool readonly, struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;

    options.readonly = readonly;
    options.backing_none = true;
    return disk_open_io(io_mem_open(m, readonly), "/nonexistent/image",
                        &options, err);
}

static void
is_another_format(int r, const struct qcow2_error *err)
{
    EXPECT(r == -1 && err->errnum == ENOTSUP && strstr(err->text, "it is qcow"),
           "%d, errno %d: %s", r, err->errnum, err->text);
}

static void
it_is_not_written(void **state)
{
    const struct qcow2_amend_options amend = { .version = 3 };
    const struct qcow2_snapshot_create_options create = { .date_sec = 1 };
    struct qcow1_image image;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct mem *m;

    (void)state;
    make_small(&image);
    m = mem_new(image.bytes, image.nr_bytes);
    EXPECT(!try_open(m, false, &err), "was opened for writing");
    assert_int_equal(err.errnum, EROFS);
    assert_int_equal(err.hints, QCOW2_HINT_READONLY | QCOW2_HINT_CONVERT);
    EXPECT(strstr(err.text, "qcow (version 1)"), "%s", err.text);
    disk = try_open(m, true, &err);
    EXPECT(disk, "%s", err.text);
    assert_true(qcow2_is_readonly(disk));
    assert_false(qcow2_can_fast_zero(disk));
    assert_int_equal(qcow2_get_cluster_size(disk), 512);
    assert_int_equal(qcow2_pwrite(disk, "x", 1, 0, 0, &err), -1);
    assert_int_equal(err.errnum, EROFS);
    is_another_format(qcow2_resize(disk, 4096, true, &err), &err);
    is_another_format(qcow2_amend(disk, &amend, &err), &err);
    is_another_format(qcow2_snapshot_create(disk, "s", &create, &err), &err);
    is_another_format(qcow2_snapshot_apply(disk, "s", &err), &err);
    is_another_format(qcow2_preallocate(disk, 512, 0, QCOW2_PREALLOC_FULL,
                                        &err), &err);
    EXPECT(!qcow2_open_snapshot(disk, "s", &err), "a snapshot");
    assert_int_equal(err.errnum, ENOENT);
    assert_int_equal(qcow2_get_nr_snapshots(disk), 0);
    qcow2_close(disk, NULL);
    mem_free(m);
    qcow1_image_free(&image);
}

/* Entries of the first L2 table; the first of the table of L1 at `l1`. */
static uint64_t
l2_of(const struct qcow1_image *image)
{
    return qcow1_image_get(image, qcow1_image_get(image, QCOW1_AT_L1, 8), 8);
}

/* An image whose first cluster has this entry, or table. */
static void
entry_is_refused(struct qcow1_image *image, uint64_t at, uint64_t value,
                 const char *text)
{
    uint64_t old = qcow1_image_get(image, at, 8);
    unsigned char buf[512];
    struct qcow2_error err;
    struct qcow2_disk *disk;
    struct mem *m;

    expect_case("entry 0x%llx", (unsigned long long)value);
    qcow1_image_put(image, at, 8, value);
    m = mem_new(image->bytes, image->nr_bytes);
    disk = try_open(m, true, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT(qcow2_pread(disk, buf, sizeof buf, 0, &err) == -1, "was read");
    EXPECT(err.errnum == EIO && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
    qcow2_close(disk, NULL);
    mem_free(m);
    qcow1_image_put(image, at, 8, old);
}

static void
damaged_entries_are_refused(void **state)
{
    const uint64_t compressed = UINT64_C(1) << 63;
    struct qcow1_image image;
    uint64_t l1, l2, end;

    (void)state;
    make_small(&image);
    l1 = qcow1_image_get(&image, QCOW1_AT_L1, 8);
    l2 = l2_of(&image);
    end = image.nr_bytes;
    entry_is_refused(&image, l1, 8, "L1 entry");
    entry_is_refused(&image, l1, l2 + 1, "L1 entry");
    entry_is_refused(&image, l1, round_down(end, 8), "L1 entry");
    entry_is_refused(&image, l1, round_down(end - 504, 8), "L1 entry");
    entry_is_refused(&image, l1, compressed | l2, "L1 entry");
    entry_is_refused(&image, l1, UINT64_MAX - 7, "L1 entry");
    entry_is_refused(&image, l2, 513, "L2 entry");
    entry_is_refused(&image, l2, round_up(end, 512), "L2 entry");
    entry_is_refused(&image, l2, UINT64_C(1) << 62, "L2 entry");
    entry_is_refused(&image, l2, compressed | 512, "L2 entry");
    entry_is_refused(&image, l2, compressed | UINT64_C(511) << 54 | (end - 510),
                     "L2 entry");
    entry_is_refused(&image, l2, UINT64_MAX, "L2 entry");
    entry_is_refused(&image, l2, compressed | UINT64_C(40) << 54 | l1,
                     "cannot be decompressed");
    qcow1_image_free(&image);
}

static void
the_file_may_end_inside_a_cluster(void **state)
{
    struct qcow1_image image;
    unsigned char buf[3072], want[2048] = { 0 };
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct mem *m;
    struct rng rng;

    (void)state;
    expect_case("end of file");
    image = (struct qcow1_image){
        .cluster_bits = 10, .l2_bits = 6, .size = sizeof buf,
    };
    rng_init(&rng, 1, 1);
    qcow1_image_make(&image, &rng);
    free(image.bytes);
    image.nr_bytes = 2048 + 700;
    image.bytes = calloc(1, image.nr_bytes);
    memcpy(image.bytes, "QFI\xfb\0\0\0\1", 8);
    qcow1_image_put(&image, QCOW1_AT_SIZE, 8, image.size);
    qcow1_image_put(&image, QCOW1_AT_CLUSTER_BITS, 2, 10 << 8 | 6);
    qcow1_image_put(&image, QCOW1_AT_L1, 8, 48);
    qcow1_image_put(&image, 48, 8, 512);
    qcow1_image_put(&image, 512, 8, 1024);
    qcow1_image_put(&image, 520, 8, 2048);
    qcow1_image_put(&image, 528, 8, 3072);
    pattern_fill(image.bytes + 1024, 1724, 5, 0);
    memcpy(want, image.bytes + 1024, 1724);
    m = mem_new(image.bytes, image.nr_bytes);
    disk = try_open(m, true, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_pread(disk, buf, sizeof want, 0, &err), &err);
    expect_same("what the file has, then zeroes", buf, want, sizeof want, 0);
    EXPECT(qcow2_pread(disk, buf, 1, 2048, &err) == -1
           && qcow2_pread(disk, buf, sizeof buf, 0, &err) == -1,
           "past it there is something");
    qcow2_close(disk, NULL);
    mem_free(m);
    qcow1_image_free(&image);
}

static int
count_extent(void *opaque, const struct qcow2_extent *e)
{
    unsigned *nr = opaque;

    (void)e;
    return ++*nr == 1000;
}

static void
read_some(struct mem *m, struct rng *rng)
{
    unsigned char buf[4096];
    struct qcow2_error err;
    struct qcow2_disk *disk = try_open(m, true, &err);
    unsigned nr = 0;
    uint64_t size;

    if (!disk)
        return;
    size = qcow2_get_size(disk);
    for (unsigned n = 0; n < 8; n++) {
        uint64_t off = rng_below(rng, n & 1 ? 100000 : size + 1);

        if (range_inside(off, sizeof buf, size))
            qcow2_pread(disk, buf, sizeof buf, off, NULL);
    }
    qcow2_map(disk, size, 0, count_extent, &nr, NULL);
    qcow2_close(disk, NULL);
}

/* Whatever is in a file: it is refused, or read as far as it can be. */
static void
smashed_images_do_no_harm(void **state)
{
    struct qcow1_image image;
    struct rng rng;

    (void)state;
    make_small(&image);
    rng_init(&rng, rng_seed(1), 0);
    for (unsigned i = 0; i < NR_SMASHED; i++) {
        unsigned char *bytes = malloc(image.nr_bytes);
        struct mem *m;

        expect_case("number %u", i);
        memcpy(bytes, image.bytes, image.nr_bytes);
        for (unsigned n = rng_below(&rng, 6); n <= 6; n++)
            bytes[8 + rng_below(&rng, n & 1 ? 60 : 1200)]
                = rng_next(&rng) >> rng_below(&rng, 8);
        m = mem_new(bytes, image.nr_bytes);
        free(bytes);
        read_some(m, &rng);
        mem_free(m);
    }
    qcow1_image_free(&image);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_fields_have_limits),
        cmocka_unit_test(backing_names_have_limits),
        cmocka_unit_test(a_header_that_is_cut_short_is_refused),
        cmocka_unit_test(what_is_wrong_leaves_the_rest_to_be_shown),
        cmocka_unit_test(it_is_not_written),
        cmocka_unit_test(damaged_entries_are_refused),
        cmocka_unit_test(the_file_may_end_inside_a_cluster),
        cmocka_unit_test(smashed_images_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
