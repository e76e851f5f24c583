/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-file.c: files as backends. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "expect.h"
#include "rng.h"
#include "storage/io.h"
#include "tmpdir.h"

static struct io *
open_file(const char *path, bool readonly)
{
    struct qcow2_error err;
    struct io *io = io_file_open(path, -1, readonly, IO_LOCK_NONE, &err);

    EXPECT(io, "%s", err.text);
    return io;
}

/* A file of nr_bytes of pattern 1. */
static struct io *
open_pattern(size_t nr_bytes)
{
    const char *path = tmpdir_path("file");
    unsigned char *buf = malloc(nr_bytes);

    pattern_fill(buf, nr_bytes, 1, 0);
    tmpdir_write_file(path, buf, nr_bytes);
    free(buf);
    return open_file(path, false);
}

static uint64_t
size_of(struct io *io)
{
    struct qcow2_error err;
    uint64_t size;

    EXPECT_OK(io_get_size(io, &size, &err), &err);
    return size;
}

/* [off, off + nr_bytes) holds pattern `seed` (0: zeroes). */
static void
expect_pattern(struct io *io, uint64_t off, size_t nr_bytes, uint64_t seed)
{
    struct qcow2_error err;
    unsigned char *got = malloc(nr_bytes), *want = malloc(nr_bytes);

    memset(got, 0xee, nr_bytes);
    EXPECT_OK(io_pread(io, got, nr_bytes, off, &err), &err);
    pattern_fill(want, nr_bytes, seed, off);
    expect_same("read", got, want, nr_bytes, off);
    free(got);
    free(want);
}

static void
write_pattern(struct io *io, uint64_t off, size_t nr_bytes, uint64_t seed)
{
    struct qcow2_error err;
    unsigned char *buf = malloc(nr_bytes);

    pattern_fill(buf, nr_bytes, seed, off);
    EXPECT_OK(io_pwrite(io, buf, nr_bytes, off, &err), &err);
    free(buf);
}

static void
what_is_written_is_read(void **state)
{
    struct io *io = open_pattern(10000);
    struct qcow2_error err;

    (void)state;
    expect_pattern(io, 0, 10000, 1);
    write_pattern(io, 777, 3000, 2);
    expect_pattern(io, 0, 777, 1);
    expect_pattern(io, 777, 3000, 2);
    expect_pattern(io, 3777, 6223, 1);
    EXPECT_OK(io_flush(io, &err), &err);
    assert_int_equal(size_of(io), 10000);
    io_close(io);
}

static void
bytes_past_the_end_read_as_zeroes(void **state)
{
    struct io *io = open_pattern(1000);

    (void)state;
    expect_pattern(io, 1000, 5000, 0);
    expect_pattern(io, UINT64_C(1) << 40, 5000, 0);
    expect_pattern(io, 900, 100, 1);
    assert_true(io->reads_zero_past_end);

    struct iovec iov[3];
    unsigned char buf[300];
    struct qcow2_error err;

    memset(buf, 0xee, sizeof buf);
    for (int i = 0; i < 3; i++)
        iov[i] = (struct iovec){ buf + 100 * i, 100 };
    EXPECT_OK(io_preadv(io, iov, 3, 850, &err), &err);
    for (int i = 150; i < 300; i++)
        assert_int_equal(buf[i], 0);
    assert_int_not_equal(buf[149], 0xee);
    io_close(io);
}

/* More than io-behind.h waits for, and on a file that has no end yet. */
static void
much_that_is_written_is_there_after_a_flush(void **state)
{
    struct qcow2_error err;
    struct io *io = open_pattern(0);

    (void)state;
    for (uint64_t off = 0; off < 40 << 20; off += 1 << 20)
        write_pattern(io, off, 1 << 20, 2);
    EXPECT_OK(io_flush(io, &err), &err);
    expect_pattern(io, 0, 40 << 20, 2);
    io_close(io);
}

