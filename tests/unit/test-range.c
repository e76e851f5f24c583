/* SPDX-License-Identifier: BSD-3-Clause */
/* test-range.c: interval locks. A second thread asks for a range; the test
 * sees from the lock's own count whether it waits.
 */
#include "base/range.h"

#include <pthread.h>
#include <sched.h>

#include "expect.h"
#include "rng.h"

enum { WINDOW_BITS = 16 };

struct asker {
    struct range_lock *rl;
    uint64_t start, end;
    bool exclusive;
    struct range range;
    pthread_t thread;
    bool has_it; /* atomic */
};

static void *
ask(void *opaque)
{
    struct asker *a = opaque;

    if (a->exclusive)
        range_lock_exclusive(a->rl, &a->range, a->start, a->end);
    else
        range_lock_shared(a->rl, &a->range, a->start, a->end);
    __atomic_store_n(&a->has_it, true, __ATOMIC_RELEASE);
    return NULL;
}

static void
start_asking(struct asker *a, struct range_lock *rl, bool exclusive,
             uint64_t start, uint64_t end)
{
    *a = (struct asker){ .rl = rl, .start = start, .end = end,
                         .exclusive = exclusive };
    assert_int_equal(pthread_create(&a->thread, NULL, ask, a), 0);
}

static bool
has_it(struct asker *a)
{
    return __atomic_load_n(&a->has_it, __ATOMIC_ACQUIRE);
}

static unsigned
nr_waiting(struct range_lock *rl)
{
    unsigned n = 0;

    for (unsigned i = 0; i < RANGE_SHARDS; i++) {
        pthread_mutex_lock(&rl->shards[i].lock);
        n += rl->shards[i].nr_waiting;
        pthread_mutex_unlock(&rl->shards[i].lock);
    }
    return n;
}

static void
until_waiting(struct range_lock *rl, unsigned n)
{
    while (nr_waiting(rl) != n)
        sched_yield();
}

static void
end_asking(struct asker *a)
{
    pthread_join(a->thread, NULL);
    assert_true(has_it(a));
    range_unlock(a->rl, &a->range);
}

static int
set_up(void **state)
{
    static struct range_lock rl;

    assert_int_equal(range_lock_init(&rl, WINDOW_BITS, NULL), 0);
    *state = &rl;
    return 0;
}

static int
tear_down(void **state)
{
    range_lock_destroy(*state);
    return 0;
}

static void
shared_ranges_are_held_at_once(void **state)
{
    struct range_lock *rl = *state;
    struct range a, b;

    range_lock_shared(rl, &a, 0, 100);
    range_lock_shared(rl, &b, 50, 150);
    range_unlock(rl, &a);
    range_unlock(rl, &b);
}

static void
neighbours_do_not_conflict(void **state)
{
    struct range_lock *rl = *state;
    struct range a, b, c;

    range_lock_exclusive(rl, &a, 100, 200);
    range_lock_exclusive(rl, &b, 0, 100);
    range_lock_exclusive(rl, &c, 200, 201);
    range_unlock(rl, &b);
    range_unlock(rl, &a);
    range_unlock(rl, &c);
}

static void
windows_that_share_a_shard_do_not_conflict(void **state)
{
    struct range_lock *rl = *state;
    uint64_t far = (uint64_t)RANGE_SHARDS << WINDOW_BITS;
    struct range a, b;

    range_lock_exclusive(rl, &a, 0, 100);
    range_lock_exclusive(rl, &b, far, far + 100);
    range_unlock(rl, &a);
    range_unlock(rl, &b);
}

static void
exclusive_waits_for_shared(void **state)
{
    struct range_lock *rl = *state;
    struct asker a;
    struct range r;

    range_lock_shared(rl, &r, 0, 100);
    start_asking(&a, rl, true, 99, 200);
    until_waiting(rl, 1);
    assert_false(has_it(&a));
    range_unlock(rl, &r);
    end_asking(&a);
}

