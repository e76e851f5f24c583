/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow1.h: an image of version 1 as a layer, which is only read. */
#ifndef QCOW2_QCOW1_H
#define QCOW2_QCOW1_H

#include "cache/cache.h"
#include "cache/decompress-pool.h"
#include "layer/source.h"

/* Tables are read through meta. Takes over io, also on failure; ops->free
 * closes the layer.
 */
struct source *qcow1_open(struct io *io, struct cache *meta,
                          struct decompress_pool *decompress,
                          struct qcow2_error *err);

#endif /* QCOW2_QCOW1_H */
