/* SPDX-License-Identifier: BSD-3-Clause */
/* test-overlap.c: the set of clusters that hold metadata, what of an image is
 * in it, and images whose metadata overlap.
 */
#include "meta/overlap.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "bare.h"
#include "expect.h"
#include "format/format.h"
#include "rng.h"
#include "tmpdir.h"

enum { NR_CLUSTERS = 3000 };

static void
it_is_a_set(void **state)
{
    bool *want = calloc(NR_CLUSTERS + 8, sizeof *want);
    struct qcow2_error err;
    struct cluster_set o;
    struct rng r;

    (void)state;
    assert_non_null(want);
    rng_init(&r, rng_seed(1), 0);
    EXPECT_OK(cluster_set_init(&o, &err), &err);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t c = rng_below(&r, NR_CLUSTERS), nr = 1 + rng_below(&r, 8);
        bool add = rng_percent(&r, i < 10000 ? 60 : 40), hit = false;

        for (uint64_t n = 0; n < nr; n++)
            hit |= want[c + n];
        EXPECT(cluster_set_has(&o, c, nr) == hit, "step %u", i);
        if (add)
            EXPECT_OK(cluster_set_add(&o, c, nr, &err), &err);
        else
            cluster_set_remove(&o, c, nr);
        for (uint64_t n = 0; n < nr; n++)
            want[c + n] = add;
    }
    for (uint64_t c = 0; c < NR_CLUSTERS; c++)
        EXPECT(cluster_set_has(&o, c, 1) == want[c], "%llu",
               (unsigned long long)c);
    cluster_set_destroy(&o);
    free(want);
}

struct reader {
    struct cluster_set *o;
    bool stop; /* atomic */
    unsigned nr_wrong;
};

/* Even clusters are in the set all the time, and 1 to 9 never. */
static void *
look_up(void *opaque)
{
    struct reader *r = opaque;

    for (uint64_t i = 0; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); i++) {
        r->nr_wrong += !cluster_set_has(r->o, 10 + i % 50 * 2, 1);
        r->nr_wrong += cluster_set_has(r->o, 1, 9);
    }
    return NULL;
}

static void
lookups_go_on_while_it_changes(void **state)
{
    struct qcow2_error err;
    struct cluster_set o;
    struct reader r = { .o = &o };
    pthread_t thread;

    (void)state;
    EXPECT_OK(cluster_set_init(&o, &err), &err);
    for (uint64_t i = 0; i < 50; i++)
        EXPECT_OK(cluster_set_add(&o, 10 + i * 2, 1, &err), &err);
    assert_int_equal(pthread_create(&thread, NULL, look_up, &r), 0);
    for (uint64_t i = 0; i < 20000; i++) {
        EXPECT_OK(cluster_set_add(&o, 1000 + i, 1, &err), &err);
        if (i % 3)
            cluster_set_remove(&o, 1000 + i, 1);
    }
    __atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    assert_int_equal(r.nr_wrong, 0);
    cluster_set_destroy(&o);
}

#define IMAGE "cluster 512; refcount-bits 64; size 128K; data 0-70 1;"

static void
all_metadata_of_an_image_is_in_it(void **state)
{
    static const char *const what[] = {
        "refcount[0]", "refcount[@l1/C]", "refcount[@l2[0]/C]",
        "refcount[@l2[64]/C]", "refcount[@reftable/C]",
        "refcount[@refblock[0]/C]", "refcount[@refblock[1]/C]",
        "refcount[@snapshots/C]", "refcount[@snapshot-l1[0]/C]",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof what / sizeof what[0]; i++) {
        char recipe[256];
        struct bare b;
        uint64_t nr_bytes;
        const unsigned char *bytes;
        unsigned nr = 0;

        /* A refcount that no other cluster has marks the one meant. */
        snprintf(recipe, sizeof recipe, "%s snapshot 1 one; data 0 2;"
                 "data 64 3; poke %s = 4711", IMAGE, what[i]);
        bare_open(&b, recipe);
        bytes = mem_bytes(b.mem, &nr_bytes);
        for (uint64_t c = 0; c < nr_bytes / 512; c++) {
            uint64_t block = b.img->alloc.reftable[c / 64], refcount;

            memcpy(&refcount, bytes + block + c % 64 * 8, 8);
            if (be64toh(refcount) != 4711)
                continue;
            nr++;
            EXPECT(cluster_set_has(&b.img->overlap, c, 1), "%s", what[i]);
        }
        EXPECT(nr == 1, "%s: %u of them", what[i], nr);
        bare_drop(&b);
    }
}

