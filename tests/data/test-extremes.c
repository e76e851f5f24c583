/* SPDX-License-Identifier: BSD-3-Clause */
/* test-extremes: every field and the first entries of every table say, one
 * after the other, the most extreme they can: such an image is refused and
 * left as it is, or served. Then no request or operation damages what was
 * whole, and the file grows by no more than a refcount block describes. And
 * compressed data in places where only a lookup that is exact finds them.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "audit.h"
#include "base/bytes.h"
#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "layers.h"
#include "oracle.h"
#include "tmpdir.h"

enum { C = 4096 };

#define IMAGE                                                           \
    "cluster 4096; size 256K; data 0-3 1; compressed 4-6 2; zero 7;"    \
    "zero-alloc 8; data 30-31 3; snapshot 1 first; data 0-1 4;"         \
    "data 40 5; gap 2;"

static const char *const values_64[] = {
    "0", "1", "2", "0x200", "0x800", "@cluster", "@cluster + 1", "@l1",
    "@l2[0]", "@l2[0] + 0x8000000000000000", "@refblock[0]", "@reftable",
    "@reftable + 0x8000000000000000", "@snapshots", "@end", "@end - @cluster",
    "@end - @cluster + 0x8000000000000000", "@data[2] + 0x8000000000000000",
    "@data[2]", "@data[2] + 1", "0x4000000000000000",
    "0x4000000000000000 + @data[2]", "0x7fffffffffffffff", "1T + 1T",
    "0x8000000000000000", "0x00fffffffffff000", "0x80fffffffffff000",
    "0xffffffffffffffff", "0xfffffffffffff000",
};
static const char *const values_32[] = {
    "0", "1", "2", "8", "0x100", "0x1000", "0x10000", "0x7fffffff",
    "0x80000000", "0xfffffff8", "0xffffffff",
};

enum { NR_64 = sizeof values_64 / sizeof values_64[0],
       NR_32 = sizeof values_32 / sizeof values_32[0] };

static const struct qcow2_snapshot_create_options plain = { 0 };

static uint64_t
size_of(struct mem *image)
{
    uint64_t nr_bytes;

    mem_bytes(image, &nr_bytes);
    return nr_bytes;
}

/* What fails, fails; it matters what it leaves. */
static void
use(struct qcow2_disk *disk)
{
    static unsigned char buf[8 * C];

    for (unsigned i = 0; i < 8; i++)
        qcow2_pread(disk, buf, sizeof buf, i * sizeof buf, NULL);
    memset(buf, 0x5a, sizeof buf);
    qcow2_pwrite(disk, buf, 3 * C, C / 2, 0, NULL);
    qcow2_pwrite(disk, buf, C, 5 * C, QCOW2_FUA, NULL);
    qcow2_zero(disk, 2 * C, 7 * C, QCOW2_MAY_TRIM, NULL);
    qcow2_snapshot_create(disk, "second", &plain, NULL);
    qcow2_pwrite(disk, buf, 2 * C, 30 * C, 0, NULL);
    qcow2_trim(disk, 2 * C, 0, 0, NULL);
    qcow2_flush(disk, NULL);
    qcow2_pwrite(disk, buf, 8 * C, 16 * C, 0, NULL);
    qcow2_resize(disk, 512 << 10, false, NULL);
    qcow2_snapshot_apply(disk, "first", NULL);
    qcow2_snapshot_delete(disk, "second", NULL);
    qcow2_pwrite(disk, buf, C, 0, 0, NULL);
    qcow2_snapshot_delete(disk, "first", NULL);
    qcow2_resize(disk, 128 << 10, true, NULL);
    qcow2_pwrite(disk, buf, 2 * C, 4 * C, 0, NULL);
}

static struct audit
audit_of(struct mem *image)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(image, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    return a;
}