static void
vectors_are_filled_in_order(void **state)
{
    struct io *io = open_pattern(0);
    unsigned char out[16 * 17], in[16 * 17];
    struct iovec iov[IO_MAX_IOV];
    struct qcow2_error err;

    (void)state;
    pattern_fill(out, sizeof out, 3, 0);
    for (int i = 0; i < IO_MAX_IOV; i++)
        iov[i] = (struct iovec){ out + 17 * i, 17 };
    EXPECT_OK(io_pwritev(io, iov, IO_MAX_IOV, 5, &err), &err);
    for (int i = 0; i < IO_MAX_IOV; i++)
        iov[i].iov_base = in + 17 * i;
    EXPECT_OK(io_preadv(io, iov, IO_MAX_IOV, 5, &err), &err);
    expect_same("vectors", in, out, sizeof in, 5);
    io_close(io);
}

static void
nothing_to_do_is_no_error(void **state)
{
    struct io *io = open_pattern(10);
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(io_pread(io, NULL, 0, UINT64_MAX, &err), &err);
    EXPECT_OK(io_pwrite(io, NULL, 0, UINT64_MAX, &err), &err);
    EXPECT_OK(io_zero(io, UINT64_MAX, 0, 0, &err), &err);
    EXPECT_OK(io_punch(io, UINT64_MAX, 0, &err), &err);
    io_prefetch(io, 0, 0);
    io_prefetch(io, 0, 10);
    assert_int_equal(size_of(io), 10);
    io_close(io);
    io_close(NULL);
}

static void
offsets_that_no_file_has_are_errors(void **state)
{
    struct io *io = open_pattern(10);
    struct qcow2_error err;
    uint64_t len = 10;
    bool is_hole;
    char c;

    (void)state;
    assert_int_equal(io_pread(io, &c, 1, INT64_MAX, &err), -1);
    assert_int_equal(err.errnum, EFBIG);
    assert_int_equal(io_pwrite(io, &c, 1, UINT64_MAX, &err), -1);
    assert_int_equal(io_zero(io, 1, UINT64_MAX, 0, &err), -1);
    assert_int_equal(io_punch(io, UINT64_MAX, 2, &err), -1);
    assert_int_equal(io_truncate(io, UINT64_MAX, &err), -1);
    assert_int_equal(io_extent(io, UINT64_MAX, &len, &is_hole, &err), -1);
    io_prefetch(io, UINT64_MAX, 10);
    io_close(io);
}

static void
zeroing_changes_the_range_alone(void **state)
{
    static const unsigned flags[] = { 0, IO_ZERO_PUNCH };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct io *io = open_pattern(300000);
        struct qcow2_error err;

        EXPECT_OK(io_zero(io, 5000, 250001, flags[i], &err), &err);
        expect_pattern(io, 0, 5000, 1);
        expect_pattern(io, 5000, 250001, 0);
        expect_pattern(io, 255001, 44999, 1);
        assert_int_equal(size_of(io), 300000);
        io_close(io);
    }
}

static void
zeroing_grows_a_file(void **state)
{
    static const unsigned flags[] = { 0, IO_ZERO_PUNCH, IO_ZERO_FAST };

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct io *io = open_pattern(10000);
        struct qcow2_error err;

        if (flags[i] != IO_ZERO_FAST) {
            EXPECT_OK(io_zero(io, 9000, 5000, flags[i], &err), &err);
            assert_int_equal(size_of(io), 14000);
            expect_pattern(io, 0, 9000, 1);
        }
        EXPECT_OK(io_zero(io, 20000, 5000, flags[i], &err), &err);
        assert_int_equal(size_of(io), 25000);
        expect_pattern(io, 14000, 11000, 0);
        io_close(io);
    }
}

/* Threads append past each other's ends; nobody cuts off a neighbour. */
enum { NR_THREADS = 4, NR_PIECES = 100, PIECE = 1000 };

struct appender {
    struct io *io;
    unsigned next_thread, next_piece;
    unsigned nr_failed;
};

static void *
append_pieces(void *opaque)
{
    struct appender *a = opaque;
    unsigned me = __atomic_fetch_add(&a->next_thread, 1, __ATOMIC_RELAXED);

    for (;;) {
        uint64_t piece = __atomic_fetch_add(&a->next_piece, 1,
                                            __ATOMIC_RELAXED);
        unsigned char buf[PIECE];
        int r;

        if (piece >= NR_PIECES)
            return NULL;
        pattern_fill(buf, PIECE, 7, piece * PIECE);
        if (me % 2)
            r = io_zero(a->io, piece * PIECE, PIECE, IO_ZERO_PUNCH, NULL);
        else
            r = io_pwrite(a->io, buf, PIECE, piece * PIECE, NULL);
        if (r < 0)
            __atomic_fetch_add(&a->nr_failed, 1, __ATOMIC_RELAXED);
    }
}

