/* SPDX-License-Identifier: BSD-3-Clause */
/* open-raw.c: writes raw disks; see open-raw.h. */
#include "disk/open-raw.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/rwlock.h"
#include "disk/format-driver.h"
#include "disk/open-disk.h"
#include "format/probe.h"
#include "request/request.h"

enum {
    /* A raw file has no clusters: what its file system likely has for
     * blocks. */
    BLOCK_BYTES = 4096,
    /* Requests wait while so much of a hole is filled. */
    FILL_BYTES = 64 << 20,
    ZERO_BYTES = 64 << 10,
};

/* Takes over io, also on failure. */
static struct raw_disk *
raw_disk_new(struct io *io, const struct qcow2_options *options,
             struct qcow2_error *err)
{
    struct raw_disk *raw = calloc(1, sizeof *raw);

    if (!raw) {
        io_close(io);
        error_nomem(err);
        return NULL;
    }
    io->keeps_size = true;
    raw->source = raw_new(io, err);
    if (!raw->source) {
        free(raw);
        return NULL;
    }
    raw->no_discard = options->no_discard;
    raw->guarded = options->format == QCOW2_FORMAT_AUTO;
    pthread_mutex_init(&raw->start_lock, NULL);
    pthread_mutex_init(&raw->flush_lock, NULL);
    rwlock_init_prefer_writers(&raw->rwlock);
    return raw;
}

static void
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
check_start(struct raw_disk *raw, const struct guest_change *c,
            struct qcow2_error *err)
{
    unsigned char start[PROBE_BYTES];
    uint64_t end = min_u64(c->guest_off + c->nr_bytes, PROBE_BYTES);
    const char *format;

    if (io_pread(raw->source->io, start, sizeof start, 0, err) == -1)
        return -1;
    if (c->kind == CHANGE_WRITE)
        memcpy(start + c->guest_off, c->buf, end - c->guest_off);
    else
        memset(start + c->guest_off, 0, end - c->guest_off);
    format = qcow2_probe(start, min_u64(raw->source->size, sizeof start));
    if (!format)
        return 0;
    return error_set(err, EPERM, "%s: refused to write what would make this "
                     "raw disk look like %s: it was opened as raw only "
                     "because it looked like no other format",
                     raw->source->io->name, format);
}

static int
zero(struct raw_disk *raw, const struct guest_change *c,
     struct qcow2_error *err)
{
    unsigned flags = (c->flags & QCOW2_MAY_TRIM && !raw->no_discard
                      ? IO_ZERO_PUNCH : 0)
                     | (c->flags & QCOW2_FAST ? IO_ZERO_FAST : 0);

    return io_zero(raw->source->io, c->guest_off, c->nr_bytes, flags, err);
}

/* Advice: a file that cannot do it keeps what it has. */
static int
trim(struct raw_disk *raw, const struct guest_change *c,
     struct qcow2_error *err)
{
    struct qcow2_error error;

    if (io_punch(raw->source->io, c->guest_off, c->nr_bytes, &error) == 0
        || error.errnum == ENOTSUP)
        return 0;
    if (err)
        *err = error;
    return -1;
}

static int
make_change(struct raw_disk *raw, const struct guest_change *c,
            struct qcow2_error *err)
{
    switch (c->kind) {
    case CHANGE_WRITE:
        return io_pwrite(raw->source->io, c->buf, c->nr_bytes, c->guest_off,
                         err);
    case CHANGE_ZERO:
        return zero(raw, c, err);
    case CHANGE_TRIM:
        return trim(raw, c, err);
    case CHANGE_WRITE_COMPRESSED:
    case CHANGE_REPLACE:
        break;
    }
    assert(!"not for raw disks");
    return -1;
}

static int
change(struct raw_disk *raw, const struct guest_change *c,
       struct qcow2_error *err)
{
    bool guarded = raw->guarded && c->guest_off < PROBE_BYTES;
    int r;

    if (check_not_failed(raw, err) == -1)
        return -1;
    if (c->kind == CHANGE_TRIM && raw->no_discard)
        return 0;
    if (!guarded)
        return make_change(raw, c, err);
    LOCK_SCOPE(&raw->start_lock);
    r = check_start(raw, c, err);
    return r == -1 ? -1 : make_change(raw, c, err);
}

static int
change_observed(struct open_file *file, const struct guest_change *c,
                struct qcow2_error *err)
{
    struct raw_disk *raw = file->raw;
    int r;

    if (change_announce(raw->observers, c, err) == -1)
        return -1;
    r = change(raw, c, err);
    change_finish(raw->observers, c, r);
    return r;
}

static int
flush(struct raw_disk *raw, struct qcow2_error *err)
{
    LOCK_SCOPE(&raw->flush_lock);

    if (io_flush(raw->source->io, err) == 0)
        return 0;
    /* Nothing in memory refers to what was lost, and no mark would warn the
     * next process if this one was killed: drop it at once. */
    io_drop_cache(raw->source->io);
    return -1;
}

