/* SPDX-License-Identifier: BSD-3-Clause */
/* test-l2-slice.c: entries of slices in memory, of 64 and of 128 bits: every
 * state of subclusters, runs and rows against a walk by single subclusters,
 * and a reader beside a writer.
 */
#include "meta/l2-slice.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "expect.h"
#include "meta/l2-linear.h"
#include "rng.h"

enum {
    CLUSTER_BITS = 16,
    CLUSTER = 1 << CLUSTER_BITS,
    SUBCLUSTERS = 32,
    SLICE_BYTES = 4096,
};

#define PLACE UINT64_C(0x123450000)

/* A slice of either width in memory. */
struct fixture {
    struct geometry geo;
    uint64_t words[SLICE_BYTES / 8];
    struct l2_slice s;
};

static void
set_up(struct fixture *f, bool extended)
{
    memset(f, 0, sizeof *f);
    f->geo = geometry_make(CLUSTER_BITS, 4, extended);
    f->s = l2_slice_in_memory((be64 *)f->words, &f->geo, 3);
}

static void
poke(struct fixture *f, uint64_t idx, uint64_t entry, uint64_t bitmap)
{
    bool extended = f->geo.l2_entry_bits == 4;

    f->words[idx << extended] = htobe64(entry);
    if (extended)
        f->words[2 * idx + 1] = htobe64(bitmap);
}

static uint64_t
nr_entries(const struct fixture *f)
{
    return UINT64_C(1) << f->geo.slice_bits;
}

static void
slices_of_both_widths_are_as_long_as_they_are(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f, false);
    EXPECT(nr_entries(&f) == 512 && !l2_is_extended(&f.s), "64 bits");
    set_up(&f, true);
    EXPECT(nr_entries(&f) == 256 && l2_is_extended(&f.s), "128 bits");
}

/* What the specification says of one subcluster: state 0 to 2 are unallocated,
 * allocated and zero, 3 is both. */
static enum map_kind
expected_kind(unsigned status)
{
    return status & 2 ? MAP_ZERO : status & 1 ? MAP_DATA : MAP_UNALLOCATED;
}

/* Every state of every subcluster, beside every state of the next. */
static void
every_state_of_every_subcluster_is_told_apart(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f, true);
    for (unsigned i = 0; i < SUBCLUSTERS * 16 * 2; i++) {
        unsigned sub = i / 32, here = i & 3, next = i >> 2 & 3;
        unsigned beside = (sub + 1) % SUBCLUSTERS;
        uint64_t place = i >> 4 & 1 ? PLACE : 0;
        uint64_t alloc = (uint64_t)(here & 1) << sub
                         | (uint64_t)(next & 1) << beside;
        uint64_t zero = (uint64_t)(here >> 1) << sub
                        | (uint64_t)(next >> 1) << beside;
        unsigned flaws = 0;
        struct l2_entry e;

        if (here == 3 || next == 3)
            flaws |= ENTRY_ALLOCATED_ZERO;
        if (alloc && !place)
            flaws |= ENTRY_ALLOCATED_NOWHERE;
        poke(&f, 7, place | ENTRY_COPIED, alloc | zero << 32);
        e = l2_get(&f.s, 7, sub);
        EXPECT(e.kind == expected_kind(here), "%u: kind %d", i, (int)e.kind);
        EXPECT(e.flaws == flaws, "%u: flaws %u, not %u", i, e.flaws, flaws);
        EXPECT(e.host_off == place && e.copied, "%u: place", i);
        EXPECT(e.alloc_mask == alloc && e.zero_mask == zero, "%u: masks", i);
        e = l2_get(&f.s, 7, beside);
        EXPECT(e.kind == expected_kind(next), "%u: kind beside", i);
    }
}