static void
overlapping_metadata_cannot_be_written(void **state)
{
    static const char *const pokes[] = {
        "l1[0] = 0x8000000000000000 + @l1",
        "l1[0] = 0x8000000000000000 + @reftable",
        "l1[0] = 0x8000000000000000 + @refblock[0]",
        "l1[0] = 0x8000000000000000 + @refblock[1]",
        "l1[0] = 0x8000000000000000 + @snapshots",
        "l1[0] = 0x8000000000000000 + @snapshot-l1[0]",
        "l1[0] = 0x8000000000000000 + @l2[64]",
        "l1[0] = @l2[64]",
        "l1[0] = @l1",
        "l1[0] = @refblock[0]",
        "l1[0] = @snapshot-l1[0]",
        "reftable[1] = @refblock[0]",
        "reftable[5] = @refblock[1]",
        "reftable[5] = @reftable",
        "reftable[5] = @l1",
        "reftable[5] = @l2[0]",
        "reftable[5] = @snapshots",
        "snapshot[0].l1_table_offset = @l2[0]",
        "snapshot[0].l1_table_offset = @refblock[0]",
        "header.l1_table_offset = @refblock[0]",
        "header.refcount_table_offset = @l2[0]",
        "header.snapshots_offset = @l1",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        struct qcow2_error err;
        char recipe[256];
        struct bare b;
        unsigned nr;

        snprintf(recipe, sizeof recipe, "%s snapshot 1 one; data 0 2;"
                 "data 64 3; poke %s", IMAGE, pokes[i]);
        bare_start(&b, recipe, 0);
        EXPECT(!bare_try(&b, &err) && err.errnum == EIO, "opened");
        nr = fault_count(&b.plan, FAULT_CHANGE);
        EXPECT(nr == 0, "%u writes", nr);
        bare_drop(&b);
    }
}

/* Neither of them is changed before it is copied. */
static void
shared_tables_may_have_several_names(void **state)
{
    struct bare b;

    (void)state;
    bare_open(&b, IMAGE "poke l1[0] = @l2[64]; poke l1[1] = @l2[64]");
    bare_drop(&b);
    bare_open(&b, IMAGE "snapshot 1 one; snapshot 2 two;"
              "poke snapshot[1].l1_table_offset = @snapshot-l1[0]");
    bare_drop(&b);
}

/* Snapshots with L1 tables of 32 MiB each, in the holes of a file. */
static void
write_sparse_image(const char *path, unsigned nr)
{
    uint64_t table = 1 << 20, l1 = 1 << 22;
    struct disk_header h;
    struct qcow2_error err;
    struct io *io;

    builder_make(path, "cluster 512; size 64K; data 0 1");
    io = io_file_open(path, -1, false, IO_LOCK_NONE, &err);
    EXPECT(io, "%s", err.text);
    EXPECT_OK(io_pread(io, &h, sizeof h, 0, &err), &err);
    h.nb_snapshots = be32_make(nr);
    h.snapshots_offset = be64_make(table);
    EXPECT_OK(io_pwrite(io, &h, sizeof h, 0, &err), &err);
    for (unsigned i = 0; i < nr; i++) {
        struct {
            struct disk_snapshot s;
            struct disk_snapshot_extra extra;
        } entry = {
            .s.l1_table_offset = be64_make(l1 + i * UINT64_C(0x2000000)),
            .s.l1_size = be32_make(4 << 20),
            .s.extra_data_size = be32_make(sizeof entry.extra),
            .extra.disk_size = be64_make(64 << 10),
        };

        EXPECT_OK(io_pwrite(io, &entry, sizeof entry,
                            table + i * sizeof entry, &err), &err);
    }
    EXPECT_OK(io_truncate(io, l1 + nr * UINT64_C(0x2000000), &err), &err);
    io_close(io);
}

static void
a_small_file_cannot_take_all_memory(void **state)
{
    const char *path = tmpdir_path("sparse");
    struct cache *c = cache_new(1 << 20, NULL);
    struct decompress_pool *decompress = decompress_pool_new(1 << 20, NULL);

    (void)state;
    write_sparse_image(path, 70);
    for (unsigned readonly = 0; readonly < 2; readonly++) {
        struct qcow2_error err;
        struct io *io = io_file_open(path, -1, readonly, IO_LOCK_NONE, &err);
        struct image *img;

        EXPECT(io, "%s", err.text);
        img = image_open(io, readonly, c, decompress, &err);
        EXPECT(readonly ? img != NULL : !img && err.errnum == EIO, "%s",
               img ? "opened" : err.text);
        image_free(img);
    }
    cache_free(c);
    decompress_pool_free(decompress);
    tmpdir_clear();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_a_set),
        cmocka_unit_test(lookups_go_on_while_it_changes),
        cmocka_unit_test(all_metadata_of_an_image_is_in_it),
        cmocka_unit_test(overlapping_metadata_cannot_be_written),
        cmocka_unit_test(shared_tables_may_have_several_names),
        cmocka_unit_test(a_small_file_cannot_take_all_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
