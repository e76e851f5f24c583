/* SPDX-License-Identifier: BSD-3-Clause */
/* test-cache.c: blocks found, loaded once, pinned, evicted and dropped; what
 * is dirty is taken, and given back.
 */
#include "cache/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/error.h"
#include "expect.h"
#include "rng.h"

enum {
    SIZE = 4096,
    COST = SIZE + sizeof(struct block), /* of a block, in memory */
    NR_THREADS = 8,
};

static const char owner, other;

/* Fills blocks with their key, and counts. */
struct loads {
    unsigned nr;        /* atomic */
    unsigned nr_to_fail;
};

static int
load(void *opaque, uint64_t key, void *data, uint32_t size,
     struct qcow2_error *err)
{
    struct loads *l = opaque;
    unsigned n = __atomic_add_fetch(&l->nr, 1, __ATOMIC_SEQ_CST);

    if (n <= l->nr_to_fail)
        return error_set(err, EIO, "load %u", n);
    for (uint32_t i = 0; i < size / sizeof key; i++)
        ((uint64_t *)data)[i] = key;
    return 0;
}

/* What cache_preload asks for: neighbours. */
static int
load_many(void *opaque, uint64_t key, const struct iovec *vec, int nr)
{
    struct loads *l = opaque;

    for (int i = 0; i < nr; i++)
        if (load(l, key + (uint64_t)i * SIZE, vec[i].iov_base,
                 vec[i].iov_len, NULL) == -1)
            return -1;
    return 0;
}

static bool
holds(const struct block *b, uint64_t value)
{
    const uint64_t *words = (const uint64_t *)b->data;

    for (uint32_t i = 0; i < b->size / sizeof value; i++)
        if (words[i] != value)
            return false;
    return true;
}

static struct cache *
make_cache(unsigned nr_blocks)
{
    struct cache *c = cache_new((uint64_t)nr_blocks * COST, NULL);

    assert_non_null(c);
    return c;
}

static struct block *
get(struct cache *c, struct loads *l, uint64_t key)
{
    struct qcow2_error err;
    struct block *b = cache_get(c, &owner, key, SIZE, load, l, &err);

    EXPECT(b, "%s", err.text);
    return b;
}

static void
a_block_is_loaded_by_the_first_who_asks(void **state)
{
    struct cache *c = make_cache(4);
    struct loads l = { 0 };
    struct block *b, *again;

    (void)state;
    assert_null(cache_peek(c, &owner, 7));
    b = get(c, &l, 7);
    assert_true(holds(b, 7));
    again = get(c, &l, 7);
    assert_ptr_equal(again, b);
    cache_put(again);
    again = cache_peek(c, &owner, 7);
    assert_ptr_equal(again, b);
    assert_null(cache_peek(c, &other, 7));
    cache_put(again);
    cache_put(b);
    cache_put(NULL);
    assert_int_equal(l.nr, 1);
    cache_free(c);
}

static void
a_failed_load_is_tried_again(void **state)
{
    struct cache *c = make_cache(4);
    struct loads l = { .nr_to_fail = 2 };
    struct qcow2_error err;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_null(cache_get(c, &owner, 7, SIZE, load, &l, &err));
        assert_int_equal(err.errnum, EIO);
        assert_int_equal(cache_used_bytes(c), 0);
    }
    cache_put(get(c, &l, 7));
    assert_int_equal(l.nr, 3);
    cache_free(c);
}

static void
the_bound_holds_but_for_pinned_blocks(void **state)
{
    struct cache *c = make_cache(4);
    struct loads l = { 0 };
    struct block *pinned[10];

    (void)state;
    for (uint64_t i = 0; i < 100; i++) {
        cache_put(get(c, &l, i));
        assert_true(cache_used_bytes(c) <= cache_max_bytes(c));
    }
    for (uint64_t i = 0; i < 10; i++)
        pinned[i] = get(c, &l, i);
    for (uint64_t i = 0; i < 10; i++)
        assert_true(holds(pinned[i], i));
    assert_int_equal(cache_used_bytes(c), 10 * COST);
    for (uint64_t i = 0; i < 10; i++)
        cache_put(pinned[i]);
    cache_put(get(c, &l, 1000));
    assert_true(cache_used_bytes(c) <= cache_max_bytes(c));
    cache_free(c);
}

static void
what_is_dropped_is_loaded_anew(void **state)
{
    struct cache *c = make_cache(8);
    struct loads l = { 0 };
    struct block *b = get(c, &l, 1);

    (void)state;
    cache_put(get(c, &l, 2));
    cache_put(cache_get(c, &other, 2, SIZE, load, &l, NULL));
    cache_drop(c, &owner, 1); /* pinned: stays */
    cache_drop(c, &owner, 2);
    cache_drop(c, &owner, 3); /* was never there */
    assert_ptr_equal(cache_peek(c, &owner, 1), b);
    cache_put(b);
    assert_null(cache_peek(c, &owner, 2));
    cache_put(cache_peek(c, &other, 2));
    cache_drop_owner(c, &owner);
    assert_int_equal(cache_used_bytes(c), 2 * COST);
    cache_put(b);
    cache_drop_owner(c, &owner);
    assert_int_equal(cache_used_bytes(c), COST);
    cache_free(c);
}

