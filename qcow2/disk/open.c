/* SPDX-License-Identifier: BSD-3-Clause */
/* open.c: opens and closes disks. */
#include "disk/open.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check.h"
#include "disk/open-disk.h"
#include "format/first-read.h"
#include "format/probe.h"
#include "meta/flush.h"
#include "meta/txn.h"
#include "storage/io-open.h"
#include "storage/path-policy.h"

/* Settles the format of an open file. */
static int
find_format(struct io *io, const struct qcow2_options *options,
            enum qcow2_format *format, struct qcow2_error *err)
{
    const char *looks_like;

    *format = options->format;
    if (*format != QCOW2_FORMAT_AUTO)
        return 0;
    if (probe_io(io, &looks_like, err) == -1)
        return -1;
    *format = QCOW2_FORMAT_QCOW2; /* which says what is wrong if it is not */
    if (options->probe_raw && !looks_like)
        *format = QCOW2_FORMAT_RAW;
    return 0;
}

/* What keeps an image from being written, or must be done before. */
static int
prepare_writable(struct image *img, struct qcow2_error *err)
{
    if (img->hdr.incompatible & INCOMPAT_CORRUPT) {
        error_set(err, EROFS, "%s: the image is marked corrupt and cannot be "
                  "written", img->name);
        return error_hint(err, QCOW2_HINT_READONLY | QCOW2_HINT_REPAIR);
    }
    if (img->hdr.incompatible & INCOMPAT_DIRTY) {
        IMAGE_DEBUG(img, QCOW2_DEBUG_OPEN, "%s: was not closed cleanly: "
                    "repairing refcounts", img->name);
        return check_repair_dirty(img, err);
    }
    return 0;
}

/* Do both names lead to one file? */
static bool
is_same_file(const struct policy_place *place, const char *named,
             const char *given)
{
    struct policy_file a = POLICY_FILE_INIT, b = POLICY_FILE_INIT;
    bool same = strcmp(named, given) == 0;

    if (place && policy_trust_name(place, named, &a, NULL) == 0) {
        same = policy_trust(given, &b, NULL) == 0 && policy_is_same(&a, &b);
        policy_file_free(&a);
        policy_file_free(&b);
    }
    return same;
}

/* Do the options give the image another backing file than it names, or read
 * that in another way than it says? */
static bool
is_overridden(const struct header *h, const struct policy_place *place,
              const struct qcow2_options *o)
{
    if (o->backing_none)
        return h->backing_file != NULL;
    if (o->backing && (!h->backing_file
                       || !is_same_file(place, h->backing_file, o->backing)))
        return true;
    return h->backing_file && h->backing_format
           && o->backing_format != QCOW2_FORMAT_AUTO
           && strcmp(h->backing_format, format_name(o->backing_format)) != 0;
}

int
disk_check_own_view(const struct qcow2_disk *disk, struct qcow2_error *err)
{
    struct image *img = disk->file->image;

    return img ? image_check_own_view(img, err) : 0;
}

struct image *
disk_image_to_edit(const struct qcow2_disk *disk, struct qcow2_error *err)
{
    struct image *img = disk->file->image;

    if (!img)
        error_set(err, ENOTSUP, "a raw disk has no internal snapshots");
    else if (disk->readonly)
        error_set(err, EROFS, "%s: it is open read-only", img->name);
    else
        return img;
    return NULL;
}

/* Opens the layers below the image, and puts it on them. */
static int
open_chain(struct qcow2_pool *pool, struct image *img, const char *path,
           const struct policy_place *place,
           const struct qcow2_options *options, uint64_t dev, uint64_t ino,
           struct chain_stop *stop, struct qcow2_error *err)
{
    struct source_chain *chain;
    struct layer *below;

    if (chain_open(pool, path, place, &img->hdr, options, dev, ino, stop,
                   &below, err) == -1)
        return -1;
    chain = chain_new(pool, &img->active.src, below, err);
    if (!chain)
        return -1;
    source_chain_put(img->chain);
    img->chain = chain;
    return 0;
}

static int
open_qcow2(struct open_file *file, struct io *io, const char *path,
           const struct policy_place *place,
           const struct qcow2_options *options, struct chain_stop *stop,
           struct qcow2_error *err)
{
    uint64_t dev = io->dev, ino = io->ino;
    struct image *img = image_open(io, options->readonly, file->pool->meta,
                                   file->pool->decompress, err);

