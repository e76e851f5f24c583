/* SPDX-License-Identifier: BSD-3-Clause */
/* test-probe.c: formats are told by their first bytes. */
#include <stdlib.h>

#include "expect.h"
#include "oracle.h"
#include "qcow2.h"
#include "tmpdir.h"

static void
expect_probe(const void *bytes, size_t nr_bytes, const char *want)
{
    const char *got = qcow2_probe(bytes, nr_bytes);

    EXPECT((got == NULL) == (want == NULL), "%s, not %s", got ? got : "raw",
           want ? want : "raw");
    EXPECT(!got || strcmp(got, want) == 0, "%s, not %s", got, want);
}

/* The magic at its place, whole and cut short by a byte. */
static void
expect_magic(const char *magic, size_t length, size_t offset,
             const char *want)
{
    unsigned char bytes[512];

    expect_case("%s", want);
    memset(bytes, 0x55, sizeof bytes);
    memcpy(bytes + offset, magic, length);
    expect_probe(bytes, sizeof bytes, want);
    expect_probe(bytes, offset + length, want);
    expect_probe(bytes, offset + length - 1, NULL);
    bytes[offset] ^= 1;
    expect_probe(bytes, sizeof bytes, NULL);
}

#define MAGIC(magic, offset, want) \
    expect_magic(magic, sizeof magic - 1, offset, want)

static void
test_known_formats_are_told_by_their_magic(void **state)
{
    (void)state;
    MAGIC("QFI\xfb", 0, "qcow2");
    MAGIC("QED\0", 0, "qed");
    MAGIC("KDMV", 0, "vmdk");
    MAGIC("COWD", 0, "vmdk");
    MAGIC("# Disk DescriptorFile", 0, "vmdk");
    MAGIC("vhdxfile", 0, "vhdx");
    MAGIC("conectix", 0, "vpc");
    MAGIC("\x7f\x10\xda\xbe", 64, "vdi");
    MAGIC("LUKS\xba\xbe", 0, "luks");
    MAGIC("WithoutFreeSpace", 0, "parallels");
    MAGIC("WithouFreSpacExt", 0, "parallels");
    MAGIC("Bochs Virtual HD Image", 0, "bochs");
    MAGIC("#!/bin/sh\n#V2.0 Format\nmodprobe cloop", 0, "cloop");
    MAGIC("koly\0\0\0\4", 0, "dmg");
}

static void
test_versions_of_qcow_are_told_apart(void **state)
{
    (void)state;
    expect_probe("QFI\xfb\0\0\0\1", 8, "qcow");
    expect_probe("QFI\xfb\0\0\0\2", 8, "qcow2");
    expect_probe("QFI\xfb\0\0\0\3", 8, "qcow2");
    expect_probe("QFI\xfb\0\0\0\x63", 8, "qcow2");
}

static void
test_anything_else_is_nothing(void **state)
{
    static const unsigned char zeroes[512];

    (void)state;
    expect_probe(zeroes, sizeof zeroes, NULL);
    expect_probe("", 0, NULL);
    expect_probe("\xeb\x3c\x90mkfs.fat", 11, NULL);
}

static void
test_images_made_by_others_are_told(void **state)
{
    static const char *const formats[] = {
        "qcow2", "qcow", "vmdk", "vdi", "vpc", "vhdx", "qed", "parallels",
    };

    (void)state;
    oracle_or_skip();
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const char *path = tmpdir_path("image");
        unsigned char *bytes;
        size_t nr_bytes;

        expect_case("%s", formats[i]);
        if (oracle_run("qemu-img create -q -f %s %s 8M", formats[i], path)
            != 0)
            continue; /* built without it */
        bytes = tmpdir_read_file(path, &nr_bytes);
        expect_probe(bytes, nr_bytes < 512 ? nr_bytes : 512, formats[i]);
        free(bytes);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_formats_are_told_by_their_magic),
        cmocka_unit_test(test_versions_of_qcow_are_told_apart),
        cmocka_unit_test(test_anything_else_is_nothing),
        cmocka_unit_test(test_images_made_by_others_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
