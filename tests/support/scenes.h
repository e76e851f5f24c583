/* SPDX-License-Identifier: BSD-3-Clause */
/* scenes.h: the images and requests that the fault and crash tests combine.
 */
#ifndef SCENES_H
#define SCENES_H

#include "play.h"

/* An image in the smallest geometry, where a few clusters fill tables. */
struct scene {
    const char *name;
    const char *recipe;
    uint64_t backing_bytes;
    uint64_t device_bytes; /* on a block device full of junk; 0: in a file */
};

extern const struct scene scenes[];
extern const unsigned nr_scenes;

/* A request; places are in eighths of clusters, or of subclusters. */
struct letter {
    const char *name;
    enum op_kind kind;
    unsigned off, len;
    unsigned flags;
};

extern const struct letter letters[];
extern const unsigned nr_letters;

/* The request that a letter is on a disk of that size, of such units
 * (play_unit). */
struct op letter_op(const struct letter *l, uint32_t unit_bytes,
                    uint64_t disk_size, uint64_t seed);

#endif /* SCENES_H */
