/* SPDX-License-Identifier: BSD-3-Clause */
/* header-update.c: changes an image's header; see header.h.
 *
 * Fields have their places, so the bytes of those that change are written.
 * Where the header gets another layout (version, backing file name,
 * extensions), its first cluster is made anew.
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

enum {
    /* What cannot be changed without another layout. */
    LAYOUT_PARTS = HEADER_SET_FORM | HEADER_SET_BACKING
                   | HEADER_SET_EXTENSIONS,
};

/* Where fields are that change together. */
static const struct place {
    unsigned part;
    unsigned at, nr_bytes;
    unsigned version; /* that has them, at least */
} places[] = {
    { HEADER_SET_DISK, HEADER_AT_SIZE, 24, 2 },
    { HEADER_SET_REFTABLE, HEADER_AT_REFCOUNT_TABLE, 12, 2 },
    { HEADER_SET_SNAPSHOTS, HEADER_AT_SNAPSHOTS, 12, 2 },
    { HEADER_SET_INCOMPATIBLE, HEADER_AT_INCOMPATIBLE, 8, 3 },
    { HEADER_SET_FORM, HEADER_AT_COMPATIBLE, 8, 3 },
    { HEADER_SET_AUTOCLEAR, HEADER_AT_AUTOCLEAR, 8, 3 },
};
enum { NR_PLACES = sizeof places / sizeof *places };

static uint64_t
changed_bits(const struct header *h, const struct header_update *u)
{
    return (h->incompatible | u->incompatible_set) & ~u->incompatible_clear;
}

/* Sets what u changes of one part. Other parts are not even read: readers and
 * flushes change theirs at the same time. */
static void
apply_part(struct header *h, enum header_set part,
           const struct header_update *u)
{
    switch (part) {
    case HEADER_SET_DISK:
        h->size = u->size;
        h->l1_size = u->l1_size;
        h->l1_offset = u->l1_offset;
        break;
    case HEADER_SET_REFTABLE:
        h->reftable_offset = u->reftable_offset;
        h->reftable_clusters = u->reftable_clusters;
        break;
    case HEADER_SET_SNAPSHOTS:
        h->nr_snapshots = u->nr_snapshots;
        h->snapshots_offset = u->snapshots_offset;
        break;
    case HEADER_SET_INCOMPATIBLE:
        h->incompatible = changed_bits(h, u);
        break;
    case HEADER_SET_AUTOCLEAR:
        h->autoclear = u->autoclear;
        break;
    case HEADER_SET_FORM:
    case HEADER_SET_BACKING:
    case HEADER_SET_EXTENSIONS:
        break; /* the header is read anew */
    }
}

/* Puts the fields of one part, as u makes them, where a header has them. u
 * NULL: as they are. */
static void
encode_part(const struct header *h, enum header_set part,
            const struct header_update *u, struct disk_header *d)
{
    uint64_t bits;

    switch (part) {
    case HEADER_SET_DISK:
        d->size = be64_make(u ? u->size : h->size);
        d->crypt_method = be32_make(h->crypt_method);
        d->l1_size = be32_make(u ? u->l1_size : h->l1_size);
        d->l1_table_offset = be64_make(u ? u->l1_offset : h->l1_offset);
        break;
    case HEADER_SET_REFTABLE:
        d->refcount_table_offset = be64_make(u ? u->reftable_offset
                                               : h->reftable_offset);
        d->refcount_table_clusters = be32_make(u ? u->reftable_clusters
                                                 : h->reftable_clusters);
        break;
    case HEADER_SET_SNAPSHOTS:
        d->nb_snapshots = be32_make(u ? u->nr_snapshots : h->nr_snapshots);
        d->snapshots_offset = be64_make(u ? u->snapshots_offset
                                          : h->snapshots_offset);
        break;
    case HEADER_SET_INCOMPATIBLE:
        bits = u ? changed_bits(h, u) : h->incompatible;
        d->incompatible_features = be64_make(bits);
        break;
    case HEADER_SET_AUTOCLEAR:
        d->autoclear_features = be64_make(u ? u->autoclear : h->autoclear);
        break;
    case HEADER_SET_FORM:
        d->compatible_features = be64_make(u ? u->compatible : h->compatible);
        d->refcount_order = be32_make(u ? u->refcount_order
                                        : h->refcount_order);
        break;
    case HEADER_SET_BACKING:
    case HEADER_SET_EXTENSIONS:
        break;
    }
}

