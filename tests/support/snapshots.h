/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshots.h: one snapshot of an image, for tests that look at one. */
#ifndef SNAPSHOTS_H
#define SNAPSHOTS_H

#include "qcow2.h"

/* The i-th snapshot (0 <= i < number); id and name are valid until the 8th
 * call after. Running out of memory ends the program.
 */
void snapshot_get(const struct qcow2_disk *disk, size_t i,
                  struct qcow2_snapshot *out);

#endif /* SNAPSHOTS_H */
