/* SPDX-License-Identifier: BSD-3-Clause */
/* test-info.c: what qcow2_get_info tells, of good images and of bad ones. */
#include <errno.h>
#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "format/format.h"
#include "format/header.h"
#include "format/snaptab.h"
#include "io-mem.h"
#include "rng.h"
#include "tmpdir.h"

static const char recipe[] =
    "cluster 4K; refcount-bits 32; size 3M; backing base.raw raw;"
    " compatible 0; autoclear 17;"
    " extension 0x12345678 hello; extension 0x44415441 data;"
    " data 0-20; snapshot 1 one; data 5; snapshot 7 two size=1M";

static struct qcow2_info *
get_info(const char *path)
{
    struct qcow2_info_options o = { .format = QCOW2_FORMAT_QCOW2 };
    struct qcow2_error err;
    struct qcow2_info *info = qcow2_get_info(path, &o, &err);

    EXPECT(info, "%s", err.text);
    return info;
}

static void
test_the_header_is_told(void **state)
{
    const char *path = tmpdir_path("image");
    struct qcow2_info *info;

    (void)state;
    expect_case("%s", recipe);
    builder_make(path, recipe);
    info = get_info(path);
    assert_int_equal(info->format, QCOW2_FORMAT_QCOW2);
    assert_int_equal(info->virtual_size, 3 << 20);
    assert_int_equal(info->version, 3);
    assert_int_equal(info->cluster_size, 4096);
    assert_int_equal(info->refcount_bits, 32);
    assert_string_equal(info->compression, "zlib");
    assert_null(info->encryption);
    assert_true(info->lazy_refcounts);
    assert_false(info->dirty || info->corrupt || info->extended_l2);
    assert_string_equal(info->backing_file, "base.raw");
    assert_string_equal(info->full_backing_file, tmpdir_path("base.raw"));
    assert_string_equal(info->backing_format, "raw");
    assert_false(info->backing_outside);
    assert_null(info->backing);
    assert_int_equal(info->refusal.errnum, 0);
    qcow2_info_free(info);
}

static void
test_features_and_extensions_are_told(void **state)
{
    const char *path = tmpdir_path("image");
    struct qcow2_info *info;
    bool unknown = false, extension = false;

    (void)state;
    expect_case("%s", recipe);
    builder_make(path, recipe);
    info = get_info(path);
    assert_int_equal(info->nr_features, 2);
    for (size_t i = 0; i < info->nr_features; i++)
        if (!info->features[i].known) {
            unknown = true;
            assert_int_equal(info->features[i].kind, QCOW2_AUTOCLEAR);
            assert_int_equal(info->features[i].bit, 17);
        }
    assert_true(unknown);
    for (size_t i = 0; i < info->nr_extensions; i++)
        if (info->extensions[i].type == 0x12345678) {
            extension = true;
            assert_int_equal(info->extensions[i].nr_bytes, 5);
            assert_null(info->extensions[i].name);
        }
    assert_true(extension);
    assert_string_equal(info->data_file, "data");
    assert_false(info->has_data_file);
    qcow2_info_free(info);
}

static void
test_snapshots_have_their_own_size(void **state)
{
    const char *path = tmpdir_path("image");
    struct qcow2_info *info;

    (void)state;
    expect_case("%s", recipe);
    builder_make(path, recipe);
    info = get_info(path);
    assert_int_equal(info->nr_snapshots, 2);
    assert_string_equal(info->snapshots[0].name, "one");
    assert_string_equal(info->snapshots[1].id, "7");
    assert_int_equal(info->snapshots[1].disk_size, 1 << 20);
    qcow2_info_free(info);
}

/* What we refuse is told all the same. */
static void
test_refused_images_are_told(void **state)
{
    static const struct {
        const char *poke;
        int errnum;
        const char *why;
    } cases[] = {
        { "poke header.crypt_method = 1", ENOTSUP, "AES" },
        { "poke header.crypt_method = 2", ENOTSUP, "LUKS" },
        { "poke header.crypt_method = 9", ENOTSUP, "unknown method 9" },
        { "poke header.incompatible_features = 4", EIO, "snapshots" },
        { "poke header.incompatible_features = 16", EIO, "extended L2" },
        { "poke header.incompatible_features = 0x100", ENOTSUP, "bit 8" },
        { "poke header.l1_table_offset = 77", EIO, "L1 table" },
        { "poke header.l1_size = 0", EIO, "L1 table" },
        { "poke header.refcount_table_clusters = 0", EIO, "refcount table" },
        { "poke header.refcount_order = 200", EIO, "refcount_order" },
        { "poke header.nb_snapshots = 70000", EIO, "snapshots" },
        { "poke header.snapshots_offset = 1", EIO, "snapshot table" },
        { "poke snapshot[0].extra_data_size = 5000", EIO, "extra data" },
        { "poke header.backing_file_size = 2000", EIO, "backing file" },
    };
    const char *path = tmpdir_path("image");

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        struct qcow2_info *info;

        expect_case("%s", cases[i].poke);
        snprintf(text, sizeof text, "%s; %s", recipe, cases[i].poke);
        builder_make(path, text);
        info = get_info(path);
        EXPECT(info->refusal.errnum == cases[i].errnum
               && strstr(info->refusal.text, cases[i].why),
               "errno %d: %s", info->refusal.errnum, info->refusal.text);
        assert_int_equal(info->virtual_size, 3 << 20);
        qcow2_info_free(info);
    }
}