static void
growing_in_many_threads_loses_nothing(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct appender a = { .io = open_pattern(0) };
        pthread_t threads[NR_THREADS];

        for (int i = 0; i < NR_THREADS; i++)
            pthread_create(&threads[i], NULL, append_pieces, &a);
        for (int i = 0; i < NR_THREADS; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(a.nr_failed, 0);
        assert_int_equal(size_of(a.io), NR_PIECES * PIECE);
        for (uint64_t piece = 0; piece < NR_PIECES; piece++) {
            unsigned char got[PIECE], want[PIECE], zero[PIECE] = { 0 };

            io_pread(a.io, got, PIECE, piece * PIECE, NULL);
            pattern_fill(want, PIECE, 7, piece * PIECE);
            assert_true(memcmp(got, want, PIECE) == 0
                        || memcmp(got, zero, PIECE) == 0);
        }
        io_close(a.io);
    }
}

static void
punching_gives_space_back_and_keeps_the_size(void **state)
{
    struct io *io = open_pattern(1 << 20);
    struct qcow2_error err;
    uint64_t before, after, len;
    bool is_hole;

    (void)state;
    EXPECT_OK(io_flush(io, &err), &err);
    EXPECT_OK(io_get_allocated(io, &before, &err), &err);
    if (io_punch(io, 65536, 1 << 20, &err) < 0) {
        assert_int_equal(err.errnum, ENOTSUP);
        /* Asked once, known for good. */
        assert_int_equal(io_punch(io, 65536, 1 << 20, &err), -1);
        io_close(io);
        skip();
    }
    assert_int_equal(size_of(io), 1 << 20);
    expect_pattern(io, 0, 65536, 1);
    expect_pattern(io, 65536, (1 << 20) - 65536, 0);
    EXPECT_OK(io_get_allocated(io, &after, &err), &err);
    assert_true(after < before);

    len = 1 << 21;
    EXPECT_OK(io_extent(io, 100, &len, &is_hole, &err), &err);
    assert_false(is_hole);
    assert_int_equal(len, 65536 - 100);
    len = 4096;
    EXPECT_OK(io_extent(io, 65536, &len, &is_hole, &err), &err);
    assert_true(is_hole);
    assert_int_equal(len, 4096);
    len = 1 << 21;
    EXPECT_OK(io_extent(io, 70000, &len, &is_hole, &err), &err);
    assert_true(is_hole);
    EXPECT_OK(io_extent(io, 1 << 22, &len, &is_hole, &err), &err);
    assert_true(is_hole);
    write_pattern(io, 1 << 19, 4096, 1);
    len = 1 << 21;
    EXPECT_OK(io_extent(io, 65536, &len, &is_hole, &err), &err);
    assert_true(is_hole);
    assert_true(len > 0 && len <= (1 << 19) - 65536);
    io_close(io);
}

static bool
is_hole_at(struct io *io, uint64_t host_off)
{
    struct qcow2_error err;
    uint64_t len = 4096;
    bool is_hole;

    EXPECT_OK(io_extent(io, host_off, &len, &is_hole, &err), &err);
    assert_int_equal(len, 4096);
    return is_hole;
}

static void
data_that_became_a_hole_are_no_longer_found(void **state)
{
    struct io *io = open_pattern(1 << 20);
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(io_flush(io, &err), &err);
    assert_false(is_hole_at(io, 0)); /* all of it is known from here on */
    assert_false(is_hole_at(io, 1 << 19));
    if (io_punch(io, 1 << 19, 65536, &err) == 0) {
        assert_true(is_hole_at(io, 1 << 19));
        assert_false(is_hole_at(io, 4096));
    }
    assert_false(is_hole_at(io, 3 << 18));
    EXPECT_OK(io_truncate(io, 1 << 18, &err), &err);
    EXPECT_OK(io_truncate(io, 1 << 20, &err), &err);
    assert_false(is_hole_at(io, 4096));
    assert_true(is_hole_at(io, 3 << 18));
    io_close(io);
}

