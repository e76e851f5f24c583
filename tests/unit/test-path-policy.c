/* SPDX-License-Identifier: BSD-3-Clause */
/* test-path-policy.c: which files an image may name. */
#include "storage/path-policy.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"
#include "oracle.h"
#include "storage/io-open.h"
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

static struct io *
open_locked(const struct policy_file *file, enum io_lock lock,
            struct qcow2_error *err)
{
    const struct io_open_options o = { .readonly = true, .lock = lock };

    return io_open(file, &o, err);
}

static void
make_text(const char *name, const char *text)
{
    tmpdir_write_file(tmpdir_path(name), text, strlen(text));
}

static int
find(const char *image, const char *name, const char *const *dirs,
     size_t nr_dirs, struct policy_file *file, struct qcow2_error *err)
{
    struct policy_allow allow;
    struct policy_place place;
    int r = policy_allow_init(&allow, dirs, nr_dirs, err);

    if (r == 0)
        r = policy_place_of(image, &place, err);
    if (r == 0) {
        r = policy_resolve(&place, name, &allow, file, err);
        policy_place_free(&place);
    }
    policy_allow_free(&allow);
    return r;
}

static void
pass(const char *image, const char *name, const char *allow,
     const char *want)
{
    const char *dirs[] = { allow };
    struct qcow2_error err;
    struct policy_file file;
    struct stat st;

    expect_case("%s in %s, allow=%s", name, image, allow ? allow : "");
    EXPECT_OK(find(image, name, dirs, allow != NULL, &file, &err), &err);
    assert_int_equal(stat(want, &st), 0);
    assert_int_equal(file.dev, st.st_dev);
    assert_int_equal(file.ino, st.st_ino);
    policy_file_free(&file);
}

static void
stop(const char *image, const char *name, const char *allow, int errnum,
     const char *text)
{
    const char *dirs[] = { allow };
    struct qcow2_error err = { 0 };
    struct policy_file file;

    expect_case("%s in %s, allow=%s", name, image, allow ? allow : "");
    EXPECT(find(image, name, dirs, allow != NULL, &file, &err) == -1,
           "passed");
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
}

/* More than 32-bit offsets reach. */
static void
test_large_files_are_found(void **state)
{
    (void)state;
    make_text("a/large", "x");
    assert_int_equal(truncate(tmpdir_path("a/large"), INT64_C(5) << 30), 0);
    pass(tmpdir_path("a/image"), "large", NULL, tmpdir_path("a/large"));
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
    stop(image, "../b/base", NULL, EPERM, "refused");
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
    stop(image, "../b/base", tmpdir_path("none"), ENOENT, "none'");
    free(image);
}

static void
test_one_file_can_be_allowed(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));
    char *base = strdup(tmpdir_path("b/base"));

    (void)state;
    make_text("b/base", "x");
    make_text("b/other", "x");
    pass(image, "../b/base", base, base);
    stop(image, "../b/other", base, EPERM, "outside");
    stop(image, "../b/base", tmpdir_path("b/other"), EPERM, "outside");
    free(image);
    free(base);
}

