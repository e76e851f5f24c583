/* SPDX-License-Identifier: BSD-3-Clause */
/* test-chain.c: how backing layers are opened, shared and closed. */
#include "disk/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "oracle.h"
#include "rng.h"
#include "tmpdir.h"

/* Files stand in directories, which this removes. */
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
make(const char *name, const char *recipe)
{
    builder_make(tmpdir_path(name), recipe);
}

static void
make_text(const char *name, const char *text)
{
    tmpdir_write_file(tmpdir_path(name), text, strlen(text));
}

static struct qcow2_disk *
open_with(const char *path, const struct qcow2_options *options)
{
    struct qcow2_error err = { 0 };
    struct qcow2_disk *disk = qcow2_open(path, options, &err);

    EXPECT(disk, "%s: %s", path, err.text);
    return disk;
}

static void
expect_open(const char *name, const struct qcow2_options *options)
{
    qcow2_close(open_with(tmpdir_path(name), options), NULL);
}

static void
expect_refused(const char *path, const struct qcow2_options *options,
               int errnum, const char *text)
{
    struct qcow2_error err = { 0 };

    expect_case("\"%s\" expected", text);
    EXPECT(!qcow2_open(path, options, &err), "%s was opened", path);
    EXPECT(err.errnum == errnum && strstr(err.text, text), "errno %d: %s",
           err.errnum, err.text);
}

/* Of the refusal to open "a/top". */
static void
expect_hints(const struct qcow2_options *options, unsigned hints,
             const char *place)
{
    struct qcow2_error err = { 0 };

    EXPECT(!qcow2_open(tmpdir_path("a/top"), options, &err), "opened");
    EXPECT(err.hints == hints, "hints %x: %s", err.hints, err.text);
    assert_string_equal(err.place, place);
}

static void
expect_byte(struct qcow2_disk *disk, uint64_t off, unsigned char want)
{
    struct qcow2_error err;
    unsigned char got;

    EXPECT_OK(qcow2_pread(disk, &got, 1, off, &err), &err);
    EXPECT(got == want, "%#x, not %#x", got, want);
}

static const struct qcow2_options readonly = { .fd = -1, .readonly = true };

static void
test_layers_are_read_through_a_chain(void **state)
{
    const char *allow[] = { tmpdir_path("a") };
    struct qcow2_options options = readonly;
    struct qcow2_disk *disk;

    (void)state;
    make_text("a/raw", "raw data");
    make("a/v2", "version 2; cluster 512; size 1M; backing raw raw; data 8");
    make("b/mid", "cluster 4K; size 2M; backing ../a/v2 qcow2; data 100");
    make("b/top", "size 3M; backing mid qcow2");
    expect_refused(tmpdir_path("b/top"), &readonly, EPERM, "outside");
    expect_refused(tmpdir_path("b/top"), &readonly, EPERM,
                   "backing file '../a/v2' of '");
    options.allow = allow;
    options.nr_allow = 1;
    disk = open_with(tmpdir_path("b/top"), &options);
    assert_int_equal(disk_image(disk)->chain->nr_layers, 4);
    expect_byte(disk, 0, 'r');
    expect_byte(disk, 7, 'a');
    expect_byte(disk, 8, 0);
    expect_byte(disk, (3 << 20) - 1, 0);
    qcow2_close(disk, NULL);
}

static void
test_names_in_a_linked_layer_start_where_the_link_is(void **state)
{
    const char *allow[] = { tmpdir_path("b"), tmpdir_path("a") };
    struct qcow2_options options = readonly;
    struct qcow2_disk *disk;

    /* As in QEMU; but the link's directory is not the file's own. */
    (void)state;
    make_text("a/base", "right");
    make_text("b/base", "wrong");
    make("b/mid", "size 1M; backing base raw");
    assert_int_equal(symlink("../b/mid", tmpdir_path("a/link")), 0);
    make("a/top", "size 1M; backing link qcow2");
    options.allow = allow;
    options.nr_allow = 1;
    expect_refused(tmpdir_path("a/top"), &options, EPERM, "outside");
    options.nr_allow = 2;
    disk = open_with(tmpdir_path("a/top"), &options);
    expect_byte(disk, 0, 'r');
    qcow2_close(disk, NULL);
}

