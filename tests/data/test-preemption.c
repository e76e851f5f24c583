/* SPDX-License-Identifier: BSD-3-Clause */
/* test-preemption: a request is stopped at each place in turn where it takes
 * a lock or does I/O. There another thread makes other requests, which free,
 * flush and allocate, until it is done or has to wait; then the first goes on.
 * So whatever may come between two steps of a request does come between.
 *
 * Afterwards each byte holds what one of the requests made of it, nothing is
 * damaged or leaked, and the writes came in their order (io-order.h).
 *
 * The linker sends calls of the functions for locks here (--wrap).
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "audit.h"
#include "base/compress.h"
#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "io-order.h"
#include "meta/image.h"
#include "request/request.h"
#include "rng.h"
#include "snapshots.h"

enum { C = 512, NR_CLUSTERS = 200, SIZE = NR_CLUSTERS * C };
enum { FIRST_SEED = 100, SECOND_SEED = 200, ELSEWHERE_SEED = 300 };

enum kind { READ, WRITE, ZERO, TRIM, COMPRESS, FLUSH, CREATE, DELETE };

struct request {
    const char *name;
    enum kind kind;
    uint64_t off, nr_bytes;
};

/* An L2 table has 64 entries. Clusters 2-3 are ours, 0-1 and 6 shared with
 * the snapshot, and the table from cluster 64 on too; from 128 on there is
 * none. */
#define WITH_SNAPSHOT                                                   \
    "cluster 512; refcount-bits 64; size 100K; data 0-3 1;"             \
    "compressed 8-11 2; zero-alloc 6-7; data 70-71 3; snapshot 1 s;"    \
    "data 2-3 4; compressed 9 5; zero-alloc 7; gap 3"

/* The same places are subclusters: 0-31 and 96-127 are ours, 32-63 compressed,
 * and 64-95 shared with the snapshot. */
#define WITH_SUBCLUSTERS                                                \
    "extended-l2; cluster 16K; refcount-bits 64; size 100K;"            \
    "subclusters 0 dzddzz 1; compressed 1 2; subclusters 2 uuuuuudduz 3;" \
    "snapshot 1 s; subclusters 0 ppddzzppuddzpppppppp 4;"               \
    "subclusters 3 ppppdp 5"

static const struct scene {
    const char *name, *recipe;
    bool prepared, extended_l2;
} scenes[] = {
    { "snapshot, with changes", WITH_SNAPSHOT, true, false },
    { "snapshot, nothing cached", WITH_SNAPSHOT, false, false },
    { "tables without COPIED", "cluster 512; refcount-bits 64; size 100K;"
      "data 0-3 1; compressed 8-11 2; zero-alloc 6-7; data 30-53 3;"
      "data 70-71 3; poke l1[0] & 0x7fffffffffffffff;"
      "poke l1[1] & 0x7fffffffffffffff", false, false },
    { "subclusters", WITH_SUBCLUSTERS, false, true },
};
enum { NR_SCENES = sizeof scenes / sizeof scenes[0] };

static const struct request firsts[] = {
    { "read", READ, 2 * C, C },
    { "read of compressed data", READ, 9 * C, C },
    { "read by a shared table", READ, 70 * C, C },
    { "write in place", WRITE, 2 * C + 100, 200 },
    { "write of a part", WRITE, 0 * C + 100, 200 },
    { "write into a new cluster", WRITE, 20 * C + 100, 200 },
    { "write into a preallocated cluster", WRITE, 7 * C + 100, 200 },
    { "write into a new table", WRITE, 130 * C + 100, 200 },
    { "write by a shared table", WRITE, 70 * C + 100, 200 },
    { "write over compressed data", WRITE, 9 * C + 100, 200 },
    { "zeroes", ZERO, 2 * C, C },
    { "zeroes in place", ZERO, 2 * C + 100, 200 },
    { "trim", TRIM, 2 * C, 8 * C },
    { "compressed write", COMPRESS, 2 * C, C },
    { "write into a subcluster", WRITE, 110 * C + 100, 200 },
    { "flush", FLUSH, 0, 0 },
    { "snapshot creation", CREATE, 0, 0 },
    { "snapshot deletion", DELETE, 0, 0 },
};
enum { NR_FIRSTS = sizeof firsts / sizeof firsts[0] };

