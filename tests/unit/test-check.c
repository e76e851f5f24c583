/* SPDX-License-Identifier: BSD-3-Clause */
/* test-check: check and repair as a whole, and of images opened for
 * writing that were not closed. What is found, and how it is repaired, is
 * tried in tests/check.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "builder.h"
#include "check/check.h"
#include "disk/open.h"
#include "expect.h"
#include "figures.h"
#include "format/format.h"
#include "io-fault.h"
#include "io-mem.h"
#include "oracle.h"
#include "rng.h"
#include "tmpdir.h"

static struct builder *
builder_of(const char *recipe)
{
    struct builder *b = builder_new();

    builder_add(b, "%s", recipe);
    return b;
}

static struct mem *
mem_of(struct builder *b)
{
    size_t nr_bytes;
    const unsigned char *bytes = builder_bytes(b, &nr_bytes);

    return mem_new(bytes, nr_bytes);
}

static struct mem *
image_of(const char *recipe)
{
    struct builder *b = builder_of(recipe);
    struct mem *image = mem_of(b);

    builder_free(b);
    return image;
}

static int
check_mem(struct mem *image, enum qcow2_repair repair,
          struct qcow2_check_result *r, struct qcow2_error *err)
{
    const struct qcow2_check_options options = { .repair = repair };
    struct io *io = io_mem_open(image, repair == QCOW2_REPAIR_NONE);
    int result = check_io(io, &options, r, err);

    io_close(io);
    return result;
}

static void
expect_clean(struct mem *image)
{
    const char *path = tmpdir_path("clean.qcow2");
    struct qcow2_check_result r;
    struct qcow2_error err;

    EXPECT_OK(check_mem(image, QCOW2_REPAIR_NONE, &r, &err), &err);
    EXPECT(r.corruptions == 0 && r.leaks == 0, "%llu corruptions, %llu leaks",
           (unsigned long long)r.corruptions, (unsigned long long)r.leaks);
    mem_save(image, path);
    oracle_expect_clean(path);
}

/* --- Bounds ------------------------------------------------------------- */

/* Gives the image nr snapshots; the i-th has an L1 table of entries(i) at
 * l1_off. */
static void
add_snapshots(struct mem *image, uint32_t nr, uint64_t l1_off,
              uint32_t (*entries)(uint32_t i))
{
    enum { ENTRY_BYTES = 48 };
    unsigned char *table = calloc(nr, ENTRY_BYTES);
    struct io *io = io_mem_open(image, false);
    uint64_t size;
    struct {
        be32 nr;
        be64 offset;
    } field;

    assert_int_equal(io_get_size(io, &size, NULL), 0);
    size = (size + 4095) & ~UINT64_C(4095);
    for (uint32_t i = 0; i < nr; i++) {
        struct disk_snapshot d = {
            .l1_table_offset = be64_make(l1_off),
            .l1_size = be32_make(entries(i)),
            .id_size = be16_make(1), .name_size = be16_make(1),
        };

        memcpy(table + (size_t)i * ENTRY_BYTES, &d, sizeof d);
        memcpy(table + (size_t)i * ENTRY_BYTES + sizeof d, "11", 2);
    }
    field.nr = be32_make(nr);
    field.offset = be64_make(size);
    assert_int_equal(io_pwrite(io, table, (size_t)nr * ENTRY_BYTES, size,
                               NULL), 0);
    assert_int_equal(io_pwrite(io, &field, sizeof field, HEADER_AT_SNAPSHOTS,
                               NULL), 0);
    io_close(io);
    free(table);
}

static uint32_t
all_entries(uint32_t i)
{
    (void)i;
    return 512 * 64;
}

static uint32_t
different_entries(uint32_t i)
{
    return 512 * 64 - i % 16384;
}

