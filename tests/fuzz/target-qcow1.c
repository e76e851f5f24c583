/* SPDX-License-Identifier: BSD-3-Clause */
/* target-qcow1.c: images of version 1. Opened or not, a disk reads the same in
 * small parts as in large ones where both can be read, what extents call zero
 * is zero, and what its header says can be shown.
 *
 * The input is the file.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "bounds.h"
#include "disk/open.h"
#include "format/qcow1-header.h"
#include "sparse.h"
#include "targets.h"

enum { PART = 1 << 16, STEP = 4096 + 512, MAX_EXTENTS = 400 };

/* The first bytes of the disk. */
static void
read_start(struct qcow2_disk *disk)
{
    static unsigned char whole[PART], part[PART];
    size_t nr = min_u64(PART, qcow2_get_size(disk)), n;
    bool has_whole = qcow2_pread(disk, whole, nr, 0, NULL) == 0;

    for (size_t at = 0; at < nr; at += n) {
        n = min_u64(STEP, nr - at);
        if (qcow2_pread(disk, part, n, at, NULL) == 0)
            MUST(!has_whole || memcmp(part, whole + at, n) == 0,
                 "other bytes at %zu", at);
        else
            MUST(!has_whole, "a part cannot be read, the whole can");
    }
}

struct extents {
    unsigned nr;
    struct qcow2_extent all[MAX_EXTENTS];
};

static int
take(void *opaque, const struct qcow2_extent *e)
{
    struct extents *x = opaque;

    x->all[x->nr++] = *e;
    return x->nr == MAX_EXTENTS;
}

static void
read_zeroes(struct qcow2_disk *disk)
{
    struct extents *x = calloc(1, sizeof *x);
    static unsigned char buf[PART];
    uint64_t size = qcow2_get_size(disk), end = 0;

    qcow2_map(disk, size, 0, take, x, NULL);
    for (unsigned i = 0; i < x->nr; i++) {
        const struct qcow2_extent *e = &x->all[i];
        size_t n = min_u64(e->nr_bytes, PART);

        MUST(e->guest_off == end && range_inside(end, e->nr_bytes, size),
             "a gap between extents");
        end += e->nr_bytes;
        if (!e->zero || qcow2_pread(disk, buf, n, e->guest_off, NULL) == -1)
            continue;
        for (size_t j = 0; j < n; j++)
            MUST(buf[j] == 0, "a zero that is none");
    }
    free(x);
}

static void
show_header(struct sparse *file)
{
    struct io *io = sparse_open(file, true);
    struct qcow2_error refusal;
    struct qcow1_header h;

    if (qcow1_header_read_loosely(io, &h, &refusal, NULL) == 0)
        qcow1_header_free(&h);
    io_close(io);
}

void
target_qcow1(const uint8_t *data, size_t nr_bytes)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct sparse *file = sparse_new();
    struct qcow2_error err = { 0 };
    struct qcow2_disk *disk;

    sparse_write(file, 0, data, nr_bytes);
    show_header(file);
    options.no_lock = true;
    options.readonly = true;
    options.backing_none = true;
    options.format = QCOW2_FORMAT_QCOW;
    disk = disk_open_io(sparse_open(file, true), "/nonexistent/fuzzed",
                        &options, &err);
    if (disk) {
        read_start(disk);
        read_zeroes(disk);
        qcow2_close(disk, NULL);
    } else {
        MUST(err.errnum != 0 && err.text[0], "refused without a reason");
    }
    bounds_of_work(sparse_counts(file));
    sparse_free(file);
}
