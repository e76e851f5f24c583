/* SPDX-License-Identifier: BSD-3-Clause */
/* header-form.c: gives an image's header another form: backing file name,
 * version, refcounts; see header.h.
 *
 * The first cluster cannot be written elsewhere and switched to. So what
 * must change outside of the first sector may only be in bytes that the old
 * header refers to by nothing; it is put there first, and then the first
 * sector alone makes it the header (I5).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "format/header.h"

/* A way to lay out the first cluster anew. */
struct layout {
    const struct header *h;
    const struct header_form *form;
    bool with_feature_names;
    uint32_t cluster_size;
    const unsigned char *old;
    unsigned char *new;
    uint64_t end;                   /* of the header extensions */
    bool full;
};

static void
put_extension(struct layout *l, uint32_t type, const void *data,
              uint32_t nr_bytes)
{
    struct disk_extension head = { be32_make(type), be32_make(nr_bytes) };
    uint64_t padded = sizeof head + round_up(nr_bytes, 8);

    if (l->full || padded > l->cluster_size - l->end) {
        l->full = true;
        return;
    }
    memset(l->new + l->end, 0, padded);
    memcpy(l->new + l->end, &head, sizeof head);
    memcpy(l->new + l->end + sizeof head, data, nr_bytes);
    l->end += padded;
}

static void
put_format(struct layout *l)
{
    const char *format = l->form->backing_format;

    if (format)
        put_extension(l, EXT_BACKING_FORMAT, format, strlen(format));
}

/* The fixed fields; what a version 2 header does not have starts as 0. */
static void
put_fields(struct layout *l)
{
    const struct header_form *f = l->form;
    struct disk_header d;

    memcpy(&d, l->old, sizeof d);
    d.version = be32_make(f->version);
    d.refcount_table_offset = be64_make(f->reftable_offset);
    d.refcount_table_clusters = be32_make(f->reftable_clusters);
    l->end = HEADER_V2_LENGTH;
    if (f->version >= 3) {
        l->end = l->h->version >= 3 ? l->h->header_length : HEADER_V3_LENGTH;
        if (l->h->version < 3)
            memset((unsigned char *)&d + HEADER_V2_LENGTH, 0,
                   sizeof d - HEADER_V2_LENGTH);
        d.compatible_features = be64_make(f->compatible);
        d.refcount_order = be32_make(f->refcount_order);
        d.header_length = be32_make(l->end);
        if (f->no_bitmaps)
            d.autoclear_features = be64_make(0);
    }
    memcpy(l->new, &d, min_u64(l->end, sizeof d));
}

/* Each stays in its place if it can: a backing format that was there is
 * replaced, a new one comes last. */
static void
put_extensions(struct layout *l)
{
    const struct header *h = l->h;
    bool has_format = false;

    memcpy(l->new, l->old, l->cluster_size);
    put_fields(l);
    l->full = false;
    for (unsigned i = 0; i < h->nr_extensions; i++) {
        const struct header_extension *e = &h->extensions[i];

        if (e->type == EXT_BACKING_FORMAT) {
            has_format = true;
            put_format(l);
        } else if (e->type == EXT_FEATURE_NAMES ? l->with_feature_names
                   : e->type != EXT_BITMAPS || !l->form->no_bitmaps) {
            put_extension(l, e->type, e->data, e->length);
        }
    }
    if (!has_format)
        put_format(l);
    put_extension(l, EXT_END, "", 0);
}

static uint64_t
old_name_end(const struct header *h)
{
    return h->backing_file ? h->backing_file_offset + strlen(h->backing_file)
                           : 0;
}

/* Does the old header refer to this byte of the first cluster? */
static bool
is_referred(const struct header *h, uint64_t at)
{
    return at < h->extensions_end
           || (at >= h->backing_file_offset && at < old_name_end(h));
}

/* Puts the name at name_off. Can this layout be switched to? */
static bool
try_name_at(struct layout *l, uint64_t name_off)
{
    const char *name = l->form->backing_file;
    uint64_t len = name ? strlen(name) : 0;
    be64 offset = be64_make(name ? name_off : 0);
    be32 size = be32_make(len);

    if (!range_inside(name_off, len, l->cluster_size))
        return false;
    memcpy(l->new + l->end, l->old + l->end, l->cluster_size - l->end);
    memcpy(l->new + HEADER_AT_BACKING_FILE, &offset, sizeof offset);
    memcpy(l->new + HEADER_AT_BACKING_FILE + sizeof offset, &size,
           sizeof size);
    if (name)
        memcpy(l->new + name_off, name, len);
    for (uint64_t i = HEADER_SECTOR_BYTES; i < l->cluster_size; i++)
        if (l->new[i] != l->old[i] && is_referred(l->h, i))
            return false;
    return true;
}

