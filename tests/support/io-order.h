/* SPDX-License-Identifier: BSD-3-Clause */
/* io-order.h: a backend over another that knows qcow2, and asserts that
 * every write of an image comes in its turn: I1 to I6 of the engine's
 * DESIGN.md, at the moment a write breaks one, whatever survives later.
 *
 * It keeps what is durable and what was written since. For each write of
 * metadata it looks at two worlds a power cut may leave: the durable one
 * with this write alone, and the one with all writes but raised refcounts.
 *   - Either must pass the audit (audit.h): no refcount below its
 *     references, COPIED only where the refcount is 1 (I1, I4).
 *   - What can be reached in either for the first time must be durable: its
 *     bytes were made so since nothing showed the cluster any more, or are
 *     durable zeroes. So a cluster's next owner never shows bytes of the
 *     last one, or of a reuse before its end was durable (I2, I3).
 *   - Tables that the header, or a refcount table, begins to name must be
 *     complete; the copy of an L2 table too (I2, I5).
 *   - The header changes inside its first sector, one durable write after
 *     the other (I5).
 *   - Compressed data is durable before it is named, and never changes; what
 *     follows it in its cluster may.
 * Besides, nothing writes in place what is shared, punches or cuts off what
 * is in use, or writes parts of table entries (I3, I6). Data written in
 * place may be in flight at any time.
 *
 * While the durable header has the dirty bit, refcounts and COPIED are not
 * looked at: the next open mends them. Version 2 has no such bit, so what
 * needs it (snapshots) can be watched on version 3 alone. Images of features
 * that the engine does not write (external data file, extended L2) are not
 * looked at.
 */
#ifndef IO_ORDER_H
#define IO_ORDER_H

#include "io.h"

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

#endif /* IO_ORDER_H */
