/* SPDX-License-Identifier: BSD-3-Clause */
/* test-alloc.c: which host clusters are handed out, when they are free
 * again, and what images can do to mislead that (alloc.c, reftable.c).
 */
#include "meta/alloc.h"

#include <errno.h>

#include "bare.h"
#include "expect.h"
#include "meta/flush.h"
#include "meta/map.h"
#include "meta/refcount.h"
#include "meta/reftable.h"

enum { C = 512 };

/* 64 clusters fill a refcount block: 16 clusters, 3 of them free. */
#define SMALL "cluster 512; refcount-bits 64; size 16K; data 0-3 1; gap 3;" \
              "data 4 2;"

static struct alloc_run
take(struct bare *b, uint64_t want)
{
    struct alloc_run run;
    struct qcow2_error err;

    EXPECT_OK(alloc_clusters(b->img, want, &run, &err), &err);
    EXPECT(run.nr_clusters >= 1 && run.nr_clusters <= want, "%llu of %llu",
           (unsigned long long)run.nr_clusters, (unsigned long long)want);
    return run;
}

static void
give(struct bare *b, struct alloc_run run)
{
    alloc_free(b->img, run.host_off, run.nr_clusters);
}

static uint64_t
refcount(struct bare *b, uint64_t host_off)
{
    struct qcow2_error err;
    uint64_t n, nr = 1;

    EXPECT_OK(refcount_read(b->img, host_off / C, &nr, &n, &err), &err);
    return n;
}

static void
flush(struct bare *b)
{
    struct qcow2_error err;

    EXPECT_OK(flush_run(b->img, &err), &err);
}

static uint64_t
file_end(struct bare *b)
{
    uint64_t nr_bytes;

    mem_bytes(b->mem, &nr_bytes);
    return nr_bytes;
}

static void
gaps_come_before_the_end_of_the_file(void **state)
{
    struct alloc_run run[3];
    struct bare b;
    uint64_t end;

    (void)state;
    bare_open(&b, SMALL);
    end = file_end(&b);
    run[0] = take(&b, 2);
    run[1] = take(&b, 2);
    run[2] = take(&b, 5);
    EXPECT(run[0].nr_clusters == 2 && !run[0].reads_zero
           && run[0].host_off < end, "the gap");
    EXPECT(run[1].nr_clusters == 1 && !run[1].reads_zero
           && run[1].host_off == run[0].host_off + 2 * C, "its rest");
    EXPECT(run[2].nr_clusters == 5 && run[2].reads_zero
           && run[2].host_off == end, "the end");
    for (unsigned i = 0; i < 3; i++) {
        EXPECT(refcount(&b, run[i].host_off) == 1, "refcount");
        give(&b, run[i]);
    }
    bare_close(&b);
}

static void
what_is_freed_is_free_after_a_flush(void **state)
{
    struct alloc_run run, next;
    struct bare b;

    (void)state;
    bare_open(&b, SMALL);
    run = take(&b, 1);
    give(&b, run);
    next = take(&b, 1);
    EXPECT(next.host_off != run.host_off && refcount(&b, run.host_off) == 1,
           "free at once");
    flush(&b);
    EXPECT(refcount(&b, run.host_off) == 0, "not free");
    give(&b, next);
    next = take(&b, 1);
    EXPECT(next.host_off == run.host_off && !next.reads_zero, "not reused");
    give(&b, next);
    bare_close(&b);
}

static void
replaced_tables_wait_for_requests_to_end(void **state)
{
    struct alloc_run run;
    struct bare b;

    (void)state;
    bare_open(&b, SMALL);
    run = take(&b, 1);
    alloc_free_table(b.img, run.host_off);
    flush(&b);
    flush(&b);
    EXPECT(refcount(&b, run.host_off) == 1, "free already");
    alloc_release_tables(b.img);
    flush(&b);
    EXPECT(refcount(&b, run.host_off) == 0, "not free");
    bare_close(&b);
}

/* Refblocks, and a refcount table that is outgrown twice between flushes and
 * twice across them. */
static void
refcounts_grow_with_the_file(void **state)
{
    enum { NR = 9000 };
    struct alloc_run runs[200];
    unsigned nr = 0;
    struct bare b;

    (void)state;
    bare_open(&b, SMALL);
    for (uint64_t sum = 0; sum < NR; sum += runs[nr++].nr_clusters) {
        runs[nr] = take(&b, 64);
        if (sum > NR / 2)
            flush(&b);
    }
    EXPECT(b.img->hdr.reftable_clusters > 1, "the table did not grow");
    for (unsigned i = 0; i < nr; i++) {
        EXPECT(refcount(&b, runs[i].host_off) == 1, "refcount");
        give(&b, runs[i]);
    }
    bare_close(&b);
}