static const struct request seconds[] = {
    { "flush", FLUSH, 0, 0 },
    { "write of a part", WRITE, 2 * C + 250, 200 },
    { "write over all", WRITE, 320, 20 * C - 240 },
    { "write by the same tables", WRITE, 71 * C, 60 * C },
    { "zeroes", ZERO, 2 * C, 8 * C },
    { "trim", TRIM, 0, 72 * C },
    { "compressed write", COMPRESS, 9 * C, C },
    { "trim of the cluster's data", TRIM, 96 * C, 8 * C },
    { "snapshot deletion", DELETE, 0, 0 },
};
enum { NR_SECONDS = sizeof seconds / sizeof seconds[0] };

/* What the second writes last, where no other does: so much that it gets all
 * that was freed. */
static const struct request elsewhere = { "-", WRITE, 150 * C, 40 * C };

/* Where the first is stopped. */
struct stop {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned left;       /* places until then */
    bool stopped, ended; /* the first */
    bool go_on;
};

static __thread struct stop *stops;  /* of the first thread */
static __thread struct stop *lets_go; /* of the second */

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __real_pthread_rwlock_rdlock(pthread_rwlock_t *rwlock);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *rwlock);
int __real_pthread_rwlock_wrlock(pthread_rwlock_t *rwlock);
int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *rwlock);

static void
set(struct stop *s, bool *what)
{
    __real_pthread_mutex_lock(&s->lock);
    *what = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void
await(struct stop *s, const bool *what, const bool *or)
{
    __real_pthread_mutex_lock(&s->lock);
    while (!*what && !*or)
        __real_pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* A place where the first may be stopped. */
static void
place(void)
{
    struct stop *s = stops;

    if (!s || --s->left > 0)
        return;
    stops = NULL;
    set(s, &s->stopped);
    await(s, &s->go_on, &s->go_on);
}

/* The second has to wait for somebody, or is done. */
static void
let_go(void)
{
    if (lets_go)
        set(lets_go, &lets_go->go_on);
    lets_go = NULL;
}

int
__wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    place();
    if (lets_go && pthread_mutex_trylock(mutex) == 0)
        return 0;
    let_go();
    return __real_pthread_mutex_lock(mutex);
}

int
__wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    let_go();
    return __real_pthread_cond_wait(cond, mutex);
}

int
__wrap_pthread_rwlock_rdlock(pthread_rwlock_t *rwlock)
{
    place();
    if (lets_go && pthread_rwlock_tryrdlock(rwlock) == 0)
        return 0;
    let_go();
    return __real_pthread_rwlock_rdlock(rwlock);
}

int
__wrap_pthread_rwlock_wrlock(pthread_rwlock_t *rwlock)
{
    place();
    if (lets_go && pthread_rwlock_trywrlock(rwlock) == 0)
        return 0;
    let_go();
    return __real_pthread_rwlock_wrlock(rwlock);
}

struct worker {
    struct qcow2_disk *disk;
    struct stop *stop;
    const struct request *request;
    unsigned char buf[128 * C];
    int result;
    struct qcow2_error err;
};

struct trial {
    const struct scene *scene;
    struct builder *image;
    unsigned char before[SIZE], snapshot[SIZE];
    struct mem *mem;
    struct order_report report;
    struct stop stop;
    struct worker first, second;
};

/* What the request makes of its place. */
static void
content_of(const struct request *r, unsigned char *buf, uint64_t seed)
{
    bool zero = r->kind == ZERO || r->kind == TRIM;

    pattern_fill(buf, r->nr_bytes, zero ? 0 : seed, r->off);
}

static bool
changes(const struct request *r, uint64_t off)
{
    return (r->kind == WRITE || r->kind == ZERO || r->kind == TRIM
            || r->kind == COMPRESS)
           && off >= r->off && off - r->off < r->nr_bytes;
}

static int
compress(struct worker *w, uint64_t seed)
{
    const struct request *r = w->request;
    struct image *img = disk_image(w->disk);
    unsigned char packed[C];
    struct workspace *space;
    long n;
    int ret = -1;

    content_of(r, w->buf, seed);
    space = decompress_pool_take_space(img->decompress, 0, 0, &w->err);
    if (!space)
        abort();
    n = compress_encode(space->context, img->hdr.compression_type, 0, w->buf,
                        C, packed, C);
    decompress_pool_put_space(img->decompress, space);
    if (n <= 0)
        abort();
    pthread_rwlock_rdlock(&img->rwlock);
    if (image_begin_write(img, &w->err) == 0)
        ret = write_compressed(img, packed, n, r->off, &w->err);
    pthread_rwlock_unlock(&img->rwlock);
    return ret;
}

