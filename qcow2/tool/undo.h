/* SPDX-License-Identifier: BSD-3-Clause */
/* undo.h: a file with what a repair overwrites, to put it back. */
#ifndef UNDO_H
#define UNDO_H

#include <stdbool.h>

#include "qcow2.h"

struct undo;

/* A new file; NULL, reported, if it cannot be made or exists. */
struct undo *undo_create(const char *path);

/* What qcow2_check passes to its callbacks: all metadata, then each write.
 * What was recorded is durable once undo_settle returned 0. -1: reported.
 */
void undo_metadata(struct undo *u, uint64_t host_off, uint64_t nr_bytes,
                   const void *bytes);
int undo_record(struct undo *u, const struct qcow2_repair_write *w);
int undo_settle(struct undo *u);

/* finished: the repair made all its writes. Removes the file if nothing was
 * recorded. -1, reported: not all of it is on disk. */
int undo_close(struct undo *u, bool finished);

/* Makes the image at path what it was before the repair. Refuses, before
 * any write, where the image was changed since, or where the undo file is
 * not one of this image. Returns an exit status.
 */
int undo_restore(const char *path, const char *image);

#endif /* UNDO_H */
