/* SPDX-License-Identifier: BSD-3-Clause */
/* test-full: what happens where the file system, or the device, is full: what
 * was acknowledged is neither lost nor out of reach, and what is freed can be
 * used.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/create.h"
#include "disk/open-disk.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "rig.h"

enum { K = 1024, M = 1024 * K };

static struct mem *
new_image(uint64_t size, uint32_t cluster_size)
{
    struct qcow2_create_options o = { .size = size };
    struct mem *m = mem_new(NULL, 0);
    struct io *io = io_mem_open(m, false);
    struct qcow2_error err;

    o.cluster_size = cluster_size;
    EXPECT_OK(create_io(io, &o, &err), &err);
    io_close(io);
    return m;
}

/* A rig on a new image that create_io made, instead of a recipe's. */
static void
open_new(struct rig *r, uint64_t size, uint32_t cluster_size)
{
    char recipe[100];

    snprintf(recipe, sizeof recipe, "cluster %u; size %llu", cluster_size,
             (unsigned long long)size);
    expect_case("%s", recipe);
    rig_init(r, recipe, 0);
    rig_start(r);
    mem_free(r->mem);
    r->mem = new_image(size, cluster_size);
    r->play.disk = rig_open_disk(r, io_fault_new(io_mem_open(r->mem, false),
                                                 &r->plan));
}

static void
close_rig(struct rig *r)
{
    rig_close(r);
    rig_free(r);
}

/* The file system is full from now on. */
static void
fill(struct rig *r)
{
    mem_set_room(r->mem, 0);
}

/* Writes, unless there is no space: then the disk is as it was. */
static bool
write_if_there_is_space(struct rig *r, uint64_t off, uint64_t nr_bytes)
{
    struct op op = { OP_WRITE, off, nr_bytes, 0, off + 1 };
    unsigned char *before = malloc(nr_bytes);
    struct qcow2_error err;
    bool written;

    memcpy(before, r->play.model.disk + off, nr_bytes);
    written = play_op(&r->play, &op, &err) == 0;
    EXPECT(written || err.errnum == ENOSPC, "%s", err.text);
    if (!written)
        memcpy(r->play.model.disk + off, before, nr_bytes);
    free(before);
    return written;
}

/* Tables, refcounts and the L1 table, old and new, have their space. */
static void
a_flush_needs_no_space_of_its_own(void **state)
{
    static const uint32_t cluster_sizes[] = { 4 * K, 64 * K, 2 * M };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t c = cluster_sizes[i], reach = c / 8 * c;
        struct rig r;

        if (c == 4 * K)
            open_new(&r, 20 * reach, c);
        else
            open_new(&r, 64 * M, c);
        for (unsigned n = 0; n < 20; n++)
            rig_play(&r, OP_WRITE, r.play.model.size / 20 / c * c * n, c, 0);
        fill(&r);
        rig_flush(&r);
        close_rig(&r);
    }
}

/* A refcount block counts 2 MiB. */
static void
refcount_blocks_have_their_space(void **state)
{
    struct rig r;

    (void)state;
    expect_case("blocks");
    rig_init(&r, "cluster 4K; refcount-bits 64; size 32M; data 0 1", 0);
    rig_open(&r);
    for (unsigned nr = 0; nr < 30; nr++)
        rig_play(&r, OP_WRITE, nr * M, M, 0);
    fill(&r);
    rig_flush(&r);
    close_rig(&r);
}

/* The refcount table is taken for one so short that it has to move. */
static void
open_short_table(struct rig *r)
{
    struct alloc *a;

    rig_init(r, "cluster 4K; refcount-bits 64; size 4M; data 0 1", 0);
    rig_open(r);
    a = &r->play.disk->file->image->alloc;
    a->reftable_entries = 2;
    rig_play(r, OP_WRITE, 0, 4 * M, 0);
    EXPECT(a->moved_offset, "not moved");
}

static void
a_moved_refcount_table_has_its_space(void **state)
{
    struct rig r;

    (void)state;
    expect_case("a table that moves");
    open_short_table(&r);
    fill(&r);
    rig_flush(&r);
    close_rig(&r);
}

/* Tables that somebody else made may be holes. Whichever write of the flush
 * it is that lacks space, and whatever changes before the next. */
static void
a_flush_that_lacked_space_is_made_again(void **state)
{
    static const int errors[] = { ENOSPC, EDQUOT };
    bool failed = true;

    (void)state;
    for (unsigned nth = 1; failed; nth++) {
        struct rig r;
        struct qcow2_error err;

        expect_case("write %u of the flush", nth);
        rig_init(&r, "cluster 512; refcount-bits 64; size 512K; data 0-63 1;"
                 "snapshot 1 first", 0);
        rig_open(&r);
        for (unsigned i = 0; i < 8; i++) {
            rig_play(&r, OP_WRITE, i * 50 * K + 100, 3 * K, 0);
            rig_play(&r, OP_TRIM, i * 50 * K, K, 0);
        }
        fault_arm(&r.plan, FAULT_WRITE, nth, errors[nth % 2],
                  FAULT_FOR_GOOD | (nth % 3 ? FAULT_TORN : 0));
        failed = qcow2_flush(r.play.disk, &err) == -1;
        EXPECT(!failed || err.errnum == errors[nth % 2], "%s", err.text);
        EXPECT(failed || nth > 8, "only %u writes", nth);
        if (failed)
            EXPECT(qcow2_flush(r.play.disk, &err) == -1, "flushed");
        fault_arm(&r.plan, 0, 0, 0, 0);
        rig_play(&r, OP_READ, 0, 512 * K, 0);
        rig_play(&r, OP_WRITE, 0, 2 * K, 0);
        rig_play(&r, OP_TRIM, 50 * K, 3 * K, 0);
        rig_play(&r, OP_WRITE, 100 * K, 70 * K, 0);
        rig_flush(&r);
        close_rig(&r);
    }
}

