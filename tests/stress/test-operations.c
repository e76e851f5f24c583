/* SPDX-License-Identifier: BSD-3-Clause */
/* test-operations: requests, reads of snapshots, flushes, and operations on
 * the whole image at the same time, on a deep chain, with caches that hold
 * next to nothing; and on the same chain, with the same caches, another disk
 * is written and committed again and again. Every unit of the disk belongs to
 * one thread, which knows what it must read there. TEST_SEED and TEST_ROUNDS
 * make other and longer runs (the order of threads is not the seed's).
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "audit.h"
#include "base/compress.h"
#include "builder.h"
#include "disk/chain.h"
#include "disk/open.h"
#include "expect.h"
#include "io-jitter.h"
#include "io-mem.h"
#include "oracle.h"
#include "request/request.h"
#include "rng.h"
#include "tmpdir.h"

enum {
    NR_WRITERS = 16, NR_OPS = 100, NR_OPERATIONS = 20,
    NR_COMMITS = 4, NR_FLUSHES = 20,
    NR_LAYERS = 5, MAX_CLUSTER = 65536,
};

struct scene {
    unsigned cluster_size, refcount_bits;
    uint64_t size;
    uint64_t unit;              /* what one thread owns; then the next */
    uint64_t cache_bytes;
};

struct trial {
    const struct scene *scene;
    struct qcow2_pool *pool;
    struct mem *mem;
    struct qcow2_disk *disk;
    unsigned char *want;        /* each unit: of its thread */
    unsigned char *saved;       /* what the snapshot "held" holds */
    pthread_rwlock_t quiet;     /* exclusive: no writer is at work */
    unsigned nr_busy;           /* atomic: writers that have not ended */
};

struct worker {
    struct trial *t;
    unsigned index;
    struct rng rng;
    unsigned char *buf, *more;
    char problem[256];          /* empty: none */
};

static void
complain(struct worker *w, const char *what, const struct qcow2_error *err)
{
    if (!w->problem[0])
        snprintf(w->problem, sizeof w->problem, "%s: %.200s", what,
                 err ? err->text : "differs");
}

/* Layers below the disk, each with something of its own. */
static void
make_layers(const struct scene *s)
{
    for (unsigned i = 0; i < NR_LAYERS; i++) {
        struct builder *b = builder_new();
        uint64_t nr = s->size / 4096;
        char name[32];

        builder_add(b, "cluster 4096; size %llu",
                    (unsigned long long)(s->size - i % 2 * 4096));
        if (i > 0)
            builder_add(b, "backing layer-%u qcow2", i - 1);
        builder_add(b, "data %u-%u %u; compressed %u-%u %u; zero %u",
                    i * 3, i * 3 + 1, i + 50, (unsigned)(nr / 2) + i * 3,
                    (unsigned)(nr / 2) + i * 3 + 1, i + 60,
                    (unsigned)(nr / 3) + i);
        snprintf(name, sizeof name, "layer-%u", i);
        builder_write(b, tmpdir_path(name));
        builder_free(b);
    }
}

static void
write_unit(struct worker *w, uint64_t off, uint64_t seed)
{
    uint64_t in = rng_below(&w->rng, w->t->scene->unit);
    uint64_t n = 1 + rng_below(&w->rng, w->t->scene->unit - in);
    unsigned flags = rng_percent(&w->rng, 5) ? QCOW2_FUA : 0;
    struct qcow2_error err;

    pattern_fill(w->buf, n, seed, 0);
    if (qcow2_pwrite(w->t->disk, w->buf, n, off + in, flags, &err) == -1)
        complain(w, "write", &err);
    memcpy(w->t->want + off + in, w->buf, n);
}

static void
zero_unit(struct worker *w, uint64_t off)
{
    unsigned flags = rng_percent(&w->rng, 50) ? QCOW2_MAY_TRIM : 0;
    struct qcow2_error err;
    int r;

    if (rng_percent(&w->rng, 50)
        && w->t->scene->unit == w->t->scene->cluster_size)
        r = qcow2_trim(w->t->disk, w->t->scene->unit, off, 0, &err);
    else
        r = qcow2_zero(w->t->disk, w->t->scene->unit, off, flags, &err);
    if (r == -1)
        complain(w, "zero", &err);
    memset(w->t->want + off, 0, w->t->scene->unit);
}

