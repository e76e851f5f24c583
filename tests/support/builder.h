/* SPDX-License-Identifier: BSD-3-Clause */
/* builder.h: makes qcow2 images for tests from a few lines of text, with
 * code that shares nothing with the engine's own.
 *
 * A recipe is read line by line ('\n' or ';' ends a line, '#' begins a
 * comment). Lines on geometry come first:
 *
 *   version 2|3              3 if not said
 *   cluster BYTES            65536; numbers take K, M, G and T
 *   refcount-bits N          16
 *   size BYTES               virtual size; any number
 *   backing NAME [FORMAT]    FORMAT "-": none declared
 *   data-file NAME [raw]     guest data are there (sets incompatible bit 2,
 *                            and autoclear bit 1)
 *   compression zlib|zstd    (zstd sets incompatible bit 3)
 *   incompatible|compatible|autoclear BIT
 *   extended-l2              subclusters (sets incompatible bit 4)
 *   header-length BYTES      more than 112: filled with 0xa5
 *   extension TYPE TEXT      \xHH in TEXT is a byte
 *   l1-entries N             at least; more than the size needs is legal
 *
 * then the content, in the order of the host file; guest clusters are
 * numbered, FIRST-LAST is a range, SEED names a content (rng.h):
 *
 *   data FIRST[-LAST] [SEED]
 *   compressed FIRST[-LAST] [SEED]   next to each other as long as nothing
 *                            else is allocated, crossing host clusters
 *   zero FIRST[-LAST]        without a place
 *   zero-alloc FIRST[-LAST]  with one, holding junk
 *   unallocated FIRST[-LAST]
 *   subclusters CLUSTER LETTERS [SEED]   d data, z zero, u unallocated, p the
 *                            same in a cluster that has a place (as data
 *                            gives it); the last one holds for the rest
 *   table CLUSTER            an L2 table for it, empty or not
 *   gap N                    host clusters left free, holding junk
 *   leak N                   host clusters counted that nobody refers to
 *   snapshot ID NAME [size=BYTES] [extra=BYTES] [vmstate=CLUSTERS]
 *                            of what is there now; later lines copy what
 *                            they change
 *
 * and then what is wrong with it, done when all is laid out:
 *
 *   poke PLACE = VALUE       or |, & (keep bits), ^, + instead of =
 *   truncate BYTES           the file's size
 *   append BYTES             of junk
 *
 * PLACE: header.FIELD (format.h's names), l1[I], l2[CLUSTER],
 * bitmap[CLUSTER] (the second word of its entry), reftable[I],
 * refcount[HOST CLUSTER], snapshot[I].l1_table_offset and so on, or
 * u8[OFFSET] … u64[OFFSET]. VALUE and indexes: numbers and places of
 * things joined by + and -: @l1, @l2[CLUSTER], @data[CLUSTER], @reftable,
 * @refblock[I], @snapshots, @snapshot-l1[I], @end (all host offsets),
 * @cluster (its size); @data[N]/C is the host cluster's index.
 */
#ifndef BUILDER_H
#define BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct builder;

/* A mistake in a recipe ends the program with a message. */
struct builder *builder_new(void);
void builder_add(struct builder *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void builder_free(struct builder *b);

/* The image; the builder keeps it. The first call lays it out, and nothing
 * can be added after it. */
const unsigned char *builder_bytes(struct builder *b, size_t *nr_bytes);
void builder_write(struct builder *b, const char *path); /* and the data file,
                                                * in the same directory */

bool builder_has_data_file(const struct builder *b);

/* What the data file begins with; the rest, to the size of the disk, is
 * zeroes. */
const unsigned char *builder_data(const struct builder *b, uint64_t *nr_bytes);

/* From here on, or with LAZY_REFCOUNTS=1, images of version 3 have lazy
 * refcounts. */
void builder_make_lazy(void);
bool builder_is_lazy(void);

/* One line for all of it: an image file from a recipe. */
void builder_make(const char *path, const char *recipe);

/* Puts what the image holds over disk[0, nr_bytes), which holds what the
 * backing file shows; snapshot is its index, or -1 for the active disk.
 */
void builder_overlay(const struct builder *b, int snapshot,
                     unsigned char *disk, uint64_t nr_bytes);

uint64_t builder_disk_size(const struct builder *b, int snapshot);

unsigned builder_version(const struct builder *b);

/* Is zstd there to build with? */
bool builder_has_zstd(void);

#endif /* BUILDER_H */
