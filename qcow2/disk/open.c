/* SPDX-License-Identifier: BSD-3-Clause */
/* open.c: opens and closes disks. */
#include "disk/open.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/format-driver.h"
#include "disk/open-data.h"
#include "disk/open-disk.h"
#include "format/first-read.h"
#include "format/probe.h"
#include "meta/txn.h"
#include "storage/io-open.h"
#include "storage/path-policy.h"

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
        error_set(err, ENOTSUP, "%s: it is %s, and only a qcow2 image has "
                  "this to change", disk->file->io->name,
                  qcow2_format_name(disk->file->ops->format));
    else if (disk->readonly)
        error_set(err, EROFS, "%s: it is open read-only", img->name);
    else
        return img;
    return NULL;
}

/* Frees the file and its chain; writes nothing. */
static void
file_free(struct open_file *file)
{
    if (file->driver)
        file->driver->free(file);
    if (file->owns_pool)
        qcow2_pool_free(file->pool);
    pthread_mutex_destroy(&file->lock);
    free(file);
}

/* Takes over io, also on failure. */
static struct open_file *
file_open(struct io *io, const struct opening *o, struct qcow2_error *err)
{
    const struct qcow2_options *options = o->options;
    struct open_file *file = calloc(1, sizeof *file);
    enum qcow2_format format = options->format;
    int r = -1;

    if (!file) {
        io_close(io);
        error_nomem(err);
        return NULL;
    }
    pthread_mutex_init(&file->lock, NULL);
    file->nr_users = 1;
    file->readonly = options->readonly;
    file->cache = options->cache;
    file->owns_pool = !options->pool;
    file->pool = options->pool ? options->pool : qcow2_pool_new(0, err);
    if (!file->pool
        || first_read_prepare(io, options->failures, options->no_lock, err)
           == -1
        || probe_format(io, options->probe_raw, &format, err) == -1) {
        io_close(io);
    } else {
        file->io = io;
        file->driver = format_driver(format);
        r = file->driver->open(file, io, o, err);
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
        return source_chain_get(file->chain);
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
    if (snapshot || file->chain) {
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
    const struct opening o = {
        .path = path, .place = place, .options = options, .stop = stop,
    };
    struct open_file *file = file_open(io, &o, err);
    struct qcow2_disk *disk = file ? disk_new(file, NULL, err) : NULL;

    if (disk)
        disk->detect_zeroes = options->detect_zeroes;
    return disk;
}

static struct io_open_options
io_options_of(const struct qcow2_options *options)
{
    return (struct io_open_options){
        .readonly = options->readonly, .lock = disk_lock_of(options),
        .nbd_timeout_ms = options->nbd_timeout_ms, .driver = options->driver,
        .direct = io_cache_is_direct(options->cache),
        .window = options->window,
    };
}

struct qcow2_disk *
disk_open_file(const struct policy_file *file,
               const struct qcow2_options *options, struct chain_stop *stop,
               struct qcow2_error *err)
{
    const struct io_open_options o = io_options_of(options);
    struct io *io = io_open(file, &o, err);

    return io ? disk_open_at(io, file->path, &file->place, options, stop, err)
              : NULL;
}

struct qcow2_disk *
disk_open_path(const char *path, const struct qcow2_options *options,
               struct chain_stop *stop, struct qcow2_error *err)
{
    const struct io_open_options o = io_options_of(options);
    struct qcow2_disk *disk;
    struct policy_file file;
    struct io *io;

    if (options->fd >= 0) {
        io = io_file_open(path, options->fd, o.readonly, o.lock, err);
        if (io)
            io = io_open_over(io, &o, err);
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
        error_set(err, ENOENT, "%s: it is %s, and only a qcow2 image has "
                  "internal snapshots", disk->file->io->name,
                  qcow2_format_name(disk->file->ops->format));
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
    r = disk_flush(disk, err);
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
