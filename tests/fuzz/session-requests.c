/* SPDX-License-Identifier: BSD-3-Clause */
/* session-requests.c: what guests do to a disk; see session.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/compress.h"
#include "bounds.h"
#include "disk/open.h"
#include "meta/image.h"
#include "request/request.h"
#include "rng.h"
#include "session.h"

enum { MAX_BYTES = 256 << 10, MAX_CLEAR_BYTES = 1 << 20 };

struct part {
    uint64_t off, nr_bytes;
};

static struct part
range_of(const struct session *s, const struct command *op, uint64_t max)
{
    uint64_t size = qcow2_get_size(s->disk), unit = 1;
    struct part r = { op->b * UINT64_C(64) + (op->c >> 32), op->c & 0xfffff };

    if (op->a & A_ALIGNED) {
        unit = qcow2_get_cluster_size(s->disk);
        r.off = (uint64_t)op->b * unit + round_down(op->c >> 32, unit);
        r.nr_bytes = (1 + (op->c & 15)) * unit;
    }
    if (r.off > size)
        r.off = size ? round_down(r.off % size, unit) : 0;
    r.nr_bytes = min_u64(min_u64(r.nr_bytes, max), size - r.off);
    return r;
}

static void
do_read(struct session *s, const struct command *op)
{
    struct part r = range_of(s, op, MAX_BYTES);
    unsigned char *buf = malloc(r.nr_bytes + 1);
    struct qcow2_error err;

    if (qcow2_pread(s->disk, buf, r.nr_bytes, r.off, &err) == -1)
        session_failed(s, "read", &err);
    else if (s->sound)
        MUST(memcmp(buf, s->now.bytes + r.off, r.nr_bytes) == 0,
             "read %" PRIu64 " bytes at %" PRIu64, r.nr_bytes, r.off);
    free(buf);
}

static void
do_write(struct session *s, const struct command *op)
{
    struct part r = range_of(s, op, MAX_BYTES);
    unsigned char *buf = malloc(r.nr_bytes + 1);
    struct qcow2_error err;

    pattern_fill(buf, r.nr_bytes, op->c & 0xff, r.off);
    if (qcow2_pwrite(s->disk, buf, r.nr_bytes, r.off, op->a & A_FUA, &err)
        == -1)
        session_failed(s, "write", &err);
    else if (s->sound)
        memcpy(s->now.bytes + r.off, buf, r.nr_bytes);
    free(buf);
}

/* As convert does. */
static void
do_compressed(struct session *s, const struct command *op)
{
    struct image *img = disk_image(s->disk);
    uint64_t size = qcow2_get_cluster_size(s->disk);
    uint64_t off = op->b * size, left = qcow2_get_size(s->disk);
    unsigned char *buf, *packed;
    struct workspace *space;
    struct qcow2_error err;
    long n;

    if (off >= left || qcow2_is_readonly(s->disk))
        return;
    left -= off;
    buf = calloc(2, size);
    packed = buf + size;
    pattern_fill(buf, min_u64(size, left), op->c & 0xff, off);
    space = decompress_pool_take_space(img->decompress, 0, 0, &err);
    if (!space)
        abort();
    n = compress_encode(space->context, img->hdr.compression_type, 0, buf,
                        size, packed, size - 1);
    decompress_pool_put_space(img->decompress, space);
    if (n > 0) {
        RDLOCK_SCOPE(&img->rwlock);

        if (image_begin_write(img, &err) == -1
            || write_compressed(img, packed, n, off, &err) == -1)
            session_failed(s, "compressed write", &err);
        else if (s->sound)
            memcpy(s->now.bytes + off, buf, min_u64(size, left));
    }
    free(buf);
}

static void
do_zero(struct session *s, const struct command *op)
{
    uint64_t max = op->a & A_LARGE ? MAX_CLEAR_BYTES * 16 : MAX_CLEAR_BYTES;
    struct part r = range_of(s, op, max);
    unsigned flags = op->a & (A_FUA | A_MAY_TRIM | A_FAST);
    struct qcow2_error err;

    if (op->a & A_LARGE)
        r.nr_bytes = min_u64(max, qcow2_get_size(s->disk) - r.off);
    if (qcow2_zero(s->disk, r.nr_bytes, r.off, flags, &err) == -1)
        session_failed(s, "zero", &err);
    else if (s->sound && r.nr_bytes > 0)
        memset(s->now.bytes + r.off, 0, r.nr_bytes);
}

/* Each byte is what it was, or zero. */
static void
do_trim(struct session *s, const struct command *op)
{
    struct part r = range_of(s, op, op->a & A_LARGE ? MAX_CLEAR_BYTES * 16
                                                     : MAX_CLEAR_BYTES);
    unsigned char *buf;
    struct qcow2_error err;

    if (qcow2_trim(s->disk, r.nr_bytes, r.off, op->a & A_FUA, &err) == -1) {
        session_failed(s, "trim", &err);
        return;
    }
    if (!s->sound)
        return;
    buf = malloc(r.nr_bytes + 1);
    MUST(qcow2_pread(s->disk, buf, r.nr_bytes, r.off, &err) == 0,
         "after trim: %s", err.text);
    for (uint64_t i = 0; i < r.nr_bytes; i++)
        MUST(buf[i] == 0 || buf[i] == s->now.bytes[r.off + i],
             "trimmed %" PRIu64, r.off + i);
    if (r.nr_bytes > 0)
        memcpy(s->now.bytes + r.off, buf, r.nr_bytes);
    free(buf);
}

void
session_do(struct session *s, const struct command *op)
{
    enum operation kind = (op->kind & 0x7f) % NR_OPERATIONS;
    struct qcow2_error err;

    switch (kind) {
    case DO_READ:
        do_read(s, op);
        break;
    case DO_WRITE:
        do_write(s, op);
        break;
    case DO_ZERO:
        do_zero(s, op);
        break;
    case DO_TRIM:
        do_trim(s, op);
        break;
    case DO_FLUSH:
        if (qcow2_flush(s->disk, &err) == -1)
            session_failed(s, "flush", &err);
        break;
    case DO_PREFETCH:
        qcow2_prefetch(s->disk, qcow2_get_size(s->disk), 0, NULL);
        break;
    case DO_COMPRESSED:
        do_compressed(s, op);
        break;
    case DO_MAP:
        session_map(s);
        break;
    case DO_LOOK:
        session_look(s, op->b);
        break;
    case DO_CREATE:
    case DO_APPLY:
    case DO_DELETE:
    case DO_RESIZE:
    case DO_PREALLOCATE:
    case DO_AMEND:
        session_do_whole(s, kind, op);
        break;
    case DO_REOPEN:
    case NR_OPERATIONS:
        break;
    }
}
