/* SPDX-License-Identifier: BSD-3-Clause */
/* header.c: reads the image header and refuses what it must not trust; see
 * header.h.
 */
#include "format/header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/compress.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/zeroed.h"

_Static_assert(sizeof(struct disk_header) == HEADER_V3_LENGTH,
               "the header has no holes");

/* What is decoded from. */
struct source_bytes {
    struct disk_header fixed;   /* what the file does not have is 0 */
    uint64_t file_size;
    unsigned char *cluster;     /* the first one */
    uint32_t cluster_size;
};

static int
check_magic(const struct source_bytes *in, struct qcow2_error *err)
{
    uint32_t version = be32_get(in->fixed.version);
    const char *format;

    if (in->file_size == 0)
        return error_set(err, EINVAL, "not a qcow2 image: it is empty");
    if (be32_get(in->fixed.magic) != QCOW2_MAGIC) {
        format = qcow2_probe(&in->fixed,
                             min_u64(in->file_size, sizeof in->fixed));
        if (format)
            return error_set(err, EINVAL, "not a qcow2 image: it looks like "
                             "%s; qemu-img convert -O qcow2 makes one of it",
                             format);
        return error_set(err, EINVAL, "not a qcow2 image: its first bytes "
                         "are not those of a qcow2 header");
    }
    if (in->file_size < HEADER_V2_LENGTH)
        return error_set(err, EIO, "the file ends inside the header, after "
                         "%" PRIu64 " bytes", in->file_size);
    if (version == 1)
        return error_set(err, ENOTSUP, "not a qcow2 image: it is of the "
                         "older format qcow (version 1)");
    if (version != 2 && version != 3)
        return error_set(err, ENOTSUP, "qcow2 version %" PRIu32 " is not "
                         "supported, only 2 and 3 are", version);
    return 0;
}

/* What must be known to find anything else in the first cluster. */
static int
decode_geometry(const struct disk_header *d, struct header *h,
                struct qcow2_error *err)
{
    h->version = be32_get(d->version);
    h->cluster_bits = be32_get(d->cluster_bits);
    if (h->cluster_bits < MIN_CLUSTER_BITS
        || h->cluster_bits > MAX_CLUSTER_BITS)
        return error_set(err, EIO, "header: cluster_bits is %u, must be %d "
                         "to %d", h->cluster_bits, MIN_CLUSTER_BITS,
                         MAX_CLUSTER_BITS);
    if (h->version == 2) {
        h->header_length = HEADER_V2_LENGTH;
        return 0;
    }
    h->header_length = be32_get(d->header_length);
    if (h->header_length < HEADER_V3_MIN_LENGTH
        || !is_aligned(h->header_length, 8)
        || h->header_length > UINT32_C(1) << h->cluster_bits)
        return error_set(err, EIO, "header: its length is %" PRIu32 ", must "
                         "be a multiple of 8, at least %d and at most a "
                         "cluster", h->header_length, HEADER_V3_MIN_LENGTH);
    return 0;
}

/* Takes the next extension at *pos in cluster[0, end). 1: *e is it, its
 * data still in the cluster; 0: there is no more; -1: it is cut short.
 */
static int
next_extension(unsigned char *cluster, uint64_t end, uint64_t *pos,
               struct header_extension *e)
{
    struct disk_extension d;

    if (*pos >= end)
        return 0;
    if (end - *pos < sizeof d)
        return -1;
    memcpy(&d, cluster + *pos, sizeof d);
    *pos += sizeof d;
    e->type = be32_get(d.type);
    e->length = be32_get(d.length);
    e->data = cluster + *pos;
    if (e->type == EXT_END)
        return 0;
    if (e->length > end - *pos)
        return -1;
    *pos = min_u64(end, *pos + round_up(e->length, 8));
    return 1;
}

/* Copies the name that the image's own table gives an incompatible feature
 * into name; false if it has none. The image is not trusted yet.
 */
static bool
find_feature_name(const struct source_bytes *in, const struct header *h,
                  unsigned bit, char name[ESCAPE_SIZE])
{
    uint64_t pos = h->header_length;
    struct header_extension e;

    while (next_extension(in->cluster, in->cluster_size, &pos, &e) == 1) {
        struct disk_feature_name f;

        if (e.type != EXT_FEATURE_NAMES)
            continue;
        for (; e.length >= sizeof f; e.length -= sizeof f) {
            memcpy(&f, e.data, sizeof f);
            e.data += sizeof f;
            if (f.type == 0 && f.bit == bit) {
                escape_bytes(name, f.name, strnlen(f.name, sizeof f.name));
                return true;
            }
        }
    }
    return false;
}

