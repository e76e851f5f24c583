/* SPDX-License-Identifier: BSD-3-Clause */
/* test-clusters: what writes, zeroes and trims make of each kind of cluster.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "audit.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "rig.h"
#include "tmpdir.h"

enum { C = 4096 };

/* Clusters 0-3 data, 4-5 zero, 6 zero-alloc, 7-9 compressed, 10-15 not
 * allocated; 0, 4, 6, 7, 8 shared with the snapshot. */
#define V3_CLUSTERS                                                     \
    "cluster 4K; size 64K; data 0 1; zero 4; zero-alloc 6;"             \
    "compressed 7-9 2; snapshot 1 first;"                               \
    "data 1-3 3; zero 5; compressed 9 4"
#define BACKED "backing base.raw raw;"

static void
open_rig(struct rig *r, const char *recipe, uint64_t backing_bytes)
{
    expect_case("%s", recipe);
    rig_init(r, recipe, backing_bytes);
    rig_open(r);
}

static void
close_rig(struct rig *r)
{
    rig_close(r);
    rig_free(r);
}

/* How many data clusters the active disk has on the host. */
static uint64_t
nr_data_clusters(struct rig *r)
{
    struct audit a;
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(r->mem, &nr_bytes);

    audit_image(bytes, nr_bytes, &a);
    return a.nr_data;
}

static void
partial_writes_keep_what_surrounds_them(void **state)
{
    static const char *const recipes[] = {
        V3_CLUSTERS, BACKED V3_CLUSTERS,
        ("version 2; backing base.raw raw; cluster 4K; size 64K; data 0-3 1;"
         "compressed 7-9 2; snapshot 1 first; data 1 3"),
    };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct rig r;

        open_rig(&r, recipes[i], i ? 45000 : 0);
        for (unsigned c = 0; c < 16; c++)
            rig_play(&r, OP_WRITE, c * C + 100 * c, 300, 0);
        play_verify(&r.play);
        rig_flush(&r);
        rig_play(&r, OP_WRITE, 0, 16 * C, 0);
        close_rig(&r);
    }
}

static void
a_write_over_all_kinds_at_once(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, BACKED V3_CLUSTERS, 45000);
    rig_play(&r, OP_WRITE, 700, 15 * C, 0);
    close_rig(&r);
}

static void
overwriting_in_place_allocates_nothing(void **state)
{
    struct rig r;
    uint64_t before, after;

    (void)state;
    open_rig(&r, V3_CLUSTERS, 0);
    mem_bytes(r.mem, &before);
    rig_play(&r, OP_WRITE, 1 * C, 3 * C, 0);
    rig_flush(&r);
    mem_bytes(r.mem, &after);
    EXPECT(before == after, "the file grew");
    EXPECT(fault_count(&r.plan, FAULT_WRITE) == 1, "%llu writes",
           (unsigned long long)fault_count(&r.plan, FAULT_WRITE));
    close_rig(&r);
}

static void
a_preallocated_zero_cluster_is_used_when_written(void **state)
{
    struct rig r;
    uint64_t before, after;

    (void)state;
    open_rig(&r, "cluster 4K; size 64K; zero-alloc 0-3", 0);
    mem_bytes(r.mem, &before);
    rig_play(&r, OP_WRITE, 100, 2 * C, 0);
    rig_flush(&r);
    mem_bytes(r.mem, &after);
    EXPECT(before == after, "the file grew");
    close_rig(&r);
}

/* Two threads, two sectors of one cluster that neither has. */
struct writer {
    struct qcow2_disk *disk;
    pthread_barrier_t *start;
    uint64_t off;
    int result;
};

static void *
write_sector(void *arg)
{
    struct writer *w = arg;
    unsigned char sector[512];

    pattern_fill(sector, sizeof sector, w->off + 1, w->off);
    pthread_barrier_wait(w->start);
    w->result = qcow2_pwrite(w->disk, sector, sizeof sector, w->off, 0, NULL);
    return NULL;
}

