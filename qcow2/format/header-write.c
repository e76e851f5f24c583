/* SPDX-License-Identifier: BSD-3-Clause */
/* header-write.c: builds the headers of new images; see header.h. */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/header.h"

/* The features an image made here can come to use. Naming no others keeps
 * header, extensions and a backing file name of usual length in the first
 * sector, where they can be changed by one write.
 */
static const struct disk_feature_name feature_names[] = {
    { 0, 0, "dirty bit" },
    { 0, 1, "corrupt bit" },
    { 0, 3, "compression type" },
    { 1, 0, "lazy refcounts" },
    { 2, 0, "bitmaps" },
};

/* Where the next part goes in the buffer; what does not fit sets full. */
struct writer {
    unsigned char *buf;
    size_t pos, end;
    bool full;
};

static void
put(struct writer *w, const void *data, size_t nr_bytes, size_t padded)
{
    if (w->full || padded > w->end - w->pos) {
        w->full = true;
        return;
    }
    memcpy(w->buf + w->pos, data, nr_bytes);
    memset(w->buf + w->pos + nr_bytes, 0, padded - nr_bytes);
    w->pos += padded;
}

static void
put_extension(struct writer *w, uint32_t type, const void *data,
              size_t nr_bytes)
{
    struct disk_extension head = {
        be32_make(type),
        be32_make(nr_bytes),
    };

    put(w, &head, sizeof head, sizeof head);
    put(w, data, nr_bytes, round_up(nr_bytes, 8));
}

static void
fill_header(const struct header_new *hn, uint64_t backing_file_offset,
            struct disk_header *d)
{
    memset(d, 0, sizeof *d);
    d->magic = be32_make(QCOW2_MAGIC);
    d->version = be32_make(hn->version);
    d->cluster_bits = be32_make(hn->cluster_bits);
    d->size = be64_make(hn->size);
    d->l1_size = be32_make(hn->l1_size);
    d->l1_table_offset = be64_make(hn->l1_offset);
    d->refcount_table_offset = be64_make(hn->reftable_offset);
    d->refcount_table_clusters = be32_make(hn->reftable_clusters);
    if (hn->backing_file) {
        d->backing_file_offset = be64_make(backing_file_offset);
        d->backing_file_size = be32_make(strlen(hn->backing_file));
    }
    if (hn->version == 2)
        return;
    d->incompatible_features = be64_make(
        (hn->compression_type ? INCOMPAT_COMPRESSION : 0)
        | (hn->extended_l2 ? INCOMPAT_EXTENDED_L2 : 0)
        | (hn->data_file ? INCOMPAT_DATA_FILE : 0));
    d->autoclear_features = be64_make(
        hn->data_file_raw ? AUTOCLEAR_RAW_DATA : 0);
    d->compatible_features = be64_make(
        hn->lazy_refcounts ? COMPAT_LAZY_REFCOUNTS : 0);
    d->refcount_order = be32_make(hn->refcount_order);
    d->header_length = be32_make(HEADER_V3_LENGTH);
    d->compression_type = hn->compression_type;
}

static void
encode(const struct header_new *hn, bool with_names, struct writer *w)
{
    size_t length = hn->version == 2 ? HEADER_V2_LENGTH : HEADER_V3_LENGTH;
    struct disk_header d;

    w->pos = length;
    w->full = false;
    if (hn->backing_format)
        put_extension(w, EXT_BACKING_FORMAT, hn->backing_format,
                      strlen(hn->backing_format));
    if (hn->data_file)
        put_extension(w, EXT_DATA_FILE_NAME, hn->data_file,
                      strlen(hn->data_file));
    if (with_names)
        put_extension(w, EXT_FEATURE_NAMES, feature_names,
                      sizeof feature_names);
    put_extension(w, EXT_END, "", 0);
    fill_header(hn, w->pos, &d);
    memcpy(w->buf, &d, length);
    if (hn->backing_file)
        put(w, hn->backing_file, strlen(hn->backing_file),
            strlen(hn->backing_file));
}

long
header_encode(const struct header_new *hn, unsigned char *buf,
              size_t cluster_size, struct qcow2_error *err)
{
    struct writer w = { .buf = buf, .end = cluster_size };

    encode(hn, hn->version >= 3, &w);
    if (w.full)
        encode(hn, false, &w);
    if (w.full)
        return error_set(err, EINVAL, "the %s file name is too long to "
                         "fit a cluster of %zu bytes: choose larger "
                         "clusters or a shorter name",
                         hn->backing_file ? "backing" : "data", cluster_size);
    return w.pos;
}
