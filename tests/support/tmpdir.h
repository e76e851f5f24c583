/* SPDX-License-Identifier: BSD-3-Clause */
/* tmpdir.h: a directory for the files of a test program, removed when it
 * ends.
 */
#ifndef TMPDIR_H
#define TMPDIR_H

#include <stddef.h>

/* The directory; made (under TMPDIR, else /tmp) by the first call. */
const char *tmpdir(void);

/* The path of `name` in it, valid until the 16th call after. */
const char *tmpdir_path(const char *name);

/* Removes the files in it. */
void tmpdir_clear(void);

void tmpdir_write_file(const char *path, const void *bytes, size_t nr_bytes);

/* All of a file; the caller frees it. */
unsigned char *tmpdir_read_file(const char *path, size_t *nr_bytes);

#endif /* TMPDIR_H */
