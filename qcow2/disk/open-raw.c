/* SPDX-License-Identifier: BSD-3-Clause */
/* open-raw.c: writes raw disks; see open-raw.h. */
#include "disk/open-raw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/rwlock.h"

enum {
    START_BYTES = 512, /* what qcow2_probe looks at */
    /* Requests wait while so much of a hole is filled. */
    FILL_BYTES = 64 << 20,
};

struct raw_disk *
raw_disk_new(struct io *io, bool no_discard, bool guarded,
             struct qcow2_error *err)
{
    struct raw_disk *raw = calloc(1, sizeof *raw);

    if (!raw) {
        io_close(io);
        error_nomem(err);
        return NULL;
    }
    raw->source = raw_new(io, err);
    if (!raw->source) {
        free(raw);
        return NULL;
    }
    raw->no_discard = no_discard;
    raw->guarded = guarded;
    pthread_mutex_init(&raw->start_lock, NULL);
    pthread_mutex_init(&raw->flush_lock, NULL);
    rwlock_init_prefer_writers(&raw->rwlock);
    return raw;
}

void
raw_disk_free(struct raw_disk *raw)
{
    if (!raw)
        return;
    pthread_mutex_destroy(&raw->start_lock);
    pthread_mutex_destroy(&raw->flush_lock);
    pthread_rwlock_destroy(&raw->rwlock);
    raw_free(raw->source);
    free(raw);
}

/* A change of bytes of the disk. */
struct change {
    enum { CHANGE_WRITE, CHANGE_ZERO, CHANGE_PUNCH } kind;
    const void *buf;    /* CHANGE_WRITE */
    unsigned io_flags;  /* CHANGE_ZERO */
    uint64_t nr_bytes, off;
};

static int
check_not_failed(struct raw_disk *raw, struct qcow2_error *err)
{
    if (!io_flush_has_failed(raw->source->io))
        return 0;
    return error_set(err, EIO, "%s: " IO_FLUSH_FAILED,
                     raw->source->io->name);
}

/* Would the file look like a disk format after the change? */
static int
check_start(struct raw_disk *raw, const struct change *c,
            struct qcow2_error *err)
{
    unsigned char start[START_BYTES];
    uint64_t end = min_u64(c->off + c->nr_bytes, START_BYTES);
    const char *format;

    if (io_pread(raw->source->io, start, sizeof start, 0, err) == -1)
        return -1;
    if (c->kind == CHANGE_WRITE)
        memcpy(start + c->off, c->buf, end - c->off);
    else
        memset(start + c->off, 0, end - c->off);
    format = qcow2_probe(start, min_u64(raw->source->size, sizeof start));
    if (!format)
        return 0;
    return error_set(err, EPERM, "%s: refused to write what would make this "
                     "raw disk look like %s: it was opened as raw only "
                     "because it looked like no other format",
                     raw->source->io->name, format);
}

static int
make_change(struct raw_disk *raw, const struct change *c,
            struct qcow2_error *err)
{
    struct io *io = raw->source->io;

    switch (c->kind) {
    case CHANGE_WRITE:
        return io_pwrite(io, c->buf, c->nr_bytes, c->off, err);
    case CHANGE_ZERO:
        return io_zero(io, c->off, c->nr_bytes, c->io_flags, err);
    case CHANGE_PUNCH:
        return io_punch(io, c->off, c->nr_bytes, err);
    }
    return -1;
}

static int
change(struct raw_disk *raw, const struct change *c, struct qcow2_error *err)
{
    bool guarded = raw->guarded && c->off < START_BYTES;
    int r;

    if (check_not_failed(raw, err) == -1)
        return -1;
    if (!guarded)
        return make_change(raw, c, err);
    LOCK_SCOPE(&raw->start_lock);
    r = check_start(raw, c, err);
    return r == -1 ? -1 : make_change(raw, c, err);
}