/* As convert writes them. */
static void
compress_unit(struct worker *w, uint64_t off, uint64_t seed)
{
    struct image *img = disk_image(w->t->disk);
    uint32_t size = w->t->scene->cluster_size;
    struct workspace *space;
    struct qcow2_error err;
    long n;

    if (w->t->scene->unit != size)
        return;
    pattern_fill(w->buf, size, seed, 0);
    space = decompress_pool_take_space(img->decompress, 0, 0, &err);
    n = compress_encode(space->context, COMPRESS_ZLIB, 1, w->buf, size,
                        w->more, size - 1);
    decompress_pool_put_space(img->decompress, space);
    if (n <= 0)
        return;
    pthread_rwlock_rdlock(&img->rwlock);
    if (image_begin_write(img, &err) == -1
        || write_compressed(img, w->more, n, off, &err) == -1)
        complain(w, "compressed", &err);
    pthread_rwlock_unlock(&img->rwlock);
    memcpy(w->t->want + off, w->buf, size);
}

static void
read_unit(struct worker *w, uint64_t off)
{
    struct qcow2_error err;

    if (qcow2_pread(w->t->disk, w->buf, w->t->scene->unit, off, &err) == -1)
        complain(w, "read", &err);
    else if (memcmp(w->buf, w->t->want + off, w->t->scene->unit) != 0)
        complain(w, "unit", NULL);
}

static int
ignore_extent(void *opaque, const struct qcow2_extent *e)
{
    (void)opaque;
    return e->nr_bytes == 0;
}

static void
do_anything(struct worker *w, uint64_t seed)
{
    struct trial *t = w->t;
    uint64_t nr = t->scene->size / t->scene->unit / NR_WRITERS;
    uint64_t off = (rng_below(&w->rng, nr) * NR_WRITERS + w->index)
                   * t->scene->unit;
    unsigned dice = rng_below(&w->rng, 100);
    struct qcow2_error err;

    if (dice < 35)
        write_unit(w, off, seed);
    else if (dice < 50)
        zero_unit(w, off);
    else if (dice < 60)
        compress_unit(w, off, seed);
    else if (dice < 90)
        read_unit(w, off);
    else if (dice < 95 && qcow2_flush(t->disk, &err) == -1)
        complain(w, "flush", &err);
    else if (dice >= 95
             && qcow2_map(t->disk, t->scene->size, 0, ignore_extent, NULL,
                          &err) == -1)
        complain(w, "map", &err);
}

