/* SPDX-License-Identifier: BSD-3-Clause */
/* compressed.h: compressed clusters of an image. */
#ifndef QCOW2_COMPRESSED_H
#define QCOW2_COMPRESSED_H

#include "layer/source.h"

/* source_ops.read_compressed of a view. */
int compressed_read(struct source *s, const struct compressed_part *parts,
                    unsigned nr, struct qcow2_error *err);

#endif /* QCOW2_COMPRESSED_H */