int
raw_disk_write(struct raw_disk *raw, const void *buf, size_t nr_bytes,
               uint64_t guest_off, struct qcow2_error *err)
{
    const struct change c = {
        .kind = CHANGE_WRITE, .buf = buf,
        .nr_bytes = nr_bytes, .off = guest_off,
    };

    return change(raw, &c, err);
}

int
raw_disk_zero(struct raw_disk *raw, uint64_t nr_bytes, uint64_t guest_off,
              unsigned flags, struct qcow2_error *err)
{
    const struct change c = {
        .kind = CHANGE_ZERO,
        .io_flags = (flags & QCOW2_MAY_TRIM && !raw->no_discard
                     ? IO_ZERO_PUNCH : 0)
                    | (flags & QCOW2_FAST ? IO_ZERO_FAST : 0),
        .nr_bytes = nr_bytes, .off = guest_off,
    };

    return change(raw, &c, err);
}

int
raw_disk_trim(struct raw_disk *raw, uint64_t nr_bytes, uint64_t guest_off,
              struct qcow2_error *err)
{
    const struct change c = {
        .kind = CHANGE_PUNCH, .nr_bytes = nr_bytes, .off = guest_off,
    };
    struct qcow2_error error;

    if (raw->no_discard)
        return check_not_failed(raw, err);
    /* Advice: a file that cannot do it keeps what it has. */
    if (change(raw, &c, &error) == 0 || error.errnum == ENOTSUP)
        return 0;
    if (err)
        *err = error;
    return -1;
}

int
raw_disk_flush(struct raw_disk *raw, struct qcow2_error *err)
{
    LOCK_SCOPE(&raw->flush_lock);

    if (io_flush(raw->source->io, err) == 0)
        return 0;
    /* Nothing in memory refers to what was lost, and no mark would warn the
     * next process if this one was killed: drop it at once. */
    io_drop_cache(raw->source->io);
    return -1;
}

int
raw_disk_resize(struct raw_disk *raw, uint64_t size, bool may_shrink,
                struct qcow2_error *err)
{
    struct source *s = raw->source;
    WRLOCK_SCOPE(&raw->rwlock);

    if (s->io->readonly)
        return error_set(err, EROFS, "%s: it is open read-only",
                         s->io->name);
    if (size < s->size && !may_shrink) {
        error_set(err, EINVAL, "%s: the new size is smaller, which would "
                  "lose what lies beyond it", s->io->name);
        return error_hint(err, QCOW2_HINT_SHRINK);
    }
    if (io_truncate(s->io, size, err) == -1)
        return -1;
    s->size = size;
    return raw_disk_flush(raw, err);
}

/* Fills what is a hole from guest_off on, up to end; *len says how far this
 * call got. Nothing is written between the look and the filling: writes wait,
 * and other processes are kept out by the file's locks. */
static int
fill_hole(struct raw_disk *raw, uint64_t guest_off, uint64_t end,
          uint64_t *len, struct qcow2_error *err)
{
    bool is_hole;
    WRLOCK_SCOPE(&raw->rwlock);

    *len = min_u64(end - guest_off, FILL_BYTES);
    if (!range_inside(guest_off, *len, raw->source->size))
        return error_set(err, EINVAL, "the range lies outside of the disk");
    if (check_not_failed(raw, err) == -1
        || io_extent(raw->source->io, guest_off, len, &is_hole, err) == -1)
        return -1;
    *len = min_u64(*len, FILL_BYTES);
    return is_hole ? io_zero(raw->source->io, guest_off, *len, 0, err) : 0;
}

int
raw_disk_preallocate(struct raw_disk *raw, uint64_t nr_bytes,
                     uint64_t guest_off, enum qcow2_preallocation mode,
                     struct qcow2_error *err)
{
    uint64_t end = guest_off + nr_bytes, len;

    if (mode == QCOW2_PREALLOC_METADATA)
        return error_set(err, EINVAL, "%s: Unsupported preallocation "
                         "mode: metadata; a raw file has none: use falloc or "
                         "full", raw->source->io->name);
    for (; guest_off < end; guest_off += len)
        if (fill_hole(raw, guest_off, end, &len, err) == -1)
            return -1;
    return 0;
}
