/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-order-tables.c: the same about the header and tables, and about
 * what the backend leaves alone.
 */
#include <pthread.h>

#include "order-scene.h"

static void
the_header_changes_in_single_durable_writes(void **state)
{
    static const char start[] = "cluster 1024; backing ";
    static const char end[] = " raw; data 0-1 5";
    char recipe[560] = "";
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    put(&s, 88, 8, 4); /* an autoclear bit */
    flush(&s);
    put(&s, 88, 8, 0);
    flush(&s);
    expect_in_order(&s);

    set_up(&s, TWO_CLUSTERS);
    put(&s, 88, 8, 4);
    put(&s, 80, 8, 1);
    expect_violation(&s, "I5");

    memset(recipe, 'n', sizeof recipe - 1);
    memcpy(recipe, start, sizeof start - 1);
    memcpy(recipe + sizeof recipe - 1 - (sizeof end - 1), end, sizeof end);
    set_up(&s, recipe);
    put(&s, 1000, 1, 1); /* no part of the header */
    assert_int_equal(s.report.nr_violations, 0);
    put(&s, 520, 1, 1);
    expect_violation(&s, "past the first sector");
}

/* A second refcount block, for clusters 256 and up. */
static void
a_refcount_block_is_durable_before_it_is_named(void **state)
{
    struct scene s;
    uint64_t block = 256 * CLUSTER;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    put(&s, block, 2, 1); /* counts itself */
    flush(&s);
    put(&s, s.reftable + 8, 8, block);
    flush(&s);
    put_in_slice(&s, block + 2, 2, 1);
    flush(&s);
    expect_in_order(&s);

    set_up(&s, TWO_CLUSTERS);
    put(&s, block, 2, 1);
    put(&s, s.reftable + 8, 8, block);
    assert_true(s.report.nr_violations > 0);
    tear_down(&s);
}

static void
a_moved_refcount_table_is_durable_before_it_is_named(void **state)
{
    unsigned char header[12] = { 0 };
    struct scene s;

    (void)state;
    for (int in_order = 0; in_order <= 1; in_order++) {
        set_up(&s, TWO_CLUSTERS);
        set_refcount(&s, s.fresh, 1);
        flush(&s);
        put(&s, s.fresh, 8, s.refblock);
        if (in_order)
            flush(&s);
        header[6] = s.fresh >> 8;
        header[11] = 1;
        assert_int_equal(s.fresh >> 16, 0);
        io_pwrite(s.io, header, sizeof header, 48, NULL);
        if (in_order)
            expect_in_order(&s);
        else
            expect_violation(&s, "I");
    }
}

static void
what_is_in_use_is_not_cut_off(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    io_truncate(s.io, s.fresh2, NULL);
    assert_int_equal(s.report.nr_violations, 0);
    io_truncate(s.io, s.data[1], NULL);
    expect_violation(&s, "cuts off");
}

static void
tables_are_written_in_whole_entries_and_slices(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    put(&s, s.l1 + 8 * 3 + 4, 1, 2);
    expect_violation(&s, "I6");
    set_up(&s, TWO_CLUSTERS);
    put(&s, s.l2 + 8, 8, 0);
    expect_violation(&s, "I6");
    set_up(&s, TWO_CLUSTERS);
    put(&s, s.refblock + 40, 2, 1);
    expect_violation(&s, "I6");
}

static void
metadata_is_not_zeroed(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    io_zero(s.io, s.l2, CLUSTER, 0, NULL);
    expect_violation(&s, "I6: zeroes");
}

/* Though each byte stays as it is but one, which may be the guest's. */
static void
one_write_is_of_metadata_or_of_data(void **state)
{
    unsigned char both[2 * CLUSTER];
    struct scene s;
    uint64_t first;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    first = s.data[0] - CLUSTER;
    assert_true(first == s.l2 || first == s.refblock || first == s.l1);
    io_pread(s.io, both, sizeof both, first, NULL);
    both[CLUSTER]++;
    io_pwrite(s.io, both, sizeof both, first, NULL);
    assert_int_equal(s.report.nr_violations, 0);
    both[CLUSTER - 1] ^= 1;
    io_pwrite(s.io, both, sizeof both, first, NULL);
    expect_violation(&s, "I6: metadata");
}

static void
data_on_a_table_is_seen(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    fill_cluster(&s, s.l2);
    assert_true(s.report.nr_violations > 0);
    tear_down(&s);
}