static int
check_features(const struct source_bytes *in, const struct header *h,
               struct qcow2_error *err)
{
    const uint64_t known = INCOMPAT_DIRTY | INCOMPAT_CORRUPT
                           | INCOMPAT_DATA_FILE | INCOMPAT_COMPRESSION
                           | INCOMPAT_EXTENDED_L2;
    char name[ESCAPE_SIZE] = "";

    if (h->incompatible & ~known) {
        unsigned bit = __builtin_ctzll(h->incompatible & ~known);

        if (find_feature_name(in, h, bit, name))
            return error_set(err, ENOTSUP, "needs the unknown feature '%s' "
                             "(incompatible feature bit %u), which is not "
                             "supported", name, bit);
        return error_set(err, ENOTSUP, "needs an unknown feature "
                         "(incompatible feature bit %u), which is not "
                         "supported", bit);
    }
    return 0;
}

/* Subclusters are no smaller than a cluster may be. */
static int
check_subclusters(const struct header *h, struct qcow2_error *err)
{
    if (!header_has_extended_l2(h)
        || h->cluster_bits >= MIN_EXTENDED_L2_CLUSTER_BITS)
        return 0;
    return error_set(err, EIO, "header: extended L2 entries (subclusters) "
                     "need clusters of at least %d bytes, and these have %u",
                     1 << MIN_EXTENDED_L2_CLUSTER_BITS,
                     1u << h->cluster_bits);
}

static int
check_encryption(const struct header *h, struct qcow2_error *err)
{
    if (h->crypt_method == CRYPT_NONE)
        return 0;
    if (h->crypt_method > CRYPT_LUKS)
        return error_set(err, ENOTSUP, "is encrypted by the unknown method "
                         "%" PRIu32 ", which is not supported",
                         h->crypt_method);
    return error_set(err, ENOTSUP, "is encrypted (%s), which is not "
                     "supported",
                     h->crypt_method == CRYPT_AES ? "AES" : "LUKS");
}

/* The type is 0 for zlib, and then the feature bit is not set. */
static int
check_compression(const struct header *h, struct qcow2_error *err)
{
    if ((h->compression_type != COMPRESS_ZLIB)
        != ((h->incompatible & INCOMPAT_COMPRESSION) != 0))
        return error_set(err, EIO, "header: compression type %u contradicts "
                         "the compression type feature bit, which is %s",
                         h->compression_type,
                         h->incompatible & INCOMPAT_COMPRESSION
                         ? "set" : "not set");
    if (!compress_supported(h->compression_type))
        return error_set(err, ENOTSUP, "compression type %u (%s) is not "
                         "supported", h->compression_type,
                         compress_name(h->compression_type));
    return 0;
}

static int
decode_features(const struct source_bytes *in, struct header *h,
                struct qcow2_error *err)
{
    const struct disk_header *d = &in->fixed;

    h->refcount_order = 4;
    h->crypt_method = be32_get(d->crypt_method);
    if (h->version >= 3) {
        h->incompatible = be64_get(d->incompatible_features);
        h->compatible = be64_get(d->compatible_features);
        h->autoclear = be64_get(d->autoclear_features);
        h->refcount_order = be32_get(d->refcount_order);
        if (h->header_length > HEADER_V3_MIN_LENGTH)
            h->compression_type = d->compression_type;
    }
    if (check_features(in, h, err) == -1
        || check_subclusters(h, err) == -1
        || check_encryption(h, err) == -1
        || check_compression(h, err) == -1)
        return -1;
    if (h->refcount_order > MAX_REFCOUNT_ORDER)
        return error_set(err, EIO, "header: refcount_order is %u, must be "
                         "at most %d", h->refcount_order,
                         MAX_REFCOUNT_ORDER);
    h->geo = geometry_make(h->cluster_bits, h->refcount_order,
                           header_has_extended_l2(h));
    return 0;
}

