/* SPDX-License-Identifier: BSD-3-Clause */
/* test-hostile: images with entries that are valid but lie: guest data that
 * is metadata, COPIED flags that are not true, or are missing.
 */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "disk/open.h"
#include "expect.h"
#include "oracle.h"
#include "rig.h"
#include "tmpdir.h"

enum { C = 4096, CORRUPT_BYTE = 79, CORRUPT = 2 };

#define IMAGE "cluster 4K; size 4M; data 0-7 1; snapshot 1 first; data 0-7 2;"

static const struct qcow2_snapshot_create_options plain = { 0 };

/* The metadata's place in the file follows "poke l2[1] =". */
static const char *const metadata[] = {
    "@l1", "@reftable", "@refblock[0]", "@l2[0]", "@snapshots",
    "@snapshot-l1[0]", "0x4000000000000000 + @l1",
    "1 + @reftable", "1 + 0x8000000000000000 + @l1",
};

static void
start(struct rig *r, const char *recipe)
{
    expect_case("%s", recipe);
    rig_init(r, recipe, 0);
    rig_open(r);
}

/* Writing, zeroing or trimming gives up what the cluster was: that must not
 * free, and then punch, what it never owned. */
static void
metadata_is_not_given_up_as_data(void **state)
{
    static const enum op_kind kinds[] = { OP_WRITE, OP_ZERO, OP_TRIM };

    (void)state;
    for (size_t i = 0; i < 3 * (sizeof metadata / sizeof metadata[0]); i++) {
        enum op_kind kind = kinds[i % 3];
        char recipe[256];
        struct rig r;
        unsigned char buf[C];
        const unsigned char *now;
        struct audit before, after;
        struct qcow2_error err;
        uint64_t nr_bytes;

        snprintf(recipe, sizeof recipe, IMAGE "poke l2[1] = %s",
                 metadata[i / 3]);
        start(&r, recipe);
        now = mem_bytes(r.mem, &nr_bytes);
        audit_image(now, nr_bytes, &before);
        memset(buf, 0x11, sizeof buf);
        /* It may be refused at once, or harm nothing. */
        if (kind == OP_WRITE)
            qcow2_pwrite(r.play.disk, buf, C, C, 0, NULL);
        else if (kind == OP_ZERO)
            qcow2_zero(r.play.disk, C, C, QCOW2_MAY_TRIM, NULL);
        else
            qcow2_trim(r.play.disk, C, C, 0, NULL);
        EXPECT_OK(qcow2_flush(r.play.disk, &err), &err);
        EXPECT(qcow2_pwrite(r.play.disk, buf, C, 0, 0, &err) == -1,
               "writes go on");
        EXPECT_OK(qcow2_close(r.play.disk, &err), &err);

        now = mem_bytes(r.mem, &nr_bytes);
        EXPECT(now[CORRUPT_BYTE] & CORRUPT, "not marked");
        audit_image(now, nr_bytes, &after);
        EXPECT(after.nr_corruptions <= before.nr_corruptions,
               "%u corruptions: %s", after.nr_corruptions, after.first);
        r.options.readonly = true;
        r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, true));
        rig_expect_snapshots(&r, r.play.disk);
        qcow2_close(r.play.disk, NULL);
        rig_end(&r);
        rig_free(&r);
    }
}

/* The same from a snapshot's table. */
static void
operations_on_snapshots_do_not_count_metadata_as_data(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof metadata / sizeof metadata[0]; i++) {
        char recipe[256];
        struct rig r;
        struct qcow2_error err;

        snprintf(recipe, sizeof recipe, "cluster 4K; size 4M; data 0-7 1;"
                 "snapshot 1 first; poke l2[1] = %s", metadata[i]);
        start(&r, recipe);
        EXPECT(qcow2_snapshot_create(r.play.disk, "second", &plain, &err)
                   == -1 && err.errnum == EIO, "created");
        qcow2_close(r.play.disk, NULL);
        rig_end(&r);
        rig_free(&r);

        start(&r, recipe);
        EXPECT(qcow2_snapshot_delete(r.play.disk, "first", &err) == -1
                   && err.errnum == EIO, "deleted");
        qcow2_close(r.play.disk, NULL);
        rig_end(&r);
        rig_free(&r);
    }
}

/* An entry may point to a cluster that is free. Once that has become a table
 * it is metadata as much as what was there when the image was opened. */
