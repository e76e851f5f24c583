/* SPDX-License-Identifier: BSD-3-Clause */
/* test-path-walk.c: paths are resolved by descriptors. */
#include "storage/path-walk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "expect.h"
#include "oracle.h"
#include "rng.h"
#include "tmpdir.h"

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

static struct dir *
open_dir(const char *name)
{
    struct dir *d = dir_new(open(tmpdir_path(name), O_PATH | O_DIRECTORY
                                                    | O_CLOEXEC));

    assert_non_null(d);
    return d;
}

static void
expect_file(const struct path_walk *w, const char *name)
{
    struct stat st;

    assert_int_equal(stat(tmpdir_path(name), &st), 0);
    assert_int_equal(w->st.st_ino, st.st_ino);
    assert_int_equal(w->st.st_dev, st.st_dev);
}

/* The way up is the way that led down. */
static void
test_directory_that_is_moved_leads_nowhere_else(void **state)
{
    struct path_walk w;
    struct dir *root;

    (void)state;
    oracle_run("cd '%s' && mkdir -p root/sub/deep other", tmpdir());
    make_text("root/file", "right");
    make_text("other/file", "wrong");
    root = open_dir("root");
    assert_int_equal(path_walk_to_dir(&w, root, "sub/deep/file", false), 0);
    assert_int_equal(rename(tmpdir_path("root/sub/deep"),
                            tmpdir_path("other/deep")), 0);
    strcpy(w.last, "..");
    assert_int_equal(path_walk_last(&w), 0);
    expect_file(&w, "root/sub");
    path_walk_end(&w);
    dir_put(root);
}

static void
test_below_is_what_was_come_through_or_lies_there(void **state)
{
    struct dir *root, *sub, *other;
    struct path_walk w;

    (void)state;
    oracle_run("cd '%s' && mkdir -p root/sub other", tmpdir());
    make_text("root/sub/file", "x");
    root = open_dir("root");
    sub = open_dir("root/sub");
    other = open_dir("other");
    assert_int_equal(path_walk_to_dir(&w, sub, "file", false), 0);
    assert_int_equal(path_walk_last(&w), 0);
    assert_int_equal(path_walk_is_below(&w, sub), 1);
    assert_int_equal(path_walk_is_below(&w, root), 1);
    assert_int_equal(path_walk_is_below(&w, other), 0);
    path_walk_end(&w);
    assert_int_equal(path_walk_to_dir(&w, root, "sub/../../other", false), 0);
    assert_int_equal(path_walk_last(&w), 0);
    assert_int_equal(path_walk_is_below(&w, other), 0);
    assert_int_equal(path_walk_is_below(&w, root), 0);
    path_walk_end(&w);
    dir_put(root);
    dir_put(sub);
    dir_put(other);
}

/* Links of /proc are followed to what is open there in trusted names; for
 * others they are text. */
static void
test_descriptors_are_found_by_their_links(void **state)
{
    char name[64], text[PATH_MAX];
    struct path_walk w;
    int fd;

    (void)state;
    oracle_run("cd '%s' && mkdir root", tmpdir());
    make_text("root/file", "x");
    fd = open(tmpdir_path("root/file"), O_RDONLY | O_CLOEXEC);
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    assert_int_equal(path_walk_to_dir(&w, NULL, name, true), 0);
    assert_int_equal(path_walk_last(&w), 0);
    expect_file(&w, "root/file");
    assert_true(w.jumped);
    assert_non_null(w.dir);
    path_walk_end(&w);

    /* Its name is another's now. */
    rename(tmpdir_path("root/file"), tmpdir_path("root/kept"));
    make_text("root/file", "y");
    assert_int_equal(path_walk_to_dir(&w, NULL, name, true), 0);
    assert_int_equal(path_walk_last(&w), 0);
    expect_file(&w, "root/kept");
    path_walk_end(&w);
    unlink(tmpdir_path("root/kept"));
    assert_int_equal(path_walk_to_dir(&w, NULL, name, true), 0);
    assert_int_equal(path_walk_last(&w), 0);
    assert_null(w.dir);
    path_walk_end(&w);
    assert_int_equal(path_walk_to_dir(&w, NULL, name, false), 0);
    assert_int_equal(path_walk_last(&w), -1);
    path_walk_end(&w);
    snprintf(text, sizeof text, "/proc/self/fd/%d/file", fd);
    assert_int_equal(path_walk_to_dir(&w, NULL, text, true), -1);
    assert_int_equal(errno, ENOTDIR);
    path_walk_end(&w);
    close(fd);
}

/* A tree of directories, files and links, and paths through it: what is
 * found is what the kernel finds. */
enum { NR_NAMES = 6, NR_TREES = 20, NR_PATHS = 200 };

static void
make_path(struct rng *rng, char *path, unsigned max)
{
    unsigned nr = 1 + rng_below(rng, max);

    path[0] = '\0';
    if (rng_percent(rng, 10))
        sprintf(path, "%s/", tmpdir());
    for (unsigned i = 0; i < nr; i++) {
        unsigned c = rng_below(rng, NR_NAMES + 3);

        if (i > 0)
            strcat(path, rng_percent(rng, 10) ? "//" : "/");
        if (c == NR_NAMES)
            strcat(path, ".");
        else if (c > NR_NAMES)
            strcat(path, "..");
        else
            sprintf(path + strlen(path), "%u", c);
    }
}

static void
make_tree(struct rng *rng, const char *in, unsigned depth)
{
    char path[PATH_MAX], target[PATH_MAX];

    for (unsigned i = 0; i < NR_NAMES; i++) {
        unsigned kind = rng_below(rng, 10);

        snprintf(path, sizeof path, "%s/%u", in, i);
        if (kind < 4 && depth > 0) {
            assert_int_equal(mkdir(path, 0755), 0);
            make_tree(rng, path, depth - 1);
        } else if (kind < 6) {
            tmpdir_write_file(path, path, strlen(path));
        } else {
            make_path(rng, target, 4);
            assert_int_equal(symlink(target, path), 0);
        }
    }
}

static void
try_path(const char *path)
{
    struct path_walk w;
    struct stat st;
    int want = stat(path, &st) == 0 ? 0 : errno, got = 0;

    if (path_walk_to_dir(&w, NULL, path, false) == -1
        || path_walk_last(&w) == -1)
        got = errno;
    EXPECT(got == want, "%s: errno %d, not %d", path, got, want);
    if (got == 0)
        EXPECT(w.st.st_ino == st.st_ino && w.st.st_dev == st.st_dev,
               "%s: another file", path);
    path_walk_end(&w);
}

static void
test_paths_lead_where_the_kernel_finds_them(void **state)
{
    uint64_t seed = rng_seed(1);

    (void)state;
    for (unsigned i = 0; i < NR_TREES; i++) {
        char path[PATH_MAX];
        struct rng rng;

        rng_init(&rng, seed, i);
        expect_case("seed %llu tree %u", (unsigned long long)seed, i);
        make_tree(&rng, tmpdir(), 3);
        assert_int_equal(chdir(tmpdir()), 0);
        for (unsigned n = 0; n < NR_PATHS; n++) {
            make_path(&rng, path, 8);
            try_path(path);
        }
        assert_int_equal(chdir("/"), 0);
        tear_down(NULL);
    }
}

#define TEST(name) cmocka_unit_test_teardown(name, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_directory_that_is_moved_leads_nowhere_else),
        TEST(test_below_is_what_was_come_through_or_lies_there),
        TEST(test_descriptors_are_found_by_their_links),
        TEST(test_paths_lead_where_the_kernel_finds_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
