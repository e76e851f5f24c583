/* SPDX-License-Identifier: BSD-3-Clause */
/* test-create.c: new images are what was asked for, and sound. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit.h"
#include "base/compress.h"
#include "expect.h"
#include "oracle.h"
#include "qcow2.h"
#include "tmpdir.h"

static bool
exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static void
expect_sound(const char *path)
{
    unsigned char *bytes;
    struct audit a;
    size_t nr_bytes;

    bytes = tmpdir_read_file(path, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "%u corruptions, %u leaks: %s",
           a.nr_corruptions, a.nr_leaks, a.first);
    free(bytes);
    oracle_expect_clean(path);
}

/* Where the oracle is there: info tells this, as an extended regex. */
static void
expect_info(const char *path, const char *regex)
{
    if (oracle_present())
        EXPECT(oracle_run("qemu-img info '%s' | tr '\\n' ' ' | "
                          "grep -qE '%s'", path, regex) == 0,
               "no '%s' in qemu-img info", regex);
}

static struct qcow2_disk *
open_readonly(const char *path)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    options.readonly = true;
    options.format = QCOW2_FORMAT_QCOW2;
    disk = qcow2_open(path, &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
expect_size(const char *path, uint64_t size)
{
    struct qcow2_disk *disk = open_readonly(path);

    EXPECT(qcow2_get_size(disk) == size, "%" PRIu64 ", not %" PRIu64,
           qcow2_get_size(disk), size);
    qcow2_close(disk, NULL);
}

static void
create(const char *path, const struct qcow2_create_options *options)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_create(path, options, &err), &err);
}

static void
refuse(const char *path, const struct qcow2_create_options *options,
       int errnum, const char *text)
{
    struct qcow2_error err = { 0 };

    expect_case("\"%s\" expected", text);
    EXPECT(qcow2_create(path, options, &err) == -1, "was created");
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
}

static void
test_defaults_are_version_3_and_64k_clusters(void **state)
{
    const char *path = tmpdir_path("image");

    (void)state;
    create(path, &(struct qcow2_create_options){ .size = 1 << 30 });
    expect_sound(path);
    expect_size(path, 1 << 30);
    expect_info(path, "virtual size: 1 GiB .*cluster_size: 65536 .*"
                "compat: 1.1 .*compression type: zlib .*"
                "lazy refcounts: false .*refcount bits: 16");
    tmpdir_clear();
}

static void
test_every_geometry_is_sound(void **state)
{
    (void)state;
    for (unsigned bits = 9; bits <= 21; bits++) {
        for (unsigned order = 0; order <= 6; order++) {
            const char *path = tmpdir_path("image");

            expect_case("clusters of %u, refcounts of %u bits", 1u << bits,
                        1u << order);
            create(path, &(struct qcow2_create_options){
                       .size = 300 << 20, .cluster_size = 1u << bits,
                       .refcount_bits = 1u << order });
            expect_sound(path);
            expect_size(path, 300 << 20);
            tmpdir_clear();
        }
    }
}

static void
test_version_2_is_made(void **state)
{
    const char *path = tmpdir_path("image");

    (void)state;
    create(path, &(struct qcow2_create_options){
               .size = 1 << 20, .version = 2, .cluster_size = 4096,
               .refcount_bits = 16 });
    expect_sound(path);
    expect_size(path, 1 << 20);
    expect_info(path, "cluster_size: 4096 .*compat: 0.10");
    tmpdir_clear();
}

static void
test_features_are_set(void **state)
{
    const char *path = tmpdir_path("image");
    bool zstd = compress_supported(COMPRESS_ZSTD);

    (void)state;
    create(path, &(struct qcow2_create_options){
               .size = 1 << 20, .lazy_refcounts = true, .zstd = zstd });
    expect_sound(path);
    expect_info(path, "lazy refcounts: true");
    if (zstd)
        expect_info(path, "compression type: zstd");
    tmpdir_clear();
}