/* Is [host_off, host_off + nr_bytes) a place for a table? */
static int
check_table(const struct source_bytes *in, const char *what,
            uint64_t host_off, uint64_t nr_bytes, struct qcow2_error *err)
{
    /* The last cluster of a file need not be complete. */
    uint64_t end = round_up(in->file_size, in->cluster_size);

    if (host_off == 0 || !is_aligned(host_off, in->cluster_size))
        return error_set(err, EIO, "header: the offset of the %s, 0x%" PRIx64
                         ", is not that of a cluster", what, host_off);
    if (host_off >= MAX_HOST_OFFSET || !range_inside(host_off, nr_bytes, end))
        return error_set(err, EIO, "header: the %s (%" PRIu64 " bytes at "
                         "offset 0x%" PRIx64 ") does not lie inside the "
                         "file, which has %" PRIu64 " bytes; it may be cut "
                         "short", what, nr_bytes, host_off, in->file_size);
    return 0;
}

/* If the refcount table can be where the header says, which of the two is
 * there is not known: the L1 table must not be read. */
static int
check_l1_alone(const struct source_bytes *in, const struct header *h,
               struct qcow2_error *err)
{
    uint64_t off = be64_get(in->fixed.refcount_table_offset);
    uint64_t nr_bytes = scale_up(be32_get(in->fixed.refcount_table_clusters),
                                 h->cluster_bits);
    uint64_t l1_end = h->l1_offset + h->l1_size * sizeof(be64);

    if (nr_bytes > MAX_REFTABLE_BYTES
        || check_table(in, "refcount table", off, nr_bytes, NULL) == -1
        || h->l1_offset >= off + nr_bytes || off >= l1_end)
        return 0;
    return error_set(err, EIO, "header: the L1 table and the refcount table "
                     "overlap");
}

static int
decode_l1(const struct source_bytes *in, struct header *h,
          struct qcow2_error *err)
{
    uint64_t needed;

    h->size = be64_get(in->fixed.size);
    h->l1_size = be32_get(in->fixed.l1_size);
    h->l1_offset = be64_get(in->fixed.l1_table_offset);
    if (h->l1_size > MAX_L1_BYTES / 8)
        return error_set(err, EIO, "header: the L1 table has %" PRIu32
                         " entries, more than the limit of %d", h->l1_size,
                         MAX_L1_BYTES / 8);
    needed = geometry_l1_entries(&h->geo, h->size);
    if (h->l1_size < needed)
        return error_set(err, EIO, "header: the L1 table has %" PRIu32
                         " entries, too few for the virtual size of %" PRIu64
                         " bytes, which needs %" PRIu64, h->l1_size, h->size,
                         needed);
    if (h->l1_size == 0)
        return 0;
    if (check_table(in, "L1 table", h->l1_offset, h->l1_size * sizeof(be64),
                    err) == -1)
        return -1;
    return check_l1_alone(in, h, err);
}

static int
decode_reftable(const struct source_bytes *in, struct header *h,
                struct qcow2_error *err)
{
    uint64_t nr_bytes;

    h->reftable_offset = be64_get(in->fixed.refcount_table_offset);
    h->reftable_clusters = be32_get(in->fixed.refcount_table_clusters);
    nr_bytes = scale_up(h->reftable_clusters, h->cluster_bits);
    if (nr_bytes == 0)
        return error_set(err, EIO, "header: there is no refcount table");
    if (nr_bytes > MAX_REFTABLE_BYTES)
        return error_set(err, EIO, "header: the refcount table has %" PRIu64
                         " bytes, more than the limit of %d", nr_bytes,
                         MAX_REFTABLE_BYTES);
    return check_table(in, "refcount table", h->reftable_offset, nr_bytes,
                       err);
}

/* Where the snapshot table ends is found out by reading it. */
static int
decode_snapshots(const struct source_bytes *in, struct header *h,
                 struct qcow2_error *err)
{
    uint64_t host_off = be64_get(in->fixed.snapshots_offset);

    h->nr_snapshots = be32_get(in->fixed.nb_snapshots);
    if (h->nr_snapshots > MAX_SNAPSHOTS
        && check_table(in, "snapshot table", host_off, 1, err) == 0) {
        h->snapshots_offset = host_off;
        return error_set(err, EIO, "header: there are %" PRIu32 " snapshots,"
                         " more than the limit of %d", h->nr_snapshots,
                         MAX_SNAPSHOTS);
    }
    if (h->nr_snapshots > MAX_SNAPSHOTS)
        return error_set(err, EIO, "header: there are %" PRIu32 " snapshots,"
                         " more than the limit of %d", h->nr_snapshots,
                         MAX_SNAPSHOTS);
    if (h->nr_snapshots == 0)
        return 0;
    if (check_table(in, "snapshot table", host_off,
                    h->nr_snapshots * sizeof(struct disk_snapshot), err)
        == -1)
        return -1;
    h->snapshots_offset = host_off;
    if (h->incompatible & INCOMPAT_DATA_FILE)
        return error_set(err, EIO, "header: there are %" PRIu32 " internal "
                         "snapshots, which an image with an external data "
                         "file cannot have", h->nr_snapshots);
    return 0;
}