static void
invalid_extended_entries_have_flaws(void **state)
{
    static const struct {
        uint64_t entry, bitmap;
        unsigned flaws;
    } rows[] = {
        { PLACE, UINT64_C(0xffffffff), 0 },
        { PLACE, UINT64_C(1) << 32 | 1, ENTRY_ALLOCATED_ZERO },
        { PLACE, UINT64_C(1) << 63 | 1u << 31, ENTRY_ALLOCATED_ZERO },
        { PLACE, UINT64_C(2) << 32 | 1, 0 },
        { 0, 1u << 31, ENTRY_ALLOCATED_NOWHERE },
        { 0, UINT64_C(0xffffffff) << 32, 0 },
        { 0, UINT64_MAX, ENTRY_ALLOCATED_ZERO | ENTRY_ALLOCATED_NOWHERE },
        { PLACE | L2_ZERO, 1, ENTRY_RESERVED_BITS },
        { PLACE | 2, 1, ENTRY_RESERVED_BITS },
        { PLACE + 512, 1, ENTRY_MISALIGNED },
        { L2_COMPRESSED | PLACE, 0, 0 },
        { L2_COMPRESSED | PLACE, 1, ENTRY_COMPRESSED_BITMAP },
        { L2_COMPRESSED | PLACE, UINT64_C(1) << 63, ENTRY_COMPRESSED_BITMAP },
        { L2_COMPRESSED | ENTRY_COPIED | PLACE, 0, ENTRY_COPIED_COMPRESSED },
    };
    struct fixture f;

    (void)state;
    set_up(&f, true);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (unsigned sub = 0; sub < SUBCLUSTERS; sub++) {
            struct l2_entry e;

            poke(&f, 255, rows[i].entry, rows[i].bitmap);
            e = l2_get(&f.s, 255, sub);
            EXPECT(e.flaws == rows[i].flaws, "%u: %u", i, e.flaws);
            EXPECT((e.kind == MAP_COMPRESSED)
                   == ((rows[i].entry & L2_COMPRESSED) != 0), "%u", i);
        }
}

/* host_off 0: without a place. */
static struct l2_entry
l2_zero(uint64_t host_off)
{
    return (struct l2_entry){
        .kind = MAP_ZERO, .host_off = host_off, .copied = host_off != 0,
        .zero_mask = ALL_SUBCLUSTERS,
    };
}

/* Entries that both widths have: cluster by cluster they are the same. */
static struct l2_entry
whole_entry(unsigned i)
{
    uint64_t place = PLACE + (uint64_t)i * CLUSTER;
    struct l2_entry e;

    switch (i % 6) {
    case 0:
        return l2_data(place);
    case 1:
        return l2_zero(0);
    case 2:
        return l2_zero(place);
    case 3:
        return l2_compressed(place + 700 * i, 1 + 400 * i);
    case 4:
        e = l2_data(place);
        e.copied = false;
        return e;
    default:
        return (struct l2_entry){ .kind = MAP_UNALLOCATED };
    }
}

static bool
same_entry(const struct l2_entry *a, const struct l2_entry *b)
{
    uint32_t len = a->compressed_len, more = b->compressed_len;

    /* Sectors are counted, not bytes. */
    return a->kind == b->kind && a->host_off == b->host_off
           && a->copied == b->copied && a->alloc_mask == b->alloc_mask
           && a->zero_mask == b->zero_mask && a->flaws == b->flaws
           && more >= len && more < len + 512;
}

static void
entries_are_read_as_they_were_set(void **state)
{
    (void)state;
    for (unsigned extended = 0; extended < 2; extended++) {
        struct fixture f;

        set_up(&f, extended);
        for (unsigned i = 0; i < 120; i++) {
            struct l2_entry e = whole_entry(i), got;
            bool is_nothing = e.kind == MAP_UNALLOCATED;

            EXPECT(l2_set(&f.s, i, &e) == !is_nothing, "%u: not set", i);
            EXPECT(!l2_set(&f.s, i, &e), "%u: set again", i);
            for (unsigned sub = 0; sub < (extended ? SUBCLUSTERS : 1); sub++) {
                got = l2_get(&f.s, i, sub);
                EXPECT(same_entry(&e, &got), "%u: differs", i);
            }
            if (i > 0) {
                e = whole_entry(i - 1);
                got = l2_get(&f.s, i - 1, 0);
                EXPECT(same_entry(&e, &got), "%u: the one before", i);
            }
            got = l2_get(&f.s, i + 1, 0);
            EXPECT(got.kind == MAP_UNALLOCATED && !got.copied, "%u: next", i);
        }
    }
}

