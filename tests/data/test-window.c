/* SPDX-License-Identifier: BSD-3-Clause */
/* test-window.c: images that are a part of a file. What is around them stays
 * as it is, whatever is done to them, and they never get longer.
 */
#include <errno.h>
#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "play.h"
#include "tmpdir.h"

enum { BEFORE = 7 * 512, BEHIND = 5000, NR_REQUESTS = 120 };

struct scene {
    struct qcow2_options options;
    size_t image_bytes;
};

/* The image, and room behind it, between bytes of others. */
static struct scene
make(const char *recipe, size_t room, uint64_t offset)
{
    struct scene s = { .options = QCOW2_OPTIONS_INIT };
    unsigned char *image, *file;

    tmpdir_clear();
    builder_make(tmpdir_path("image"), recipe);
    image = tmpdir_read_file(tmpdir_path("image"), &s.image_bytes);
    s.image_bytes += room;
    file = calloc(1, offset + s.image_bytes + BEHIND);
    memset(file, 'b', offset);
    memcpy(file + offset, image, s.image_bytes - room);
    memset(file + offset + s.image_bytes, 'e', BEHIND);
    tmpdir_write_file(tmpdir_path("archive"), file,
                      offset + s.image_bytes + BEHIND);
    s.options.window = (struct qcow2_window){ offset, s.image_bytes };
    free(file);
    free(image);
    return s;
}

static void
expect_others_unharmed(const struct scene *s)
{
    uint64_t offset = s->options.window.offset;
    size_t nr_bytes;
    unsigned char *file = tmpdir_read_file(tmpdir_path("archive"),
                                           &nr_bytes);

    EXPECT(nr_bytes == offset + s->image_bytes + BEHIND, "%zu bytes",
           nr_bytes);
    for (size_t i = 0; i < offset; i++)
        EXPECT(file[i] == 'b', "byte %zu in front", i);
    for (size_t i = offset + s->image_bytes; i < nr_bytes; i++)
        EXPECT(file[i] == 'e', "byte %zu behind", i);
    free(file);
}

static struct qcow2_disk *
open_disk(const struct scene *s, bool readonly, struct qcow2_error *err)
{
    struct qcow2_options o = s->options;

    o.readonly = readonly;
    return qcow2_open(tmpdir_path("archive"), &o, err);
}

static void
expect_clean(const struct scene *s)
{
    const struct qcow2_check_options o = { .window = s->options.window };
    struct qcow2_check_result result;
    struct qcow2_error err;

    EXPECT_OK(qcow2_check(tmpdir_path("archive"), &o, &result, &err), &err);
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.leaks, 0);
    assert_in_range(result.image_end_offset, 1, s->image_bytes);
}

static void
play_on(struct scene *s, uint64_t seed)
{
    struct qcow2_error err;
    struct qcow2_disk *disk = open_disk(s, false, &err);
    unsigned char *content;
    struct play p;
    struct rng r;

    if (!disk && err.errnum == ENOTSUP)
        skip(); /* no direct I/O */
    EXPECT(disk, "%s", err.text);
    content = malloc(qcow2_get_size(disk) + 1);
    EXPECT_OK(qcow2_pread(disk, content, qcow2_get_size(disk), 0, &err),
              &err);
    memset(&p, 0, sizeof p);
    play_init(&p, content, qcow2_get_size(disk));
    p.disk = disk;
    p.cluster_size = qcow2_get_cluster_size(disk);
    rng_init(&r, rng_seed(1), seed);
    for (unsigned i = 0; i < NR_REQUESTS; i++) {
        struct op op = play_random(&p, &r, i);

        expect_step("%u: %s", i, play_text(&op));
        EXPECT_OK(play_op(&p, &op, &err), &err);
    }
    play_verify(&p);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    p.disk = open_disk(s, true, &err);
    EXPECT(p.disk, "%s", err.text);
    play_verify(&p);
    qcow2_close(p.disk, NULL);
    expect_others_unharmed(s);
    expect_clean(s);
    play_free(&p);
    free(content);
}

static void
requests_stay_inside(void **state)
{
    static const char *const recipes[] = {
        "cluster 512; size 41000; data 0-9 1; compressed 12-13 2; zero 20",
        "cluster 4K; size 300000; data 0-9 1; compressed 12-13 2",
    };

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct scene s = make(recipes[i % 2], 600 << 10,
                              i & 4 ? 4096 : BEFORE);

        expect_case("%s, %s", recipes[i % 2], i & 2 ? "direct" : "cached");
        s.options.cache = i & 2 ? QCOW2_CACHE_NONE : QCOW2_CACHE_WRITEBACK;
        play_on(&s, i);
    }
}

