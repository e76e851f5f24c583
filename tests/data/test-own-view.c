/* SPDX-License-Identifier: BSD-3-Clause */
/* test-own-view: operations that write what a disk reads refuse one that was
 * opened on another backing file than the image names, and change nothing.
 */
#include <errno.h>
#include <stdlib.h>

#include "expect.h"
#include "layers.h"
#include "tmpdir.h"

static int
amend(struct qcow2_disk *disk, struct qcow2_error *err)
{
    return qcow2_amend(disk, &(struct qcow2_amend_options){ .version = 2 },
                       err);
}

static int
grow(struct qcow2_disk *disk, struct qcow2_error *err)
{
    return qcow2_resize(disk, 2 << 20, false, err);
}

static int
preallocate(struct qcow2_disk *disk, struct qcow2_error *err)
{
    return qcow2_preallocate(disk, 1 << 20, 0, QCOW2_PREALLOC_METADATA, err);
}

static int (*const operations[])(struct qcow2_disk *disk,
                                 struct qcow2_error *err) = {
    amend, grow, preallocate,
};
enum { NR_OPERATIONS = sizeof operations / sizeof operations[0] };

static int
run(struct qcow2_job *job, struct qcow2_error *err)
{
    int r = job ? qcow2_job_run(job, NULL, NULL, err) : -1;

    qcow2_job_free(job);
    return r;
}

/* One of the operations, the commit or the rebase of the image "top". */
static int
do_nth(unsigned nth, const struct qcow2_options *options,
       struct qcow2_error *err)
{
    static const struct qcow2_commit_options commit;
    static const struct qcow2_rebase_options rebase;
    const char *path = tmpdir_path("top");
    struct qcow2_disk *disk;
    int r;

    if (nth == NR_OPERATIONS)
        return run(qcow2_commit(path, options, &commit, err), err);
    if (nth == NR_OPERATIONS + 1)
        return run(qcow2_rebase(path, options, &rebase, err), err);
    disk = qcow2_open(path, options, err);
    EXPECT(disk, "%s", err->text);
    r = operations[nth](disk, err);
    qcow2_close(disk, NULL);
    return r;
}

static void
make_images(void)
{
    tmpdir_clear();
    builder_make(tmpdir_path("base"), "size 1M; data 0-3 1");
    builder_make(tmpdir_path("other"), "size 2M; data 0-20 2");
    builder_make(tmpdir_path("top"), "size 1M; backing base qcow2; data 1 3;"
                 "zero 2-5");
}

static void
another_backing_file_does_not_become_the_disk(void **state)
{
    struct qcow2_options cases[3] = {
        QCOW2_OPTIONS_INIT, QCOW2_OPTIONS_INIT, QCOW2_OPTIONS_INIT
    };

    (void)state;
    for (unsigned i = 0; i < 3 * (NR_OPERATIONS + 2); i++) {
        unsigned nth = i / 3;
        unsigned char *before, *after;
        size_t nr_before, nr_after;
        struct qcow2_error err;

        make_images();
        expect_case("operation %u, case %u", nth, i % 3);
        cases[0].backing_none = true;
        cases[1].backing = tmpdir_path("other");
        cases[2].backing_format = QCOW2_FORMAT_RAW;
        before = tmpdir_read_file(tmpdir_path("top"), &nr_before);
        EXPECT(do_nth(nth, &cases[i % 3], &err) == -1, "no refusal");
        EXPECT(err.errnum == EINVAL && strstr(err.text, "backing file"),
               "errno %d: %s", err.errnum, err.text);
        after = tmpdir_read_file(tmpdir_path("top"), &nr_after);
        EXPECT(nr_before == nr_after
               && memcmp(before, after, nr_after) == 0, "it changed");
        free(before);
        free(after);
    }
}

static void
its_own_backing_file_can_be_given(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;

    (void)state;
    for (unsigned nth = 0; nth < NR_OPERATIONS + 2; nth++) {
        struct qcow2_error err;

        make_images();
        expect_case("operation %u", nth);
        options.backing = tmpdir_path("base");
        options.backing_format = QCOW2_FORMAT_QCOW2;
        EXPECT_OK(do_nth(nth, &options, &err), &err);
    }
}

/* They need no backing file, and copy nothing from it. */
static void
snapshots_do_not_mind(void **state)
{
    static const struct qcow2_snapshot_create_options plain;
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    (void)state;
    make_images();
    expect_case("snapshots");
    options.backing_none = true;
    disk = qcow2_open(tmpdir_path("top"), &options, &err);
    EXPECT(disk, "%s", err.text);
    EXPECT_OK(qcow2_snapshot_create(disk, "s", &plain, &err), &err);
    EXPECT_OK(qcow2_snapshot_apply(disk, "s", &err), &err);
    EXPECT_OK(qcow2_snapshot_delete(disk, "s", &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_backing_file_does_not_become_the_disk),
        cmocka_unit_test(its_own_backing_file_can_be_given),
        cmocka_unit_test(snapshots_do_not_mind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