static void
two_writers_into_one_new_cluster_both_stay(void **state)
{
    enum { NR = 8 };
    struct rig r;
    pthread_barrier_t start;

    (void)state;
    open_rig(&r, BACKED "cluster 4K; size 1M; compressed 0-63 1; zero 64-99",
             900000);
    pthread_barrier_init(&start, NULL, NR);
    for (unsigned c = 0; c < 256; c++) {
        pthread_t threads[NR];
        struct writer w[NR];

        for (unsigned i = 0; i < NR; i++) {
            w[i] = (struct writer){ r.play.disk, &start, c * C + i * 512, -1 };
            EXPECT(pthread_create(&threads[i], NULL, write_sector, &w[i]) == 0,
                   "thread");
        }
        for (unsigned i = 0; i < NR; i++) {
            pthread_join(threads[i], NULL);
            EXPECT(w[i].result == 0, "write");
            pattern_fill(r.play.model.disk + w[i].off, 512, w[i].off + 1,
                         w[i].off);
        }
    }
    pthread_barrier_destroy(&start);
    close_rig(&r);
}

static void
zeroing_a_v2_overlay_writes_zeroes(void **state)
{
    struct rig r;
    struct qcow2_error err;

    (void)state;
    open_rig(&r, BACKED "version 2; cluster 4K; size 64K; data 0-1 1",
             60000);
    EXPECT(!qcow2_can_fast_zero(r.play.disk), "it cannot be fast");
    EXPECT(qcow2_zero(r.play.disk, C, 3 * C, QCOW2_FAST, &err) == -1 &&
           err.errnum == ENOTSUP, "fast zero");
    rig_play(&r, OP_ZERO, C / 2, 4 * C, 0);
    rig_play(&r, OP_ZERO, 8 * C, 2 * C, QCOW2_MAY_TRIM);
    rig_flush(&r);
    EXPECT(nr_data_clusters(&r) >= 6, "%llu data clusters",
           (unsigned long long)nr_data_clusters(&r));
    close_rig(&r);
}

static void
zeroing_v3_clusters_is_metadata(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, BACKED V3_CLUSTERS, 60000);
    EXPECT(qcow2_can_fast_zero(r.play.disk), "it can be fast");
    rig_play(&r, OP_ZERO, 0, 16 * C, QCOW2_FAST | QCOW2_MAY_TRIM);
    rig_flush(&r);
    EXPECT(nr_data_clusters(&r) == 0, "%llu data clusters",
           (unsigned long long)nr_data_clusters(&r));
    close_rig(&r);
}

static void
zeroing_without_may_trim_keeps_the_place(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 4K; size 64K; data 0-7 1", 0);
    rig_play(&r, OP_ZERO, 0, 4 * C, 0);
    rig_play(&r, OP_ZERO, 4 * C, 2 * C, QCOW2_MAY_TRIM);
    rig_flush(&r);
    EXPECT(nr_data_clusters(&r) == 6, "%llu data clusters",
           (unsigned long long)nr_data_clusters(&r));
    close_rig(&r);
}

static void
what_reads_as_zeroes_already_is_left_alone(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, BACKED "cluster 4K; size 64K; zero 1",
             8 * C);
    rig_play(&r, OP_ZERO, C, C, 0);
    rig_play(&r, OP_TRIM, 8 * C, 8 * C, 0);
    rig_flush(&r);
    EXPECT(fault_count(&r.plan, FAULT_CHANGE) == 0, "something was written");
    close_rig(&r);
    open_rig(&r, "cluster 4K; size 64K; zero 1", 0);
    rig_play(&r, OP_ZERO, 100, 15 * C, QCOW2_FAST | QCOW2_MAY_TRIM);
    rig_flush(&r);
    EXPECT(fault_count(&r.plan, FAULT_CHANGE) == 0, "something was written");
    close_rig(&r);
}

static void
trim_never_shows_the_backing_file(void **state)
{
    static const char *const recipes[] = {
        BACKED "version 2; cluster 4K; size 64K; data 0-3 1;"
        "compressed 4-6 1",
        BACKED V3_CLUSTERS,
    };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct rig r;

        open_rig(&r, recipes[i], 60000);
        rig_play(&r, OP_TRIM, 0, 10 * C, 0);
        rig_play(&r, OP_TRIM, 11 * C + 1, 3 * C, 0);
        play_verify(&r.play);
        close_rig(&r);
    }
}