static void
test_uris_are_opened_only_below_an_allowed_one(void **state)
{
    const char *allow[] = { "nbd://host/disks" };
    const char *image = tmpdir_path("a/image");
    struct policy_file file;
    struct qcow2_error err;

    (void)state;
    stop(image, "nbd://host/disks", NULL, EPERM, "not a local file");
    stop(image, "nbd://host/disks", "/", EPERM, "not a local file");
    stop(image, "nbd://host/x", "nbd://host/disks", EPERM, "not a local file");
    stop(image, "nbd://host/disks2", "nbd://host/disks",
         EPERM, "not a local file");
    stop(image, "nbd://host@evil/", "nbd://host", EPERM, "not a local file");
    stop(image, "nbd://host:1/", "nbd://host", EPERM, "not a local file");
    stop(image, "nbd+unix:///?socket=/a/../b", "nbd+unix:///?socket=/a",
         EPERM, "not a local file");
    stop(image, "nbd+unix:///?socket=/a/%2e./b", "nbd+unix:///?socket=/a",
         EPERM, "not a local file");
    stop(image, "nbd+unix:///?socket=/a/x&socket=/b",
         "nbd+unix:///?socket=/a", EPERM, "not a local file");
    stop(image, "nbd://host/disks/../x", "nbd://host/disks", EPERM,
         "not a local file");
    stop(image, "nbd://host/disks/.%2E/x", "nbd://host/disks", EPERM,
         "not a local file");
    stop(image, "base", "ssh://host/", ENOTSUP, "'ssh://host/'");
    EXPECT_OK(find(image, "nbd://host/disks/a", allow, 1, &file, &err),
              &err);
    assert_string_equal(file.path, "nbd://host/disks/a");
    policy_file_free(&file);
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

/* --- Without /proc ------------------------------------------------------ */

/* Leaves this process without /proc; false where it may not. */
static bool
lose_proc(void)
{
    return (unshare(CLONE_NEWNS) == 0
            || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0)
           && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0
           && mount("none", "/proc", "tmpfs", 0, NULL) == 0
           && access("/proc/self", F_OK) == -1;
}

/* Does the base of a/image open, as what was found, after `command`? */
static bool
opens_right_after(const char *image, const char *command,
                  struct qcow2_error *err)
{
    struct policy_file file;
    struct io *io = NULL;
    char byte = '\0';

    if (find(image, "base", NULL, 0, &file, err) == -1)
        return false;
    if (oracle_run("cd '%s' && %s", tmpdir(), command) == 0)
        io = open_locked(&file, IO_LOCK_NONE, err);
    policy_file_free(&file);
    if (!io)
        return false;
    if (io_pread(io, &byte, 1, 0, err) == -1)
        byte = '\0';
    io_close(io);
    return byte == 'r';
}

/* 0, or which of these does not hold. */
static int
what_fails_without_proc(const char *image)
{
    struct qcow2_error err;
    struct policy_file file;

    if (!lose_proc())
        return 77;
    if (!opens_right_after(image, "true", &err))
        return 1;
    if (opens_right_after(image, "mv a/base a/kept && cp b/other a/base", &err)
        || err.errnum != EPERM || !strstr(err.text, "was replaced"))
        return 2;
    if (opens_right_after(image, "true", &err))
        return 3; /* what is there now is opened, too */
    oracle_run("cd '%s' && mv a/kept a/base", tmpdir());
    if (opens_right_after(image, "mv a/base a/kept && "
                          "ln -s kept a/base", &err)
        || err.errnum != ELOOP)
        return 4;
    if (find(image, "link", NULL, 0, &file, &err) == 0 || err.errnum != EPERM)
        return 5;
    return 0;
}

/* There a file is opened by its name in the directory that was found, and
 * must still be the one that was decided on. */
static void
test_replaced_file_is_refused_without_proc(void **state)
{
    const char *image = tmpdir_path("a/image");
    int status;
    pid_t pid;

    (void)state;
    make_text("a/base", "right");
    make_text("b/other", "wrong");
    assert_int_equal(symlink("../b/other", tmpdir_path("a/link")), 0);
    pid = fork();
    assert_true(pid != -1);
    if (pid == 0)
        _exit(what_fails_without_proc(image));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* What was decided on is opened, whatever has its name by now. */
static void
test_file_replaced_after_the_decision_is_not_opened(void **state)
{
    struct policy_file file;
    struct qcow2_error err;
    struct io *io;
    char byte;

    (void)state;
    make_text("a/base", "right");
    make_text("b/other", "wrong");
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(find(tmpdir_path("a/image"), "base", NULL, 0, &file, &err),
                  &err);
        rename(tmpdir_path("a/base"), tmpdir_path("a/kept"));
        if (i == 0)
            assert_int_equal(symlink("../b/other", tmpdir_path("a/base")), 0);
        if (i == 1)
            make_text("a/base", "wrong");
        if (i == 2)
            assert_int_equal(mkfifo(tmpdir_path("a/base"), 0644), 0);
        io = open_locked(&file, IO_LOCK_READ, &err);
        EXPECT(io, "%s", err.text);
        EXPECT_OK(io_pread(io, &byte, 1, 0, &err), &err);
        assert_int_equal(byte, 'r');
        io_close(io);
        policy_file_free(&file);
        rename(tmpdir_path("a/kept"), tmpdir_path("a/base"));
    }
}

/* The file's own directory counts, and names start where the link is. */
static void
test_links_to_an_image_give_it_nothing(void **state)
{
    char *link = strdup(tmpdir_path("a/link"));

    (void)state;
    make_text("b/image", "x");
    make_text("b/base", "x");
    make_text("a/neighbour", "x");
    assert_int_equal(symlink("../b/image", link), 0);
    stop(link, "neighbour", NULL, EPERM, "outside");
    stop(link, tmpdir_path("a/neighbour"), NULL, EPERM, "outside");
    stop(link, "base", NULL, ENOENT, "base");
    pass(link, "../b/base", NULL, tmpdir_path("b/base"));
    pass(link, tmpdir_path("b/base"), NULL, tmpdir_path("b/base"));
    pass(link, "neighbour", tmpdir_path("a"), tmpdir_path("a/neighbour"));
    free(link);
}

/* Wherever they lead through, and also by absolute names. */
static void
test_links_that_stay_inside_are_followed(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));
    char *base = strdup(tmpdir_path("a/base"));

    (void)state;
    make_text("a/base", "x");
    mkdir(tmpdir_path("a/sub"), 0755);
    assert_int_equal(symlink(base, tmpdir_path("a/absolute")), 0);
    assert_int_equal(symlink("../base", tmpdir_path("a/sub/up")), 0);
    assert_int_equal(symlink("../a/sub", tmpdir_path("b/back")), 0);
    assert_int_equal(symlink(tmpdir_path("a"), tmpdir_path("alias")), 0);
    assert_int_equal(symlink("/etc/passwd", tmpdir_path("a/passwd")), 0);
    pass(image, "absolute", NULL, base);
    pass(image, "sub/up", NULL, base);
    pass(image, "../b/back/up", NULL, base);
    pass(image, "../a/./sub/..//base", NULL, base);
    pass(image, tmpdir_path("alias/base"), NULL, base);
    stop(image, "passwd", NULL, EPERM, "outside");
    pass(image, "passwd", "/", "/etc/passwd");
    free(image);
    free(base);
}

