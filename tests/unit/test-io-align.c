/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-align.c: any bytes on a backend that takes whole blocks only. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "expect.h"
#include "io-fault.h"
#include "io-jitter.h"
#include "io-mem.h"
#include "rng.h"
#include "storage/io-align.h"

enum { BLOCK = 4096, SIZE = 64 * BLOCK };

/* Refuses what is not whole blocks; counts what it did. */
struct strict {
    struct io io;
    struct io *below;
    uint32_t block, memory;
    struct fault_plan plan; /* of below: counts */
    uint64_t answer_bytes;  /* of an extent; 0: as below has it */

    void (*after_read)(struct strict *s); /* called once, or NULL */
    struct scene *scene;    /* for it */
    pthread_t thread;       /* that it made */
};

static int
check_whole(struct strict *s, uint64_t off, uint64_t nr_bytes,
            struct qcow2_error *err)
{
    if ((off | nr_bytes) % s->block == 0)
        return 0;
    if (err)
        *err = (struct qcow2_error){ .errnum = EINVAL };
    return -1;
}

static int
check_list(struct strict *s, const struct iovec *iov, int nr_iov,
           uint64_t off, struct qcow2_error *err)
{
    int r = check_whole(s, off, 0, err);

    for (int i = 0; r == 0 && i < nr_iov; i++)
        r = check_whole(s, 0, iov[i].iov_len, err) == -1
            || (s->memory && (uintptr_t)iov[i].iov_base % s->memory)
            ? -1 : 0;
    return r;
}

static int
strict_preadv(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t off, struct qcow2_error *err)
{
    struct strict *s = (struct strict *)io;

    int r = check_list(s, iov, nr_iov, off, err);

    if (r == 0)
        r = io_preadv(s->below, iov, nr_iov, off, err);
    if (s->after_read)
        s->after_read(s);
    return r;
}

static int
strict_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
               uint64_t off, struct qcow2_error *err)
{
    struct strict *s = (struct strict *)io;

    return check_list(s, iov, nr_iov, off, err) == -1
           ? -1 : io_pwritev(s->below, iov, nr_iov, off, err);
}

static int
strict_flush(struct io *io, struct qcow2_error *err)
{
    return io_flush(((struct strict *)io)->below, err);
}

static int
strict_zero(struct io *io, uint64_t off, uint64_t nr_bytes, unsigned flags,
            struct qcow2_error *err)
{
    struct strict *s = (struct strict *)io;

    return check_whole(s, off, nr_bytes, err) == -1
           ? -1 : io_zero(s->below, off, nr_bytes, flags, err);
}

static int
strict_punch(struct io *io, uint64_t off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    struct strict *s = (struct strict *)io;

    return check_whole(s, off, nr_bytes, err) == -1
           ? -1 : io_punch(s->below, off, nr_bytes, err);
}

static int
strict_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    return io_truncate(((struct strict *)io)->below, size, err);
}

static int
strict_set_direct(struct io *io, struct io_blocks *blocks,
                  struct qcow2_error *err)
{
    struct strict *s = (struct strict *)io;

    (void)err;
    s->memory = 1024;
    *blocks = (struct io_blocks){ s->block, s->memory };
    return 0;
}

static int
strict_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    return io_get_size(((struct strict *)io)->below, size, err);
}

static int
strict_extent(struct io *io, uint64_t off, uint64_t *len, bool *is_hole,
              struct qcow2_error *err)
{
    struct strict *s = (struct strict *)io;

    if (check_whole(s, off, *len, err) == -1
        || io_extent(s->below, off, len, is_hole, err) == -1)
        return -1;
    if (s->answer_bytes)
        *len = s->answer_bytes;
    return 0;
}

static void
strict_close(struct io *io)
{
    io_close(((struct strict *)io)->below);
    free(io);
}

static const struct io_ops strict_ops = {
    .close = strict_close,
    .preadv = strict_preadv,
    .pwritev = strict_pwritev,
    .flush = strict_flush,
    .zero = strict_zero,
    .punch = strict_punch,
    .truncate = strict_truncate,
    .get_size = strict_get_size,
    .set_direct = strict_set_direct,
    .extent = strict_extent,
};

struct scene {
    struct mem *mem;
    struct strict *strict;
    struct io *io;
};