/* 64 clusters of L1 table, every entry the same L2 table. */
static struct mem *
image_with_long_l1(uint64_t *l1_off)
{
    struct mem *image = image_of("version 2; cluster 4096; size 1M;"
                                 "data 0-9 1");
    struct io *io = io_mem_open(image, false);
    be64 *l1 = calloc(64, 4096);

    assert_int_equal(io_get_size(io, l1_off, NULL), 0);
    for (unsigned i = 0; i < 64 * 512; i++)
        l1[i] = be64_make(0x1000);
    assert_int_equal(io_pwrite(io, l1, 64 * 4096, *l1_off, NULL), 0);
    io_close(io);
    free(l1);
    return image;
}

static void
expect_few_reads(struct mem *image)
{
    const struct qcow2_check_options options = { 0 };
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct io *io = io_fault_new(io_mem_open(image, true), &plan);
    struct qcow2_check_result r;
    struct qcow2_error err;

    EXPECT_OK(check_io(io, &options, &r, &err), &err);
    EXPECT(fault_count(&plan, FAULT_READ) < 40000, "%llu reads",
           (unsigned long long)fault_count(&plan, FAULT_READ));
    assert_int_not_equal(r.corruptions, 0);
    io_close(io);
}

static void
test_tables_are_read_once_however_many_snapshots_share_them(void **state)
{
    uint64_t l1_off;
    struct mem *image = image_with_long_l1(&l1_off);

    (void)state;
    add_snapshots(image, 65536, l1_off, all_entries);
    expect_few_reads(image);
    mem_free(image);
}

static void
test_overlapping_tables_are_read_once(void **state)
{
    uint64_t l1_off;
    struct mem *image = image_with_long_l1(&l1_off);

    (void)state;
    add_snapshots(image, 65536, l1_off, different_entries);
    expect_few_reads(image);
    mem_free(image);
}

/* --- Images made by others ---------------------------------------------- */

static void
try_made(const char *command)
{
    const struct qcow2_check_options options = { 0 };
    const char *path = tmpdir_path("made.qcow2");
    struct qcow2_check_result r;
    struct qcow2_error err;

    expect_case("%s", command);
    EXPECT(oracle_run("cd '%s'; i=made.qcow2; rm -f $i; exec >/dev/null; %s",
                      tmpdir(), command) == 0, "it failed");
    EXPECT_OK(qcow2_check(path, &options, &r, &err), &err);
    EXPECT(r.corruptions == 0 && r.leaks == 0, "it is not clean");
    figures_expect_same(path, &r);
}

static void
test_figures_are_those_of_qemu_img(void **state)
{
    (void)state;
    oracle_or_skip();
    try_made("qemu-img create -f qcow2 $i 0");
    try_made("qemu-img create -f qcow2 $i 1T");
    try_made("qemu-img create -f qcow2 -o compat=0.10,cluster_size=512 "
             "$i 100M && qemu-io -c 'write 1M 3M' -c 'write 0 512' $i");
    try_made("qemu-img create -f qcow2 -o preallocation=metadata $i 3G");
    try_made("qemu-img create -f qcow2 -o preallocation=falloc,"
             "cluster_size=2M,refcount_bits=1 $i 10M");
    try_made("qemu-img create -f qcow2 -o refcount_bits=64,cluster_size=4k "
             "$i 40M && qemu-io -c 'write 0 3M' -c 'discard 1M 64k' "
             "-c 'write -z 2M 64k' -c 'write -c 8M 256k' $i");
    try_made("qemu-img create -f qcow2 $i 64M && qemu-io -c 'write 0 3M' $i "
             "&& qemu-img snapshot -c one $i && qemu-io -c 'write 1M 4M' $i "
             "&& qemu-img snapshot -c two $i && qemu-img resize $i 128M "
             "&& qemu-io -c 'write 100M 1M' $i");
    try_made("qemu-img create -f qcow2 $i 64M && qemu-img bitmap --add $i b "
             "&& qemu-io -c 'write 0 30M' $i");
}

/* --- Rebuilding refcounts ----------------------------------------------- */

