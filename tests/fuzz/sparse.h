/* SPDX-License-Identifier: BSD-3-Clause */
/* sparse.h: a file in memory that may be as long as a sparse file can be, and
 * counts what is done to it. Unlike io-mem.h's it costs what is in it, not
 * what lies before its end, and it ends no program: it becomes full.
 *
 * For one thread.
 */
#ifndef SPARSE_H
#define SPARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/io.h"

struct sparse;

struct sparse_counts {
    uint64_t nr_reads, nr_read_bytes; /* asked for, holes included */
    uint64_t nr_changes;              /* writes, zeroes, punches, truncates */
    uint64_t nr_flushes;
};

struct sparse *sparse_new(void);
void sparse_free(struct sparse *s); /* no backend is open on it; NULL: fine */
struct sparse *sparse_copy(const struct sparse *s);
bool sparse_same(const struct sparse *a, const struct sparse *b);

/* Past its end the file grows; where it is full bytes are lost. */
void sparse_write(struct sparse *s, uint64_t off, const void *bytes,
                  size_t nr_bytes);
void sparse_read(const struct sparse *s, uint64_t off, void *bytes,
                 size_t nr_bytes);
void sparse_truncate(struct sparse *s, uint64_t size);
uint64_t sparse_size(const struct sparse *s);

/* Big-endian numbers of nr_bytes (at most 8). */
uint64_t sparse_get(const struct sparse *s, uint64_t off, unsigned nr_bytes);
void sparse_put(struct sparse *s, uint64_t off, unsigned nr_bytes,
                uint64_t value);

/* Calls fn for each page that holds data, in their order. */
typedef void sparse_page_fn(void *opaque, uint64_t off, const void *bytes,
                            size_t nr_bytes);
void sparse_each(const struct sparse *s, sparse_page_fn *fn, void *opaque);

/* What was done through backends. */
struct sparse_counts *sparse_counts(struct sparse *s);
bool sparse_was_full(const struct sparse *s);

struct io *sparse_open(struct sparse *s, bool readonly);

#endif /* SPARSE_H */
