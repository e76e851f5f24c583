/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-order.c: the backend that asserts the order of writes lets pass
 * what is in order, and sees each way of breaking it.
 *
 * The image has clusters of 512 bytes: data in guest clusters 0 and 1, and
 * free clusters at its end, of which `fresh` was never written and `stale`
 * holds somebody's old bytes.
 */
#include <pthread.h>
#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "io-mem.h"
#include "io-order.h"
#include "rng.h"

enum { CLUSTER = 512 };

#define COPIED (UINT64_C(1) << 63)
#define ZERO   UINT64_C(1)

struct scene {
    struct mem *mem;
    struct io *io;
    struct order_report report;
    uint64_t l1, l2, reftable, refblock; /* host offsets */
    uint64_t data[2], fresh, stale, fresh2;
};

static uint64_t
get(struct scene *s, uint64_t off, unsigned nr_bytes)
{
    unsigned char buf[8];
    uint64_t n = 0;

    assert_int_equal(io_pread(s->io, buf, nr_bytes, off, NULL), 0);
    for (unsigned i = 0; i < nr_bytes; i++)
        n = n << 8 | buf[i];
    return n;
}

static void
put(struct scene *s, uint64_t off, unsigned nr_bytes, uint64_t n)
{
    unsigned char buf[8];

    for (unsigned i = nr_bytes; i-- > 0; n >>= 8)
        buf[i] = n;
    assert_int_equal(io_pwrite(s->io, buf, nr_bytes, off, NULL), 0);
}

static void
set_up(struct scene *s, const char *recipe)
{
    struct builder *b = builder_new();
    unsigned char junk[CLUSTER];
    const unsigned char *bytes;
    struct io *plain;
    size_t nr_bytes;

    memset(s, 0, sizeof *s);
    builder_add(b, "cluster 512; size 64K; %s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    s->mem = mem_new(bytes, nr_bytes);
    builder_free(b);

    /* Past all that the image has, whole clusters on. */
    s->stale = (nr_bytes + 4 * CLUSTER) / CLUSTER * CLUSTER;
    s->fresh = s->stale + CLUSTER;
    s->fresh2 = s->fresh + CLUSTER;
    memset(junk, 0x77, sizeof junk);
    plain = io_mem_open(s->mem, false);
    io_pwrite(plain, junk, CLUSTER, s->stale, NULL);
    s->io = io_order_new(plain, &s->report);

    s->l1 = get(s, 40, 8);
    s->l2 = get(s, s->l1, 8) & ~COPIED;
    s->reftable = get(s, 48, 8);
    s->refblock = get(s, s->reftable, 8);
    for (int i = 0; i < 2; i++)
        s->data[i] = get(s, s->l2 + 8 * i, 8) & ~COPIED;
}

static void
tear_down(struct scene *s)
{
    io_close(s->io);
    mem_free(s->mem);
}

/* The steps that allocations are made of. */

static void
fill_cluster(struct scene *s, uint64_t off)
{
    unsigned char buf[CLUSTER];

    memset(buf, 'd', sizeof buf);
    assert_int_equal(io_pwrite(s->io, buf, sizeof buf, off, NULL), 0);
}

static void
set_refcount(struct scene *s, uint64_t off, unsigned n)
{
    put(s, s->refblock + off / CLUSTER * 2, 2, n);
}

static void
set_l2(struct scene *s, unsigned index, uint64_t entry)
{
    put(s, s->l2 + 8 * index, 8, entry);
}

static void
flush(struct scene *s)
{
    assert_int_equal(io_flush(s->io, NULL), 0);
}

static void
expect_in_order(struct scene *s)
{
    EXPECT(s->report.nr_violations == 0, "%s", s->report.first);
    tear_down(s);
}

static void
expect_violation(struct scene *s, const char *what)
{
    EXPECT(s->report.nr_violations > 0, "not seen: %s", what);
    EXPECT(strstr(s->report.first, what), "%s instead of %s",
           s->report.first, what);
    tear_down(s);
}

#define TWO_CLUSTERS "data 0-1 5"

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
    set_l2(&s, 1, 0);
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
    put(&s, s.fresh + 8, 8, s.fresh2 | COPIED);
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

static void
the_header_changes_in_single_durable_writes(void **state)
{
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

    set_up(&s, "cluster 1024; data 0-1 5");
    put(&s, 600, 1, 1);
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
    put(&s, block + 2, 2, 1);
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
tables_are_written_in_whole_entries(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    put(&s, s.l2 + 20, 1, 2);
    expect_violation(&s, "I6");
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

static void
with_the_dirty_bit_refcounts_may_wait(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, TWO_CLUSTERS);
    put(&s, 72, 8, 1);
    flush(&s);
    fill_cluster(&s, s.fresh);
    flush(&s);
    set_l2(&s, 2, s.fresh | COPIED);
    flush(&s);
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
        cmocka_unit_test(an_allocation_in_order_passes),
        cmocka_unit_test(
            data_in_place_may_be_pending_when_its_entry_is_written),
        cmocka_unit_test(the_refcount_comes_before_the_entry),
        cmocka_unit_test(the_data_comes_before_the_entry),
        cmocka_unit_test(a_flush_that_began_earlier_does_not_count),
        cmocka_unit_test(old_bytes_are_never_shown),
        cmocka_unit_test(a_freed_cluster_may_be_reused_once_that_is_durable),
        cmocka_unit_test(refcounts_fall_after_the_entry_is_durable),
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
        cmocka_unit_test(
            the_place_of_a_zero_cluster_is_filled_before_it_shows),
        cmocka_unit_test(
            a_cluster_may_be_written_again_while_its_zeroing_is_flushed),
        cmocka_unit_test(the_header_changes_in_single_durable_writes),
        cmocka_unit_test(a_refcount_block_is_durable_before_it_is_named),
        cmocka_unit_test(
            a_moved_refcount_table_is_durable_before_it_is_named),
        cmocka_unit_test(what_is_in_use_is_not_cut_off),
        cmocka_unit_test(tables_are_written_in_whole_entries),
        cmocka_unit_test(data_on_a_table_is_seen),
        cmocka_unit_test(with_the_dirty_bit_refcounts_may_wait),
        cmocka_unit_test(what_is_no_image_is_left_alone),
        cmocka_unit_test(an_image_made_through_it_is_watched),
        cmocka_unit_test(threads_may_write_in_place_at_any_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