static void
fast_zeroing_works_or_says_so(void **state)
{
    static const unsigned flags[] = { IO_ZERO_FAST,
                                      IO_ZERO_FAST | IO_ZERO_PUNCH };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct io *io = open_pattern(65536);
        struct qcow2_error err;

        if (io_zero(io, 4096, 4096, flags[i], &err) == 0) {
            expect_pattern(io, 4096, 4096, 0);
        } else {
            assert_int_equal(err.errnum, ENOTSUP);
            expect_pattern(io, 4096, 4096, 1);
        }
        io_close(io);
    }
}

static void
truncation_sets_the_size(void **state)
{
    struct io *io = open_pattern(10000);
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(io_truncate(io, 5000, &err), &err);
    assert_int_equal(size_of(io), 5000);
    EXPECT_OK(io_truncate(io, 1 << 20, &err), &err);
    assert_int_equal(size_of(io), 1 << 20);
    expect_pattern(io, 5000, 5000, 0);
    io_close(io);
}

static void
what_is_open_read_only_is_not_changed(void **state)
{
    struct io *io;
    struct qcow2_error err;

    (void)state;
    io_close(open_pattern(1000));
    io = open_file(tmpdir_path("file"), true);
    assert_int_equal(io_pwrite(io, "x", 1, 0, &err), -1);
    assert_int_equal(err.errnum, EROFS);
    assert_int_equal(io_zero(io, 0, 1, 0, &err), -1);
    assert_int_equal(err.errnum, EROFS);
    assert_int_equal(io_punch(io, 0, 1, &err), -1);
    assert_int_equal(err.errnum, EROFS);
    assert_int_equal(io_truncate(io, 0, &err), -1);
    assert_int_equal(err.errnum, EROFS);
    EXPECT_OK(io_flush(io, &err), &err);
    expect_pattern(io, 0, 1000, 1);
    io_close(io);
}

/* The limit cuts one write in two: a part is done, then the error comes. */
static void
a_write_done_in_part_goes_on_until_its_error(void **state)
{
    struct io *io = open_pattern(0);
    struct rlimit old, limit;
    struct qcow2_error err;
    static unsigned char buf[8192];
    int r;

    (void)state;
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    r = io_pwrite(io, buf, sizeof buf, 0, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(r, -1);
    assert_int_equal(err.errnum, EFBIG);
    assert_int_equal(size_of(io), 4096);
    io_close(io);
}

static void
expect_refused(const char *path, int errnum, const char *why)
{
    for (int readonly = 0; readonly <= 1; readonly++) {
        struct qcow2_error err;
        struct io *io = io_file_open(path, -1, readonly, IO_LOCK_READ, &err);

        EXPECT(!io, "%s was opened", path);
        EXPECT(err.errnum == errnum && strstr(err.text, why), "%s (%d)",
               err.text, err.errnum);
    }
}

static void
what_is_neither_file_nor_block_device_is_refused(void **state)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    expect_refused(tmpdir(), EINVAL, "a directory");
    expect_refused("/dev/null", EINVAL, "a character device");
    mkfifo(tmpdir_path("pipe"), 0600);
    expect_refused(tmpdir_path("pipe"), EINVAL, "a pipe");
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s",
             tmpdir_path("socket"));
    assert_int_equal(bind(fd, (void *)&addr, sizeof addr), 0);
    expect_refused(tmpdir_path("socket"), EINVAL, "a socket");
    close(fd);
}

static void
a_missing_file_is_not_created(void **state)
{
    (void)state;
    expect_refused(tmpdir_path("missing"), ENOENT, "missing: cannot open");
    assert_int_equal(access(tmpdir_path("missing"), F_OK), -1);
}

static void
who_may_not_write_is_told_of_read_only(void **state)
{
    struct qcow2_error err;
    int fd = open("/proc/self/exe", O_RDWR | O_CLOEXEC);

    (void)state;
    if (fd != -1) {
        close(fd);
        print_message("skipped: this program's file can be written while it "
                      "runs, in an emulator\n");
        skip();
    }
    /* A running program cannot be written, not even by root. */
    assert_null(io_file_open("/proc/self/exe", -1, false, IO_LOCK_NONE,
                             &err));
    assert_true(err.errnum == ETXTBSY || err.errnum == EACCES);
    assert_int_equal(err.hints, QCOW2_HINT_READONLY);
    io_close(open_file("/proc/self/exe", true));
}

