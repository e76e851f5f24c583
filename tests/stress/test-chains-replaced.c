/* SPDX-License-Identifier: BSD-3-Clause */
/* test-chains-replaced: a disk is put on one chain of layers after the other,
 * all of which show the same, while 16 threads read it, its extents and a
 * snapshot of it, and one writes. Every byte read is compared. For
 * ThreadSanitizer above all; TEST_ROUNDS makes longer runs.
 */
#include <pthread.h>
#include <stdlib.h>

#include "builder.h"
#include "disk/open-disk.h"
#include "disk/open.h"
#include "disk/pool.h"
#include "expect.h"
#include "layers.h"
#include "rng.h"
#include "tmpdir.h"

enum { SIZE = 1 << 20, NR_READERS = 16, NR_CHAINS = 4, MOST = 40000 };

struct trial {
    struct qcow2_disk *disk;
    unsigned char *shows;       /* the disk, at any time, */
    unsigned char *snapshot;    /* and its snapshot */
    unsigned ended;             /* atomic: the chain changes no more */
    unsigned failed;            /* atomic */
    char problem[512];          /* of the first that failed */
};

struct reader {
    struct trial *t;
    unsigned nth;
    uint64_t nr_reads;
    pthread_t thread;
};

static void
complain(struct trial *t, const char *what, const char *why)
{
    if (__atomic_fetch_add(&t->failed, 1, __ATOMIC_ACQ_REL) == 0)
        snprintf(t->problem, sizeof t->problem, "%s: %.200s", what, why);
}

static bool
goes_on(struct trial *t)
{
    return !__atomic_load_n(&t->ended, __ATOMIC_ACQUIRE)
           && !__atomic_load_n(&t->failed, __ATOMIC_ACQUIRE);
}

static int
count_extent(void *opaque, const struct qcow2_extent *e)
{
    *(uint64_t *)opaque += e->nr_bytes;
    return 0;
}

static void
read_range(struct trial *t, struct qcow2_disk *disk,
           const unsigned char *shows, uint64_t off, uint64_t n)
{
    unsigned char buf[MOST];
    struct qcow2_error err;
    uint64_t mapped = 0;

    if (qcow2_pread(disk, buf, n, off, &err) == -1)
        complain(t, "read", err.text);
    else if (memcmp(buf, shows + off, n) != 0)
        complain(t, "read", "other bytes");
    if (qcow2_map(disk, n, off, count_extent, &mapped, &err) == -1)
        complain(t, "map", err.text);
    else if (mapped != n)
        complain(t, "map", "not all of it");
}

/* Even ones read the disk, odd ones a snapshot that they open now and then. */
static void *
read_on(void *arg)
{
    struct reader *r = arg;
    struct trial *t = r->t;
    struct qcow2_disk *snapshot = NULL;
    struct qcow2_error err;
    struct rng rng;

    rng_init(&rng, rng_seed(55), r->nth);
    do {
        uint64_t n = 1 + rng_below(&rng, MOST);
        uint64_t off = rng_below(&rng, SIZE - n + 1);

        if (r->nth % 2 == 0) {
            read_range(t, t->disk, t->shows, off, n);
        } else {
            if (!snapshot)
                snapshot = qcow2_open_snapshot(t->disk, "s", &err);
            if (!snapshot) {
                complain(t, "snapshot", err.text);
                break;
            }
            read_range(t, snapshot, t->snapshot, off, n);
            if (rng_percent(&rng, 5)) {
                qcow2_close(snapshot, NULL);
                snapshot = NULL;
            }
        }
        r->nr_reads++;
    } while (goes_on(t));
    qcow2_close(snapshot, NULL);
    return NULL;
}