static int
decode_backing_file(const struct source_bytes *in, struct header *h,
                    struct qcow2_error *err)
{
    uint64_t offset = be64_get(in->fixed.backing_file_offset);
    uint32_t size = be32_get(in->fixed.backing_file_size);
    const unsigned char *name;

    if (offset == 0 && size == 0)
        return 0;
    if (offset == 0 || size == 0)
        return error_set(err, EIO, "header: the backing file name has "
                         "offset %" PRIu64 " and length %" PRIu32 ": one of "
                         "them must not be 0", offset, size);
    if (size > MAX_BACKING_NAME_BYTES)
        return error_set(err, EIO, "header: the backing file name has %"
                         PRIu32 " bytes, more than the limit of %d", size,
                         MAX_BACKING_NAME_BYTES);
    if (offset < h->header_length
        || !range_inside(offset, size, in->cluster_size))
        return error_set(err, EIO, "header: the backing file name, %" PRIu32
                         " bytes at offset %" PRIu64 ", does not lie behind "
                         "the header in the first cluster", size, offset);
    name = in->cluster + offset;
    if (memchr(name, '\0', size))
        return error_set(err, EIO, "header: the backing file name has a "
                         "zero byte in it");
    h->backing_file_offset = offset;
    h->backing_file = strndup((const char *)name, size);
    if (!h->backing_file)
        return error_nomem(err);
    return 0;
}

static int
decode_backing_format(const struct header_extension *e, struct header *h,
                      struct qcow2_error *err)
{
    size_t length = strnlen((const char *)e->data, e->length);

    /* As in QEMU, the last one counts. */
    free(h->backing_format);
    h->backing_format = NULL;
    if (length == 0)
        return 0;
    if (length > MAX_BACKING_NAME_BYTES)
        return error_set(err, EIO, "header: the name of the backing format "
                         "is too long");
    h->backing_format = strndup((const char *)e->data, length);
    if (!h->backing_format)
        return error_nomem(err);
    return 0;
}

/* Without the bit it has no meaning. */
static int
decode_data_file(const struct header_extension *e, struct header *h,
                 struct qcow2_error *err)
{
    size_t length = strnlen((const char *)e->data, e->length);

    if (!(h->incompatible & INCOMPAT_DATA_FILE))
        return 0;
    if (h->data_file)
        return error_set(err, EIO, "header: the name of the data file is there "
                         "twice");
    if (length == 0)
        return 0;
    if (length > MAX_DATA_FILE_NAME_BYTES)
        return error_set(err, EIO, "header: the name of the data file is too "
                         "long");
    h->data_file = strndup((const char *)e->data, length);
    return h->data_file ? 0 : error_nomem(err);
}

static int
decode_bitmaps(const struct source_bytes *in,
               const struct header_extension *e, struct header *h,
               struct qcow2_error *err)
{
    struct disk_bitmaps_extension d;

    /* Without the bit, somebody wrote to the image who does not know
     * bitmaps: they are wrong, and nobody's. */
    if (!(h->autoclear & AUTOCLEAR_BITMAPS))
        return 0;
    if (e->length != sizeof d)
        return error_set(err, EIO, "header: the bitmaps extension has %"
                         PRIu32 " bytes, must have %zu", e->length,
                         sizeof d);
    if (h->bitmap_directory_size)
        return error_set(err, EIO, "header: the bitmaps extension is there "
                         "twice");
    memcpy(&d, e->data, sizeof d);
    h->nr_bitmaps = be32_get(d.nb_bitmaps);
    h->bitmap_directory_size = be64_get(d.directory_size);
    h->bitmap_directory_offset = be64_get(d.directory_offset);
    if (h->nr_bitmaps == 0 || h->nr_bitmaps > MAX_BITMAPS)
        return error_set(err, EIO, "header: there are %" PRIu32 " bitmaps, "
                         "must be 1 to %d", h->nr_bitmaps, MAX_BITMAPS);
    if (h->bitmap_directory_size > MAX_BITMAP_DIRECTORY_BYTES
        || h->bitmap_directory_size
           < h->nr_bitmaps * sizeof(struct disk_bitmap_entry))
        return error_set(err, EIO, "header: the bitmap directory has %"
                         PRIu64 " bytes, which cannot be right for %" PRIu32
                         " bitmaps", h->bitmap_directory_size,
                         h->nr_bitmaps);
    return check_table(in, "bitmap directory", h->bitmap_directory_offset,
                       h->bitmap_directory_size, err);
}

