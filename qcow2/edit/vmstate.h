/* SPDX-License-Identifier: BSD-3-Clause */
/* vmstate.h: the saved state of a virtual machine, which lies behind the
 * disk in a snapshot's tables.
 */
#ifndef QCOW2_VMSTATE_H
#define QCOW2_VMSTATE_H

#include "meta/image.h"

/* An L1 table being made: the caller put the disk's entries at its start. */
struct vmstate {
    uint64_t *l1;
    uint32_t nr;       /* entries in use */
    uint32_t capacity;
    uint64_t nr_bytes; /* of state stored */
    struct freed_list clusters; /* all that was allocated for it */
};

/* Stores what options->vm_state reads in new clusters, and appends the
 * L2 tables that map it to vs->l1. No table on disk points to them yet: if
 * this or what follows fails, vmstate_discard gives them back.
 */
int vmstate_store(struct image *img, struct vmstate *vs,
                  const struct qcow2_snapshot_create_options *options,
                  struct qcow2_error *err);
void vmstate_discard(struct image *img, struct vmstate *vs);

/* Frees what vs holds in memory. */
void vmstate_free(struct vmstate *vs);

#endif /* QCOW2_VMSTATE_H */