static void
test_sizes_are_rounded_up_to_sectors(void **state)
{
    const char *path = tmpdir_path("image");

    (void)state;
    create(path, &(struct qcow2_create_options){ .size = 1000001 });
    expect_size(path, 1000448);
    expect_sound(path);
    tmpdir_clear();
}

static void
test_empty_disk_is_made(void **state)
{
    const char *path = tmpdir_path("image");

    (void)state;
    create(path, &(struct qcow2_create_options){ .size = 0 });
    expect_size(path, 0);
    expect_sound(path);
    tmpdir_clear();
}

static void
test_largest_tables_describe_themselves(void **state)
{
    const char *path = tmpdir_path("image");

    /* 65536 clusters of L1, which need 1041 refblocks, which need more
     * than one cluster of refcount table. */
    (void)state;
    create(path, &(struct qcow2_create_options){
               .size = UINT64_C(128) << 30, .cluster_size = 512,
               .refcount_bits = 64 });
    expect_size(path, UINT64_C(128) << 30);
    expect_sound(path);
    tmpdir_clear();
    refuse(path, &(struct qcow2_create_options){
               .size = (UINT64_C(128) << 30) + 1, .cluster_size = 512 },
           EINVAL, "use larger clusters");
    refuse(path, &(struct qcow2_create_options){ .size = UINT64_MAX },
           EINVAL, "use larger clusters");
    assert_false(exists(path));
}

static void
test_huge_disks_are_made(void **state)
{
    const char *path = tmpdir_path("image");

    (void)state;
    create(path, &(struct qcow2_create_options){
               .size = UINT64_C(1) << 50, .cluster_size = 2 << 20 });
    expect_size(path, UINT64_C(1) << 50);
    expect_sound(path);
    tmpdir_clear();
}

