/* SPDX-License-Identifier: BSD-3-Clause */
/* test-snapshots: threads write, zero, read and flush while another creates
 * and deletes snapshots and changes the disk's size, and others read the
 * snapshots. One holds, of each thread's requests, all up to some moment
 * while it was made, and keeps holding that. TEST_SEED and TEST_ROUNDS make
 * other and longer runs (the order of threads is not the seed's).
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "audit.h"
#include "expect.h"
#include "io-jitter.h"
#include "oracle.h"
#include "rig.h"
#include "tmpdir.h"

enum {
    NR_WRITERS = 16,
    NR_READERS = 2,
    NR_WHOLE = 40,        /* snapshots created and deleted */
    NR_AHEAD = 30,        /* requests of each writer before each of these */
    MAX_REQUESTS = NR_WHOLE * NR_AHEAD,
    NR_UNITS = 6,         /* that each writer has */
    MAX_UNIT = 8192,      /* bytes */
    MAX_SAVED = 4,
};

/* What each writer did, in order: a request gives one unit a content. */
struct request {
    unsigned unit;
    uint64_t seed; /* 0: zeroes */
};

struct stress;

struct writer {
    struct stress *stress;
    unsigned index;
    struct rng rng;
    struct request requests[MAX_REQUESTS];
    unsigned nr_sent, nr_done;     /* atomic */
    bool ended;                    /* atomic */
    uint64_t content[NR_UNITS];    /* seeds */
    unsigned char buf[2 * MAX_UNIT];
    char problem[256];
};

/* A snapshot that is there, with its disk open. */
struct saved {
    struct qcow2_disk *disk;
    char name[16];
    unsigned char *content;
};

struct stress {
    struct rig rig;
    uint64_t size;
    uint64_t unit;                 /* bytes */
    struct writer writers[NR_WRITERS];
    bool end;                      /* atomic: the others are to end */

    pthread_mutex_t pace_lock;     /* of what writers may do so far: as */
    pthread_cond_t pace;           /* many requests however slow the rest */
    unsigned nr_allowed;
    pthread_mutex_t turn;          /* keeps readers from starving writers */
    pthread_rwlock_t saved_lock;   /* of the list; readers hold it shared */
    struct saved saved[MAX_SAVED];
    unsigned nr_saved;
    unsigned nr_made, nr_reads;
    char problem[256];             /* of readers */
};

/* Units of the writers alternate, and share clusters. */
static uint64_t
place(const struct writer *w, unsigned unit)
{
    return (unit * NR_WRITERS + w->index) * w->stress->unit;
}

static void
fill_unit(const struct writer *w, unsigned char *buf, unsigned unit,
          uint64_t seed)
{
    pattern_fill(buf, w->stress->unit, seed, place(w, unit));
}

static void
change_unit(struct writer *w, unsigned n)
{
    struct request *q = &w->requests[n];
    struct qcow2_disk *disk = w->stress->rig.play.disk;
    uint64_t unit = w->stress->unit;
    unsigned flags = rng_percent(&w->rng, 5) ? QCOW2_FUA : 0;
    struct qcow2_error err;
    int r;

    q->unit = rng_below(&w->rng, NR_UNITS);
    q->seed = rng_percent(&w->rng, 25) ? 0
                                       : (w->index + 1) * UINT64_C(1000000)
                                             + n;
    fill_unit(w, w->buf, q->unit, q->seed);
    __atomic_store_n(&w->nr_sent, n + 1, __ATOMIC_RELEASE);
    if (q->seed == 0)
        r = qcow2_zero(disk, unit, place(w, q->unit),
                       flags | QCOW2_MAY_TRIM, &err);
    else
        r = qcow2_pwrite(disk, w->buf, unit, place(w, q->unit), flags, &err);
    __atomic_store_n(&w->nr_done, n + 1, __ATOMIC_RELEASE);
    w->content[q->unit] = q->seed;
    if (r != 0)
        snprintf(w->problem, sizeof w->problem, "change: %.200s", err.text);
}

