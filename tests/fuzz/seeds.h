/* SPDX-License-Identifier: BSD-3-Clause */
/* seeds.h: the inputs that fuzzing starts from, and that 'make check' repeats:
 * images of the other tests' recipes, whole and in pieces.
 */
#ifndef SEEDS_H
#define SEEDS_H

#include <stddef.h>
#include <stdint.h>

typedef void seed_fn(void *opaque, const char *name, const uint8_t *data,
                     size_t nr_bytes);

/* All for one target, in the same order each time. check_dir: where the
 * recipes of damaged images are (tests/check). */
void seeds_each(const char *target, const char *check_dir, seed_fn *fn,
                void *opaque);

#endif /* SEEDS_H */