/* Whatever its flags say, a cluster that is not counted gets lost. */
static void
the_dirty_bit_excuses_flags_but_no_refcounts(void **state)
{
    struct scene s;

    (void)state;
    for (int dirty = 0; dirty <= 1; dirty++) {
        set_up(&s, TWO_CLUSTERS);
        put(&s, 72, 8, dirty);
        flush(&s);
        set_refcount(&s, s.data[0], 2);
        flush(&s);
        if (dirty)
            expect_in_order(&s);
        else
            expect_violation(&s, "COPIED");
    }
    set_up(&s, TWO_CLUSTERS);
    put(&s, 72, 8, 1);
    flush(&s);
    fill_cluster(&s, s.fresh);
    flush(&s);
    set_l2(&s, 2, s.fresh | COPIED);
    expect_violation(&s, "refcount 0");
}

/* Dirty and corrupt are set when something failed, whatever it was. */
static void
feature_bits_are_set_at_any_time(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    put(&s, 72, 8, 1);
    put(&s, 72, 8, 3);
    assert_int_equal(s.report.nr_violations, 0);
    flush(&s);
    put(&s, 72, 8, 2);
    put(&s, 72, 8, 0);
    expect_violation(&s, "I5");
}

static void
damage_that_was_there_is_not_the_writers(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS "; poke l2[3] = @l1");
    fill_cluster(&s, s.fresh);
    set_l2(&s, 2, s.fresh | COPIED);
    expect_in_order(&s);
}

static void
what_is_no_image_is_left_alone(void **state)
{
    struct order_report report = { 0 };
    struct mem *m = mem_new(NULL, 0);
    struct io *io = io_order_new(io_mem_open(m, false), &report);

    (void)state;
    io_pwrite(io, "data", 4, 70000, NULL);
    io_flush(io, NULL);
    io_punch(io, 0, 100000, NULL);
    assert_int_equal(report.nr_violations, 0);
    io_close(io);
    mem_free(m);
}

static void
an_image_made_through_it_is_watched(void **state)
{
    struct builder *b = builder_new();
    struct order_report report = { 0 };
    struct mem *m = mem_new(NULL, 0);
    struct io *io = io_order_new(io_mem_open(m, false), &report);
    const unsigned char *bytes;
    size_t nr_bytes;

    (void)state;
    builder_add(b, "cluster 512; size 64K; data 0-1 5");
    bytes = builder_bytes(b, &nr_bytes);
    io_pwrite(io, bytes + 512, nr_bytes - 512, 512, NULL);
    io_flush(io, NULL);
    io_pwrite(io, bytes, 512, 0, NULL);
    io_flush(io, NULL);
    assert_int_equal(report.nr_violations, 0);
    io_zero(io, 512, nr_bytes - 512, 0, NULL);
    assert_true(report.nr_violations > 0);
    io_close(io);
    mem_free(m);
    builder_free(b);
}

/* Data in place from many threads, while one allocates and frees. */
struct crowd {
    struct scene *s;
    bool done; /* atomic */
};

static void *
write_in_place(void *opaque)
{
    struct crowd *crowd = opaque;
    unsigned char buf[100];

    memset(buf, 'p', sizeof buf);
    while (!__atomic_load_n(&crowd->done, __ATOMIC_RELAXED)) {
        io_pwrite(crowd->s->io, buf, sizeof buf, crowd->s->data[0] + 33,
                  NULL);
        io_flush(crowd->s->io, NULL);
    }
    return NULL;
}

static void
threads_may_write_in_place_at_any_time(void **state)
{
    struct scene s;
    struct crowd crowd = { .s = &s };
    pthread_t threads[2];

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, write_in_place, &crowd);
    for (int i = 0; i < 200; i++) {
        fill_cluster(&s, s.fresh);
        set_refcount(&s, s.fresh, 1);
        flush(&s);
        set_l2(&s, 2, s.fresh | COPIED);
        fill_cluster(&s, s.fresh);
        flush(&s);
        set_l2(&s, 2, 0);
        flush(&s);
        set_refcount(&s, s.fresh, 0);
        io_punch(s.io, s.fresh, CLUSTER, NULL);
    }
    __atomic_store_n(&crowd.done, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    expect_in_order(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_header_changes_in_single_durable_writes),
        cmocka_unit_test(a_refcount_block_is_durable_before_it_is_named),
        cmocka_unit_test(a_moved_refcount_table_is_durable_before_it_is_named),
        cmocka_unit_test(what_is_in_use_is_not_cut_off),
        cmocka_unit_test(tables_are_written_in_whole_entries_and_slices),
        cmocka_unit_test(metadata_is_not_zeroed),
        cmocka_unit_test(one_write_is_of_metadata_or_of_data),
        cmocka_unit_test(data_on_a_table_is_seen),
        cmocka_unit_test(the_dirty_bit_excuses_flags_but_no_refcounts),
        cmocka_unit_test(feature_bits_are_set_at_any_time),
        cmocka_unit_test(damage_that_was_there_is_not_the_writers),
        cmocka_unit_test(what_is_no_image_is_left_alone),
        cmocka_unit_test(an_image_made_through_it_is_watched),
        cmocka_unit_test(threads_may_write_in_place_at_any_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