static void
test_impossible_options_are_refused(void **state)
{
    const char *path = tmpdir_path("image");
    const struct {
        struct qcow2_create_options options;
        const char *text;
    } cases[] = {
        { { .version = 1 }, "version 1" },
        { { .version = 4 }, "version 4" },
        { { .cluster_size = 256 }, "clusters of 256" },
        { { .cluster_size = 4 << 20 }, "clusters of 4194304" },
        { { .cluster_size = 65537 }, "power of two" },
        { { .refcount_bits = 3 }, "refcounts of 3 bits" },
        { { .refcount_bits = 128 }, "refcounts of 128 bits" },
        { { .version = 2, .refcount_bits = 8 }, "use version 3" },
        { { .version = 2, .zstd = true }, "use version 3" },
        { { .version = 2, .lazy_refcounts = true }, "use version 3" },
        { { .size_from_backing = true }, "no backing" },
        { { .backing_format = QCOW2_FORMAT_RAW }, "no backing" },
        { { .backing = "b" }, "format must be said" },
        { { .backing = "", .backing_format = QCOW2_FORMAT_RAW },
          "1 to 1023 bytes" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuse(path, &cases[i].options, EINVAL, cases[i].text);
    assert_false(exists(path));
}

static void
test_too_long_backing_name_is_refused(void **state)
{
    const char *path = tmpdir_path("image");
    char name[1100];

    (void)state;
    memset(name, 'b', sizeof name);
    name[1024] = '\0';
    refuse(path, &(struct qcow2_create_options){
               .backing = name, .backing_format = QCOW2_FORMAT_RAW },
           EINVAL, "1 to 1023 bytes");
    /* One that the file system takes, but a small cluster does not. */
    memset(name, '/', sizeof name);
    memcpy(name, "./", 2);
    strcpy(name + 600, "base");
    tmpdir_write_file(tmpdir_path("base"), "x", 1);
    refuse(path, &(struct qcow2_create_options){
               .backing = name, .backing_format = QCOW2_FORMAT_RAW,
               .cluster_size = 512 }, EINVAL, "too long");
    assert_false(exists(path));
    create(path, &(struct qcow2_create_options){
               .size = 512, .backing = name,
               .backing_format = QCOW2_FORMAT_RAW, .cluster_size = 1024 });
    expect_sound(path);
    tmpdir_clear();
}

static void
test_existing_file_is_not_touched_unasked(void **state)
{
    const char *path = tmpdir_path("image");
    unsigned char *bytes;
    size_t nr_bytes;

    (void)state;
    tmpdir_write_file(path, "precious", 8);
    refuse(path, &(struct qcow2_create_options){ .size = 512 }, EEXIST,
           "image");
    bytes = tmpdir_read_file(path, &nr_bytes);
    assert_int_equal(nr_bytes, 8);
    assert_memory_equal(bytes, "precious", 8);
    free(bytes);
    create(path, &(struct qcow2_create_options){
               .size = 512, .overwrite = true });
    expect_sound(path);
    tmpdir_clear();
}

static void
test_file_in_use_is_not_replaced(void **state)
{
    const char *path = tmpdir_path("image");
    struct qcow2_disk *disk;

    (void)state;
    create(path, &(struct qcow2_create_options){ .size = 1 << 20 });
    disk = open_readonly(path);
    refuse(path, &(struct qcow2_create_options){
               .size = 512, .overwrite = true }, EBUSY, "image");
    qcow2_close(disk, NULL);
    expect_size(path, 1 << 20);
    tmpdir_clear();
}

static void
test_failure_leaves_nothing_behind(void **state)
{
    const char *path = tmpdir_path("image");
    struct rlimit unlimited, limit;

    (void)state;
    getrlimit(RLIMIT_FSIZE, &unlimited);
    signal(SIGXFSZ, SIG_IGN);
    limit = unlimited;
    limit.rlim_cur = 100000;
    setrlimit(RLIMIT_FSIZE, &limit);
    refuse(path, &(struct qcow2_create_options){ .size = 1 << 20 }, EFBIG,
           "image");
    assert_false(exists(path));
    /* What was there before is not ours to remove. */
    tmpdir_write_file(path, "old", 3);
    refuse(path, &(struct qcow2_create_options){
               .size = 1 << 20, .overwrite = true }, EFBIG, "image");
    assert_true(exists(path));
    setrlimit(RLIMIT_FSIZE, &unlimited);
    refuse(tmpdir_path("no/such/dir"), &(struct qcow2_create_options){
               .size = 512 }, ENOENT, "no/such/dir");
    tmpdir_clear();
}

static void
test_overlay_names_its_base_and_format(void **state)
{
    const char *base = tmpdir_path("base"), *path = tmpdir_path("image");
    struct qcow2_disk *disk;

    (void)state;
    for (unsigned version = 2; version <= 3; version++) {
        expect_case("version %u", version);
        create(base, &(struct qcow2_create_options){ .size = 5 << 20 });
        create(path, &(struct qcow2_create_options){
                   .size_from_backing = true, .backing = "base",
                   .version = version,
                   .backing_format = QCOW2_FORMAT_QCOW2 });
        expect_sound(path);
        expect_size(path, 5 << 20);
        expect_info(path, "backing file: base .*backing file format: qcow2");
        disk = open_readonly(path);
        qcow2_close(disk, NULL);
        tmpdir_clear();
    }
}

static void
test_size_of_raw_base_is_rounded_up(void **state)
{
    const char *path = tmpdir_path("image");
    unsigned char byte;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    uint64_t size = 0;

    (void)state;
    tmpdir_write_file(tmpdir_path("base"), "QFI\xfb and more", 13);
    create(path, &(struct qcow2_create_options){
               .size_from_backing = true, .backing = "base",
               .backing_format = QCOW2_FORMAT_RAW, .size_created = &size });
    assert_int_equal(size, 512);
    expect_size(path, 512);
    expect_info(path, "backing file format: raw");
    disk = open_readonly(path);
    EXPECT_OK(qcow2_pread(disk, &byte, 1, 12, &err), &err);
    assert_int_equal(byte, 'e');
    EXPECT_OK(qcow2_pread(disk, &byte, 1, 13, &err), &err);
    assert_int_equal(byte, 0);
    qcow2_close(disk, NULL);
    tmpdir_clear();
}

static void
test_base_that_could_not_be_opened_is_refused(void **state)
{
    const char *path = tmpdir_path("image");

    (void)state;
    refuse(path, &(struct qcow2_create_options){
               .size = 512, .backing = "missing",
               .backing_format = QCOW2_FORMAT_RAW }, ENOENT, "missing");
    refuse(path, &(struct qcow2_create_options){
               .size = 512, .backing = "json:{}",
               .backing_format = QCOW2_FORMAT_RAW }, EPERM, "'json:'");
    tmpdir_write_file(tmpdir_path("base"), "hello", 5);
    refuse(path, &(struct qcow2_create_options){
               .size = 512, .backing = "base",
               .backing_format = QCOW2_FORMAT_QCOW2 }, EINVAL, "base");
    assert_false(exists(path));
    tmpdir_clear();
}

/* The user chose the backing file, but not what that names in turn. */
static void
test_base_may_be_anywhere_but_not_what_it_names(void **state)
{
    const char *path = tmpdir_path("image"), *mid = tmpdir_path("mid");
    const char *allow[] = { "/etc" };
    struct qcow2_create_options over = {
        .size = 512, .backing = "mid", .backing_format = QCOW2_FORMAT_QCOW2,
    };

    (void)state;
    create(mid, &(struct qcow2_create_options){
               .size = 512, .backing = "/etc/passwd",
               .backing_format = QCOW2_FORMAT_RAW });
    refuse(path, &over, EPERM, "'/etc/passwd' lies outside");
    assert_false(exists(path));
    over.allow = allow;
    over.nr_allow = 1;
    create(path, &over);
    tmpdir_clear();
}

static void
test_image_does_not_replace_its_own_base(void **state)
{
    const char *base = tmpdir_path("base"), *mid = tmpdir_path("mid");

    (void)state;
    create(base, &(struct qcow2_create_options){ .size = 7 << 20 });
    create(mid, &(struct qcow2_create_options){
               .size_from_backing = true, .backing = "base",
               .backing_format = QCOW2_FORMAT_QCOW2 });
    refuse(mid, &(struct qcow2_create_options){
               .size = 512, .backing = "mid", .overwrite = true,
               .backing_format = QCOW2_FORMAT_QCOW2 }, EINVAL, "own");
    refuse(base, &(struct qcow2_create_options){
               .size = 512, .backing = "mid", .overwrite = true,
               .backing_format = QCOW2_FORMAT_QCOW2 }, EINVAL, "own");
    expect_size(mid, 7 << 20);
    expect_size(base, 7 << 20);
    tmpdir_clear();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_version_3_and_64k_clusters),
        cmocka_unit_test(test_every_geometry_is_sound),
        cmocka_unit_test(test_version_2_is_made),
        cmocka_unit_test(test_features_are_set),
        cmocka_unit_test(test_sizes_are_rounded_up_to_sectors),
        cmocka_unit_test(test_empty_disk_is_made),
        cmocka_unit_test(test_largest_tables_describe_themselves),
        cmocka_unit_test(test_huge_disks_are_made),
        cmocka_unit_test(test_impossible_options_are_refused),
        cmocka_unit_test(test_too_long_backing_name_is_refused),
        cmocka_unit_test(test_existing_file_is_not_touched_unasked),
        cmocka_unit_test(test_file_in_use_is_not_replaced),
        cmocka_unit_test(test_failure_leaves_nothing_behind),
        cmocka_unit_test(test_overlay_names_its_base_and_format),
        cmocka_unit_test(test_size_of_raw_base_is_rounded_up),
        cmocka_unit_test(test_base_that_could_not_be_opened_is_refused),
        cmocka_unit_test(test_base_may_be_anywhere_but_not_what_it_names),
        cmocka_unit_test(test_image_does_not_replace_its_own_base),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