static void
what_became_a_table_is_not_written_as_data(void **state)
{
    struct qcow2_error err;
    unsigned char got[C];
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 16M; data 0 1; gap 1; data 2 2;"
          "poke l2[1] = 0x8000000000000000 + @data[2] - @cluster");
    rig_play(&r, OP_WRITE, 512 * C, C, 0); /* makes a table in the gap */
    rig_flush(&r);
    EXPECT(qcow2_pwrite(r.play.disk, "x", 1, C, 0, &err) == -1
           && err.errnum == EIO, "written");
    EXPECT_OK(qcow2_pread(r.play.disk, got, C, 512 * C, &err), &err);
    expect_same("cluster of the new table", got,
                r.play.model.disk + 512 * C, C, 512 * C);
    qcow2_close(r.play.disk, NULL);
    rig_end(&r);
    rig_free(&r);
}

/* COPIED in a table that is shared cannot be true. */
static void
what_a_shared_table_maps_is_not_written_in_place(void **state)
{
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 4M; data 0-3 1; zero-alloc 4-5;"
          "snapshot 1 first;"
          "poke l2[0] | 0x8000000000000000; poke l2[4] | 0x8000000000000000");
    rig_play(&r, OP_WRITE, 100, 1000, 0);
    rig_play(&r, OP_WRITE, 4 * C + 100, 1000, 0);
    rig_expect_snapshots(&r, r.play.disk);
    rig_play(&r, OP_ZERO, 0, 50, 0);
    rig_expect_snapshots(&r, r.play.disk);
    EXPECT(qcow2_close(r.play.disk, NULL) == 0, "close");
    rig_end(&r);
    rig_free(&r);
}

/* So it is not true in the copy of that table either. */
static void
what_the_copy_of_a_shared_table_maps_is_not_written_in_place(void **state)
{
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 4M; data 0-3 1; zero-alloc 4-5;"
          "snapshot 1 first;"
          "poke l2[0] | 0x8000000000000000; poke l2[4] | 0x8000000000000000");
    rig_play(&r, OP_WRITE, 2 * C, C, 0); /* makes the copy */
    rig_play(&r, OP_WRITE, 100, 1000, 0);
    rig_play(&r, OP_WRITE, 4 * C + 100, 1000, 0);
    rig_expect_snapshots(&r, r.play.disk);
    EXPECT(qcow2_close(r.play.disk, NULL) == 0, "close");
    rig_end(&r);
    rig_free(&r);
}

/* A table that is ours alone, but does not say so, is copied too; then its
 * cluster is free, and can be used for anything. */
static void
a_table_without_copied_becomes_free_space(void **state)
{
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 4M; data 0-15 1;"
          "poke l1[0] & 0x7fffffffffffffff");
    for (unsigned i = 0; i < 16; i++)
        rig_play(&r, OP_WRITE, i * C, C, 0);
    /* To the size it has: now no request can be in the old table. */
    EXPECT_OK(qcow2_resize(r.play.disk, 4 << 20, false, &err), &err);
    for (unsigned i = 16; i < 64; i++)
        rig_play(&r, OP_WRITE, i * C, C, 0);
    rig_close(&r);
    rig_free(&r);
}

/* With enough of them, walks over all that a few bytes claim to map would
 * never end: operations on the whole disk refuse, and change nothing. */
static void
a_table_that_an_l1_table_names_twice_is_not_walked(void **state)
{
    struct qcow2_error err;
    struct rig r;

    (void)state;
    start(&r, "cluster 4K; size 4M; data 0-7 1;"
          "poke l1[1] = @l2[0]; poke l1[0] & 0x7fffffffffffffff");
    assert_int_equal(qcow2_snapshot_create(r.play.disk, "a", &plain, &err),
                     -1);
    EXPECT(err.errnum == EIO && strstr(err.text, "two entries"), "%s",
           err.text);
    assert_int_equal(qcow2_resize(r.play.disk, C, true, &err), -1);
    assert_int_equal(err.errnum, EIO);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    rig_end(&r);
    rig_free(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_is_not_given_up_as_data),
        cmocka_unit_test(
            operations_on_snapshots_do_not_count_metadata_as_data),
        cmocka_unit_test(what_became_a_table_is_not_written_as_data),
        cmocka_unit_test(what_a_shared_table_maps_is_not_written_in_place),
        cmocka_unit_test(
            what_the_copy_of_a_shared_table_maps_is_not_written_in_place),
        cmocka_unit_test(a_table_without_copied_becomes_free_space),
        cmocka_unit_test(a_table_that_an_l1_table_names_twice_is_not_walked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
