/* SPDX-License-Identifier: BSD-3-Clause */
/* test-gate.c: which files an image may name. */
#include "storage/gate.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "expect.h"
#include "oracle.h"
#include "tmpdir.h"

/* Files stand in directories, which tear_down removes. */
static int
set_up(void **state)
{
    (void)state;
    mkdir(tmpdir_path("a"), 0755);
    mkdir(tmpdir_path("b"), 0755);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    return oracle_run("rm -rf '%s'/*", tmpdir());
}

static void
make_text(const char *name, const char *text)
{
    tmpdir_write_file(tmpdir_path(name), text, strlen(text));
}

static void
pass(const char *image, const char *name, const char *allow,
     const char *want)
{
    const char *dirs[] = { allow };
    struct qcow2_error err;
    struct gate_file file;
    char *real = realpath(want, NULL);

    expect_case("%s in %s, allow=%s", name, image, allow ? allow : "");
    assert_non_null(real);
    EXPECT_OK(gate_resolve(image, name, dirs, allow != NULL, &file, &err),
              &err);
    assert_string_equal(file.real, real);
    gate_file_free(&file);
    free(real);
}

static void
stop(const char *image, const char *name, const char *allow, int errnum,
     const char *text)
{
    const char *dirs[] = { allow };
    struct qcow2_error err = { 0 };
    struct gate_file file;

    expect_case("%s in %s, allow=%s", name, image, allow ? allow : "");
    EXPECT(gate_resolve(image, name, dirs, allow != NULL, &file, &err) == -1,
           "passed");
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
}

static void
test_names_start_at_the_directory_of_the_image(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));
    char *base = strdup(tmpdir_path("a/base"));

    (void)state;
    make_text("a/base", "x");
    make_text("a/with:colon", "x");
    mkdir(tmpdir_path("a/sub"), 0755);
    make_text("a/sub/base", "x");
    make_text("a/sub/with:colon", "x");
    pass(image, "base", NULL, base);
    pass(image, "./base", NULL, base);
    pass(image, "sub/../base", NULL, base);
    pass(image, base, NULL, base);
    pass(image, "sub/base", NULL, tmpdir_path("a/sub/base"));
    pass(image, "./with:colon", NULL, tmpdir_path("a/with:colon"));
    pass(image, "sub/with:colon", NULL, tmpdir_path("a/sub/with:colon"));
    stop(image, "other", NULL, ENOENT, "other");
    assert_int_equal(chdir(tmpdir_path("a")), 0);
    pass("image", "base", NULL, base);
    pass("./image", "base", NULL, base);
    assert_int_equal(chdir("/"), 0);
    free(image);
    free(base);
}

static void
test_protocols_are_refused(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));
    static const char *const names[] = {
        "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}",
        "nbd:localhost:10809", "file:base",
        "file:///etc/passwd", "with:colon", ":", "fat:rw:/tmp",
        "ssh://h/p", "blkdebug::base",
    };

    (void)state;
    make_text("a/base", "x");
    make_text("a/with:colon", "x");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        stop(image, names[i], "/", EPERM, "only plain paths");
    stop(image, "j\x1b:x", NULL, EPERM, "'j\\x1b:'");
    free(image);
}

static void
test_files_outside_are_refused(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));
    char *outside = strdup(tmpdir_path("b/base"));

    (void)state;
    make_text("b/base", "x");
    stop(image, outside, NULL, EPERM, "outside");
    stop(image, "../b/base", NULL, EPERM, "allow=DIR");
    stop(image, "../b/base", NULL, EPERM, "backing=FILE");
    stop(image, "/etc/passwd", NULL, EPERM, "'/etc/passwd'");
    stop(image, "/proc/self/exe", NULL, EPERM, "outside");
    free(image);
    free(outside);
}

static void
test_links_do_not_lead_outside(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));
    char *outside = strdup(tmpdir_path("b/base"));

    (void)state;
    make_text("b/base", "x");
    make_text("a/base", "x");
    assert_int_equal(symlink(outside, tmpdir_path("a/link")), 0);
    assert_int_equal(symlink("../b", tmpdir_path("a/dir")), 0);
    assert_int_equal(symlink("base", tmpdir_path("a/inside")), 0);
    assert_int_equal(symlink("loop", tmpdir_path("a/loop")), 0);
    stop(image, "link", NULL, EPERM, "outside");
    stop(image, "dir/base", NULL, EPERM, "outside");
    stop(image, "loop", NULL, ELOOP, "loop");
    pass(image, "inside", NULL, tmpdir_path("a/base"));
    pass(image, "link", tmpdir_path("b"), outside);
    free(image);
    free(outside);
}

