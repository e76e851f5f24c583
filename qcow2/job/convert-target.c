/* SPDX-License-Identifier: BSD-3-Clause */
/* convert-target.c: the image that convert writes; see convert.h. */
#include "job/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/blocks.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/compress.h"
#include "base/error.h"
#include "base/escape.h"
#include "cache/decompress-pool.h"
#include "disk/create.h"
#include "disk/open-disk.h"
#include "disk/open.h"
#include "meta/data-file.h"
#include "meta/flush.h"
#include "request/change.h"
#include "storage/io-align.h"
#include "storage/io-open.h"

enum { DEFAULT_SPARSE_BYTES = 4096, MIN_BLOCK_BYTES = 512 };

/* Guest bytes preallocated in a step, with writing them and without. */
enum { FULL_STEP_BYTES = 64 << 20 };
#define STEP_BYTES (UINT64_C(16) << 30)

static struct io *
create(struct convert_target *t, const struct convert_source *source,
       const struct qcow2_convert_options *o, struct qcow2_error *err)
{
    mode_t mode = convert_source_mode(source);
    struct qcow2_create_options c = o->create;

    if (o->format == QCOW2_FORMAT_QCOW) {
        error_set(err, ENOTSUP, "%s: images of the format qcow (version 1) "
                  "are not made", ESCAPED(t->file.path));
        return NULL;
    }
    c.size = max_u64(c.size, source->size);
    c.size_from_backing = false;
    return o->format == QCOW2_FORMAT_RAW
           ? create_raw_target(&t->file, &c, mode, err)
           : create_target(&t->file, &c, mode, err);
}

static void
set_open_options(struct qcow2_options *open,
                 const struct qcow2_convert_options *o)
{
    *open = (struct qcow2_options)QCOW2_OPTIONS_INIT;
    if (o->open)
        *open = *o->open;
    open->fd = -1;
    open->file = NULL;
    open->readonly = false;
    if (!o->no_create)
        open->window = (struct qcow2_window){ 0 };
    open->format = o->format;
    if (o->format == QCOW2_FORMAT_AUTO && !o->no_create)
        open->format = QCOW2_FORMAT_QCOW2;
}

/* Nothing of what is read may be written; the locks see to that too, where
 * they are taken. */
static int
check_not_source(const struct policy_file *file,
                 const struct convert_source *source, struct qcow2_error *err)
{
    if (!file->path || !convert_source_has_file(source, file))
        return 0;
    return error_set(err, EINVAL, "%s: it is read from, so it cannot be the "
                     "target", ESCAPED(file->path));
}

/* The same of the data file that the target is to have. */
static int
check_data_file(const struct policy_target *t,
                const struct convert_source *source,
                const struct qcow2_convert_options *o, struct qcow2_error *err)
{
    struct policy_target data;
    struct policy_place place;
    int r;

    if (!o->create.data_file)
        return 0;
    if (o->compress)
        return error_set(err, EINVAL, "an image with a data file has no "
                         "compressed clusters");
    policy_target_place(t, &place);
    r = policy_target_find_from(&place, o->create.data_file, &data, err);
    policy_place_free(&place);
    if (r == -1)
        return error_prefix(err, "data file");
    r = check_not_source(&data.file, source, err);
    policy_target_free(&data);
    return r;
}

/* A file that is there keeps what it has if it cannot be opened as asked. */
static int
check_direct(const struct policy_file *file, const struct qcow2_options *open,
             struct qcow2_error *err)
{
    const struct io_open_options o = {
        .readonly = true, .lock = IO_LOCK_NONE, .direct = true,
        .nbd_timeout_ms = open->nbd_timeout_ms, .driver = open->driver,
    };
    struct io *io;

    if (!file->path || policy_is_remote(file)
        || !io_cache_is_direct(open->cache))
        return 0;
    io = io_open(file, &o, err);
    io_close(io);
    return io ? 0 : -1;
}

/* Creates the file and opens it, without a moment in which its path could
 * come to lead to another. */