static const char many_small_clusters[] =
    "cluster 512; refcount-bits 64; size 4M; data 0-7000 1";

static void
test_all_refcounts_can_be_written_anew(void **state)
{
    struct builder *b = builder_of(many_small_clusters);
    unsigned char *disk = calloc(1, builder_disk_size(b, -1));
    struct qcow2_check_result r;
    struct qcow2_error err;
    struct mem *image;

    (void)state;
    for (unsigned i = 0; i < 118; i++)
        builder_add(b, "poke reftable[%u] = 0\n", i);
    image = mem_of(b);
    EXPECT_OK(check_mem(image, QCOW2_REPAIR_ALL, &r, &err), &err);
    assert_true(r.corruptions == 0 && r.leaks == 0);
    assert_true(r.corruptions_fixed > 7000);
    expect_clean(image);
    builder_overlay(b, -1, disk, builder_disk_size(b, -1));
    mem_save(image, tmpdir_path("anew.qcow2"));
    oracle_expect_content(tmpdir_path("anew.qcow2"), disk,
                          builder_disk_size(b, -1));
    mem_free(image);
    builder_free(b);
    free(disk);
}

static uint64_t
number_at(struct io *io, uint64_t host_off)
{
    be64 n;

    assert_int_equal(io_pread(io, &n, sizeof n, host_off, NULL), 0);
    return be64_get(n);
}

static void
test_a_place_that_is_none_goes_but_what_is_zero_stays(void **state)
{
    struct mem *image = image_of("cluster 16K; extended-l2; size 64K;"
                                 "subclusters 0 zpu; zero-alloc 1;"
                                 "poke l2[0] + 512; poke l2[1] + 512");
    struct io *io = io_mem_open(image, true);
    struct qcow2_check_result r;
    struct qcow2_error err;
    uint64_t l2;

    (void)state;
    EXPECT_OK(check_mem(image, QCOW2_REPAIR_ALL, &r, &err), &err);
    assert_true(r.corruptions_fixed == 2 && r.leaks_fixed == 2);
    l2 = number_at(io, number_at(io, HEADER_AT_L1 + 4)) & L1_OFFSET_MASK;
    EXPECT(number_at(io, l2) == 0 && number_at(io, l2 + 16) == 0, "a place");
    EXPECT(number_at(io, l2 + 8) == UINT64_C(1) << 32
           && number_at(io, l2 + 24) == UINT64_C(0xffffffff) << 32, "bitmaps");
    io_close(io);
    expect_clean(image);
    mem_free(image);
}

/* An L1 table of 32 MiB that points to nothing, in a file of 1 PiB. */
static void
test_a_file_of_holes_is_no_work(void **state)
{
    struct mem *image = image_of("cluster 4096; size 1M; data 0-9 1");
    const struct qcow2_check_options options = { 0 };
    struct fault_plan plan = FAULT_PLAN_INIT;
    const char *path = tmpdir_path("holes.qcow2");
    struct disk_header h;
    struct qcow2_check_result r;
    struct qcow2_error err;
    struct io *io;

    (void)state;
    mem_save(image, path);
    io = io_file_open(path, -1, false, IO_LOCK_NONE, &err);
    EXPECT(io, "%s", err.text);
    assert_int_equal(io_pread(io, &h, sizeof h, 0, NULL), 0);
    h.l1_table_offset = be64_make(UINT64_C(1) << 40);
    h.l1_size = be32_make(1 << 22);
    assert_int_equal(io_pwrite(io, &h, sizeof h, 0, NULL), 0);
    assert_int_equal(io_truncate(io, UINT64_C(1) << 42, NULL), 0);

    io = io_fault_new(io, &plan);
    EXPECT_OK(check_io(io, &options, &r, &err), &err);
    EXPECT(fault_count(&plan, FAULT_READ) < 20, "%llu reads",
           (unsigned long long)fault_count(&plan, FAULT_READ));
    assert_int_equal(r.corruptions, 8192); /* the table is not counted */
    io_close(io);
    mem_free(image);
}

