/* SPDX-License-Identifier: BSD-3-Clause */
/* bases.h: valid images that fuzzed inputs start from, so that a few bytes
 * reach what thousands would be needed for. New ones go to the end: inputs
 * name them by number.
 */
#ifndef BASES_H
#define BASES_H

#include "sparse.h"

extern const char *const bases[];
extern const unsigned nr_bases;

/* What is built of bases[i], which stays as it is. */
const struct sparse *base_image(unsigned i);

/* What a recipe of tests/support/builder.h makes. */
struct sparse *base_build(const char *recipe);

#endif /* BASES_H */
