/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io.c: flushes that have nothing to do (io.c). */
#include "expect.h"
#include "storage/io.h"

/* A backend in which somebody else flushes while a change is made. */
struct meddled {
    struct io io;
    bool flushes; /* as said */
    unsigned nr_flushes;
};

static int
meddle(struct io *io, struct qcow2_error *err)
{
    return ((struct meddled *)io)->flushes ? io_flush(io, err) : 0;
}

static int
meddled_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
                uint64_t host_off, struct qcow2_error *err)
{
    (void)iov, (void)nr_iov, (void)host_off;
    return meddle(io, err);
}

static int
meddled_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
             unsigned flags, struct qcow2_error *err)
{
    (void)host_off, (void)nr_bytes, (void)flags;
    return meddle(io, err);
}

static int
meddled_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
              struct qcow2_error *err)
{
    (void)host_off, (void)nr_bytes;
    return meddle(io, err);
}

static int
meddled_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    (void)size;
    return meddle(io, err);
}

static int
meddled_flush(struct io *io, struct qcow2_error *err)
{
    (void)err;
    ((struct meddled *)io)->nr_flushes++;
    return 0;
}

static const struct io_ops meddled_ops = {
    .pwritev = meddled_pwritev, .zero = meddled_zero,
    .punch = meddled_punch, .truncate = meddled_truncate,
    .flush = meddled_flush,
};

static int
change(struct io *io, unsigned which)
{
    switch (which) {
    case 0:
        return io_pwrite(io, "x", 1, 0, NULL);
    case 1:
        return io_zero(io, 0, 512, 0, NULL);
    case 2:
        return io_punch(io, 0, 512, NULL);
    case 3:
        return io_truncate(io, 512, NULL);
    }
    return -1;
}
enum { NR_CHANGES = 4 };

static void
what_was_in_flight_when_a_flush_ended_needs_another(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * NR_CHANGES; i++) {
        struct meddled m = { .io.ops = &meddled_ops, .flushes = i % 2 };

        expect_case("change %u, flushed meanwhile %u", i / 2, i % 2);
        assert_int_equal(io_flush(&m.io, NULL), 0);
        assert_int_equal(change(&m.io, i / 2), 0);
        m.nr_flushes = 0;
        assert_int_equal(io_flush(&m.io, NULL), 0);
        EXPECT(m.nr_flushes == 1, "it is taken for durable");
        assert_int_equal(io_flush(&m.io, NULL), 0);
        EXPECT(m.nr_flushes == 1, "a flush for nothing");
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_in_flight_when_a_flush_ended_needs_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