static int
truncate_observed(struct raw_disk *raw, uint64_t size,
                  struct qcow2_error *err)
{
    struct source *s = raw->source;
    const struct guest_change c = {
        .kind = CHANGE_REPLACE, .guest_off = min_u64(size, s->size),
        .nr_bytes = max_u64(size, s->size) - min_u64(size, s->size),
    };
    int r;

    if (change_announce(raw->observers, &c, err) == -1)
        return -1;
    r = io_truncate(s->io, size, err);
    if (r == 0) {
        s->size = size;
        r = flush(raw, err);
    }
    change_finish(raw->observers, &c, r);
    return r;
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
    return truncate_observed(raw, size, err);
}

/* Writes zeroes to all of a hole, so that its space is not only reserved. */
static int
write_zeroes(struct io *io, uint64_t host_off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    static const unsigned char zeroes[ZERO_BYTES];

    for (uint64_t n; nr_bytes > 0; host_off += n, nr_bytes -= n) {
        n = min_u64(nr_bytes, sizeof zeroes);
        if (io_pwrite(io, zeroes, n, host_off, err) == -1)
            return -1;
    }
    return 0;
}

/* Fills what is a hole from guest_off on, up to end; *len says how far this
 * call got. Nothing is written between the look and the filling: writes wait,
 * and other processes are kept out by the file's locks. */
static int
fill_hole(struct raw_disk *raw, uint64_t guest_off, uint64_t end,
          enum qcow2_preallocation mode, uint64_t *len,
          struct qcow2_error *err)
{
    struct io *io = raw->source->io;
    bool is_hole;
    WRLOCK_SCOPE(&raw->rwlock);

    *len = min_u64(end - guest_off, FILL_BYTES);
    if (!range_inside(guest_off, *len, raw->source->size))
        return error_set(err, EINVAL, "the range lies outside of the disk");
    if (check_not_failed(raw, err) == -1
        || io_extent(io, guest_off, len, &is_hole, err) == -1)
        return -1;
    *len = min_u64(*len, FILL_BYTES);
    if (!is_hole)
        return 0;
    return mode == QCOW2_PREALLOC_FULL
           ? write_zeroes(io, guest_off, *len, err)
           : io_zero(io, guest_off, *len, 0, err);
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
        if (fill_hole(raw, guest_off, end, mode, &len, err) == -1)
            return -1;
    return 0;
}

static int
read_disk(struct qcow2_disk *disk, void *buf, size_t nr_bytes,
          uint64_t guest_off, struct qcow2_error *err)
{
    return read_chain(disk_chain(disk), 0, buf, nr_bytes, guest_off, err);
}

static int
begin_write(struct open_file *file, struct qcow2_error *err)
{
    (void)file;
    (void)err;
    return 0;
}

static bool
make_space(struct open_file *file, const struct qcow2_error *why)
{
    (void)file;
    (void)why;
    return false;
}

static int
flush_disk(struct open_file *file, struct qcow2_error *err)
{
    return flush(file->raw, err);
}

/* Was flushed, and has nothing else to leave clean. */
static int
finish(struct open_file *file, struct qcow2_error *err)
{
    (void)file;
    (void)err;
    return 0;
}

static bool
can_fast_zero(const struct open_file *file)
{
    (void)file;
    return true;
}

static uint32_t
cluster_size(const struct open_file *file)
{
    (void)file;
    return BLOCK_BYTES;
}

static struct write_observer **
observers(struct open_file *file)
{
    return &file->raw->observers;
}

const struct disk_ops raw_disk_ops = {
    .format = QCOW2_FORMAT_RAW,
    .read = read_disk,
    .begin_write = begin_write,
    .change = change_observed,
    .make_space = make_space,
    .flush = flush_disk,
    .finish = finish,
    .can_fast_zero = can_fast_zero,
    .cluster_size = cluster_size,
    .subcluster_size = cluster_size,
    .observers = observers,
};

static int
open_disk(struct open_file *file, struct io *io, const struct opening *o,
          struct qcow2_error *err)
{
    file->raw = raw_disk_new(io, o->options, err);
    if (!file->raw)
        return -1;
    file->ops = &raw_disk_ops;
    file->requests = &file->raw->rwlock;
    file->chain = source_chain_new(file->raw->source, err);
    return file->chain ? 0 : -1;
}

static void
free_disk(struct open_file *file)
{
    source_chain_put(file->chain);
    raw_disk_free(file->raw);
}

static struct source *
open_layer(struct qcow2_pool *pool, struct io *io, struct qcow2_error *err)
{
    (void)pool;
    return raw_new(io, err);
}

const struct format_driver raw_driver = {
    .format = QCOW2_FORMAT_RAW,
    .open = open_disk,
    .open_layer = open_layer,
    .free = free_disk,
};
