/* SPDX-License-Identifier: BSD-3-Clause */
/* test-header.c: what header_read takes and refuses, and what is written. */
#include "format/header.h"

#include <errno.h>
#include <stdlib.h>

#include "base/compress.h"
#include "builder.h"
#include "expect.h"
#include "io-mem.h"

/* Reads the header of an image made from a recipe. */
static int
read_recipe(const char *recipe, struct header *h, struct qcow2_error *err)
{
    struct builder *b = builder_new();
    const unsigned char *bytes;
    size_t nr_bytes;
    struct mem *m;
    struct io *io;
    int r;

    expect_case("%s", recipe);
    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    m = mem_new(bytes, nr_bytes);
    io = io_mem_open(m, true);
    r = header_read(io, h, err);
    io_close(io);
    mem_free(m);
    builder_free(b);
    return r;
}

static void
accept(const char *recipe, struct header *h)
{
    struct qcow2_error err;

    EXPECT_OK(read_recipe(recipe, h, &err), &err);
}

static void
refuse(const char *recipe, int errnum, const char *text)
{
    struct qcow2_error err = { 0 };
    struct header h;

    EXPECT(read_recipe(recipe, &h, &err) == -1, "was accepted");
    EXPECT(err.errnum == errnum && strstr(err.text, text),
           "errno %d: %s", err.errnum, err.text);
    assert_null(h.backing_file);
    assert_null(h.extensions);
}

static void
refuse_bytes(const void *bytes, size_t nr_bytes, int errnum,
             const char *text)
{
    struct mem *m = mem_new(bytes, nr_bytes);
    struct io *io = io_mem_open(m, true);
    struct qcow2_error err = { 0 };
    struct header h;

    expect_case("%zu bytes, \"%s\" expected", nr_bytes, text);
    EXPECT(header_read(io, &h, &err) == -1, "was accepted");
    EXPECT(err.errnum == errnum && strstr(err.text, text),
           "errno %d: %s", err.errnum, err.text);
    io_close(io);
    mem_free(m);
}

static void
test_version_3_fields_are_decoded(void **state)
{
    struct header h;

    (void)state;
    accept("cluster 4K; refcount-bits 64; size 1000000; compatible 0;"
           "compatible 40; backing base.img raw; snapshot 1 one; data 0", &h);
    assert_int_equal(h.version, 3);
    assert_int_equal(h.cluster_bits, 12);
    assert_int_equal(h.refcount_order, 6);
    assert_int_equal(h.size, 1000000);
    assert_int_equal(h.l1_size, 1);
    assert_int_equal(h.header_length, 112);
    assert_int_equal(h.compatible, UINT64_C(1) << 40 | 1);
    assert_int_equal(h.compression_type, 0);
    assert_int_equal(h.nr_snapshots, 1);
    assert_string_equal(h.backing_file, "base.img");
    assert_string_equal(h.backing_format, "raw");
    header_free(&h);
}

static void
test_version_2_extensions_begin_at_72(void **state)
{
    struct header h;

    (void)state;
    accept("version 2; size 1M; backing base.img raw", &h);
    assert_int_equal(h.version, 2);
    assert_int_equal(h.header_length, 72);
    assert_int_equal(h.refcount_order, 4);
    assert_int_equal(h.incompatible, 0);
    assert_string_equal(h.backing_format, "raw");
    assert_int_equal(h.extensions_end, 72 + 16 + 8);
    header_free(&h);
}

static void
test_fields_of_version_3_mean_nothing_in_version_2(void **state)
{
    struct header h;

    /* They are an unknown extension there. */
    (void)state;
    accept("version 2; size 1M; extension 0xff00000000000000 x", &h);
    assert_int_equal(h.incompatible, 0);
    header_free(&h);
}

static void
test_header_length_may_be_104_or_beyond_what_is_known(void **state)
{
    struct header h;

    (void)state;
    accept("header-length 104; size 1M; backing b raw", &h);
    assert_int_equal(h.compression_type, 0);
    assert_string_equal(h.backing_format, "raw");
    header_free(&h);
    accept("header-length 200; size 1M; backing b raw", &h);
    assert_int_equal(h.header_length, 200);
    assert_string_equal(h.backing_format, "raw");
    header_free(&h);
}