static void
test_long_paths_have_limits(void **state)
{
    char *image = strdup(tmpdir_path("a/image"));
    char name[PATH_MAX + 2];
    size_t len = 0;

    (void)state;
    memset(name, 'n', sizeof name);
    name[NAME_MAX + 1] = '\0';
    stop(image, name, NULL, ENAMETOOLONG, "");
    name[NAME_MAX + 1] = 'n';
    name[sizeof name - 1] = '\0';
    stop(image, name, NULL, ENAMETOOLONG, "");
    /* As deep as can be looked at, and one deeper. */
    assert_int_equal(chdir(tmpdir_path("a")), 0);
    for (int i = 0; i < MAX_PATH_DEPTH; i++) {
        len += sprintf(name + len, "d/");
        assert_int_equal(mkdir("d", 0755), 0);
        assert_int_equal(chdir("d"), 0);
    }
    strcpy(name + len, "base");
    assert_int_equal(chdir("/"), 0);
    stop(image, name, NULL, ENAMETOOLONG, "");
    /* A link to itself and more makes it longer each time. */
    assert_int_equal(symlink("longer/x", tmpdir_path("a/longer")), 0);
    stop(image, "longer", NULL, ELOOP, "");
    free(image);
}

/* A device may not show what lies beside its node. */
static void
test_images_on_devices_have_no_directory(void **state)
{
    struct policy_place place;
    struct policy_file file;
    struct qcow2_error err;

    (void)state;
    make_text("a/base", "x");
    assert_int_equal(symlink("a/base", tmpdir_path("link")), 0);
    if (mknod(tmpdir_path("a/device"), S_IFBLK | 0600, 7 << 8) == -1)
        skip();
    EXPECT_OK(policy_place_of(tmpdir_path("a/device"), &place, &err), &err);
    assert_int_equal(place.kind, POLICY_DEVICE);
    policy_place_free(&place);
    stop(tmpdir_path("a/device"), "base", NULL, EPERM, "block device");
    stop(tmpdir_path("a/device"), "device", NULL, EPERM, "block device");
    pass(tmpdir_path("a/device"), "base", tmpdir_path("a"),
         tmpdir_path("a/base"));
    /* Nor by a link to it. */
    assert_int_equal(symlink("../a/device", tmpdir_path("b/link")), 0);
    make_text("b/base", "x");
    stop(tmpdir_path("b/link"), "base", NULL, EPERM, "block device");
    EXPECT_OK(policy_trust(tmpdir_path("b/link"), &file, &err), &err);
    assert_int_equal(file.place.kind, POLICY_DEVICE);
    policy_file_free(&file);
}

/* In a directory where all may write, links of others are not followed. */
static void
test_links_of_others_in_sticky_directories_are_not_followed(void **state)
{
    struct policy_file file;
    struct qcow2_error err;

    (void)state;
    if (geteuid() != 0)
        skip();
    make_text("b/base", "x");
    chmod(tmpdir_path("a"), 01777);
    assert_int_equal(symlink("../b/base", tmpdir_path("a/link")), 0);
    EXPECT_OK(policy_trust(tmpdir_path("a/link"), &file, &err), &err);
    policy_file_free(&file);
    assert_int_equal(lchown(tmpdir_path("a/link"), 12345, -1), 0);
    EXPECT(policy_trust(tmpdir_path("a/link"), &file, &err) == -1, "found");
    assert_int_equal(err.errnum, EACCES);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_large_files_are_found),
        TEST(test_names_start_at_the_directory_of_the_image),
        TEST(test_protocols_are_refused),
        TEST(test_files_outside_are_refused),
        TEST(test_links_do_not_lead_outside),
        TEST(test_allow_compares_whole_names),
        TEST(test_one_file_can_be_allowed),
        TEST(test_uris_are_opened_only_below_an_allowed_one),
        TEST(test_only_files_and_block_devices_are_opened),
        TEST(test_file_replaced_after_the_decision_is_not_opened),
        TEST(test_replaced_file_is_refused_without_proc),
        TEST(test_links_to_an_image_give_it_nothing),
        TEST(test_links_that_stay_inside_are_followed),
        TEST(test_long_paths_have_limits),
        TEST(test_images_on_devices_have_no_directory),
        TEST(test_links_of_others_in_sticky_directories_are_not_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