    if (!img)
        return -1;
    file->image = img;
    file->ops = &image_disk_ops;
    file->requests = &img->rwlock;
    img->overridden = is_overridden(&img->hdr, place, options);
    img->no_discard = options->no_discard;
    img->warn = options->warn;
    img->warn_opaque = options->warn_opaque;
    img->debug = options->debug;
    img->debug_topics = options->debug ? options->debug_topics : 0;
    img->debug_opaque = options->debug_opaque;
    if (open_chain(file->pool, img, path, place, options, dev, ino, stop, err)
        == -1)
        return -1;
    if (!options->readonly && prepare_writable(img, err) == -1)
        return -1;
    IMAGE_DEBUG(img, QCOW2_DEBUG_OPEN, "%s: version %u, %" PRIu64 " bytes in "
                "clusters of %" PRIu32 ", %u layers, %" PRIu32 " snapshots",
                img->name, img->hdr.version, img->hdr.size,
                img->cluster_size, img->chain->nr_layers, img->snaptab.nr);
    return 0;
}

static int
open_raw(struct open_file *file, struct io *io,
         const struct qcow2_options *options, struct qcow2_error *err)
{
    file->raw = raw_disk_new(io, options->no_discard,
                             options->format == QCOW2_FORMAT_AUTO, err);
    if (!file->raw)
        return -1;
    file->ops = &raw_disk_ops;
    file->requests = &file->raw->rwlock;
    return 0;
}

/* Frees the file and its chain; writes nothing. */
static void
file_free(struct open_file *file)
{
    image_free(file->image);
    raw_disk_free(file->raw);
    if (file->owns_pool)
        qcow2_pool_free(file->pool);
    pthread_mutex_destroy(&file->lock);
    free(file);
}

/* Takes over io, also on failure. */
static struct open_file *
file_open(struct io *io, const char *path, const struct policy_place *place,
          const struct qcow2_options *options, struct chain_stop *stop,
          struct qcow2_error *err)
{
    struct open_file *file = calloc(1, sizeof *file);
    enum qcow2_format format;
    int r = -1;

    if (!file) {
        io_close(io);
        error_nomem(err);
        return NULL;
    }
    pthread_mutex_init(&file->lock, NULL);
    file->nr_users = 1;
    file->readonly = options->readonly;
    file->owns_pool = !options->pool;
    file->pool = options->pool ? options->pool : qcow2_pool_new(0, err);
    if (!file->pool
        || first_read_prepare(io, options->failures, options->no_lock, err)
           == -1
        || find_format(io, options, &format, err) == -1) {
        io_close(io);
    } else if (format == QCOW2_FORMAT_QCOW2) {
        r = open_qcow2(file, io, path, place, options, stop, err);
    } else {
        r = open_raw(file, io, options, err);
    }
    if (r == -1) {
        file_free(file);
        return NULL;
    }
    return file;
}

/* Ends one use of the file. The last one of an image that was written
 * leaves it clean.
 */
static int
file_put(struct open_file *file, struct qcow2_error *err)
{
    bool last;
    int r;

    pthread_mutex_lock(&file->lock);
    last = --file->nr_users == 0;
    pthread_mutex_unlock(&file->lock);
    if (!last)
        return 0;
    r = file->ops->finish(file, err);
    file_free(file);
    return r;
}

/* The chain of what is not the active disk of an image. */
static struct source_chain *
own_chain_new(struct open_file *file, struct view *snapshot,
              struct qcow2_error *err)
{
    struct source_chain *disks, *chain;

    if (!snapshot)
        return source_chain_new(file->raw->source, err);
    pthread_rwlock_rdlock(&file->image->rwlock);
    disks = source_chain_get(file->image->chain);
    pthread_rwlock_unlock(&file->image->rwlock);
    chain = chain_new_beside(disks, &snapshot->src, err);
    source_chain_put(disks);
    return chain;
}

/* A disk on the file, of which it takes over one use, also on failure. */
static struct qcow2_disk *
disk_new(struct open_file *file, struct view *snapshot,
         struct qcow2_error *err)
{
    struct qcow2_disk *disk = calloc(1, sizeof *disk);

    if (!disk) {
        error_nomem(err);
        goto fail;
    }
    disk->file = file;
    disk->snapshot = snapshot;
    disk->readonly = file->readonly || snapshot;
    if (snapshot || file->raw) {
        disk->own_chain = own_chain_new(file, snapshot, err);
        if (!disk->own_chain)
            goto fail;
    }
    return disk;

fail:
    free(disk);
    image_free_snapshot(snapshot);
    file_put(file, NULL);
    return NULL;
}

struct qcow2_disk *
disk_open_io(struct io *io, const char *path,
             const struct qcow2_options *options, struct qcow2_error *err)
{
    return disk_open_above(io, path, options, NULL, err);
}

struct qcow2_disk *
disk_open_above(struct io *io, const char *path,
                const struct qcow2_options *options, struct chain_stop *stop,
                struct qcow2_error *err)
{
    return disk_open_at(io, path, NULL, options, stop, err);
}

