/* SPDX-License-Identifier: BSD-3-Clause */
/* test-space: host space is given back and runs out; tables grow; memory
 * stays bounded whatever the size of the disk.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/chain.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "oracle.h"
#include "rig.h"
#include "tmpdir.h"

enum { K = 1024, C = 64 * K };

static void
open_rig(struct rig *r, const char *recipe)
{
    expect_case("%s", recipe);
    rig_init(r, recipe, 0);
    rig_open(r);
}

static void
close_rig(struct rig *r)
{
    rig_close(r);
    rig_free(r);
}

static uint64_t
allocated(struct rig *r)
{
    struct io *io = io_mem_open(r->mem, true);
    struct qcow2_error err;
    uint64_t nr_bytes = 0;

    EXPECT_OK(io_get_allocated(io, &nr_bytes, &err), &err);
    io_close(io);
    return nr_bytes;
}

static uint64_t
file_size(struct rig *r)
{
    uint64_t nr_bytes;

    mem_bytes(r->mem, &nr_bytes);
    return nr_bytes;
}

static void
trimmed_space_goes_back_to_the_host_with_the_flush(void **state)
{
    struct rig r;
    uint64_t before;

    (void)state;
    open_rig(&r, "cluster 64K; size 1M; data 0-15 1");
    before = allocated(&r);
    rig_play(&r, OP_TRIM, 2 * C, 4 * C, 0);
    EXPECT(allocated(&r) == before, "punched before the flush");
    rig_flush(&r);
    EXPECT(allocated(&r) == before - 4 * C, "%llu bytes, before %llu",
           (unsigned long long)allocated(&r), (unsigned long long)before);
    rig_play(&r, OP_ZERO, 6 * C, 2 * C, QCOW2_MAY_TRIM);
    rig_flush(&r);
    EXPECT(allocated(&r) == before - 6 * C, "zero");
    close_rig(&r);
}

static void
freed_clusters_are_used_again(void **state)
{
    struct rig r;
    uint64_t before;

    (void)state;
    open_rig(&r, "cluster 64K; size 2M; data 0-15 1");
    before = file_size(&r);
    for (unsigned i = 0; i < 20; i++) {
        rig_play(&r, OP_TRIM, i % 2 * 16 * C, 16 * C, 0);
        rig_flush(&r);
        rig_play(&r, OP_WRITE, (i + 1) % 2 * 16 * C, 16 * C, 0);
    }
    rig_flush(&r);
    EXPECT(file_size(&r) <= before + 16 * C, "the file grew from %llu to "
           "%llu", (unsigned long long)before,
           (unsigned long long)file_size(&r));
    close_rig(&r);
}

static void
what_a_snapshot_shares_is_not_punched(void **state)
{
    struct rig r;
    uint64_t before;

    (void)state;
    open_rig(&r, "cluster 64K; size 1M; data 0-7 1; compressed 8-15 2;"
             "snapshot 1 first");
    before = allocated(&r);
    rig_play(&r, OP_TRIM, 0, 16 * C, 0);
    rig_flush(&r);
    EXPECT(allocated(&r) >= before, "punched");
    close_rig(&r);
}

static void
compressed_data_is_punched_with_the_last_of_a_cluster(void **state)
{
    struct rig r;
    uint64_t before;

    (void)state;
    open_rig(&r, "cluster 64K; size 1M; compressed 0-7 2");
    before = allocated(&r);
    rig_play(&r, OP_TRIM, 0, C, 0);
    rig_flush(&r);
    EXPECT(allocated(&r) == before, "punched too early");
    rig_play(&r, OP_TRIM, 0, 16 * C, 0);
    rig_flush(&r);
    EXPECT(allocated(&r) < before, "not punched");
    close_rig(&r);
}

static void
without_discard_space_is_kept(void **state)
{
    struct rig r;
    uint64_t before;

    (void)state;
    expect_case("no_discard");
    rig_init(&r, "cluster 64K; size 1M; data 0-15 1", 0);
    r.options.no_discard = true;
    rig_open(&r);
    before = allocated(&r);
    rig_play(&r, OP_ZERO, 0, 4 * C, QCOW2_MAY_TRIM);
    rig_flush(&r);
    EXPECT(allocated(&r) >= before, "punched");
    EXPECT(fault_count(&r.plan, FAULT_PUNCH) == 0, "punched");
    close_rig(&r);
}

static void
zeroes_are_detected_when_asked_for(void **state)
{
    struct rig r;
    uint64_t before;
    struct op op = { OP_WRITE, 0, 4 * C, 0, 0 };
    struct qcow2_error err;

    (void)state;
    for (unsigned mode = 0; mode < 3; mode++) {
        expect_case("mode %u", mode);
        rig_init(&r, "cluster 64K; size 1M; data 0-15 1", 0);
        r.options.detect_zeroes = mode;
        rig_open(&r);
        before = allocated(&r);
        EXPECT_OK(play_op(&r.play, &op, &err), &err);
        rig_flush(&r);
        EXPECT((allocated(&r) < before) == (mode == 2), "%llu, before %llu",
               (unsigned long long)allocated(&r), (unsigned long long)before);
        close_rig(&r);
    }
}

/* A block device ends, whatever one asks of it. */
static void
a_full_device_refuses_writes_and_keeps_what_it_has(void **state)
{
    struct rig r;
    size_t nr_bytes;
    const unsigned char *bytes;
    struct qcow2_error err;
    struct io *io;
    unsigned nr = 0;

    (void)state;
    expect_case("device");
    rig_init(&r, "cluster 4K; size 1M; data 0-9 1", 0);
    rig_start(&r);
    bytes = builder_bytes(r.image, &nr_bytes);
    mem_free(r.mem);
    r.mem = mem_new_device(200 * K);
    io = io_mem_open(r.mem, false);
    EXPECT_OK(io_pwrite(io, bytes, nr_bytes, 0, &err), &err);
    r.play.disk = rig_open_disk(&r, io);
    for (;; nr++) {
        struct op op = { OP_WRITE, (10 + nr) * 4 * K, 4 * K, 0, nr + 2 };

        pattern_fill(r.play.scratch, op.nr_bytes, op.seed, op.off);
        if (qcow2_pwrite(r.play.disk, r.play.scratch, op.nr_bytes, op.off, 0,
                         &err) != 0)
            break;
        model_write(&r.play.model, r.play.scratch, op.nr_bytes, op.off, 0);
    }
    EXPECT(err.errnum == ENOSPC, "%s", err.text);
    EXPECT(nr > 25, "only %u clusters", nr);
    rig_flush(&r);
    rig_play(&r, OP_WRITE, 0, 10 * 4 * K, 0);
    rig_play(&r, OP_TRIM, 0, 2 * 4 * K, 0);
    rig_flush(&r);
    rig_play(&r, OP_WRITE, 800 * K, 4 * K, 0);
    close_rig(&r);
}