/* Writes what is there already, so that clusters are copied from below. */
static void *
write_on(void *arg)
{
    struct trial *t = arg;
    struct qcow2_error err;
    struct rng rng;

    rng_init(&rng, rng_seed(55), 100);
    while (goes_on(t)) {
        uint64_t off = rng_below(&rng, SIZE - 700);

        if (qcow2_pwrite(t->disk, t->shows + off, 700, off, 0, &err) == -1
            || (rng_percent(&rng, 20)
                && qcow2_flush(t->disk, &err) == -1))
            complain(t, "write", err.text);
    }
    return NULL;
}

/* Opens one of the chains that show the same, and puts the disk on it. */
static void
replace(struct trial *t, unsigned nth)
{
    static const struct {
        const char *name;
        enum qcow2_format format;
    } chains[NR_CHAINS] = {
        { "mid", QCOW2_FORMAT_QCOW2 },
        { "flat", QCOW2_FORMAT_RAW },
        { "deep", QCOW2_FORMAT_QCOW2 },
        { "mid", QCOW2_FORMAT_QCOW2 },
    };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct image *img = disk_image(t->disk);
    struct backing_name says = source_backing(&img->active.src);
    struct qcow2_error err;
    struct layer *below;

    options.backing = tmpdir_path(chains[nth].name);
    options.backing_format = chains[nth].format;
    EXPECT_OK(chain_open(t->disk->file->pool, tmpdir_path("top"), NULL,
                         &says, &options, img->io->dev, img->io->ino,
                         NULL, &below, &err), &err);
    EXPECT_OK(disk_replace_backing(t->disk, below, &err), &err);
}

/* "top" on "mid" on "base"; "flat" and "deep" show what "mid" does. */
static void
make_images(struct trial *t)
{
    struct builder *base = builder_new(), *mid = builder_new();
    struct builder *top = builder_new();

    tmpdir_clear();
    t->shows = calloc(1, SIZE);
    t->snapshot = calloc(1, SIZE);
    EXPECT(t->shows && t->snapshot, "memory");
    builder_add(base, "cluster 4096; size 1M; data 0-255 1; zero 9-20");
    builder_add(mid, "cluster 8192; size 1M; backing base qcow2;"
                "data 3-30 2; compressed 50-70 3; zero 80-90");
    builder_add(top, "cluster 4096; size 1M; backing mid qcow2;"
                "data 100-110 4; compressed 112-115 5; snapshot 1 s;"
                "data 20 6; zero 60-62");
    builder_write(base, tmpdir_path("base"));
    builder_write(mid, tmpdir_path("mid"));
    builder_write(top, tmpdir_path("top"));
    builder_overlay(base, -1, t->shows, SIZE);
    builder_overlay(mid, -1, t->shows, SIZE);
    tmpdir_write_file(tmpdir_path("flat"), t->shows, SIZE);
    builder_make(tmpdir_path("d1"), "size 1M; backing flat raw");
    builder_make(tmpdir_path("d2"), "size 1M; backing d1 qcow2");
    builder_make(tmpdir_path("deep"), "cluster 512; size 1M;"
                 "backing d2 qcow2");
    memcpy(t->snapshot, t->shows, SIZE);
    builder_overlay(top, 0, t->snapshot, SIZE);
    builder_overlay(top, -1, t->shows, SIZE);
    builder_free(base);
    builder_free(mid);
    builder_free(top);
}

static void
open_top(struct trial *t)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;

    t->disk = qcow2_open(tmpdir_path("top"), &options, &err);
    EXPECT(t->disk, "%s", err.text);
}

static void
end(struct trial *t)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_close(t->disk, &err), &err);
    layers_expect("top", QCOW2_FORMAT_QCOW2, t->shows, SIZE);
    free(t->shows);
    free(t->snapshot);
}