/* Does a header of this version have the part, and does u change it? */
static bool
is_changed(const struct header_update *u, const struct place *p,
           unsigned version)
{
    return u->parts & p->part && version >= p->version;
}

int
header_write_fields(struct io *io, struct header *h,
                    const struct header_update *u, struct qcow2_error *err)
{
    struct disk_header d = { .magic = be32_make(QCOW2_MAGIC) };
    unsigned from = sizeof d, to = 0;

    if (u->parts & LAYOUT_PARTS)
        return error_set(err, EINVAL, "%s: this change of the header needs "
                         "another layout", io->name);
    for (unsigned i = 0; i < NR_PLACES; i++)
        if (is_changed(u, &places[i], h->version)) {
            from = min_u64(from, places[i].at);
            to = max_u64(to, places[i].at + places[i].nr_bytes);
        }
    if (from >= to)
        return 0;
    for (unsigned i = 0; i < NR_PLACES; i++)
        if (places[i].at >= from && places[i].at < to)
            encode_part(h, places[i].part,
                        is_changed(u, &places[i], h->version) ? u : NULL, &d);
    if (io_pwrite(io, (unsigned char *)&d + from, to - from, from, err)
        == -1)
        return -1;
    for (unsigned i = 0; i < NR_PLACES; i++)
        if (is_changed(u, &places[i], h->version))
            apply_part(h, places[i].part, u);
    return 0;
}

/* A way to lay out the first cluster anew. */
struct layout {
    const struct header *h;
    const struct header_update *u;
    unsigned version;
    const char *backing_file, *backing_format;
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
    const char *format = l->backing_format;

    if (format)
        put_extension(l, EXT_BACKING_FORMAT, format, strlen(format));
}

/* The fixed fields; what a version 2 header does not have starts as 0. */
static void
put_fields(struct layout *l)
{
    const struct header_update *u = l->u;
    const struct header *h = l->h;
    struct disk_header d;

    memcpy(&d, l->old, sizeof d);
    l->end = HEADER_V2_LENGTH;
    if (l->version >= 3) {
        l->end = h->version >= 3 ? h->header_length : HEADER_V3_LENGTH;
        if (h->version < 3)
            memset((unsigned char *)&d + HEADER_V2_LENGTH, 0,
                   sizeof d - HEADER_V2_LENGTH);
        d.header_length = be32_make(l->end);
    }
    d.version = be32_make(l->version);
    for (unsigned i = 0; i < NR_PLACES; i++)
        if (is_changed(u, &places[i], l->version))
            encode_part(h, places[i].part, u, &d);
    memcpy(l->new, &d, min_u64(l->end, sizeof d));
}

/* What the update has of this type; NULL: nothing. */
static const struct header_extension *
find_extension(const struct header_update *u, uint32_t type)
{
    if (u->parts & HEADER_SET_EXTENSIONS)
        for (unsigned i = 0; i < u->nr_extensions; i++)
            if (u->extensions[i].type == type)
                return &u->extensions[i];
    return NULL;
}

static bool
has_extension(const struct header *h, uint32_t type)
{
    for (unsigned i = 0; i < h->nr_extensions; i++)
        if (h->extensions[i].type == type)
            return true;
    return false;
}

/* An extension that is there already, or what replaces it. */
static void
put_again(struct layout *l, const struct header_extension *old)
{
    const struct header_extension *e = find_extension(l->u, old->type);

    if (!e)
        e = old;
    if (old->type == EXT_BACKING_FORMAT)
        put_format(l);
    else if (e->data
             && (old->type != EXT_FEATURE_NAMES || l->with_feature_names))
        put_extension(l, e->type, e->data, e->length);
}

/* Of what is replaced there is one afterwards: bitmaps extensions are not
 * looked at, so not counted, while their feature bit is clear. */
static bool
is_put_already(const struct layout *l, unsigned i)
{
    const struct header_extension *e = l->h->extensions;

    for (unsigned j = 0; j < i; j++)
        if (e[j].type == e[i].type)
            return find_extension(l->u, e[i].type) != NULL;
    return false;
}

/* Each stays in its place if it can: what was there is replaced, and new ones
 * come last. */
