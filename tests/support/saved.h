/* SPDX-License-Identifier: BSD-3-Clause */
/* saved.h: what can be read of a damaged image and its snapshots, to see
 * that a repair keeps it.
 */
#ifndef SAVED_H
#define SAVED_H

#include "io-mem.h"

struct saved;

/* Reads all of it, in pieces; those that fail are remembered as such. What
 * cannot be opened is left out. */
struct saved *saved_read(struct mem *image);
void saved_free(struct saved *s);

/* How many pieces cannot be read. */
unsigned long saved_nr_lost(const struct saved *s);

/* What could be read before reads the same now, of the disk (unless
 * snapshots alone are meant) and of each snapshot. */
enum saved_of { SAVED_ALL, SAVED_SNAPSHOTS };
void saved_expect_kept(const struct saved *before, const struct saved *now,
                       enum saved_of of);

#endif /* SAVED_H */
