/* SPDX-License-Identifier: BSD-3-Clause */
/* header.h: the image header and its extensions, decoded and validated, and
 * the single-sector writes that change it (I5).
 */
#ifndef QCOW2_HEADER_H
#define QCOW2_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "format/format.h"
#include "format/geometry.h"
#include "qcow2.h"
#include "storage/io.h"

/* A header extension that is kept but not understood, or kept as it is. */
struct header_extension {
    uint32_t type;
    uint32_t length;
    unsigned char *data;
};

/* Every field is within its limits (format.h), offsets are cluster-aligned,
 * tables do not wrap around, names are bounded and terminated. Whether
 * tables lie inside the file is checked too (file_size given to decode).
 */
struct header {
    unsigned version;
    unsigned cluster_bits;
    unsigned refcount_order;     /* width is 1 << order bits */
    struct geometry geo;         /* that follows from these */
    uint64_t size;               /* virtual size as stored */
    uint32_t l1_size;            /* entries */
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t nr_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t header_length;
    unsigned compression_type;
    uint32_t crypt_method;

    char *backing_file;          /* NULL: none */
    uint64_t backing_file_offset;
    char *backing_format;        /* as declared; NULL: not declared */

    /* From the bitmaps extension; directory_size 0: no extension. */
    uint32_t nr_bitmaps;
    uint64_t bitmap_directory_offset, bitmap_directory_size;

    /* All extensions in file order, with their raw content. */
    struct header_extension *extensions;
    unsigned nr_extensions;
    uint64_t extensions_end;     /* offset in the file just past them */
};

/* Reads, checks and decodes. Refuses by name: unknown incompatible
 * features, encryption, external data files, extended L2 entries,
 * compression types not built in. ENOTSUP for those, EIO for damage,
 * EINVAL for "not a qcow2 file". On failure *h needs no header_free.
 */
int header_read(struct io *io, struct header *h, struct qcow2_error *err);

/* What can be wrong with a header, each by itself. */
enum header_part {
    HEADER_GEOMETRY,     /* nothing else could be looked at */
    HEADER_FEATURES,
    HEADER_L1,
    HEADER_REFTABLE,
    HEADER_SNAPSHOTS,
    HEADER_BACKING_FILE,
    HEADER_EXTENSIONS,
    HEADER_BITMAPS,
    NR_HEADER_PARTS,
};
/* The active disk can be read without them. */
#define HEADER_NOT_THE_DISK \
    (1u << HEADER_REFTABLE | 1u << HEADER_SNAPSHOTS | 1u << HEADER_BITMAPS)

struct header_flaws {
    unsigned parts;           /* mask of 1 << enum header_part */
    struct qcow2_error first; /* of what is wrong; errnum 0: nothing */
    char text[NR_HEADER_PARTS][256]; /* each part's, without the file's name */
};

/* The same, but part by part: -1 only for files that are no qcow2 images and
 * for failures. What is wrong is in *flaws, and *h holds what the file says
 * all the same.
 */
int header_read_parts(struct io *io, struct header *h,
                      struct header_flaws *flaws, struct qcow2_error *err);

/* As header_read, for reading the active disk alone: what is wrong with the
 * rest is dropped. */
int header_read_disk(struct io *io, struct header *h,
                     struct qcow2_error *err);

/* Makes those of HEADER_NOT_THE_DISK that are in the mask empty. A snapshot
 * table with too many entries keeps as many as the limit allows. */
void header_drop_parts(struct header *h, unsigned mask);

/* The same for telling about an image, not for using it: fails only where
 * nothing can be made out. Else *h holds what the file says, also where it
 * is damaged or we do not support it; what header_read would fail with is in
 * *refusal (without the image's name; errnum 0: nothing). nr_snapshots counts
 * only if snapshots_offset is not 0.
 */
int header_read_loosely(struct io *io, struct header *h,
                        struct qcow2_error *refusal,
                        struct qcow2_error *err);
void header_free(struct header *h);

/* Gives up the content of extensions, for a header that is not written. */
void header_forget_extensions(struct header *h);

/* Single-field rewrites, each one write inside the first sector. They do
 * not flush: the caller's order says when. h is updated on success.
 */
int header_write_incompatible(struct io *io, struct header *h,
                              uint64_t incompatible,
                              struct qcow2_error *err);
int header_write_autoclear(struct io *io, struct header *h,
                           uint64_t autoclear, struct qcow2_error *err);
int header_write_reftable(struct io *io, struct header *h,
                          uint64_t reftable_offset,
                          uint32_t reftable_clusters,
                          struct qcow2_error *err);

int header_write_snapshots(struct io *io, struct header *h,
                           uint32_t nr_snapshots, uint64_t snapshots_offset,
                           struct qcow2_error *err);
/* Clears all autoclear features and, where the rest of the header needs no
 * room for it, drops the bitmaps extension, so that others do not warn of
 * bitmaps that are wrong. Of *h changes only what this changes. May begin with
 * writes outside of the first sector, of nothing that the header refers to,
 * and a barrier. (header-form.c)
 */
int header_drop_bitmaps(struct io *io, struct header *h,
                        struct qcow2_error *err);

/* Virtual size and L1 table together: another disk, or another size. */
int header_write_disk(struct io *io, struct header *h, uint64_t size,
                      uint32_t l1_size, uint64_t l1_offset,
                      struct qcow2_error *err);

/* What can be changed in a header beyond single fields. */
struct header_form {
    const char *backing_file, *backing_format; /* or NULL */
    unsigned version;
    uint64_t compatible;
    unsigned refcount_order;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    bool no_bitmaps;    /* nor other autoclear features */
};
struct header_form header_form_of(const struct header *h);

/* Gives the header another form. Unknown extensions stay; the feature names
 * go if there is no room for them. Prepare writes nothing that the header
 * refers to yet, and returns what is to be the first sector; after a
 * barrier, switch writes that, and reads the header anew. In between nothing
 * else may change the header. (header-form.c)
 */
enum { HEADER_SECTOR_BYTES = 512 };
struct header_sector {
    unsigned char bytes[HEADER_SECTOR_BYTES];
};
int header_prepare(struct io *io, const struct header *h,
                   const struct header_form *form,
                   struct header_sector *sector, struct qcow2_error *err);
int header_switch(struct io *io, struct header *h,
                  const struct header_sector *sector,
                  struct qcow2_error *err);

/* What header_encode is given for a new image. */
struct header_new {
    unsigned version, cluster_bits, refcount_order;
    uint64_t size;
    uint32_t l1_size;
    uint64_t l1_offset, reftable_offset;
    uint32_t reftable_clusters;
    unsigned compression_type;
    bool lazy_refcounts;
    const char *backing_file, *backing_format; /* or NULL */
};

/* Builds the first cluster's used part: header, extensions (backing format,
 * then feature names last where they fit), backing file name. Returns its
 * length, or -1 if it does not fit one cluster.
 */
long header_encode(const struct header_new *hn, unsigned char *buf,
                   size_t cluster_size, struct qcow2_error *err);

#endif /* QCOW2_HEADER_H */
