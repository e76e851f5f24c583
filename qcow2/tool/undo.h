/* SPDX-License-Identifier: BSD-3-Clause */
/* undo.h: a file with what a repair overwrites, to put it back. */
#ifndef UNDO_H
#define UNDO_H

#include "qcow2.h"

struct undo;

/* A new file; NULL, reported, if it cannot be made or exists. */
struct undo *undo_create(const char *path);

/* Durable when it returns 0; else reported. */
int undo_record(struct undo *u, const struct qcow2_repair_write *w);

/* Removes the file if nothing was recorded. -1, reported: not all of it is
 * on disk. */
int undo_close(struct undo *u);

/* Makes the image at path what it was before the repair. Refuses where it
 * was changed since. Returns an exit status.
 */
int undo_restore(const char *path, const char *image);

#endif /* UNDO_H */
