/* SPDX-License-Identifier: BSD-3-Clause */
/* commit.h: commit, on disks that are open already. */
#ifndef QCOW2_COMMIT_H
#define QCOW2_COMMIT_H

#include "qcow2.h"

/* As qcow2_commit: top's chain ends above base (disk_open_above). empty: top
 * is emptied, for which it must be open for writing, as it must to keep its
 * snapshots. Takes over both disks, also on failure.
 */
struct qcow2_job *commit_new(struct qcow2_disk *top, struct qcow2_disk *base,
                             bool empty,
                             enum qcow2_left_to_backing snapshots,
                             struct qcow2_error *err);

#endif /* QCOW2_COMMIT_H */