/* 512 of them: there is nothing in them that could be put right. */
static void
test_tables_in_holes_are_not_read_to_repair_entries(void **state)
{
    struct mem *image = image_of("cluster 4096; refcount-bits 1; size 1G;"
                                 "data 0-9 1; leak 1");
    const struct qcow2_check_options options = { .repair = QCOW2_REPAIR_ALL };
    struct fault_plan plan = FAULT_PLAN_INIT;
    const char *path = tmpdir_path("tables.qcow2");
    struct qcow2_check_result r;
    struct qcow2_error err;
    struct disk_header h;
    be64 l1[512];
    struct io *io;

    (void)state;
    mem_save(image, path);
    io = io_file_open(path, -1, false, IO_LOCK_NONE, &err);
    EXPECT(io, "%s", err.text);
    assert_int_equal(io_pread(io, &h, sizeof h, 0, NULL), 0);
    for (unsigned i = 0; i < 512; i++)
        l1[i] = be64_make(ENTRY_COPIED | (UINT64_C(64) << 20) | i << 12);
    assert_int_equal(io_pwrite(io, l1, sizeof l1,
                               be64_get(h.l1_table_offset), NULL), 0);
    assert_int_equal(io_truncate(io, 128 << 20, NULL), 0);
    io = io_fault_new(io, &plan);
    EXPECT_OK(check_io(io, &options, &r, &err), &err);
    EXPECT(fault_count(&plan, FAULT_READ) < 200, "%llu reads",
           (unsigned long long)fault_count(&plan, FAULT_READ));
    io_close(io);
    mem_free(image);
}

static void
test_refcounts_of_too_large_a_file_are_refused(void **state)
{
    struct mem *image = image_of("cluster 512; refcount-bits 64; size 1M;"
                                 "data 0-9 1; poke reftable[0] = 0");
    const struct qcow2_check_options options = { .repair = QCOW2_REPAIR_ALL };
    const char *path = tmpdir_path("large.qcow2");
    struct qcow2_check_result r;
    struct qcow2_error err;
    struct io *io;

    (void)state;
    mem_save(image, path);
    io = io_file_open(path, -1, false, IO_LOCK_NONE, &err);
    EXPECT(io, "%s", err.text);
    assert_int_equal(io_truncate(io, UINT64_C(1) << 40, NULL), 0);
    assert_int_equal(check_io(io, &options, &r, &err), -1);
    assert_int_equal(err.errnum, EFBIG);
    io_close(io);
    mem_free(image);
}

/* What the file lost must stay lost, not become part of the new refcounts. */
static void
test_refcounts_are_not_put_where_lost_data_was(void **state)
{
    struct mem *image = image_of("cluster 512; refcount-bits 64; size 1M;"
                                 "data 0-9 1; poke reftable[0] = 0;"
                                 "poke l2[3] = @end;"
                                 "poke l2[3] | 0x8000000000000000");
    struct qcow2_check_result r;
    struct qcow2_error err;

    (void)state;
    assert_int_equal(check_mem(image, QCOW2_REPAIR_ALL, &r, &err), -1);
    assert_int_equal(err.errnum, EIO);
    assert_non_null(strstr(err.text, "cut short"));
    EXPECT_OK(check_mem(image, QCOW2_REPAIR_NONE, &r, &err), &err);
    assert_true(r.corruptions > 0);
    mem_free(image);
}

/* An image of 2 MiB clusters and refcounts of 1 bit, not closed, whose table
 * of 8 MiB has a refcount block for clusters from 2^43 on: as offsets they
 * would begin at 0 again. */
