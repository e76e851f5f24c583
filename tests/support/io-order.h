/* SPDX-License-Identifier: BSD-3-Clause */
/* io-order.h: a backend over another that knows qcow2, and asserts that
 * every write of an image comes in its turn: I1 to I6 of the engine's
 * DESIGN.md, at the moment a write breaks one, whatever survives later. It
 * lies under the images of all tests but few (watch.c).
 *
 * It keeps what is durable and what was written since. For each write of
 * metadata it looks at two worlds a power cut may leave: the durable one
 * with this write alone, and the one with all writes but raised refcounts.
 *   - Either must pass the audit (audit.h): no refcount below its
 *     references, no cluster with two owners (I1), COPIED only where the
 *     refcount is 1 (I4).
 *   - What can be reached in either for the first time must be durable: its
 *     bytes were made so since nothing showed the cluster any more, or are
 *     durable zeroes. So a cluster's next owner never shows bytes of the
 *     last one, or of a reuse before its end was durable (I2, I3).
 *   - Tables that the header, or a refcount table, begins to name must be
 *     complete; the copy of an L2 table too (I2, I5).
 *   - Compressed data is durable before it is named (I2).
 * Of every write:
 *   - What the header has or names changes inside its first sector, one
 *     durable write after the other (I5), but for feature bits that are only
 *     set, as when the write before failed. Snapshots' tables never change
 *     in place (I5).
 *   - Nothing writes in place what is shared, punches or cuts off what is in
 *     use (I3).
 *   - Metadata is not zeroed, written in parts of entries or slices, or
 *     together with data; compressed data never changes, what follows it in
 *     its cluster may (I6).
 * Data written in place may be in flight at any time.
 *
 * COPIED where the refcount is above 1, but nobody shares, passes while the
 * durable header has the dirty bit, as the next open mends it; and always in
 * version 2, which has no such bit. Refcounts that are too low pass with lazy
 * refcounts alone, from when the dirty bit is durable until it is cleared. An
 * image that is damaged when it is opened is not looked at, until its dirty
 * bit goes and it is not any more. Nor are images with an external data file,
 * whose data are elsewhere. With extended L2 entries all this holds for each
 * subcluster.
 */
#ifndef IO_ORDER_H
#define IO_ORDER_H

#include "storage/io.h"

/* What was broken; for tests of this backend itself. Read it when no
 * operation runs. */
struct order_report {
    unsigned nr_violations;
    char first[512];
};

/* Takes over below; what it holds is taken as durable. Without a report a
 * violation is printed and ends the program. Safe for any number of
 * threads; below must not be written by others.
 */
struct io *io_order_new(struct io *below, struct order_report *report);

/* Is io such a backend? */
bool io_order_is(const struct io *io);

#endif /* IO_ORDER_H */