static struct scene
begin_as(uint32_t block, bool jitter, bool direct)
{
    struct scene s = { .mem = mem_new(NULL, SIZE) };
    struct io *io = io_mem_open(s.mem, false);
    struct qcow2_error err;

    s.strict = calloc(1, sizeof *s.strict);
    s.strict->plan = (struct fault_plan)FAULT_PLAN_INIT;
    io = io_fault_new(io, &s.strict->plan);
    s.strict->below = jitter ? io_jitter_new(io) : io;
    s.strict->block = block;
    s.strict->io = *io;
    s.strict->io.ops = &strict_ops;
    s.io = direct ? io_align_direct(&s.strict->io, &err)
                  : io_align_new(&s.strict->io, block, &err);
    assert_non_null(s.io);
    return s;
}

static struct scene
begin(uint32_t block, bool jitter)
{
    return begin_as(block, jitter, false);
}

static void
end(struct scene *s)
{
    io_close(s->io);
    mem_free(s->mem);
}

static uint64_t
count(struct scene *s, unsigned kinds)
{
    return fault_count(&s->strict->plan, kinds);
}

/* Requests of several buffers. */

static int
cut_list(unsigned char *buf, uint64_t nr_bytes, struct rng *rng,
    struct iovec iov[3])
{
    uint64_t a = rng_below(rng, nr_bytes + 1);
    uint64_t b = a + rng_below(rng, nr_bytes - a + 1);

    iov[0] = (struct iovec){ buf, a };
    iov[1] = (struct iovec){ buf + a, b - a };
    iov[2] = (struct iovec){ buf + b, nr_bytes - b };
    return 3;
}

static void
change_both(struct scene *s, unsigned char *model, struct rng *rng, int step)
{
    uint64_t off = rng_below(rng, SIZE);
    uint64_t longest = rng_below(rng, 3) ? 3 * BLOCK : SIZE;
    uint64_t n = 1 + rng_below(rng, longest);
    unsigned char *buf = malloc(SIZE);
    struct qcow2_error err;
    struct iovec iov[3];

    if (rng_below(rng, 3) == 0)
        off -= off % s->strict->block;
    n = n > SIZE - off ? SIZE - off : n;
    memset(buf, 1 + step % 250, n);
    expect_step("%d: %llu bytes at %llu", step, (unsigned long long)n,
                (unsigned long long)off);
    if (rng_below(rng, 4) == 0) {
        EXPECT_OK(io_zero(s->io, off, n, 0, &err), &err);
        memset(model + off, 0, n);
    } else {
        EXPECT_OK(io_pwritev(s->io, iov, cut_list(buf, n, rng, iov), off, &err),
                  &err);
        memcpy(model + off, buf, n);
    }
    memset(buf, 0xff, SIZE);
    off = rng_below(rng, SIZE);
    n = 1 + rng_below(rng, SIZE - off);
    EXPECT_OK(io_preadv(s->io, iov, cut_list(buf, n, rng, iov), off, &err),
              &err);
    expect_same("read", buf, model + off, n, off);
    free(buf);
}

static void
any_bytes_are_read_and_written(void **state)
{
    static const uint32_t blocks[] = { 1, 512, 4096, 65536 };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct scene s = begin(blocks[i], false);
        unsigned char *model = calloc(1, SIZE);
        uint64_t nr_bytes;
        struct rng rng;

        expect_case("blocks of %u", blocks[i]);
        rng_init(&rng, 11, i);
        for (int step = 0; step < 300; step++)
            change_both(&s, model, &rng, step);
        expect_same("file", mem_bytes(s.mem, &nr_bytes), model, SIZE, 0);
        EXPECT(nr_bytes == SIZE, "%llu", (unsigned long long)nr_bytes);
        free(model);
        end(&s);
    }
}

/* The backend refuses buffers that the kernel would. */
static void
buffers_of_direct_requests_are_aligned(void **state)
{
    struct scene s = begin_as(BLOCK, false, true);
    unsigned char *model = calloc(1, SIZE);
    void *buf = NULL;
    struct rng rng;

    (void)state;
    rng_init(&rng, 12, 0);
    for (int step = 0; step < 200; step++)
        change_both(&s, model, &rng, step);
    assert_int_equal(posix_memalign(&buf, 2 * BLOCK, 2 * BLOCK), 0);
    for (int shift = 1; shift <= BLOCK; shift *= 2) {
        unsigned char *at = (unsigned char *)buf + shift;

        memset(at, shift, BLOCK);
        assert_int_equal(io_pwrite(s.io, at, BLOCK, 0, NULL), 0);
        memset(at, 0, BLOCK);
        assert_int_equal(io_pread(s.io, at, BLOCK, 0, NULL), 0);
        assert_int_equal(at[BLOCK - 1], (unsigned char)shift);
    }
    free(buf);
    free(model);
    end(&s);
}