static struct mem *
image_with_wrapping_refcounts(void)
{
    struct mem *image = image_of("cluster 2M; refcount-bits 1; size 8M;"
                                 "incompatible 0; data 0-2 1; leak 1");
    struct io *io = io_mem_open(image, false);
    struct {
        be64 offset;
        be32 clusters;
    } field;
    unsigned char ones[4096];
    struct disk_header h;
    uint64_t end;
    be64 entry;

    assert_int_equal(io_get_size(io, &end, NULL), 0);
    assert_int_equal(io_pread(io, &h, sizeof h, 0, NULL), 0);
    assert_int_equal(io_pread(io, &entry, sizeof entry,
                              be64_get(h.refcount_table_offset), NULL), 0);
    assert_int_equal(io_pwrite(io, &entry, sizeof entry, end, NULL), 0);
    entry = be64_make(end - (2 << 20)); /* what leaked */
    memset(ones, 0xff, sizeof ones);
    assert_int_equal(io_pwrite(io, ones, sizeof ones, end - (2 << 20), NULL),
                     0);
    assert_int_equal(io_pwrite(io, &entry, sizeof entry, end + (8 << 19),
                               NULL), 0);
    assert_int_equal(io_truncate(io, end + (8 << 20), NULL), 0);
    field.offset = be64_make(end);
    field.clusters = be32_make(4);
    assert_int_equal(io_pwrite(io, &field, sizeof field,
                               HEADER_AT_REFCOUNT_TABLE, NULL), 0);
    io_close(io);
    return image;
}

static void
test_refcounts_of_clusters_that_no_file_has_harm_none(void **state)
{
    struct mem *image = image_with_wrapping_refcounts();
    struct mem *before = mem_copy(image);
    const struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_check_result r;
    struct qcow2_error err;
    uint64_t nr_bytes;

    (void)state;
    mem_bytes(before, &nr_bytes);
    EXPECT(!disk_open_io(io_mem_open(image, false), "image", &options, &err),
           "opened unasked");
    EXPECT(memcmp(mem_bytes(image, &nr_bytes), mem_bytes(before, &nr_bytes),
                  nr_bytes) == 0, "it was written");
    EXPECT_OK(check_mem(image, QCOW2_REPAIR_ALL, &r, &err), &err);
    /* The header's feature bits and its refcount table change. */
    EXPECT(memcmp(mem_bytes(image, &nr_bytes) + 4096,
                  mem_bytes(before, &nr_bytes) + 4096,
                  nr_bytes - 4096 - (12 << 20)) == 0, "data were changed");
    expect_clean(image);
    mem_free(before);
    mem_free(image);
}

/* An image on a device with room for so many clusters of 4096 behind it. Its
 * last cluster is the refcount block, which nothing points to any more. */
static struct mem *
device_of(const char *recipe, uint64_t room)
{
    struct builder *b = builder_of(recipe);
    size_t nr_bytes;
    const unsigned char *bytes = builder_bytes(b, &nr_bytes);
    struct mem *device = mem_new_device(nr_bytes + room * 4096);
    struct io *io = io_mem_open(device, false);

    assert_int_equal(io_pwrite(io, bytes, nr_bytes, 0, NULL), 0);
    io_close(io);
    builder_free(b);
    return device;
}

static void
test_refcounts_are_rebuilt_in_free_clusters_of_a_device(void **state)
{
    struct mem *device = device_of("cluster 4096; size 1M; data 0-9 1;"
                                   "poke reftable[0] = 0", 1);
    struct qcow2_check_result r;
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(check_mem(device, QCOW2_REPAIR_ALL, &r, &err), &err);
    expect_clean(device);
    mem_free(device);
}

static void
test_a_full_device_has_no_room_for_new_refcounts(void **state)
{
    struct mem *device = device_of("cluster 4096; size 1M; data 0-9 1;"
                                   "poke reftable[0] = 0", 0);
    struct qcow2_check_result r;
    struct qcow2_error err;

    (void)state;
    assert_int_equal(check_mem(device, QCOW2_REPAIR_ALL, &r, &err), -1);
    assert_int_equal(err.errnum, ENOSPC);
    mem_free(device);
}

