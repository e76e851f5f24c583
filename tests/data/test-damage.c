/* SPDX-License-Identifier: BSD-3-Clause */
/* test-damage: a damaged table met while serving fails the request that met
 * it, marks the image corrupt once, and ends writing; the rest can be read.
 * Nothing but that mark is written.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/open.h"
#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"
#include "rig.h"

enum { C = 4096, INCOMPATIBLE_AT = 79, CORRUPT = 2 };

/* Clusters 0-7 are data; the request meets what is wrong with cluster 1. */
static const struct defect {
    const char *poke;
    enum op_kind meets;  /* OP_READ, OP_WRITE or OP_ZERO */
} defects[] = {
    { "poke l2[1] | 2", OP_READ },                  /* reserved bits */
    { "poke l2[1] ^ 0x200", OP_READ },              /* misaligned */
    { "poke l1[0] | 4", OP_READ },
    { "poke l1[0] ^ 0x200", OP_READ },
    { "poke l1[0] = 0x8000000000000000 + 1T", OP_READ },
    { "poke l2[1] = 0x8000000000000000 + 1T", OP_READ }, /* past the end */
    { "poke l2[1] = 0x4000000000000000 + 1T", OP_READ }, /* compressed */
    { "poke l2[1] = 0x8000000000000000 + @l1", OP_WRITE },
    { "poke l2[1] = 0x8000000000000000 + @reftable", OP_WRITE },
    { "poke l2[1] = 0x8000000000000000 + @refblock[0]", OP_WRITE },
    { "poke l2[1] = 0x8000000000000000 + @l2[0]", OP_WRITE },
    { "poke l2[1] = 0x8000000000000000 + @snapshots", OP_WRITE },
    { "poke l2[1] = 0x8000000000000000 + @snapshot-l1[0]", OP_WRITE },
    { "poke l2[1] = 1 + 0x8000000000000000 + @l1", OP_WRITE },
    { "poke l2[1] = 0x8000000000000000 + @l2[0]", OP_ZERO },
};

static int
request(struct qcow2_disk *disk, enum op_kind kind, struct qcow2_error *err)
{
    unsigned char buf[100];

    memset(buf, 0x77, sizeof buf);
    if (kind == OP_READ)
        return qcow2_pread(disk, buf, sizeof buf, C, err);
    if (kind == OP_ZERO) /* of a part: in place */
        return qcow2_zero(disk, sizeof buf, C, 0, err);
    return qcow2_pwrite(disk, buf, sizeof buf, C, 0, err);
}

static bool
is_marked(struct rig *r)
{
    uint64_t nr_bytes;

    return mem_bytes(r->mem, &nr_bytes)[INCOMPATIBLE_AT] & CORRUPT;
}

/* The file is as it was, but for the mark. */
static void
expect_untouched(struct rig *r)
{
    uint64_t nr_bytes;
    size_t nr_before;
    const unsigned char *before = builder_bytes(r->image, &nr_before);
    unsigned char *now = malloc(nr_before);

    if (!now)
        abort();
    EXPECT(is_marked(r), "the image is not marked corrupt");
    memcpy(now, mem_bytes(r->mem, &nr_bytes), nr_before);
    now[INCOMPATIBLE_AT] &= ~CORRUPT;
    EXPECT(nr_bytes == nr_before, "the size has changed");
    expect_same("file", now, before, nr_before, 0);
    free(now);
}

static void
expect_refusal(struct rig *r, const struct defect *d)
{
    struct qcow2_disk *disk = r->play.disk;
    bool whole_table = strncmp(d->poke, "poke l1", 7) == 0;
    unsigned char buf[C];
    struct qcow2_error err;

    EXPECT(!is_marked(r), "marked before anybody met it");
    EXPECT(request(disk, d->meets, &err) == -1 && err.errnum == EIO,
           "no EIO");
    EXPECT(is_marked(r), "not marked");
    EXPECT(qcow2_pwrite(disk, buf, 1, 3 * C, 0, &err) == -1 &&
           err.errnum == EIO, "writes go on");
    EXPECT(qcow2_zero(disk, C, 3 * C, 0, &err) == -1 && err.errnum == EIO,
           "zeroing goes on");
    EXPECT(qcow2_trim(disk, C, 3 * C, 0, &err) == -1 && err.errnum == EIO,
           "trimming goes on");
    if (!whole_table) {
        EXPECT_OK(qcow2_pread(disk, buf, C, 3 * C, &err), &err);
        expect_same("undamaged cluster", buf, r->play.model.disk + 3 * C, C,
                    3 * C);
    }
    EXPECT(fault_count(&r->plan, FAULT_CHANGE) == 1, "%llu writes",
           (unsigned long long)fault_count(&r->plan, FAULT_CHANGE));
}

