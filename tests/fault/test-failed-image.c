/* SPDX-License-Identifier: BSD-3-Clause */
/* test-failed-image: what an image is like after a barrier or a metadata
 * write that failed (I8): reads show all that was written, nothing is
 * written any more, and whoever opens it next counts its clusters anew.
 */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"
#include "rng.h"

enum { C = 65536, DATA_BYTES = 3 * C, SEED = 7 };

/* What one slice of an L2 table maps, and as many slices as are more than
 * the smallest cache holds. */
#define WINDOW    ((uint64_t)512 * C)
#define NR_WINDOWS 400

struct trial {
    struct mem *mem;
    struct qcow2_pool *pool;
    struct fault_plan plan;
    struct qcow2_disk *disk;
    unsigned char data[DATA_BYTES];
};

static struct qcow2_disk *
open_disk(struct trial *t)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    options.pool = t->pool;
    disk = disk_open_io(io_fault_new(io_mem_open(t->mem, false),
                                     &t->plan), "image", &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

/* A disk with data in its first cluster, and tables for many more. */
static struct trial *
trial_new(void)
{
    struct trial *t = calloc(1, sizeof *t);
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct builder *b = builder_new();
    const unsigned char *bytes;
    size_t nr_bytes;

    t->plan = plan;
    t->pool = qcow2_pool_new(1, NULL);
    builder_add(b, "cluster %d; size %llu; data 0 %d", C,
                (unsigned long long)(NR_WINDOWS * WINDOW), SEED);
    /* Entries that differ: slices that are linear or empty take no room in
     * the cache. */
    for (unsigned i = 0; i < NR_WINDOWS; i++)
        builder_add(b, "zero %u", i * 512 + 5);
    bytes = builder_bytes(b, &nr_bytes);
    t->mem = mem_new(bytes, nr_bytes);
    builder_free(b);
    pattern_fill(t->data, C, SEED, 0);
    t->disk = open_disk(t);
    return t;
}

static void
trial_free(struct trial *t)
{
    mem_free(t->mem);
    qcow2_pool_free(t->pool);
    free(t);
}

static void
write_data(struct trial *t, uint64_t off, uint64_t nr_bytes, uint64_t seed)
{
    struct qcow2_error err;

    pattern_fill(t->data + off, nr_bytes, seed, off);
    EXPECT_OK(qcow2_pwrite(t->disk, t->data + off, nr_bytes, off, 0,
                           &err), &err);
}

static void
expect_data(struct trial *t)
{
    static unsigned char got[DATA_BYTES];
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(t->disk, got, DATA_BYTES, 0, &err), &err);
    expect_same("disk", got, t->data, DATA_BYTES, 0);
}

/* Writes over data and into new clusters; the flush meets a failure. */
static struct trial *
make_failed(unsigned kinds)
{
    struct trial *t = trial_new();
    struct qcow2_error err;

    write_data(t, 100, C / 2, 20);
    write_data(t, 2 * C - 500, 1000, 21);
    fault_arm(&t->plan, kinds, 1, EIO, FAULT_ONCE);
    EXPECT(qcow2_flush(t->disk, &err) == -1 && err.errnum == EIO,
           "the flush succeeded");
    EXPECT(fault_fired(&t->plan) == 1, "nothing failed");
    return t;
}

static const unsigned failures[] = { FAULT_WRITE, FAULT_FLUSH };
enum { NR_FAILURES = sizeof failures / sizeof failures[0] };

static void
reads_go_on_with_all_that_was_written(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_FAILURES; i++) {
        struct trial *t = make_failed(failures[i]);
        struct qcow2_error err;
        char byte;

        expect_case("failure %u", i);
        expect_data(t);
        /* The tables that could not be written must stay in memory, however
         * often the cache needs the room. */
        for (uint64_t n = 0; n < 4 * NR_WINDOWS; n++)
            EXPECT_OK(qcow2_pread(t->disk, &byte, 1,
                                  (1 + n % (NR_WINDOWS - 1)) * WINDOW, &err),
                      &err);
        expect_data(t);
        qcow2_close(t->disk, NULL);
        trial_free(t);
    }
}

static int
request(struct qcow2_disk *disk, unsigned which, struct qcow2_error *err)
{
    const struct qcow2_snapshot_create_options plain = { 0 };

    switch (which) {
    case 0:
        return qcow2_pwrite(disk, "in place", 8, 0, 0, err);
    case 1:
        return qcow2_pwrite(disk, "new", 3, 2 * C + 700, 0, err);
    case 2:
        return qcow2_pwrite(disk, "FUA", 3, 0, QCOW2_FUA, err);
    case 3:
        return qcow2_zero(disk, 100, 0, 0, err);
    case 4:
        return qcow2_zero(disk, C, 0, QCOW2_MAY_TRIM, err);
    case 5:
        return qcow2_trim(disk, C, 0, 0, err);
    case 6:
        return qcow2_flush(disk, err);
    case 7:
        return qcow2_snapshot_create(disk, "snapshot", &plain, err);
    case 8:
        return qcow2_resize(disk, 2 * NR_WINDOWS * WINDOW, false, err);
    case 9:
        return qcow2_preallocate(disk, C, 2 * C, QCOW2_PREALLOC_FULL, err);
    }
    return -1;
}
enum { NR_REQUESTS = 10 };

static void
nothing_is_written_any_more(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_FAILURES; i++) {
        struct trial *t = make_failed(failures[i]);
        struct qcow2_error err;

        fault_reset_counts(&t->plan);
        for (unsigned k = 0; k < NR_REQUESTS; k++) {
            expect_case("failure %u, request %u", i, k);
            EXPECT(request(t->disk, k, &err) == -1, "it succeeds");
            EXPECT(err.errnum == EIO, "errno %d: %s", err.errnum, err.text);
        }
        expect_data(t);
        EXPECT(qcow2_close(t->disk, &err) == -1 && err.errnum == EIO,
               "closing it succeeds");
        EXPECT(fault_count(&t->plan, FAULT_CHANGE | FAULT_FLUSH) == 0,
               "something was written");
        trial_free(t);
    }
}

static struct audit
audit_of(struct trial *t)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(t->mem, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    return a;
}

static void
the_next_open_counts_its_clusters(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_FAILURES; i++) {
        struct trial *t = make_failed(failures[i]);
        struct qcow2_error err;
        struct audit a;

        expect_case("failure %u", i);
        qcow2_close(t->disk, NULL);
        EXPECT(audit_of(t).dirty, "the dirty bit is not set");
        t->disk = open_disk(t);
        write_data(t, 0, DATA_BYTES, 30);
        expect_data(t);
        EXPECT_OK(qcow2_close(t->disk, &err), &err);
        a = audit_of(t);
        EXPECT(audit_is_clean(&a), "%u corruptions (%s), %u leaks%s",
               a.nr_corruptions, a.first, a.nr_leaks,
               a.dirty ? ", dirty" : "");
        trial_free(t);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_go_on_with_all_that_was_written),
        cmocka_unit_test(nothing_is_written_any_more),
        cmocka_unit_test(the_next_open_counts_its_clusters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
