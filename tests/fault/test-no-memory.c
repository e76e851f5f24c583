/* SPDX-License-Identifier: BSD-3-Clause */
/* test-no-memory: lets the 1st, the 2nd, … allocation of each request and
 * operation fail. It is refused with ENOMEM, or done; then the same succeeds
 * (where there was no way back: when the image was opened anew), the disk
 * holds what it should, and the closed image leaks at worst.
 */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "memory.h"
#include "rng.h"
#include "tmpdir.h"

enum {
    C = 512, SIZE = 128 * C, GROWN = 200 * C, BACKING = 100 * C,
    FILE_CAPACITY = 1 << 20,
};

#define RECIPE                                                          \
    "cluster 512; refcount-bits 64; size 64K; backing base.raw raw;"    \
    "data 0-9 1; compressed 10-15 2; zero-alloc 16; data 17-40 3;"      \
    "snapshot 1 first; data 3 4"

struct trial {
    struct mem *mem;
    struct io *io;              /* of the file, to be opened next */
    struct qcow2_disk *disk;
    struct qcow2_options options;
    uint64_t size;
    unsigned char want[GROWN], saved[GROWN];
    unsigned char got[GROWN], buf[GROWN];
    struct qcow2_error err;
};

typedef int step_fn(struct trial *t);

static int
open_disk(struct trial *t)
{
    struct io *io = t->io ? t->io : io_mem_open(t->mem, false);

    t->io = NULL;
    t->disk = disk_open_io(io, tmpdir_path("image"), &t->options, &t->err);
    return t->disk ? 0 : -1;
}

static int
write_bytes(struct trial *t, uint64_t off, uint64_t nr_bytes, uint64_t seed)
{
    pattern_fill(t->buf, nr_bytes, seed, off);
    memcpy(t->want + off, t->buf, nr_bytes);
    return qcow2_pwrite(t->disk, t->buf, nr_bytes, off, 0, &t->err);
}

static int
write_in_place(struct trial *t)
{
    return write_bytes(t, 3 * C + 5, 100, 10);
}

static int
write_what_is_shared(struct trial *t)
{
    return write_bytes(t, 4 * C + 5, 9 * C, 11);
}

static int
write_what_has_no_table(struct trial *t)
{
    return write_bytes(t, 70 * C + 5, 40 * C, 12);
}

static int
read_all(struct trial *t)
{
    return qcow2_pread(t->disk, t->got, t->size, 0, &t->err);
}

static int
zero(struct trial *t)
{
    memset(t->want + 2 * C, 0, 10 * C);
    return qcow2_zero(t->disk, 10 * C, 2 * C, QCOW2_MAY_TRIM, &t->err);
}

static int
trim(struct trial *t)
{
    memset(t->want + 12 * C, 0, 10 * C);
    return qcow2_trim(t->disk, 10 * C, 12 * C, 0, &t->err);
}

static int
flush(struct trial *t)
{
    return qcow2_flush(t->disk, &t->err);
}

static int
ignore_extent(void *opaque, const struct qcow2_extent *e)
{
    (void)opaque;
    (void)e;
    return 0;
}

static int
map(struct trial *t)
{
    return qcow2_map(t->disk, t->size, 0, ignore_extent, NULL, &t->err);
}

static int
read_snapshot(struct trial *t)
{
    struct qcow2_disk *disk = qcow2_open_snapshot(t->disk, "first", &t->err);
    int r;

    if (!disk)
        return -1;
    r = qcow2_pread(disk, t->got, SIZE, 0, &t->err);
    qcow2_close(disk, NULL);
    return r;
}

/* 3000 bytes in all, in portions. */
static long
vm_state(void *opaque, void *buf, size_t nr_bytes)
{
    unsigned *left = opaque;
    size_t n = nr_bytes < 700 ? nr_bytes : 700;

    if (n > *left)
        n = *left;
    memset(buf, 'v', n);
    *left -= n;
    return n;
}

/* Each of the next three finds out what an attempt before it came to. */
static int
create(struct trial *t)
{
    unsigned left = 3000;
    const struct qcow2_snapshot_create_options options = {
        .vm_state = vm_state, .opaque = &left,
    };

    memcpy(t->saved, t->want, sizeof t->saved);
    if (qcow2_get_nr_snapshots(t->disk) == 2)
        return 0;
    return qcow2_snapshot_create(t->disk, "second", &options, &t->err);
}

static int
apply(struct trial *t)
{
    memcpy(t->want, t->saved, sizeof t->want);
    return qcow2_snapshot_apply(t->disk, "second", &t->err);
}

static int
delete(struct trial *t)
{
    if (qcow2_get_nr_snapshots(t->disk) == 1)
        return 0;
    return qcow2_snapshot_delete(t->disk, "second", &t->err);
}

static int
grow(struct trial *t)
{
    t->size = GROWN;
    return qcow2_resize(t->disk, GROWN, false, &t->err);
}

static int
preallocate(struct trial *t)
{
    return qcow2_preallocate(t->disk, 20 * C, 120 * C,
                             QCOW2_PREALLOC_METADATA, &t->err);
}

static int
shrink(struct trial *t)
{
    t->size = 100 * C;
    return qcow2_resize(t->disk, 100 * C, true, &t->err);
}

static int
amend(struct trial *t)
{
    const struct qcow2_amend_options options = { .refcount_bits = 16 };

    return qcow2_amend(t->disk, &options, &t->err);
}

