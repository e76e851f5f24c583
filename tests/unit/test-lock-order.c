/* SPDX-License-Identifier: BSD-3-Clause */
/* test-lock-order.c: each way of taking the engine's locks in a wrong order,
 * or of doing I/O under one that forbids it, is seen; the right one is not.
 */
#include <stdlib.h>

#include "bare.h"
#include "expect.h"
#include "lock-order.h"
#include "rig.h"

struct scene {
    struct bare bare;
    struct image *img;
    struct lock_report report;
};

static void
set_up(struct scene *s)
{
    memset(s, 0, sizeof *s);
    bare_open(&s->bare, "cluster 4K; size 1M; data 0-3 1");
    s->img = s->bare.img;
    lock_order_report = &s->report;
}

static void
tear_down(struct scene *s)
{
    cache_drop_owner(s->img->meta, s);
    lock_order_report = NULL;
    bare_close(&s->bare);
}

static void
expect_seen(struct scene *s, const char *what)
{
    EXPECT(s->report.nr_violations > 0, "not seen: %s", what);
    EXPECT(strstr(s->report.first, what), "%s instead of %s",
           s->report.first, what);
    tear_down(s);
}

static int
no_load(void *opaque, uint64_t key, void *data, uint32_t size,
        struct qcow2_error *err)
{
    (void)opaque, (void)key, (void)err;
    memset(data, 0, size);
    return 0;
}

static struct block *
get_block(struct scene *s, uint64_t key)
{
    struct block *b = cache_get(s->img->meta, s, key, 4096, no_load, NULL,
                                NULL);

    EXPECT(b, "memory");
    return b;
}

static void
the_declared_order_passes(void **state)
{
    struct scene s;
    struct range low, high, table;
    struct block *b;
    unsigned char byte;

    (void)state;
    set_up(&s);
    pthread_rwlock_rdlock(&s.img->rwlock);
    pthread_mutex_lock(&s.img->begin);
    range_lock_shared(&s.img->ranges, &low, 0, 100);
    range_lock_shared(&s.img->ranges, &high, 4 << 20, (4 << 20) + 1);
    range_lock_exclusive(&s.img->tables, &table, 0, 1);
    pthread_mutex_lock(&s.img->alloc.packing);
    pthread_mutex_lock(&s.img->alloc.grow);
    assert_int_equal(io_pread(s.img->io, &byte, 1, 0, NULL), 0);
    b = get_block(&s, 0);
    pthread_mutex_lock(&s.img->alloc.lock);
    pthread_mutex_lock(&b->lock);
    pthread_mutex_lock(&s.img->alloc.refcounts.lock);
    pthread_mutex_unlock(&s.img->alloc.refcounts.lock);
    pthread_mutex_lock(&s.img->overlap.lock);
    pthread_mutex_unlock(&s.img->overlap.lock);
    pthread_mutex_unlock(&b->lock);
    pthread_mutex_unlock(&s.img->alloc.lock);
    cache_put(b);
    pthread_mutex_unlock(&s.img->alloc.packing);
    pthread_mutex_unlock(&s.img->alloc.grow);
    range_unlock(&s.img->tables, &table);
    range_unlock(&s.img->ranges, &high);
    range_unlock(&s.img->ranges, &low);
    pthread_mutex_unlock(&s.img->begin);
    pthread_rwlock_unlock(&s.img->rwlock);
    EXPECT(s.report.nr_violations == 0, "%s", s.report.first);
    tear_down(&s);
}

static void
an_upper_lock_is_not_taken_under_a_lower_one(void **state)
{
    struct scene s;
    struct range r;

    (void)state;
    set_up(&s);
    pthread_mutex_lock(&s.img->alloc.lock);
    pthread_mutex_lock(&s.img->alloc.grow);
    pthread_mutex_unlock(&s.img->alloc.grow);
    pthread_mutex_unlock(&s.img->alloc.lock);
    expect_seen(&s, "takes alloc.grow (4) while it holds alloc.lock (5)");

    set_up(&s);
    range_lock_shared(&s.img->ranges, &r, 0, 1);
    pthread_rwlock_rdlock(&s.img->rwlock);
    pthread_rwlock_unlock(&s.img->rwlock);
    range_unlock(&s.img->ranges, &r);
    expect_seen(&s, "takes image.rwlock (1) while it holds image.ranges (3)");
}