static void
masks_are_read_as_they_were_set(void **state)
{
    struct fixture f;
    struct rng rng;

    (void)state;
    set_up(&f, true);
    rng_init(&rng, rng_seed(11), 0);
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t random = rng_next(&rng);
        struct l2_entry e = { .host_off = PLACE, .copied = i & 1 }, got;

        e.alloc_mask = random & ~(random >> 32);
        e.zero_mask = random >> 32;
        e.kind = entry_subcluster_kind(e.alloc_mask, e.zero_mask, i % 32);
        l2_set(&f.s, i % 256, &e);
        got = l2_get(&f.s, i % 256, i % 32);
        EXPECT(same_entry(&e, &got), "%u", i);
        EXPECT(l2_set_copied(&f.s, i % 256, !e.copied)
               && !l2_set_copied(&f.s, i % 256, !e.copied), "%u: flag", i);
        got = l2_get(&f.s, i % 256, i % 32);
        EXPECT(got.copied == !e.copied && got.zero_mask == e.zero_mask
               && got.alloc_mask == e.alloc_mask && got.host_off == PLACE,
               "%u: more than the flag", i);
    }
}

/* Few kinds and places, so that there are runs. */
static void
fill_at_random(struct fixture *f, struct rng *rng)
{
    for (uint64_t i = 0; i < nr_entries(f); i++) {
        uint64_t r = rng_next(rng), place = PLACE + i * CLUSTER;
        uint64_t alloc = 0, zero = 0;

        if (r % 16 == 0)
            place += CLUSTER; /* not in a row */
        if (r % 16 == 1) {
            poke(f, i, L2_COMPRESSED | place, 0);
            continue;
        }
        if (!l2_is_extended(&f->s)) {
            poke(f, i, (r & 32 ? place | ENTRY_COPIED : 0)
                       | (r % 16 == 2 ? L2_ZERO : 0), 0);
            continue;
        }
        if (r & 64)
            alloc = r & 128 ? UINT32_MAX : r >> 32 & r >> 16;
        if (r & 256)
            zero = ~alloc & (r & 512 ? UINT32_MAX : UINT32_MAX << (r >> 59));
        poke(f, i, alloc || r & 1024 ? place | ENTRY_COPIED : 0,
             alloc | zero << 32);
    }
}

/* How far the entry of guest_off goes on, by single subclusters. */
static uint64_t
walk(const struct fixture *f, uint64_t guest_off, uint64_t nr_bytes)
{
    const struct geometry *g = &f->geo;
    uint64_t step = UINT64_C(1) << g->subcluster_bits;
    uint64_t first = guest_off >> CLUSTER_BITS, off = guest_off;
    struct l2_entry e = l2_get(&f->s, first, guest_off % CLUSTER / step);

    while (off < guest_off + nr_bytes) {
        uint64_t idx = off >> CLUSTER_BITS;
        struct l2_entry now = l2_get(&f->s, idx, off % CLUSTER / step);
        uint64_t place = e.host_off ? e.host_off + (idx - first) * CLUSTER
                                    : 0;

        if (now.kind != e.kind || now.host_off != place
            || now.copied != e.copied
            || (idx > first && e.kind == MAP_COMPRESSED))
            break;
        off = (off / step + 1) * step;
    }
    return min_u64(off - guest_off, nr_bytes);
}

static void
runs_go_on_as_far_as_subclusters_are_alike(void **state)
{
    uint64_t longest = 0;
    struct rng rng;

    (void)state;
    rng_init(&rng, rng_seed(5), 0);
    for (unsigned n = 0; n < 200; n++) {
        struct fixture f;

        set_up(&f, n & 1);
        fill_at_random(&f, &rng);
        for (unsigned i = 0; i < 100; i++) {
            uint64_t end = nr_entries(&f) * CLUSTER, run, expected;
            uint64_t off = rng_next(&rng) % end;
            uint64_t nr_bytes = 1 + rng_next(&rng) % min_u64(end - off,
                                                             8 * CLUSTER);
            struct l2_entry e, first;

            run = l2_run(&f.s, off, nr_bytes, &e);
            expected = walk(&f, off, nr_bytes);
            first = l2_get(&f.s, off >> CLUSTER_BITS,
                           off % CLUSTER >> f.geo.subcluster_bits);
            EXPECT(run == expected, "%u, 0x%llx: %llu bytes, not %llu", n,
                   (unsigned long long)off, (unsigned long long)run,
                   (unsigned long long)expected);
            EXPECT(same_entry(&first, &e), "another entry");
            longest = max_u64(longest, run);
        }
    }
    EXPECT(longest > 2 * CLUSTER, "no long runs");
}