/* All but a write of the header may be made again: whether the table has
 * moved is unknown then. */
static void
a_refcount_table_that_has_moved_stays_where_it_is(void **state)
{
    bool failed = true;
    unsigned nr_final = 0;

    (void)state;
    for (unsigned nth = 1; failed; nth++) {
        struct rig r;
        struct qcow2_error err;

        expect_case("write %u of the flush", nth);
        open_short_table(&r);
        fault_arm(&r.plan, FAULT_WRITE, nth, ENOSPC, FAULT_ONCE);
        failed = qcow2_flush(r.play.disk, &err) == -1;
        fault_arm(&r.plan, 0, 0, 0, 0);
        if (qcow2_flush(r.play.disk, &err) == 0) {
            rig_play(&r, OP_WRITE, 0, 4 * M, 0);
            close_rig(&r);
            continue;
        }
        EXPECT(err.errnum == EIO, "%s", err.text);
        nr_final++;
        qcow2_close(r.play.disk, NULL);
        rig_end(&r);
        rig_free(&r);
    }
    EXPECT(nr_final == 1, "%u writes may not be made again", nr_final);
}

/* What lies on disk after each write that lacked space is an image, too. */
static void
a_flush_that_lacked_space_is_not_forgotten_by_the_next(void **state)
{
    struct rig r;
    struct qcow2_error err;

    (void)state;
    open_new(&r, 64 * M, 64 * K);
    rig_play(&r, OP_WRITE, M, 100 * K, 0);
    fault_arm(&r.plan, FAULT_WRITE, 2, ENOSPC, FAULT_ONCE);
    EXPECT(qcow2_flush(r.play.disk, &err) == -1 && err.errnum == ENOSPC,
           "flush");
    rig_flush(&r);
    close_rig(&r);
}

static void
a_barrier_that_fails_is_final(void **state)
{
    struct rig r;
    struct qcow2_error err;

    (void)state;
    open_new(&r, 64 * M, 64 * K);
    rig_play(&r, OP_WRITE, M, 100 * K, 0);
    fault_arm(&r.plan, FAULT_FLUSH, 2, ENOSPC, FAULT_ONCE);
    EXPECT(qcow2_flush(r.play.disk, &err) == -1 && err.errnum == ENOSPC,
           "flush");
    EXPECT(qcow2_pwrite(r.play.disk, "in place", 8, M, 0, &err) == -1
           && err.errnum == EIO, "writes go on");
    EXPECT(qcow2_flush(r.play.disk, &err) == -1 && err.errnum == EIO,
           "a barrier is tried again");
    qcow2_close(r.play.disk, NULL);
    rig_end(&r);
    rig_free(&r);
}

/* Writes clusters from `from` on until that fails: where it does. */
static uint64_t
write_until_full(struct rig *r, uint64_t from)
{
    uint64_t off = from;

    while (write_if_there_is_space(r, off, 64 * K))
        off += 64 * K;
    return off;
}

static void
use_what_was_freed(struct rig *r, uint64_t end)
{
    EXPECT(!write_if_there_is_space(r, end, 64 * K), "space again");
    rig_play(r, OP_TRIM, M, M, 0);
    rig_play(r, OP_WRITE, end, 64 * K, 0);
    rig_play(r, OP_ZERO, 2 * M, M, QCOW2_MAY_TRIM);
    for (unsigned i = 0; i < 8; i++)
        rig_play(r, OP_WRITE, M + i * 64 * K, 64 * K, 0);
    rig_play(r, OP_READ, 0, 8 * M, 0);
}

static void
what_was_freed_on_a_full_file_system_is_used(void **state)
{
    struct rig r;

    (void)state;
    open_new(&r, 32 * M, 64 * K);
    mem_set_room(r.mem, 8 * M);
    use_what_was_freed(&r, write_until_full(&r, 0));
    close_rig(&r);
}

static void
what_was_freed_on_a_full_device_is_used(void **state)
{
    struct rig r;

    (void)state;
    expect_case("device");
    rig_init(&r, "cluster 64K; size 32M; data 0-9 1", 0);
    r.device_bytes = 8 * M;
    rig_open(&r);
    use_what_was_freed(&r, write_until_full(&r, 640 * K));
    close_rig(&r);
}

static void
a_full_disk_is_closed_without_loss(void **state)
{
    struct rig r;

    (void)state;
    open_new(&r, 32 * M, 64 * K);
    mem_set_room(r.mem, 8 * M);
    write_until_full(&r, 0);
    close_rig(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flush_needs_no_space_of_its_own),
        cmocka_unit_test(refcount_blocks_have_their_space),
        cmocka_unit_test(a_moved_refcount_table_has_its_space),
        cmocka_unit_test(a_flush_that_lacked_space_is_made_again),
        cmocka_unit_test(a_refcount_table_that_has_moved_stays_where_it_is),
        cmocka_unit_test(
            a_flush_that_lacked_space_is_not_forgotten_by_the_next),
        cmocka_unit_test(a_barrier_that_fails_is_final),
        cmocka_unit_test(what_was_freed_on_a_full_file_system_is_used),
        cmocka_unit_test(what_was_freed_on_a_full_device_is_used),
        cmocka_unit_test(a_full_disk_is_closed_without_loss),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
