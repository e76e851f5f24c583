/* SPDX-License-Identifier: BSD-3-Clause */
/* test-write-order.c: threads write, zero, trim, flush and take snapshots
 * at random, while the order in which metadata and data reach the disk is
 * watched (watch.c). What the disk reads as is not looked at here.
 * TEST_SEED makes other runs.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "rng.h"

enum { NR_THREADS = 4, NR_OPS = 100, MAX_CLUSTERS = 8 };

struct trial {
    struct qcow2_disk *disk;
    uint64_t size, seed;
    uint32_t cluster_size;
    bool no_discard;
    bool snapshots;             /* are taken, applied and deleted */
    unsigned next_thread;       /* atomic */
    unsigned nr_failed;         /* atomic */
    struct qcow2_error err;     /* of one that failed */
};

static int
snapshot_op(struct trial *t, struct rng *r, struct qcow2_error *err)
{
    struct qcow2_snapshot_create_options options = { 0 };
    char name[] = "a";
    int ret;

    name[0] += rng_below(r, 3);
    switch (rng_below(r, 3)) {
    case 0:
        return qcow2_snapshot_create(t->disk, name, &options, err);
    case 1:
        ret = qcow2_snapshot_apply(t->disk, name, err);
        break;
    default:
        ret = qcow2_snapshot_delete(t->disk, name, err);
        break;
    }
    /* There may be none of that name, or several. */
    return ret == -1 && (err->errnum == ENOENT || err->errnum == EINVAL)
           ? 0 : ret;
}

/* Of any alignment half of the time, whole clusters otherwise. */
static void
choose_range(const struct trial *t, struct rng *r, uint64_t *off,
             uint64_t *nr_bytes)
{
    uint64_t cs = t->cluster_size;

    *off = rng_below(r, t->size);
    *nr_bytes = 1 + rng_below(r, rng_percent(r, 20) ? MAX_CLUSTERS * cs
                                                    : cs / 2);
    if (rng_percent(r, 50)) {
        *off = *off / cs * cs;
        *nr_bytes = (*nr_bytes + cs - 1) / cs * cs;
    }
    if (*nr_bytes > t->size - *off)
        *nr_bytes = t->size - *off;
}

static int
random_op(struct trial *t, struct rng *r, void *buf, struct qcow2_error *err)
{
    unsigned dice = rng_below(r, 100);
    uint64_t off, nr_bytes;

    choose_range(t, r, &off, &nr_bytes);
    if (dice < 5 && t->snapshots)
        return snapshot_op(t, r, err);
    if (dice < 15)
        return qcow2_flush(t->disk, err);
    if (dice < 30)
        return qcow2_trim(t->disk, nr_bytes, off, 0, err);
    if (dice < 45)
        return qcow2_zero(t->disk, nr_bytes, off,
                          dice < 38 ? QCOW2_MAY_TRIM : 0, err);
    pattern_fill(buf, nr_bytes, dice, off);
    return qcow2_pwrite(t->disk, buf, nr_bytes, off, 0, err);
}

static void *
work(void *opaque)
{
    struct trial *t = opaque;
    unsigned me = __atomic_fetch_add(&t->next_thread, 1, __ATOMIC_RELAXED);
    void *buf = malloc((size_t)MAX_CLUSTERS * t->cluster_size);
    struct qcow2_error err;
    struct rng r;

    rng_init(&r, t->seed, me);
    for (int i = 0; i < NR_OPS; i++) {
        if (random_op(t, &r, buf, &err) == -1) {
            if (__atomic_fetch_add(&t->nr_failed, 1, __ATOMIC_RELAXED) == 0)
                t->err = err;
            break;
        }
    }
    free(buf);
    return NULL;
}

static struct mem *
make_image(struct trial *t, unsigned version, bool with_snapshot)
{
    struct builder *b = builder_new();
    const unsigned char *bytes;
    struct mem *mem;
    size_t nr_bytes;

    builder_add(b, "version %u; cluster %u; size %llu;"
                "data 0-3 5; compressed 6-9 7;", version, t->cluster_size,
                (unsigned long long)t->size);
    if (version == 3)
        builder_add(b, "zero 10; zero-alloc 11-12");
    if (with_snapshot)
        builder_add(b, "snapshot 1 s; data 1 9; compressed 7 3");
    bytes = builder_bytes(b, &nr_bytes);
    mem = mem_new(bytes, nr_bytes);
    builder_free(b);
    return mem;
}

static void
run(struct trial *t, unsigned version, bool with_snapshot)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct mem *mem = make_image(t, version, with_snapshot);
    pthread_t threads[NR_THREADS];
    struct qcow2_error err;
    struct audit a;
    uint64_t nr_bytes;
    const unsigned char *bytes;

    expect_case("version %u, clusters of %u, snapshot %d, no_discard %d, "
                "seed %llu", version, t->cluster_size, with_snapshot,
                t->no_discard, (unsigned long long)t->seed);
    options.no_discard = t->no_discard;
    t->disk = disk_open_io(io_mem_open(mem, false), "memory", &options, &err);
    EXPECT(t->disk, "%s", err.text);
    for (int i = 0; i < NR_THREADS; i++)
        pthread_create(&threads[i], NULL, work, t);
    for (int i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    EXPECT(t->nr_failed == 0, "%s", t->err.text);
    EXPECT_OK(qcow2_close(t->disk, &err), &err);

    bytes = mem_bytes(mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "%s (%u leaks)", a.first, a.nr_leaks);
    mem_free(mem);
}

/* Of small clusters so many that refcount blocks are added. */
static void
run_geometries(unsigned version, bool snapshots)
{
    static const unsigned bits[] = { 9, 12, 16 };
    uint64_t seed = rng_seed(1);

    print_message("seed %llu\n", (unsigned long long)seed);
    for (unsigned i = 0; i < 12; i++) {
        struct trial t = {
            .cluster_size = 1U << bits[i / 4], .seed = seed + i,
            .no_discard = i & 1, .snapshots = snapshots,
        };

        t.size = (uint64_t)t.cluster_size * (bits[i / 4] == 9 ? 700 : 100);
        run(&t, version, i & 2);
    }
}

static void
requests_keep_the_order_on_version_2(void **state)
{
    (void)state;
    run_geometries(2, false);
}

static void
requests_keep_the_order_on_version_3(void **state)
{
    (void)state;
    run_geometries(3, false);
}

static void
snapshots_keep_the_order(void **state)
{
    (void)state;
    run_geometries(3, true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_keep_the_order_on_version_2),
        cmocka_unit_test(requests_keep_the_order_on_version_3),
        cmocka_unit_test(snapshots_keep_the_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
