/* SPDX-License-Identifier: BSD-3-Clause */
/* test-allow-list.c: what is allowed for good, and who may write that down. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "expect.h"
#include "oracle.h"
#include "qcow2.h"
#include "tmpdir.h"

static void
expect_names(const struct qcow2_allow_list *list, const char *want)
{
    char got[1024] = "";

    for (size_t i = 0; i < list->nr; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s",
                 i ? "\n" : "", list->names[i]);
    assert_string_equal(got, want);
}

/* text: the variable. bad: what the error names, or NULL. */
static void
parse(const char *text, const char *want, const char *bad)
{
    struct qcow2_allow_list list = { 0 };
    struct qcow2_error err = { 0 };
    int r;

    expect_case("%s", text);
    r = qcow2_allow_list_add(&list, text, &err);
    EXPECT(r == (bad ? -1 : 0), "%d: %s", r, err.text);
    if (bad)
        EXPECT(err.errnum == EINVAL && strstr(err.text, bad), "%s", err.text);
    expect_names(&list, want);
    qcow2_allow_list_free(&list);
}

static void
test_colons_separate_but_are_part_of_names_too(void **state)
{
    (void)state;
    mkdir(tmpdir_path("a:b"), 0755);
    assert_int_equal(chdir(tmpdir()), 0);
    parse("", "", NULL);
    parse("/", "/", NULL);
    parse(":/:/tmp:", "/\n/tmp", NULL);
    parse("/tmp:nbd://h:10809/x:/", "/tmp\nnbd://h:10809/x\n/", NULL);
    parse("nbd://[::1]:10809/:nbds://h", "nbd://[::1]:10809/\nnbds://h",
          NULL);
    parse("nbd+unix:///?socket=/s:/tmp", "nbd+unix:///?socket=/s\n/tmp",
          NULL);
    parse(tmpdir_path("a:b"), tmpdir_path("a:b"), NULL);
    parse("/tmp:/no/such/directory:/etc/passwd:/", "/tmp\n/", NULL);
    parse("a:b:/tmp", "/tmp", "'a:b'");
    parse(".:/tmp", "/tmp", "'.'");
    parse("http://h/:/tmp", "/tmp", "'http://h/'");
    assert_int_equal(chdir("/"), 0);
}

static void
test_number_is_bounded(void **state)
{
    struct qcow2_allow_list list = { 0 };
    struct qcow2_error err;
    char text[2048] = "";

    (void)state;
    for (size_t i = 0; i < sizeof text - 2; i++)
        text[i] = i % 2 ? ':' : '/';
    EXPECT(qcow2_allow_list_add(&list, text, &err) == -1, "taken");
    assert_int_equal(list.nr, 256);
    qcow2_allow_list_free(&list);
}

static void
read_file(const char *want, const char *bad)
{
    struct qcow2_allow_list list = { 0 };
    struct qcow2_error err = { 0 };
    int r = qcow2_allow_list_read(&list, tmpdir_path("etc/allow"), &err);

    EXPECT(r == (bad ? -1 : 0), "%d: %s", r, err.text);
    if (bad)
        EXPECT(strstr(err.text, bad) && strstr(err.text, "etc/allow: "),
               "%s", err.text);
    expect_names(&list, want);
    qcow2_allow_list_free(&list);
}

static void
write_file(const char *text, size_t nr_bytes)
{
    tmpdir_write_file(tmpdir_path("etc/allow"), text, nr_bytes);
    assert_int_equal(chmod(tmpdir_path("etc/allow"), 0644), 0);
}

static void
test_file_counts_if_root_alone_can_write_it(void **state)
{
    static const char text[] = "# bases\n\n  /tmp \r\nnbd://h/x\n/no/such\n/";
    char *file = strdup(tmpdir_path("etc/allow"));
    char *dir = strdup(tmpdir_path("etc"));

    (void)state;
    read_file("", NULL);
    mkdir(dir, 0755);
    read_file("", NULL);
    write_file(text, strlen(text));
    if (geteuid() != 0) {
        read_file("", "others than root");
        return;
    }
    read_file("/tmp\nnbd://h/x\n/", NULL);
    assert_int_equal(chmod(file, 0664), 0);
    read_file("", "it can be written by others");
    assert_int_equal(chmod(file, 0646), 0);
    read_file("", "it can be written by others");
    assert_int_equal(chmod(file, 0644), 0);
    assert_int_equal(chown(file, 12345, -1), 0);
    read_file("", "it can be written by others");
    assert_int_equal(chown(file, 0, -1), 0);
    assert_int_equal(chmod(dir, 0775), 0);
    read_file("", "its directory can be written by others");
    assert_int_equal(chmod(dir, 01777), 0);
    read_file("", "its directory can be written by others");
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(chown(dir, 12345, -1), 0);
    read_file("", "its directory can be written by others");
    assert_int_equal(chown(dir, 0, -1), 0);
    read_file("/tmp\nnbd://h/x\n/", NULL);
    free(file);
    free(dir);
}

static void
test_only_a_short_text_is_read(void **state)
{
    char *file = strdup(tmpdir_path("etc/allow"));
    char *text = malloc(70000);

    (void)state;
    if (geteuid() != 0)
        skip();
    mkdir(tmpdir_path("etc"), 0755);
    memset(text, '\n', 70000);
    write_file(text, 65536);
    read_file("", NULL);
    write_file(text, 65537);
    read_file("", "no list");
    write_file("/tmp\n\0/\n", 8);
    read_file("", "no list");
    write_file("/tmp\nhere\n/", 11);
    read_file("/tmp\n/", "'here'");
    assert_int_equal(rename(file, tmpdir_path("etc/other")), 0);
    assert_int_equal(symlink("other", file), 0);
    read_file("", "cannot be opened");
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mkfifo(file, 0644), 0);
    read_file("", "cannot be read");
    free(file);
    free(text);
}

static int
tear_down(void **state)
{
    (void)state;
    return oracle_run("rm -rf '%s'/*", tmpdir());
}

#define TEST(name) cmocka_unit_test_teardown(name, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_colons_separate_but_are_part_of_names_too),
        TEST(test_number_is_bounded),
        TEST(test_file_counts_if_root_alone_can_write_it),
        TEST(test_only_a_short_text_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
