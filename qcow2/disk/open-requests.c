/* SPDX-License-Identifier: BSD-3-Clause */
/* open-requests.c: where requests to a disk enter: checks them, and hands
 * them to the image or the raw file.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/blocks.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/compress.h"
#include "base/error.h"
#include "disk/open-disk.h"
#include "request/request.h"
#include "storage/io-nbd.h"

pthread_rwlock_t *
disk_request_lock(const struct qcow2_disk *disk)
{
    return disk->readonly ? NULL : disk->file->requests;
}

pthread_rwlock_t *
disk_image_lock(const struct qcow2_disk *disk)
{
    return disk->file->image ? &disk->file->image->rwlock : NULL;
}

uint64_t
qcow2_get_size(const struct qcow2_disk *disk)
{
    RDLOCK_SCOPE_IF(disk_request_lock(disk));

    return disk_chain(disk)->layers[0]->size;
}

bool
qcow2_is_readonly(const struct qcow2_disk *disk)
{
    return disk->readonly;
}

bool
qcow2_can_fast_zero(const struct qcow2_disk *disk)
{
    RDLOCK_SCOPE_IF(disk_image_lock(disk));

    return disk->file->ops->can_fast_zero(disk->file);
}

uint32_t
qcow2_get_cluster_size(const struct qcow2_disk *disk)
{
    return disk->file->ops->cluster_size(disk->file);
}

uint32_t
qcow2_get_subcluster_size(const struct qcow2_disk *disk)
{
    return disk->file->ops->subcluster_size(disk->file);
}

enum qcow2_format
qcow2_get_format(const struct qcow2_disk *disk)
{
    return disk->file->ops->format;
}

bool
qcow2_has_feature(const char *name)
{
    if (strcmp(name, "zlib") == 0)
        return compress_supported(COMPRESS_ZLIB);
    if (strcmp(name, "zstd") == 0)
        return compress_supported(COMPRESS_ZSTD);
#ifdef HAVE_LIBDEFLATE
    if (strcmp(name, "libdeflate") == 0)
        return true;
#endif
    if (strcmp(name, "nbd") == 0)
        return io_nbd_supported();
    return false;
}

/* With disk_request_lock held. */
static int
check_range(const struct source_chain *chain, uint64_t nr_bytes,
            uint64_t guest_off, struct qcow2_error *err)
{
    uint64_t size = chain->layers[0]->size;

    if (range_inside(guest_off, nr_bytes, size))
        return 0;
    return error_set(err, EINVAL, "%" PRIu64 " bytes at offset %" PRIu64
                     " do not lie inside the disk, which has %" PRIu64
                     " bytes", nr_bytes, guest_off, size);
}

int
qcow2_pread(struct qcow2_disk *disk, void *buf, size_t nr_bytes,
            uint64_t guest_off, struct qcow2_error *err)
{
    const struct source_chain *chain;
    RDLOCK_SCOPE_IF(disk_request_lock(disk));

    chain = disk_chain(disk);
    if (check_range(chain, nr_bytes, guest_off, err) == -1)
        return -1;
    if (disk->readonly)
        return read_chain(chain, 0, buf, nr_bytes, guest_off, err);
    return disk->file->ops->read(disk, buf, nr_bytes, guest_off, err);
}

static int
change_once(struct qcow2_disk *disk, const struct guest_change *c,
            struct qcow2_error *err)
{
    return disk->file->ops->change(disk->file, c, err);
}

/* Turns what is zero in a write, subcluster by subcluster, into requests of
 * zero.
 */
static int
write_detecting(struct qcow2_disk *disk, const struct guest_change *all,
                struct qcow2_error *err)
{
    bool unmap = disk->detect_zeroes == QCOW2_DETECT_ZEROES_UNMAP;
    uint32_t unit = qcow2_get_subcluster_size(disk);
    uint64_t done = 0;

    while (done < all->nr_bytes) {
        const unsigned char *buf = (const unsigned char *)all->buf + done;
        struct guest_change c = *all;
        bool zero;

        c.buf = buf;
        c.guest_off += done;
        c.nr_bytes = blocks_alike(buf, NULL, all->nr_bytes - done,
                                  c.guest_off, unit, &zero);
        if (zero) {
            c.kind = CHANGE_ZERO;
            c.flags = unmap ? QCOW2_MAY_TRIM : 0;
        }
        if (change_once(disk, &c, err) == -1)
            return -1;
        done += c.nr_bytes;
    }
    return 0;
}

static int
try_change(struct qcow2_disk *disk, const struct guest_change *c,
           struct qcow2_error *err)
{
    bool detect = c->kind == CHANGE_WRITE
                  && disk->detect_zeroes != QCOW2_DETECT_ZEROES_OFF;

    return detect ? write_detecting(disk, c, err) : change_once(disk, c, err);
}

/* A request may be made any number of times. */
static int
change_bytes(struct qcow2_disk *disk, const struct guest_change *c,
             struct qcow2_error *err)
{
    struct qcow2_error error;

    if (!err)
        err = &error;
    if (try_change(disk, c, err) == 0)
        return 0;
    return disk->file->ops->make_space(disk->file, err)
           ? try_change(disk, c, err) : -1;
}