static void
growing_refcounts_many_times_over(void **state)
{
    static const char *const recipes[] = {
        "cluster 512; refcount-bits 64; size 6M; data 0 1",
        "cluster 512; refcount-bits 16; size 6M; data 0 1",
        "cluster 4K; refcount-bits 64; size 24M; data 0 1",
        "version 2; cluster 1K; size 6M; data 0 1",
    };

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct rig r;
        uint64_t size, step;

        open_rig(&r, recipes[i]);
        size = r.play.model.size;
        step = size / 40;
        for (uint64_t off = 0; off + step <= size; off += step) {
            rig_play(&r, OP_WRITE, off + 100, step - 177, 0);
            if (off / step % 3 == 0)
                rig_flush(&r);
        }
        close_rig(&r);
    }
}

/* With a cache that holds a fraction of the tables in use. */
static void
memory_for_tables_is_bounded(void **state)
{
    struct qcow2_pool *small;
    struct rig r;
    struct rng rng;

    (void)state;
    open_rig(&r, "cluster 512; size 16M; data 0 1");
    rig_close(&r);
    small = qcow2_pool_new(1, NULL);
    qcow2_pool_free(r.options.pool);
    r.options.pool = small;
    rig_open(&r);
    rng_init(&rng, rng_seed(1), 0);
    for (unsigned i = 0; i < 3000; i++) {
        rig_play(&r, i % 3 ? OP_WRITE : OP_READ,
                 rng_below(&rng, (16 << 20) - 2000), 1500, 0);
        EXPECT(cache_used_bytes(small->meta) <=
               cache_max_bytes(small->meta) + 64 * K, "%llu bytes of cache",
               (unsigned long long)cache_used_bytes(small->meta));
    }
    close_rig(&r);
}

static void
a_huge_disk_opens_and_works(void **state)
{
    static const char *const recipes[] = {
        "cluster 64K; size 8T; data 0 1; data 134217727 2",
        "cluster 2M; size 1024T; data 0 1",
    };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct qcow2_options options = QCOW2_OPTIONS_INIT;
        struct builder *b = builder_new();
        unsigned char want[1000], got[1000];
        const unsigned char *bytes;
        struct qcow2_disk *disk;
        struct qcow2_error err;
        struct mem *m;
        uint64_t size, at;
        size_t nr_bytes;

        expect_case("%s", recipes[i]);
        builder_add(b, "%s", recipes[i]);
        bytes = builder_bytes(b, &nr_bytes);
        size = builder_disk_size(b, -1);
        m = mem_new(bytes, nr_bytes);
        options.pool = qcow2_pool_new(0, NULL);
        disk = disk_open_io(io_mem_open(m, false), "huge", &options, &err);
        EXPECT(disk, "%s", err.text);
        EXPECT(cache_used_bytes(options.pool->meta) <= 1 << 20, "cache");
        for (unsigned k = 0; k < 20; k++) {
            at = k * (size / 20) + 12345;
            pattern_fill(want, sizeof want, 5 + k, at);
            EXPECT_OK(qcow2_pwrite(disk, want, sizeof want, at, 0, &err),
                      &err);
            EXPECT_OK(qcow2_pread(disk, got, sizeof got, at, &err), &err);
            expect_same("huge", got, want, sizeof got, at);
        }
        EXPECT_OK(qcow2_trim(disk, size, 0, 0, &err), &err);
        EXPECT_OK(qcow2_pread(disk, got, sizeof got, at, &err), &err);
        EXPECT_OK(qcow2_close(disk, &err), &err);
        mem_save(m, tmpdir_path("huge"));
        oracle_expect_clean(tmpdir_path("huge"));
        mem_free(m);
        qcow2_pool_free(options.pool);
        builder_free(b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trimmed_space_goes_back_to_the_host_with_the_flush),
        cmocka_unit_test(freed_clusters_are_used_again),
        cmocka_unit_test(what_a_snapshot_shares_is_not_punched),
        cmocka_unit_test(
            compressed_data_is_punched_with_the_last_of_a_cluster),
        cmocka_unit_test(without_discard_space_is_kept),
        cmocka_unit_test(zeroes_are_detected_when_asked_for),
        cmocka_unit_test(a_full_device_refuses_writes_and_keeps_what_it_has),
        cmocka_unit_test(growing_refcounts_many_times_over),
        cmocka_unit_test(memory_for_tables_is_bounded),
        cmocka_unit_test(a_huge_disk_opens_and_works),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
