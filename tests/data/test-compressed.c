/* SPDX-License-Identifier: BSD-3-Clause */
/* test-compressed: compressed clusters, packed next to each other in shared
 * host clusters, among other requests, against a model, with refcounts of
 * any width; at the end nothing is damaged or leaked. TEST_ROUNDS and
 * TEST_SEED make longer and other runs.
 */
#include <pthread.h>
#include <stdlib.h>

#include "audit.h"
#include "base/compress.h"
#include "cache/decompress-pool.h"
#include "disk/open.h"
#include "expect.h"
#include "meta/image.h"
#include "oracle.h"
#include "request/request.h"
#include "rng.h"
#include "tmpdir.h"

enum { NR_CLUSTERS = 48, NR_THREADS = 4 };

struct trial {
    struct rng rng;
    uint32_t cluster_size;
    struct qcow2_disk *disk;
    unsigned char *model;
    uint64_t next_seed;
};

static void
open_disk(struct trial *t)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;

    t->disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(t->disk, "%s", err.text);
}

static void
trial_begin(struct trial *t, uint64_t seed, unsigned round)
{
    struct qcow2_create_options create = { .version = 3 };
    struct qcow2_error err;

    tmpdir_clear();
    rng_init(&t->rng, seed, round);
    t->cluster_size = 512U << rng_below(&t->rng, 7);
    create.size = (uint64_t)NR_CLUSTERS * t->cluster_size;
    create.cluster_size = t->cluster_size;
    create.refcount_bits = 1U << rng_below(&t->rng, 7);
    create.zstd = qcow2_has_feature("zstd") && rng_percent(&t->rng, 50);
    expect_case("seed %llu round %u: cluster %u refcount bits %u zstd %d",
                (unsigned long long)seed, round, t->cluster_size,
                create.refcount_bits, create.zstd);
    EXPECT_OK(qcow2_create(tmpdir_path("image"), &create, &err), &err);
    t->model = calloc(NR_CLUSTERS, t->cluster_size);
    t->next_seed = 1;
    open_disk(t);
}

