/* SPDX-License-Identifier: BSD-3-Clause */
/* disk-ops.c: qcow2 images as disks, and the observers of disks; see
 * disk-ops.h. open-raw.c has raw disks.
 */
#include "disk/disk-ops.h"

#include "base/cleanup.h"
#include "disk/open-disk.h"
#include "meta/bitmap-session.h"
#include "meta/flush.h"
#include "request/request.h"

static int
image_disk_read(struct qcow2_disk *disk, void *buf, size_t nr_bytes,
                uint64_t guest_off, struct qcow2_error *err)
{
    return read_active(disk->file->image, buf, nr_bytes, guest_off, err);
}

static int
image_disk_begin_write(struct open_file *file, struct qcow2_error *err)
{
    return image_begin_write(file->image, err);
}

static int
image_disk_change(struct open_file *file, const struct guest_change *c,
                  struct qcow2_error *err)
{
    return change_guest(file->image, c, err);
}

static bool
image_disk_make_space(struct open_file *file, const struct qcow2_error *why)
{
    return flush_for_space(file->image, why);
}

static int
image_disk_flush(struct open_file *file, struct qcow2_error *err)
{
    return flush_run(file->image, err);
}

static int
image_disk_finish(struct open_file *file, struct qcow2_error *err)
{
    bitmap_session_close(file->image);
    return flush_close(file->image, err);
}

static bool
image_disk_can_fast_zero(const struct open_file *file)
{
    return zero_is_fast(file->image);
}

static uint32_t
image_disk_cluster_size(const struct open_file *file)
{
    return file->image->cluster_size;
}

static uint32_t
image_disk_subcluster_size(const struct open_file *file)
{
    return file->image->subcluster_size;
}

static struct write_observer **
image_disk_observers(struct open_file *file)
{
    return &file->image->observers;
}

const struct disk_ops image_disk_ops = {
    .format = QCOW2_FORMAT_QCOW2,
    .read = image_disk_read,
    .begin_write = image_disk_begin_write,
    .change = image_disk_change,
    .make_space = image_disk_make_space,
    .flush = image_disk_flush,
    .finish = image_disk_finish,
    .can_fast_zero = image_disk_can_fast_zero,
    .cluster_size = image_disk_cluster_size,
    .subcluster_size = image_disk_subcluster_size,
    .observers = image_disk_observers,
};

void
disk_observe(struct qcow2_disk *disk, struct write_observer *o)
{
    struct open_file *file = disk->file;
    struct write_observer **first = file->ops->observers(file);
    WRLOCK_SCOPE(disk_request_lock(disk));

    o->next = *first;
    *first = o;
}

void
disk_unobserve(struct qcow2_disk *disk, struct write_observer *o)
{
    struct open_file *file = disk->file;
    struct write_observer **link = file->ops->observers(file);
    WRLOCK_SCOPE(disk_request_lock(disk));

    while (*link != o)
        link = &(*link)->next;
    *link = o->next;
}