static void
change(struct dirty_set *set, struct block *b, unsigned char value)
{
    pthread_mutex_lock(&b->lock);
    memset(b->data, value, b->size);
    dirty_add(set, b);
    pthread_mutex_unlock(&b->lock);
}

static void
dirty_blocks_are_not_evicted(void **state)
{
    struct cache *c = make_cache(2);
    struct loads l = { 0 };
    struct dirty_batch batch;
    struct dirty_set set;

    (void)state;
    dirty_init(&set);
    for (uint64_t i = 0; i < 5; i++) {
        struct block *b = get(c, &l, i);

        change(&set, b, 0xd0 + i);
        change(&set, b, 0xd0 + i);
        cache_put(b);
    }
    assert_int_equal(dirty_bytes(&set), 5 * SIZE);
    for (uint64_t i = 5; i < 20; i++)
        cache_put(get(c, &l, i));
    for (uint64_t i = 0; i < 5; i++) {
        struct block *b = cache_peek(c, &owner, i);

        assert_non_null(b);
        assert_int_equal(b->data[SIZE - 1], 0xd0 + i);
        cache_put(b);
    }
    assert_int_equal(dirty_take(&set, &batch, NULL), 0);
    /* Nor before what was taken is written: the file has older bytes. */
    for (uint64_t i = 20; i < 60; i++)
        cache_put(get(c, &l, i));
    for (uint64_t i = 0; i < 5; i++) {
        struct block *b = cache_peek(c, &owner, i);

        assert_non_null(b);
        cache_put(b);
    }
    dirty_batch_end(&batch);
    cache_put(get(c, &l, 100));
    assert_true(cache_used_bytes(c) <= cache_max_bytes(c));
    dirty_destroy(&set);
    cache_free(c);
}

static void
a_batch_is_what_was_dirty_when_it_was_taken(void **state)
{
    static const uint64_t keys[] = { 30, 10, 20 };
    struct cache *c = make_cache(8);
    struct loads l = { 0 };
    struct dirty_batch first, second;
    struct dirty_set set;

    (void)state;
    dirty_init(&set);
    assert_int_equal(dirty_take(&set, &first, NULL), 0);
    assert_int_equal(first.nr, 0);
    for (unsigned i = 0; i < 3; i++) {
        struct block *b = get(c, &l, keys[i]);

        change(&set, b, keys[i]);
        cache_put(b);
    }
    assert_int_equal(dirty_take(&set, &first, NULL), 0);
    assert_int_equal(dirty_bytes(&set), 0);
    change(&set, first.copies[1].block, 99);
    assert_int_equal(dirty_bytes(&set), SIZE);
    assert_int_equal(first.nr, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(first.copies[i].block->key, 10 * (i + 1));
        assert_int_equal(first.copies[i].data[0], 10 * (i + 1));
    }
    assert_int_equal(dirty_take(&set, &second, NULL), 0);
    assert_int_equal(second.nr, 1);
    assert_int_equal(second.copies[0].block->key, 20);
    assert_int_equal(second.copies[0].data[SIZE - 1], 99);
    dirty_batch_end(&second);
    dirty_batch_end(&first);
    dirty_destroy(&set);
    cache_free(c);
}

/* The middle one of three is changed again before the batch with it comes
 * back: it stands in the set already.
 */
static void
what_is_given_back_stands_in_the_set_once(void **state)
{
    struct cache *c = make_cache(8);
    struct loads l = { 0 };
    struct dirty_batch batch;
    struct dirty_set set;
    struct block *b[3];

    (void)state;
    dirty_init(&set);
    for (uint64_t i = 0; i < 3; i++)
        b[i] = get(c, &l, i);
    change(&set, b[1], 1);
    assert_int_equal(dirty_take(&set, &batch, NULL), 0);
    for (uint64_t i = 0; i < 3; i++)
        change(&set, b[i], 2);
    dirty_give_back(&set, &batch);
    assert_int_equal(dirty_bytes(&set), 3 * SIZE);
    assert_int_equal(dirty_take(&set, &batch, NULL), 0);
    assert_int_equal(batch.nr, 3);
    dirty_give_back(&set, &batch);
    assert_int_equal(dirty_bytes(&set), 3 * SIZE);
    dirty_destroy(&set);
    for (uint64_t i = 0; i < 3; i++)
        cache_put(b[i]);
    cache_free(c); /* which asserts that nothing is pinned */
}

