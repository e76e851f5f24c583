/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot-word.h: which internal snapshot a word of the user means; the
 * grammar is that of qcow2_open_snapshot.
 */
#ifndef QCOW2_SNAPSHOT_WORD_H
#define QCOW2_SNAPSHOT_WORD_H

#include <stddef.h>

#include "qcow2.h"

struct snapshot_label {
    const char *id, *name;
};

/* Snapshot i of a list. */
typedef struct snapshot_label snapshot_label_fn(const void *list, size_t i);

/* The index of the one of nr snapshots that the word means; -1: none
 * (ENOENT), or more than one (EINVAL). */
long snapshot_word_find(const char *word, const void *list, size_t nr,
                        snapshot_label_fn *label, struct qcow2_error *err);

#endif /* QCOW2_SNAPSHOT_WORD_H */