static void
test_wrong_header_length_is_refused(void **state)
{
    (void)state;
    refuse("size 1M; poke header.header_length = 96", EIO, "its length");
    refuse("size 1M; poke header.header_length = 0", EIO, "its length");
    refuse("size 1M; poke header.header_length = 108", EIO, "its length");
    refuse("cluster 512; size 1M; poke header.header_length = 520", EIO,
           "its length");
    refuse("size 1M; poke header.header_length = 0xfffffff8", EIO,
           "its length");
}

static void
test_wrong_cluster_bits_are_refused(void **state)
{
    (void)state;
    refuse("size 1M; poke header.cluster_bits = 8", EIO, "cluster_bits");
    refuse("size 1M; poke header.cluster_bits = 22", EIO, "cluster_bits");
    refuse("size 1M; poke header.cluster_bits = 0", EIO, "cluster_bits");
    refuse("size 1M; poke header.cluster_bits = 0xffffffff", EIO,
           "cluster_bits");
}

static void
test_wrong_refcount_order_is_refused(void **state)
{
    (void)state;
    refuse("size 1M; poke header.refcount_order = 7", EIO, "refcount_order");
    refuse("size 1M; poke header.refcount_order = 0xffffffff", EIO,
           "refcount_order");
}

static void
test_other_files_are_told_by_what_they_look_like(void **state)
{
    unsigned char other[4096] = "KDMV";

    (void)state;
    refuse_bytes("", 0, EINVAL, "it is empty");
    refuse_bytes("hello", 5, EINVAL, "not a qcow2 image");
    refuse_bytes(other, sizeof other, EINVAL, "looks like vmdk");
    memcpy(other, "QFI\xfb\0\0\0\1", 8);
    refuse_bytes(other, sizeof other, ENOTSUP, "qcow (version 1)");
    memcpy(other, "QFI\xfb\0\0\0\4", 8);
    refuse_bytes(other, sizeof other, ENOTSUP, "version 4 is not supported");
    memcpy(other, "QFI\xfb\0\0\0\3", 8);
    refuse_bytes(other, 8, EIO, "ends inside the header");
}

static void
test_encryption_is_refused_by_name(void **state)
{
    (void)state;
    refuse("size 1M; poke header.crypt_method = 1", ENOTSUP, "AES");
    refuse("size 1M; poke header.crypt_method = 2", ENOTSUP, "LUKS");
    refuse("size 1M; poke header.crypt_method = 3", ENOTSUP, "method 3");
    refuse("version 2; size 1M; poke header.crypt_method = 1", ENOTSUP,
           "AES");
}

static void
test_unsupported_features_are_refused_by_name(void **state)
{
    (void)state;
    refuse("size 1M; incompatible 5", ENOTSUP, "feature bit 5");
    refuse("size 1M; incompatible 63", ENOTSUP, "feature bit 63");
}

static void
test_subclusters_are_no_smaller_than_a_sector(void **state)
{
    struct header h;

    (void)state;
    refuse("size 1M; cluster 8192; poke header.incompatible_features = 16",
           EIO, "at least 16384 bytes");
    accept("size 1M; cluster 16384; poke header.incompatible_features = 16",
           &h);
    assert_int_equal(h.geo.subcluster_bits, 9);
    assert_int_equal(h.geo.l2_bits, 10);
    header_free(&h);
}

static void
test_unknown_features_take_their_name_from_the_image(void **state)
{
    (void)state;
    refuse("size 1M; incompatible 7; extension 0x6803f857 "
           "\\x01\\x07the name of a compatible feature is not asked!",
           ENOTSUP, "unknown feature (incompatible feature bit 7)");
    refuse("size 1M; incompatible 7; extension 0x6803f857 "
           "\\x00\\x07time\\x1btravel\\x00 234567890123456789012345678901234",
           ENOTSUP, "'time\\x1btravel'");
    /* A name that fills its field has no end. */
    refuse("size 1M; incompatible 9; extension 0x6803f857 "
           "\\x00\\x09abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrst!",
           ENOTSUP, "'abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrst'");
}

static void
test_unknown_features_come_before_all_else_that_is_wrong(void **state)
{
    (void)state;
    refuse("size 1M; incompatible 20; poke header.l1_size = 0xffffffff;"
           "poke header.refcount_order = 99", ENOTSUP, "feature bit 20");
    refuse("size 1M; incompatible 20; poke u32[112] = 1;"
           "poke u32[116] = 0xffffffff", ENOTSUP, "feature bit 20");
}

