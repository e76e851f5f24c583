/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-order.c: the backend that asserts the order of writes lets pass
 * what is in order with clusters, and sees each way of breaking it.
 */
#include "order-scene.h"

static void
an_allocation_in_order_passes(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    fill_cluster(&s, s.fresh);
    set_refcount(&s, s.fresh, 1);
    flush(&s);
    set_l2(&s, 2, s.fresh | COPIED);
    /* Data in place, of the old and of the new cluster. */
    fill_cluster(&s, s.data[0]);
    fill_cluster(&s, s.fresh);
    flush(&s);
    fill_cluster(&s, s.fresh);
    flush(&s);
    expect_in_order(&s);
}

static void
data_in_place_may_be_pending_when_its_entry_is_written(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    fill_cluster(&s, s.fresh);
    set_refcount(&s, s.fresh, 1);
    flush(&s);
    fill_cluster(&s, s.fresh);
    set_l2(&s, 2, s.fresh | COPIED);
    expect_in_order(&s);
}

static void
the_refcount_comes_before_the_entry(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    fill_cluster(&s, s.fresh);
    flush(&s);
    set_refcount(&s, s.fresh, 1);
    set_l2(&s, 2, s.fresh | COPIED);
    expect_violation(&s, "refcount 0");
}

static void
the_data_comes_before_the_entry(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_refcount(&s, s.fresh, 1);
    flush(&s);
    fill_cluster(&s, s.fresh);
    set_l2(&s, 2, s.fresh | COPIED);
    expect_violation(&s, "is not durable");
}

static void
a_flush_that_began_earlier_does_not_count(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    flush(&s);
    fill_cluster(&s, s.fresh);
    set_refcount(&s, s.fresh, 1);
    set_l2(&s, 2, s.fresh | COPIED);
    assert_true(s.report.nr_violations > 0);
    tear_down(&s);
}

static void
old_bytes_are_never_shown(void **state)
{
    unsigned char half[CLUSTER / 2] = "x";
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    io_pwrite(s.io, half, sizeof half, s.stale, NULL);
    set_refcount(&s, s.stale, 1);
    flush(&s);
    set_l2(&s, 2, s.stale | COPIED);
    expect_violation(&s, "old byte at 0x100");

    set_up(&s, TWO_CLUSTERS);
    io_pwrite(s.io, half, sizeof half, s.stale, NULL);
    io_zero(s.io, s.stale + sizeof half, CLUSTER - sizeof half, 0, NULL);
    set_refcount(&s, s.stale, 1);
    flush(&s);
    set_l2(&s, 2, s.stale | COPIED);
    expect_in_order(&s);
}

/* Guest cluster 1 is freed; the order is right. */
static void
free_data_1(struct scene *s)
{
    set_l2(s, 1, 0);
    flush(s);
    set_refcount(s, s->data[1], 0);
    assert_int_equal(io_punch(s->io, s->data[1], CLUSTER, NULL), 0);
}

static void
a_freed_cluster_may_be_reused_once_that_is_durable(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    free_data_1(&s);
    fill_cluster(&s, s.data[1]);
    set_refcount(&s, s.data[1], 1);
    flush(&s);
    set_l2(&s, 7, s.data[1] | COPIED);
    flush(&s);
    expect_in_order(&s);
}

static void
refcounts_fall_after_the_entry_is_durable(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_l2(&s, 1, 0);
    set_refcount(&s, s.data[1], 0);
    expect_violation(&s, "refcount 0");
}

/* With lazy refcounts they may come late, from when the dirty bit is durable
 * until it is cleared; data may not. */
#define LAZY "compatible 0; " TWO_CLUSTERS

static void
point_to_fresh(struct scene *s, bool mark, bool mark_is_durable)
{
    set_up(s, LAZY);
    if (mark && mark_is_durable)
        put(s, 72, 8, 1);
    fill_cluster(s, s->fresh);
    flush(s);
    if (mark && !mark_is_durable)
        put(s, 72, 8, 1);
    set_l2(s, 2, s->fresh | COPIED);
}

static void
lazy_refcounts_wait_behind_a_durable_dirty_bit(void **state)
{
    struct scene s;

    (void)state;
    point_to_fresh(&s, true, true);
    flush(&s);
    set_refcount(&s, s.fresh, 1);
    flush(&s);
    put(&s, 72, 8, 0);
    expect_in_order(&s);

    point_to_fresh(&s, true, false);
    expect_violation(&s, "refcount 0");
    point_to_fresh(&s, false, false);
    expect_violation(&s, "refcount 0");

    point_to_fresh(&s, true, true);
    flush(&s);
    set_refcount(&s, s.fresh, 1);
    put(&s, 72, 8, 0);
    expect_violation(&s, "refcount 0");
}

static void
no_others_wait_there(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    put(&s, 72, 8, 1);
    fill_cluster(&s, s.fresh);
    flush(&s);
    set_l2(&s, 2, s.fresh | COPIED);
    expect_violation(&s, "refcount 0");
}