static void
rows_are_entries_that_say_the_same(void **state)
{
    (void)state;
    for (unsigned extended = 0; extended < 2; extended++) {
        struct l2_entry e, zero = l2_zero(0);
        struct fixture f;

        set_up(&f, extended);
        for (unsigned i = 0; i < 20; i++) {
            e = l2_data(PLACE + (uint64_t)i * CLUSTER);
            l2_set(&f.s, 10 + i, &e);
        }
        EXPECT(l2_row(&f.s, 0, 100, &e) == 10, "nothing");
        EXPECT(l2_row(&f.s, 10, 100, &e) == 20 && e.kind == MAP_DATA, "data");
        EXPECT(l2_row(&f.s, 12, 3, &e) == 3
               && e.host_off == PLACE + 2 * CLUSTER, "at most");
        l2_set_copied(&f.s, 15, false);
        EXPECT(l2_row(&f.s, 10, 100, &e) == 5, "another flag");
        l2_set(&f.s, 13, &zero);
        EXPECT(l2_row(&f.s, 10, 100, &e) == 3, "another kind");
        if (extended) {
            poke(&f, 12, (PLACE + 2 * CLUSTER) | ENTRY_COPIED, UINT32_MAX - 1);
            EXPECT(l2_row(&f.s, 10, 100, &e) == 2, "other subclusters");
        }
        e = l2_compressed(PLACE, 5);
        l2_set(&f.s, 40, &e);
        e = l2_compressed(PLACE + CLUSTER, 5);
        l2_set(&f.s, 41, &e);
        EXPECT(l2_row(&f.s, 40, 100, &e) == 1, "compressed");
    }
}

/* Fills all but the last entry alike, and that with what differs or not. */
static bool
is_linear(bool extended, struct l2_entry e, uint64_t last_step,
          uint32_t last_alloc)
{
    struct fixture f;
    struct image img = { .cluster_bits = CLUSTER_BITS };
    struct view v = { .img = &img, .version = 3 };
    uint64_t word, end, first;
    bool found;

    set_up(&f, extended);
    end = nr_entries(&f);
    img.geo = f.geo;
    v.linear.words = &word;
    v.linear.nr = 1;
    word = 0;
    for (uint64_t i = 0; i < end; i++) {
        struct l2_entry one = e;

        if (e.host_off)
            one.host_off += i * CLUSTER + (i == end - 1 ? last_step : 0);
        if (i == end - 1 && e.alloc_mask)
            one.alloc_mask = last_alloc;
        l2_set(&f.s, i, &one);
    }
    found = l2_linear_note(&v, 0, (be64 *)f.words);
    EXPECT(found == linear_find(&v.linear, 0, &first), "not recorded");
    for (uint64_t i = 0; found && i < end; i++) {
        struct l2_entry one = l2_get(&f.s, i, 0);
        struct l2_entry got = l2_linear_entry(&v, first, i << CLUSTER_BITS);

        EXPECT(same_entry(&one, &got), "entry %d", (int)i);
    }
    return found;
}

static void
slices_of_both_widths_are_linear(void **state)
{
    struct l2_entry e;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        EXPECT(is_linear(i, l2_data(PLACE), 0, UINT32_MAX), "data");
        EXPECT(is_linear(i, l2_zero(PLACE), 0, 0), "zeroes with a place");
        EXPECT(is_linear(i, l2_zero(0), 0, 0), "zeroes");
        EXPECT(is_linear(i, (struct l2_entry){ .kind = MAP_UNALLOCATED }, 0,
                         0), "nothing");
        EXPECT(!is_linear(i, l2_data(PLACE), CLUSTER, UINT32_MAX), "a gap");
        EXPECT(!is_linear(i, l2_compressed(PLACE, 9), 0, 0), "compressed");
    }
    EXPECT(!is_linear(true, l2_data(PLACE), 0, UINT32_MAX >> 1), "a part");
    e = l2_data(PLACE);
    e.alloc_mask = 1;
    EXPECT(!is_linear(true, e, 0, 1), "parts");
    e.alloc_mask = 0;
    EXPECT(!is_linear(true, e, 0, 0), "a place of nothing");
}

/* A reader without the range lock beside a writer. */
struct race {
    struct fixture f;
    struct block block;
    bool is_over;       /* atomic */
};

enum { CHANGES = 200000 };

static void
start_race(struct race *race)
{
    set_up(&race->f, true);
    pthread_mutex_init(&race->block.lock, NULL);
    race->block.data = (unsigned char *)race->f.words;
    race->block.size = SLICE_BYTES;
    race->f.s = l2_slice_of(&race->block, &race->f.geo, 3);
}