/* In this order; zeroes over compressed clusters and writes over shared ones
 * come before and after the second snapshot. */
static const struct step {
    const char *name;
    step_fn *fn;
} steps[] = {
    { "open", open_disk },
    { "write in place", write_in_place },
    { "read", read_all },
    { "write what is shared", write_what_is_shared },
    { "write what has no table", write_what_has_no_table },
    { "zero", zero },
    { "trim", trim },
    { "flush", flush },
    { "map", map },
    { "read a snapshot", read_snapshot },
    { "create a snapshot", create },
    { "write what is shared with two", write_what_is_shared },
    { "flush that", flush },
    { "apply the snapshot", apply },
    { "write after that", write_what_is_shared },
    { "delete the snapshot", delete },
    { "grow", grow },
    { "preallocate", preallocate },
    { "shrink", shrink },
    { "amend", amend },
    { "write at last", write_what_is_shared },
};
enum { NR_STEPS = sizeof steps / sizeof steps[0] };

static void
start(struct trial *t, const unsigned char *image, size_t nr_bytes,
      const unsigned char *content)
{
    const struct qcow2_options options = QCOW2_OPTIONS_INIT;

    memset(t, 0, sizeof *t);
    t->mem = mem_new(image, nr_bytes);
    t->io = io_mem_open(t->mem, false);
    /* So that the file needs no more memory when it grows. */
    EXPECT_OK(io_truncate(t->io, FILE_CAPACITY, &t->err), &t->err);
    EXPECT_OK(io_truncate(t->io, nr_bytes, &t->err), &t->err);
    t->options = options;
    t->size = SIZE;
    memcpy(t->want, content, SIZE);
}

static void
finish(struct trial *t)
{
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    expect_step("at the end");
    EXPECT_OK(read_all(t), &t->err);
    expect_same("disk", t->got, t->want, t->size, 0);
    EXPECT_OK(qcow2_close(t->disk, &t->err), &t->err);
    bytes = mem_bytes(t->mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(a.nr_corruptions == 0 && !a.corrupt, "%u corruptions: %s",
           a.nr_corruptions, a.first);
    EXPECT(a.nr_uncopied == 0 || a.dirty, "%u without COPIED",
           a.nr_uncopied);
    mem_free(t->mem);
}

/* Whatever failed: what is written now and flushed is there in the file. An
 * image that has failed refuses to. */
static void
expect_writes_last(struct trial *t)
{
    enum { OFF = 5 * C + 7, NR_BYTES = 100 };

    expect_step("a write after the failure");
    if (!t->disk || write_bytes(t, OFF, NR_BYTES, 60) == -1
        || flush(t) == -1)
        return;
    EXPECT_OK(qcow2_close(t->disk, &t->err), &t->err);
    EXPECT_OK(open_disk(t), &t->err);
    EXPECT_OK(qcow2_pread(t->disk, t->got, NR_BYTES, OFF, &t->err), &t->err);
    expect_same("what was written", t->got, t->want + OFF, NR_BYTES, OFF);
}

/* Step k failed for want of memory; now there is enough. */
static void
again(struct trial *t, unsigned k)
{
    expect_step("%s, again", steps[k].name);
    if (steps[k].fn(t) == 0)
        return;
    EXPECT(t->err.errnum == EIO, "%s", t->err.text);
    expect_step("%s, once more", steps[k].name);
    qcow2_close(t->disk, NULL);
    EXPECT_OK(open_disk(t), &t->err);
    EXPECT_OK(steps[k].fn(t), &t->err);
}

/* The nth allocation of step k fails; false if there are not so many. */
static bool
try(struct trial *t, unsigned k, uint64_t nth)
{
    bool failed = false;
    int r;

    for (unsigned i = 0; i < NR_STEPS; i++) {
        expect_step("%s", steps[i].name);
        memory_fail(i == k ? nth : 0);
        r = steps[i].fn(t);
        if (i != k) {
            EXPECT_OK(r, &t->err);
            continue;
        }
        failed = memory_has_failed();
        memory_fail(0);
        EXPECT(r == 0 || (failed && t->err.errnum == ENOMEM), "%s",
               t->err.text);
        if (r == -1) {
            expect_writes_last(t);
            again(t, i);
        }
    }
    finish(t);
    return failed;
}

static void
every_allocation_may_fail(void **state)
{
    struct trial *t = malloc(sizeof *t);
    struct builder *b = builder_new();
    unsigned char content[SIZE], below[BACKING];
    const unsigned char *image;
    unsigned nr = 0;
    size_t nr_bytes;

    (void)state;
    assert_non_null(t);
    pattern_fill(below, BACKING, 77, 0);
    tmpdir_write_file(tmpdir_path("base.raw"), below, BACKING);
    memset(content, 0, SIZE);
    memcpy(content, below, BACKING);
    builder_add(b, "%s", RECIPE);
    image = builder_bytes(b, &nr_bytes);
    builder_overlay(b, -1, content, SIZE);
    for (unsigned k = 0; k < NR_STEPS; k++) {
        uint64_t nth = 0;

        do {
            expect_case("allocation %llu of '%s' fails",
                        (unsigned long long)++nth, steps[k].name);
            start(t, image, nr_bytes, content);
            nr++;
        } while (try(t, k, nth));
    }
    print_message("%u allocations\n", nr - NR_STEPS);
    builder_free(b);
    free(t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