static void
trial_end(struct trial *t)
{
    struct qcow2_error err;
    struct audit a;
    unsigned char *bytes;
    size_t nr_bytes;

    EXPECT_OK(qcow2_close(t->disk, &err), &err);
    bytes = tmpdir_read_file(tmpdir_path("image"), &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    free(bytes);
    EXPECT(audit_is_clean(&a), "%s, %u leaks", a.first, a.nr_leaks);
    oracle_expect_clean(tmpdir_path("image"));
    oracle_expect_content(tmpdir_path("image"), t->model,
                          (uint64_t)NR_CLUSTERS * t->cluster_size);
    free(t->model);
}

/* Content that compresses to some length. */
static void
fill(unsigned char *buf, uint32_t nr_bytes, uint64_t seed)
{
    pattern_fill(buf, nr_bytes, seed, 0);
    memset(buf, (int)seed, nr_bytes / 8 * (seed % 8));
}

static int
compress_to(struct qcow2_disk *disk, const unsigned char *buf,
            uint32_t nr_bytes, uint64_t guest_off)
{
    struct image *img = disk_image(disk);
    unsigned char *packed = malloc(nr_bytes);
    struct qcow2_error err;
    struct workspace *w =
        decompress_pool_take_space(img->decompress, 0, 0, &err);
    long n = compress_encode(w->context, img->hdr.compression_type, 0, buf,
                             nr_bytes, packed, nr_bytes - 1);
    int r = 0;

    decompress_pool_put_space(img->decompress, w);

    pthread_rwlock_rdlock(&img->rwlock);
    if (image_begin_write(img, &err) == -1)
        r = -1;
    else if (n > 0)
        r = write_compressed(img, packed, n, guest_off, &err);
    else
        r = write_data(img, buf, nr_bytes, guest_off, &err);
    pthread_rwlock_unlock(&img->rwlock);
    free(packed);
    return r;
}

static void
one_request(struct trial *t)
{
    uint64_t cluster = rng_below(&t->rng, NR_CLUSTERS), seed = t->next_seed++;
    uint64_t off = cluster * t->cluster_size;
    unsigned char *model = t->model + off;
    struct qcow2_error err;

    switch (rng_below(&t->rng, 12)) {
    default:
        expect_step("compress cluster %llu", (unsigned long long)cluster);
        fill(model, t->cluster_size, seed);
        EXPECT(compress_to(t->disk, model, t->cluster_size, off) == 0, "-");
        break;
    case 0:
    case 1:
        expect_step("write into cluster %llu", (unsigned long long)cluster);
        fill(model, t->cluster_size / 2, seed);
        EXPECT_OK(qcow2_pwrite(t->disk, model, t->cluster_size / 2, off, 0,
                               &err), &err);
        break;
    case 2:
    case 3:
        expect_step("trim cluster %llu", (unsigned long long)cluster);
        memset(model, 0, t->cluster_size);
        EXPECT_OK(qcow2_trim(t->disk, t->cluster_size, off, 0, &err), &err);
        break;
    case 4:
        expect_step("flush");
        EXPECT_OK(qcow2_flush(t->disk, &err), &err);
        break;
    }
}

/* Any bytes, so that clusters are read in part, in a row, and again. */
static void
read_somewhere(struct trial *t, struct rng *rng, struct qcow2_disk *disk)
{
    uint64_t size = (uint64_t)NR_CLUSTERS * t->cluster_size;
    uint64_t off = rng_below(rng, size);
    size_t most = rng_percent(rng, 50) ? t->cluster_size / 4 : size;
    size_t nr_bytes = 1 + rng_below(rng, size - off < most ? size - off
                                                            : most);
    unsigned char *got = malloc(nr_bytes);
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(disk, got, nr_bytes, off, &err), &err);
    expect_same("part", got, t->model + off, nr_bytes, off);
    free(got);
}

static void
verify(struct trial *t)
{
    size_t nr_bytes = (size_t)NR_CLUSTERS * t->cluster_size;
    unsigned char *got = malloc(nr_bytes);
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(t->disk, got, nr_bytes, 0, &err), &err);
    expect_same("disk", got, t->model, nr_bytes, 0);
    free(got);
}

static void
compressed_clusters_among_others_read_right(void **state)
{
    uint64_t seed = rng_seed(1);
    unsigned rounds = env_number("TEST_ROUNDS", 60);

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        struct qcow2_error err;
        struct trial t;

        trial_begin(&t, seed, i);
        for (unsigned n = 0; n < 300; n++) {
            one_request(&t);
            read_somewhere(&t, &t.rng, t.disk);
            if (n % 16 == 0)
                verify(&t);
            if (n % 100 == 99) {
                expect_step("reopen");
                EXPECT_OK(qcow2_close(t.disk, &err), &err);
                open_disk(&t);
            }
        }
        verify(&t);
        trial_end(&t);
    }
}

/* The last sector of a file is complete, blobs are next to each other. */
static void
clusters_are_shared(void **state)
{
    struct qcow2_create_options create = { .size = 4 << 20 };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    unsigned char *buf = malloc(65536);
    unsigned char *bytes;
    size_t nr_bytes;

    (void)state;
    tmpdir_clear();
    expect_case("shared");
    EXPECT_OK(qcow2_create(tmpdir_path("image"), &create, &err), &err);
    disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(disk, "%s", err.text);
    for (unsigned i = 0; i < 64; i++) {
        memset(buf, (int)i + 1, 65536);
        pattern_fill(buf, 512, i, 0);
        EXPECT(compress_to(disk, buf, 65536, i * 65536) == 0, "-");
    }
    EXPECT_OK(qcow2_close(disk, &err), &err);
    bytes = tmpdir_read_file(tmpdir_path("image"), &nr_bytes);
    /* header, reftable, refblock, L1, L2 and one for all the data */
    EXPECT(nr_bytes <= 6 * 65536, "%zu bytes", nr_bytes);
    free(bytes);
    free(buf);
    oracle_expect_clean(tmpdir_path("image"));
}