static void
trimming_to_the_end_includes_the_last_partial_cluster(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 4K; size 33000; data 0-8 1", 0);
    rig_play(&r, OP_TRIM, 0, 33000, 0);
    rig_flush(&r);
    EXPECT(nr_data_clusters(&r) == 0, "%llu data clusters",
           (unsigned long long)nr_data_clusters(&r));
    close_rig(&r);
}

static void
a_snapshot_is_served_with_its_own_size(void **state)
{
    struct rig r;
    struct qcow2_disk *s;
    struct qcow2_error err;

    (void)state;
    open_rig(&r, "cluster 4K; size 64K; l1-entries 3; data 0-9 1;"
             "snapshot 1 first size=40000; snapshot 2 second vmstate=5", 0);
    s = qcow2_open_snapshot(r.play.disk, "first", &err);
    EXPECT(s, "%s", err.text);
    EXPECT(qcow2_get_size(s) == 40000, "size %llu",
           (unsigned long long)qcow2_get_size(s));
    EXPECT(qcow2_is_readonly(s) &&
           qcow2_pwrite(s, "x", 1, 0, 0, &err) == -1 && err.errnum == EROFS,
           "a snapshot is read-only");
    EXPECT_OK(qcow2_close(s, &err), &err);
    rig_play(&r, OP_WRITE, 0, 64 << 10, 0);
    close_rig(&r);
}

static void
what_is_not_understood_is_kept(void **state)
{
    struct rig r;
    const unsigned char *bytes;
    uint64_t nr_bytes;

    (void)state;
    open_rig(&r, "cluster 4K; size 64K; header-length 128; compatible 40;"
             "autoclear 50; extension 0x1badcafe ab\\x00c; data 0 1", 0);
    bytes = mem_bytes(r.mem, &nr_bytes);
    EXPECT(bytes[89] == 4, "autoclear bit is cleared before any write");
    rig_play(&r, OP_WRITE, 0, 3 * C, 0);
    rig_flush(&r);
    bytes = mem_bytes(r.mem, &nr_bytes);
    EXPECT(bytes[89] == 0, "autoclear bit is not cleared");
    EXPECT(bytes[82] == 1, "compatible bit");
    EXPECT(bytes[103] == 128 && bytes[127] == 0xa5, "header fields");
    EXPECT(memcmp(bytes + 128, "\x1b\xad\xca\xfe\0\0\0\4ab\0c", 12) == 0,
           "extension");
    close_rig(&r);
}

/* Gaps hold junk, so clusters are not zeroes because they are free. */
static void
a_new_table_in_a_used_cluster_maps_nothing(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, "cluster 4K; size 16M; data 0 1; gap 20; data 1 2", 0);
    for (unsigned table = 1; table < 8; table++)
        rig_play(&r, OP_WRITE, table * 512 * C + 5 * C, 100, 0);
    play_verify(&r.play);
    close_rig(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(partial_writes_keep_what_surrounds_them),
        cmocka_unit_test(a_write_over_all_kinds_at_once),
        cmocka_unit_test(overwriting_in_place_allocates_nothing),
        cmocka_unit_test(a_preallocated_zero_cluster_is_used_when_written),
        cmocka_unit_test(two_writers_into_one_new_cluster_both_stay),
        cmocka_unit_test(zeroing_a_v2_overlay_writes_zeroes),
        cmocka_unit_test(zeroing_v3_clusters_is_metadata),
        cmocka_unit_test(zeroing_without_may_trim_keeps_the_place),
        cmocka_unit_test(what_reads_as_zeroes_already_is_left_alone),
        cmocka_unit_test(trim_never_shows_the_backing_file),
        cmocka_unit_test(
            trimming_to_the_end_includes_the_last_partial_cluster),
        cmocka_unit_test(a_snapshot_is_served_with_its_own_size),
        cmocka_unit_test(what_is_not_understood_is_kept),
        cmocka_unit_test(a_new_table_in_a_used_cluster_maps_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
