/* SPDX-License-Identifier: BSD-3-Clause */
/* test-amend: an image amended to any version and refcount width holds what
 * it held, in all its snapshots, and qemu-img finds nothing wrong with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "disk/open.h"
#include "expect.h"
#include "format/header.h"
#include "oracle.h"
#include "qcow2.h"
#include "rig.h"
#include "rng.h"
#include "tmpdir.h"

enum { DISK_BYTES = 3 << 20 };

struct form {
    unsigned version, refcount_bits;
};
static const struct form forms[] = {
    { 3, 16 }, { 2, 16 }, { 3, 1 }, { 3, 4 }, { 3, 8 }, { 3, 64 },
};
enum { NR_FORMS = sizeof forms / sizeof forms[0] };

static struct qcow2_disk *
open_image(const char *path)
{
    struct qcow2_options o = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk = qcow2_open(path, &o, &err);

    EXPECT(disk, "%s", err.text);
    return disk;
}

/* Data, zeroes and holes; returns what the disk reads as. */
static unsigned char *
fill_disk(struct qcow2_disk *disk, uint64_t seed)
{
    unsigned char *content = calloc(1, DISK_BYTES);
    struct qcow2_error err;

    pattern_fill(content + 100000, 700000, seed, 0);
    EXPECT_OK(qcow2_pwrite(disk, content + 100000, 700000, 100000, 0, &err),
              &err);
    memset(content + 300000, 0, 200000);
    EXPECT_OK(qcow2_zero(disk, 200000, 300000, 0, &err), &err);
    memset(content + 600000, 0, 100000);
    EXPECT_OK(qcow2_zero(disk, 100000, 600000, QCOW2_MAY_TRIM, &err), &err);
    return content;
}

static void
expect_disk(struct qcow2_disk *disk, const void *content)
{
    void *buf = malloc(DISK_BYTES);
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(disk, buf, DISK_BYTES, 0, &err), &err);
    EXPECT(memcmp(buf, content, DISK_BYTES) == 0, "the content differs");
    free(buf);
}