static struct qcow2_disk *
open_new(struct convert_target *t, const char *path,
         const struct convert_source *source,
         const struct qcow2_convert_options *o, struct qcow2_error *err)
{
    struct qcow2_options open;
    struct policy_place place;
    struct qcow2_disk *disk;
    struct io *io;

    set_open_options(&open, o);
    if (policy_target_find(path, &t->file, err) == -1
        || check_not_source(&t->file.file, source, err) == -1
        || check_data_file(&t->file, source, o, err) == -1
        || check_direct(&t->file.file, &open, err) == -1)
        return NULL;
    io = create(t, source, o, err);
    if (io && io_cache_is_direct(open.cache))
        io = io_align_direct(io, err);
    if (!io) {
        policy_target_remove(&t->file);
        return NULL;
    }
    /* There is nothing in it yet that would have to survive. */
    io->no_barriers = open.cache == QCOW2_CACHE_UNSAFE;
    /* Their names were just written, as o has them. */
    open.trust_backing = open.trust_data_file = true;
    policy_target_place(&t->file, &place);
    disk = disk_open_at(io, path, &place, &open, NULL, err);
    policy_place_free(&place);
    return disk;
}

/* The same of the data file that a target has already. */
static int
check_data_of_old(const struct qcow2_disk *disk,
                  const struct convert_source *source, struct qcow2_error *err)
{
    struct image *img = disk->file->image;
    struct policy_file data = POLICY_FILE_INIT;

    if (!img || !data_file_is_used(img))
        return 0;
    data.path = img->data->io->name;
    data.dev = img->data->io->dev;
    data.ino = img->data->io->ino;
    return check_not_source(&data, source, err);
}

static struct qcow2_disk *
open_old(const char *path, const struct convert_source *source,
         const struct qcow2_convert_options *o, struct qcow2_error *err)
{
    struct qcow2_disk *disk = NULL;
    struct qcow2_options open;
    struct policy_file file;

    if (policy_trust(path, &file, err) == -1)
        return NULL;
    set_open_options(&open, o);
    if (check_not_source(&file, source, err) == 0)
        disk = disk_open_file(&file, &open, NULL, err);
    policy_file_free(&file);
    if (disk && check_data_of_old(disk, source, err) == -1) {
        qcow2_close(disk, NULL);
        disk = NULL;
    }
    return disk;
}

static int
check_fits(struct convert_target *t, const char *path, uint64_t size,
           const struct qcow2_convert_options *o, struct qcow2_error *err)
{
    if (qcow2_get_size(t->disk) < size)
        return error_set(err, ENOSPC, "%s: the target has %" PRIu64 " bytes, "
                         "the source %" PRIu64, path,
                         qcow2_get_size(t->disk), size);
    if (o->compress && !t->disk->file->image)
        return error_set(err, EINVAL, "%s: only qcow2 images have compressed "
                         "clusters", path);
    if (o->compress && data_file_is_used(t->disk->file->image))
        return error_set(err, EINVAL, "%s: an image with a data file has no "
                         "compressed clusters", path);
    return 0;
}

int
convert_target_take(struct convert_target *t, struct qcow2_disk *disk,
                    const char *path, const struct convert_source *source,
                    const struct qcow2_convert_options *o,
                    struct qcow2_error *err)
{
    uint32_t sparse = o->sparse_bytes ? o->sparse_bytes
                                      : DEFAULT_SPARSE_BYTES;

    t->disk = disk;
    if (check_fits(t, path, source->size, o, err) == -1)
        return -1;
    t->prealloc = o->prealloc;
    if (!o->no_create && o->create.data_file_raw
        && t->prealloc == QCOW2_PREALLOC_OFF)
        t->prealloc = QCOW2_PREALLOC_METADATA;
    t->reads_zero = o->target_is_zero;
    if (!o->no_create)
        t->reads_zero = !o->create.backing
                        && (t->disk->file->image
                            || disk_io(t->disk)->can_grow);
    t->allocate_all = o->allocate_all;
    t->compress = o->compress;
    t->compress_level = o->compress_level;
    t->block_bytes = max_u64(MIN_BLOCK_BYTES, sparse);
    while (!is_power_of_2(t->block_bytes))
        t->block_bytes &= t->block_bytes - 1;
    t->block_bytes = min_u64(t->block_bytes, COPY_CHUNK_BYTES);
    if (t->disk->file->image)
        t->block_bytes = max_u64(t->block_bytes,
                                 qcow2_get_subcluster_size(t->disk));
    return 0;
}

int
convert_target_open(struct convert_target *t, const char *path,
                    const struct convert_source *source,
                    const struct qcow2_convert_options *o,
                    struct qcow2_error *err)
{
    struct qcow2_disk *disk;

