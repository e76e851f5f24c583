/* SPDX-License-Identifier: BSD-3-Clause */
/* test-snapshot-rules.c: what operations on snapshots refuse, keep and
 * promise: refcounts that are too narrow, names and ids, limits, VM state,
 * tables as older versions left them.
 */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "contents.h"
#include "expect.h"
#include "oracle.h"
#include "rig.h"
#include "tmpdir.h"

static const struct qcow2_snapshot_create_options plain = { 0 };

static void
start(struct rig *r, const char *recipe)
{
    expect_case("%s", recipe);
    rig_init(r, recipe, 0);
    rig_open(r);
}

/* Nothing is damaged or leaked. */
static void
finish(struct rig *r)
{
    const char *path = tmpdir_path("image");
    struct qcow2_error err;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    EXPECT_OK(qcow2_close(r->play.disk, &err), &err);
    bytes = mem_bytes(r->mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
    mem_save(r->mem, path);
    oracle_expect_clean(path);
    rig_end(r);
    rig_free(r);
}

static void
create(struct rig *r, const char *name)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_snapshot_create(r->play.disk, name, &plain, &err), &err);
}

static void
expect_refused(int r, const struct qcow2_error *err, int errnum)
{
    EXPECT(r == -1 && err->errnum == errnum, "returned %d, errno %d: %s", r,
           r == -1 ? err->errnum : 0, r == -1 ? err->text : "");
    EXPECT(err->text[0], "no text");
}

static void
expect_bytes(struct mem *got, struct mem *want)
{
    const unsigned char *is, *was;
    uint64_t nr_is, nr_was;

    is = mem_bytes(got, &nr_is);
    was = mem_bytes(want, &nr_was);
    EXPECT(nr_is == nr_was, "the file's size changes");
    expect_same("file after a refusal", is, was, nr_is, 0);
}

/* Creating is refused, and leaves every byte of the file as it was. */
static void
expect_create_refused(struct rig *r,
                      const struct qcow2_snapshot_create_options *o,
                      int errnum)
{
    struct mem *before = mem_copy(r->mem);
    struct qcow2_error err;

    expect_refused(qcow2_snapshot_create(r->play.disk, "one more", o, &err),
                   &err, errnum);
    expect_bytes(r->mem, before);
    mem_free(before);
}

static void
refcounts_too_narrow_are_refused_before_anything_changes(void **state)
{
    static const struct {
        unsigned nr; /* of snapshots that there is room for */
        const char *recipe;
    } cases[] = {
        { 0, "refcount-bits 1; cluster 4K; size 1M; data 3 1" },
        { 0, "refcount-bits 1; cluster 4K; size 1M; zero-alloc 3" },
        { 2, "refcount-bits 2; cluster 4K; size 1M; data 3-9 1" },
        { 14, "refcount-bits 4; cluster 4K; size 4M; data 3 1; data 700 1" },
        /* Several compressed clusters lie in one host cluster. */
        { 0, "refcount-bits 2; cluster 4K; size 1M; compressed 0-1 1" },
        { 2, "refcount-bits 4; cluster 4K; size 1M; compressed 0-20 1" },
        { 50, "refcount-bits 8; cluster 4K; size 1M; compressed 0-200 1" },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qcow2_error err;
        struct contents was;
        struct rig r;

        start(&r, cases[i].recipe);
        for (unsigned n = 0; n < cases[i].nr; n++)
            create(&r, "room");
        contents_read(&was, r.play.disk);
        expect_create_refused(&r, &plain, ENOTSUP);
        contents_expect(r.play.disk, &was);
        contents_free(&was);
        EXPECT_OK(qcow2_pwrite(r.play.disk, "x", 1, 7, 0, &err), &err);
        finish(&r);
    }
}

static void
applying_is_refused_where_refcounts_are_too_narrow(void **state)
{
    struct qcow2_error err;
    struct mem *before;
    struct rig r;

    (void)state;
    start(&r, "refcount-bits 2; cluster 4K; size 1M; compressed 0-1 1;"
              "data 7 1");
    expect_create_refused(&r, &plain, ENOTSUP);
    EXPECT_OK(qcow2_pwrite(r.play.disk, "x", 1, 0, 0, &err), &err);
    create(&r, "a");
    create(&r, "b");
    before = mem_copy(r.mem);
    expect_refused(qcow2_snapshot_apply(r.play.disk, "a", &err), &err,
                   ENOTSUP);
    expect_bytes(r.mem, before);
    mem_free(before);
    EXPECT_OK(qcow2_snapshot_delete(r.play.disk, "b", &err), &err);
    EXPECT_OK(qcow2_snapshot_apply(r.play.disk, "a", &err), &err);
    finish(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            refcounts_too_narrow_are_refused_before_anything_changes),
        cmocka_unit_test(applying_is_refused_where_refcounts_are_too_narrow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