/* --- Ending early, and errors ------------------------------------------- */

static int
cancel(void *opaque, uint64_t done, uint64_t total)
{
    assert_true(done <= total);
    return ++*(int *)opaque == 2;
}

static int
refuse_second(void *opaque, const struct qcow2_repair_write *w)
{
    (void)w;
    return ++*(int *)opaque == 2;
}

static void
test_a_check_can_be_cancelled(void **state)
{
    struct mem *image = image_of("cluster 512; size 4M; data 0-500 1");
    struct io *io = io_mem_open(image, true);
    int calls = 0;
    const struct qcow2_check_options options = {
        .progress = cancel, .opaque = &calls,
    };
    struct qcow2_check_result r;
    struct qcow2_error err;

    (void)state;
    assert_int_equal(check_io(io, &options, &r, &err), -1);
    assert_int_equal(err.errnum, ECANCELED);
    assert_int_equal(calls, 2);
    io_close(io);
    mem_free(image);
}

static void
test_a_repair_ends_where_its_writes_are_refused(void **state)
{
    struct mem *image = image_of("cluster 4096; size 4M; data 0-900 1;"
                                 "poke refcount[@data[1]/C] = 0;"
                                 "poke refcount[@data[400]/C] = 0;"
                                 "poke refcount[@data[800]/C] = 0");
    struct io *io = io_mem_open(image, false);
    int calls = 0;
    const struct qcow2_check_options options = {
        .repair = QCOW2_REPAIR_ALL, .write = refuse_second, .opaque = &calls,
    };
    struct qcow2_check_result r;
    struct qcow2_error err;

    (void)state;
    assert_int_equal(check_io(io, &options, &r, &err), -1);
    assert_int_equal(err.errnum, ECANCELED);
    io_close(io);
    EXPECT_OK(check_mem(image, QCOW2_REPAIR_NONE, &r, &err), &err);
    assert_int_equal(r.corruptions, 4); /* two refcounts, and their COPIED */
    mem_free(image);
}

static void
test_failed_reads_are_errors_not_damage(void **state)
{
    struct mem *image = image_of("cluster 4096; size 1M; data 0-9 1;"
                                 "snapshot 1 one; compressed 0-9 2");
    uint64_t nth = 0;
    int r;

    (void)state;
    do {
        const struct qcow2_check_options options = { 0 };
        struct fault_plan plan = FAULT_PLAN_INIT;
        struct io *io = io_fault_new(io_mem_open(image, true), &plan);
        struct qcow2_check_result result;
        struct qcow2_error err;

        fault_arm(&plan, FAULT_READ, ++nth, EIO, FAULT_ONCE);
        r = check_io(io, &options, &result, &err);
        EXPECT(r == -1 ? err.errnum == EIO : fault_fired(&plan) == 0,
               "read %llu", (unsigned long long)nth);
        io_close(io);
    } while (r == -1);
    assert_true(nth > 8);
    mem_free(image);
}

static void
test_a_file_is_checked_by_its_name(void **state)
{
    const struct qcow2_check_options look = { 0 };
    const struct qcow2_check_options mend = { .repair = QCOW2_REPAIR_LEAKS };
    const char *path = tmpdir_path("leak.qcow2");
    struct qcow2_check_result r;
    struct qcow2_error err;

    (void)state;
    assert_int_equal(qcow2_check(tmpdir_path("none"), &look, &r, &err), -1);
    assert_int_equal(err.errnum, ENOENT);
    tmpdir_write_file(tmpdir_path("text"), "text", 4);
    assert_int_equal(qcow2_check(tmpdir_path("text"), &look, &r, &err), -1);
    assert_int_equal(err.errnum, EINVAL);

    builder_make(path, "cluster 4096; size 1M; data 0-9 1; leak 3");
    EXPECT_OK(qcow2_check(path, &look, &r, &err), &err);
    assert_int_equal(r.leaks, 3);
    EXPECT_OK(qcow2_check(path, &mend, &r, &err), &err);
    assert_true(r.leaks == 0 && r.leaks_fixed == 3);
    oracle_expect_clean(path);
}