static void
put_extensions(struct layout *l)
{
    const struct header *h = l->h;
    const struct header_update *u = l->u;

    memcpy(l->new, l->old, l->cluster_size);
    put_fields(l);
    l->full = false;
    for (unsigned i = 0; i < h->nr_extensions; i++)
        if (!is_put_already(l, i))
            put_again(l, &h->extensions[i]);
    if (!has_extension(h, EXT_BACKING_FORMAT))
        put_format(l);
    if (u->parts & HEADER_SET_EXTENSIONS)
        for (unsigned i = 0; i < u->nr_extensions; i++)
            if (u->extensions[i].data
                && !has_extension(h, u->extensions[i].type))
                put_extension(l, u->extensions[i].type,
                              u->extensions[i].data, u->extensions[i].length);
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
    const char *name = l->backing_file;
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

int
header_prepare(struct io *io, const struct header *h,
               const struct header_update *u, struct header_sector *sector,
               struct qcow2_error *err)
{
    bool backing = u->parts & HEADER_SET_BACKING;
    CLEANUP_FREE unsigned char *old = NULL;
    CLEANUP_FREE unsigned char *new = NULL;
    struct layout l = {
        .h = h, .u = u,
        .version = u->parts & HEADER_SET_FORM ? u->version : h->version,
        .backing_file = backing ? u->backing_file : h->backing_file,
        .backing_format = backing ? u->backing_format : h->backing_format,
        .cluster_size = UINT32_C(1) << h->cluster_bits,
    };

    if (!(u->parts & LAYOUT_PARTS))
        return 0;
    l.with_feature_names = l.version >= 3;
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
write_sector(struct io *io, const struct header *h,
             const struct header_update *u, struct header_sector s,
             struct qcow2_error *err)
{
    struct disk_header d;

    memcpy(&d, s.bytes, sizeof d);
    if (be32_get(d.version) >= 3)
        encode_part(h, HEADER_SET_INCOMPATIBLE,
                    u->parts & HEADER_SET_INCOMPATIBLE ? u : NULL, &d);
    memcpy(s.bytes, &d, sizeof d);
    return io_pwrite(io, s.bytes, sizeof s.bytes, 0, err);
}

int
header_switch(struct io *io, struct header *h, const struct header_update *u,
              const struct header_sector *sector, struct qcow2_error *err)
{
    struct header fresh;

    if (!(u->parts & LAYOUT_PARTS))
        return header_write_fields(io, h, u, err);
    if (write_sector(io, h, u, *sector, err) == -1
        || header_read(io, &fresh, err) == -1)
        return -1;
    header_free(h);
    *h = fresh;
    return 0;
}

void
header_switch_failed(struct header *h, uint32_t before)
{
    h->version = min_u64(h->version, before);
}

/* Readers may be in h: nothing that they use is touched. */
static void
take_over(struct header *h, struct header *fresh)
{
    struct header_extension *extensions = h->extensions;

    h->autoclear = fresh->autoclear;
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
    const struct header_update kept = {
        .parts = HEADER_SET_AUTOCLEAR, .autoclear = header_kept_autoclear(h),
    };

    if (header_write_fields(io, h, &kept, err) == -1)
        return -1;
    h->nr_bitmaps = 0;
    h->bitmap_directory_offset = h->bitmap_directory_size = 0;
    return 0;
}

int
header_drop_bitmaps(struct io *io, struct header *h, struct qcow2_error *err)
{
    static const struct header_extension no_bitmaps = { .type = EXT_BITMAPS };
    const struct header_update u = {
        .parts = HEADER_SET_AUTOCLEAR | HEADER_SET_EXTENSIONS,
        .autoclear = header_kept_autoclear(h),
        .extensions = &no_bitmaps, .nr_extensions = 1,
    };
    struct header_sector sector;
    struct qcow2_error error;
    struct header fresh;

    if (header_prepare(io, h, &u, &sector, &error) == -1) {
        if (error.errnum == ENOTSUP)
            return drop_bit_alone(io, h, err);
        if (err)
            *err = error;
        return -1;
    }
    if (io_flush(io, err) == -1 || write_sector(io, h, &u, sector, err) == -1
        || header_read(io, &fresh, err) == -1)
        return -1;
    take_over(h, &fresh);
    header_free(&fresh);
    return 0;
}
