/* SPDX-License-Identifier: BSD-3-Clause */
/* test-backing-json.c: which "json:" names are plain paths. */
#include "format/backing-json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "builder.h"
#include "expect.h"
#include "oracle.h"
#include "rng.h"
#include "tmpdir.h"

static void
plain(const char *name, const char *want, enum qcow2_format want_format)
{
    char path[MAX_BACKING_NAME_BYTES + 1];
    enum qcow2_format format;

    expect_case("%s", name);
    EXPECT(backing_json_parse(name, path, &format), "refused");
    assert_string_equal(path, want);
    assert_int_equal(format, want_format);
}

static void
refused(const char *name)
{
    char path[MAX_BACKING_NAME_BYTES + 1];
    enum qcow2_format format;

    expect_case("%s", name);
    EXPECT(!backing_json_parse(name, path, &format), "it is '%s'", path);
}

#define FILE_X "\"file\":{\"driver\":\"file\",\"filename\":\"x\"}"

static void
plain_paths_are_taken_in_all_their_forms(void **state)
{
    (void)state;
    plain("json:{\"driver\":\"qcow2\"," FILE_X "}", "x", QCOW2_FORMAT_QCOW2);
    plain("json:{\"driver\":\"raw\"," FILE_X "}", "x", QCOW2_FORMAT_RAW);
    plain("json:{" FILE_X ", \"driver\" : \"qcow2\" }", "x",
          QCOW2_FORMAT_QCOW2);
    plain("json: { \"file\" : { \"filename\":\"/a/b\",\"driver\":\"file\"},"
          "\n\"driver\":\"qcow2\"}\n", "/a/b", QCOW2_FORMAT_QCOW2);
    plain("json:{\"driver\":\"qcow2\",\"file.driver\":\"file\","
          "\"file.filename\":\"x\"}", "x", QCOW2_FORMAT_QCOW2);
    plain("json:{\"file.filename\":\"\\u0078\\/\\\\\\\"\\u00e9\\u20AC\","
          "\"driver\":\"raw\",\"file.driver\":\"file\"}",
          "x/\\\"\xc3\xa9\xe2\x82\xac", QCOW2_FORMAT_RAW);
}

static void
everything_else_is_refused(void **state)
{
    static const char *const names[] = {
        "", "x", "json:", "json:{}", "json:x", "json:{" FILE_X "}",
        "json:{\"driver\":\"qcow2\"}",
        "json:{\"driver\":\"file\",\"filename\":\"x\"}",
        "json:{\"driver\":\"vmdk\"," FILE_X "}",
        "json:{\"driver\":\"qcow2\"," FILE_X ",\"read-only\":true}",
        "json:{\"driver\":\"qcow2\"," FILE_X ",}",
        "json:{\"driver\":\"qcow2\"," FILE_X "}x",
        "json:{\"driver\":\"qcow2\"," FILE_X "," FILE_X "}",
        "json:{\"driver\":\"qcow2\",\"driver\":\"qcow2\"," FILE_X "}",
        "json:{\"driver\":\"qcow2\"," FILE_X ",\"file.filename\":\"y\"}",
        "json:{\"driver\":\"qcow2\",\"file\":\"x\"}",
        "json:{\"driver\":\"qcow2\",\"file\":{" FILE_X "}}",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"nbd\","
        "\"filename\":\"x\"}}",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
        "\"filename\":\"\"}}",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
        "\"filename\":\"a\\u0000b\"}}",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
        "\"filename\":\"\\ud800\"}}",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
        "\"filename\":\"a\nb\"}}",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
        "\"filename\":\"x\"}",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
        "\"filename\":\"x",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
        "\"filename\":\"x\\",
        "json:[{\"driver\":\"qcow2\"," FILE_X "}]",
        "JSON:{\"driver\":\"qcow2\"," FILE_X "}",
    };
    char name[MAX_BACKING_NAME_BYTES + 64];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        refused(names[i]);
    /* One byte more than a name may have. */
    strcpy(name, "json:{\"driver\":\"qcow2\"," FILE_X "}");
    memset(name + strlen(name), ' ', sizeof name - strlen(name));
    name[MAX_BACKING_NAME_BYTES] = '\0';
    plain(name, "x", QCOW2_FORMAT_QCOW2);
    name[MAX_BACKING_NAME_BYTES] = ' ';
    name[MAX_BACKING_NAME_BYTES + 1] = '\0';
    refused(name);
}