/* One image; says whether it was served. */
static bool
try_image(const char *place, const char *value)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct builder *b = builder_new();
    struct qcow2_disk *disk;
    struct qcow2_error err = { 0 };
    struct mem *image, *before;
    const unsigned char *bytes;
    struct audit was, is;
    size_t nr_bytes;

    expect_case("%s = %s", place, value);
    builder_add(b, IMAGE "poke %s = %s", place, value);
    bytes = builder_bytes(b, &nr_bytes);
    image = mem_new(bytes, nr_bytes);
    before = mem_copy(image);
    was = audit_of(image);
    options.backing_none = true;
    disk = disk_open_io(io_mem_open(image, false), "extreme", &options,
                        &err);
    if (disk) {
        use(disk);
        qcow2_close(disk, NULL);
        is = audit_of(image);
        /* On what is damaged already nobody can build. */
        EXPECT(was.nr_corruptions > 0 || is.nr_corruptions == 0,
               "%u corruptions: %s", is.nr_corruptions, is.first);
        EXPECT(size_of(image) <= nr_bytes + 2 * C / 2 * C, "the file grew to "
               "%" PRIu64, size_of(image));
    } else {
        EXPECT(err.text[0], "refused without a word");
        EXPECT(size_of(image) == nr_bytes, "refused, but resized");
        expect_same("refused image", mem_bytes(image, &(uint64_t){ 0 }),
                    mem_bytes(before, &(uint64_t){ 0 }), nr_bytes, 0);
    }
    mem_free(before);
    mem_free(image);
    builder_free(b);
    return disk != NULL;
}

static void
try_all(const char *format, unsigned first, unsigned end, unsigned step,
        const char *const *values, unsigned nr_values)
{
    unsigned nr = 0, nr_served = 0;

    for (unsigned i = first; i < end; i += step)
        for (unsigned v = 0; v < nr_values; v++) {
            char place[64];

            snprintf(place, sizeof place, "%.20s%u]%s", format, i,
                     strchr(format, ']') ? strchr(format, ']') + 1 : "");
            nr_served += try_image(place, values[v]);
            nr++;
        }
    print_message("%s %u-%u]: %u images, %u of them served\n", format, first,
                  end - 1, nr, nr_served);
}

static void
any_header_field_may_say_anything(void **state)
{
    (void)state;
    try_all("u32[", 4, 112, 4, values_32, NR_32);
    try_all("u64[", 8, 112, 8, values_64, NR_64);
}

static void
any_l1_entry_may_say_anything(void **state)
{
    (void)state;
    try_all("l1[", 0, 1, 1, values_64, NR_64);
}

static void
any_l2_entry_may_say_anything(void **state)
{
    (void)state;
    try_all("l2[", 0, 9, 1, values_64, NR_64);
    try_all("l2[", 30, 31, 1, values_64, NR_64);
}

static void
any_refcount_table_entry_may_say_anything(void **state)
{
    (void)state;
    try_all("reftable[", 0, 2, 1, values_64, NR_64);
}

static void
any_refcount_may_say_anything(void **state)
{
    static const char *const values[] = { "0", "1", "2", "0x7fff", "0xffff" };

    (void)state;
    try_all("refcount[", 0, 26, 1, values, 5);
}

static void
any_field_of_a_snapshot_may_say_anything(void **state)
{
    static const char *const fields[] = {
        "l1_table_offset", "l1_size", "id_size", "name_size",
        "vm_state_size", "extra_data_size",
    };
    unsigned nr = 0, nr_served = 0;

    (void)state;
    for (size_t f = 0; f < sizeof fields / sizeof fields[0]; f++)
        for (unsigned v = 0; v < (f == 0 ? NR_64 : NR_32); v++) {
            char place[64];

            snprintf(place, sizeof place, "snapshot[0].%s", fields[f]);
            nr_served += try_image(place, f == 0 ? values_64[v]
                                                 : values_32[v]);
            nr++;
        }
    print_message("snapshot[0]: %u images, %u of them served\n", nr,
                  nr_served);
}

/* --- Places of compressed data ------------------------------------------ */

static uint64_t
be64_at(const unsigned char *bytes, uint64_t off)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | bytes[off + i];
    return v;
}

/* Where the L2 entry of a cluster of the first table is in the file. */
static uint64_t
place_of_entry(const unsigned char *bytes, unsigned cluster)
{
    uint64_t l1 = be64_at(bytes, 40);

    return (be64_at(bytes, l1) & UINT64_C(0x00fffffffffffe00)) + cluster * 8;
}

