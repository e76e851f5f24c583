/* SPDX-License-Identifier: BSD-3-Clause */
/* test-builder: the images that the other tests start from are what they
 * claim to be: qemu-img and the audit agree on them.
 */
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "expect.h"
#include "oracle.h"
#include "rng.h"
#include "tmpdir.h"

static struct audit
audit_of(struct builder *b)
{
    struct audit a;
    size_t nr_bytes;
    const unsigned char *bytes = builder_bytes(b, &nr_bytes);

    audit_image(bytes, nr_bytes, &a);
    return a;
}

static struct builder *
built(const char *recipe)
{
    struct builder *b = builder_new();

    builder_add(b, "%s", recipe);
    return b;
}

static const char everything[] =
    "data 0-3 11\n"
    "table 9\n"
    "gap 2\n"
    "zero 4-5\n"
    "zero-alloc 6\n"
    "compressed 7-12 12\n"
    "snapshot 1 first\n"
    "data 2-4 13\n"
    "compressed 8-9 14\n"
    "unallocated 12\n"
    "snapshot 2 second extra=40\n"
    "data 0 15; data 13 16";

static const char everything_v2[] =
    "data 0-3 11; gap 1; compressed 7-12 12; snapshot 1 first;"
    "data 2-4 13; compressed 8-9 14; unallocated 12";

/* After the geometry of "everything". */
static const char all_subclusters[] =
    "subclusters 3 ddzzuudz 17\n"
    "subclusters 4 zzzzu\n"
    "subclusters 5 puzzd 18\n"
    "snapshot 3 third\n"
    "subclusters 2 uuduzp 19\n"
    "subclusters 13 d 20";

static void
try_geometry(unsigned version, unsigned cluster_bits, unsigned refcount_bits,
             bool zstd, const char *content, const char *more)
{
    uint32_t cluster_size = UINT32_C(1) << cluster_bits;
    uint64_t nr_bytes = 14 * (uint64_t)cluster_size - 512;
    unsigned char *disk = calloc(1, nr_bytes);
    const char *path = tmpdir_path("image.qcow2");
    struct builder *b = builder_new();
    struct audit a;

    expect_case("version %u cluster size %u refcount bits %u", version,
                cluster_size, refcount_bits);
    builder_add(b, "version %u\ncluster %u\nrefcount-bits %u\nsize %llu\n"
                "compression %s\n", version, cluster_size, refcount_bits,
                (unsigned long long)nr_bytes, zstd ? "zstd" : "zlib");
    if (more)
        builder_add(b, "extended-l2");
    builder_add(b, "%s\n%s", content, more ? more : "");
    builder_write(b, path);
    a = audit_of(b);
    EXPECT(audit_is_clean(&a), "%s", a.first);
    oracle_expect_clean(path);
    builder_overlay(b, -1, disk, nr_bytes);
    oracle_expect_content(path, disk, nr_bytes);

    memset(disk, 0, nr_bytes);
    builder_overlay(b, 0, disk, nr_bytes);
    if (oracle_present()) {
        EXPECT(oracle_run("qemu-img convert -l snapshot.id=1 -O raw '%s' '%s'",
                          path, tmpdir_path("snapshot.raw")) == 0, "-");
        tmpdir_write_file(tmpdir_path("model.raw"), disk, nr_bytes);
        EXPECT(oracle_run("cmp '%s' '%s'", tmpdir_path("snapshot.raw"),
                          tmpdir_path("model.raw")) == 0, "snapshot differs");
    }
    builder_free(b);
    free(disk);
}

static void
built_images_are_clean_and_hold_what_they_say(void **state)
{
    (void)state;
    for (unsigned bits = 9; bits <= 21; bits += 3)
        try_geometry(2, bits, 16, false, everything_v2, NULL);
    for (unsigned order = 2; order <= 6; order++)
        try_geometry(3, 7 + 2 * order, 1U << order, false, everything, NULL);
    for (unsigned bits = 14; bits <= 21; bits += 7)
        try_geometry(3, bits, 16, false, everything, all_subclusters);
    if (builder_has_zstd())
        try_geometry(3, 16, 16, true, everything, NULL);
}