static void
start(struct rig *r, const char *geometry, const char *poke)
{
    expect_case("%s %s", geometry, poke);
    rig_init(r, geometry, 0);
    builder_add(r->image, "data 0-7 1; snapshot 1 first; data 0-7 2; %s",
                poke);
    rig_open(r);
    fault_reset_counts(&r->plan);
}

static void
damage_that_is_met_ends_writing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof defects / sizeof defects[0]; i++) {
        struct rig r;

        start(&r, "cluster 4K; size 256K;", defects[i].poke);
        expect_refusal(&r, &defects[i]);
        qcow2_close(r.play.disk, NULL);
        expect_untouched(&r);
        rig_end(&r);
        rig_free(&r);
    }
}

static void
a_readonly_disk_is_not_marked(void **state)
{
    struct rig r;
    struct qcow2_error err;

    (void)state;
    expect_case("read-only");
    rig_init(&r, "cluster 4K; size 256K; data 0-7 1; poke l2[1] | 2", 0);
    r.options.readonly = true;
    rig_start(&r);
    r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, true));
    EXPECT(request(r.play.disk, OP_READ, &err) == -1 && err.errnum == EIO,
           "no EIO");
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(!is_marked(&r), "marked");
    rig_end(&r);
    rig_free(&r);
}

static void
damaged_compressed_data_is_an_error_of_its_reader(void **state)
{
    struct rig r;
    struct qcow2_error err;
    unsigned char buf[C];

    (void)state;
    expect_case("compressed");
    rig_init(&r, "cluster 4K; size 256K; compressed 0-7 1;"
             "poke u64[@data[1]] = 0xffffffffffffffff", 0);
    rig_open(&r);
    EXPECT(request(r.play.disk, OP_READ, &err) == -1 && err.errnum == EIO,
           "no EIO");
    EXPECT_OK(qcow2_pread(r.play.disk, buf, C, 3 * C, &err), &err);
    expect_same("next", buf, r.play.model.disk + 3 * C, C, 3 * C);
    EXPECT(request(r.play.disk, OP_WRITE, &err) == -1 && err.errnum == EIO,
           "a part written over what cannot be read");
    EXPECT_OK(qcow2_pwrite(r.play.disk, buf, C, 5 * C, 0, &err), &err);
    EXPECT_OK(qcow2_pwrite(r.play.disk, buf, C, C, 0, &err), &err);
    EXPECT_OK(qcow2_pread(r.play.disk, r.play.scratch, C, C, &err), &err);
    expect_same("replaced", r.play.scratch, buf, C, C);
    EXPECT_OK(qcow2_close(r.play.disk, &err), &err);
    EXPECT(!is_marked(&r), "the image is marked corrupt");
    rig_end(&r);
    rig_free(&r);
}

/* Metadata with a refcount of 0 looks free: it must not be handed out. */
static void
uncounted_metadata_is_not_overwritten(void **state)
{
    static const char *const pokes[] = {
        "poke refcount[@l1/C] = 0", "poke refcount[@reftable/C] = 0",
        "poke refcount[@refblock[0]/C] = 0", "poke refcount[@l2[0]/C] = 0",
        "poke refcount[@snapshots/C] = 0",
        "poke refcount[@snapshot-l1[0]/C] = 0", "poke refcount[0] = 0",
    };

    (void)state;
    for (size_t i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        unsigned char buf[10 * C] = { 1 };
        struct rig r;

        start(&r, "cluster 4K; size 256K;", pokes[i]);
        for (unsigned k = 0; k < 3; k++)
            qcow2_pwrite(r.play.disk, buf, sizeof buf, (10 + 10 * k) * C, 0,
                         NULL);
        qcow2_flush(r.play.disk, NULL);
        EXPECT_OK(qcow2_pread(r.play.disk, r.play.scratch, 8 * C, 0,
                              &(struct qcow2_error){ 0 }),
                  &(struct qcow2_error){ 0 });
        expect_same("old data", r.play.scratch, r.play.model.disk, 8 * C, 0);
        rig_expect_snapshots(&r, r.play.disk);
        qcow2_close(r.play.disk, NULL);

        r.play.disk = NULL;
        r.options.readonly = true;
        r.play.disk = rig_open_disk(&r, io_mem_open(r.mem, true));
        rig_expect_snapshots(&r, r.play.disk);
        qcow2_close(r.play.disk, NULL);
        rig_end(&r);
        rig_free(&r);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_that_is_met_ends_writing),
        cmocka_unit_test(a_readonly_disk_is_not_marked),
        cmocka_unit_test(damaged_compressed_data_is_an_error_of_its_reader),
        cmocka_unit_test(uncounted_metadata_is_not_overwritten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
