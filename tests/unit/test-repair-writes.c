/* SPDX-License-Identifier: BSD-3-Clause */
/* test-repair-writes: a repair holds its writes back until the record of what
 * they overwrite is durable, and can be cancelled between them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "builder.h"
#include "check/check.h"
#include "expect.h"
#include "io-mem.h"

/* What the image may hold: what it held before, and the writes settled. */
struct record {
    struct mem *image, *allowed, *announced;
    unsigned nr_writes, nr_settled, cancel_at;
};

static bool
same_bytes(struct mem *a, struct mem *b)
{
    uint64_t nr_a, nr_b;
    const unsigned char *bytes_a = mem_bytes(a, &nr_a);
    const unsigned char *bytes_b = mem_bytes(b, &nr_b);

    return nr_a == nr_b && memcmp(bytes_a, bytes_b, nr_a) == 0;
}

/* What is announced to be overwritten is what all writes announced before
 * leave there, made or not: they are undone one after the other. */
static void
expect_old_bytes(const struct record *r, const struct qcow2_repair_write *w,
                 struct io *io)
{
    unsigned char *before = malloc(w->nr_bytes);

    assert_int_equal(io_pread(io, before, w->nr_bytes, w->host_off, NULL), 0);
    EXPECT(memcmp(before, w->old_bytes, w->nr_bytes) == 0, "write %u (%s) at "
           "%llu: not the bytes that are there before", r->nr_writes, w->why,
           (unsigned long long)w->host_off);
    free(before);
}

static int
record_write(void *opaque, const struct qcow2_repair_write *w)
{
    struct record *r = opaque;
    struct io *io = io_mem_open(r->announced, false);
    uint64_t size;

    r->nr_writes++;
    expect_old_bytes(r, w, io);
    EXPECT(same_bytes(r->image, r->allowed), "write %u: the image was "
           "changed before that was settled", r->nr_writes);
    assert_int_equal(io_get_size(io, &size, NULL), 0);
    assert_int_equal(w->file_size, size);
    assert_int_equal(io_pwrite(io, w->new_bytes, w->nr_bytes, w->host_off,
                               NULL), 0);
    io_close(io);
    return 0;
}

static int
record_settle(void *opaque)
{
    struct record *r = opaque;

    r->nr_settled++;
    EXPECT(same_bytes(r->image, r->allowed), "settled too late");
    mem_free(r->allowed);
    r->allowed = mem_copy(r->announced);
    return 0;
}

static int
record_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct record *r = opaque;

    (void)done, (void)total;
    return r->cancel_at > 0 && r->nr_writes == r->cancel_at;
}

static const char many_defects[] =
    "cluster 512; refcount-bits 64; size 4M; data 0-7000 1;"
    "poke reftable[3] = 0";

/* Refcounts of neighbours are lowered in one byte, one by one. */
static const char shared_neighbours[] =
    "cluster 512; refcount-bits 2; size 16M; data 0-20 1;"
    "poke l2[3] = @l1; poke l2[4] = @l1+512; poke l2[5] = @l1+1024";

static struct mem *
image_of(const char *recipe)
{
    struct builder *b = builder_new();
    size_t nr_bytes;
    const unsigned char *bytes;
    struct mem *image;

    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    image = mem_new(bytes, nr_bytes);
    builder_free(b);
    return image;
}

static void
expect_clean(struct mem *image)
{
    const struct qcow2_check_options options = { 0 };
    struct io *io = io_mem_open(image, true);
    struct qcow2_check_result r;
    struct qcow2_error err;

    EXPECT_OK(check_io(io, &options, &r, &err), &err);
    assert_true(r.corruptions == 0 && r.leaks == 0);
    io_close(io);
}

static int
repair_recorded(struct mem *image, unsigned cancel_at, struct record *r,
                struct qcow2_error *err)
{
    const struct qcow2_check_options options = {
        .repair = QCOW2_REPAIR_ALL, .write = record_write,
        .settle = record_settle, .progress = record_progress, .opaque = r,
    };
    struct qcow2_check_result result;
    struct io *io = io_mem_open(image, false);
    int ret;

    *r = (struct record){
        .image = image, .allowed = mem_copy(image),
        .announced = mem_copy(image), .cancel_at = cancel_at,
    };
    ret = check_io(io, &options, &result, err);
    io_close(io);
    EXPECT(same_bytes(image, r->allowed), "not what was settled");
    mem_free(r->allowed);
    mem_free(r->announced);
    return ret;
}

static void
test_writes_are_settled_together_and_before_they_are_made(void **state)
{
    struct mem *image = image_of(many_defects);
    struct qcow2_error err;
    struct record r;

    (void)state;
    EXPECT_OK(repair_recorded(image, 0, &r, &err), &err);
    EXPECT(r.nr_writes > 100 && r.nr_settled < 10, "%u writes in %u batches",
           r.nr_writes, r.nr_settled);
    expect_clean(image);
    mem_free(image);
}

static void
test_announced_writes_build_on_each_other(void **state)
{
    struct mem *image = image_of(shared_neighbours);
    struct qcow2_error err;
    struct record r;

    (void)state;
    EXPECT_OK(repair_recorded(image, 0, &r, &err), &err);
    expect_clean(image);
    mem_free(image);
}

static void
test_a_repair_can_be_cancelled_and_run_again(void **state)
{
    struct mem *image = image_of(many_defects);
    struct qcow2_error err;
    struct record r;

    (void)state;
    for (unsigned n = 1; n < 100; n += 40) {
        assert_int_equal(repair_recorded(image, n, &r, &err), -1);
        assert_int_equal(err.errnum, ECANCELED);
        assert_int_equal(r.nr_writes, n);
    }
    EXPECT_OK(repair_recorded(image, 0, &r, &err), &err);
    expect_clean(image);
    mem_free(image);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_writes_are_settled_together_and_before_they_are_made),
        cmocka_unit_test(test_announced_writes_build_on_each_other),
        cmocka_unit_test(test_a_repair_can_be_cancelled_and_run_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
