/* SPDX-License-Identifier: BSD-3-Clause */
/* input.h: what the bytes of a fuzzed input mean: an image file, and what is
 * done to it.
 *
 * "QFI\xfb"…                  the whole input is the file
 * base, commands              the base-th of the recipes in bases.h, changed
 * INPUT_SPARSE, runs, commands
 *                             size (8 bytes), then runs: sector (4), number
 *                             of bytes (2), the bytes; a run of 0 bytes ends
 *                             them
 * INPUT_SNAPSHOTS, base, number (2), table
 *                             a base with that snapshot table at its end
 * INPUT_BITMAPS, base, number (2), directory
 *                             a base with that bitmap directory at its end
 *
 * Numbers are big-endian. A command has COMMAND_BYTES: kind (1), a (1), b
 * (2), c (8); what is left at the end is ignored. Up to 0x7f it changes the
 * file (patch.c says how), from 0x80 on it is an operation (session.h). Any
 * bytes have a meaning, so that a fuzzer need not know the valid ones.
 */
#ifndef INPUT_H
#define INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "sparse.h"

enum {
    INPUT_SPARSE = 255, INPUT_SNAPSHOTS = 254, INPUT_BITMAPS = 253,
    COMMAND_BYTES = 12,
    MAX_OPERATIONS = 24, /* later ones are ignored */
};

struct command {
    uint8_t kind, a;
    uint16_t b;
    uint64_t c;
};

struct input {
    struct sparse *file;
    struct command ops[MAX_OPERATIONS];
    unsigned nr_ops;
};

void input_decode(struct input *in, const uint8_t *data, size_t nr_bytes);
void input_free(struct input *in);

/* Kinds of commands that change the file: the low two bits say how wide a
 * number is (1, 2, 4 or 8 bytes), the next three what becomes of it. */
enum {
    PATCH_SET = 0 << 2, PATCH_OR = 1 << 2, PATCH_AND = 2 << 2,
    PATCH_XOR = 3 << 2, PATCH_ADD = 4 << 2,
    PATCH_WIDTHS = 3, PATCH_MODES = 7 << 2,
    PATCH_SIZE = 0x20,  /* the file's size becomes the value */
    PATCH_BYTES = 0x21, /* the (c & 15) + 1 commands that follow are bytes
                         * that are written at the place */
};

/* The low half of a: which place is meant, the b-th of its sort. */
enum place {
    PLACE_HEADER,       /* byte b of the first sectors */
    PLACE_FIELD,        /* a field of the header, as wide as it is */
    PLACE_L1, PLACE_L2, /* words; of L2 tables one after the other: entries,
                         * of extended ones their bitmaps, too */
    PLACE_REFTABLE, PLACE_REFCOUNT,
    PLACE_SNAPSHOTS,    /* byte b of the table */
    PLACE_SNAPSHOT_L1,  /* high byte of b: the snapshot; low: the entry */
    PLACE_DIRECTORY,    /* byte b of the bitmap directory */
    PLACE_BITMAP,       /* entry of the first bitmap's table */
    PLACE_DATA,         /* start of a guest cluster's data */
    PLACE_END,          /* that many bytes before the end of the file */
    PLACE_SECTOR, PLACE_CLUSTER,
    PLACE_EXTENSIONS,   /* byte b behind the header proper */
    PLACE_BACKING,      /* byte b of the backing file's name */
    NR_PLACES
};

/* The high half of a: what the value is. */
enum value {
    VALUE_C,        /* c itself */
    VALUE_PLACE,    /* where place c & 15 is, its (c >> 4 & 0xffff)-th, with
                     * bits 63 to 61 of c, and bit 20 of it as bit 0 */
    VALUE_BIT,      /* one bit */
    VALUE_NEGATIVE, /* minus the low 16 bits of c */
    VALUE_CLUSTER,  /* the (c & 0xffff)-th cluster, with bits as above */
    VALUE_SHIFTED,  /* the low 8 bits, shifted by the next 6 */
    NR_VALUES
};

/* Does one or, of PATCH_BYTES, several commands; returns how many. */
size_t patch_file(struct sparse *file, const uint8_t *commands, size_t nr);

void command_decode(struct command *c, const uint8_t *bytes);

#endif /* INPUT_H */
