/* SPDX-License-Identifier: BSD-3-Clause */
/* disk-ops.h: what a disk of each format does for the functions of qcow2.h. */
#ifndef QCOW2_DISK_OPS_H
#define QCOW2_DISK_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qcow2.h"
#include "request/change.h"

struct open_file;

/* Functions that change are called for writable disks alone. read, change and
 * begin_write are called with the request lock held shared
 * (disk_request_lock), and ranges inside the disk.
 */
struct disk_ops {
    enum qcow2_format format;

    /* Reads a disk that requests may change meanwhile. */
    int (*read)(struct qcow2_disk *disk, void *buf, size_t nr_bytes,
                uint64_t guest_off, struct qcow2_error *err);

    /* What the first change needs to have been done. */
    int (*begin_write)(struct open_file *file, struct qcow2_error *err);

    /* Makes the change, and calls the observers. */
    int (*change)(struct open_file *file, const struct guest_change *c,
                  struct qcow2_error *err);

    /* After a change that failed with *why: was there space to be had, so that
     * it may be made again? */
    bool (*make_space)(struct open_file *file,
                       const struct qcow2_error *why);

    int (*flush)(struct open_file *file, struct qcow2_error *err);

    /* Before a file is freed that was used as a disk: leaves it clean. */
    int (*finish)(struct open_file *file, struct qcow2_error *err);

    bool (*can_fast_zero)(const struct open_file *file);
    uint32_t (*cluster_size)(const struct open_file *file);
    uint32_t (*subcluster_size)(const struct open_file *file);

    /* Where the disk's observers begin. */
    struct write_observer **(*observers)(struct open_file *file);
};

extern const struct disk_ops image_disk_ops, raw_disk_ops;

/* Has the observer called for each change that begins after disk_observe
 * returned, until disk_unobserve returns. Both wait for requests under way. The
 * disk is writable, and outlives its observers.
 */
void disk_observe(struct qcow2_disk *disk, struct write_observer *o);
void disk_unobserve(struct qcow2_disk *disk, struct write_observer *o);

#endif /* QCOW2_DISK_OPS_H */
