/* SPDX-License-Identifier: BSD-3-Clause */
/* targets.h: what is fuzzed: entry points of the engine, each with what must
 * hold whatever the input is. Any failure aborts.
 */
#ifndef TARGETS_H
#define TARGETS_H

#include <stddef.h>
#include <stdint.h>

struct target {
    const char *name;
    void (*run)(const uint8_t *data, size_t nr_bytes);
};

extern const struct target targets[];
extern const unsigned nr_targets;

/* NULL: there is none of that name. */
const struct target *target_find(const char *name);

/* Within the bounds of bounds.h. Inputs that are too long are not run. */
void target_run(const struct target *t, const uint8_t *data, size_t nr_bytes);

void target_check(const uint8_t *data, size_t nr_bytes);
void target_bitmaps(const uint8_t *data, size_t nr_bytes);
void target_decompress(const uint8_t *data, size_t nr_bytes);
void target_qcow1(const uint8_t *data, size_t nr_bytes);

#endif /* TARGETS_H */