static void
narrow_refcounts_without_snapshots(void **state)
{
    struct builder *b;
    struct audit a;

    (void)state;
    for (unsigned width = 1; width <= 2; width++) {
        b = builder_new();
        builder_add(b, "cluster 4K; refcount-bits %u; size 1M; data 3-50",
                    width);
        a = audit_of(b);
        EXPECT(audit_is_clean(&a), "%s", a.first);
        builder_write(b, tmpdir_path("narrow.qcow2"));
        oracle_expect_clean(tmpdir_path("narrow.qcow2"));
        builder_free(b);
    }
}

static void
backing_name_extension_and_long_header_are_written(void **state)
{
    const char *path = tmpdir_path("overlay.qcow2");
    unsigned char *disk = calloc(1, 1 << 20);

    (void)state;
    oracle_or_skip();
    pattern_fill(disk, 1 << 19, 5, 0);
    tmpdir_write_file(tmpdir_path("base.raw"), disk, 1 << 19);
    builder_make(path, "size 1M; header-length 120; backing base.raw raw;"
                 "extension 0x12345678 hel\\x6c\\x00o; compatible 7;"
                 "l1-entries 9; table 0");
    oracle_expect_clean(path);
    oracle_expect_content(path, disk, 1 << 20);
    free(disk);
}

/* One defect each, and what qemu-img makes of it. */
static const struct defect {
    const char *recipe;
    bool corrupt;
    unsigned nr_leaks;
} defects[] = {
    { "leak 3", false, 3 },
    { "poke refcount[@data[0]/C] = 0", true, 0 },
    { "poke refcount[@data[0]/C] = 2", true, 1 },
    { "poke l2[1] = 0", false, 1 },
    { "poke l2[1] = @data[0]", true, 1 },
    { "snapshot 1 s; poke l2[0] | 0x8000000000000000", true, 0 },
    { "poke l2[1] ^ 0x200", true, 0 },
    { "poke l1[0] | 2", true, 0 },
    { "poke l2[0] | 2", true, 0 },
    { "poke reftable[0] = 0", true, 0 },
    { "poke l2[0] = @l1 + 0x8000000000000000", true, 1 },
};

/* Of the audit alone: qemu-img's check does not look for all. */
static const char *const extended_defects[] = {
    "poke l2[0] | 1",
    "poke bitmap[0] | 0x100000000",
    "poke l2[2] = 0",
    "poke bitmap[3] = 1",
    "poke bitmap[4] = 0x8000000000000000",
    "poke bitmap[7] = 4",
};

static void
defects_of_extended_entries_are_found(void **state)
{
    (void)state;
    for (size_t i = 0;
         i < sizeof extended_defects / sizeof extended_defects[0]; i++) {
        struct builder *b = built("cluster 16K; extended-l2; size 1M;"
                                  "data 0-1; subclusters 2 dzu; zero 3;"
                                  "compressed 4; table 7");
        struct audit a;

        expect_case("%s", extended_defects[i]);
        builder_add(b, "%s", extended_defects[i]);
        a = audit_of(b);
        EXPECT(a.nr_corruptions > 0, "not found");
        builder_free(b);
    }
}

static void
defects_are_found(void **state)
{
    const char *path = tmpdir_path("defect.qcow2");

    (void)state;
    for (size_t i = 0; i < sizeof defects / sizeof defects[0]; i++) {
        const struct defect *d = &defects[i];
        struct builder *b = built("cluster 4K; size 1M; data 0-5 9");
        struct audit a;
        struct oracle_check c;

        expect_case("%s", d->recipe);
        builder_add(b, "%s", d->recipe);
        a = audit_of(b);
        EXPECT((a.nr_corruptions > 0) == d->corrupt, "%u corruptions: %s",
               a.nr_corruptions, a.first);
        EXPECT(d->corrupt || a.nr_leaks == d->nr_leaks, "%u leaks",
               a.nr_leaks);
        builder_write(b, path);
        builder_free(b);
        if (oracle_present() && !d->corrupt) {
            oracle_check(path, &c);
            EXPECT(c.corruptions == 0 && c.leaks == (long)d->nr_leaks,
                   "qemu-img: %ld corruptions, %ld leaks", c.corruptions,
                   c.leaks);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_images_are_clean_and_hold_what_they_say),
        cmocka_unit_test(narrow_refcounts_without_snapshots),
        cmocka_unit_test(backing_name_extension_and_long_header_are_written),
        cmocka_unit_test(defects_are_found),
        cmocka_unit_test(defects_of_extended_entries_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