static void
readers_see_the_same_while_chains_are_replaced(void **state)
{
    uint64_t nr_rounds = env_number("TEST_ROUNDS", 40);
    struct reader readers[NR_READERS];
    struct trial t = { .ended = 0 };
    pthread_t writer;

    (void)state;
    make_images(&t);
    open_top(&t);
    for (unsigned i = 0; i < NR_READERS; i++) {
        readers[i] = (struct reader){ .t = &t, .nth = i };
        EXPECT(pthread_create(&readers[i].thread, NULL, read_on, &readers[i])
               == 0, "thread");
    }
    EXPECT(pthread_create(&writer, NULL, write_on, &t) == 0, "thread");
    for (uint64_t i = 1; i <= nr_rounds; i++)
        replace(&t, i % NR_CHAINS);
    __atomic_store_n(&t.ended, 1, __ATOMIC_RELEASE);
    pthread_join(writer, NULL);
    for (unsigned i = 0; i < NR_READERS; i++)
        pthread_join(readers[i].thread, NULL);
    EXPECT(!t.failed, "%s", t.problem);
    for (unsigned i = 0; i < NR_READERS; i++)
        assert_int_not_equal(readers[i].nr_reads, 0);
    end(&t);
}

static unsigned
nr_layers(const struct qcow2_pool *pool)
{
    unsigned nr = 0;

    for (const struct layer *l = pool->layers; l; l = l->next)
        nr++;
    return nr;
}

/* Layers are closed with the last chain that has them: a snapshot that is open
 * keeps those that it reads. */
static void
a_chain_lasts_as_long_as_its_readers(void **state)
{
    struct trial t = { .ended = 0 };
    struct qcow2_disk *snapshot;
    struct source_chain *held;
    struct qcow2_pool *pool;
    struct qcow2_error err;

    (void)state;
    make_images(&t);
    open_top(&t);
    pool = t.disk->file->pool;
    assert_int_equal(nr_layers(pool), 2);
    snapshot = qcow2_open_snapshot(t.disk, "s", &err);
    assert_non_null(snapshot);
    replace(&t, 1);
    assert_int_equal(nr_layers(pool), 3);
    assert_int_equal(qcow2_get_nr_layers(t.disk), 2);
    assert_int_equal(qcow2_get_nr_layers(snapshot), 3);
    read_range(&t, snapshot, t.snapshot, 0, MOST);
    qcow2_close(snapshot, NULL);
    assert_int_equal(nr_layers(pool), 1);
    held = disk_get_chain(t.disk);
    replace(&t, 2);
    assert_int_equal(qcow2_get_nr_layers(t.disk), 5);
    assert_int_equal(nr_layers(pool), 4);
    assert_int_equal(held->nr_layers, 2);
    source_chain_put(held);
    read_range(&t, t.disk, t.shows, 4096, MOST);
    EXPECT(!t.failed, "%s", t.problem);
    end(&t);
}

/* An image that takes no writes keeps its chain; the layers of the other one
 * are closed. */
static void
a_refusal_leaves_the_chain(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct trial t = { .ended = 0 };
    struct backing_name says;
    struct qcow2_error err;
    struct layer *below;

    (void)state;
    make_images(&t);
    open_top(&t);
    says = source_backing(&disk_image(t.disk)->active.src);
    options.backing = tmpdir_path("flat");
    options.backing_format = QCOW2_FORMAT_RAW;
    EXPECT_OK(chain_open(t.disk->file->pool, tmpdir_path("top"), NULL,
                         &says, &options, 0, 0, NULL,
                         &below, &err), &err);
    image_damaged(disk_image(t.disk), NULL, "damage");
    assert_int_equal(disk_replace_backing(t.disk, below, &err), -1);
    assert_int_equal(qcow2_get_nr_layers(t.disk), 3);
    assert_int_equal(nr_layers(t.disk->file->pool), 2);
    read_range(&t, t.disk, t.shows, 0, MOST);
    EXPECT(!t.failed, "%s", t.problem);
    qcow2_close(t.disk, NULL);
    free(t.shows);
    free(t.snapshot);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_lasts_as_long_as_its_readers),
        cmocka_unit_test(a_refusal_leaves_the_chain),
        cmocka_unit_test(readers_see_the_same_while_chains_are_replaced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
