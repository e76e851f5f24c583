/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-lock.c: who may open a file while others have it open: this
 * process, another one, and QEMU's tools.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"
#include "oracle.h"
#include "storage/io.h"
#include "tmpdir.h"

static const char *
file(void)
{
    return tmpdir_path("file");
}

static struct io *
open_with(enum io_lock lock, struct qcow2_error *err)
{
    return io_file_open(file(), -1, lock != IO_LOCK_WRITE, lock, err);
}

static struct io *
must_open(enum io_lock lock)
{
    struct qcow2_error err;
    struct io *io = open_with(lock, &err);

    EXPECT(io, "%s", err.text);
    return io;
}

static void
expect_busy(enum io_lock lock, const char *why, const char *who)
{
    struct qcow2_error err;

    assert_null(open_with(lock, &err));
    EXPECT(err.errnum == EBUSY && strstr(err.text, why)
           && strstr(err.text, who), "%s (%d); expected: %s %s", err.text,
           err.errnum, why, who);
}

/* As QEMU says it, for the programs that search its messages. */
#define WHILE_WRITTEN \
    "Failed to get shared \"write\" lock. Is another process using the image?"
#define TO_WRITE \
    "Failed to get \"write\" lock. Is another process using the image?"
#define BESIDE_ANY_LOCK "Failed to get \"consistent read\" lock."

static void
readers_go_together(void **state)
{
    struct io *a, *b;

    (void)state;
    a = must_open(IO_LOCK_READ);
    b = must_open(IO_LOCK_READ);
    io_close(a);
    io_close(b);
}

static void
a_reader_keeps_writers_out(void **state)
{
    struct io *a;

    (void)state;
    a = must_open(IO_LOCK_READ);
    expect_busy(IO_LOCK_WRITE, TO_WRITE, "this process");
    /* The failed attempt left nothing locked. */
    io_close(must_open(IO_LOCK_READ));
    io_close(a);
    io_close(must_open(IO_LOCK_WRITE));
}

static void
a_writer_keeps_everybody_out(void **state)
{
    struct io *a;

    (void)state;
    a = must_open(IO_LOCK_WRITE);
    expect_busy(IO_LOCK_READ, WHILE_WRITTEN, "this process");
    expect_busy(IO_LOCK_WRITE, TO_WRITE, "this process");
    io_close(must_open(IO_LOCK_NONE));
    io_close(a);
    io_close(must_open(IO_LOCK_READ));
}

static void
locks_of_a_descriptor_are_independent_of_it(void **state)
{
    struct qcow2_error err;
    struct io *a;
    int fd;

    (void)state;
    fd = open(file(), O_RDWR | O_CLOEXEC);
    a = io_file_open("fd", fd, false, IO_LOCK_WRITE, &err);
    EXPECT(a, "%s", err.text);
    assert_null(io_file_open("fd", fd, true, IO_LOCK_READ, &err));
    assert_int_equal(err.errnum, EBUSY);
    io_close(a);
    io_close(must_open(IO_LOCK_WRITE));
    close(fd);
}

/* A process of its own that opens the file, says so by a byte, and goes on
 * until its input ends.
 */
struct holder {
    pid_t pid;
    int in, out; /* to it, from it */
};

static void
hold_and_wait(enum io_lock lock, int in, int out)
{
    char c;

    if (!open_with(lock, NULL) || write(out, "x", 1) != 1)
        _exit(1);
    while (read(in, &c, 1) > 0)
        ;
    _exit(0);
}

static void
holder_start(struct holder *h, enum io_lock lock)
{
    int in[2], out[2];
    char c;

    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    h->pid = fork();
    assert_int_not_equal(h->pid, -1);
    if (h->pid == 0) {
        close(in[1]);
        close(out[0]);
        hold_and_wait(lock, in[0], out[1]);
    }
    close(in[0]);
    close(out[1]);
    h->in = in[1];
    h->out = out[0];
    assert_int_equal(read(h->out, &c, 1), 1);
}

static void
holder_end(struct holder *h)
{
    int status;

    close(h->in);
    close(h->out);
    assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
    assert_int_equal(status, 0);
}

static void
another_process_is_named(void **state)
{
    struct holder h;
    char pid[32];

    (void)state;
    holder_start(&h, IO_LOCK_WRITE);
    snprintf(pid, sizeof pid, "(pid %d)", (int)h.pid);
    expect_busy(IO_LOCK_READ, WHILE_WRITTEN, pid);
    expect_busy(IO_LOCK_WRITE, TO_WRITE, pid);
    holder_end(&h);
    io_close(must_open(IO_LOCK_WRITE));

    holder_start(&h, IO_LOCK_READ);
    io_close(must_open(IO_LOCK_READ));
    snprintf(pid, sizeof pid, "(pid %d)", (int)h.pid);
    expect_busy(IO_LOCK_WRITE, TO_WRITE, pid);
    holder_end(&h);
}

