/* SPDX-License-Identifier: BSD-3-Clause */
/* whole-scenes.h: the images, and operations on the whole of them, that the
 * fault and crash tests combine.
 */
#ifndef WHOLE_SCENES_H
#define WHOLE_SCENES_H

#include "contents.h"
#include "scenes.h"

extern const struct scene whole_scenes[];
extern const unsigned nr_whole_scenes;

extern const struct whole_op whole_words[];
extern const unsigned nr_whole_words;

/* Does op make sense on what the image holds? */
bool whole_possible(const struct contents *c, unsigned version,
                    const struct whole_op *op);

#endif /* WHOLE_SCENES_H */
