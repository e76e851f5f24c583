/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow1-image.h: images of version 1 in memory, with random content, as no
 * program of this project makes them.
 */
#ifndef QCOW1_IMAGE_H
#define QCOW1_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "rng.h"

/* Where fields of the header are. */
enum {
    QCOW1_AT_VERSION = 4, QCOW1_AT_NAME = 8, QCOW1_AT_NAME_SIZE = 16,
    QCOW1_AT_SIZE = 24, QCOW1_AT_CLUSTER_BITS = 32, QCOW1_AT_L2_BITS = 33,
    QCOW1_AT_CRYPT_METHOD = 36, QCOW1_AT_L1 = 40,
};

struct qcow1_image {
    unsigned cluster_bits, l2_bits;
    uint64_t size;              /* virtual */
    const char *backing;        /* as stored; NULL: none */

    /* What it stands on shows; NULL: nothing. */
    const unsigned char *below;
    uint64_t below_size;

    /* Made, to be freed: the file, and what it reads as. */
    unsigned char *bytes, *shows;
    size_t nr_bytes;
};

/* Fills what is made. Data of every kind come in runs, from random seeds. */
void qcow1_image_make(struct qcow1_image *image, struct rng *rng);
void qcow1_image_free(struct qcow1_image *image);

/* A big-endian number of `width` bytes in the file. */
uint64_t qcow1_image_get(const struct qcow1_image *image, uint64_t off,
                         unsigned width);
void qcow1_image_put(struct qcow1_image *image, uint64_t off, unsigned width,
                     uint64_t value);

#endif /* QCOW1_IMAGE_H */