/* A cache of far fewer blocks than are used. */
static void
what_is_preloaded_is_there_and_nothing_else(void **state)
{
    struct cache *c = make_cache(100);
    struct loads l = { 0 };
    struct block *b;

    (void)state;
    cache_put(get(c, &l, 3 * SIZE));
    cache_preload(c, &owner, SIZE, SIZE, 5, load_many, &l);
    assert_int_equal(l.nr, 5); /* one was there */
    for (unsigned i = 0; i < 7; i++) {
        b = cache_peek(c, &owner, i * SIZE);
        EXPECT((b != NULL) == (i >= 1 && i <= 5), "%u", i);
        EXPECT(!b || holds(b, i * SIZE), "%u", i);
        cache_put(b);
    }
    cache_drop_owner(c, &owner); /* nothing was left pinned */
    assert_int_equal(cache_used_bytes(c), 0);

    l = (struct loads){ .nr_to_fail = 1 };
    cache_preload(c, &owner, SIZE, SIZE, 5, load_many, &l);
    assert_int_equal(cache_used_bytes(c), 0);
    cache_put(get(c, &l, SIZE));
    cache_free(c);
}

static void
the_bound_holds_while_preloading(void **state)
{
    struct cache *c = make_cache(20);
    struct loads l = { 0 };

    (void)state;
    for (uint64_t i = 0; i < 2000; i += CACHE_MAX_PRELOAD) {
        cache_preload(c, &owner, i * SIZE, SIZE, CACHE_MAX_PRELOAD,
                      load_many, &l);
        assert_true(cache_used_bytes(c) <= cache_max_bytes(c));
    }
    cache_free(c);
}

struct user {
    struct cache *c;
    struct dirty_set *set;
    struct loads *l;
    unsigned index;
    unsigned nr_wrong;
};

static void *
use(void *opaque)
{
    struct user *u = opaque;
    struct rng r;

    rng_init(&r, rng_seed(1), u->index);
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t key = rng_below(&r, 64) * SIZE;
        struct block *b = cache_get(u->c, &owner, key, SIZE, load, u->l,
                                    NULL);

        if (!b) {
            u->nr_wrong++;
            continue;
        }
        u->nr_wrong += b->key != key || *(uint64_t *)b->data != key;
        if (rng_percent(&r, 10)) {
            pthread_mutex_lock(&b->lock);
            dirty_add(u->set, b);
            pthread_mutex_unlock(&b->lock);
        }
        cache_put(b);
        if (rng_percent(&r, 5))
            cache_drop(u->c, &owner, rng_below(&r, 64) * SIZE);
        if (rng_percent(&r, 5))
            cache_preload(u->c, &owner, rng_below(&r, 64) * SIZE, SIZE,
                          1 + rng_below(&r, CACHE_MAX_PRELOAD), load_many,
                          u->l);
    }
    return NULL;
}

static void
threads_share_a_cache_that_is_too_small(void **state)
{
    struct cache *c = make_cache(6);
    struct loads l = { 0 };
    struct dirty_set set;
    struct user users[NR_THREADS];
    pthread_t threads[NR_THREADS];

    (void)state;
    dirty_init(&set);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        users[i] = (struct user){ .c = c, .set = &set, .l = &l, .index = i };
        assert_int_equal(pthread_create(&threads[i], NULL, use, &users[i]),
                         0);
    }
    for (unsigned i = 0; i < 500; i++) {
        struct dirty_batch batch;

        assert_int_equal(dirty_take(&set, &batch, NULL), 0);
        for (unsigned n = 0; n < batch.nr; n++)
            assert_int_equal(*(uint64_t *)batch.copies[n].data,
                             batch.copies[n].block->key);
        if (i % 3 == 0)
            dirty_give_back(&set, &batch);
        else
            dirty_batch_end(&batch);
    }
    for (unsigned i = 0; i < NR_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(users[i].nr_wrong, 0);
    }
    dirty_destroy(&set);
    cache_free(c);
}

static void
memory_beside_is_bounded(void **state)
{
    struct cache *c = cache_new(1 << 20, NULL);
    unsigned nr = 0;

    (void)state;
    assert_non_null(c);
    while (cache_take_beside(c, 10 << 20))
        nr++;
    assert_int_equal(nr, CACHE_MAX_BESIDE_BYTES / (10 << 20));
    assert_true(cache_take_beside(c, 1 << 20));
    cache_give_back_beside(c, 10 << 20);
    assert_true(cache_take_beside(c, 10 << 20));
    assert_false(cache_take_beside(c, 10 << 20));
    assert_true(cache_take_beside(c, 0));
    cache_free(c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_loaded_by_the_first_who_asks),
        cmocka_unit_test(a_failed_load_is_tried_again),
        cmocka_unit_test(the_bound_holds_but_for_pinned_blocks),
        cmocka_unit_test(what_is_dropped_is_loaded_anew),
        cmocka_unit_test(what_is_preloaded_is_there_and_nothing_else),
        cmocka_unit_test(the_bound_holds_while_preloading),
        cmocka_unit_test(dirty_blocks_are_not_evicted),
        cmocka_unit_test(a_batch_is_what_was_dirty_when_it_was_taken),
        cmocka_unit_test(what_is_given_back_stands_in_the_set_once),
        cmocka_unit_test(threads_share_a_cache_that_is_too_small),
        cmocka_unit_test(memory_beside_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