static void
nor_do_data_with_lazy_refcounts(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, LAZY);
    put(&s, 72, 8, 1);
    flush(&s);
    fill_cluster(&s, s.fresh);
    set_l2(&s, 2, s.fresh | COPIED);
    expect_violation(&s, "is not durable");
}

static void
a_punch_comes_after_the_entry_is_durable(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_l2(&s, 1, 0);
    io_punch(s.io, s.data[1], CLUSTER, NULL);
    expect_violation(&s, "I3");
}

/* The new owner's data went to the cluster while the old entry could still
 * come back; everything else is in order. */
static void
reuse_comes_after_the_entry_is_durable(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_l2(&s, 1, 0);
    fill_cluster(&s, s.data[1]);
    flush(&s);
    flush(&s);
    set_l2(&s, 7, s.data[1] | COPIED);
    expect_violation(&s, "old byte");
}

static void
two_entries_never_share_a_cluster_unnoticed(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_l2(&s, 7, s.data[1] | COPIED);
    expect_violation(&s, "I1");
}

static void
copied_is_for_a_refcount_of_one(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    fill_cluster(&s, s.fresh);
    set_refcount(&s, s.fresh, 2);
    flush(&s);
    set_l2(&s, 2, s.fresh | COPIED);
    expect_violation(&s, "COPIED");

    set_up(&s, TWO_CLUSTERS);
    set_refcount(&s, s.data[0], 2);
    expect_violation(&s, "COPIED");
}

static void
a_new_l2_table_that_reads_as_zeroes_may_be_written_late(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_refcount(&s, s.fresh, 1);
    set_refcount(&s, s.fresh2, 1);
    fill_cluster(&s, s.fresh2);
    flush(&s);
    /* Its first entry and the entry for it, between the same barriers. */
    put(&s, s.fresh + 8, 8, s.fresh2 | COPIED);
    put(&s, s.l1 + 8, 8, s.fresh | COPIED);
    put(&s, s.fresh + 16, 8, 0);
    flush(&s);
    expect_in_order(&s);
}

static void
a_new_l2_table_never_shows_old_bytes(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_refcount(&s, s.stale, 1);
    io_zero(s.io, s.stale, CLUSTER, 0, NULL);
    put(&s, s.l1 + 8, 8, s.stale | COPIED);
    assert_true(s.report.nr_violations > 0);
    tear_down(&s);
}

static void
entries_of_a_new_l2_table_need_refcounts_too(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_refcount(&s, s.fresh, 1);
    fill_cluster(&s, s.fresh2);
    flush(&s);
    put(&s, s.l1 + 8, 8, s.fresh | COPIED);
    put_in_slice(&s, s.fresh + 8, 8, s.fresh2 | COPIED);
    expect_violation(&s, "refcount 0");
}

/* With a snapshot the L2 table and the data are shared. */
#define WITH_SNAPSHOT "data 0-1 5; snapshot 1 s"

static void
shared_clusters_are_not_written_in_place(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, WITH_SNAPSHOT);
    fill_cluster(&s, s.data[0]);
    expect_violation(&s, "2 references");

    set_up(&s, WITH_SNAPSHOT);
    set_l2(&s, 5, ZERO);
    expect_violation(&s, "2 references");
}

/* The copy of the shared table: what it has in common with it first. */
static void
copy_l2(struct scene *s, uint64_t to)
{
    unsigned char buf[CLUSTER];

    assert_int_equal(io_pread(s->io, buf, CLUSTER, s->l2, NULL), 0);
    assert_int_equal(io_pwrite(s->io, buf, CLUSTER, to, NULL), 0);
    set_refcount(s, to, 1);
}

static void
a_shared_l2_table_is_replaced_by_its_copy(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, WITH_SNAPSHOT);
    copy_l2(&s, s.fresh);
    set_refcount(&s, s.fresh2, 1);
    fill_cluster(&s, s.fresh2);
    flush(&s);
    put(&s, s.fresh, 8, s.fresh2 | COPIED);
    put(&s, s.l1, 8, s.fresh | COPIED);
    flush(&s);
    set_refcount(&s, s.data[0], 1);
    set_refcount(&s, s.l2, 1);
    flush(&s);
    expect_in_order(&s);
}

static void
the_copy_of_an_l2_table_comes_before_its_entry(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, WITH_SNAPSHOT);
    set_refcount(&s, s.fresh, 1);
    flush(&s);
    copy_l2(&s, s.fresh);
    put(&s, s.l1, 8, s.fresh | COPIED);
    expect_violation(&s, "the copy at");
}

static void
snapshot_tables_are_never_changed_in_place(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, WITH_SNAPSHOT);
    put(&s, get(&s, 64, 8) + 40, 1, 'X');
    expect_violation(&s, "snapshot's table");

    set_up(&s, WITH_SNAPSHOT);
    put(&s, get(&s, get(&s, 64, 8), 8), 8, 0);
    expect_violation(&s, "snapshot's table");
}

/* Guest cluster 2 is compressed: 61 bits of place, then its sectors. */
#define WITH_COMPRESSED "data 0-1 5; compressed 2 6"
#define PLACE(entry) ((entry) & ((UINT64_C(1) << 61) - 1))

