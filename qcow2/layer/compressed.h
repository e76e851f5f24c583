/* SPDX-License-Identifier: BSD-3-Clause */
/* compressed.h: reads compressed clusters of a layer. */
#ifndef QCOW2_COMPRESSED_H
#define QCOW2_COMPRESSED_H

#include "cache/decompress-pool.h"
#include "layer/source.h"

/* Whose clusters are read. */
struct compressed_file {
    struct source *source;
    const void *owner;      /* of them in the pool's cache: all layers that
                             * are views of one file have the same */
    struct decompress_pool *pool;
    enum compress_type type;
    uint32_t cluster_size;
    bool is_constant;       /* nobody writes to the file */
};

/* As source_ops.read_compressed. */
int compressed_read(const struct compressed_file *f,
                    const struct compressed_part *parts, unsigned nr,
                    struct qcow2_error *err);

#endif /* QCOW2_COMPRESSED_H */