static void
test_allow_compares_whole_names(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));

    (void)state;
    mkdir(tmpdir_path("b/c"), 0755);
    mkdir(tmpdir_path("bc"), 0755);
    make_text("b/base", "x");
    make_text("b/c/base", "x");
    make_text("bc/base", "x");
    pass(image, "../b/base", tmpdir_path("b"), tmpdir_path("b/base"));
    pass(image, "../b/base", tmpdir_path("b/"), tmpdir_path("b/base"));
    pass(image, "../b/base", tmpdir_path("a/../b"), tmpdir_path("b/base"));
    pass(image, "../b/c/base", tmpdir_path("b"), tmpdir_path("b/c/base"));
    pass(image, "../b/base", "/", tmpdir_path("b/base"));
    stop(image, "../bc/base", tmpdir_path("b"), EPERM, "outside");
    stop(image, "../b/base", tmpdir_path("b/c"), EPERM, "outside");
    stop(image, "../b/base", tmpdir_path("none"), ENOENT, "allow=");
    free(image);
}

static void
test_uris_are_opened_only_below_an_allowed_one(void **state)
{
    const char *allow[] = { "nbd://host/disks" };
    const char *image = tmpdir_path("a/image");
    struct gate_file file;
    struct qcow2_error err;

    (void)state;
    stop(image, "nbd://host/disks", NULL, EPERM, "allow=URI");
    stop(image, "nbd://host/disks", "/", EPERM, "allow=URI");
    stop(image, "nbd://host/x", "nbd://host/disks", EPERM, "allow=URI");
    stop(image, "nbd://host/disks2", "nbd://host/disks", EPERM, "allow=URI");
    stop(image, "nbd://host@evil/", "nbd://host", EPERM, "allow=URI");
    stop(image, "nbd://host:1/", "nbd://host", EPERM, "allow=URI");
    stop(image, "nbd+unix:///?socket=/a/../b", "nbd+unix:///?socket=/a",
         EPERM, "allow=URI");
    stop(image, "nbd+unix:///?socket=/a/%2e./b", "nbd+unix:///?socket=/a",
         EPERM, "allow=URI");
    stop(image, "nbd+unix:///?socket=/a/x&socket=/b",
         "nbd+unix:///?socket=/a", EPERM, "allow=URI");
    stop(image, "nbd://host/disks/../x", "nbd://host/disks", EPERM,
         "allow=URI");
    stop(image, "nbd://host/disks/.%2E/x", "nbd://host/disks", EPERM,
         "allow=URI");
    stop(image, "base", "ssh://host/", ENOTSUP, "allow=ssh://host/");
    EXPECT_OK(gate_resolve(image, "nbd://host/disks/a", allow, 1, &file,
                           &err), &err);
    assert_string_equal(file.path, "nbd://host/disks/a");
    gate_file_free(&file);
}

static void
test_only_files_and_block_devices_are_opened(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));

    (void)state;
    assert_int_equal(mkfifo(tmpdir_path("a/fifo"), 0644), 0);
    stop(image, "fifo", NULL, EPERM, "neither a regular file");
    stop(image, "../a", NULL, EPERM, "neither a regular file");
    stop(image, ".", NULL, EPERM, "neither a regular file");
    stop(image, "/dev/null", "/", EPERM, "neither a regular file");
    free(image);
}

static void
test_file_replaced_after_the_decision_is_not_opened(void **state)
{
    struct gate_file file;
    struct qcow2_error err;

    (void)state;
    make_text("a/base", "x");
    make_text("b/other", "x");
    EXPECT_OK(gate_resolve(tmpdir_path("a/image"), "base", NULL, 0, &file,
                           &err), &err);
    unlink(tmpdir_path("a/base"));
    assert_int_equal(symlink("../b/other", tmpdir_path("a/base")), 0);
    assert_null(gate_open(&file, IO_LOCK_READ, &err));
    unlink(tmpdir_path("a/base"));
    assert_int_equal(rename(tmpdir_path("b/other"), tmpdir_path("a/base")),
                     0);
    assert_null(gate_open(&file, IO_LOCK_READ, &err));
    assert_int_equal(err.errnum, EPERM);
    unlink(tmpdir_path("a/base"));
    assert_int_equal(mkfifo(tmpdir_path("a/base"), 0644), 0);
    assert_null(gate_open(&file, IO_LOCK_READ, &err));
    gate_file_free(&file);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names_start_at_the_directory_of_the_image),
        TEST(test_protocols_are_refused),
        TEST(test_files_outside_are_refused),
        TEST(test_links_do_not_lead_outside),
        TEST(test_allow_compares_whole_names),
        TEST(test_uris_are_opened_only_below_an_allowed_one),
        TEST(test_only_files_and_block_devices_are_opened),
        TEST(test_file_replaced_after_the_decision_is_not_opened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