static void
test_image_named_by_its_descriptor_starts_at_its_file(void **state)
{
    struct qcow2_options options = readonly;
    char path[32];

    (void)state;
    make("a/base", "size 1M; data 0");
    make("a/image", "size 1M; backing base qcow2");
    options.fd = open(tmpdir_path("a/image"), O_RDONLY);
    assert_true(options.fd >= 0);
    snprintf(path, sizeof path, "/dev/fd/%d", options.fd);
    qcow2_close(open_with("some name", &options), NULL);
    qcow2_close(open_with(path, &readonly), NULL);
    close(options.fd);
}

static void
test_allowed_uris_are_refused_before_they_are_needed(void **state)
{
    const char *allow[] = { "https://localhost" };
    struct qcow2_options options = readonly;

    (void)state;
    make("a/image", "size 1M");
    options.allow = allow;
    options.nr_allow = 1;
    expect_refused(tmpdir_path("a/image"), &options, ENOTSUP,
                   "'https://localhost' cannot be allowed");
}

static void
test_missing_layer_is_told_with_who_names_it(void **state)
{
    (void)state;
    make("a/mid", "size 1M; backing gone raw");
    make("a/top", "size 1M; backing mid qcow2");
    expect_refused(tmpdir_path("a/top"), &readonly, ENOENT,
                   "backing file 'gone' of '");
    expect_refused(tmpdir_path("a/top"), &readonly, ENOENT, "a/mid': ");
}

static void
test_damaged_layer_is_told_with_its_file(void **state)
{
    (void)state;
    make("a/base", "size 1M; poke header.cluster_bits = 77");
    make("a/top", "size 1M; backing base qcow2");
    expect_refused(tmpdir_path("a/top"), &readonly, EIO, "a/base: header: ");
    make_text("a/base", "not an image");
    expect_refused(tmpdir_path("a/top"), &readonly, EINVAL,
                   "not a qcow2 image");
}

static void
test_dirty_or_corrupt_layers_are_read(void **state)
{
    (void)state;
    make("a/base", "size 1M; incompatible 0; incompatible 1");
    make("a/top", "size 1M; backing base qcow2");
    expect_open("a/top", &readonly);
}

static void
test_loops_are_refused(void **state)
{
    (void)state;
    make("a/self", "size 1M; backing self qcow2");
    make("a/x", "size 1M; backing y qcow2");
    make("a/y", "size 1M; backing x qcow2");
    make("a/top", "size 1M; backing x qcow2");
    expect_refused(tmpdir_path("a/self"), &readonly, EIO, "loop");
    expect_refused(tmpdir_path("a/x"), &readonly, EIO, "loop");
    expect_refused(tmpdir_path("a/top"), &readonly, EIO, "loop");
}

static void
test_loops_by_other_names_or_formats_are_refused(void **state)
{
    (void)state;
    make("a/self", "size 1M; backing link qcow2");
    assert_int_equal(symlink("self", tmpdir_path("a/link")), 0);
    expect_refused(tmpdir_path("a/self"), &readonly, EIO, "loop");
    make("a/hard", "size 1M; backing hard2 raw");
    assert_int_equal(link(tmpdir_path("a/hard"), tmpdir_path("a/hard2")),
                     0);
    expect_refused(tmpdir_path("a/hard"), &readonly, EIO, "loop");
    make("a/mid", "size 1M; backing mid raw");
    make("a/top", "size 1M; backing mid qcow2");
    expect_refused(tmpdir_path("a/top"), &readonly, EIO, "loop");
}