static int
run(struct worker *w, uint64_t seed)
{
    const struct qcow2_snapshot_create_options plain = { 0 };
    const struct request *r = w->request;
    int ret;

    switch (r->kind) {
    case READ:
        return qcow2_pread(w->disk, w->buf, r->nr_bytes, r->off, &w->err);
    case WRITE:
        content_of(r, w->buf, seed);
        return qcow2_pwrite(w->disk, w->buf, r->nr_bytes, r->off, 0,
                            &w->err);
    case ZERO:
        return qcow2_zero(w->disk, r->nr_bytes, r->off, QCOW2_MAY_TRIM,
                          &w->err);
    case TRIM:
        return qcow2_trim(w->disk, r->nr_bytes, r->off, 0, &w->err);
    case COMPRESS:
        return compress(w, seed);
    case FLUSH:
        return qcow2_flush(w->disk, &w->err);
    case CREATE:
        return qcow2_snapshot_create(w->disk, "new", &plain, &w->err);
    case DELETE:
        ret = qcow2_snapshot_delete(w->disk, "s", &w->err);
        return ret == -1 && w->err.errnum == ENOENT ? 0 : ret;
    }
    return -1;
}

static void *
run_first(void *arg)
{
    struct worker *w = arg;

    stops = w->stop;
    w->result = run(w, FIRST_SEED);
    stops = NULL;
    set(w->stop, &w->stop->ended);
    return NULL;
}

static void *
run_second(void *arg)
{
    struct worker *w = arg;

    lets_go = w->stop;
    w->result = run(w, SECOND_SEED);
    if (w->result == 0)
        w->result = qcow2_flush(w->disk, &w->err);
    w->request = &elsewhere;
    if (w->result == 0)
        w->result = run(w, ELSEWHERE_SEED);
    if (w->result == 0)
        w->result = qcow2_flush(w->disk, &w->err);
    let_go();
    return NULL;
}

/* Leaves something to flush: entries of both levels, frees, and a cluster
 * with room for compressed data among them. What the disk reads as stays the
 * same. */
static void
prepare(struct worker *w)
{
    static const struct request requests[] = {
        { "-", COMPRESS, 12 * C, C }, { "-", TRIM, 12 * C, C },
        { "-", WRITE, 25 * C, C }, { "-", ZERO, 25 * C, C },
        { "-", WRITE, 26 * C, C }, { "-", ZERO, 26 * C, C / 2 },
        { "-", ZERO, 26 * C + C / 2, C / 2 },
        { "-", WRITE, 75 * C, C }, { "-", ZERO, 75 * C, C },
    };

    for (unsigned i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        w->request = &requests[i];
        EXPECT_OK(run(w, 1), &w->err);
    }
}

static void
start(struct trial *t, unsigned nth)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    const unsigned char *bytes;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    size_t nr_bytes;

    bytes = builder_bytes(t->image, &nr_bytes);
    t->mem = mem_new(bytes, nr_bytes);
    t->report.nr_violations = 0;
    disk = disk_open_io(io_order_new(io_mem_open(t->mem, false), &t->report),
                        "image", &options, &err);
    EXPECT(disk, "%s", err.text);
    t->first.disk = t->second.disk = disk;
    if (t->scene->prepared)
        prepare(&t->first);
    t->first.stop = t->second.stop = &t->stop;
    t->stop.left = nth;
    t->stop.stopped = t->stop.ended = t->stop.go_on = false;
}

/* The first, the second or nobody: whoever may have been the last. */
static void
expect_bytes(struct trial *t, const struct request *second)
{
    const struct request *first = t->first.request;
    unsigned char disk[SIZE], made_first[SIZE], made_second[SIZE];
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(t->first.disk, disk, SIZE, 0, &err), &err);
    content_of(first, made_first + first->off, FIRST_SEED);
    content_of(second, made_second + second->off, SECOND_SEED);
    content_of(&elsewhere, made_second + elsewhere.off, ELSEWHERE_SEED);
    for (uint64_t i = 0; i < SIZE; i++) {
        bool by_first = changes(first, i);
        bool by_second = changes(second, i) || changes(&elsewhere, i);
        bool right = (by_first && disk[i] == made_first[i])
                     || (by_second && disk[i] == made_second[i])
                     || (!by_first && !by_second && disk[i] == t->before[i]);

        EXPECT(right, "byte %llu is 0x%02x, which nobody wrote",
               (unsigned long long)i, disk[i]);
    }
    for (uint64_t i = 0; first->kind == READ && i < first->nr_bytes; i++) {
        uint64_t at = first->off + i;

        EXPECT(t->first.buf[i] == t->before[at]
               || (changes(second, at)
                   && t->first.buf[i] == made_second[at]),
               "byte %llu was read as 0x%02x, which nobody wrote",
               (unsigned long long)at, t->first.buf[i]);
    }
}

