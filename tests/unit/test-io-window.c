/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-window.c: a part of a file as a file. */
#include <errno.h>
#include <stdlib.h>

#include "expect.h"
#include "io-fault.h"
#include "io-mem.h"
#include "rng.h"
#include "storage/io-window.h"

enum { FILE_BYTES = 20000, OFFSET = 1234, SIZE = 9000 };

struct scene {
    struct mem *mem;
    struct fault_plan plan;
    struct io *io;
};

static void
begin(struct scene *s)
{
    const struct qcow2_window window = { OFFSET, SIZE };
    unsigned char *bytes = malloc(FILE_BYTES);
    struct qcow2_error err;

    for (int i = 0; i < FILE_BYTES; i++)
        bytes[i] = 1 + i % 251;
    s->mem = mem_new(bytes, FILE_BYTES);
    s->plan = (struct fault_plan)FAULT_PLAN_INIT;
    s->io = io_window_new(io_fault_new(io_mem_open(s->mem, false), &s->plan),
                          &window, &err);
    assert_non_null(s->io);
    free(bytes);
}

static void
end(struct scene *s)
{
    const unsigned char *bytes;
    uint64_t nr_bytes;

    io_close(s->io);
    bytes = mem_bytes(s->mem, &nr_bytes);
    assert_int_equal(nr_bytes, FILE_BYTES);
    for (int i = 0; i < FILE_BYTES; i++)
        if (i < OFFSET || i >= OFFSET + SIZE)
            EXPECT(bytes[i] == 1 + i % 251, "byte %d changed", i);
    mem_free(s->mem);
}

/* Any request, also one that leads out: what the model allows is done, all
 * else is refused whole. */
static void
change_both(struct scene *s, unsigned char *model, struct rng *rng)
{
    uint64_t off = rng_below(rng, SIZE + 500);
    uint64_t n = 1 + rng_below(rng, rng_below(rng, 4) ? 600 : SIZE);
    unsigned kind = rng_below(rng, 3);
    bool inside = off + n <= SIZE;
    unsigned char buf[SIZE];
    struct qcow2_error err;
    int r;

    memset(buf, 1 + rng_below(rng, 255), sizeof buf);
    if (kind == 0) {
        r = io_pwrite(s->io, buf, n, off, &err);
        if (inside)
            memcpy(model + off, buf, n);
    } else if (kind == 1) {
        r = io_zero(s->io, off, n, 0, &err);
        if (inside)
            memset(model + off, 0, n);
    } else {
        r = io_punch(s->io, off, n, &err);
        inside = true; /* advice that does not reach further */
        if (off < SIZE)
            memset(model + off, 0, off + n < SIZE ? n : SIZE - off);
    }
    EXPECT(r == (inside ? 0 : -1), "kind %u: %llu at %llu", kind,
           (unsigned long long)n, (unsigned long long)off);
    if (r == -1)
        assert_int_equal(err.errnum, ENOSPC);
}

static void
read_in_three(struct scene *s, const unsigned char *model, struct rng *rng)
{
    uint64_t off = rng_below(rng, SIZE + 500), n = rng_below(rng, 2000);
    unsigned char buf[2000], want[2000];
    uint64_t a = rng_below(rng, n + 1), b = a + rng_below(rng, n - a + 1);
    struct iovec iov[] = {
        { buf, a }, { buf + a, b - a }, { buf + b, n - b }
    };
    struct qcow2_error err;

    for (uint64_t i = 0; i < n; i++)
        want[i] = off + i < SIZE ? model[off + i] : 0;
    memset(buf, 0xee, sizeof buf);
    EXPECT_OK(io_preadv(s->io, iov, 3, off, &err), &err);
    expect_same("read", buf, want, n, off);
}

static void
requests_stay_inside(void **state)
{
    unsigned char *model = malloc(SIZE);
    struct scene s;
    struct rng rng;

    (void)state;
    begin(&s);
    rng_init(&rng, rng_seed(5), 0);
    EXPECT(io_pread(s.io, model, SIZE, 0, NULL) == 0, "read");
    assert_int_equal(model[0], 1 + OFFSET % 251);
    for (int step = 0; step < 400; step++) {
        expect_step("%d", step);
        change_both(&s, model, &rng);
        read_in_three(&s, model, &rng);
    }
    free(model);
    end(&s);
}

static void
its_size_does_not_change(void **state)
{
    struct qcow2_error err;
    struct scene s;
    uint64_t size;

    (void)state;
    begin(&s);
    assert_false(s.io->can_grow);
    assert_false(s.io->reads_zero_past_end);
    assert_int_equal(io_get_size(s.io, &size, NULL), 0);
    assert_int_equal(size, SIZE);
    assert_int_equal(io_truncate(s.io, SIZE + 1, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    assert_int_equal(io_truncate(s.io, 0, &err), -1);
    end(&s);
}

static void
extents_are_of_the_part(void **state)
{
    uint64_t len = FILE_BYTES;
    bool is_hole = true;
    struct scene s;

    (void)state;
    begin(&s);
    assert_int_equal(io_extent(s.io, 10, &len, &is_hole, NULL), 0);
    assert_false(is_hole);
    assert_in_range(len, 1, SIZE - 10);
    len = 100;
    assert_int_equal(io_extent(s.io, SIZE, &len, &is_hole, NULL), 0);
    assert_true(is_hole);
    end(&s);
}

static void
flushes_and_failures_are_those_of_the_file(void **state)
{
    struct qcow2_error err;
    struct scene s;
    char byte = 'x';

    (void)state;
    begin(&s);
    assert_int_equal(io_pwrite(s.io, &byte, 1, 0, NULL), 0);
    assert_int_equal(io_flush(s.io, NULL), 0);
    assert_int_equal(fault_count(&s.plan, FAULT_FLUSH), 1);
    fault_arm(&s.plan, FAULT_READ, 1, EIO, FAULT_ONCE);
    assert_int_equal(io_pread(s.io, &byte, 1, 0, &err), -1);
    assert_int_equal(err.errnum, EIO);
    fault_arm(&s.plan, FAULT_WRITE, 1, EIO, FAULT_ONCE);
    assert_int_equal(io_pwrite(s.io, &byte, 1, 0, &err), -1);
    assert_int_equal(err.errnum, EIO);
    fault_arm(&s.plan, FAULT_FLUSH, 1, EIO, FAULT_ONCE);
    assert_int_equal(io_flush(s.io, &err), -1);
    assert_true(io_flush_has_failed(s.io));
    end(&s);
}

static void
no_window_is_the_file_itself(void **state)
{
    const struct qcow2_window all = { 0, 0 };
    struct mem *m = mem_new(NULL, 100);
    struct io *io = io_mem_open(m, false);

    (void)state;
    assert_ptr_equal(io_window_new(io, &all, NULL), io);
    io_close(io);
    mem_free(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_stay_inside),
        cmocka_unit_test(its_size_does_not_change),
        cmocka_unit_test(extents_are_of_the_part),
        cmocka_unit_test(flushes_and_failures_are_those_of_the_file),
        cmocka_unit_test(no_window_is_the_file_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