static void *
change_both_words(void *opaque)
{
    struct race *race = opaque;
    struct l2_entry data = l2_data(PLACE), zero = l2_zero(0);

    for (unsigned i = 0; i < CHANGES; i++) {
        pthread_mutex_lock(&race->block.lock);
        l2_set(&race->f.s, 3, i & 1 ? &data : &zero);
        pthread_mutex_unlock(&race->block.lock);
    }
    __atomic_store_n(&race->is_over, true, __ATOMIC_RELEASE);
    return NULL;
}

static void
readers_never_find_half_of_a_change(void **state)
{
    static struct race race;
    unsigned long nr_torn = 0;
    pthread_t writer;

    (void)state;
    start_race(&race);
    assert_int_equal(pthread_create(&writer, NULL, change_both_words, &race),
                     0);
    while (!__atomic_load_n(&race.is_over, __ATOMIC_ACQUIRE)) {
        struct l2_entry e = l2_get(&race.f.s, 3, 0);
        bool is_data = e.host_off == PLACE && e.copied && e.zero_mask == 0
                       && e.alloc_mask == UINT32_MAX;
        bool is_zero = e.host_off == 0 && !e.copied && e.alloc_mask == 0;

        nr_torn += !is_data && !is_zero;
    }
    pthread_join(writer, NULL);
    pthread_mutex_destroy(&race.block.lock);
    EXPECT(nr_torn == 0, "%lu entries of two changes", nr_torn);
    EXPECT(race.block.sequence % 2 == 0, "not over");
}

/* A reader that comes in the middle of a change. */
struct reader {
    struct l2_slice *s;
    pid_t tid;          /* atomic; 0: not running yet */
    bool is_done;       /* atomic */
    struct l2_entry got;
};

static void *
read_one(void *opaque)
{
    struct reader *r = opaque;

    __atomic_store_n(&r->tid, gettid(), __ATOMIC_RELEASE);
    r->got = l2_get(r->s, 3, 0);
    __atomic_store_n(&r->is_done, true, __ATOMIC_RELEASE);
    return NULL;
}

/* Does the thread sleep, or has it done what it was to do? */
static bool
is_waiting_or_done(const struct reader *r)
{
    char path[64], state = 0;
    FILE *stat;

    if (__atomic_load_n(&r->is_done, __ATOMIC_ACQUIRE))
        return true;
    if (__atomic_load_n(&r->tid, __ATOMIC_ACQUIRE) == 0)
        return false;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)r->tid);
    stat = fopen(path, "r");
    if (!stat)
        return false;
    if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
        state = 0;
    fclose(stat);
    return state == 'S';
}

static void
readers_wait_for_the_end_of_a_change(void **state)
{
    static struct race race;
    struct reader r = { .s = &race.f.s };
    pthread_t thread;

    (void)state;
    start_race(&race);
    poke(&race.f, 3, PLACE | ENTRY_COPIED, UINT32_MAX);
    pthread_mutex_lock(&race.block.lock);
    race.block.sequence = 1;
    race.f.words[6] = 0;
    assert_int_equal(pthread_create(&thread, NULL, read_one, &r), 0);
    while (!is_waiting_or_done(&r))
        sched_yield();
    EXPECT(!__atomic_load_n(&r.is_done, __ATOMIC_ACQUIRE), "did not wait");
    __atomic_store_n(&race.f.words[7], htobe64(UINT64_C(0xffffffff) << 32),
                     __ATOMIC_RELEASE);
    __atomic_store_n(&race.block.sequence, 2, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&race.block.lock);
    pthread_join(thread, NULL);
    EXPECT(r.got.kind == MAP_ZERO && r.got.host_off == 0 && !r.got.flaws,
           "half of a change");
    pthread_mutex_destroy(&race.block.lock);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_of_both_widths_are_as_long_as_they_are),
        cmocka_unit_test(every_state_of_every_subcluster_is_told_apart),
        cmocka_unit_test(invalid_extended_entries_have_flaws),
        cmocka_unit_test(entries_are_read_as_they_were_set),
        cmocka_unit_test(masks_are_read_as_they_were_set),
        cmocka_unit_test(runs_go_on_as_far_as_subclusters_are_alike),
        cmocka_unit_test(rows_are_entries_that_say_the_same),
        cmocka_unit_test(slices_of_both_widths_are_linear),
        cmocka_unit_test(readers_never_find_half_of_a_change),
        cmocka_unit_test(readers_wait_for_the_end_of_a_change),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
