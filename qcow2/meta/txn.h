/* SPDX-License-Identifier: BSD-3-Clause */
/* txn.h: the frame of operations that have an image alone: snapshots, resize,
 * amend, the ends of commit and rebase, repair.
 */
#ifndef QCOW2_TXN_H
#define QCOW2_TXN_H

#include "meta/image.h"

enum txn_flags {
    /* The operation walks tables: no two entries of the active L1 table may
     * have the same L2 table (EIO), or it could take for ever. */
    TXN_TABLES = 1 << 0,
    /* It comes through states that a checker would object to: the dirty bit is
     * set meanwhile (version 3). */
    TXN_DIRTY = 1 << 1,
    /* What the disk reads as does not matter. Without it an image that is
     * opened on another backing file than it names is refused (EINVAL), as
     * what is written would depend on that. */
    TXN_ANY_VIEW = 1 << 2,
    /* Guest data stay as they are, so autoclear bits do too. */
    TXN_HEADER_ONLY = 1 << 3,
    /* The file is changed past the image (repair), whose metadata are read
     * anew at the end. On failure the image must be closed. */
    TXN_PAST_IMAGE = 1 << 4,
};

/* Owned by the caller, on its stack; used by the thread that began it. */
struct txn {
    struct image *img;
    unsigned flags;     /* enum txn_flags */
    bool unsettled;     /* for the operation to set: what was begun cannot be
                         * taken back. If it fails then, the dirty bit stays,
                         * and the next opening for writing repairs. */
};

/* Waits for all requests, has everything on disk, and holds image.rwlock
 * exclusively until txn_end. On failure nothing is held or changed. EROFS for
 * an image that is open read-only.
 */
int txn_begin(struct txn *t, struct image *img, unsigned flags,
              struct qcow2_error *err);

/* Makes everything that the operation wrote durable, changes the header by one
 * write, and makes that durable (I5). May be called several times.
 * Failing in the middle leaves the image FAILED (I8); a change for which the
 * header has no room fails before (ENOTSUP). A corrupt bit that is set
 * meanwhile stays.
 */
int txn_switch(struct txn *t, const struct header_update *u,
               struct qcow2_error *err);

/* Puts the active disk on another chain, whose layer 0 is the same, and takes
 * over the reference to it. Returns the old one, to be put after txn_end.
 * `own`: it is the one that the header names.
 */
struct source_chain *txn_replace_chain(struct txn *t,
                                       struct source_chain *chain, bool own);

/* Ends it with r, the operation's result (0 or -1): has everything on disk,
 * clears the dirty bit, and lets requests go on. Returns r, or -1 if ending
 * failed; *err is then of the first failure.
 */
int txn_end(struct txn *t, int r, struct qcow2_error *err);

#endif /* QCOW2_TXN_H */