/* Do header and snapshot table read as those of an image we would serve? */
static bool
is_accepted(const unsigned char *bytes, size_t nr_bytes)
{
    struct mem *m = mem_new(bytes, nr_bytes);
    struct io *io = io_mem_open(m, true);
    struct snapshot_table t;
    struct header h;
    bool accepted = header_read(io, &h, NULL) == 0;

    if (accepted) {
        accepted = snaptab_read(io, &h, &t, NULL) == 0;
        if (accepted)
            snaptab_free(&t);
        header_free(&h);
    }
    io_close(io);
    mem_free(m);
    return accepted;
}

/* Changes some bytes of what is read: fields of the header, extensions, the
 * snapshot table.
 */
static void
damage(struct rng *rng, unsigned char *bytes)
{
    uint64_t snapshots_offset = be64_get(((struct disk_header *)bytes)
                                         ->snapshots_offset);
    uint64_t nr = 1 + rng_below(rng, 4);

    for (uint64_t i = 0; i < nr; i++) {
        size_t at = rng_percent(rng, 60) ? 8 + rng_below(rng, 200)
                    : snapshots_offset + rng_below(rng, 200);

        bytes[at] = rng_percent(rng, 30) ? 0xff : rng_next(rng);
    }
}

static void
test_any_bytes_are_told_or_refused(void **state)
{
    uint64_t seed = rng_seed(5);
    const char *path = tmpdir_path("damaged");
    struct qcow2_info_options o = { .format = QCOW2_FORMAT_QCOW2 };
    unsigned char *good;
    size_t nr_bytes;

    (void)state;
    builder_make(tmpdir_path("image"), recipe);
    good = tmpdir_read_file(tmpdir_path("image"), &nr_bytes);
    for (uint64_t i = 0; i < 2000; i++) {
        unsigned char *bytes = malloc(nr_bytes);
        struct qcow2_error err;
        struct qcow2_info *info;
        struct rng rng;

        expect_case("TEST_SEED=%llu, image %llu", (unsigned long long)seed,
                    (unsigned long long)i);
        rng_init(&rng, seed, i);
        memcpy(bytes, good, nr_bytes);
        damage(&rng, bytes);
        tmpdir_write_file(path, bytes, nr_bytes);
        info = qcow2_get_info(path, &o, &err);
        if (info)
            EXPECT((info->refusal.errnum == 0)
                   == is_accepted(bytes, nr_bytes),
                   "refusal: %d %s", info->refusal.errnum,
                   info->refusal.errnum ? info->refusal.text : "");
        else
            EXPECT(!is_accepted(bytes, nr_bytes), "refused: %s", err.text);
        qcow2_info_free(info);
        free(bytes);
    }
    free(good);
}

/* Bitmaps are no reason to refuse what can be served without them. */
static void
test_a_damaged_bitmap_directory_refuses_nothing(void **state)
{
    static const char *const lengths[] = { "0", "100", "0xffffffff" };
    const char *path = tmpdir_path("image");

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct qcow2_info *info;
        char text[512];

        /* The bitmap "a": 24 bytes, then extra data of that length. */
        snprintf(text, sizeof text, "cluster 4096; size 1M; autoclear 0;"
                 "extension 0x23852875 \\x00\\x00\\x00\\x01\\x00\\x00\\x00"
                 "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x20\\x00\\x00"
                 "\\x00\\x00\\x00\\x00\\x00\\x00; append 4096;"
                 "poke u64[136] = @end-4096; poke u64[@end-4096] = 0;"
                 "poke u64[@end-4088] = 0; poke u32[@end-4080] = 0x01100001;"
                 "poke u32[@end-4076] = %s;"
                 "poke u64[@end-4072] = 0x6100000000000000", lengths[i]);
        expect_case("%s", text);
        builder_make(path, text);
        info = get_info(path);
        EXPECT(info->refusal.errnum == 0, "%s", info->refusal.text);
        EXPECT(info->nr_bitmaps == (i == 0), "%zu", info->nr_bitmaps);
        qcow2_info_free(info);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_header_is_told),
        cmocka_unit_test(test_features_and_extensions_are_told),
        cmocka_unit_test(test_snapshots_have_their_own_size),
        cmocka_unit_test(test_refused_images_are_told),
        cmocka_unit_test(test_a_damaged_bitmap_directory_refuses_nothing),
        cmocka_unit_test(test_any_bytes_are_told_or_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