static void
read_unit(struct writer *w)
{
    unsigned unit = rng_below(&w->rng, NR_UNITS);
    unsigned char *got = w->buf, *want = w->buf + MAX_UNIT;
    struct qcow2_error err;

    fill_unit(w, want, unit, w->content[unit]);
    if (qcow2_pread(w->stress->rig.play.disk, got, w->stress->unit,
                    place(w, unit), &err) != 0)
        snprintf(w->problem, sizeof w->problem, "read: %.200s", err.text);
    else if (memcmp(got, want, w->stress->unit) != 0)
        snprintf(w->problem, sizeof w->problem, "unit %u differs", unit);
}

static bool
is_ended(const struct stress *s)
{
    return __atomic_load_n(&s->end, __ATOMIC_ACQUIRE);
}

static bool
may_go_on(struct stress *s, unsigned nr_done)
{
    bool may;

    pthread_mutex_lock(&s->pace_lock);
    while (nr_done == s->nr_allowed && !is_ended(s))
        pthread_cond_wait(&s->pace, &s->pace_lock);
    may = nr_done < s->nr_allowed && !is_ended(s);
    pthread_mutex_unlock(&s->pace_lock);
    return may;
}

static void
allow_more(struct stress *s, bool end)
{
    pthread_mutex_lock(&s->pace_lock);
    s->nr_allowed += end ? 0 : NR_AHEAD;
    __atomic_store_n(&s->end, end, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&s->pace);
    pthread_mutex_unlock(&s->pace_lock);
}

static void *
write_units(void *arg)
{
    struct writer *w = arg;
    struct qcow2_error err;

    for (unsigned i = 0; !w->problem[0] && may_go_on(w->stress, i); i++) {
        change_unit(w, i);
        if (rng_percent(&w->rng, 40) && !w->problem[0])
            read_unit(w);
        if (rng_percent(&w->rng, 10)
            && qcow2_flush(w->stress->rig.play.disk, &err) != 0)
            snprintf(w->problem, sizeof w->problem, "flush: %.200s",
                     err.text);
    }
    __atomic_store_n(&w->ended, true, __ATOMIC_RELEASE);
    return NULL;
}

static void
lock_list(struct stress *s, bool exclusive)
{
    pthread_mutex_lock(&s->turn);
    if (exclusive)
        pthread_rwlock_wrlock(&s->saved_lock);
    else
        pthread_rwlock_rdlock(&s->saved_lock);
    pthread_mutex_unlock(&s->turn);
}

/* Reads a snapshot again and again. */
static void *
read_saved(void *arg)
{
    struct stress *s = arg;
    unsigned char *got = malloc(s->size);
    uint64_t n = 0;

    if (!got)
        abort();
    while (!is_ended(s)) {
        struct qcow2_error err = { .text = "it differs" };

        lock_list(s, false);
        if (s->nr_saved > 0) {
            struct saved *v = &s->saved[n++ % s->nr_saved];

            if (qcow2_pread(v->disk, got, s->size, 0, &err) != 0
                || memcmp(got, v->content, s->size) != 0)
                snprintf(s->problem, sizeof s->problem, "snapshot: %.200s",
                         err.text);
            __atomic_add_fetch(&s->nr_reads, 1, __ATOMIC_RELAXED);
        }
        pthread_rwlock_unlock(&s->saved_lock);
    }
    free(got);
    return NULL;
}

/* Are the writer's units what its first n requests made of them? */
static bool
holds_first(const struct writer *w, unsigned n, const unsigned char *content,
            unsigned char *want)
{
    uint64_t seeds[NR_UNITS] = { 0 };

    for (unsigned i = 0; i < n; i++)
        seeds[w->requests[i].unit] = w->requests[i].seed;
    for (unsigned unit = 0; unit < NR_UNITS; unit++) {
        fill_unit(w, want, unit, seeds[unit]);
        if (memcmp(content + place(w, unit), want, w->stress->unit) != 0)
            return false;
    }
    return true;
}

