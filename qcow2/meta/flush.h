/* SPDX-License-Identifier: BSD-3-Clause */
/* flush.h: when metadata reach the disk; flush.c alone orders writes. */
#ifndef QCOW2_FLUSH_H
#define QCOW2_FLUSH_H

#include "base/bytes.h"
#include "meta/image.h"

/* All requests that returned before this call are durable after it; joins
 * a flush that has not begun. Caller holds image.rwlock.
 */
int flush_run(struct image *img, struct qcow2_error *err);

/* Makes room before a request that will dirty metadata: flushes when the
 * dirty slices, or the clusters in quarantine, are many.
 */
int flush_make_room(struct image *img, struct qcow2_error *err);

/* A request failed with *err: may it succeed if it is made once more? Where
 * space is lacking, ends the quarantine of freed clusters, with a flush, so
 * that they can be used. Caller holds image.rwlock, and no lock below it.
 */
bool flush_for_space(struct image *img, const struct qcow2_error *err);

/* For operations that have the image alone (txn.h). flush_all: until nothing
 * is dirty or in quarantine. flush_switch: all that the header will point to,
 * a barrier, the one write that changes the header (I5), a barrier.
 * flush_dirty_bit: around states that a checker would object to; version 2
 * has no such bit.
 */
int flush_all(struct image *img, struct qcow2_error *err);
int flush_switch(struct image *img, const struct header_update *u,
                 struct qcow2_error *err);
int flush_dirty_bit(struct image *img, bool set, struct qcow2_error *err);

/* Likewise: their beginning (flush_all, and the dirty bit set). And a table
 * of which nothing but COPIED flags changed is written at once: flags have no
 * order among themselves, and are durable with the next barrier.
 */
int flush_begin(struct image *img, struct qcow2_error *err);
int flush_flags(struct image *img, const be64 *table, uint64_t host_off,
                uint64_t nr_bytes, struct qcow2_error *err);

/* Everything to disk, nothing leaked: the last thing before image_free. */
int flush_close(struct image *img, struct qcow2_error *err);

#endif /* QCOW2_FLUSH_H */