/* A chain of nr images, data in the last one; returns the top's name. */
static const char *
make_deep(unsigned nr)
{
    static char name[32];

    make("a/0", "cluster 512; size 512; data 0 7");
    for (unsigned i = 1; i < nr; i++) {
        char recipe[64];

        snprintf(name, sizeof name, "a/%u", i);
        snprintf(recipe, sizeof recipe,
                 "cluster 512; size 512; backing %u qcow2", i - 1);
        make(name, recipe);
    }
    return name;
}

/* So many files at once must be allowed. */
static bool
raise_file_limit(rlim_t nr)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= nr)
        return true;
    limit.rlim_cur = nr;
    return limit.rlim_max >= nr && setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static void
test_chain_of_a_thousand_works(void **state)
{
    struct qcow2_disk *disk;
    unsigned char byte;
    const char *top;

    (void)state;
    if (!raise_file_limit(1100))
        skip();
    top = make_deep(1000);
    disk = open_with(tmpdir_path(top), &readonly);
    assert_int_equal(disk_image(disk)->chain->nr_layers, 1000);
    pattern_fill(&byte, 1, 7, 0);
    expect_byte(disk, 0, byte);
    qcow2_close(disk, NULL);
}

static void
test_chain_has_a_limit(void **state)
{
    const char *top;

    (void)state;
    if (!raise_file_limit(MAX_CHAIN_DEPTH + 100))
        skip();
    top = make_deep(MAX_CHAIN_DEPTH + 2);
    expect_refused(tmpdir_path(top), &readonly, EIO, "layers");
}

static void
test_too_few_descriptors_are_told(void **state)
{
    struct rlimit before, few;
    const char *top;

    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    top = make_deep(100);
    few = before;
    few.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &few);
    expect_refused(tmpdir_path(top), &readonly, EMFILE, "");
    setrlimit(RLIMIT_NOFILE, &before);
    expect_open(top, &readonly);
}

/* Formats. */

static void
test_undeclared_raw_is_taken(void **state)
{
    struct qcow2_disk *disk;

    (void)state;
    make_text("a/base", "anything");
    make("a/top", "size 1M; backing base");
    disk = open_with(tmpdir_path("a/top"), &readonly);
    expect_byte(disk, 0, 'a');
    qcow2_close(disk, NULL);
}

/* What is named further down cannot be replaced by another file. */
static void
test_refusals_have_the_hints_that_help(void **state)
{
    struct qcow2_options options = readonly;
    char *outside = strdup(tmpdir_path("b"));

    (void)state;
    make("b/base", "size 1M; data 0");
    make("a/top", "size 1M; backing ../b/base qcow2");
    expect_hints(&readonly, QCOW2_HINT_ALLOW | QCOW2_HINT_BACKING, outside);
    options.trust_backing = true;
    expect_open("a/top", &options);
    make("a/mid", "size 1M; backing ../b/base qcow2");
    make("a/top", "size 1M; backing mid qcow2");
    expect_hints(&readonly, QCOW2_HINT_ALLOW, outside);
    expect_hints(&options, QCOW2_HINT_ALLOW, outside);
    make("a/top", "size 1M; backing vmdk:base qcow2");
    expect_hints(&readonly, QCOW2_HINT_BACKING, "");
    make("a/top", "size 1M; backing nbd://host/a?b raw");
    expect_hints(&readonly, QCOW2_HINT_ALLOW | QCOW2_HINT_BACKING,
                 "'nbd://host/a?b'");
    free(outside);
}

static void
test_undeclared_format_is_not_guessed(void **state)
{
    struct qcow2_options options = readonly;

    (void)state;
    make("a/base", "size 1M; data 0");
    make("a/top", "size 1M; backing base");
    expect_refused(tmpdir_path("a/top"), &readonly, EPERM,
                   "looks like qcow2");
    expect_hints(&readonly, QCOW2_HINT_BACKING_FORMAT
                            | QCOW2_HINT_DECLARE_FORMAT, "");
    options.backing_format = QCOW2_FORMAT_QCOW2;
    expect_open("a/top", &options);
    options.backing_format = QCOW2_FORMAT_RAW;
    expect_open("a/top", &options);
}