static bool
try_layout(struct layout *l)
{
    uint64_t behind;

    put_extensions(l);
    if (l->full)
        return false;
    behind = max_u64(l->end, l->h->extensions_end);
    return try_name_at(l, l->end) || try_name_at(l, behind)
           || try_name_at(l, max_u64(behind, old_name_end(l->h)));
}

/* Writes what differs past the first sector. */
static int
write_rest(struct io *io, const struct layout *l, struct qcow2_error *err)
{
    uint64_t from = HEADER_SECTOR_BYTES, to = l->cluster_size;

    while (from < to && l->new[from] == l->old[from])
        from++;
    while (from < to && l->new[to - 1] == l->old[to - 1])
        to--;
    return io_pwrite(io, l->new + from, to - from, from, err);
}

struct header_form
header_form_of(const struct header *h)
{
    return (struct header_form){
        .backing_file = h->backing_file,
        .backing_format = h->backing_format,
        .version = h->version,
        .compatible = h->compatible,
        .refcount_order = h->refcount_order,
        .reftable_offset = h->reftable_offset,
        .reftable_clusters = h->reftable_clusters,
    };
}

int
header_prepare(struct io *io, const struct header *h,
               const struct header_form *form, struct header_sector *sector,
               struct qcow2_error *err)
{
    CLEANUP_FREE unsigned char *old = NULL;
    CLEANUP_FREE unsigned char *new = NULL;
    struct layout l = {
        .h = h, .form = form, .with_feature_names = form->version >= 3,
        .cluster_size = UINT32_C(1) << h->cluster_bits,
    };

    old = malloc(l.cluster_size);
    new = malloc(l.cluster_size);
    if (!old || !new)
        return error_nomem(err);
    l.old = old;
    l.new = new;
    if (io_pread(io, old, l.cluster_size, 0, err) == -1)
        return -1;
    if (!try_layout(&l)) {
        l.with_feature_names = false;
        if (!try_layout(&l))
            return error_set(err, ENOTSUP, "%s: there is no room in the "
                             "first cluster (%u bytes) to change the header; "
                             "a shorter backing file name may fit", io->name,
                             (unsigned)l.cluster_size);
    }
    memcpy(sector->bytes, new, sizeof sector->bytes);
    return write_rest(io, &l, err);
}

/* The image may have been marked corrupt since the sector was prepared. */
static int
write_sector(struct io *io, const struct header *h, struct header_sector s,
             struct qcow2_error *err)
{
    struct disk_header d;

    memcpy(&d, s.bytes, sizeof d);
    if (be32_get(d.version) >= 3)
        d.incompatible_features = be64_make(h->incompatible);
    memcpy(s.bytes, &d, sizeof d);
    return io_pwrite(io, s.bytes, sizeof s.bytes, 0, err);
}

int
header_switch(struct io *io, struct header *h,
              const struct header_sector *sector, struct qcow2_error *err)
{
    struct header fresh;

    if (write_sector(io, h, *sector, err) == -1
        || header_read(io, &fresh, err) == -1)
        return -1;
    header_free(h);
    *h = fresh;
    return 0;
}

/* Readers may be in h: nothing that they use is touched. */
static void
take_over(struct header *h, struct header *fresh)
{
    struct header_extension *extensions = h->extensions;

    h->autoclear = 0;
    h->nr_bitmaps = 0;
    h->bitmap_directory_offset = h->bitmap_directory_size = 0;
    h->backing_file_offset = fresh->backing_file_offset;
    h->extensions_end = fresh->extensions_end;
    h->nr_extensions = fresh->nr_extensions;
    h->extensions = fresh->extensions;
    fresh->extensions = extensions;
}

/* The extension stays, and refers to nothing. */
static int
drop_bit_alone(struct io *io, struct header *h, struct qcow2_error *err)
{
    if (header_write_autoclear(io, h, 0, err) == -1)
        return -1;
    h->nr_bitmaps = 0;
    h->bitmap_directory_offset = h->bitmap_directory_size = 0;
    return 0;
}

int
header_drop_bitmaps(struct io *io, struct header *h, struct qcow2_error *err)
{
    struct header_form form = header_form_of(h);
    struct header_sector sector;
    struct qcow2_error error;
    struct header fresh;

    form.no_bitmaps = true;
    if (header_prepare(io, h, &form, &sector, &error) == -1) {
        if (error.errnum == ENOTSUP)
            return drop_bit_alone(io, h, err);
        if (err)
            *err = error;
        return -1;
    }
    if (io_flush(io, err) == -1 || write_sector(io, h, sector, err) == -1
        || header_read(io, &fresh, err) == -1)
        return -1;
    take_over(h, &fresh);
    header_free(&fresh);
    return 0;
}