static void
create_saved(struct stress *s)
{
    static const struct qcow2_snapshot_create_options plain = { 0 };
    struct saved *v = &s->saved[s->nr_saved];
    unsigned first[NR_WRITERS], last;
    unsigned char want[MAX_UNIT];
    struct qcow2_error err;

    snprintf(v->name, sizeof v->name, "s%u", s->nr_made++);
    for (unsigned i = 0; i < NR_WRITERS; i++)
        first[i] = __atomic_load_n(&s->writers[i].nr_done, __ATOMIC_ACQUIRE);
    EXPECT_OK(qcow2_snapshot_create(s->rig.play.disk, v->name, &plain, &err),
              &err);
    v->disk = qcow2_open_snapshot(s->rig.play.disk, v->name, &err);
    EXPECT(v->disk, "%s", err.text);
    v->content = malloc(s->size);
    EXPECT(v->content, "memory");
    EXPECT_OK(qcow2_pread(v->disk, v->content, s->size, 0, &err), &err);
    for (unsigned i = 0; i < NR_WRITERS; i++) {
        struct writer *w = &s->writers[i];
        unsigned n = first[i];

        last = __atomic_load_n(&w->nr_sent, __ATOMIC_ACQUIRE);
        while (n <= last && !holds_first(w, n, v->content, want))
            n++;
        EXPECT(n <= last, "%s does not hold what writer %u did up to some "
               "moment between %u and %u", v->name, i, first[i], last);
    }
    lock_list(s, true);
    s->nr_saved++;
    pthread_rwlock_unlock(&s->saved_lock);
}

static void
delete_saved(struct stress *s, unsigned i)
{
    struct saved v = s->saved[i];
    struct qcow2_error err;

    lock_list(s, true);
    s->saved[i] = s->saved[--s->nr_saved];
    pthread_rwlock_unlock(&s->saved_lock);
    EXPECT_OK(qcow2_close(v.disk, &err), &err);
    EXPECT_OK(qcow2_snapshot_delete(s->rig.play.disk, v.name, &err), &err);
    free(v.content);
}

/* Until each of them has done something more. */
static void
let_writers_work(struct stress *s)
{
    unsigned nr[NR_WRITERS];

    for (unsigned i = 0; i < NR_WRITERS; i++)
        nr[i] = __atomic_load_n(&s->writers[i].nr_done, __ATOMIC_ACQUIRE);
    allow_more(s, false);
    for (unsigned i = 0; i < NR_WRITERS; i++) {
        struct writer *w = &s->writers[i];

        while (__atomic_load_n(&w->nr_done, __ATOMIC_ACQUIRE) == nr[i]
               && !__atomic_load_n(&w->ended, __ATOMIC_ACQUIRE))
            sched_yield();
    }
}

/* Beyond what the writers use. */
static void
change_size(struct stress *s, struct rng *r)
{
    uint64_t size = s->size + rng_below(r, 300000);
    struct qcow2_error err;

    EXPECT_OK(qcow2_resize(s->rig.play.disk, size, true, &err), &err);
    EXPECT(qcow2_get_size(s->rig.play.disk) == size, "size");
}

static void
make_and_delete(struct stress *s)
{
    struct rng r;

    rng_init(&r, rng_seed(1), 99);
    for (unsigned i = 0; i < NR_WHOLE; i++) {
        let_writers_work(s);
        if (s->nr_saved == MAX_SAVED
            || (s->nr_saved > 0 && rng_percent(&r, 40)))
            delete_saved(s, rng_below(&r, s->nr_saved));
        else
            create_saved(s);
        if (builder_version(s->rig.image) > 2 && rng_percent(&r, 30))
            change_size(s, &r);
    }
}

static void
run_threads(struct stress *s)
{
    pthread_t writers[NR_WRITERS], readers[NR_READERS];

    for (unsigned i = 0; i < NR_WRITERS; i++)
        EXPECT(pthread_create(&writers[i], NULL, write_units, &s->writers[i])
               == 0, "thread");
    for (unsigned i = 0; i < NR_READERS; i++)
        EXPECT(pthread_create(&readers[i], NULL, read_saved, s) == 0,
               "thread");
    make_and_delete(s);
    allow_more(s, true);
    for (unsigned i = 0; i < NR_WRITERS; i++)
        pthread_join(writers[i], NULL);
    for (unsigned i = 0; i < NR_READERS; i++)
        pthread_join(readers[i], NULL);
}