static void
test_undeclared_format_further_down_is_settled_in_the_image(void **state)
{
    struct qcow2_options options = readonly;

    (void)state;
    make("a/base", "size 1M; data 0");
    make("a/mid", "size 1M; backing base");
    make("a/top", "size 1M; backing mid qcow2");
    options.backing_format = QCOW2_FORMAT_QCOW2;
    expect_refused(tmpdir_path("a/top"), &options, EPERM,
                   "backing file 'base' of '");
    expect_hints(&options, QCOW2_HINT_DECLARE_FORMAT, "");
}

static void
test_declared_raw_is_raw_whatever_it_looks_like(void **state)
{
    struct qcow2_disk *disk;

    (void)state;
    make("a/base", "size 1M; data 0");
    make("a/top", "version 2; size 1M; backing base raw");
    disk = open_with(tmpdir_path("a/top"), &readonly);
    expect_byte(disk, 0, 'Q');
    qcow2_close(disk, NULL);
}

static void
test_other_declared_formats_are_refused_by_name(void **state)
{
    (void)state;
    make_text("a/base", "x");
    make("a/top", "size 1M; backing base vmdk");
    expect_refused(tmpdir_path("a/top"), &readonly, ENOTSUP,
                   "declared format 'vmdk'");
}

/* Options. */

static void
test_backing_option_is_trusted(void **state)
{
    struct qcow2_options options = readonly;
    struct qcow2_disk *disk;

    (void)state;
    make_text("b/base", "trusted");
    make("a/top", "size 1M; backing json:{} raw");
    options.backing = tmpdir_path("b/base");
    disk = open_with(tmpdir_path("a/top"), &options);
    expect_byte(disk, 0, 't');
    qcow2_close(disk, NULL);

    assert_int_equal(chdir(tmpdir_path("b")), 0);
    options.backing = "base";
    expect_open("a/top", &options);
    assert_int_equal(chdir("/"), 0);
    options.backing = "https://localhost";
    expect_refused(tmpdir_path("a/top"), &options, ENOTSUP, "local files");
    options.backing = "/no/such/file";
    expect_refused(tmpdir_path("a/top"), &options, ENOENT, "/no/such/file");
}

static void
test_names_in_a_trusted_layer_are_not_trusted(void **state)
{
    struct qcow2_options options = readonly;

    (void)state;
    make("b/mid", "size 1M; backing /etc/passwd raw");
    make("a/top", "size 1M");
    options.backing = tmpdir_path("b/mid");
    options.backing_format = QCOW2_FORMAT_QCOW2;
    expect_refused(tmpdir_path("a/top"), &options, EPERM, "/etc/passwd");
}

static void
test_declared_raw_is_not_about_another_file(void **state)
{
    struct qcow2_options options = readonly;

    (void)state;
    make_text("a/base", "x");
    make("a/other", "size 1M");
    make("a/top", "size 1M; backing base raw");
    options.backing = tmpdir_path("a/other");
    expect_refused(tmpdir_path("a/top"), &options, EPERM,
                   "looks like qcow2");
    options.backing_format = QCOW2_FORMAT_RAW;
    expect_open("a/top", &options);
}

static void
test_backing_none_opens_nothing(void **state)
{
    struct qcow2_options options = readonly;
    struct qcow2_disk *disk;

    (void)state;
    make("a/top", "size 1M; backing gone raw");
    options.backing_none = true;
    disk = open_with(tmpdir_path("a/top"), &options);
    expect_byte(disk, 0, 0);
    qcow2_close(disk, NULL);
}

/* Sharing. */