static void
shared_waits_for_exclusive(void **state)
{
    struct range_lock *rl = *state;
    struct asker a;
    struct range r;

    range_lock_exclusive(rl, &r, 0, 100);
    start_asking(&a, rl, false, 99, 200);
    until_waiting(rl, 1);
    range_unlock(rl, &r);
    end_asking(&a);
}

static void
who_waits_is_not_overtaken(void **state)
{
    struct range_lock *rl = *state;
    struct asker writer, reader;
    struct range r;

    range_lock_shared(rl, &r, 0, 100);
    start_asking(&writer, rl, true, 0, 100);
    until_waiting(rl, 1);
    /* Goes together with what is held, but not with who came before. */
    start_asking(&reader, rl, false, 0, 100);
    until_waiting(rl, 2);
    range_unlock(rl, &r);
    pthread_join(writer.thread, NULL);
    assert_false(has_it(&reader));
    range_unlock(rl, &writer.range);
    end_asking(&reader);
}

static void
who_does_not_conflict_passes_who_waits(void **state)
{
    struct range_lock *rl = *state;
    struct asker waiting, other;
    struct range r;

    range_lock_exclusive(rl, &r, 0, 100);
    start_asking(&waiting, rl, true, 0, 100);
    until_waiting(rl, 1);
    start_asking(&other, rl, true, 100, 200);
    end_asking(&other);
    assert_false(has_it(&waiting));
    range_unlock(rl, &r);
    end_asking(&waiting);
}

/* Cells that threads lock at random and look whom they share them with. */
enum { NR_CELLS = 64, NR_THREADS = 4, NR_ROUNDS = 3000 };

struct crowd {
    struct range_lock *rl;
    uint64_t seed;
    int cells[NR_CELLS]; /* atomic: readers; less than 0: a writer */
    unsigned next_thread;
    unsigned nr_wrong;
};

static void *
jostle(void *opaque)
{
    struct crowd *crowd = opaque;
    unsigned me = __atomic_fetch_add(&crowd->next_thread, 1,
                                     __ATOMIC_RELAXED);
    struct rng rng;

    rng_init(&rng, crowd->seed, me);
    for (int i = 0; i < NR_ROUNDS; i++) {
        uint64_t start = rng_below(&rng, NR_CELLS);
        uint64_t end = start + 1 + rng_below(&rng, NR_CELLS - start);
        bool exclusive = rng_percent(&rng, 30);
        int step = exclusive ? -1000 : 1;
        struct range r;

        if (exclusive)
            range_lock_exclusive(crowd->rl, &r, start, end);
        else
            range_lock_shared(crowd->rl, &r, start, end);
        for (uint64_t c = start; c < end; c++) {
            int was = __atomic_fetch_add(&crowd->cells[c], step,
                                         __ATOMIC_RELAXED);

            if (was < 0 || (exclusive && was > 0))
                __atomic_fetch_add(&crowd->nr_wrong, 1, __ATOMIC_RELAXED);
        }
        for (uint64_t c = start; c < end; c++)
            __atomic_fetch_sub(&crowd->cells[c], step, __ATOMIC_RELAXED);
        range_unlock(crowd->rl, &r);
    }
    return NULL;
}

static void
many_threads_never_share_what_one_holds_alone(void **state)
{
    struct crowd crowd = { .rl = *state, .seed = rng_seed(1) };
    pthread_t threads[NR_THREADS];

    print_message("seed %llu\n", (unsigned long long)crowd.seed);
    for (int i = 0; i < NR_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, jostle, &crowd),
                         0);
    for (int i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(crowd.nr_wrong, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(shared_ranges_are_held_at_once),
        TEST(neighbours_do_not_conflict),
        TEST(windows_that_share_a_shard_do_not_conflict),
        TEST(exclusive_waits_for_shared),
        TEST(shared_waits_for_exclusive),
        TEST(who_waits_is_not_overtaken),
        TEST(who_does_not_conflict_passes_who_waits),
        TEST(many_threads_never_share_what_one_holds_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