struct qcow2_disk *
disk_open_at(struct io *io, const char *path, const struct policy_place *place,
             const struct qcow2_options *options, struct chain_stop *stop,
             struct qcow2_error *err)
{
    struct open_file *file = file_open(io, path, place, options, stop, err);
    struct qcow2_disk *disk = file ? disk_new(file, NULL, err) : NULL;

    if (disk)
        disk->detect_zeroes = options->detect_zeroes;
    return disk;
}

static enum io_lock
lock_of(const struct qcow2_options *options)
{
    return options->no_lock    ? IO_LOCK_NONE
           : options->readonly ? IO_LOCK_READ
                               : IO_LOCK_WRITE;
}

struct qcow2_disk *
disk_open_file(const struct policy_file *file,
               const struct qcow2_options *options, struct chain_stop *stop,
               struct qcow2_error *err)
{
    const struct io_open_options o = {
        .readonly = options->readonly, .lock = lock_of(options),
        .nbd_timeout_ms = options->nbd_timeout_ms, .driver = options->driver,
    };
    struct io *io = io_open(file, &o, err);

    return io ? disk_open_at(io, file->path, &file->place, options, stop, err)
              : NULL;
}

struct qcow2_disk *
disk_open_path(const char *path, const struct qcow2_options *options,
               struct chain_stop *stop, struct qcow2_error *err)
{
    struct qcow2_disk *disk;
    struct policy_file file;
    struct io *io;

    if (options->fd >= 0) {
        io = io_file_open(path, options->fd, options->readonly,
                          lock_of(options), err);
        return io ? disk_open_above(io, path, options, stop, err) : NULL;
    }
    if (options->file)
        return disk_open_file(&options->file->file, options, stop, err);
    if (policy_trust(path, &file, err) == -1)
        return NULL;
    disk = disk_open_file(&file, options, stop, err);
    policy_file_free(&file);
    return disk;
}

struct qcow2_disk *
qcow2_open(const char *path, const struct qcow2_options *options,
           struct qcow2_error *err)
{
    return disk_open_path(path, options, NULL, err);
}

struct qcow2_disk *
qcow2_open_snapshot(struct qcow2_disk *disk, const char *word,
                    struct qcow2_error *err)
{
    struct image *img = disk->file->image;
    struct view *v;
    long i;

    if (!img) {
        error_set(err, ENOENT, "%s: a raw disk has no snapshots",
                  disk->file->raw->source->io->name);
        return NULL;
    }
    pthread_rwlock_rdlock(&img->rwlock);
    i = snaptab_find(&img->snaptab, word, err);
    v = i >= 0 ? image_open_snapshot(img, i, err) : NULL;
    pthread_rwlock_unlock(&img->rwlock);
    if (i < 0)
        error_prefix(err, "%s", img->name);
    if (!v)
        return NULL;
    pthread_mutex_lock(&disk->file->lock);
    disk->file->nr_users++;
    pthread_mutex_unlock(&disk->file->lock);
    return disk_new(disk->file, v, err);
}

int
qcow2_close(struct qcow2_disk *disk, struct qcow2_error *err)
{
    struct open_file *file;
    struct qcow2_error error;
    int r;

    if (!disk)
        return 0;
    file = disk->file;
    r = qcow2_flush(disk, err);
    source_chain_put(disk->own_chain);
    image_free_snapshot(disk->snapshot);
    free(disk);
    if (file_put(file, &error) == -1 && r == 0) {
        if (err)
            *err = error;
        r = -1;
    }
    return r;
}

struct source_chain *
disk_get_chain(const struct qcow2_disk *disk)
{
    RDLOCK_SCOPE_IF(disk_request_lock(disk));

    return source_chain_get(disk_chain(disk));
}

int
disk_replace_backing(struct qcow2_disk *disk, struct layer *below,
                     struct qcow2_error *err)
{
    struct image *img = disk_image_to_edit(disk, err);
    struct source_chain *chain, *old;
    struct txn t;
    int r;

    if (!img) {
        pool_put(disk->file->pool, below);
        return -1;
    }
    chain = chain_new(disk->file->pool, &img->active.src, below, err);
    if (!chain)
        return -1;
    if (txn_begin(&t, img, TXN_HEADER_ONLY | TXN_ANY_VIEW, err) == -1) {
        source_chain_put(chain);
        return -1;
    }
    old = txn_replace_chain(&t, chain, !img->overridden);
    r = txn_end(&t, 0, err);
    source_chain_put(old);
    return r;
}

struct image *
disk_image(struct qcow2_disk *disk)
{
    return disk->file->image;
}