/* The cluster with room left is freed, and then somebody else's. */
static void
a_freed_cluster_is_packed_into_no_more(void **state)
{
    for (unsigned no_discard = 0; no_discard < 2; no_discard++) {
        struct qcow2_create_options create = { .size = 1 << 20 };
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        struct qcow2_error err;
        struct qcow2_disk *disk;
        unsigned char *buf = calloc(2, 65536), *got = malloc(65536);

        (void)state;
        tmpdir_clear();
        expect_case("freed, no_discard %u", no_discard);
        EXPECT_OK(qcow2_create(tmpdir_path("image"), &create, &err), &err);
        disk = qcow2_open(tmpdir_path("image"), &options, &err);
        EXPECT(disk, "%s", err.text);
        EXPECT(compress_to(disk, buf, 65536, 0) == 0, "-");
        disk_image(disk)->no_discard = no_discard;
        pattern_fill(buf, 65536, 5, 0);
        EXPECT_OK(qcow2_pwrite(disk, buf, 65536, 0, 0, &err), &err);
        EXPECT_OK(qcow2_flush(disk, &err), &err);
        EXPECT_OK(qcow2_pwrite(disk, buf, 65536, 65536, 0, &err), &err);
        EXPECT(compress_to(disk, buf + 65536, 65536, 131072) == 0, "-");
        EXPECT_OK(qcow2_pread(disk, got, 65536, 65536, &err), &err);
        expect_same("neighbour", got, buf, 65536, 65536);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        oracle_expect_clean(tmpdir_path("image"));
        free(buf);
        free(got);
    }
}

static uint64_t
bytes_in_cache(struct qcow2_disk *disk)
{
    return cache_used_bytes(
        decompress_pool_cache(disk_image(disk)->decompress));
}

/* As left by a writer that compresses several clusters at once. */
static void
rows_are_kept_out_of_the_cache_in_whatever_order_they_lie(void **state)
{
    struct qcow2_create_options create = { .size = 8 << 16 };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    unsigned char *model = malloc(create.size), *got = malloc(create.size);

    (void)state;
    tmpdir_clear();
    expect_case("backwards");
    EXPECT_OK(qcow2_create(tmpdir_path("image"), &create, &err), &err);
    disk = qcow2_open(tmpdir_path("image"), &options, &err);
    EXPECT(disk, "%s", err.text);
    for (unsigned i = 8; i-- > 0;) {
        fill(model + i * 65536, 65536, i + 1);
        EXPECT(compress_to(disk, model + i * 65536, 65536, i * 65536) == 0,
               "-");
    }
    EXPECT_OK(qcow2_pread(disk, got, create.size, 0, &err), &err);
    expect_same("row", got, model, create.size, 0);
    EXPECT(bytes_in_cache(disk) == 0, "rows are kept");

    EXPECT_OK(qcow2_pread(disk, got, 65536, 65536, &err), &err);
    EXPECT(bytes_in_cache(disk) > 0, "one alone is not kept");
    EXPECT_OK(qcow2_pread(disk, got, create.size - 512, 0, &err), &err);
    expect_same("some of it cached", got, model, create.size - 512, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(model);
    free(got);
}

struct worker {
    struct trial *t;
    unsigned nr;
    int r;
};

/* Each thread has clusters of its own, which share host clusters. */
static void *
work(void *arg)
{
    struct worker *w = arg;
    struct trial *t = w->t;
    struct rng rng;

    rng_init(&rng, 7, w->nr);
    for (unsigned n = 0; n < 150 && w->r == 0; n++) {
        uint64_t cluster = rng_below(&rng, NR_CLUSTERS / NR_THREADS)
                           * NR_THREADS + w->nr;
        uint64_t off = cluster * t->cluster_size;
        unsigned char *model = t->model + off;

        switch (rng_below(&rng, 8)) {
        default:
            fill(model, t->cluster_size, rng_next(&rng) >> 8);
            w->r = compress_to(t->disk, model, t->cluster_size, off);
            break;
        case 0:
        case 1:
            memset(model, 0, t->cluster_size);
            w->r = qcow2_trim(t->disk, t->cluster_size, off, 0, NULL);
            break;
        case 2:
            w->r = qcow2_flush(t->disk, NULL);
            break;
        }
    }
    return NULL;
}

static void
threads_pack_into_the_same_clusters(void **state)
{
    uint64_t seed = rng_seed(2);

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        struct worker workers[NR_THREADS];
        pthread_t threads[NR_THREADS];
        struct trial t;

        trial_begin(&t, seed, i);
        for (unsigned n = 0; n < NR_THREADS; n++) {
            workers[n] = (struct worker){ .t = &t, .nr = n };
            EXPECT(pthread_create(&threads[n], NULL, work, &workers[n]) == 0,
                   "pthread_create");
        }
        for (unsigned n = 0; n < NR_THREADS; n++)
            pthread_join(threads[n], NULL);
        for (unsigned n = 0; n < NR_THREADS; n++)
            EXPECT(workers[n].r == 0, "thread %u failed", n);
        verify(&t);
        trial_end(&t);
    }
}