static void
compressed_data_is_never_changed_in_place(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, WITH_COMPRESSED);
    put(&s, PLACE(get(&s, s.l2 + 16, 8)), 1, 'X');
    expect_violation(&s, "changes compressed data");
}

static void
compressed_data_is_durable_before_its_entry(void **state)
{
    uint64_t entry = UINT64_C(1) << 62;
    struct scene s;

    (void)state;
    for (int in_order = 0; in_order <= 1; in_order++) {
        set_up(&s, WITH_COMPRESSED);
        put(&s, s.stale + 8, 8, 1);
        set_refcount(&s, s.stale, 1);
        flush(&s);
        set_l2(&s, 3, entry | (s.stale + 8));
        flush(&s);

        /* Another one beside it. */
        put(&s, s.stale + 100, 8, 2);
        set_refcount(&s, s.stale, 2);
        if (in_order)
            flush(&s);
        put(&s, s.stale + 200, 8, 3);
        set_l2(&s, 4, entry | (s.stale + 100));
        if (in_order)
            expect_in_order(&s);
        else
            expect_violation(&s, "I");
    }

    set_up(&s, WITH_COMPRESSED);
    set_refcount(&s, s.stale, 1);
    flush(&s);
    put(&s, s.stale + 8, 8, 1);
    set_l2(&s, 3, entry | (s.stale + 8));
    expect_violation(&s, "is not durable");
}

static void
the_place_of_a_zero_cluster_is_filled_before_it_shows(void **state)
{
    struct scene s;
    uint64_t place;

    (void)state;
    set_up(&s, "data 0-1 5; zero-alloc 2");
    place = get(&s, s.l2 + 16, 8) & ~(COPIED | ZERO);
    fill_cluster(&s, place);
    flush(&s);
    set_l2(&s, 2, place | COPIED);
    flush(&s);
    expect_in_order(&s);

    set_up(&s, "data 0-1 5; zero-alloc 2");
    fill_cluster(&s, place);
    set_l2(&s, 2, place | COPIED);
    expect_violation(&s, "is not durable");

    set_up(&s, "data 0-1 5; zero-alloc 2");
    set_l2(&s, 2, place | COPIED);
    expect_violation(&s, "old byte");
}

/* Guest cluster 1 is zeroed, keeping its place, and written again while a
 * flush makes the zeroing durable. */
static void
a_cluster_may_be_written_again_while_its_zeroing_is_flushed(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    set_l2(&s, 1, s.data[1] | COPIED | ZERO);
    fill_cluster(&s, s.data[1]);
    flush(&s);
    set_l2(&s, 1, s.data[1] | COPIED);
    flush(&s);
    expect_in_order(&s);

    /* It is for nobody else. */
    set_up(&s, TWO_CLUSTERS);
    set_l2(&s, 1, s.data[1] | COPIED | ZERO);
    flush(&s);
    set_l2(&s, 1, 0);
    flush(&s);
    set_l2(&s, 7, s.data[1] | COPIED);
    expect_violation(&s, "old byte");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_allocation_in_order_passes),
        cmocka_unit_test(
            data_in_place_may_be_pending_when_its_entry_is_written),
        cmocka_unit_test(the_refcount_comes_before_the_entry),
        cmocka_unit_test(the_data_comes_before_the_entry),
        cmocka_unit_test(a_flush_that_began_earlier_does_not_count),
        cmocka_unit_test(old_bytes_are_never_shown),
        cmocka_unit_test(a_freed_cluster_may_be_reused_once_that_is_durable),
        cmocka_unit_test(refcounts_fall_after_the_entry_is_durable),
        cmocka_unit_test(lazy_refcounts_wait_behind_a_durable_dirty_bit),
        cmocka_unit_test(no_others_wait_there),
        cmocka_unit_test(nor_do_data_with_lazy_refcounts),
        cmocka_unit_test(a_punch_comes_after_the_entry_is_durable),
        cmocka_unit_test(reuse_comes_after_the_entry_is_durable),
        cmocka_unit_test(two_entries_never_share_a_cluster_unnoticed),
        cmocka_unit_test(copied_is_for_a_refcount_of_one),
        cmocka_unit_test(
            a_new_l2_table_that_reads_as_zeroes_may_be_written_late),
        cmocka_unit_test(a_new_l2_table_never_shows_old_bytes),
        cmocka_unit_test(entries_of_a_new_l2_table_need_refcounts_too),
        cmocka_unit_test(shared_clusters_are_not_written_in_place),
        cmocka_unit_test(a_shared_l2_table_is_replaced_by_its_copy),
        cmocka_unit_test(the_copy_of_an_l2_table_comes_before_its_entry),
        cmocka_unit_test(snapshot_tables_are_never_changed_in_place),
        cmocka_unit_test(compressed_data_is_never_changed_in_place),
        cmocka_unit_test(compressed_data_is_durable_before_its_entry),
        cmocka_unit_test(the_place_of_a_zero_cluster_is_filled_before_it_shows),
        cmocka_unit_test(
            a_cluster_may_be_written_again_while_its_zeroing_is_flushed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