static void
amend_and_check(const char *path, const struct form *to,
                const void *content)
{
    struct qcow2_amend_options o = {
        .version = to->version, .refcount_bits = to->refcount_bits,
    };
    struct qcow2_disk *disk = open_image(path);
    struct qcow2_error err;

    EXPECT_OK(qcow2_amend(disk, &o, &err), &err);
    EXPECT(disk_image(disk)->hdr.version == to->version, "version");
    EXPECT(1u << disk_image(disk)->hdr.refcount_order == to->refcount_bits,
           "refcount width");
    expect_disk(disk, content);
    /* It goes on being written with the new refcounts. */
    EXPECT_OK(qcow2_zero(disk, 65536, 100000, 0, &err), &err);
    EXPECT_OK(qcow2_pwrite(disk, (const char *)content + 100000, 65536,
                           100000, QCOW2_FUA, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    oracle_expect_clean(path);
    oracle_expect_content(path, content, DISK_BYTES);
}

static void
every_form_becomes_every_other(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_FORMS * NR_FORMS * 2; i++) {
        const struct form *from = &forms[i % NR_FORMS];
        const struct form *to = &forms[i / NR_FORMS % NR_FORMS];
        struct qcow2_create_options c = {
            .size = DISK_BYTES, .version = from->version,
            .refcount_bits = from->refcount_bits,
            .cluster_size = i < NR_FORMS * NR_FORMS ? 512 : 65536,
        };
        struct qcow2_error err;
        struct qcow2_disk *disk;
        unsigned char *content;

        expect_case("from v%u %u bits to v%u %u bits, clusters of %u",
                    from->version, from->refcount_bits, to->version,
                    to->refcount_bits, c.cluster_size);
        tmpdir_clear();
        EXPECT_OK(qcow2_create(tmpdir_path("i"), &c, &err), &err);
        disk = open_image(tmpdir_path("i"));
        content = fill_disk(disk, i + 1);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        amend_and_check(tmpdir_path("i"), to, content);
        free(content);
    }
}

/* Without a zero flag the backing file must be covered by data. */
static void
zeroes_over_a_backing_file_stay_zeroes_in_version_2(void **state)
{
    struct qcow2_create_options base = { .size = DISK_BYTES };
    struct qcow2_create_options overlay = {
        .size_from_backing = true, .backing = "base",
        .backing_format = QCOW2_FORMAT_QCOW2,
    };
    struct form v2 = { 2, 16 };
    unsigned char *content;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    EXPECT_OK(qcow2_create(tmpdir_path("base"), &base, &err), &err);
    disk = open_image(tmpdir_path("base"));
    content = fill_disk(disk, 5);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    EXPECT_OK(qcow2_create(tmpdir_path("i"), &overlay, &err), &err);
    disk = open_image(tmpdir_path("i"));
    EXPECT_OK(qcow2_zero(disk, 150000, 120000, 0, &err), &err);
    memset(content + 120000, 0, 150000);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    amend_and_check(tmpdir_path("i"), &v2, content);
    free(content);
}

static uint64_t
get_number(int fd, uint64_t host_off)
{
    be64 number;

    EXPECT(pread(fd, &number, 8, host_off) == 8, "cannot read");
    return be64_get(number);
}

/* A cluster behind the end of the disk becomes zero, as QEMU leaves those
 * that were a VM state's. */
static void
make_zero_past_end(const char *path, uint32_t l2_index)
{
    int fd = open(path, O_RDWR);
    uint64_t l1 = get_number(fd, HEADER_AT_L1 + 4);
    uint64_t l2 = get_number(fd, l1) & L1_OFFSET_MASK;
    be64 entry = be64_make(L2_ZERO);

    EXPECT(pwrite(fd, &entry, 8, l2 + l2_index * 8) == 8, "cannot write");
    close(fd);
}

static void
zeroes_past_the_end_do_not_stay_in_version_2(void **state)
{
    struct qcow2_create_options base = { .size = DISK_BYTES };
    struct qcow2_create_options c = { .size = DISK_BYTES };
    struct form v2 = { 2, 16 };
    struct qcow2_error err;

    (void)state;
    for (int with_base = 0; with_base <= 1; with_base++) {
        unsigned char *content;
        struct qcow2_disk *disk;

        tmpdir_clear();
        EXPECT_OK(qcow2_create(tmpdir_path("base"), &base, &err), &err);
        if (with_base) {
            c.backing = "base";
            c.backing_format = QCOW2_FORMAT_QCOW2;
        }
        EXPECT_OK(qcow2_create(tmpdir_path("i"), &c, &err), &err);
        disk = open_image(tmpdir_path("i"));
        content = fill_disk(disk, 6);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        make_zero_past_end(tmpdir_path("i"), DISK_BYTES / 65536 + 10);
        oracle_expect_clean(tmpdir_path("i"));
        amend_and_check(tmpdir_path("i"), &v2, content);
        /* Such an entry would be damage there, and growing would meet it. */
        disk = open_image(tmpdir_path("i"));
        EXPECT_OK(qcow2_resize(disk, 2 * DISK_BYTES, false, &err), &err);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        free(content);
    }
}

static void
snapshots_survive_wider_refcounts(void **state)
{
    struct qcow2_create_options c = { .size = DISK_BYTES,
                                      .refcount_bits = 2 };
    struct qcow2_snapshot_create_options so = { .date_sec = 1 };
    struct qcow2_amend_options narrow = { .refcount_bits = 1 };
    struct qcow2_disk *disk, *snapshot;
    unsigned char *content, *now;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    EXPECT_OK(qcow2_create(tmpdir_path("i"), &c, &err), &err);
    disk = open_image(tmpdir_path("i"));
    content = fill_disk(disk, 3);
    EXPECT_OK(qcow2_snapshot_create(disk, "s", &so, &err), &err);
    now = malloc(DISK_BYTES);
    memcpy(now, content, DISK_BYTES);
    pattern_fill(now + 150000, 50000, 4, 0);
    EXPECT_OK(qcow2_pwrite(disk, now + 150000, 50000, 150000, 0, &err), &err);
    EXPECT(qcow2_amend(disk, &narrow, &err) == -1, "2 does not fit 1 bit");
    expect_disk(disk, now);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    amend_and_check(tmpdir_path("i"), &forms[0], now);
    disk = open_image(tmpdir_path("i"));
    snapshot = qcow2_open_snapshot(disk, "s", &err);
    EXPECT(snapshot, "%s", err.text);
    expect_disk(snapshot, content);
    EXPECT_OK(qcow2_close(snapshot, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(content);
    free(now);
}

static void
refusals_change_nothing(void **state)
{
    static const struct qcow2_amend_options wrong[] = {
        { .version = 4 },
        { .refcount_bits = 3 },
        { .refcount_bits = 128 },
        { .version = 2, .refcount_bits = 8 },
        { .version = 2, .lazy_refcounts = QCOW2_AMEND_ON },
    };
    struct qcow2_create_options c = { .size = DISK_BYTES };
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    tmpdir_clear();
    EXPECT_OK(qcow2_create(tmpdir_path("i"), &c, &err), &err);
    disk = open_image(tmpdir_path("i"));
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        EXPECT(qcow2_amend(disk, &wrong[i], &err) == -1, "case %u", i);
        EXPECT(disk_image(disk)->hdr.version == 3, "case %u", i);
    }
    EXPECT_OK(qcow2_close(disk, &err), &err);
    oracle_expect_clean(tmpdir_path("i"));
}

/* A file of some KiB whose zero clusters, over a backing file, are 2 GiB. */
static void
more_zeroes_than_one_expects_are_not_written(void **state)
{
    static const struct qcow2_amend_options o = { .version = 2 };
    struct qcow2_error err;
    struct image *img;
    uint64_t before, after;
    struct rig r;

    (void)state;
    rig_init(&r, "backing base.raw raw; cluster 2M; size 2G; zero 0-1023",
             1 << 20);
    rig_open(&r);
    img = disk_image(r.play.disk);
    EXPECT_OK(io_get_size(img->io, &before, &err), &err);
    EXPECT(qcow2_amend(r.play.disk, &o, &err) == -1, "amended");
    EXPECT(err.errnum == EFBIG && err.hints & QCOW2_HINT_MUCH, "%s",
           err.text);
    EXPECT(img->hdr.version == 3, "version 2");
    EXPECT_OK(io_get_size(img->io, &after, &err), &err);
    EXPECT(before == after, "the file grew");
    rig_close(&r);
    rig_free(&r);
}

/* A file in which what is written as zeroes becomes a hole. */
static const struct io_ops *file_ops;

static int
write_sparsely(struct io *io, const struct iovec *iov, int nr_iov,
               uint64_t host_off, struct qcow2_error *err)
{
    uint64_t nr_bytes = 0;
    bool zero = true;

    for (int i = 0; i < nr_iov; i++) {
        const char *bytes = iov[i].iov_base;
        size_t n = iov[i].iov_len;

        nr_bytes += n;
        zero = zero && n > 0 && bytes[0] == 0
               && memcmp(bytes, bytes + 1, n - 1) == 0;
    }
    return zero ? file_ops->zero(io, host_off, nr_bytes, IO_ZERO_PUNCH, err)
                : file_ops->pwritev(io, iov, nr_iov, host_off, err);
}

static struct qcow2_disk *
open_sparsely(const char *path)
{
    struct qcow2_options o = QCOW2_OPTIONS_INIT;
    static struct io_ops ops;
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct io *io = io_file_open(path, -1, false, IO_LOCK_WRITE, &err);

    EXPECT(io, "%s", err.text);
    file_ops = io->ops;
    ops = *file_ops;
    ops.pwritev = write_sparsely;
    io->ops = &ops;
    disk = disk_open_io(io, path, &o, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
expect_zeroes(struct qcow2_disk *disk, uint64_t size)
{
    enum { PIECE = 2 << 20 };
    char *got = malloc(PIECE);
    struct qcow2_error err;

    EXPECT(got && qcow2_get_size(disk) == size, "size");
    for (uint64_t off = 0; off < size; off += PIECE) {
        EXPECT_OK(qcow2_pread(disk, got, PIECE, off, &err), &err);
        EXPECT(got[0] == 0 && memcmp(got, got + 1, PIECE - 1) == 0,
               "not zero in the piece at %llu", (unsigned long long)off);
    }
    free(got);
}

/* As much as the bound allows, and a cluster more. */
static void
the_bound_of_zeroes_is_passed_by_force_alone(void **state)
{
    enum { C = 2 << 20, MOST = QCOW2_AMEND_MAX_ZEROES / C };

    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        struct qcow2_amend_options o = { .version = 2 };
        uint64_t size = (uint64_t)(MOST + more) * C;
        struct qcow2_error err;
        struct qcow2_disk *disk;
        char recipe[100];

        tmpdir_clear();
        tmpdir_write_file(tmpdir_path("base.raw"), "base", 4);
        snprintf(recipe, sizeof recipe, "backing base.raw raw; cluster 2M;"
                 "size %llu; zero 0-%u", (unsigned long long)size,
                 MOST + more - 1);
        builder_make(tmpdir_path("i"), recipe);
        disk = open_sparsely(tmpdir_path("i"));
        if (more) {
            EXPECT(qcow2_amend(disk, &o, &err) == -1 && err.errnum == EFBIG,
                   "amended");
            EXPECT(disk_image(disk)->hdr.version == 3, "version 2");
        }
        o.may_write_much = more > 0;
        EXPECT_OK(qcow2_amend(disk, &o, &err), &err);
        EXPECT(disk_image(disk)->hdr.version == 2, "version 3");
        expect_zeroes(disk, size);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        oracle_expect_clean(tmpdir_path("i"));
    }
    tmpdir_clear();
}

/* New refcounts are written behind all that is in use; when that fails, what
 * is there is not taken for zeroes when the clusters are used again. */
static void
a_failure_leaves_nothing_behind_that_shows(void **state)
{
    const struct qcow2_amend_options o = { .refcount_bits = 64 };
    struct qcow2_error err;
    bool amended = false;

    (void)state;
    for (unsigned nth = 1; !amended; nth++) {
        struct rig r;

        expect_case("change %u fails", nth);
        rig_init(&r, "cluster 512; size 64K; data 0-20 1", 0);
        rig_open(&r);
        fault_arm(&r.plan, FAULT_CHANGE, nth, EIO, FAULT_ONCE);
        amended = qcow2_amend(r.play.disk, &o, &err) == 0;
        fault_arm(&r.plan, 0, 0, 0, 0);
        if (image_check_state(disk_image(r.play.disk), &err) == 0) {
            for (unsigned i = 0; i < 40; i++)
                rig_play(&r, OP_WRITE, (30 + i) * 512 + 100, 50, 0);
            rig_close(&r);
        } else {
            qcow2_close(r.play.disk, NULL);
            rig_end(&r);
        }
        rig_free(&r);
    }
}

/* A reader may find damage after the new header was prepared. */
static void
a_switch_keeps_the_image_marked_corrupt(void **state)
{
    struct builder *b = builder_new();
    struct header_sector sector;
    const unsigned char *bytes;
    const struct header_update lazy = {
        .parts = HEADER_SET_FORM, .version = 3, .refcount_order = 4,
        .compatible = COMPAT_LAZY_REFCOUNTS,
    };
    const struct header_update corrupt = {
        .parts = HEADER_SET_INCOMPATIBLE, .incompatible_set = INCOMPAT_CORRUPT,
    };
    struct qcow2_error err;
    struct header h;
    size_t nr_bytes;
    struct mem *m;
    struct io *io;

    (void)state;
    builder_add(b, "size 1M; data 0 1");
    bytes = builder_bytes(b, &nr_bytes);
    m = mem_new(bytes, nr_bytes);
    io = io_mem_open(m, false);
    EXPECT_OK(header_read(io, &h, &err), &err);
    EXPECT_OK(header_prepare(io, &h, &lazy, &sector, &err), &err);
    EXPECT_OK(header_write_fields(io, &h, &corrupt, &err), &err);
    EXPECT_OK(header_switch(io, &h, &lazy, &sector, &err), &err);
    header_free(&h);
    EXPECT_OK(header_read(io, &h, &err), &err);
    assert_int_equal(h.incompatible, INCOMPAT_CORRUPT);
    assert_int_equal(h.compatible, COMPAT_LAZY_REFCOUNTS);
    header_free(&h);
    io_close(io);
    mem_free(m);
    builder_free(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_becomes_every_other),
        cmocka_unit_test(zeroes_over_a_backing_file_stay_zeroes_in_version_2),
        cmocka_unit_test(zeroes_past_the_end_do_not_stay_in_version_2),
        cmocka_unit_test(snapshots_survive_wider_refcounts),
        cmocka_unit_test(refusals_change_nothing),
        cmocka_unit_test(more_zeroes_than_one_expects_are_not_written),
        cmocka_unit_test(the_bound_of_zeroes_is_passed_by_force_alone),
        cmocka_unit_test(a_failure_leaves_nothing_behind_that_shows),
        cmocka_unit_test(a_switch_keeps_the_image_marked_corrupt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
