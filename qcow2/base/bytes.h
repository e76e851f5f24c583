/* SPDX-License-Identifier: BSD-3-Clause */
/* bytes.h: big-endian integers as types of their own, so that reading a
 * field with the wrong width, or without conversion, does not compile.
 */
#ifndef QCOW2_BYTES_H
#define QCOW2_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* Alignment 1: on-disk structures are made of these and never padded. */
typedef struct { uint8_t b[2]; } be16;
typedef struct { uint8_t b[4]; } be32;
typedef struct { uint8_t b[8]; } be64;

#define BYTES_ACCESSORS(bits)                                           \
    static inline uint##bits##_t                                        \
    be##bits##_get(be##bits v)                                          \
    {                                                                   \
        uint##bits##_t n;                                               \
        memcpy(&n, v.b, sizeof n);                                      \
        return be##bits##toh(n);                                        \
    }                                                                   \
    static inline be##bits                                              \
    be##bits##_make(uint##bits##_t n)                                   \
    {                                                                   \
        be##bits v;                                                     \
        n = htobe##bits(n);                                             \
        memcpy(v.b, &n, sizeof n);                                      \
        return v;                                                       \
    }

BYTES_ACCESSORS(16)
BYTES_ACCESSORS(32)
BYTES_ACCESSORS(64)

#undef BYTES_ACCESSORS

#endif /* QCOW2_BYTES_H */