static void *
write_units(void *opaque)
{
    struct worker *w = opaque;
    struct trial *t = w->t;

    for (unsigned i = 0; i < NR_OPS && !w->problem[0]; i++) {
        pthread_rwlock_rdlock(&t->quiet);
        do_anything(w, (w->index + 1) * 1000 + i);
        pthread_rwlock_unlock(&t->quiet);
    }
    __atomic_sub_fetch(&t->nr_busy, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Snapshots never change; "held" is what it was when all was quiet. */
static void *
read_snapshots(void *opaque)
{
    static const char *const names[] = { "held", "passing" };
    struct worker *w = opaque;
    struct trial *t = w->t;

    while (__atomic_load_n(&t->nr_busy, __ATOMIC_ACQUIRE) && !w->problem[0]) {
        bool held = rng_percent(&w->rng, 50);
        struct qcow2_error err;
        struct qcow2_disk *s = qcow2_open_snapshot(t->disk, names[!held],
                                                   &err);

        if (!s) {
            if (err.errnum != ENOENT)
                complain(w, "open snapshot", &err);
            continue;
        }
        if (qcow2_pread(s, w->buf, t->scene->size, 0, &err) == -1
            || qcow2_pread(s, w->more, t->scene->size, 0, &err) == -1)
            complain(w, "read snapshot", &err);
        else if (memcmp(w->buf, w->more, t->scene->size) != 0
                 || (held && memcmp(w->buf, t->saved, t->scene->size) != 0))
            complain(w, "snapshot", NULL);
        qcow2_close(s, NULL);
    }
    return NULL;
}

/* Creates the snapshot "passing", or deletes it if nobody reads it. */
static void
come_and_go(struct worker *w)
{
    const struct qcow2_snapshot_create_options options = { 0 };
    struct qcow2_disk *disk = w->t->disk;
    struct qcow2_error err;

    if (qcow2_get_nr_snapshots(disk) == 1) {
        if (qcow2_snapshot_create(disk, "passing", &options, &err) == -1)
            complain(w, "create", &err);
    } else if (qcow2_snapshot_delete(disk, "passing", &err) == -1
               && err.errnum != EBUSY) {
        complain(w, "delete", &err);
    }
}

static void
grow_and_shrink(struct worker *w)
{
    uint64_t size = w->t->scene->size;
    struct qcow2_error err;

    if (qcow2_resize(w->t->disk, 3 * size, false, &err) == -1
        || qcow2_resize(w->t->disk, size, true, &err) == -1)
        complain(w, "resize", &err);
}

/* Nobody writes meanwhile, so the whole disk is known. */
static void
go_back(struct worker *w)
{
    struct trial *t = w->t;
    struct qcow2_error err;

    pthread_rwlock_wrlock(&t->quiet);
    if (qcow2_snapshot_apply(t->disk, "held", &err) == -1)
        complain(w, "apply", &err);
    memcpy(t->want, t->saved, t->scene->size);
    pthread_rwlock_unlock(&t->quiet);
}

static void
operate(struct worker *w)
{
    unsigned dice = rng_below(&w->rng, 100);

    if (dice < 60)
        come_and_go(w);
    else if (dice < 80)
        grow_and_shrink(w);
    else
        go_back(w);
}

static void *
run_operations(void *opaque)
{
    struct worker *w = opaque;

    for (unsigned i = 0; i < NR_OPERATIONS && !w->problem[0]; i++)
        operate(w);
    return NULL;
}

/* One more who flushes, however busy the writers are. */
static void *
flush_often(void *opaque)
{
    struct worker *w = opaque;
    struct qcow2_error err;

    for (unsigned i = 0; i < NR_FLUSHES && !w->problem[0]; i++)
        if (qcow2_flush(w->t->disk, &err) == -1)
            complain(w, "flush", &err);
    return NULL;
}

/* Another disk on the same layers: overlay on base. */
static void
make_overlay(const struct scene *s)
{
    struct builder *b = builder_new();

    builder_add(b, "cluster %u; size %llu; backing layer-%u qcow2; data 1 7",
                s->cluster_size, (unsigned long long)s->size, NR_LAYERS - 1);
    builder_write(b, tmpdir_path("base"));
    builder_free(b);
    b = builder_new();
    builder_add(b, "cluster %u; size %llu; backing base qcow2",
                s->cluster_size, (unsigned long long)s->size);
    builder_write(b, tmpdir_path("overlay"));
    builder_free(b);
}

/* Opens the overlay; NULL if that failed. */
static struct qcow2_disk *
open_overlay(struct worker *w)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    options.pool = w->t->pool;
    disk = qcow2_open(tmpdir_path("overlay"), &options, &err);
    if (!disk)
        complain(w, "open overlay", &err);
    return disk;
}

/* Writes here and there, and looks at all of it. */
static void
use_overlay(struct worker *w, unsigned char *want, uint64_t seed)
{
    uint64_t size = w->t->scene->size;
    struct qcow2_disk *disk = open_overlay(w);
    struct qcow2_error err;

    if (!disk)
        return;
    if (qcow2_pread(disk, w->buf, size, 0, &err) == -1)
        complain(w, "read overlay", &err);
    else if (seed == 0)
        memcpy(want, w->buf, size);
    else if (memcmp(w->buf, want, size) != 0)
        complain(w, "overlay", NULL);
    for (unsigned i = 0; i < 5; i++) {
        uint64_t off = rng_below(&w->rng, size);
        uint64_t n = 1 + rng_below(&w->rng, size - off);

        if (n > 3 * w->t->scene->cluster_size)
            n = 3 * w->t->scene->cluster_size;
        pattern_fill(want + off, n, seed + i + 1, off);
        if (qcow2_pwrite(disk, want + off, n, off, 0, &err) == -1)
            complain(w, "write overlay", &err);
    }
    if (qcow2_close(disk, &err) == -1)
        complain(w, "close overlay", &err);
}

static void *
commit_often(void *opaque)
{
    static const struct qcow2_commit_options plain;
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct worker *w = opaque;
    unsigned char *want = w->more;
    struct qcow2_error err;

    for (unsigned i = 0; i < NR_COMMITS && !w->problem[0]; i++) {
        struct qcow2_job *job;

        use_overlay(w, want, i * 100);
        job = qcow2_commit(tmpdir_path("overlay"), &options, &plain, &err);
        if (!job || qcow2_job_run(job, NULL, NULL, &err) == -1)
            complain(w, "commit", &err);
        qcow2_job_free(job);
    }
    return NULL;
}

/* The disk on its chain, with caches of next to nothing. */
static void
start(struct trial *t, const struct scene *s)
{
    const struct qcow2_snapshot_create_options plain = { 0 };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct builder *b = builder_new();
    const unsigned char *bytes;
    struct qcow2_error err;
    size_t nr_bytes;

    make_layers(s);
    make_overlay(s);
    builder_add(b, "cluster %u; refcount-bits %u; size %llu;"
                "backing layer-%u qcow2; data 0-1 1; compressed 2-5 2",
                s->cluster_size, s->refcount_bits,
                (unsigned long long)s->size, NR_LAYERS - 1);
    bytes = builder_bytes(b, &nr_bytes);
    t->mem = mem_new(bytes, nr_bytes);
    builder_free(b);

    t->scene = s;
    t->pool = qcow2_pool_new(0, NULL);
    t->want = calloc(2, s->size);
    t->saved = t->want + s->size;
    EXPECT(t->pool && t->want, "memory");
    cache_free(t->pool->meta);
    decompress_pool_free(t->pool->decompress);
    t->pool->meta = cache_new(s->cache_bytes, NULL);
    t->pool->decompress = decompress_pool_new(s->cache_bytes, NULL);
    options.pool = t->pool;
    t->disk = disk_open_io(io_jitter_new(io_mem_open(t->mem, false)),
                           tmpdir_path("image"), &options, &err);
    EXPECT(t->disk, "open: %s", err.text);
    EXPECT_OK(qcow2_pread(t->disk, t->want, s->size, 0, &err), &err);
    memcpy(t->saved, t->want, s->size);
    EXPECT_OK(qcow2_snapshot_create(t->disk, "held", &plain, &err), &err);
    pthread_rwlock_init(&t->quiet, NULL);
    t->nr_busy = NR_WRITERS;
}

static void
expect_clean(const char *name)
{
    struct mem *m = mem_load(tmpdir_path(name));
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    bytes = mem_bytes(m, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "%s: %u corruptions (%s), %u without COPIED, "
           "%u leaks%s", name, a.nr_corruptions, a.first, a.nr_uncopied,
           a.nr_leaks, a.dirty ? ", dirty" : "");
    oracle_expect_clean(tmpdir_path(name));
    mem_free(m);
}

static void
finish(struct trial *t)
{
    unsigned char *got = malloc(t->scene->size);
    struct qcow2_error err;

    EXPECT(got, "memory");
    EXPECT_OK(qcow2_pread(t->disk, got, t->scene->size, 0, &err), &err);
    expect_same("disk", got, t->want, t->scene->size, 0);
    EXPECT_OK(qcow2_close(t->disk, &err), &err);
    mem_save(t->mem, tmpdir_path("image"));
    expect_clean("image");
    expect_clean("base");
    expect_clean("overlay");
    oracle_expect_content(tmpdir_path("image"), t->want, t->scene->size);
    free(got);
    free(t->want);
    mem_free(t->mem);
    qcow2_pool_free(t->pool);
    pthread_rwlock_destroy(&t->quiet);
}

static void
run(const struct scene *s, uint64_t stream)
{
    static void *(*const others[])(void *) = {
        read_snapshots, read_snapshots, run_operations, commit_often,
        flush_often
    };
    enum { NR = NR_WRITERS + sizeof others / sizeof others[0] };
    struct worker workers[NR];
    pthread_t threads[NR];
    struct trial t;

    expect_case("TEST_SEED=%llu: clusters of %u, units of %llu, stream %llu",
                (unsigned long long)rng_seed(1), s->cluster_size,
                (unsigned long long)s->unit, (unsigned long long)stream);
    start(&t, s);
    for (unsigned i = 0; i < NR; i++) {
        uint64_t nr_bytes = i < NR_WRITERS ? MAX_CLUSTER : s->size;

        workers[i] = (struct worker){ .t = &t, .index = i };
        rng_init(&workers[i].rng, rng_seed(1), stream + i);
        workers[i].buf = malloc(2 * nr_bytes);
        EXPECT(workers[i].buf, "memory");
        workers[i].more = workers[i].buf + nr_bytes;
        EXPECT(pthread_create(&threads[i], NULL,
                              i < NR_WRITERS ? write_units
                                             : others[i - NR_WRITERS],
                              &workers[i]) == 0, "thread");
    }
    for (unsigned i = 0; i < NR; i++) {
        pthread_join(threads[i], NULL);
        free(workers[i].buf);
    }
    for (unsigned i = 0; i < NR; i++)
        EXPECT(!workers[i].problem[0], "thread %u: %s", i,
               workers[i].problem);
    finish(&t);
}

static void
all_at_once(void **state)
{
    static const struct scene scenes[] = {
        { 512, 64, 64 << 10, 512, 8 << 10 },
        { 4096, 16, 256 << 10, 512, 16 << 10 },
        { 4096, 16, 256 << 10, 4096, 16 << 10 },
        { 65536, 8, 2 << 20, 65536, 32 << 10 },
    };
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned i = 0; i < 4 * rounds; i++)
        run(&scenes[i % 4], i * 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
