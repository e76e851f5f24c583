/* SPDX-License-Identifier: BSD-3-Clause */
/* test-txn: the frame of operations that have an image alone. */
#include "meta/txn.h"

#include <errno.h>
#include <string.h>

#include "bare.h"
#include "base/error.h"
#include "expect.h"
#include "meta/map.h"

static const char recipe[] = "size 1M; backing base raw; autoclear 5;"
                             "data 0-3 1";

/* The incompatible features as the file has them. */
static uint64_t
features_on_disk(struct bare *b)
{
    struct io *io = io_mem_open(b->mem, true);
    struct qcow2_error err;
    uint64_t features;
    struct header h;

    EXPECT_OK(header_read(io, &h, &err), &err);
    features = h.incompatible;
    header_free(&h);
    io_close(io);
    return features;
}

static void
the_dirty_bit_is_set_between_begin_and_end(void **state)
{
    struct qcow2_error err;
    struct bare b;
    struct txn t;

    (void)state;
    bare_open(&b, recipe);
    EXPECT_OK(txn_begin(&t, b.img, TXN_TABLES | TXN_DIRTY, &err), &err);
    assert_int_equal(features_on_disk(&b), INCOMPAT_DIRTY);
    assert_int_not_equal(pthread_rwlock_tryrdlock(&b.img->rwlock), 0);
    EXPECT_OK(txn_end(&t, 0, &err), &err);
    assert_int_equal(features_on_disk(&b), 0);
    assert_int_equal(pthread_rwlock_tryrdlock(&b.img->rwlock), 0);
    pthread_rwlock_unlock(&b.img->rwlock);

    EXPECT_OK(txn_begin(&t, b.img, TXN_TABLES, &err), &err);
    assert_int_equal(features_on_disk(&b), 0);
    EXPECT_OK(txn_end(&t, 0, &err), &err);
    bare_close(&b);
}

/* Failing with what was begun taken back leaves nothing; failing in the middle
 * leaves the bit, also after the next operation. */
static void
what_cannot_be_taken_back_stays_marked(void **state)
{
    struct qcow2_error err = { .errnum = 7 };
    struct bare b;
    struct txn t;

    (void)state;
    bare_open(&b, recipe);
    EXPECT_OK(txn_begin(&t, b.img, TXN_DIRTY, &err), &err);
    assert_int_equal(txn_end(&t, -1, &err), -1);
    assert_int_equal(features_on_disk(&b), 0);

    EXPECT_OK(txn_begin(&t, b.img, TXN_DIRTY, &err), &err);
    t.unsettled = true;
    assert_int_equal(txn_end(&t, -1, &err), -1);
    assert_int_equal(features_on_disk(&b), INCOMPAT_DIRTY);
    EXPECT_OK(txn_begin(&t, b.img, TXN_DIRTY, &err), &err);
    t.unsettled = true;
    EXPECT_OK(txn_end(&t, 0, &err), &err);
    assert_int_equal(features_on_disk(&b), INCOMPAT_DIRTY);
    bare_drop(&b);
}

/* err of the operation is not replaced by what ending finds. */
static void
the_first_failure_is_returned(void **state)
{
    struct qcow2_error err;
    struct bare b;
    struct txn t;

    (void)state;
    bare_open(&b, recipe);
    EXPECT_OK(txn_begin(&t, b.img, TXN_DIRTY, &err), &err);
    image_fail(b.img);
    error_set(&err, EBADF, "the first");
    assert_int_equal(txn_end(&t, -1, &err), -1);
    assert_string_equal(err.text, "the first");
    assert_int_equal(txn_begin(&t, b.img, TXN_DIRTY, &err), -1);
    assert_int_equal(err.errnum, EIO);
    bare_drop(&b);
}

static void
another_view_is_refused_unless_it_does_not_matter(void **state)
{
    struct qcow2_error err;
    struct bare b;
    struct txn t;

    (void)state;
    bare_open(&b, recipe);
    b.img->overridden = true;
    assert_int_equal(txn_begin(&t, b.img, TXN_TABLES, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    assert_int_equal(pthread_rwlock_tryrdlock(&b.img->rwlock), 0);
    pthread_rwlock_unlock(&b.img->rwlock);
    EXPECT_OK(txn_begin(&t, b.img, TXN_TABLES | TXN_ANY_VIEW, &err), &err);
    EXPECT_OK(txn_end(&t, 0, &err), &err);
    bare_close(&b);
}

static void
the_header_alone_leaves_autoclear_bits(void **state)
{
    const struct header_update rename = {
        .parts = HEADER_SET_BACKING, .backing_file = "other",
        .backing_format = "qcow2",
    };
    struct qcow2_error err;
    struct bare b;
    struct txn t;

    (void)state;
    bare_start(&b, recipe, 0);
    EXPECT(bare_try(&b, &err), "%s", err.text);
    EXPECT_OK(txn_begin(&t, b.img, TXN_HEADER_ONLY, &err), &err);
    EXPECT_OK(txn_switch(&t, &rename, &err), &err);
    EXPECT_OK(txn_end(&t, 0, &err), &err);
    assert_int_equal(b.img->hdr.autoclear, 1 << 5);
    assert_string_equal(b.img->hdr.backing_file, "other");
    EXPECT_OK(txn_begin(&t, b.img, 0, &err), &err);
    EXPECT_OK(txn_end(&t, 0, &err), &err);
    assert_int_equal(b.img->hdr.autoclear, 0);
    bare_close(&b);
}

/* A reader that holds no lock finds damage in the middle. */
static void
a_corrupt_bit_set_meanwhile_stays(void **state)
{
    const struct header_update rename = {
        .parts = HEADER_SET_BACKING, .backing_file = "other",
    };
    struct qcow2_error err;
    struct bare b;
    struct txn t;

    (void)state;
    bare_open(&b, recipe);
    EXPECT_OK(txn_begin(&t, b.img, 0, &err), &err);
    image_damaged(b.img, &err, "damage");
    EXPECT_OK(txn_switch(&t, &rename, &err), &err);
    txn_end(&t, 0, &err);
    assert_int_equal(features_on_disk(&b), INCOMPAT_CORRUPT);
    bare_drop(&b);
}

/* What somebody else wrote to the file is what is read after it. */
static void
past_the_image_everything_is_read_anew(void **state)
{
    be64 none = be64_make(0);
    struct qcow2_error err;
    struct mapping m;
    struct bare b;
    struct txn t;

    (void)state;
    bare_open(&b, recipe);
    EXPECT_OK(map_lookup(&b.img->active, 0, 512, &m, &err), &err);
    assert_int_equal(m.kind, MAP_DATA);
    EXPECT_OK(txn_begin(&t, b.img, TXN_PAST_IMAGE, &err), &err);
    EXPECT_OK(io_pwrite(b.img->io, &none, sizeof none, b.img->hdr.l1_offset,
                        &err), &err);
    EXPECT_OK(txn_end(&t, 0, &err), &err);
    EXPECT_OK(map_lookup(&b.img->active, 0, 512, &m, &err), &err);
    assert_int_equal(m.kind, MAP_UNALLOCATED);
    bare_drop(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dirty_bit_is_set_between_begin_and_end),
        cmocka_unit_test(what_cannot_be_taken_back_stays_marked),
        cmocka_unit_test(the_first_failure_is_returned),
        cmocka_unit_test(another_view_is_refused_unless_it_does_not_matter),
        cmocka_unit_test(the_header_alone_leaves_autoclear_bits),
        cmocka_unit_test(a_corrupt_bit_set_meanwhile_stays),
        cmocka_unit_test(past_the_image_everything_is_read_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