/* Bytes exchanged at random: accepted or not, nothing is overrun (ASan). */
static void
damaged_names_do_no_harm(void **state)
{
    static const char good[] =
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
        "\"filename\":\"\\u20ac\\n\"}}";
    struct rng rng;

    (void)state;
    rng_init(&rng, rng_seed(1), 0);
    for (unsigned i = 0; i < 20000; i++) {
        char path[MAX_BACKING_NAME_BYTES + 1];
        enum qcow2_format format;
        char name[sizeof good];

        strcpy(name, good);
        for (unsigned n = 1 + rng_below(&rng, 3); n > 0; n--)
            name[rng_below(&rng, sizeof good - 1)] =
                good[rng_below(&rng, sizeof good)];
        if (backing_json_parse(name, path, &format))
            assert_true(strlen(path) < sizeof good);
    }
}

/* Images as QEMU makes them, under the rules for paths. */
static void
test_layers_named_by_json_are_opened(void **state)
{
    struct qcow2_options options = { .fd = -1, .readonly = true };
    struct qcow2_info_options chain = { .chain = true };
    struct qcow2_error err;
    struct qcow2_disk *disk;
    struct qcow2_info *info;

    (void)state;
    oracle_or_skip();
    oracle_run("cd '%s' && mkdir a b && "
               "qemu-img create -q -f qcow2 a/base 1M && "
               "qemu-io -f qcow2 -c 'write -P 7 0 64k' a/base >/dev/null && "
               "cp a/base b && "
               "qemu-img create -q -u -f qcow2 -b 'json:{\"driver\":\"qcow2\","
               "\"file\":{\"driver\":\"file\",\"filename\":\"%s/a/base\"}}' "
               "-F qcow2 a/top 1M && "
               "qemu-img create -q -u -f qcow2 -b 'json:{\"driver\":\"qcow2\","
               "\"file.driver\":\"file\",\"file.filename\":\"../b/base\"}' "
               "-F qcow2 a/out 1M && "
               "qemu-img create -q -u -f qcow2 -b 'json:{\"driver\":\"raw\","
               "\"file.driver\":\"file\",\"file.filename\":\"base\"}' "
               "-F qcow2 a/liar 1M",
               tmpdir(), tmpdir());
    disk = qcow2_open(tmpdir_path("a/top"), &options, &err);
    EXPECT(disk, "%s", err.text);
    if (disk) {
        unsigned char byte;

        EXPECT_OK(qcow2_pread(disk, &byte, 1, 0, &err), &err);
        assert_int_equal(byte, 7);
        qcow2_close(disk, NULL);
    }
    info = qcow2_get_info(tmpdir_path("a/top"), &chain, &err);
    assert_non_null(info);
    assert_non_null(info->backing);
    assert_int_equal(info->backing->format, QCOW2_FORMAT_QCOW2);
    qcow2_info_free(info);
    assert_null(qcow2_open(tmpdir_path("a/out"), &options, &err));
    assert_int_equal(err.errnum, EPERM);
    assert_non_null(strstr(err.text, "outside"));
    assert_null(qcow2_open(tmpdir_path("a/liar"), &options, &err));
    assert_int_equal(err.errnum, EIO);
    oracle_run("rm -rf '%s'/*", tmpdir());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_paths_are_taken_in_all_their_forms),
        cmocka_unit_test(everything_else_is_refused),
        cmocka_unit_test(damaged_names_do_no_harm),
        cmocka_unit_test(test_layers_named_by_json_are_opened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