static void
nothing_is_taken_twice_or_under_a_leaf(void **state)
{
    struct scene s;
    struct block *a, *b;

    (void)state;
    set_up(&s);
    pthread_rwlock_rdlock(&s.img->rwlock);
    pthread_rwlock_rdlock(&s.img->rwlock);
    pthread_rwlock_unlock(&s.img->rwlock);
    pthread_rwlock_unlock(&s.img->rwlock);
    expect_seen(&s, "image.rwlock (1) while it holds image.rwlock");

    set_up(&s);
    a = get_block(&s, 0);
    b = get_block(&s, 4096);
    pthread_mutex_lock(&a->lock);
    pthread_mutex_lock(&b->lock);
    pthread_mutex_unlock(&b->lock);
    pthread_mutex_unlock(&a->lock);
    cache_put(a);
    cache_put(b);
    expect_seen(&s, "block.lock (6) while it holds block.lock");

    set_up(&s);
    pthread_mutex_lock(&s.img->flush.lock);
    pthread_mutex_lock(&s.img->alloc.frees_lock);
    pthread_mutex_unlock(&s.img->alloc.frees_lock);
    pthread_mutex_unlock(&s.img->flush.lock);
    expect_seen(&s, "a leaf (7)");
}

static void
windows_are_locked_upwards(void **state)
{
    struct scene s;
    struct range low, high;

    (void)state;
    set_up(&s);
    range_lock_shared(&s.img->ranges, &high, 4 << 20, (4 << 20) + 1);
    range_lock_shared(&s.img->ranges, &low, 0, 1);
    range_unlock(&s.img->ranges, &low);
    range_unlock(&s.img->ranges, &high);
    expect_seen(&s, "a range of image.ranges below one that it holds");
}

static void
two_images_are_not_locked_at_once(void **state)
{
    struct bare other;
    struct scene s;

    (void)state;
    bare_open(&other, "cluster 4K; size 1M");
    set_up(&s);
    pthread_rwlock_rdlock(&other.img->rwlock);
    pthread_mutex_lock(&s.img->begin);
    pthread_mutex_unlock(&s.img->begin);
    pthread_rwlock_unlock(&other.img->rwlock);
    expect_seen(&s, "image.begin of one image, and holds image.rwlock of");
    bare_close(&other);
}

static void
no_io_under_what_is_never_held_over_it(void **state)
{
    unsigned char byte;
    struct scene s;
    struct block *b;

    (void)state;
    set_up(&s);
    pthread_mutex_lock(&s.img->alloc.lock);
    io_pread(s.img->io, &byte, 1, 0, NULL);
    pthread_mutex_unlock(&s.img->alloc.lock);
    expect_seen(&s, "reads while it holds alloc.lock (5)");

    set_up(&s);
    b = get_block(&s, 0);
    pthread_mutex_lock(&b->lock);
    io_flush(s.img->io, NULL);
    pthread_mutex_unlock(&b->lock);
    cache_put(b);
    expect_seen(&s, "flushes while it holds block.lock (6)");

    set_up(&s);
    pthread_mutex_lock(&s.img->alloc.lock);
    pthread_mutex_lock(&s.img->feature_lock);
    io_pread(s.img->io, &byte, 1, 0, NULL);
    pthread_mutex_unlock(&s.img->feature_lock);
    pthread_mutex_unlock(&s.img->alloc.lock);
    EXPECT(s.report.nr_violations == 0, "%s", s.report.first);
    tear_down(&s);
}

/* Otherwise all of this would assert nothing. */
static void
the_engines_own_locks_are_seen(void **state)
{
    unsigned long before[8];
    struct rig r;

    (void)state;
    for (unsigned rank = 1; rank < 8; rank++)
        before[rank] = lock_order_taken(rank);
    /* The write needs a new L2 table. */
    rig_init(&r, "cluster 4K; size 4M; data 0-3 1", 0);
    rig_open(&r);
    rig_play(&r, OP_WRITE, 3 << 20, 100000, 0);
    rig_close(&r);
    rig_free(&r);
    for (unsigned rank = 1; rank < 8; rank++)
        EXPECT(lock_order_taken(rank) > before[rank], "none of rank %u",
               rank);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_declared_order_passes),
        cmocka_unit_test(an_upper_lock_is_not_taken_under_a_lower_one),
        cmocka_unit_test(nothing_is_taken_twice_or_under_a_leaf),
        cmocka_unit_test(windows_are_locked_upwards),
        cmocka_unit_test(two_images_are_not_locked_at_once),
        cmocka_unit_test(no_io_under_what_is_never_held_over_it),
        cmocka_unit_test(the_engines_own_locks_are_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