/* Array and contents in one block. */
static int
keep_extensions(const struct source_bytes *in, uint64_t end, struct header *h,
                struct qcow2_error *err)
{
    uint64_t pos = h->header_length, nr_bytes = 0;
    struct header_extension e;
    unsigned char *data;
    unsigned nr = 0;
    int r;

    while ((r = next_extension(in->cluster, end, &pos, &e)) == 1) {
        nr++;
        nr_bytes += e.length;
    }
    if (r == -1)
        return error_set(err, EIO, "header: the header extension before "
                         "offset %" PRIu64 " does not end before %s at %"
                         PRIu64, pos, end < in->cluster_size
                         ? "the backing file name" : "the first cluster",
                         end);
    h->extensions_end = pos;
    if (nr == 0)
        return 0;
    h->extensions = malloc(nr * sizeof e + nr_bytes);
    if (!h->extensions)
        return error_nomem(err);
    h->nr_extensions = nr;
    data = (unsigned char *)(h->extensions + nr);
    pos = h->header_length;
    for (unsigned i = 0; i < h->nr_extensions; i++) {
        next_extension(in->cluster, end, &pos, &e);
        memcpy(data, e.data, e.length);
        h->extensions[i] = e;
        h->extensions[i].data = data;
        data += e.length;
    }
    return 0;
}

static int
decode_extensions(const struct source_bytes *in, struct header *h,
                  struct qcow2_error *err)
{
    uint64_t end = h->backing_file ? h->backing_file_offset
                                   : in->cluster_size;
    int r = 0;

    if (keep_extensions(in, end, h, err) == -1)
        return -1;
    for (unsigned i = 0; i < h->nr_extensions && r == 0; i++) {
        if (h->extensions[i].type == EXT_BACKING_FORMAT)
            r = decode_backing_format(&h->extensions[i], h, err);
        else if (h->extensions[i].type == EXT_DATA_FILE_NAME)
            r = decode_data_file(&h->extensions[i], h, err);
    }
    return r;
}

static int
decode_all_bitmaps(const struct source_bytes *in, struct header *h,
                   struct qcow2_error *err)
{
    for (unsigned i = 0; i < h->nr_extensions; i++)
        if (h->extensions[i].type == EXT_BITMAPS
            && decode_bitmaps(in, &h->extensions[i], h, err) == -1)
            return -1;
    if (h->autoclear & AUTOCLEAR_BITMAPS && h->bitmap_directory_size == 0)
        return error_set(err, EIO, "header: the bitmaps feature bit is set, "
                         "but there is no bitmaps extension");
    return 0;
}

/* In this order: a part relies on those before it. Each sets what it finds
 * before it objects to it.
 */
typedef int decode_fn(const struct source_bytes *in, struct header *h,
                      struct qcow2_error *err);
static decode_fn *const parts[NR_HEADER_PARTS] = {
    [HEADER_FEATURES] = decode_features,
    [HEADER_L1] = decode_l1,
    [HEADER_REFTABLE] = decode_reftable,
    [HEADER_SNAPSHOTS] = decode_snapshots,
    [HEADER_BACKING_FILE] = decode_backing_file,
    [HEADER_EXTENSIONS] = decode_extensions,
    [HEADER_BITMAPS] = decode_all_bitmaps,
};

/* Reads the first cluster, which the caller frees, also on failure. 1: it is
 * a qcow2 image, but what is wrong with it hides all the rest. */
static int
read_first_cluster(struct io *io, struct source_bytes *in, struct header *h,
                   struct qcow2_error *err)
{
    memset(h, 0, sizeof *h);
    in->cluster = NULL;
    in->cluster_size = 0;
    if (io_get_size(io, &in->file_size, err) == -1
        || io_pread(io, &in->fixed, sizeof in->fixed, 0, err) == -1)
        return -1;
    if (check_magic(in, err) == -1)
        return error_prefix(err, "%s", io->name);
    if (decode_geometry(&in->fixed, h, err) == -1) {
        error_prefix(err, "%s", io->name);
        return 1;
    }
    in->cluster_size = UINT32_C(1) << h->cluster_bits;
    in->cluster = zeroed_new(in->cluster_size);
    if (!in->cluster)
        return error_nomem(err);
    return io_pread(io, in->cluster, in->cluster_size, 0, err);
}