static void
test_a_file_that_was_found_is_checked_whatever_its_name_is_now(void **state)
{
    struct qcow2_check_options mend = { .repair = QCOW2_REPAIR_LEAKS };
    const char *path = tmpdir_path("found.qcow2");
    struct qcow2_file *file;
    struct qcow2_check_result r;
    struct qcow2_error err;

    (void)state;
    builder_make(path, "cluster 4096; size 1M; data 0-9 1; leak 3");
    mend.file = file = qcow2_find_file(path, &err);
    assert_int_equal(rename(path, tmpdir_path("moved.qcow2")), 0);
    builder_make(path, "cluster 4096; size 1M; data 0-9 1; leak 5");
    EXPECT_OK(qcow2_check(path, &mend, &r, &err), &err);
    assert_true(r.leaks == 0 && r.leaks_fixed == 3);
    oracle_expect_clean(tmpdir_path("moved.qcow2"));
    qcow2_file_free(file);
}

/* --- Images that were not closed ---------------------------------------- */

static struct qcow2_disk *
open_mem(struct mem *image, struct qcow2_error *err)
{
    const struct qcow2_options options = QCOW2_OPTIONS_INIT;

    return disk_open_io(io_mem_open(image, false), "image", &options, err);
}

static void
expect_content(struct qcow2_disk *disk, const unsigned char *model,
               uint64_t nr_bytes)
{
    unsigned char *buf = malloc(nr_bytes);
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(disk, buf, nr_bytes, 0, &err), &err);
    expect_same("disk", buf, model, nr_bytes, 0);
    free(buf);
}

/* Opens the image, which is repaired, writes all of it twice, and expects
 * the snapshot, if there is one, not to change. */
static void
use_after_repair(const char *recipe)
{
    struct builder *b = builder_of(recipe);
    struct mem *image = mem_of(b);
    uint64_t nr_bytes = builder_disk_size(b, -1);
    unsigned char *model = calloc(1, nr_bytes);
    unsigned char *old = calloc(1, nr_bytes);
    struct qcow2_disk *disk, *snapshot;
    struct qcow2_error err;

    expect_case("%s", recipe);
    builder_overlay(b, -1, model, nr_bytes);
    disk = open_mem(image, &err);
    EXPECT(disk, "%s", err.text);
    expect_content(disk, model, nr_bytes);
    for (uint64_t round = 0; round < 2; round++) {
        pattern_fill(model, nr_bytes, 77 + round, 0);
        EXPECT_OK(qcow2_pwrite(disk, model, nr_bytes, 0, 0, &err), &err);
        EXPECT_OK(qcow2_flush(disk, &err), &err);
    }
    expect_content(disk, model, nr_bytes);
    if (strstr(recipe, "snapshot")) {
        builder_overlay(b, 0, old, nr_bytes);
        snapshot = qcow2_open_snapshot(disk, "1", &err);
        EXPECT(snapshot, "%s", err.text);
        expect_content(snapshot, old, nr_bytes);
        EXPECT_OK(qcow2_close(snapshot, &err), &err);
    }
    EXPECT_OK(qcow2_close(disk, &err), &err);
    expect_clean(image);
    mem_free(image);
    builder_free(b);
    free(old);
    free(model);
}

static void
test_a_repaired_image_can_be_written_at_once(void **state)
{
    (void)state;
    use_after_repair("cluster 4096; incompatible 0; size 256K; data 0-20 1;"
                     "leak 3; poke refcount[@data[3]/C] = 0;"
                     "poke refcount[@l2[0]/C] = 0;"
                     "poke refcount[@l1/C] = 0;"
                     "poke refcount[@refblock[0]/C] = 0");
}

