/* SPDX-License-Identifier: BSD-3-Clause */
/* tmpdir.h: a directory for the files of a test program, removed when it
 * ends.
 */
#ifndef TMPDIR_H
#define TMPDIR_H

#include <stdbool.h>
#include <stddef.h>

#include "qcow2.h"

struct io;

/* The directory; made (under TMPDIR, else /tmp) by the first call. */
const char *tmpdir(void);

/* The path of `name` in it, valid until the 16th call after. */
const char *tmpdir_path(const char *name);

/* Removes the files in it. */
void tmpdir_clear(void);

void tmpdir_write_file(const char *path, const void *bytes, size_t nr_bytes);

/* All of a file; the caller frees it. */
unsigned char *tmpdir_read_file(const char *path, size_t *nr_bytes);

/* Makes the file at path, or (if overwrite) empties the one that is there; it
 * is open for writing, and locked. */
struct io *tmpdir_create_io(const char *path, bool overwrite,
                            struct qcow2_error *err);

#endif /* TMPDIR_H */
