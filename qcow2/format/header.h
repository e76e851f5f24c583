/* SPDX-License-Identifier: BSD-3-Clause */
/* header.h: the image header and its extensions, decoded and validated, and
 * the changes of it, each by one write of a sector (I5).
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
    char *data_file;             /* of an image that has one: as stored; NULL:
                                  * it does not say which */

    /* From the bitmaps extension; directory_size 0: no extension. */
    uint32_t nr_bitmaps;
    uint64_t bitmap_directory_offset, bitmap_directory_size;

    /* All extensions in file order, with their raw content. */
    struct header_extension *extensions;
    unsigned nr_extensions;
    uint64_t extensions_end;     /* offset in the file just past them */
};

static inline bool
header_has_extended_l2(const struct header *h)
{
    return (h->incompatible & INCOMPAT_EXTENDED_L2) != 0;
}

/* Reads, checks and decodes. Refuses by name: unknown incompatible
 * features, encryption, compression types not built in. ENOTSUP for those, EIO
 * for damage, EINVAL for "not a qcow2 file". On failure *h needs no
 * header_free.
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

/* Is the data file, by itself, the disk as a raw image? Whoever changes the
 * disk keeps it so. A backing file, which nobody sees there, ends that.
 */
bool header_has_raw_data(const struct header *h);

/* Of the autoclear features that are set, those that we maintain. */
uint64_t header_kept_autoclear(const struct header *h);

/* Gives up the content of extensions, for a header that is not written. */
void header_forget_extensions(struct header *h);

/* What of a header can be changed. */
enum header_set {
    HEADER_SET_DISK = 1 << 0,         /* size, l1_size, l1_offset */
    HEADER_SET_REFTABLE = 1 << 1,     /* reftable_offset, _clusters */
    HEADER_SET_SNAPSHOTS = 1 << 2,    /* nr_snapshots, snapshots_offset */
    HEADER_SET_INCOMPATIBLE = 1 << 3, /* incompatible_set, _clear */
    HEADER_SET_AUTOCLEAR = 1 << 4,
    HEADER_SET_FORM = 1 << 5,         /* version, compatible, refcount_order */
    HEADER_SET_BACKING = 1 << 6,      /* backing_file, _format */
    HEADER_SET_EXTENSIONS = 1 << 7,   /* extensions, nr_extensions */
};

/* A change of a header, made by one write inside its first sector (I5). Of the
 * fields only those count that `parts` names; feature bits are left out where
 * the version has none. Incompatible features change bit by bit, as a reader
 * may mark the image corrupt at any time.
 */
struct header_update {
    unsigned parts;                   /* mask of enum header_set */
    uint64_t size;
    uint32_t l1_size;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t nr_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_set, incompatible_clear;
    uint64_t autoclear;
    unsigned version;
    uint64_t compatible;
    unsigned refcount_order;
    const char *backing_file, *backing_format; /* NULL: none */

    /* Each replaces the extension of its type, in its place, or is added
     * behind all others; without data (NULL) that type is removed. Neither
     * the backing format nor the feature names. */
    const struct header_extension *extensions;
    unsigned nr_extensions;
};

/* Changes fields at once: fails with EINVAL if u->parts has HEADER_SET_FORM,
 * _BACKING or _EXTENSIONS. Does not flush: the caller's order says when.
 * h is updated on success, and only then.
 */
int header_write_fields(struct io *io, struct header *h,
                        const struct header_update *u,
                        struct qcow2_error *err);

/* Makes any change. Unknown extensions stay; the feature names are removed if
 * there is no room for them. Prepare writes nothing that the header refers to
 * yet, and returns what is to be the first sector; after a barrier, switch
 * writes that, and reads the header anew. Where only fields change prepare
 * does no I/O, and switch is header_write_fields. In between nothing else may
 * change the header, feature bits aside. (header-update.c)
 */
enum { HEADER_SECTOR_BYTES = 512 };
struct header_sector {
    unsigned char bytes[HEADER_SECTOR_BYTES];
};
int header_prepare(struct io *io, const struct header *h,
                   const struct header_update *u,
                   struct header_sector *sector, struct qcow2_error *err);
int header_switch(struct io *io, struct header *h,
                  const struct header_update *u,
                  const struct header_sector *sector,
                  struct qcow2_error *err);

/* Which header is there is unknown, as header_switch or the barrier after it
 * failed; before: the version until then. The lower one counts: a version 2
 * header has something else where feature bits would be set.
 */
void header_switch_failed(struct header *h, uint32_t before);

/* Clears all autoclear features and, where the rest of the header needs no
 * room for it, drops the bitmaps extension, so that others do not warn of
 * bitmaps that are wrong. Of *h changes only what this changes. May begin with
 * writes outside of the first sector, of nothing that the header refers to,
 * and a barrier. (header-update.c)
 */
int header_drop_bitmaps(struct io *io, struct header *h,
                        struct qcow2_error *err);

/* What header_encode is given for a new image. */
struct header_new {
    unsigned version, cluster_bits, refcount_order;
    uint64_t size;
    uint32_t l1_size;
    uint64_t l1_offset, reftable_offset;
    uint32_t reftable_clusters;
    unsigned compression_type;
    bool lazy_refcounts, extended_l2;
    const char *backing_file, *backing_format; /* or NULL */
    const char *data_file;                     /* or NULL */
    bool data_file_raw;
};

/* Builds the first cluster's used part: header, extensions (backing format,
 * then feature names last where they fit), backing file name. Returns its
 * length, or -1 if it does not fit one cluster.
 */
long header_encode(const struct header_new *hn, unsigned char *buf,
                   size_t cluster_size, struct qcow2_error *err);

#endif /* QCOW2_HEADER_H */