static void
test_writes_after_repair_leave_snapshots_alone(void **state)
{
    (void)state;
    use_after_repair("cluster 4096; incompatible 0; size 256K; data 0-20 1;"
                     "compressed 21-30 2; snapshot 1 one; data 3-6 3;"
                     "poke refcount[@data[9]/C] = 1;"
                     "poke l2[9] | 0x8000000000000000;"
                     "poke refcount[@data[22]/C] = 1;"
                     "poke l2[11] | 0x8000000000000000");
    use_after_repair("cluster 4096; incompatible 0; size 256K; data 0-20 1;"
                     "snapshot 1 one; poke refcount[@l2[0]/C] = 1;"
                     "poke l1[0] | 0x8000000000000000");
}

static void
test_writes_after_rebuilding_refcounts_use_the_new_ones(void **state)
{
    (void)state;
    use_after_repair("cluster 512; refcount-bits 64; incompatible 0;"
                     "size 256K; data 0-300 1; poke reftable[3] = 0");
    use_after_repair("cluster 4096; incompatible 0; size 256K; data 0-20 1;"
                     "snapshot 1 one; data 5-9 2; poke reftable[0] = 0");
}

static void
test_damage_beyond_refcounts_refuses_a_writable_open(void **state)
{
    struct mem *image = image_of("cluster 4096; incompatible 0; size 1M;"
                                 "data 0-9 1; leak 2;"
                                 "poke l2[3] = 0x8000000010000000");
    struct mem *before = mem_copy(image);
    const unsigned char *bytes, *bytes_before;
    uint64_t nr_bytes, nr_before;
    struct qcow2_error err;

    (void)state;
    assert_null(open_mem(image, &err));
    assert_int_equal(err.errnum, EIO);
    assert_non_null(strstr(err.text, "past the end of the file"));
    bytes = mem_bytes(image, &nr_bytes);
    bytes_before = mem_bytes(before, &nr_before);
    assert_int_equal(nr_bytes, nr_before);
    assert_memory_equal(bytes, bytes_before, nr_bytes);
    mem_free(before);
    mem_free(image);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_tables_are_read_once_however_many_snapshots_share_them),
        cmocka_unit_test(test_overlapping_tables_are_read_once),
        cmocka_unit_test(test_figures_are_those_of_qemu_img),
        cmocka_unit_test(test_all_refcounts_can_be_written_anew),
        cmocka_unit_test(
            test_a_place_that_is_none_goes_but_what_is_zero_stays),
        cmocka_unit_test(test_a_file_of_holes_is_no_work),
        cmocka_unit_test(test_tables_in_holes_are_not_read_to_repair_entries),
        cmocka_unit_test(test_refcounts_of_too_large_a_file_are_refused),
        cmocka_unit_test(test_refcounts_are_not_put_where_lost_data_was),
        cmocka_unit_test(
            test_refcounts_of_clusters_that_no_file_has_harm_none),
        cmocka_unit_test(
            test_refcounts_are_rebuilt_in_free_clusters_of_a_device),
        cmocka_unit_test(test_a_full_device_has_no_room_for_new_refcounts),
        cmocka_unit_test(test_a_check_can_be_cancelled),
        cmocka_unit_test(test_a_repair_ends_where_its_writes_are_refused),
        cmocka_unit_test(test_failed_reads_are_errors_not_damage),
        cmocka_unit_test(test_a_file_is_checked_by_its_name),
        cmocka_unit_test(
            test_a_file_that_was_found_is_checked_whatever_its_name_is_now),
        cmocka_unit_test(test_a_repaired_image_can_be_written_at_once),
        cmocka_unit_test(test_writes_after_repair_leave_snapshots_alone),
        cmocka_unit_test(
            test_writes_after_rebuilding_refcounts_use_the_new_ones),
        cmocka_unit_test(
            test_damage_beyond_refcounts_refuses_a_writable_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