static void
names_in_messages_are_safe_on_a_terminal(void **state)
{
    struct qcow2_error err;

    (void)state;
    assert_null(io_file_open("no\033[2J\nsuch", -1, true, IO_LOCK_NONE,
                             &err));
    assert_null(strpbrk(err.text, "\033\n"));
    assert_non_null(strstr(err.text, "no\\x1b[2J\\x0asuch"));
}

static struct io *
open_fd(int fd, bool readonly, struct qcow2_error *err)
{
    return io_file_open("the descriptor", fd, readonly, IO_LOCK_READ, err);
}

static void
a_descriptor_is_opened_anew(void **state)
{
    struct qcow2_error err;
    struct io *io;
    int fd;

    (void)state;
    io_close(open_pattern(1000));
    fd = open(tmpdir_path("file"), O_RDWR | O_APPEND | O_CLOEXEC);
    unlink(tmpdir_path("file"));
    io = open_fd(fd, false, &err);
    EXPECT(io, "%s", err.text);
    close(fd);
    /* Not where O_APPEND would have put it. */
    write_pattern(io, 0, 100, 2);
    assert_int_equal(size_of(io), 1000);
    expect_pattern(io, 0, 100, 2);
    io_close(io);
}

/* A descriptor may come from somebody who may open what we may not. */
static struct io *
open_fd_without_rights(int flags, struct qcow2_error *err)
{
    struct io *io;
    int fd;

    io_close(open_pattern(1000));
    fd = open(tmpdir_path("file"), flags | O_CLOEXEC);
    chmod(tmpdir_path("file"), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    io = open_fd(fd, (flags & O_ACCMODE) == O_RDONLY, err);
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    unlink(tmpdir_path("file"));
    close(fd);
    return io;
}

static void
a_descriptor_that_cannot_be_opened_anew_is_duplicated(void **state)
{
    struct qcow2_error err;
    struct io *io;

    (void)state;
    io = open_fd_without_rights(O_RDWR, &err);
    EXPECT(io, "%s", err.text);
    write_pattern(io, 0, 100, 2);
    expect_pattern(io, 0, 100, 2);
    io_close(io);

    /* Such a duplicate would write at the end, wherever we say. */
    assert_null(open_fd_without_rights(O_RDWR | O_APPEND, &err));
    assert_int_equal(err.errnum, EINVAL);
    assert_non_null(strstr(err.text, "appending"));
}

/* tmpfs can punch, but not zero a range. */
static void
what_the_file_system_cannot_zero_is_written(void **state)
{
    struct qcow2_error err;
    struct io *io;
    int fd = memfd_create("file", MFD_CLOEXEC);

    (void)state;
    assert_int_not_equal(fd, -1);
    io = open_fd(fd, false, &err);
    EXPECT(io, "%s", err.text);
    close(fd);
    write_pattern(io, 0, 3 << 20, 1);
    for (int i = 0; i < 2; i++) {
        EXPECT_OK(io_zero(io, 1000, 2 << 20, 0, &err), &err);
        expect_pattern(io, 0, 1000, 1);
        expect_pattern(io, 1000, 2 << 20, 0);
        expect_pattern(io, 1000 + (2 << 20), 1000, 1);
    }
    if (io_zero(io, 0, 1000, IO_ZERO_FAST, &err) < 0)
        assert_int_equal(err.errnum, ENOTSUP);
    else
        expect_pattern(io, 0, 1000, 0);
    io_close(io);
}

static void
the_caller_keeps_his_descriptor(void **state)
{
    struct qcow2_error err;
    char c;
    int fd;

    (void)state;
    io_close(open_pattern(1000));
    fd = open(tmpdir_path("file"), O_RDONLY | O_CLOEXEC);
    io_close(open_fd(fd, true, &err));
    assert_int_equal(read(fd, &c, 1), 1);
    close(fd);
}

static void
a_descriptor_gives_no_more_than_it_has(void **state)
{
    struct qcow2_error err;
    int fd;

    (void)state;
    io_close(open_pattern(1000));
    fd = open(tmpdir_path("file"), O_RDONLY | O_CLOEXEC);
    assert_null(open_fd(fd, false, &err));
    assert_int_equal(err.errnum, EACCES);
    assert_int_equal(err.hints, QCOW2_HINT_READONLY);
    close(fd);
    assert_null(open_fd(fd, true, &err));
    assert_int_equal(err.errnum, EBADF);

    fd = open(tmpdir_path("file"), O_WRONLY | O_CLOEXEC);
    assert_null(open_fd(fd, false, &err));
    assert_int_equal(err.errnum, EACCES);
    close(fd);
}

static void
creation_makes_an_empty_file(void **state)
{
    const char *path = tmpdir_path("new");
    struct qcow2_error err;
    struct io *io = tmpdir_create_io(path, false, &err);

    (void)state;
    EXPECT(io, "%s", err.text);
    assert_int_equal(size_of(io), 0);
    write_pattern(io, 0, 100, 1);
    io_close(io);
    assert_null(tmpdir_create_io(path, false, &err));
    assert_int_equal(err.errnum, EEXIST);
    io = open_file(path, true);
    expect_pattern(io, 0, 100, 1);
    io_close(io);

    io = tmpdir_create_io(path, true, &err);
    EXPECT(io, "%s", err.text);
    assert_int_equal(size_of(io), 0);
    io_close(io);
}

static void
creation_leaves_alone_what_is_in_use(void **state)
{
    struct qcow2_error err;
    struct io *user;

    (void)state;
    io_close(open_pattern(1000));
    user = io_file_open(tmpdir_path("file"), -1, true, IO_LOCK_READ, &err);
    EXPECT(user, "%s", err.text);
    assert_null(tmpdir_create_io(tmpdir_path("file"), true, &err));
    assert_int_equal(err.errnum, EBUSY);
    expect_pattern(user, 0, 1000, 1);
    io_close(user);
}

static void
creation_fails_where_no_file_can_be(void **state)
{
    struct qcow2_error err;

    (void)state;
    assert_null(tmpdir_create_io(tmpdir(), true, &err));
    assert_int_equal(err.errnum, EINVAL);
    assert_null(tmpdir_create_io(tmpdir_path("no/where"), true, &err));
    assert_int_equal(err.errnum, ENOENT);
    assert_null(tmpdir_create_io("/dev/null", true, &err));
    assert_int_equal(err.errnum, EINVAL);
}

#define TEST(f) cmocka_unit_test_teardown(f, clean_up)

static int
clean_up(void **state)
{
    (void)state;
    tmpdir_clear();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read),
        TEST(bytes_past_the_end_read_as_zeroes),
        TEST(much_that_is_written_is_there_after_a_flush),
        TEST(vectors_are_filled_in_order),
        TEST(nothing_to_do_is_no_error),
        TEST(offsets_that_no_file_has_are_errors),
        TEST(zeroing_changes_the_range_alone),
        TEST(zeroing_grows_a_file),
        TEST(growing_in_many_threads_loses_nothing),
        TEST(punching_gives_space_back_and_keeps_the_size),
        TEST(data_that_became_a_hole_are_no_longer_found),
        TEST(fast_zeroing_works_or_says_so),
        TEST(truncation_sets_the_size),
        TEST(what_is_open_read_only_is_not_changed),
        TEST(a_write_done_in_part_goes_on_until_its_error),
        TEST(what_is_neither_file_nor_block_device_is_refused),
        TEST(a_missing_file_is_not_created),
        TEST(who_may_not_write_is_told_of_read_only),
        TEST(names_in_messages_are_safe_on_a_terminal),
        TEST(a_descriptor_is_opened_anew),
        TEST(a_descriptor_that_cannot_be_opened_anew_is_duplicated),
        TEST(what_the_file_system_cannot_zero_is_written),
        TEST(the_caller_keeps_his_descriptor),
        TEST(a_descriptor_gives_no_more_than_it_has),
        TEST(creation_makes_an_empty_file),
        TEST(creation_leaves_alone_what_is_in_use),
        TEST(creation_fails_where_no_file_can_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
