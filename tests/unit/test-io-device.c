/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-device.c: block devices as backends. One that is written is claimed,
 * whichever of its nodes is opened. Skipped where there are no loop devices
 * for us.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "expect.h"
#include "oracle.h"
#include "rng.h"
#include "storage/io-open.h"
#include "storage/path-policy.h"
#include "tmpdir.h"

enum { DEVICE_BYTES = 1 << 20 };

static char device[64], other[512], third[512];

/* Three nodes of one loop device, the first of which is the system's. */
static int
set_up(void **state)
{
    struct stat st;
    FILE *fp;
    int fd;

    (void)state;
    device[0] = '\0';
    if (geteuid() != 0
        || oracle_run("truncate -s 1M '%s'", tmpdir_path("file")) != 0
        || oracle_run("losetup -f --show '%s' >'%s' 2>/dev/null",
                      tmpdir_path("file"), tmpdir_path("name")) != 0)
        return 0;
    fp = fopen(tmpdir_path("name"), "r");
    if (!fp || !fgets(device, sizeof device, fp))
        device[0] = '\0';
    if (fp)
        fclose(fp);
    device[strcspn(device, "\n")] = '\0';
    snprintf(other, sizeof other, "%s", tmpdir_path("node"));
    snprintf(third, sizeof third, "%s", tmpdir_path("third"));
    if (stat(device, &st) == -1
        || mknod(other, S_IFBLK | 0600, st.st_rdev) == -1
        || mknod(third, S_IFBLK | 0600, st.st_rdev) == -1
        || (fd = open(other, O_RDONLY | O_CLOEXEC)) == -1)
        return 0;
    close(fd);
    *state = device;
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    if (device[0])
        oracle_run("losetup -d '%s'", device);
    tmpdir_clear();
    return 0;
}

static struct io *
open_node(const char *node, bool readonly, enum io_lock lock,
          struct qcow2_error *err)
{
    struct policy_file file;
    struct io *io;

    if (policy_trust(node, &file, err) == -1)
        return NULL;
    io = io_open(&file,
                 &(struct io_open_options){ .readonly = readonly,
                                            .lock = lock }, err);
    policy_file_free(&file);
    return io;
}

static void
test_two_nodes_of_a_device_have_one_writer(void **state)
{
    struct qcow2_error err;
    struct io *writer, *again;

    if (!*state)
        skip();
    writer = open_node(device, false, IO_LOCK_WRITE, &err);
    EXPECT(writer, "%s", err.text);
    assert_null(open_node(other, false, IO_LOCK_WRITE, &err));
    assert_int_equal(err.errnum, EBUSY);
    assert_non_null(strstr(err.text, "block device"));
    /* A file opened without locks respects none. */
    again = open_node(other, false, IO_LOCK_NONE, &err);
    EXPECT(again, "%s", err.text);
    io_close(again);
    again = open_node(device, true, IO_LOCK_NONE, &err);
    EXPECT(again, "%s", err.text);
    io_close(again);
    io_close(writer);
    writer = open_node(other, false, IO_LOCK_WRITE, &err);
    EXPECT(writer, "%s", err.text);
    io_close(writer);
}

static void
test_readers_share_a_device(void **state)
{
    struct qcow2_error err;
    struct io *one, *two;

    if (!*state)
        skip();
    one = open_node(device, true, IO_LOCK_READ, &err);
    EXPECT(one, "%s", err.text);
    two = open_node(other, true, IO_LOCK_READ, &err);
    EXPECT(two, "%s", err.text);
    io_close(one);
    io_close(two);
}

/* [off, off + nr_bytes) holds pattern `seed` (0: zeroes). */
static void
expect_pattern(struct io *io, uint64_t off, size_t nr_bytes, uint64_t seed)
{
    static unsigned char got[DEVICE_BYTES], want[DEVICE_BYTES];
    struct qcow2_error err;

    memset(got, 0xee, nr_bytes);
    EXPECT_OK(io_pread(io, got, nr_bytes, off, &err), &err);
    pattern_fill(want, nr_bytes, seed, off);
    expect_same("read", got, want, nr_bytes, off);
}

