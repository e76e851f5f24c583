/* SPDX-License-Identifier: BSD-3-Clause */
/* open-disk.h: what a struct qcow2_disk is made of. */
#ifndef QCOW2_OPEN_DISK_H
#define QCOW2_OPEN_DISK_H

#include <pthread.h>
#include <stdbool.h>

#include "disk/bitmap-observer.h"
#include "disk/chain.h"
#include "disk/disk-ops.h"
#include "disk/open-raw.h"
#include "layer/source.h"
#include "meta/image.h"
#include "qcow2.h"

/* One open file with its chain, shared by the disk itself and the
 * disks of its snapshots.
 */
struct open_file {
    pthread_mutex_t lock;       /* of nr_users */
    unsigned nr_users;
    struct qcow2_pool *pool;
    bool owns_pool;
    bool readonly;
    enum qcow2_cache cache;
    const struct format_driver *driver;
    const struct disk_ops *ops; /* NULL: it could not be opened */
    const struct io *io;        /* its own: the image's, raw disk's, … */
    struct image *image;        /* qcow2 only */
    struct bitmap_observer bitmaps; /* of the image's */
    struct raw_disk *raw;       /* raw only */
    struct source_chain *chain; /* constant; NULL: the image has its own */
    pthread_rwlock_t *requests; /* what disk_request_lock is if it is
                                 * writable: the image's or raw disk's */
};

struct qcow2_disk {
    struct open_file *file;
    struct view *snapshot;      /* NULL: the active disk */
    struct source_chain *own_chain; /* of a snapshot, or the file's: constant.
                                     * NULL: it has the image's */
    bool readonly;
    enum qcow2_detect_zeroes detect_zeroes;
};

/* The chain that the disk is on for now. It is borrowed: by holders of
 * disk_request_lock until they release it, else until the disk is closed.
 */
static inline struct source_chain *
disk_chain(const struct qcow2_disk *disk)
{
    return disk->own_chain ? disk->own_chain : disk->file->image->chain;
}

/* The same with a reference, for as long as the caller likes, with no lock
 * held. */
struct source_chain *disk_get_chain(const struct qcow2_disk *disk);

/* Puts an open disk on other layers, which show the same where it leaves
 * something to them. Takes over the use of `below` (of the disk's pool), also
 * on failure, which leaves the disk as it was.
 */
int disk_replace_backing(struct qcow2_disk *disk, struct layer *below,
                         struct qcow2_error *err);

/* The disk's own file. */
static inline const struct io *
disk_io(const struct qcow2_disk *disk)
{
    return disk->file->io;
}

/* populate_range with all that a request needs, at any time beside others: for
 * the active disk of an image.
 */
int disk_populate(struct qcow2_disk *disk, uint64_t nr_bytes,
                  uint64_t guest_off, struct qcow2_error *err);

/* As image_check_own_view; a raw disk has no other view. */
int disk_check_own_view(const struct qcow2_disk *disk,
                        struct qcow2_error *err);

/* qcow2_flush, whatever the cache mode: for what depends on it. */
int disk_flush(struct qcow2_disk *disk, struct qcow2_error *err);

/* The image, for an operation on all of it. NULL: the disk is of another
 * format (ENOTSUP), or read-only (EROFS).
 */
struct image *disk_image_to_edit(const struct qcow2_disk *disk,
                                 struct qcow2_error *err);

/* What requests to the disk share with each other, and operations on the
 * whole disk take alone. NULL: there are none, as it never changes.
 */
pthread_rwlock_t *disk_request_lock(const struct qcow2_disk *disk);

/* The same for what disks of snapshots show of the image, too: its header and
 * its list of snapshots. NULL: raw. */
pthread_rwlock_t *disk_image_lock(const struct qcow2_disk *disk);

#endif /* QCOW2_OPEN_DISK_H */
