/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot.h: parts of operations that replace whole tables: snapshots and
 * resize. Each is a step of a transaction.
 */
#ifndef QCOW2_SNAPSHOT_H
#define QCOW2_SNAPSHOT_H

#include "meta/txn.h"

/* Writes an L1 table, entries without COPIED flags where `shared`, to new
 * clusters. */
int snapshot_write_l1(struct image *img, const uint64_t *l1, uint32_t nr,
                      bool shared, uint64_t *host_off,
                      struct qcow2_error *err);

/* Before the disk's size changes: snapshots whose entries do not tell their
 * size have had the disk's until now, which is stored with them.
 */
int snapshot_keep_sizes(struct txn *t, struct qcow2_error *err);

/* Gives snapshot i another L1 table, of the same length, which is on its way
 * to the disk; the old one is the caller's to free. Nobody has it open.
 */
int snapshot_move_l1(struct txn *t, uint32_t i, uint64_t l1_off,
                     struct qcow2_error *err);

/* Switches the header to another virtual size and L1 table. */
struct snapshot_disk {
    uint64_t size, l1_off;
    uint32_t l1_size;
};
int snapshot_switch_disk(struct txn *t, const struct snapshot_disk *to,
                         struct qcow2_error *err);

#endif /* QCOW2_SNAPSHOT_H */
