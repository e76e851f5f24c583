/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-file-short.c: what becomes of reads and writes of which the kernel
 * does only a part. The linker sends calls of preadv and pwritev here
 * (--wrap).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "expect.h"
#include "rng.h"
#include "storage/io.h"
#include "tmpdir.h"

enum { NR_BYTES = 5000 };

/* At most so many bytes a call; after so many calls the errno, if any. */
static size_t portion;
static unsigned calls_left;
static int then;

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int nr, off_t off);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int nr, off_t off);

/* What they are called where off_t had 32 bits once. */
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int nr, off_t off)
    __attribute__((alias("__wrap_preadv")));
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int nr, off_t off)
    __attribute__((alias("__wrap_pwritev")));

/* How much of the first vector; a call is interrupted between two others. */
static ssize_t
next_portion(const struct iovec *iov)
{
    static bool interrupted;

    interrupted = !interrupted;
    errno = EINTR;
    if (interrupted)
        return -1;
    errno = then;
    if (then && calls_left-- == 0)
        return -1;
    return iov->iov_len < portion ? iov->iov_len : portion;
}

ssize_t
__wrap_preadv(int fd, const struct iovec *iov, int nr, off_t off)
{
    ssize_t n = next_portion(iov);

    (void)nr;
    return n < 0 ? n : pread(fd, iov->iov_base, n, off);
}

ssize_t
__wrap_pwritev(int fd, const struct iovec *iov, int nr, off_t off)
{
    ssize_t n = next_portion(iov);

    (void)nr;
    return n < 0 ? n : pwrite(fd, iov->iov_base, n, off);
}

static struct io *
open_file(size_t bytes_a_call, unsigned nr_calls, int errnum)
{
    struct qcow2_error err;
    struct io *io;

    tmpdir_write_file(tmpdir_path("file"), "", 0);
    portion = bytes_a_call;
    calls_left = nr_calls;
    then = errnum;
    io = io_file_open(tmpdir_path("file"), -1, false, IO_LOCK_NONE, &err);
    EXPECT(io, "%s", err.text);
    return io;
}

static void
they_are_continued(void **state)
{
    static const size_t portions[] = { 1, 511, 3000 };
    unsigned char want[NR_BYTES], got[NR_BYTES];
    struct iovec w[2] = { { want, 700 }, { want + 700, NR_BYTES - 700 } };
    struct iovec r[2] = { { got, 1234 }, { got + 1234, NR_BYTES - 1234 } };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct io *io = open_file(portions[i], 0, 0);
        struct qcow2_error err;
        unsigned char *bytes;
        size_t nr_bytes;

        expect_case("%zu bytes a call", portions[i]);
        pattern_fill(want, NR_BYTES, 5 + i, 0);
        EXPECT_OK(io_pwritev(io, w, 2, 0, &err), &err);
        EXPECT_OK(io_preadv(io, r, 2, 0, &err), &err);
        expect_same("read", got, want, NR_BYTES, 0);
        io_close(io);
        bytes = tmpdir_read_file(tmpdir_path("file"), &nr_bytes);
        assert_int_equal(nr_bytes, NR_BYTES);
        expect_same("file", bytes, want, NR_BYTES, 0);
        free(bytes);
    }
}

static void
what_fails_after_a_part_has_failed(void **state)
{
    static const int errors[] = { EIO, ENOSPC };
    unsigned char buf[NR_BYTES];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        int errnum = errors[i % 2];
        struct io *io = open_file(512, 2, errnum);
        struct qcow2_error err;
        int r;

        expect_case("errno %d, %s", errnum, i < 2 ? "write" : "read");
        if (i >= 2)
            EXPECT_OK(io_truncate(io, NR_BYTES, &err), &err);
        pattern_fill(buf, NR_BYTES, 9, 0);
        r = i < 2 ? io_pwrite(io, buf, NR_BYTES, 0, &err)
                  : io_pread(io, buf, NR_BYTES, 0, &err);
        EXPECT(r == -1 && err.errnum == errnum, "returned %d, errno %d: %s",
               r, err.errnum, err.text);
        io_close(io);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_continued),
        cmocka_unit_test(what_fails_after_a_part_has_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