/* Takes clusters until the refcount table has to move, and where it moves. */
static uint64_t
take_until_table_moves(struct bare *b)
{
    uint64_t before = b->img->alloc.moved_offset;

    while (b->img->alloc.moved_offset == before)
        give(b, take(b, 64));
    return b->img->alloc.moved_offset;
}

/* A flush that lacked space gives back a table that it was to move, but which
 * has moved once more by then. */
static void
a_table_that_moves_again_during_a_flush_does_not_leak(void **state)
{
    struct reftable_change change;
    struct dirty_batch refcounts;
    struct qcow2_error err;
    uint64_t first, second;
    struct bare b;

    (void)state;
    bare_open(&b, SMALL);
    first = take_until_table_moves(&b);
    EXPECT_OK(reftable_take(b.img, &refcounts, &change, &err), &err);
    second = take_until_table_moves(&b);
    EXPECT(second != first && refcount(&b, first) == 1, "not moved again");
    reftable_give_back(b.img, &refcounts, &change);
    EXPECT_OK(flush_all(b.img, &err), &err);
    assert_int_equal(b.img->hdr.reftable_offset, second);
    EXPECT(refcount(&b, first) == 0, "the first table is still counted");
    EXPECT(!cluster_set_has(&b.img->overlap, first / C, 1),
           "or kept as metadata");
    bare_close(&b);
}

static void
metadata_without_refcount_is_never_handed_out(void **state)
{
    static const char *const recipes[] = {
        SMALL "poke refcount[0] = 0",
        SMALL "poke refcount[@l1/C] = 0",
        SMALL "poke refcount[@l2[0]/C] = 0",
        SMALL "poke refcount[@reftable/C] = 0",
        SMALL "poke refcount[@refblock[0]/C] = 0",
        SMALL "poke reftable[0] = 0",
        SMALL "snapshot 1 one; poke refcount[@snapshots/C] = 0",
        SMALL "snapshot 1 one; poke refcount[@snapshot-l1[0]/C] = 0",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        struct qcow2_error err;
        struct alloc_run run;
        unsigned nr = 0;
        struct bare b;

        bare_open(&b, recipes[i]);
        while (nr < 100 && alloc_clusters(b.img, 1, &run, &err) == 0)
            nr++;
        EXPECT(nr < 100 && err.errnum == EIO, "handed out");
        EXPECT(image_check_state(b.img, &err) == -1, "state");
        bare_drop(&b);
    }
}

/* The L2 table that an entry claims to have right behind the file. */
static void
tables_are_not_put_on_tables(void **state)
{
    struct qcow2_error err;
    struct bare b;
    uint64_t off;

    (void)state;
    bare_open(&b, "cluster 512; refcount-bits 64; size 64K; data 0 1;"
              "poke l1[1] = @end");
    EXPECT(alloc_table(b.img, 1, &off, &err) == -1 && err.errnum == EIO,
           "put at 0x%llx", (unsigned long long)off);
    bare_drop(&b);
}

/* A refcount block behind the end of a file that was cut short. */
static void
lost_refcounts_are_not_taken_for_zeroes(void **state)
{
    struct qcow2_error err;
    struct alloc_run run;
    struct bare b;

    (void)state;
    bare_open(&b, "cluster 512; refcount-bits 64; size 1M; data 0-100 1;"
              "poke reftable[1] = 0x100000");
    EXPECT(alloc_clusters(b.img, 1, &run, &err) == -1 && err.errnum == EIO,
           "handed out 0x%llx", (unsigned long long)run.host_off);
    bare_drop(&b);
}

/* Widths below a byte and above, and the one that has a loop of its own. */
static void
refcounts_at_their_most_or_of_0_are_not_raised(void **state)
{
    static const unsigned widths[] = { 2, 8, 16, 32 };

    (void)state;
    for (unsigned i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        uint64_t most = (UINT64_C(1) << widths[i]) - 1;
        struct qcow2_error err;
        struct mapping m;
        char recipe[200];
        struct bare b;

        snprintf(recipe, sizeof recipe, "cluster 512; refcount-bits %u;"
                 "size 16K; data 0-7 1; poke refcount[@data[3]/C] = %llu;"
                 "poke refcount[@data[6]/C] = 0", widths[i],
                 (unsigned long long)most);
        for (unsigned c = 3; c <= 6; c += 3) {
            bare_open(&b, recipe);
            EXPECT_OK(map_lookup(&b.img->active, c * C, 1, &m, &err), &err);
            EXPECT(alloc_raise(b.img, m.host_off - C, 2, &err) == -1
                   && err.errnum == EIO, "raised from %llu, of %u bits",
                   (unsigned long long)(c == 3 ? most : 0), widths[i]);
            assert_int_equal(refcount(&b, m.host_off), c == 3 ? most : 0);
            bare_drop(&b);
        }
    }
}

