/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow1-header.h: the header of version 1, which is another format: tables of
 * any length, no refcounts, no snapshots, no extensions.
 */
#ifndef QCOW2_QCOW1_HEADER_H
#define QCOW2_QCOW1_HEADER_H

#include <stdint.h>

#include "qcow2.h"
#include "storage/io.h"

struct qcow1_header {
    uint64_t size;          /* guest bytes */
    uint64_t file_size;     /* when it was read */
    unsigned cluster_bits;
    unsigned l2_bits;       /* entries of an L2 table */
    uint32_t crypt_method;
    uint64_t l1_offset;     /* the table lies inside the file */
    uint64_t l1_entries;    /* as many as the size needs */
    char *backing_file;     /* NULL: none; no format is declared, ever */
};

/* Reads and checks the header. What is wrong with it is *refusal (errnum 0:
 * nothing is), and the fields are then as they are in the file, but for
 * l1_entries, which is 0, and a backing file that cannot be told. -1: it could
 * not be read, or is not of version 1; nothing is to be freed.
 */
int qcow1_header_read_loosely(struct io *io, struct qcow1_header *h,
                              struct qcow2_error *refusal,
                              struct qcow2_error *err);

/* The same, where -1 is for what is wrong, too. */
int qcow1_header_read(struct io *io, struct qcow1_header *h,
                      struct qcow2_error *err);
void qcow1_header_free(struct qcow1_header *h);

#endif /* QCOW2_QCOW1_HEADER_H */