    if (o->format == QCOW2_FORMAT_RAW && source->top_layers_only)
        return error_set(err, EINVAL, "%s: a raw file has no backing file",
                         path);
    disk = o->no_create ? open_old(path, source, o, err)
                        : open_new(t, path, source, o, err);
    return disk ? convert_target_take(t, disk, path, source, o, err) : -1;
}

int
convert_target_preallocate(struct convert_target *t, struct qcow2_error *err)
{
    uint64_t size = qcow2_get_size(t->disk);
    uint64_t step = t->prealloc == QCOW2_PREALLOC_FULL ? FULL_STEP_BYTES
                                                       : STEP_BYTES;
    uint64_t n = min_u64(size - t->preallocated, step);

    if (t->prealloc == QCOW2_PREALLOC_OFF || n == 0)
        return 0;
    if (qcow2_preallocate(t->disk, n, t->preallocated, t->prealloc, err)
        == -1)
        return -1;
    t->preallocated += n;
    return 1;
}

void
convert_target_restart_preallocation(struct convert_target *t)
{
    if (t->disk->file->image && !t->compress)
        t->preallocated = 0;
}

bool
convert_target_is_file(const struct convert_target *t)
{
    const struct io *io = disk_io(t->disk);

    return io->can_grow && io->is_local;
}

uint32_t
convert_target_align(const struct convert_target *t)
{
    return t->disk->file->image ? qcow2_get_cluster_size(t->disk)
                                : MIN_BLOCK_BYTES;
}

static int
write_zeroes(const struct convert_target *t, uint64_t nr_bytes,
             uint64_t guest_off, struct qcow2_error *err)
{
    return t->reads_zero ? 0 : qcow2_zero(t->disk, nr_bytes, guest_off,
                                          QCOW2_MAY_TRIM, err);
}

static int
write_run(const struct convert_target *t, bool zero, const void *buf,
          uint64_t nr_bytes, uint64_t guest_off, struct qcow2_error *err)
{
    if (zero)
        return write_zeroes(t, nr_bytes, guest_off, err);
    return qcow2_pwrite(t->disk, buf, nr_bytes, guest_off, 0, err);
}

/* Writes data, blocks of zeroes in it as such. */
static int
write_sparse(const struct convert_target *t, const struct copy_chunk *c,
             struct qcow2_error *err)
{
    for (uint64_t pos = 0, len; pos < c->nr_bytes; pos += len) {
        uint64_t guest_off = c->guest_off + pos;
        bool zero;

        len = blocks_alike(c->buf + pos, NULL, c->nr_bytes - pos, guest_off,
                           t->block_bytes, &zero);
        if (write_run(t, zero, c->buf + pos, len, guest_off, err) == -1)
            return -1;
    }
    return 0;
}

/* What became of a cluster that was to be compressed; at the end of its slot
 * in the work space, in front of which the compressed data are. */
struct packed {
    enum { PACKED_ZERO, PACKED_NOT, PACKED } kind;
    uint32_t nr_bytes;
};

static struct packed *
packed_of(const struct convert_target *t, const struct copy_chunk *c,
          uint64_t pos)
{
    return (struct packed *)(c->space + pos
                             + qcow2_get_cluster_size(t->disk)
                             - sizeof(struct packed));
}

/* Are all bytes that the disk has of the cluster at pos in the chunk? The
 * source may end in a cluster that the target has more of: that one is merged
 * with what is there, and a compressed cluster cannot be. */
static bool
is_whole(const struct convert_target *t, const struct copy_chunk *c,
         uint64_t pos)
{
    return pos + qcow2_get_cluster_size(t->disk) <= c->nr_bytes
           || c->guest_off + c->nr_bytes == qcow2_get_size(t->disk)
           || t->reads_zero;
}

static int
pack(const struct convert_target *t, struct copy_chunk *c,
     struct compress_context *context, struct qcow2_error *err)
{
    uint32_t size = qcow2_get_cluster_size(t->disk);

