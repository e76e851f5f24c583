/* SPDX-License-Identifier: BSD-3-Clause */
/* io-mem.h: files in memory, with as many backends open on each as a test
 * likes. A file outlives them: what a closed image left can be looked at.
 *
 * Safe for any number of threads, but for mem_bytes. Running out of memory
 * ends the program.
 */
#ifndef IO_MEM_H
#define IO_MEM_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/io.h"

struct mem;

/* A file that holds a copy of bytes (NULL: nr_bytes of zeroes, all hole). */
struct mem *mem_new(const void *bytes, uint64_t nr_bytes);

/* The image of a recipe (builder.h). */
struct mem *mem_from_recipe(const char *recipe);

/* A block device: its size is fixed, and its bytes are not zero at first. */
struct mem *mem_new_device(uint64_t nr_bytes);

/* Another file of the same kind and content. */
struct mem *mem_copy(struct mem *m);

/* A file of the same kind with other content. */
struct mem *mem_like(const struct mem *m, const void *bytes,
                     uint64_t nr_bytes);

/* To and from a real file; a failure ends the program. */
struct mem *mem_load(const char *path);
void mem_save(struct mem *m, const char *path);

/* What its file system has room for, in bytes of data (holes take none); a
 * write, or a zero that allocates, of more fails with ENOSPC. UINT64_MAX:
 * no limit, as at first. Returns how much data there is now.
 */
uint64_t mem_set_room(struct mem *m, uint64_t nr_bytes);

/* The last of this and of closing the backends open on it frees the file.
 * NULL is fine. */
void mem_free(struct mem *m);

/* Its content; valid until the file changes or is freed. */
const unsigned char *mem_bytes(struct mem *m, uint64_t *nr_bytes);

/* A backend on the file. */
struct io *io_mem_open(struct mem *m, bool readonly);

#endif /* IO_MEM_H */