static void
who_only_has_it_open_is_not_blamed(void **state)
{
    int fd = open(file(), O_RDWR | O_CLOEXEC);
    struct holder h;
    char pid[32];

    (void)state;
    holder_start(&h, IO_LOCK_WRITE);
    snprintf(pid, sizeof pid, "(pid %d)", (int)h.pid);
    expect_busy(IO_LOCK_READ, WHILE_WRITTEN, pid);
    holder_end(&h);
    close(fd);
}

/* Whole-file locks of other programs. */
static void
a_foreign_lock_is_respected(void **state)
{
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd = open(file(), O_RDWR | O_CLOEXEC);

    (void)state;
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
    expect_busy(IO_LOCK_READ, BESIDE_ANY_LOCK, "this process");
    expect_busy(IO_LOCK_WRITE, BESIDE_ANY_LOCK, "this process");
    close(fd);
}

/* Of raw files QEMU's tools let others do everything. */
static void
make_image_or_skip(void)
{
    oracle_or_skip();
    assert_int_equal(oracle_run("qemu-img create -q -f qcow2 %s 64K",
                                file()), 0);
}

/* qemu-io, which has opened the file once it answers. */
static void
qemu_start(struct holder *h, const char *options)
{
    int in[2], out[2];
    char cmd[1200], answer[4096];
    size_t len = 0;
    ssize_t n;

    snprintf(cmd, sizeof cmd, "exec qemu-io -f qcow2 %s %s", options, file());
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    h->pid = fork();
    assert_int_not_equal(h->pid, -1);
    if (h->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl("/bin/sh", "sh", "-c", cmd, NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    h->in = in[1];
    h->out = out[0];
    assert_int_equal(write(h->in, "length\n", 7), 7);
    do {
        n = read(h->out, answer + len, sizeof answer - 1 - len);
        EXPECT(n > 0, "qemu-io said: %.*s", (int)len, answer);
        len += n;
        answer[len] = '\0';
    } while (!strstr(answer, "KiB"));
}

static void
what_qemu_writes_is_refused(void **state)
{
    struct holder h;
    char who[64];

    (void)state;
    make_image_or_skip();
    qemu_start(&h, "");
    snprintf(who, sizeof who, "qemu-io (pid %d)", (int)h.pid);
    expect_busy(IO_LOCK_READ, WHILE_WRITTEN, who);
    expect_busy(IO_LOCK_WRITE, TO_WRITE, who);
    holder_end(&h);
    io_close(must_open(IO_LOCK_WRITE));
}

static void
what_qemu_reads_can_be_read(void **state)
{
    struct holder h;

    (void)state;
    make_image_or_skip();
    qemu_start(&h, "-r");
    io_close(must_open(IO_LOCK_READ));
    expect_busy(IO_LOCK_WRITE, TO_WRITE, "qemu-io (pid");
    holder_end(&h);
}

static int
qemu_reads(void)
{
    return oracle_run("qemu-io -r -f qcow2 -c 'read 0 512' %s "
                      ">/dev/null 2>&1", file());
}

static int
qemu_writes(void)
{
    return oracle_run("qemu-io -f qcow2 -c 'write 0 512' %s >/dev/null "
                      "2>&1", file());
}

static void
qemu_respects_our_locks(void **state)
{
    struct io *io;

    (void)state;
    make_image_or_skip();
    io = must_open(IO_LOCK_WRITE);
    assert_int_not_equal(qemu_reads(), 0);
    assert_int_not_equal(qemu_writes(), 0);
    io_close(io);

    io = must_open(IO_LOCK_READ);
    assert_int_equal(qemu_reads(), 0);
    assert_int_not_equal(qemu_writes(), 0);
    io_close(io);
    assert_int_equal(qemu_writes(), 0);
}

static int
make_file(void **state)
{
    static const char zeroes[65536];

    (void)state;
    tmpdir_write_file(file(), zeroes, sizeof zeroes);
    return 0;
}

static int
clean_up(void **state)
{
    (void)state;
    tmpdir_clear();
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_file, clean_up)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(readers_go_together),
        TEST(a_reader_keeps_writers_out),
        TEST(a_writer_keeps_everybody_out),
        TEST(locks_of_a_descriptor_are_independent_of_it),
        TEST(another_process_is_named),
        TEST(who_only_has_it_open_is_not_blamed),
        TEST(a_foreign_lock_is_respected),
        TEST(what_qemu_writes_is_refused),
        TEST(what_qemu_reads_can_be_read),
        TEST(qemu_respects_our_locks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