    for (uint64_t pos = 0; pos < c->nr_bytes; pos += size) {
        struct packed *p = packed_of(t, c, pos);
        long n = 0;

        if (bytes_are_zero(c->buf + pos, size) && !t->allocate_all) {
            p->kind = PACKED_ZERO;
            continue;
        }
        p->kind = PACKED_NOT;
        if (!is_whole(t, c, pos))
            continue;
        n = compress_encode(context,
                            t->disk->file->image->hdr.compression_type,
                            t->compress_level, c->buf + pos, size,
                            c->space + pos, size - sizeof *p);
        if (n < 0)
            return error_set_errno(err, errno, "compressing a cluster");
        if (n > 0)
            p->kind = PACKED;
        p->nr_bytes = n;
    }
    return 0;
}

int
convert_target_prepare(const struct convert_target *t, struct copy_chunk *c,
                       struct qcow2_error *err)
{
    struct decompress_pool *decompress;
    struct workspace *w;
    uint64_t end;
    int r;

    if (!t->compress)
        return 0;
    end = round_up(c->nr_bytes, qcow2_get_cluster_size(t->disk));
    memset(c->buf + c->nr_bytes, 0, end - c->nr_bytes);
    decompress = t->disk->file->image->decompress;
    w = decompress_pool_take_space(decompress, 0, 0, err);
    if (!w)
        return -1;
    r = pack(t, c, w->context, err);
    decompress_pool_put_space(decompress, w);
    return r;
}

/* One cluster, at pos of the chunk. */
static int
write_packed_cluster(const struct convert_target *t,
                     const struct copy_chunk *c, uint64_t pos,
                     struct qcow2_error *err)
{
    struct image *img = t->disk->file->image;
    const struct packed *p = packed_of(t, c, pos);
    struct guest_change change = {
        .guest_off = c->guest_off + pos,
        .nr_bytes = min_u64(img->cluster_size, c->nr_bytes - pos),
    };

    switch (p->kind) {
    case PACKED_ZERO:
        change.kind = CHANGE_ZERO;
        change.flags = QCOW2_MAY_TRIM;
        return t->reads_zero ? 0 : change_guest(img, &change, err);
    case PACKED_NOT:
        change.kind = CHANGE_WRITE;
        change.buf = c->buf + pos;
        break;
    case PACKED:
        change.kind = CHANGE_WRITE_COMPRESSED;
        change.buf = c->space + pos;
        change.packed_bytes = p->nr_bytes;
        break;
    }
    return change_guest(img, &change, err);
}

static int
write_packed(const struct convert_target *t, const struct copy_chunk *c,
             struct qcow2_error *err)
{
    struct image *img = t->disk->file->image;
    int r = 0;

    RDLOCK_SCOPE(&img->rwlock);
    if (image_begin_write(img, err) == -1)
        return -1;
    for (uint64_t pos = 0; r == 0 && pos < c->nr_bytes;
         pos += img->cluster_size) {
        struct qcow2_error error;

        r = write_packed_cluster(t, c, pos, &error);
        if (r == -1 && flush_for_space(img, &error))
            r = write_packed_cluster(t, c, pos, &error);
        if (r == -1 && err)
            *err = error;
    }
    return r;
}

/* Compressed clusters are written past the disk's requests. */
static int
answer(const struct convert_target *t, struct qcow2_error *err)
{
    enum qcow2_cache cache = t->disk->file->cache;

    return cache == QCOW2_CACHE_WRITETHROUGH
                   || cache == QCOW2_CACHE_DIRECTSYNC
               ? disk_flush(t->disk, err) : 0;
}

int
convert_target_write(const struct convert_target *t, struct copy_chunk *c,
                     struct qcow2_error *err)
{
    if (c->kind == COPY_ZERO)
        return write_zeroes(t, c->nr_bytes, c->guest_off, err);
    if (t->compress)
        return write_packed(t, c, err) == -1 ? -1 : answer(t, err);
    if (t->allocate_all)
        return qcow2_pwrite(t->disk, c->buf, c->nr_bytes, c->guest_off, 0,
                            err);
    return write_sparse(t, c, err);
}

int
convert_target_close(struct convert_target *t, bool complete,
                     struct qcow2_error *err)
{
    int r = 0;

    if (complete && disk_flush(t->disk, err) == -1)
        r = -1;
    if (qcow2_close(t->disk, r == 0 ? err : NULL) == -1)
        r = -1;
    t->disk = NULL;
    if (!complete || r == -1)
        policy_target_remove(&t->file);
    policy_target_free(&t->file);
    return r;
}