static void
note_flaw(struct header_flaws *flaws, enum header_part part,
          const struct qcow2_error *why)
{
    if (flaws->parts == 0)
        flaws->first = *why;
    flaws->parts |= 1u << part;
    snprintf(flaws->text[part], sizeof flaws->text[part], "%.255s",
             why->text);
}

int
header_read_parts(struct io *io, struct header *h,
                  struct header_flaws *flaws, struct qcow2_error *err)
{
    struct source_bytes in;
    struct qcow2_error e;
    int r = read_first_cluster(io, &in, h, &e);

    memset(flaws, 0, sizeof *flaws);
    if (r == 1) {
        note_flaw(flaws, HEADER_GEOMETRY, &e);
        return 0;
    }
    for (unsigned i = 0; r == 0 && i < NR_HEADER_PARTS; i++)
        if (parts[i] && parts[i](&in, h, &e) == -1) {
            note_flaw(flaws, i, &e);
            r = e.errnum == ENOMEM ? -1 : 0;
        }
    zeroed_free(in.cluster, in.cluster_size);
    if (r == -1) {
        header_free(h);
        if (err)
            *err = e;
    }
    return r;
}

/* What is wrong and not in `tolerated` is an error. */
static int
refuse_flaws(struct io *io, struct header *h,
             const struct header_flaws *flaws, unsigned tolerated,
             struct qcow2_error *err)
{
    unsigned wrong = flaws->parts & ~tolerated;

    if (wrong == 0)
        return 0;
    header_free(h);
    if (__builtin_ctz(wrong) == __builtin_ctz(flaws->parts)) {
        if (err)
            *err = flaws->first;
    } else {
        error_set(err, EIO, "%s", flaws->text[__builtin_ctz(wrong)]);
    }
    return wrong & 1u << HEADER_GEOMETRY ? -1
           : error_prefix(err, "%s", io->name);
}

int
header_read(struct io *io, struct header *h, struct qcow2_error *err)
{
    struct header_flaws flaws;

    if (header_read_parts(io, h, &flaws, err) == -1)
        return -1;
    return refuse_flaws(io, h, &flaws, 0, err);
}

int
header_read_disk(struct io *io, struct header *h, struct qcow2_error *err)
{
    struct header_flaws flaws;

    if (header_read_parts(io, h, &flaws, err) == -1)
        return -1;
    if (refuse_flaws(io, h, &flaws, HEADER_NOT_THE_DISK, err) == -1)
        return -1;
    header_drop_parts(h, flaws.parts);
    return 0;
}

void
header_drop_parts(struct header *h, unsigned mask)
{
    if (mask & 1u << HEADER_REFTABLE)
        h->reftable_offset = h->reftable_clusters = 0;
    if (mask & 1u << HEADER_SNAPSHOTS) {
        h->nr_snapshots = min_u64(h->nr_snapshots, MAX_SNAPSHOTS);
        if (h->snapshots_offset == 0)
            h->nr_snapshots = 0;
    }
    if (mask & 1u << HEADER_BITMAPS)
        h->nr_bitmaps = h->bitmap_directory_offset
                      = h->bitmap_directory_size = 0;
}

int
header_read_loosely(struct io *io, struct header *h,
                    struct qcow2_error *refusal, struct qcow2_error *err)
{
    struct header_flaws flaws;

    if (header_read_parts(io, h, &flaws, err) == -1)
        return -1;
    *refusal = flaws.first;
    if (flaws.parts & 1u << HEADER_GEOMETRY) {
        if (err)
            *err = flaws.first;
        return -1;
    }
    return 0;
}

bool
header_has_raw_data(const struct header *h)
{
    return h->incompatible & INCOMPAT_DATA_FILE
           && h->autoclear & AUTOCLEAR_RAW_DATA && !h->backing_file;
}

uint64_t
header_kept_autoclear(const struct header *h)
{
    return header_has_raw_data(h) ? AUTOCLEAR_RAW_DATA : 0;
}

void
header_forget_extensions(struct header *h)
{
    free(h->extensions);
    h->extensions = NULL;
    h->nr_extensions = 0;
}

void
header_free(struct header *h)
{
    free(h->backing_file);
    free(h->backing_format);
    free(h->data_file);
    free(h->extensions);
    memset(h, 0, sizeof *h);
}
