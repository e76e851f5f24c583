/* SPDX-License-Identifier: BSD-3-Clause */
/* change.h: the one way in which the guest bytes of a disk change, and the
 * observers that are called around every change.
 *
 * What changes where bytes are, and not what they are, needs none of this:
 * preallocating, emptying an overlay that was committed, amending.
 */
#ifndef QCOW2_CHANGE_H
#define QCOW2_CHANGE_H

#include <stdint.h>

#include "meta/image.h"
#include "qcow2.h"

enum guest_change_kind {
    CHANGE_WRITE,
    CHANGE_WRITE_COMPRESSED, /* one cluster; raw disks have none */
    CHANGE_ZERO,
    CHANGE_TRIM,             /* what it leaves is zeroes or what there was */
    CHANGE_REPLACE,          /* the content is another one afterwards, by an
                              * operation that has the disk alone: it applied
                              * a snapshot, or moved the end of the disk */
};

/* A change of [guest_off, guest_off + nr_bytes). */
struct guest_change {
    enum guest_change_kind kind;
    unsigned flags;         /* CHANGE_ZERO: as zero_range has them */
    uint64_t guest_off, nr_bytes;
    const void *buf;        /* CHANGE_WRITE: the bytes;
                             * CHANGE_WRITE_COMPRESSED: packed_bytes */
    uint32_t packed_bytes;
};

/* An observer of a disk. Its functions are called in the thread that makes the
 * change, so in several at once, with the disk's request lock held: they make
 * no request to the disk themselves. A change may be observed more than once,
 * as a whole or in parts, if it is tried again; it may leave bytes as they
 * were. Embedded in what the observer belongs to.
 */
struct write_observer {
    /* Before anything is changed. -1 with *err set refuses the change. May be
     * NULL. */
    int (*before)(struct write_observer *o, const struct guest_change *c,
                  struct qcow2_error *err);

    /* After it: result is 0, or -1 if it failed, and then any part of it may
     * have been made. Called for every observer whose `before` returned 0.
     * May be NULL. */
    void (*done)(struct write_observer *o, const struct guest_change *c,
                 int result);

    struct write_observer *next; /* of the disk's; not the observer's */
};

/* Around what changes bytes in another way than by change_guest; first may be
 * NULL. change_finish only if change_announce returned 0.
 */
int change_announce(struct write_observer *first,
                    const struct guest_change *c, struct qcow2_error *err);
void change_finish(struct write_observer *first,
                   const struct guest_change *c, int result);

/* Makes a change, not CHANGE_REPLACE, of the active disk, inside it. The caller
 * holds image.rwlock and has called image_begin_write.
 */
int change_guest(struct image *img, const struct guest_change *c,
                 struct qcow2_error *err);

#endif /* QCOW2_CHANGE_H */