/* A raw disk of 5 sectors, in blocks of 8: it is no longer afterwards. */
static void
a_file_that_keeps_its_size_does_not_grow(void **state)
{
    enum { ODD = 5 * 512 };
    struct scene s = begin(BLOCK, false);
    unsigned char buf[ODD];
    uint64_t size;

    (void)state;
    assert_int_equal(io_truncate(s.io, BLOCK + ODD, NULL), 0);
    s.io->keeps_size = true;
    memset(buf, 'x', sizeof buf);
    assert_int_equal(io_pwrite(s.io, buf, ODD, BLOCK, NULL), 0);
    assert_int_equal(io_zero(s.io, BLOCK + 1024, ODD - 1024, 0, NULL), 0);
    assert_int_equal(io_get_size(s.io, &size, NULL), 0);
    assert_int_equal(size, BLOCK + ODD);
    assert_int_equal(io_pread(s.io, buf, ODD, BLOCK, NULL), 0);
    for (int i = 0; i < ODD; i++)
        assert_int_equal(buf[i], i < 1024 ? 'x' : 0);
    end(&s);
}

static void
blocks_of_a_byte_need_nothing(void **state)
{
    struct mem *m = mem_new(NULL, SIZE);
    struct io *io = io_mem_open(m, false);

    (void)state;
    assert_ptr_equal(io_align_new(io, 1, NULL), io);
    io_close(io);
    mem_free(m);
}

/* More than is copied at once, with both ends inside blocks. */
static void
long_requests_keep_what_is_around_them(void **state)
{
    enum { LONG = (2 << 20) + 3 * BLOCK };
    struct mem *m = mem_new(NULL, 2 * LONG);
    struct scene s = begin(BLOCK, false);
    unsigned char *buf = malloc(LONG), *got = malloc(LONG + 2);
    struct qcow2_error err;

    (void)state;
    end(&s);
    s.io = io_align_new(io_mem_open(m, false), BLOCK, &err);
    memset(buf, 'x', LONG);
    EXPECT_OK(io_pwrite(s.io, "ab", 2, 99, &err), &err);
    EXPECT_OK(io_pwrite(s.io, "cd", 2, 100 + LONG, &err), &err);
    EXPECT_OK(io_pwrite(s.io, buf, LONG, 100, &err), &err);
    EXPECT_OK(io_pread(s.io, got, LONG + 2, 99, &err), &err);
    assert_int_equal(got[0], 'a');
    expect_same("middle", got + 1, buf, LONG, 100);
    assert_int_equal(got[LONG + 1], 'c');
    io_close(s.io);
    free(buf);
    free(got);
    mem_free(m);
}

/* Requests cost time where a server answers them. */
static void
few_requests_are_made(void **state)
{
    struct scene s = begin(BLOCK, false);
    unsigned char buf[4 * BLOCK] = { 1 };
    struct iovec list[] = { { buf, 100 }, { buf, BLOCK }, { buf, 3996 } };

    (void)state;
    assert_int_equal(io_pwritev(s.io, list, 3, 0, NULL), 0);
    assert_int_equal(count(&s, FAULT_READ), 0);
    assert_int_equal(count(&s, FAULT_WRITE), 1);
    assert_int_equal(io_preadv(s.io, list, 3, 0, NULL), 0);
    assert_int_equal(count(&s, FAULT_READ), 1);
    assert_int_equal(io_pwrite(s.io, buf, 2 * BLOCK, 100, NULL), 0);
    assert_int_equal(count(&s, FAULT_READ), 2);
    assert_int_equal(count(&s, FAULT_WRITE), 2);
    assert_int_equal(io_zero(s.io, 100, 4 * BLOCK, 0, NULL), 0);
    assert_int_equal(count(&s, FAULT_ZERO), 1);
    assert_int_equal(count(&s, FAULT_WRITE), 4);
    end(&s);
}