/* As an archive has it: the image ends where it ends. */
static void
a_full_window_has_no_space(void **state)
{
    struct scene s = make("cluster 4K; size 1M; data 0-9 1", 0, BEFORE);
    unsigned char buf[4096], got[4096];
    struct qcow2_error err;
    struct qcow2_disk *disk = open_disk(&s, false, &err);

    (void)state;
    EXPECT(disk, "%s", err.text);
    memset(buf, 'n', sizeof buf);
    EXPECT_OK(qcow2_pwrite(disk, buf, sizeof buf, 0, 0, &err), &err);
    for (uint64_t off = 10 * 4096; off < 1 << 20; off += 65536) {
        if (qcow2_pwrite(disk, buf, sizeof buf, off, 0, &err) == 0)
            continue; /* there was a free cluster */
        assert_int_equal(err.errnum, ENOSPC);
        EXPECT_OK(qcow2_pread(disk, got, sizeof got, off, &err), &err);
        assert_int_equal(got[0], 0);
    }
    assert_int_equal(qcow2_pwrite(disk, buf, sizeof buf, 900 << 10, 0, &err),
                     -1);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    expect_others_unharmed(&s);
    expect_clean(&s);
}

static void
raw_disks_have_what_the_window_has(void **state)
{
    struct scene s = make("cluster 512; size 41000; data 0-9 1", 0, BEFORE);
    unsigned char byte = 'r';
    struct qcow2_error err;
    struct qcow2_disk *disk;

    (void)state;
    s.options.format = QCOW2_FORMAT_RAW;
    s.options.window.size = 1000;
    disk = open_disk(&s, false, &err);
    EXPECT(disk, "%s", err.text);
    assert_int_equal(qcow2_get_size(disk), 1000);
    EXPECT_OK(qcow2_pwrite(disk, &byte, 1, 999, 0, &err), &err);
    EXPECT_OK(qcow2_zero(disk, 500, 499, 0, &err), &err);
    assert_int_equal(qcow2_pwrite(disk, &byte, 1, 1000, 0, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    assert_int_equal(qcow2_resize(disk, 2000, false, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    assert_int_equal(qcow2_resize(disk, 500, true, &err), -1);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    s.options.window = (struct qcow2_window){ BEFORE + s.image_bytes, 0 };
    disk = open_disk(&s, false, &err);
    EXPECT(disk, "%s", err.text);
    assert_int_equal(qcow2_get_size(disk), BEHIND);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    s.options.window = (struct qcow2_window){ BEFORE, s.image_bytes };
    expect_others_unharmed(&s);
}

static void
an_image_of_unknown_size_is_only_read(void **state)
{
    struct scene s = make("cluster 512; size 41000; data 0-9 1", 0, BEFORE);
    struct qcow2_check_options check = { .repair = QCOW2_REPAIR_ALL };
    struct qcow2_check_result result;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    (void)state;
    s.options.window.size = 0;
    assert_null(open_disk(&s, false, &err));
    assert_int_equal(err.errnum, EROFS);
    assert_true(err.hints & QCOW2_HINT_READONLY);
    disk = open_disk(&s, true, &err);
    EXPECT(disk, "%s", err.text);
    assert_in_range(qcow2_get_size(disk), 40960, 41472);
    qcow2_close(disk, NULL);
    check.window = s.options.window;
    assert_int_equal(qcow2_check(tmpdir_path("archive"), &check, &result,
                                 &err), -1);
    assert_int_equal(err.errnum, EROFS);
    expect_others_unharmed(&s);
}

static void
a_window_lies_inside_the_file(void **state)
{
    struct scene s = make("cluster 512; size 41000; data 0-9 1", 0, BEFORE);
    const struct qcow2_window bad[] = {
        { BEFORE + s.image_bytes + BEHIND + 1, 0 },
        { BEFORE + s.image_bytes + BEHIND, 1 },
        { BEFORE, s.image_bytes + BEHIND + 1 },
        { UINT64_MAX, 0 }, { UINT64_MAX, UINT64_MAX },
        { BEFORE, UINT64_MAX }, { UINT64_MAX - BEFORE, BEFORE + 10 },
        { 0, INT64_MAX },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct qcow2_info_options o = { .window = bad[i] };
        struct qcow2_error err;

        expect_case("window %u", i);
        s.options.window = bad[i];
        EXPECT(!open_disk(&s, true, &err), "it opened");
        assert_int_equal(err.errnum, EINVAL);
        assert_null(qcow2_get_info(tmpdir_path("archive"), &o, &err));
        assert_int_equal(err.errnum, EINVAL);
    }
}

/* Two windows of a file are one file to locks: nobody else writes to it. */
static void
the_whole_file_is_locked(void **state)
{
    struct scene s = make("cluster 512; size 41000; data 0-9 1", 0, BEFORE);
    struct scene other = s;
    struct qcow2_error err;
    struct qcow2_disk *disk = open_disk(&s, false, &err);

    (void)state;
    EXPECT(disk, "%s", err.text);
    other.options.format = QCOW2_FORMAT_RAW;
    other.options.window = (struct qcow2_window){ 0, 512 };
    assert_null(open_disk(&other, true, &err));
    assert_int_equal(err.errnum, EBUSY);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_stay_inside),
        cmocka_unit_test(a_full_window_has_no_space),
        cmocka_unit_test(raw_disks_have_what_the_window_has),
        cmocka_unit_test(an_image_of_unknown_size_is_only_read),
        cmocka_unit_test(a_window_lies_inside_the_file),
        cmocka_unit_test(the_whole_file_is_locked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
