/* SPDX-License-Identifier: BSD-3-Clause */
/* rebase.h: rebase, on disks that are open already. */
#ifndef QCOW2_REBASE_H
#define QCOW2_REBASE_H

#include "qcow2.h"

/* As qcow2_rebase: top is open for writing on its old chain, below is the
 * new backing file as a disk, NULL for none. With header_only the chain does
 * not matter, and below is NULL. Takes over both disks, also on failure.
 */
struct qcow2_job *rebase_new(struct qcow2_disk *top,
                             struct qcow2_disk *below,
                             const struct qcow2_rebase_options *rebase,
                             struct qcow2_error *err);

#endif /* QCOW2_REBASE_H */
