/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-order-subclusters.c: with extended L2 entries the backend that
 * asserts the order of writes knows subclusters, each shown by its own bit.
 */
#include <stdlib.h>

#include "builder.h"
#include "expect.h"
#include "io-mem.h"
#include "io-order.h"

enum { CLUSTER = 16 << 10, SUBCLUSTER = CLUSTER / 32, SLICE = 4096 };

#define COPIED  (UINT64_C(1) << 63)
#define ALLOC_0 UINT64_C(1)
#define ZERO_0  (UINT64_C(1) << 32)

struct scene {
    struct mem *mem;
    struct io *io;
    struct order_report report;
    uint64_t l2, data; /* host offsets; data is cluster 0's */
    uint64_t bitmap;   /* of cluster 0 */
};

static uint64_t
get(struct scene *s, uint64_t off)
{
    unsigned char buf[8];
    uint64_t n = 0;

    assert_int_equal(io_pread(s->io, buf, 8, off, NULL), 0);
    for (unsigned i = 0; i < 8; i++)
        n = n << 8 | buf[i];
    return n;
}

static void
set_up(struct scene *s, const char *recipe)
{
    struct builder *b = builder_new();
    const unsigned char *bytes;
    size_t nr_bytes;

    memset(s, 0, sizeof *s);
    builder_add(b, "cluster 16K; extended-l2; size 1M;"
                "subclusters 0 ddu 5; data 1; %s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    s->mem = mem_new(bytes, nr_bytes);
    builder_free(b);
    s->io = io_order_new(io_mem_open(s->mem, false), &s->report);
    s->l2 = get(s, get(s, 40)) & ~COPIED;
    s->data = get(s, s->l2) & ~COPIED;
    s->bitmap = get(s, s->l2 + 8);
    assert_int_equal(s->bitmap, 3);
}

static void
fill_subcluster(struct scene *s, unsigned i)
{
    unsigned char buf[SUBCLUSTER];

    memset(buf, 'd', sizeof buf);
    assert_int_equal(io_pwrite(s->io, buf, sizeof buf,
                               s->data + i * SUBCLUSTER, NULL), 0);
}

/* The slice is written with it. */
static void
set_bitmap(struct scene *s, uint64_t bitmap)
{
    unsigned char slice[SLICE];

    assert_int_equal(io_pread(s->io, slice, SLICE, s->l2, NULL), 0);
    for (unsigned i = 16; i-- > 8; bitmap >>= 8)
        slice[i] = bitmap;
    assert_int_equal(io_pwrite(s->io, slice, SLICE, s->l2, NULL), 0);
}

static void
flush(struct scene *s)
{
    assert_int_equal(io_flush(s->io, NULL), 0);
}

static void
tear_down(struct scene *s)
{
    io_close(s->io);
    mem_free(s->mem);
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

static void
a_subcluster_in_order_passes(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, "");
    fill_subcluster(&s, 2);
    flush(&s);
    set_bitmap(&s, s.bitmap | ALLOC_0 << 2);
    /* In place, also what was just added. */
    fill_subcluster(&s, 0);
    fill_subcluster(&s, 2);
    flush(&s);
    set_bitmap(&s, s.bitmap | ALLOC_0 << 2 | ZERO_0 << 3);
    flush(&s);
    expect_in_order(&s);
}

static void
the_data_come_before_their_bit(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, "");
    fill_subcluster(&s, 2);
    set_bitmap(&s, s.bitmap | ALLOC_0 << 2);
    expect_violation(&s, "is not durable");
}

static void
old_bytes_of_the_cluster_are_never_shown(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, "");
    fill_subcluster(&s, 2);
    flush(&s);
    set_bitmap(&s, s.bitmap | ALLOC_0 << 2 | ALLOC_0 << 3);
    expect_violation(&s, "old byte at 0x0");
}

static void
a_bitmap_that_contradicts_itself_is_seen(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, "");
    set_bitmap(&s, s.bitmap | ZERO_0);
    expect_violation(&s, "allocated and zero");
}

static void
subclusters_of_a_shared_cluster_are_not_changed_in_place(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, "snapshot 1 s; data 1");
    fill_subcluster(&s, 1);
    expect_violation(&s, "which has 2 references");
}

static void
only_hidden_subclusters_are_punched(void **state)
{
    struct scene s;

    (void)state;
    set_up(&s, "");
    io_punch(s.io, s.data + 2 * SUBCLUSTER, SUBCLUSTER, NULL);
    EXPECT(s.report.nr_violations == 0, "%s", s.report.first);
    io_punch(s.io, s.data + SUBCLUSTER, SUBCLUSTER, NULL);
    expect_violation(&s, "is in use");
}

static void
the_copy_of_a_table_holds_the_bitmaps(void **state)
{
    struct scene s;
    unsigned char table[CLUSTER], l1[8];
    uint64_t copy, l1_off;

    (void)state;
    /* The copy lies where the recipe left room, without the bitmap yet. */
    set_up(&s, "leak 1");
    copy = s.data + 2 * CLUSTER;
    l1_off = get(&s, 40);
    assert_int_equal(io_pread(s.io, table, CLUSTER, s.l2, NULL), 0);
    table[15] = 0;
    assert_int_equal(io_pwrite(s.io, table, CLUSTER, copy, NULL), 0);
    flush(&s);
    table[15] = 3;
    assert_int_equal(io_pwrite(s.io, table, CLUSTER, copy, NULL), 0);
    for (unsigned i = 0; i < 8; i++)
        l1[i] = (copy | COPIED) >> (56 - 8 * i);
    assert_int_equal(io_pwrite(s.io, l1, 8, l1_off, NULL), 0);
    expect_violation(&s, "of the L2 table");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_subcluster_in_order_passes),
        cmocka_unit_test(the_data_come_before_their_bit),
        cmocka_unit_test(old_bytes_of_the_cluster_are_never_shown),
        cmocka_unit_test(a_bitmap_that_contradicts_itself_is_seen),
        cmocka_unit_test(
            subclusters_of_a_shared_cluster_are_not_changed_in_place),
        cmocka_unit_test(only_hidden_subclusters_are_punched),
        cmocka_unit_test(the_copy_of_a_table_holds_the_bitmaps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