static unsigned
nr_layers(const struct qcow2_pool *pool)
{
    unsigned nr = 0;

    for (const struct layer *l = pool->layers; l; l = l->next)
        nr++;
    return nr;
}

static void
test_layers_are_shared_and_closed_with_the_last_user(void **state)
{
    struct qcow2_options options = readonly;
    struct qcow2_disk *one, *two, *three;
    struct qcow2_error err;

    (void)state;
    make_text("a/raw", "raw");
    make("a/base", "size 1M; backing raw raw");
    make("a/one", "size 1M; backing base qcow2");
    make("a/two", "size 1M; backing ../a/base qcow2");
    make("a/three", "size 1M; backing raw raw");
    options.pool = qcow2_pool_new(0, &err);
    assert_non_null(options.pool);
    one = open_with(tmpdir_path("a/one"), &options);
    two = open_with(tmpdir_path("a/two"), &options);
    three = open_with(tmpdir_path("a/three"), &options);
    assert_int_equal(nr_layers(options.pool), 2);
    assert_ptr_equal(disk_image(one)->chain->layers[1],
                     disk_image(two)->chain->layers[1]);
    assert_ptr_equal(disk_image(one)->chain->layers[2],
                     disk_image(three)->chain->layers[1]);
    qcow2_close(one, NULL);
    assert_int_equal(nr_layers(options.pool), 2);
    qcow2_close(two, NULL);
    assert_int_equal(nr_layers(options.pool), 1);
    expect_byte(three, 0, 'r');
    qcow2_close(three, NULL);
    assert_int_equal(nr_layers(options.pool), 0);
    qcow2_pool_free(options.pool);
}

static void
test_what_differs_is_not_shared(void **state)
{
    struct qcow2_options options = readonly;
    struct qcow2_disk *one, *two, *three;

    (void)state;
    make("a/base", "size 1M");
    make("a/one", "size 1M; backing base qcow2");
    make("a/two", "size 1M; backing base raw");
    options.pool = qcow2_pool_new(0, NULL);
    one = open_with(tmpdir_path("a/one"), &options);
    two = open_with(tmpdir_path("a/two"), &options);
    options.no_lock = true;
    three = open_with(tmpdir_path("a/one"), &options);
    assert_int_equal(nr_layers(options.pool), 3);
    qcow2_close(one, NULL);
    qcow2_close(two, NULL);
    qcow2_close(three, NULL);
    qcow2_pool_free(options.pool);
}

static void
test_what_one_disk_may_open_another_may_not(void **state)
{
    const char *allow[] = { "/" };
    struct qcow2_options options = readonly;
    struct qcow2_disk *disk;

    (void)state;
    make_text("b/raw", "secret");
    make("a/base", "size 1M; backing ../b/raw raw");
    make("a/top", "size 1M; backing base qcow2");
    options.pool = qcow2_pool_new(0, NULL);
    options.allow = allow;
    options.nr_allow = 1;
    disk = open_with(tmpdir_path("a/top"), &options);
    options.nr_allow = 0;
    expect_refused(tmpdir_path("a/top"), &options, EPERM, "outside");
    assert_int_equal(nr_layers(options.pool), 2);
    expect_byte(disk, 0, 's');
    qcow2_close(disk, NULL);
    qcow2_pool_free(options.pool);
}

static void
test_failed_open_leaves_no_layers(void **state)
{
    struct qcow2_options options = readonly;

    (void)state;
    make("a/base", "size 1M; backing gone raw");
    make("a/mid", "size 1M; backing base qcow2");
    make("a/top", "size 1M; backing mid qcow2");
    options.pool = qcow2_pool_new(0, NULL);
    expect_refused(tmpdir_path("a/top"), &options, ENOENT, "gone");
    assert_int_equal(nr_layers(options.pool), 0);
    qcow2_pool_free(options.pool);
}

