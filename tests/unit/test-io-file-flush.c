/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-file-flush.c: what becomes of a flush that the kernel refuses. The
 * linker sends calls of fdatasync and sync_file_range here (--wrap).
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "expect.h"
#include "storage/io-behind.h"
#include "storage/io.h"
#include "tmpdir.h"

/* What the next calls answer, 0 or an errno; then they succeed. */
static int answers[4];
static unsigned nr_calls;

int __wrap_fdatasync(int fd);

int
__wrap_fdatasync(int fd)
{
    int answer = nr_calls < 4 ? answers[nr_calls] : 0;

    (void)fd;
    nr_calls++;
    errno = answer;
    return answer ? -1 : 0;
}

/* What sync_file_range answers: 0 or an errno. */
static int behind_answer;

int __wrap_sync_file_range(int fd, off_t from, off_t nr_bytes,
                           unsigned flags);

int
__wrap_sync_file_range(int fd, off_t from, off_t nr_bytes, unsigned flags)
{
    (void)fd, (void)from, (void)nr_bytes, (void)flags;
    errno = behind_answer;
    return behind_answer ? -1 : 0;
}

static struct io *
open_file(int first, int second)
{
    struct qcow2_error err;
    struct io *io;

    tmpdir_write_file(tmpdir_path("file"), "abc", 3);
    io = io_file_open(tmpdir_path("file"), -1, false, IO_LOCK_NONE, &err);
    EXPECT(io, "%s", err.text);
    EXPECT_OK(io_pwrite(io, "x", 1, 0, &err), &err);
    answers[0] = first;
    answers[1] = second;
    nr_calls = 0;
    return io;
}

/* It could claim success for pages that were dropped (I8). */
static void
what_failed_is_not_tried_again(void **state)
{
    static const int errors[] = { EIO, ENOSPC, EDQUOT };

    (void)state;
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct io *io = open_file(errors[i], 0);
        struct qcow2_error err;

        expect_case("errno %d", errors[i]);
        EXPECT(io_flush(io, &err) == -1, "the flush succeeds");
        EXPECT(err.errnum == errors[i], "errno %d: %s", err.errnum, err.text);
        EXPECT(io_flush(io, &err) == -1 && err.errnum == EIO,
               "the next flush succeeds");
        EXPECT_OK(io_pwrite(io, "x", 1, 0, &err), &err);
        EXPECT(io_flush(io, &err) == -1, "the one after a write does");
        EXPECT(nr_calls == 1, "%u calls", nr_calls);
        io_close(io);
    }
}

static void
what_was_interrupted_is_tried_again(void **state)
{
    struct io *io = open_file(EINTR, EINTR);
    struct qcow2_error err;

    (void)state;
    EXPECT_OK(io_flush(io, &err), &err);
    assert_int_equal(nr_calls, 3);
    io_close(io);
}

static int
flush_after_writing_behind(int answer, struct qcow2_error *err)
{
    struct io *io = open_file(0, 0);
    unsigned char *data = calloc(1, IO_BEHIND_BEGIN);
    int r;

    behind_answer = answer;
    EXPECT_OK(io_pwrite(io, data, IO_BEHIND_BEGIN, 0, err), err);
    behind_answer = 0;
    free(data);
    r = io_flush(io, err);
    if (r == -1)
        EXPECT(io_flush(io, NULL) == -1, "the next flush succeeds");
    io_close(io);
    return r;
}

/* It may be the only report that the pages could not be written. */
static void
a_failure_to_write_behind_fails_the_flush(void **state)
{
    static const int errors[] = { EIO, ENOSPC, EDQUOT };
    struct qcow2_error err;

    (void)state;
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        expect_case("errno %d", errors[i]);
        assert_int_equal(flush_after_writing_behind(errors[i], &err), -1);
        EXPECT(err.errnum == errors[i], "errno %d: %s", err.errnum, err.text);
    }
    expect_case("what the file cannot do");
    EXPECT_OK(flush_after_writing_behind(ENOSYS, &err), &err);
    EXPECT_OK(flush_after_writing_behind(ESPIPE, &err), &err);
    EXPECT_OK(flush_after_writing_behind(0, &err), &err);
}

/* Something else comes in its place, of which a power cut may leave a
 * part. */
static void
what_is_overwritten_is_gone_for_good(void **state)
{
    struct qcow2_error err;
    struct io *io;

    (void)state;
    io_close(open_file(0, 0));
    nr_calls = 0;
    io = tmpdir_create_io(tmpdir_path("file"), true, &err);
    EXPECT(io, "%s", err.text);
    assert_int_equal(nr_calls, 1);
    io_close(io);
    io = tmpdir_create_io(tmpdir_path("new"), true, &err);
    EXPECT(io, "%s", err.text);
    assert_int_equal(nr_calls, 1);
    io_close(io);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_failed_is_not_tried_again),
        cmocka_unit_test(what_was_interrupted_is_tried_again),
        cmocka_unit_test(a_failure_to_write_behind_fails_the_flush),
        cmocka_unit_test(what_is_overwritten_is_gone_for_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