static void
whole_blocks_alone_are_punched_and_zeroed_fast(void **state)
{
    struct scene s = begin(BLOCK, false);
    struct qcow2_error err;
    char byte = 'x';

    (void)state;
    assert_int_equal(io_pwrite(s.io, &byte, 1, BLOCK, NULL), 0);
    assert_int_equal(io_punch(s.io, BLOCK, BLOCK - 1, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    assert_int_equal(io_zero(s.io, BLOCK, 1, IO_ZERO_FAST, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    assert_int_equal(io_pread(s.io, &byte, 1, BLOCK, NULL), 0);
    assert_int_equal(byte, 'x');
    assert_int_equal(count(&s, FAULT_CHANGE), 1);
    assert_int_equal(io_punch(s.io, BLOCK, BLOCK, NULL), 0);
    assert_int_equal(io_pread(s.io, &byte, 1, BLOCK, NULL), 0);
    assert_int_equal(byte, 0);
    end(&s);
}

static void
bytes_past_the_end_read_as_zeroes(void **state)
{
    struct scene s = begin(BLOCK, false);
    unsigned char buf[300];

    (void)state;
    memset(buf, 'x', sizeof buf);
    assert_int_equal(io_pwrite(s.io, buf, 100, SIZE - 100, NULL), 0);
    assert_int_equal(io_pread(s.io, buf, 300, SIZE - 100, NULL), 0);
    for (int i = 0; i < 300; i++)
        assert_int_equal(buf[i], i < 100 ? 'x' : 0);
    end(&s);
}

static void
extents_are_asked_for_in_whole_blocks(void **state)
{
    struct scene s = begin(BLOCK, false);
    uint64_t len = SIZE - 2 * BLOCK;
    bool is_hole;

    (void)state;
    assert_int_equal(io_pwrite(s.io, "x", 1, 2 * BLOCK, NULL), 0);
    assert_int_equal(io_extent(s.io, 10, &len, &is_hole, NULL), 0);
    assert_true(is_hole);
    assert_int_equal(len, 2 * BLOCK - 10);
    len = 7;
    assert_int_equal(io_extent(s.io, 2 * BLOCK + 10, &len, &is_hole, NULL),
                     0);
    assert_false(is_hole);
    assert_int_equal(len, 7);
    /* An answer that ends before what was asked for says nothing of it. */
    s.strict->answer_bytes = 5;
    len = 100;
    assert_int_equal(io_extent(s.io, 10, &len, &is_hole, NULL), 0);
    assert_false(is_hole);
    assert_in_range(len, 1, 100);
    end(&s);
}

/* Each way in which a request can fail below is reported. */
static void
what_fails_below_fails(void **state)
{
    struct scene s = begin(BLOCK, false);
    struct qcow2_error err;
    char buf[BLOCK] = { 0 };

    (void)state;
    fault_arm(&s.strict->plan, FAULT_READ, 1, EIO, FAULT_ONCE);
    assert_int_equal(io_pwrite(s.io, buf, 1, 5, &err), -1);
    assert_int_equal(err.errnum, EIO);
    assert_int_equal(count(&s, FAULT_WRITE), 0);
    fault_arm(&s.strict->plan, FAULT_WRITE, 1, ENOSPC, FAULT_ONCE);
    assert_int_equal(io_pwrite(s.io, buf, 1, 5, &err), -1);
    assert_int_equal(err.errnum, ENOSPC);
    fault_arm(&s.strict->plan, FAULT_ZERO, 1, EIO, FAULT_ONCE);
    assert_int_equal(io_zero(s.io, 5, 3 * BLOCK, 0, &err), -1);
    fault_arm(&s.strict->plan, FAULT_FLUSH, 1, EIO, FAULT_ONCE);
    assert_int_equal(io_flush(s.io, &err), -1);
    assert_true(io_flush_has_failed(s.io));
    assert_false(io_is_lost(s.io));
    s.strict->io.lost = true;
    assert_true(io_is_lost(s.io));
    end(&s);
}

/* Threads that share blocks. */

enum { NR_WRITERS = 4, NR_ROUNDS = 200 };

struct writer {
    struct io *io;
    unsigned me, nr_lost;
};

/* Each has bytes of its own in a block, which the others leave alone. */
static void *
write_own_bytes(void *opaque)
{
    struct writer *w = opaque;
    uint64_t off = w->me * 1000;

    for (int i = 1; i <= NR_ROUNDS; i++) {
        unsigned char byte = i, got;

        w->nr_lost += io_pwrite(w->io, &byte, 1, off, NULL) == -1
                      || io_pread(w->io, &got, 1, off, NULL) == -1
                      || got != byte;
    }
    return NULL;
}

static void
parts_of_a_block_do_not_undo_each_other(void **state)
{
    struct scene s = begin(BLOCK, true);
    struct writer w[NR_WRITERS];
    pthread_t threads[NR_WRITERS];

    (void)state;
    for (unsigned i = 0; i < NR_WRITERS; i++) {
        w[i] = (struct writer){ .io = s.io, .me = i };
        pthread_create(&threads[i], NULL, write_own_bytes, &w[i]);
    }
    for (int i = 0; i < NR_WRITERS; i++) {
        pthread_join(threads[i], NULL);
        EXPECT(w[i].nr_lost == 0, "%u of thread %d", w[i].nr_lost, i);
    }
    end(&s);
}

static void *
write_whole_block(void *opaque)
{
    struct writer *w = opaque;
    unsigned char block[BLOCK], got;

    for (int i = 1; i <= NR_ROUNDS; i++) {
        memset(block, i, BLOCK);
        w->nr_lost += io_pwrite(w->io, block, BLOCK, 0, NULL) == -1
                      || io_pread(w->io, &got, 1, BLOCK - 1, NULL) == -1
                      || got != block[0];
    }
    return NULL;
}

static void *
zero_whole_block(void *opaque)
{
    struct writer *w = opaque;
    unsigned char block[BLOCK], got;

    memset(block, 'x', BLOCK);
    for (int i = 1; i <= NR_ROUNDS; i++) {
        w->nr_lost += io_pwrite(w->io, block, BLOCK, 0, NULL) == -1
                      || io_zero(w->io, 0, BLOCK, 0, NULL) == -1
                      || io_pread(w->io, &got, 1, BLOCK - 1, NULL) == -1
                      || got != 0;
    }
    return NULL;
}

static void
whole_blocks_are_not_undone_by_parts(void **state)
{
    static void *(*const changes[])(void *) = { write_whole_block,
                                                zero_whole_block };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct scene s = begin(BLOCK, true);
        struct writer whole = { .io = s.io }, part = { .io = s.io };
        pthread_t threads[2];

        pthread_create(&threads[0], NULL, changes[i], &whole);
        pthread_create(&threads[1], NULL, write_own_bytes, &part);
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
        EXPECT(whole.nr_lost == 0, "%u of change %d", whole.nr_lost, i);
        end(&s);
    }
}

static void *
cut(void *opaque)
{
    struct scene *s = opaque;

    assert_int_equal(io_truncate(s->io, 1000, NULL), 0);
    return NULL;
}

/* A merge has read the block: now the file is cut, if nothing prevents it.
 * The yields let it come so far where nothing does. */
static void
cut_after_read(struct strict *s)
{
    s->after_read = NULL;
    pthread_create(&s->thread, NULL, cut, s->scene);
    for (int i = 0; i < 10000 && fault_count(&s->plan, FAULT_TRUNCATE) == 0;
         i++)
        sched_yield();
}

/* Whoever cuts a file relies on zeroes past the new end. */
static void
a_cut_inside_a_block_is_not_undone_by_parts(void **state)
{
    struct scene s = begin(BLOCK, false);
    unsigned char block[BLOCK];

    (void)state;
    memset(block, 'x', BLOCK);
    assert_int_equal(io_pwrite(s.io, block, BLOCK, 0, NULL), 0);
    s.strict->scene = &s;
    s.strict->after_read = cut_after_read;
    assert_int_equal(io_pwrite(s.io, "y", 1, 10, NULL), 0);
    pthread_join(s.strict->thread, NULL);
    assert_int_equal(io_pread(s.io, block, BLOCK, 0, NULL), 0);
    assert_int_equal(block[10], 'y');
    assert_int_equal(block[999], 'x');
    for (int i = 1000; i < BLOCK; i++)
        EXPECT(block[i] == 0, "byte %d is back", i);
    end(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_bytes_are_read_and_written),
        cmocka_unit_test(buffers_of_direct_requests_are_aligned),
        cmocka_unit_test(a_file_that_keeps_its_size_does_not_grow),
        cmocka_unit_test(blocks_of_a_byte_need_nothing),
        cmocka_unit_test(long_requests_keep_what_is_around_them),
        cmocka_unit_test(few_requests_are_made),
        cmocka_unit_test(whole_blocks_alone_are_punched_and_zeroed_fast),
        cmocka_unit_test(bytes_past_the_end_read_as_zeroes),
        cmocka_unit_test(extents_are_asked_for_in_whole_blocks),
        cmocka_unit_test(what_fails_below_fails),
        cmocka_unit_test(parts_of_a_block_do_not_undo_each_other),
        cmocka_unit_test(whole_blocks_are_not_undone_by_parts),
        cmocka_unit_test(a_cut_inside_a_block_is_not_undone_by_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