/* A table whose refcount block is there, and behind the last one. */
static void
tables_are_contiguous(void **state)
{
    struct qcow2_error err;
    struct bare b;

    (void)state;
    bare_open(&b, SMALL);
    for (unsigned nr = 0; nr < 200; nr += 20) {
        uint64_t off;

        EXPECT_OK(alloc_table(b.img, nr * C + 1, &off, &err), &err);
        for (unsigned i = 0; i <= nr; i++)
            EXPECT(refcount(&b, off + i * C) == 1, "refcount");
        EXPECT(cluster_set_has(&b.img->overlap, off / C + nr, 1), "overlap");
        alloc_free_metadata(b.img, off, nr * C + 1);
        EXPECT(!cluster_set_has(&b.img->overlap, off / C, nr + 1), "overlap");
    }
    bare_close(&b);
}

static void
a_device_ends_where_it_ends(void **state)
{
    enum { NR = 40 };
    struct alloc_run run[NR], one;
    struct qcow2_error err;
    unsigned nr = 0;
    struct bare b;
    uint64_t off;

    (void)state;
    bare_open_device(&b, SMALL, NR * C);
    while (alloc_clusters(b.img, 3, &run[nr], &err) == 0) {
        EXPECT(!run[nr].reads_zero
               && run[nr].host_off + run[nr].nr_clusters * C <= NR * C,
               "0x%llx", (unsigned long long)run[nr].host_off);
        nr++;
    }
    EXPECT(err.errnum == ENOSPC, "%s", err.text);
    EXPECT(alloc_table(b.img, 1, &off, &err) == -1 && err.errnum == ENOSPC,
           "table: %s", err.text);
    give(&b, run[1]);
    flush(&b);
    one = take(&b, 1);
    EXPECT(one.host_off == run[1].host_off, "not reused");
    give(&b, one);
    for (unsigned i = 0; i < nr; i++)
        if (i != 1)
            give(&b, run[i]);
    bare_close(&b);
}

/* Each entry of the table names a block of zeroes, as if more clusters were
 * counted than could be looked at. */
static void
a_device_is_searched_no_further_than_its_end(void **state)
{
    uint64_t nr_bytes = 4096 * C, table = 3000 * C;
    struct qcow2_error err;
    struct io *io;
    struct bare b;

    (void)state;
    bare_start(&b, SMALL "poke header.refcount_table_clusters = 1000;"
               "poke header.refcount_table_offset = 1536000", nr_bytes);
    io = io_mem_open(b.mem, false);
    EXPECT_OK(io_zero(io, 100 * C, 3900 * C, 0, &err), &err);
    for (uint64_t i = 1; i < 1000 * C / 8; i++) {
        be64 entry = be64_make((100 + i % 2900) * C);

        EXPECT_OK(io_pwrite(io, &entry, sizeof entry, table + 8 * i, &err),
                  &err);
    }
    io_close(io);
    fault_reset_counts(&b.plan);
    bare_try(&b, &err);
    EXPECT(fault_count(&b.plan, FAULT_READ) < 100, "%llu reads",
           (unsigned long long)fault_count(&b.plan, FAULT_READ));
    bare_drop(&b);
}

/* An entry may point there in a sparse file: the index of its refblock has
 * more than 32 bits. */
static void
there_are_no_refcounts_beyond_the_longest_table(void **state)
{
    struct qcow2_error err;
    struct bare b;

    (void)state;
    bare_open(&b, "cluster 512; refcount-bits 64; size 1M; data 0 1");
    for (unsigned bits = 30; bits <= 47; bits++)
        EXPECT(reftable_add_refblock(b.img, (UINT64_C(1) << bits) - 1, 0, &err)
               == -1 && err.errnum == ENOSPC, "%u bits", bits);
    EXPECT(reftable_add_refblock(b.img, UINT64_C(1) << 38, 0, &err) == -1
           && err.errnum == ENOSPC, "taken for the first refblock");
    bare_close(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaps_come_before_the_end_of_the_file),
        cmocka_unit_test(what_is_freed_is_free_after_a_flush),
        cmocka_unit_test(replaced_tables_wait_for_requests_to_end),
        cmocka_unit_test(refcounts_grow_with_the_file),
        cmocka_unit_test(
            a_table_that_moves_again_during_a_flush_does_not_leak),
        cmocka_unit_test(metadata_without_refcount_is_never_handed_out),
        cmocka_unit_test(tables_are_not_put_on_tables),
        cmocka_unit_test(lost_refcounts_are_not_taken_for_zeroes),
        cmocka_unit_test(refcounts_at_their_most_or_of_0_are_not_raised),
        cmocka_unit_test(there_are_no_refcounts_beyond_the_longest_table),
        cmocka_unit_test(tables_are_contiguous),
        cmocka_unit_test(a_device_ends_where_it_ends),
        cmocka_unit_test(a_device_is_searched_no_further_than_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
