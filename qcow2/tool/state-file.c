/* SPDX-License-Identifier: BSD-3-Clause */
/* state-file.c: writes the VM state of a snapshot to a file; see
 * state-file.h.
 */
#include "state-file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

enum {
    BUFFER_BYTES = 1 << 20,
    HOLE_BYTES = 64 << 10, /* zeroes in data become holes in such pieces */
};

struct output {
    int fd;
    bool has_holes;   /* what is skipped reads as zeroes */
    bool ends_in_hole;
};

/* A pipe has no holes; nor has a file that is appended to, or that has other
 * content where the state goes. */
static bool
can_have_holes(int fd)
{
    off_t at = lseek(fd, 0, SEEK_CUR);
    int flags = fcntl(fd, F_GETFL);
    struct stat st;

    return at != -1 && flags != -1 && !(flags & O_APPEND)
           && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= at;
}

static int
write_all(struct output *out, const char *buf, size_t nr_bytes)
{
    while (nr_bytes > 0) {
        ssize_t n = write(out->fd, buf, nr_bytes);

        if (n == -1 && errno != EINTR)
            return -1;
        if (n > 0) {
            buf += n;
            nr_bytes -= n;
        }
    }
    out->ends_in_hole = false;
    return 0;
}

static int
write_zeroes(struct output *out, uint64_t nr_bytes)
{
    static const char zeroes[HOLE_BYTES];

    if (out->has_holes) {
        out->ends_in_hole = true;
        return lseek(out->fd, nr_bytes, SEEK_CUR) == -1 ? -1 : 0;
    }
    while (nr_bytes > 0) {
        size_t n = nr_bytes < HOLE_BYTES ? nr_bytes : HOLE_BYTES;

        if (write_all(out, zeroes, n) == -1)
            return -1;
        nr_bytes -= n;
    }
    return 0;
}

static bool
is_zero(const char *buf, size_t nr_bytes)
{
    return buf[0] == 0 && memcmp(buf, buf + 1, nr_bytes - 1) == 0;
}

static int
write_data(struct output *out, const char *buf, size_t nr_bytes)
{
    for (size_t at = 0, n; at < nr_bytes; at += n) {
        int r;

        n = nr_bytes - at < HOLE_BYTES ? nr_bytes - at : HOLE_BYTES;
        r = out->has_holes && is_zero(buf + at, n)
                ? write_zeroes(out, n) : write_all(out, buf + at, n);
        if (r == -1)
            return -1;
    }
    return 0;
}

static int
end_output(struct output *out)
{
    return out->ends_in_hole
               ? ftruncate(out->fd, lseek(out->fd, 0, SEEK_CUR)) : 0;
}

static int
report_failure(void)
{
    report("cannot write the VM state: %s", strerror(errno));
    return EXIT_FAILURE;
}

/* Copies nr_bytes at `at` that are data. */
static int
copy_data(struct qcow2_disk *snapshot, uint64_t at, uint64_t nr_bytes,
          char *buf, struct output *out)
{
    struct qcow2_error err;

    for (size_t n; nr_bytes > 0; at += n, nr_bytes -= n) {
        n = nr_bytes < BUFFER_BYTES ? nr_bytes : BUFFER_BYTES;
        if (qcow2_read_vm_state(snapshot, buf, n, at, &err) == -1)
            return report_error(&err);
        if (write_data(out, buf, n) == -1)
            return report_failure();
    }
    return EXIT_SUCCESS;
}

int
state_file_write(struct qcow2_disk *snapshot, uint64_t nr_bytes,
                 uint64_t max_data, int fd)
{
    CLEANUP_FREE char *buf = check_memory(malloc(BUFFER_BYTES));
    struct output out = { .fd = fd, .has_holes = can_have_holes(fd) };
    struct qcow2_error err;
    uint64_t nr_data = 0;

    for (uint64_t at = 0, n; at < nr_bytes; at += n) {
        bool zero;

        if (qcow2_map_vm_state(snapshot, at, &n, &zero, &err) == -1)
            return report_error(&err);
        if (zero) {
            if (write_zeroes(&out, n) == -1)
                return report_failure();
            continue;
        }
        nr_data += n;
        if (nr_data > max_data) {
            report("the VM state has more data than the image can have: its "
                   "tables repeat clusters; 'qcow2-img check' tells more");
            return EXIT_FAILURE;
        }
        if (copy_data(snapshot, at, n, buf, &out) != EXIT_SUCCESS)
            return EXIT_FAILURE;
    }
    return end_output(&out) == -1 ? report_failure() : EXIT_SUCCESS;
}
