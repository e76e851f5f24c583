/* SPDX-License-Identifier: BSD-3-Clause */
/* snaptab.h: the snapshot table, decoded and validated. */
#ifndef QCOW2_SNAPTAB_H
#define QCOW2_SNAPTAB_H

#include <stdbool.h>
#include <stdint.h>

#include "format/header.h"
#include "storage/io.h"

struct snapshot {
    uint64_t l1_offset;     /* cluster-aligned, inside the file */
    uint32_t l1_size;       /* entries, within MAX_L1_BYTES */
    char *id, *name;        /* terminated; may hold any byte but NUL */
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_size; /* the 64-bit one where present */
    uint64_t disk_size;     /* the image's where the entry has none */
    bool has_disk_size;
    uint64_t icount;        /* UINT64_MAX: none */
    /* Extra data as stored: what is not understood is kept. */
    unsigned char *extra;
    uint32_t extra_len;
    /* By snaptab_read_loosely only. */
    char *flaw;             /* what is wrong; NULL: nothing */
    bool usable;            /* all the same: the fields are mended */
};

struct snapshot_table {
    struct snapshot *snapshots;
    uint32_t nr;
    uint64_t nr_bytes;      /* size of the table in the file */
};

/* Reads and checks the table that h points to. An L1 too small for
 * disk_size is damage. On failure *t needs no snaptab_free.
 */
int snaptab_read(struct io *io, const struct header *h,
                 struct snapshot_table *t, struct qcow2_error *err);

/* The same, but keeps what makes sense of a damaged table: entries with a
 * flaw, up to the first whose end is not known; *nr_lost entries follow it,
 * and what is wrong there is in *why. Fails for want of memory, or with an
 * I/O error.
 */
int snaptab_read_loosely(struct io *io, const struct header *h,
                         struct snapshot_table *t, uint32_t *nr_lost,
                         struct qcow2_error *why, struct qcow2_error *err);
void snaptab_free(struct snapshot_table *t);
void snaptab_free_entry(struct snapshot *s); /* what it points to */

/* Builds the table as it stands in a file; *buf is the caller's to free.
 * Extra data that is not understood is kept. ENOSPC beyond the limits.
 */
int snaptab_encode(const struct snapshot_table *t, unsigned char **buf,
                   uint64_t *nr_bytes, struct qcow2_error *err);

/* The index of the snapshot that the word means, as qcow2_open_snapshot
 * explains it; -1: ENOENT, or EINVAL if it means several. */
long snaptab_find(const struct snapshot_table *t, const char *word,
                  struct qcow2_error *err);

#endif /* QCOW2_SNAPTAB_H */
