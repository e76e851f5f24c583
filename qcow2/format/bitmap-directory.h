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
    unsigned type, granularity_bits;
    const void *extra;      /* in the directory, extra_size bytes */
    uint32_t extra_size;
    const char *name;       /* in the directory, name_size bytes, which are
                             * not terminated and may be anything */
    uint16_t name_size;
};

/* Decodes the entry at *pos of a directory of nr_bytes, and moves *pos past
 * it. false: the entry does not fit the directory, and *pos stays. */
bool bitmap_entry_next(const unsigned char *directory, uint64_t nr_bytes,
                       uint64_t *pos, struct bitmap_entry *e);

/* The bytes that the entry takes in a directory, and puts it there. */
uint64_t bitmap_entry_bytes(const struct bitmap_entry *e);
void bitmap_entry_put(unsigned char *to, const struct bitmap_entry *e);

/* Of an entry that is there: its flags alone. */
void bitmap_entry_put_flags(unsigned char *entry, uint32_t flags);

/* Bytes of bits of a disk's bitmap, and entries of its table. */
uint64_t bitmap_bytes(uint64_t disk_size, unsigned granularity_bits);
uint64_t bitmap_table_entries(uint64_t disk_size, unsigned granularity_bits,
                              unsigned cluster_bits);

/* Why a bitmap cannot be used, or kept right, in an image with a disk of this
 * size: half a sentence, "its ...". NULL: it can, if it is not in use. The
 * table's entries, and whether it lies in the file, are not looked at. */
const char *bitmap_entry_flaw(const struct bitmap_entry *e,
                              uint64_t disk_size, unsigned cluster_bits);

/* The cluster that an entry of a bitmap's table names, aligned; 0: it names
 * none. false: the entry makes no sense. */
bool bitmap_entry_cluster(uint64_t table_entry, uint32_t cluster_size,
                          uint64_t *host_off);

#endif /* QCOW2_BITMAP_DIRECTORY_H */
