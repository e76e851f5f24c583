/* SPDX-License-Identifier: BSD-3-Clause */
/* keep.h: gives the internal snapshots of an overlay, as clusters of their
 * own, what they leave to a backing file that is about to read differently.
 */
#ifndef QCOW2_KEEP_H
#define QCOW2_KEEP_H

#include "meta/image.h"
#include "qcow2.h"

struct keep_ops {
    /* May the range, of whole clusters that a snapshot leaves to the backing
     * file, come to read differently, as far as tables tell? *len (> 0, at
     * most nr_bytes): how far the answer holds. */
    int (*plan)(void *opaque, uint64_t guest_off, uint64_t nr_bytes,
                bool *may_change, uint64_t *len, struct qcow2_error *err);

    /* What the backing file shows there, and what it will show. Past an end
     * these are zeroes. */
    int (*read_old)(void *opaque, void *buf, size_t nr_bytes,
                    uint64_t guest_off, struct qcow2_error *err);
    int (*read_new)(void *opaque, void *buf, size_t nr_bytes,
                    uint64_t guest_off, struct qcow2_error *err);
};

struct keep {
    /* Filled by the operation. */
    const struct keep_ops *ops;
    void *opaque;
    struct qcow2_disk *disk; /* the overlay: nobody else has it open */
    bool check_only;    /* fail (ENOTEMPTY) rather than copy; only reads */

    /* How far the steps have come; zero at first. */
    uint32_t snapshot;
    uint64_t pos;
    struct view *view;  /* of the snapshot */
    unsigned char *buffers;
    uint64_t nr_copied; /* bytes */
};

/* A step: 1 there is more, 0 no snapshot will change, -1 failure. After each
 * the image is valid and every snapshot reads as it did. Nobody else may have
 * the image's snapshots open (EBUSY).
 */
int keep_step(struct keep *k, struct qcow2_error *err);
void keep_end(struct keep *k);

#endif /* QCOW2_KEEP_H */