/* The snapshots that are left are applied, and found to be the disk. */
static void
check_end(struct stress *s)
{
    const char *path = tmpdir_path("image");
    unsigned char *got = malloc(s->size);
    const unsigned char *bytes;
    struct qcow2_error err;
    uint64_t nr_bytes;
    struct audit a;

    EXPECT(got && !s->problem[0], "%s", s->problem);
    for (unsigned i = 0; i < NR_WRITERS; i++)
        EXPECT(!s->writers[i].problem[0], "writer %u: %s", i,
               s->writers[i].problem);
    while (s->nr_saved > 0) {
        struct saved *v = &s->saved[--s->nr_saved];

        EXPECT_OK(qcow2_snapshot_apply(s->rig.play.disk, v->name, &err),
                  &err);
        EXPECT_OK(qcow2_pread(s->rig.play.disk, got, s->size, 0, &err),
                  &err);
        expect_same(v->name, got, v->content, s->size, 0);
        EXPECT_OK(qcow2_close(v->disk, &err), &err);
        if (s->nr_saved % 2)
            EXPECT_OK(qcow2_snapshot_delete(s->rig.play.disk, v->name, &err),
                      &err);
        free(v->content);
    }
    free(got);
    EXPECT_OK(qcow2_close(s->rig.play.disk, &err), &err);
    bytes = mem_bytes(s->rig.mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
    mem_save(s->rig.mem, path);
    oracle_expect_clean(path);
}

static void
run(const char *geometry, uint64_t unit, uint64_t stream)
{
    struct stress *s = calloc(1, sizeof *s);
    unsigned nr_requests = 0;
    char recipe[256];

    if (!s)
        abort();
    s->unit = unit;
    s->size = NR_WRITERS * NR_UNITS * unit;
    snprintf(recipe, sizeof recipe, "%s; size %llu", geometry,
             (unsigned long long)s->size);
    expect_case("TEST_SEED=%llu: %s", (unsigned long long)rng_seed(1),
                recipe);
    pthread_mutex_init(&s->pace_lock, NULL);
    pthread_cond_init(&s->pace, NULL);
    pthread_mutex_init(&s->turn, NULL);
    pthread_rwlock_init(&s->saved_lock, NULL);
    rig_init(&s->rig, recipe, 0);
    rig_start(&s->rig);
    s->rig.play.disk = rig_open_disk(
        &s->rig, io_jitter_new(io_mem_open(s->rig.mem, false)));
    for (unsigned i = 0; i < NR_WRITERS; i++) {
        s->writers[i].stress = s;
        s->writers[i].index = i;
        rng_init(&s->writers[i].rng, rng_seed(1), stream + i);
    }
    run_threads(s);
    check_end(s);
    for (unsigned i = 0; i < NR_WRITERS; i++)
        nr_requests += s->writers[i].nr_done;
    print_message("%s: %u requests, %u snapshots, read %u times\n", recipe,
                  nr_requests, s->nr_made, s->nr_reads);
    rig_end(&s->rig);
    rig_free(&s->rig);
    pthread_rwlock_destroy(&s->saved_lock);
    pthread_mutex_destroy(&s->turn);
    pthread_cond_destroy(&s->pace);
    pthread_mutex_destroy(&s->pace_lock);
    free(s);
}

static void
snapshots_are_of_one_moment(void **state)
{
    static const struct {
        const char *geometry;
        uint64_t unit;
    } images[] = {
        { "cluster 512; refcount-bits 64", 1536 },
        { "cluster 4K; refcount-bits 16", 2560 },
        { "version 2; cluster 512", 700 },
        { "cluster 2K; refcount-bits 32; compatible 0", 8192 },
    };
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned i = 0; i < 4 * rounds; i++)
        run(images[i % 4].geometry, images[i % 4].unit, 100 * i);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_are_of_one_moment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