/* Reads a disk that nobody writes. */
static void *
read_all_ways(void *arg)
{
    struct worker *w = arg;
    struct trial *t = w->t;
    size_t step = t->cluster_size / 8;
    unsigned char *got = malloc(step);
    struct rng rng;

    rng_init(&rng, 9, w->nr);
    /* Together from the start, a part of a cluster after the other. */
    for (uint64_t i = w->nr; i < NR_CLUSTERS * 8 && w->r == 0;
         i += NR_THREADS) {
        w->r = qcow2_pread(t->disk, got, step, i * step, NULL);
        if (w->r == 0 && memcmp(got, t->model + i * step, step) != 0)
            w->r = -1;
    }
    free(got);
    for (unsigned i = 0; i < 100 && w->r == 0; i++)
        read_somewhere(t, &rng, t->disk);
    return NULL;
}

static void
threads_read_the_same_clusters(void **state)
{
    uint64_t seed = rng_seed(3);

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        struct worker workers[NR_THREADS];
        pthread_t threads[NR_THREADS];
        struct qcow2_error err;
        struct trial t;

        trial_begin(&t, seed, i);
        for (unsigned n = 0; n < NR_CLUSTERS; n++) {
            uint64_t off = (uint64_t)n * t.cluster_size;

            fill(t.model + off, t.cluster_size, seed + n);
            EXPECT(compress_to(t.disk, t.model + off, t.cluster_size, off)
                   == 0, "-");
        }
        EXPECT_OK(qcow2_close(t.disk, &err), &err);
        options.readonly = true;
        t.disk = qcow2_open(tmpdir_path("image"), &options, &err);
        EXPECT(t.disk, "%s", err.text);
        for (unsigned n = 0; n < NR_THREADS; n++) {
            workers[n] = (struct worker){ .t = &t, .nr = n };
            EXPECT(pthread_create(&threads[n], NULL, read_all_ways,
                                  &workers[n]) == 0, "pthread_create");
        }
        for (unsigned n = 0; n < NR_THREADS; n++)
            pthread_join(threads[n], NULL);
        for (unsigned n = 0; n < NR_THREADS; n++)
            EXPECT(workers[n].r == 0, "thread %u failed", n);
        trial_end(&t);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compressed_clusters_among_others_read_right),
        cmocka_unit_test(clusters_are_shared),
        cmocka_unit_test(a_freed_cluster_is_packed_into_no_more),
        cmocka_unit_test(
            rows_are_kept_out_of_the_cache_in_whatever_order_they_lie),
        cmocka_unit_test(threads_pack_into_the_same_clusters),
        cmocka_unit_test(threads_read_the_same_clusters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