static void
try_device(struct io *io)
{
    struct qcow2_error err;
    uint64_t nr_bytes, len = 4096;
    bool is_hole;
    char c = 1;

    assert_false(io->can_grow);
    assert_false(io->reads_zero_past_end);
    EXPECT_OK(io_get_size(io, &nr_bytes, &err), &err);
    assert_int_equal(nr_bytes, DEVICE_BYTES);
    EXPECT_OK(io_get_allocated(io, &nr_bytes, &err), &err);
    assert_int_equal(nr_bytes, DEVICE_BYTES);
    expect_pattern(io, 0, DEVICE_BYTES, 1);
    expect_pattern(io, DEVICE_BYTES, 512, 0);
    EXPECT_OK(io_extent(io, 0, &len, &is_hole, &err), &err);

    EXPECT_OK(io_zero(io, 4096, 8192, 0, &err), &err);
    EXPECT_OK(io_zero(io, 65536, 65536, IO_ZERO_PUNCH, &err), &err);
    EXPECT_OK(io_zero(io, 200001, 333, IO_ZERO_PUNCH, &err), &err);
    expect_pattern(io, 0, 4096, 1);
    expect_pattern(io, 4096, 8192, 0);
    expect_pattern(io, 65536, 65536, 0);
    expect_pattern(io, 200001, 333, 0);
    expect_pattern(io, 200334, 100, 1);
    assert_int_equal(io_zero(io, 0, 4096, IO_ZERO_FAST, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    if (io_punch(io, 131072, 65536, &err) == 0)
        expect_pattern(io, 131072, 65536, 0);
    else
        assert_int_equal(err.errnum, ENOTSUP);

    assert_int_equal(io_pwrite(io, &c, 1, DEVICE_BYTES, &err), -1);
    assert_int_equal(err.errnum, ENOSPC);
    assert_int_equal(io_truncate(io, 2 * DEVICE_BYTES, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    EXPECT_OK(io_flush(io, &err), &err);
}

static void
test_a_device_ends_at_its_end(void **state)
{
    static unsigned char pattern[DEVICE_BYTES];
    struct qcow2_error err;
    struct io *io;

    if (!*state)
        skip();
    io = io_file_open(device, -1, false, IO_LOCK_WRITE, &err);
    EXPECT(io, "%s", err.text);
    pattern_fill(pattern, sizeof pattern, 1, 0);
    EXPECT_OK(io_pwrite(io, pattern, sizeof pattern, 0, &err), &err);
    try_device(io);
    io_close(io);
    io = tmpdir_create_io(device, true, &err);
    EXPECT(io, "%s", err.text);
    expect_pattern(io, 0, 4096, 1);
    io_close(io);
}

/* Each node has locks of its own: only the system's has them all. */
static void
test_reader_and_writer_see_each_other_by_any_node(void **state)
{
    const char *nodes[] = { device, other, third };

    if (!*state)
        skip();
    for (unsigned i = 0; i < 9; i++) {
        const char *first = nodes[i / 3], *second = nodes[i % 3];
        struct qcow2_error err;
        struct io *io;

        expect_case("%s, then %s", first, second);
        io = open_node(first, true, IO_LOCK_READ, &err);
        EXPECT(io, "%s", err.text);
        assert_null(open_node(second, false, IO_LOCK_WRITE, &err));
        EXPECT(err.errnum == EBUSY && strstr(err.text, "this process"), "%s",
               err.text);
        io_close(io);
        io = open_node(first, false, IO_LOCK_WRITE, &err);
        EXPECT(io, "%s", err.text);
        assert_null(open_node(second, true, IO_LOCK_READ, &err));
        EXPECT(err.errnum == EBUSY && strstr(err.text, "this process"), "%s",
               err.text);
        io_close(io);
    }
}

/* QEMU has it open by the system's node, we have another. */
static void
test_qemu_is_seen_by_another_node(void **state)
{
    struct qcow2_error err;
    struct io *io;

    oracle_or_skip();
    if (!*state)
        skip();
    io = open_node(other, true, IO_LOCK_READ, &err);
    EXPECT(io, "%s", err.text);
    EXPECT(oracle_run("qemu-io -f raw -c 'write 0 512' '%s' 2>&1"
                      " | grep -q 'write. lock'", device) == 0,
           "qemu-io did not see it");
    io_close(io);
}

static void
test_a_device_is_one_file_by_all_nodes(void **state)
{
    struct policy_file a, b;
    struct qcow2_error err;
    struct io *io;
    struct stat st;

    if (!*state)
        skip();
    EXPECT_OK(policy_trust(device, &a, &err), &err);
    EXPECT_OK(policy_trust(other, &b, &err), &err);
    EXPECT(policy_is_same(&a, &b), "not the same");
    assert_int_equal(stat(third, &st), 0);
    EXPECT(qcow2_stat_get_id(&st).ino == a.ino
           && qcow2_stat_get_id(&st).dev == a.dev, "not the same");
    io = open_node(third, true, IO_LOCK_READ, &err);
    EXPECT(io && io->dev == a.dev && io->ino == a.ino, "not the same");
    io_close(io);
    policy_file_free(&a);
    policy_file_free(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_two_nodes_of_a_device_have_one_writer),
        TEST(test_readers_share_a_device),
        TEST(test_a_device_ends_at_its_end),
        TEST(test_reader_and_writer_see_each_other_by_any_node),
        TEST(test_qemu_is_seen_by_another_node),
        TEST(test_a_device_is_one_file_by_all_nodes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