static void
expect_snapshot(struct trial *t)
{
    unsigned char got[SIZE];
    struct qcow2_error err;
    struct qcow2_snapshot info;
    struct qcow2_disk *s;

    if (qcow2_get_nr_snapshots(t->first.disk) == 0)
        return;
    snapshot_get(t->first.disk, 0, &info);
    if (strcmp(info.name, "s") != 0)
        return;
    s = qcow2_open_snapshot(t->first.disk, "s", &err);
    EXPECT(s, "%s", err.text);
    EXPECT_OK(qcow2_pread(s, got, SIZE, 0, &err), &err);
    expect_same("snapshot", got, t->snapshot, SIZE, 0);
    EXPECT_OK(qcow2_close(s, &err), &err);
}

static void
finish(struct trial *t)
{
    const unsigned char *bytes;
    struct qcow2_error err;
    uint64_t nr_bytes;
    struct audit a;

    EXPECT_OK(qcow2_close(t->first.disk, &err), &err);
    EXPECT(t->report.nr_violations == 0, "%u violations: %s",
           t->report.nr_violations, t->report.first);
    bytes = mem_bytes(t->mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.nr_corruptions == 0 && a.nr_leaks == 0 && !a.dirty,
           "%s (%u leaks)", a.first, a.nr_leaks);
    mem_free(t->mem);
}

/* Stops the first at its nth place; false: it has none. */
static bool
try_place(struct trial *t, const struct request *first,
          const struct request *second, unsigned nth)
{
    pthread_t threads[2];
    bool stopped;

    expect_case("%s: %s is stopped at place %u; %s", t->scene->name,
                first->name, nth, second->name);
    start(t, nth);
    t->first.request = first;
    t->second.request = second;
    pthread_create(&threads[0], NULL, run_first, &t->first);
    await(&t->stop, &t->stop.stopped, &t->stop.ended);
    stopped = t->stop.stopped;
    pthread_create(&threads[1], NULL, run_second, &t->second);
    pthread_join(threads[1], NULL);
    pthread_join(threads[0], NULL);
    EXPECT(t->first.result == 0, "%s", t->first.err.text);
    EXPECT(t->second.result == 0, "%s", t->second.err.text);
    expect_bytes(t, second);
    expect_snapshot(t);
    finish(t);
    return stopped;
}

static unsigned
try_places(struct trial *t, const struct request *first,
           const struct request *second)
{
    unsigned n = 0;

    /* They are of clusters of C bytes. */
    if (t->scene->extended_l2
        && (first->kind == COMPRESS || second->kind == COMPRESS))
        return 0;
    while (try_place(t, first, second, n + 1))
        n++;
    return n;
}

static void
requests_do_not_meet_at_any_place(void **state)
{
    unsigned nr = 0;

    (void)state;
    for (unsigned s = 0; s < NR_SCENES; s++) {
        struct trial *t = calloc(1, sizeof *t);

        t->scene = &scenes[s];
        t->image = builder_new();
        builder_add(t->image, "%s", t->scene->recipe);
        builder_overlay(t->image, -1, t->before, SIZE);
        if (strstr(t->scene->recipe, "snapshot 1 s"))
            builder_overlay(t->image, 0, t->snapshot, SIZE);
        pthread_mutex_init(&t->stop.lock, NULL);
        pthread_cond_init(&t->stop.changed, NULL);
        for (unsigned i = 0; i < NR_FIRSTS; i++)
            for (unsigned k = 0; k < NR_SECONDS; k++)
                nr += try_places(t, &firsts[i], &seconds[k]);
        builder_free(t->image);
        free(t);
    }
    print_message("%u places\n", nr);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_do_not_meet_at_any_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