static void
expect_reads_as(struct io *io, const unsigned char *want, size_t nr_bytes)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    unsigned char *got;

    options.readonly = true;
    disk = disk_open_io(io, "compressed", &options, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT(qcow2_get_size(disk) == nr_bytes, "size");
    got = layers_read(disk);
    expect_same("disk", got, want, nr_bytes, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(got);
}

/* Bit 0 of a compressed cluster's entry is part of its place. */
static void
compressed_data_at_odd_bytes_are_not_zero_clusters(void **state)
{
    struct builder *b = builder_new();
    unsigned char *want = calloc(16, C);
    const unsigned char *bytes;
    unsigned nr_odd = 0;
    struct mem *image;
    size_t nr_bytes;

    (void)state;
    expect_case("odd bytes");
    builder_add(b, "cluster 4096; size 64K; compressed 0-15 1");
    bytes = builder_bytes(b, &nr_bytes);
    for (unsigned i = 0; i < 16; i++)
        nr_odd += be64_at(bytes, place_of_entry(bytes, i)) & 1;
    EXPECT(nr_odd > 0 && nr_odd < 16, "%u odd places", nr_odd);
    builder_overlay(b, -1, want, 16 * C);
    image = mem_new(bytes, nr_bytes);
    expect_reads_as(io_mem_open(image, true), want, 16 * C);
    mem_free(image);
    free(want);
    builder_free(b);
}

/* Lengths are in whole sectors, the file may end with the data. */
static void
the_last_sector_of_compressed_data_may_lie_past_the_end(void **state)
{
    struct builder *b = builder_new();
    unsigned char *want = calloc(4, C);
    const char *path = tmpdir_path("end.qcow2");
    const unsigned char *bytes;
    struct mem *image;
    size_t nr_bytes;

    (void)state;
    expect_case("past the end");
    builder_add(b, "cluster 4096; size 16K; compressed 0-3 1");
    bytes = builder_bytes(b, &nr_bytes);
    builder_overlay(b, -1, want, 4 * C);
    while (bytes[nr_bytes - 1] == 0)
        nr_bytes--;
    EXPECT(nr_bytes % 512 != 0, "it ends with a sector");
    image = mem_new(bytes, nr_bytes);
    expect_reads_as(io_mem_open(image, true), want, 4 * C);
    mem_save(image, path);
    oracle_expect_clean(path);
    mem_free(image);
    free(want);
    builder_free(b);
}

static void
compressed_data_may_lie_beyond_4_gib(void **state)
{
    static const uint64_t far_away[] = {
        UINT64_C(1) << 32, (UINT64_C(5) << 30) - 4096, UINT64_C(1) << 40,
    };

    (void)state;
    for (unsigned i = 0; i < sizeof far_away / sizeof far_away[0]; i++) {
        struct builder *b = builder_new();
        unsigned char *want = calloc(1, 65536);
        const char *path = tmpdir_path("far.qcow2");
        const unsigned char *bytes;
        struct qcow2_error err;
        uint64_t at, entry, old;
        struct io *io;
        size_t nr_bytes;
        be64 now;

        expect_case("at %" PRIu64, far_away[i]);
        builder_add(b, "size 64K; compressed 0 1");
        bytes = builder_bytes(b, &nr_bytes);
        builder_overlay(b, -1, want, 65536);
        builder_write(b, path);
        at = place_of_entry(bytes, 0);
        entry = be64_at(bytes, at);
        old = entry & ((UINT64_C(1) << 54) - 1);
        now = be64_make(entry - old + far_away[i] + old % 512);
        io = io_file_open(path, -1, false, IO_LOCK_NONE, &err);
        EXPECT(io, "%s", err.text);
        EXPECT_OK(io_pwrite(io, &now, 8, at, &err), &err);
        EXPECT_OK(io_pwrite(io, bytes + old, nr_bytes - old,
                            far_away[i] + old % 512, &err), &err);
        expect_reads_as(io, want, 65536);
        tmpdir_clear();
        free(want);
        builder_free(b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_header_field_may_say_anything),
        cmocka_unit_test(any_l1_entry_may_say_anything),
        cmocka_unit_test(any_l2_entry_may_say_anything),
        cmocka_unit_test(any_refcount_table_entry_may_say_anything),
        cmocka_unit_test(any_refcount_may_say_anything),
        cmocka_unit_test(any_field_of_a_snapshot_may_say_anything),
        cmocka_unit_test(compressed_data_at_odd_bytes_are_not_zero_clusters),
        cmocka_unit_test(
            the_last_sector_of_compressed_data_may_lie_past_the_end),
        cmocka_unit_test(compressed_data_may_lie_beyond_4_gib),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