/* Before the request is answered? */
static bool
must_be_durable(const struct qcow2_disk *disk, const struct guest_change *c)
{
    switch (disk->file->cache) {
    case QCOW2_CACHE_WRITEBACK:
    case QCOW2_CACHE_NONE:
        return c->flags & QCOW2_FUA;
    case QCOW2_CACHE_WRITETHROUGH:
    case QCOW2_CACHE_DIRECTSYNC:
        return true;
    case QCOW2_CACHE_UNSAFE:
        return false;
    }
    __builtin_unreachable();
}

static int
change_and_flush(struct qcow2_disk *disk, const struct guest_change *c,
                 struct qcow2_error *err)
{
    int r = 0;

    if (c->nr_bytes > 0)
        r = change_bytes(disk, c, err);
    if (r == 0 && must_be_durable(disk, c))
        r = disk->file->ops->flush(disk->file, err);
    return r;
}

static int
change(struct qcow2_disk *disk, const struct guest_change *c,
       struct qcow2_error *err)
{
    struct open_file *file = disk->file;

    if (disk->readonly)
        return error_set(err, EROFS, "the disk is read-only");
    RDLOCK_SCOPE(file->requests);
    if (check_range(disk_chain(disk), c->nr_bytes, c->guest_off, err) == -1
        || file->ops->begin_write(file, err) == -1)
        return -1;
    return change_and_flush(disk, c, err);
}

int
qcow2_pwrite(struct qcow2_disk *disk, const void *buf, size_t nr_bytes,
             uint64_t guest_off, unsigned flags, struct qcow2_error *err)
{
    const struct guest_change c = {
        .kind = CHANGE_WRITE, .buf = buf, .nr_bytes = nr_bytes,
        .guest_off = guest_off, .flags = flags,
    };

    return change(disk, &c, err);
}

int
qcow2_zero(struct qcow2_disk *disk, uint64_t nr_bytes, uint64_t guest_off,
           unsigned flags, struct qcow2_error *err)
{
    const struct guest_change c = {
        .kind = CHANGE_ZERO, .nr_bytes = nr_bytes, .guest_off = guest_off,
        .flags = flags,
    };

    return change(disk, &c, err);
}

int
qcow2_trim(struct qcow2_disk *disk, uint64_t nr_bytes, uint64_t guest_off,
           unsigned flags, struct qcow2_error *err)
{
    const struct guest_change c = {
        .kind = CHANGE_TRIM, .nr_bytes = nr_bytes, .guest_off = guest_off,
        .flags = flags,
    };

    return change(disk, &c, err);
}

int
disk_populate(struct qcow2_disk *disk, uint64_t nr_bytes, uint64_t guest_off,
              struct qcow2_error *err)
{
    struct image *img = disk_image_to_edit(disk, err);
    struct open_file *file = disk->file;
    struct qcow2_error error;
    int r;

    if (!img)
        return -1;
    if (!err)
        err = &error;
    RDLOCK_SCOPE(file->requests);
    if (check_range(disk_chain(disk), nr_bytes, guest_off, err) == -1
        || file->ops->begin_write(file, err) == -1)
        return -1;
    r = populate_range(img, nr_bytes, guest_off, err);
    if (r == -1 && file->ops->make_space(file, err))
        r = populate_range(img, nr_bytes, guest_off, err);
    return r;
}

int
qcow2_flush(struct qcow2_disk *disk, struct qcow2_error *err)
{
    return disk->file->cache == QCOW2_CACHE_UNSAFE ? 0
                                                   : disk_flush(disk, err);
}

int
disk_flush(struct qcow2_disk *disk, struct qcow2_error *err)
{
    if (disk->readonly)
        return 0;
    RDLOCK_SCOPE(disk_request_lock(disk));
    return disk->file->ops->flush(disk->file, err);
}

int
qcow2_map(struct qcow2_disk *disk, uint64_t nr_bytes, uint64_t guest_off,
          qcow2_extent_fn *fn, void *opaque, struct qcow2_error *err)
{
    struct image *changes = disk->readonly ? NULL : disk->file->image;
    RDLOCK_SCOPE_IF(disk_request_lock(disk));

    if (check_range(disk_chain(disk), nr_bytes, guest_off, err) == -1)
        return -1;
    return extents_walk(disk_chain(disk), changes, nr_bytes, guest_off, fn,
                        opaque, err);
}

/* Called by qcow2_map, under the request lock. */
static int
prefetch_extent(void *opaque, const struct qcow2_extent *e)
{
    const struct source_chain *chain = disk_chain(opaque);

    if (e->has_host_off && !e->zero)
        io_prefetch(source_file(chain->layers[e->depth], e->compressed),
                    e->host_off, e->nr_bytes);
    return 0;
}

int
qcow2_prefetch(struct qcow2_disk *disk, uint64_t nr_bytes,
               uint64_t guest_off, struct qcow2_error *err)
{
    return qcow2_map(disk, nr_bytes, guest_off, prefetch_extent,
                     disk, err);
}
