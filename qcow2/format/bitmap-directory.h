/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-directory.h: the entries of the bitmap directory and of the tables
 * that it names, decoded.
 */
#ifndef QCOW2_BITMAP_DIRECTORY_H
#define QCOW2_BITMAP_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "format/format.h"

/* One bitmap, as the directory has it: whether its table lies anywhere is for
 * the caller to find out. */
struct bitmap_entry {
    uint64_t table_off;
    uint32_t table_entries;
    uint32_t flags;
    unsigned granularity_bits;
    const char *name;       /* in the directory, name_size bytes, which are
                             * not terminated and may be anything */
    uint16_t name_size;
};

/* Decodes the entry at *pos of a directory of nr_bytes, and moves *pos past
 * it. false: the entry does not fit the directory, and *pos stays. */
bool bitmap_entry_next(const unsigned char *directory, uint64_t nr_bytes,
                       uint64_t *pos, struct bitmap_entry *e);

/* The cluster that an entry of a bitmap's table names, aligned; 0: it names
 * none. false: the entry makes no sense. */
bool bitmap_entry_cluster(uint64_t table_entry, uint32_t cluster_size,
                          uint64_t *host_off);

#endif /* QCOW2_BITMAP_DIRECTORY_H */