static void
test_layer_replaced_while_in_use_is_noticed(void **state)
{
    struct qcow2_options options = readonly;
    struct qcow2_disk *disk;

    (void)state;
    make_text("a/raw", "old");
    make("a/base", "size 1M; backing raw raw");
    make("a/top", "size 1M; backing base qcow2");
    options.pool = qcow2_pool_new(0, NULL);
    disk = open_with(tmpdir_path("a/top"), &options);
    make_text("a/new", "new");
    assert_int_equal(rename(tmpdir_path("a/new"), tmpdir_path("a/raw")), 0);
    expect_refused(tmpdir_path("a/top"), &options, EIO, "replaced");
    expect_byte(disk, 0, 'o');
    qcow2_close(disk, NULL);
    qcow2_pool_free(options.pool);
}

static void
test_layers_in_use_are_locked(void **state)
{
    struct qcow2_options options = { .fd = -1 };
    struct qcow2_disk *disk, *base;

    (void)state;
    make("a/base", "size 1M");
    make("a/one", "size 1M; backing base qcow2");
    make("a/two", "size 1M; backing base qcow2");
    disk = open_with(tmpdir_path("a/one"), &options);
    expect_open("a/two", &options);
    expect_refused(tmpdir_path("a/base"), &options, EBUSY, "a/base");
    qcow2_close(disk, NULL);

    base = open_with(tmpdir_path("a/base"), &options);
    expect_refused(tmpdir_path("a/one"), &options, EBUSY,
                   "backing file 'base' of '");
    options.no_lock = true;
    expect_open("a/one", &options);
    qcow2_close(base, NULL);
}

static void
test_pool_has_a_least_size(void **state)
{
    struct qcow2_pool *pool = qcow2_pool_new(1, NULL);

    (void)state;
    assert_int_equal(cache_max_bytes(pool->meta), 1 << 20);
    assert_int_equal(cache_max_bytes(decompress_pool_cache(pool->decompress)),
                     1 << 19);
    qcow2_pool_free(pool);
    pool = qcow2_pool_new(0, NULL);
    assert_int_equal(cache_max_bytes(pool->meta), 32 << 20);
    qcow2_pool_free(pool);
    qcow2_pool_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_layers_are_read_through_a_chain),
        TEST(test_names_in_a_linked_layer_start_where_the_link_is),
        TEST(test_image_named_by_its_descriptor_starts_at_its_file),
        TEST(test_allowed_uris_are_refused_before_they_are_needed),
        TEST(test_missing_layer_is_told_with_who_names_it),
        TEST(test_damaged_layer_is_told_with_its_file),
        TEST(test_dirty_or_corrupt_layers_are_read),
        TEST(test_loops_are_refused),
        TEST(test_loops_by_other_names_or_formats_are_refused),
        TEST(test_chain_of_a_thousand_works),
        TEST(test_chain_has_a_limit),
        TEST(test_too_few_descriptors_are_told),
        TEST(test_undeclared_raw_is_taken),
        TEST(test_refusals_have_the_hints_that_help),
        TEST(test_undeclared_format_is_not_guessed),
        TEST(test_undeclared_format_further_down_is_settled_in_the_image),
        TEST(test_declared_raw_is_raw_whatever_it_looks_like),
        TEST(test_other_declared_formats_are_refused_by_name),
        TEST(test_backing_option_is_trusted),
        TEST(test_names_in_a_trusted_layer_are_not_trusted),
        TEST(test_declared_raw_is_not_about_another_file),
        TEST(test_backing_none_opens_nothing),
        TEST(test_layers_are_shared_and_closed_with_the_last_user),
        TEST(test_what_differs_is_not_shared),
        TEST(test_what_one_disk_may_open_another_may_not),
        TEST(test_failed_open_leaves_no_layers),
        TEST(test_layer_replaced_while_in_use_is_noticed),
        TEST(test_layers_in_use_are_locked),
        TEST(test_pool_has_a_least_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