static void
test_dirty_and_corrupt_are_only_told(void **state)
{
    struct header h;

    (void)state;
    accept("size 1M; incompatible 0; incompatible 1", &h);
    assert_int_equal(h.incompatible, INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
    header_free(&h);
}

static void
test_compression_type_and_its_feature_bit_agree(void **state)
{
    struct header h;

    (void)state;
    if (compress_supported(COMPRESS_ZSTD)) {
        accept("size 1M; compression zstd", &h);
        assert_int_equal(h.compression_type, COMPRESS_ZSTD);
        header_free(&h);
    }
    refuse("size 1M; incompatible 3", EIO, "which is set");
    refuse("size 1M; poke header.compression_type = 1", EIO, "not set");
    refuse("size 1M; incompatible 3; poke header.compression_type = 2",
           ENOTSUP, "type 2");
    refuse("size 1M; incompatible 3; header-length 104", EIO,
           "which is set");
}

static void
test_virtual_size_need_not_be_a_multiple_of_anything(void **state)
{
    struct header h;

    (void)state;
    accept("size 1048676", &h);
    assert_int_equal(h.size, 1048676);
    header_free(&h);
}

static void
test_empty_disk_has_no_l1(void **state)
{
    struct header h;

    (void)state;
    accept("size 0; poke header.l1_size = 0;"
           "poke header.l1_table_offset = 0", &h);
    assert_int_equal(h.size, 0);
    assert_int_equal(h.l1_size, 0);
    header_free(&h);
}

static void
test_l1_may_be_larger_than_needed(void **state)
{
    struct header h;

    (void)state;
    accept("size 1M; l1-entries 300", &h);
    assert_int_equal(h.l1_size, 300);
    header_free(&h);
}

static void
test_l1_too_small_for_the_size_is_refused(void **state)
{
    (void)state;
    refuse("size 1M; poke header.size = 600000000", EIO, "too few");
    refuse("size 1M; poke header.l1_size = 0", EIO, "too few");
    refuse("cluster 512; size 32K; poke header.size = 32769", EIO,
           "too few");
    refuse("size 1M; poke header.size = 0xffffffffffffffff", EIO,
           "too few");
}

static void
test_claimed_sizes_have_limits(void **state)
{
    (void)state;
    refuse("size 1M; poke header.l1_size = 0x400001", EIO, "limit");
    refuse("size 1M; poke header.l1_size = 0xffffffff", EIO, "limit");
    refuse("size 1M; poke header.refcount_table_clusters = 129", EIO,
           "limit");
    refuse("size 1M; poke header.refcount_table_clusters = 0xffffffff", EIO,
           "limit");
    refuse("size 1M; poke header.nb_snapshots = 65537", EIO, "limit");
}

static void
test_tables_must_lie_inside_the_file(void **state)
{
    (void)state;
    refuse("size 1M; poke header.l1_table_offset = @end", EIO, "inside");
    refuse("size 1M; poke header.l1_size = 65536", EIO, "inside");
    refuse("size 1M; poke header.refcount_table_offset = @end", EIO,
           "inside");
    refuse("size 1M; poke header.refcount_table_offset = "
           "0x0080000000000000", EIO, "inside");
    refuse("size 1M; poke header.l1_table_offset = 0xffffffffffff0000", EIO,
           "inside");
    refuse("size 1M; poke header.nb_snapshots = 1;"
           "poke header.snapshots_offset = @end", EIO, "inside");
    refuse("size 1M; poke header.nb_snapshots = 65536;"
           "poke header.snapshots_offset = 65536", EIO, "inside");
}

static void
test_tables_must_begin_with_a_cluster(void **state)
{
    (void)state;
    refuse("size 1M; poke header.l1_table_offset + 512", EIO, "cluster");
    refuse("size 1M; poke header.l1_table_offset = 0", EIO, "cluster");
    refuse("size 1M; poke header.refcount_table_offset + 8", EIO, "cluster");
    refuse("size 1M; poke header.refcount_table_offset = 0", EIO, "cluster");
    refuse("size 1M; poke header.nb_snapshots = 1", EIO, "cluster");
}

static void
test_missing_refcount_table_is_refused(void **state)
{
    (void)state;
    refuse("size 1M; poke header.refcount_table_clusters = 0", EIO,
           "no refcount table");
}

static void
test_overlapping_tables_are_refused(void **state)
{
    (void)state;
    refuse("size 1M; poke header.l1_table_offset = @reftable", EIO,
           "overlap");
}

static void
test_file_may_end_inside_its_last_cluster(void **state)
{
    struct header h;

    /* The L1 table is in the last cluster, and is one entry. */
    (void)state;
    accept("size 1M; poke header.l1_table_offset = @end;"
           "append 8", &h);
    header_free(&h);
    refuse("size 1M; truncate 70000", EIO, "inside");
}

static void
test_backing_name_bounds(void **state)
{
    struct header h;

    (void)state;
    refuse("size 1M; backing b; poke header.backing_file_size = 0", EIO,
           "must not be 0");
    refuse("size 1M; backing b; poke header.backing_file_offset = 0", EIO,
           "must not be 0");
    refuse("size 1M; backing b; poke header.backing_file_size = 1024", EIO,
           "limit");
    refuse("size 1M; backing b; poke header.backing_file_size = 0xffffffff",
           EIO, "limit");
    refuse("size 1M; backing b; poke header.backing_file_offset = 65536",
           EIO, "first cluster");
    refuse("size 1M; backing bb; poke header.backing_file_offset = 65535",
           EIO, "first cluster");
    refuse("size 1M; backing b;"
           "poke header.backing_file_offset = 0xfffffffffffffff8", EIO,
           "first cluster");
    refuse("size 1M; backing b; poke header.backing_file_offset = 104", EIO,
           "behind");
    refuse("size 1M; backing b; poke header.backing_file_size = 3", EIO,
           "zero byte");
    accept("size 1M; backing b; poke u32[65532] = 0x61626364;"
           "poke header.backing_file_offset = 65532;"
           "poke header.backing_file_size = 4", &h);
    assert_string_equal(h.backing_file, "abcd");
    header_free(&h);
}

static void
test_longest_backing_name_is_taken(void **state)
{
    char name[1024] = "";
    char recipe[1200];
    struct header h;

    (void)state;
    memset(name, 'n', 1023);
    snprintf(recipe, sizeof recipe, "size 1M; backing %s", name);
    accept(recipe, &h);
    assert_string_equal(h.backing_file, name);
    assert_null(h.backing_format);
    header_free(&h);
}

static void
test_unknown_extensions_are_kept(void **state)
{
    struct header h;

    (void)state;
    accept("size 1M; backing b raw; extension 0x12345678 hello;"
           "extension 0x9abcdef0 12345678", &h);
    assert_int_equal(h.nr_extensions, 3);
    assert_int_equal(h.extensions[1].type, 0x12345678);
    assert_int_equal(h.extensions[1].length, 5);
    assert_memory_equal(h.extensions[1].data, "hello", 5);
    assert_int_equal(h.extensions[2].length, 8);
    assert_memory_equal(h.extensions[2].data, "12345678", 8);
    assert_int_equal(h.extensions_end, 112 + 16 + 16 + 16 + 8);
    header_free(&h);
}

static void
test_extensions_must_end_before_the_backing_name(void **state)
{
    (void)state;
    refuse("size 1M; backing b; extension 0x1234 hello;"
           "poke u32[116] = 9999", EIO, "before the backing file name");
    refuse("size 1M; extension 0x1234 hello; poke u32[116] = 65417", EIO,
           "before the first cluster");
    refuse("size 1M; extension 0x1234 hello; poke u32[116] = 0xffffffff",
           EIO, "does not end");
    refuse("size 1M; backing b; poke u64[112] = 0x0000000161000000;"
           "poke header.backing_file_offset = 116", EIO, "does not end");
}

static void
test_extensions_need_no_end_mark_before_a_limit(void **state)
{
    struct header h;

    /* The name begins where the end mark was. */
    (void)state;
    accept("size 1M; backing bbbbbbbb; extension 0x1234 12345678;"
           "poke u64[128] = 0x6161616161616161;"
           "poke header.backing_file_offset = 128", &h);
    assert_string_equal(h.backing_file, "aaaaaaaa");
    assert_int_equal(h.nr_extensions, 1);
    assert_int_equal(h.extensions_end, 128);
    header_free(&h);
}

static void
test_the_last_backing_format_counts(void **state)
{
    struct header h;

    (void)state;
    accept("size 1M; backing b raw; extension 0xe2792aca qcow2", &h);
    assert_string_equal(h.backing_format, "qcow2");
    header_free(&h);
    accept("size 1M; backing b raw; extension 0xe2792aca \\x00", &h);
    assert_null(h.backing_format);
    header_free(&h);
    accept("size 1M; backing b; extension 0xe2792aca raw\\x00\\x00", &h);
    assert_string_equal(h.backing_format, "raw");
    header_free(&h);
}

#define BITMAPS(nr, size, offset)                                       \
    "extension 0x23852875 \\x00\\x00\\x00" nr "\\x00\\x00\\x00\\x00"    \
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00" size                          \
    "\\x00\\x00\\x00\\x00\\x00" offset "\\x00\\x00"

static void
test_bitmaps_are_told(void **state)
{
    struct header h;

    (void)state;
    accept("size 1M; autoclear 0;" BITMAPS("\\x02", "\\x40", "\\x01"), &h);
    assert_int_equal(h.nr_bitmaps, 2);
    assert_int_equal(h.bitmap_directory_size, 64);
    assert_int_equal(h.bitmap_directory_offset, 65536);
    header_free(&h);
}

static void
test_bitmaps_without_their_bit_are_kept_but_not_used(void **state)
{
    struct header h;

    (void)state;
    accept("size 1M;" BITMAPS("\\x02", "\\x40", "\\x01"), &h);
    assert_int_equal(h.nr_bitmaps, 0);
    assert_int_equal(h.bitmap_directory_size, 0);
    assert_int_equal(h.nr_extensions, 1);
    header_free(&h);
    /* Not even when they make no sense. */
    accept("size 1M;" BITMAPS("\\x00", "\\x40", "\\x77"), &h);
    header_free(&h);
    accept("version 2; size 1M;" BITMAPS("\\x02", "\\x40", "\\x01"), &h);
    assert_int_equal(h.nr_bitmaps, 0);
    header_free(&h);
}

static void
test_damaged_bitmaps_are_refused(void **state)
{
    (void)state;
    refuse("size 1M; autoclear 0", EIO, "no bitmaps extension");
    refuse("size 1M; autoclear 0; extension 0x23852875 short", EIO,
           "5 bytes");
    refuse("size 1M; autoclear 0;" BITMAPS("\\x00", "\\x40", "\\x01"), EIO,
           "0 bitmaps");
    refuse("size 1M; autoclear 0;" BITMAPS("\\x02", "\\x10", "\\x01"), EIO,
           "cannot be right");
    refuse("size 1M; autoclear 0;" BITMAPS("\\x02", "\\x40", "\\x77"), EIO,
           "inside");
    refuse("size 1M; autoclear 0;" BITMAPS("\\x02", "\\x40", "\\x01")
           "; poke u32[120] = 0x00010000", EIO, "bitmaps, must be");
    refuse("size 1M; autoclear 0;" BITMAPS("\\x02", "\\x40", "\\x01")
           "; poke u64[128] = 0x4000001", EIO, "cannot be right");
    refuse("size 1M; autoclear 0;" BITMAPS("\\x02", "\\x40", "\\x01") ";"
           BITMAPS("\\x02", "\\x40", "\\x01"), EIO, "twice");
}

static void
test_unknown_autoclear_bits_are_told(void **state)
{
    struct header h;

    (void)state;
    accept("size 1M; autoclear 5", &h);
    assert_int_equal(h.autoclear, UINT64_C(1) << 5);
    header_free(&h);
}

/* A file with the encoded header, big enough for its tables. */
static void
read_encoded(const struct header_new *hn, struct header *h)
{
    size_t cluster_size = (size_t)1 << hn->cluster_bits;
    unsigned char *bytes = calloc(3, cluster_size);
    struct qcow2_error err;
    struct mem *m;
    struct io *io;
    long length;

    assert_non_null(bytes);
    length = header_encode(hn, bytes, cluster_size, &err);
    EXPECT(length > 0, "%s", err.text);
    EXPECT((size_t)length <= cluster_size, "%ld bytes", length);
    m = mem_new(bytes, 3 * cluster_size);
    io = io_mem_open(m, true);
    EXPECT_OK(header_read(io, h, &err), &err);
    io_close(io);
    mem_free(m);
    free(bytes);
}

static struct header_new
new_header(unsigned version, unsigned cluster_bits)
{
    return (struct header_new){
        .version = version,
        .cluster_bits = cluster_bits,
        .refcount_order = 4,
        .size = 512,
        .l1_size = 1,
        .l1_offset = UINT64_C(2) << cluster_bits,
        .reftable_offset = UINT64_C(1) << cluster_bits,
        .reftable_clusters = 1,
    };
}

static void
test_encoded_headers_are_read_back(void **state)
{
    (void)state;
    for (unsigned version = 2; version <= 3; version++) {
        for (unsigned bits = 9; bits <= 21; bits++) {
            struct header_new hn = new_header(version, bits);
            struct header h;

            expect_case("version %u, cluster_bits %u", version, bits);
            hn.lazy_refcounts = version == 3;
            hn.backing_file = "some/base";
            hn.backing_format = "qcow2";
            read_encoded(&hn, &h);
            assert_int_equal(h.version, version);
            assert_int_equal(h.cluster_bits, bits);
            assert_int_equal(h.size, 512);
            assert_int_equal(h.l1_offset, hn.l1_offset);
            assert_int_equal(h.reftable_offset, hn.reftable_offset);
            assert_int_equal(h.reftable_clusters, 1);
            assert_int_equal(h.compatible, version == 3);
            assert_string_equal(h.backing_file, "some/base");
            assert_string_equal(h.backing_format, "qcow2");
            header_free(&h);
        }
    }
}

static void
test_feature_names_give_way_to_a_long_backing_name(void **state)
{
    struct header_new hn = new_header(3, 9);
    char name[400] = "";
    unsigned char buf[512];
    struct qcow2_error err;
    struct header h;

    (void)state;
    hn.backing_format = "raw";
    hn.backing_file = "short";
    read_encoded(&hn, &h);
    assert_int_equal(h.nr_extensions, 2);
    assert_int_equal(h.extensions[1].type, EXT_FEATURE_NAMES);
    header_free(&h);

    memset(name, 'x', 370);
    hn.backing_file = name;
    read_encoded(&hn, &h);
    assert_int_equal(h.nr_extensions, 1);
    assert_string_equal(h.backing_file, name);
    header_free(&h);

    memset(name, 'x', 380);
    assert_int_equal(header_encode(&hn, buf, sizeof buf, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    assert_non_null(strstr(err.text, "too long"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_3_fields_are_decoded),
        cmocka_unit_test(test_version_2_extensions_begin_at_72),
        cmocka_unit_test(test_fields_of_version_3_mean_nothing_in_version_2),
        cmocka_unit_test(
            test_header_length_may_be_104_or_beyond_what_is_known),
        cmocka_unit_test(test_wrong_header_length_is_refused),
        cmocka_unit_test(test_wrong_cluster_bits_are_refused),
        cmocka_unit_test(test_wrong_refcount_order_is_refused),
        cmocka_unit_test(test_other_files_are_told_by_what_they_look_like),
        cmocka_unit_test(test_encryption_is_refused_by_name),
        cmocka_unit_test(test_unsupported_features_are_refused_by_name),
        cmocka_unit_test(test_subclusters_are_no_smaller_than_a_sector),
        cmocka_unit_test(
            test_unknown_features_take_their_name_from_the_image),
        cmocka_unit_test(
            test_unknown_features_come_before_all_else_that_is_wrong),
        cmocka_unit_test(test_dirty_and_corrupt_are_only_told),
        cmocka_unit_test(test_compression_type_and_its_feature_bit_agree),
        cmocka_unit_test(
            test_virtual_size_need_not_be_a_multiple_of_anything),
        cmocka_unit_test(test_empty_disk_has_no_l1),
        cmocka_unit_test(test_l1_may_be_larger_than_needed),
        cmocka_unit_test(test_l1_too_small_for_the_size_is_refused),
        cmocka_unit_test(test_claimed_sizes_have_limits),
        cmocka_unit_test(test_tables_must_lie_inside_the_file),
        cmocka_unit_test(test_tables_must_begin_with_a_cluster),
        cmocka_unit_test(test_missing_refcount_table_is_refused),
        cmocka_unit_test(test_overlapping_tables_are_refused),
        cmocka_unit_test(test_file_may_end_inside_its_last_cluster),
        cmocka_unit_test(test_backing_name_bounds),
        cmocka_unit_test(test_longest_backing_name_is_taken),
        cmocka_unit_test(test_unknown_extensions_are_kept),
        cmocka_unit_test(test_extensions_must_end_before_the_backing_name),
        cmocka_unit_test(test_extensions_need_no_end_mark_before_a_limit),
        cmocka_unit_test(test_the_last_backing_format_counts),
        cmocka_unit_test(test_bitmaps_are_told),
        cmocka_unit_test(
            test_bitmaps_without_their_bit_are_kept_but_not_used),
        cmocka_unit_test(test_damaged_bitmaps_are_refused),
        cmocka_unit_test(test_unknown_autoclear_bits_are_told),
        cmocka_unit_test(test_encoded_headers_are_read_back),
        cmocka_unit_test(test_feature_names_give_way_to_a_long_backing_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
