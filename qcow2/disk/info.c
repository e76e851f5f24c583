/* SPDX-License-Identifier: BSD-3-Clause */
/* info.c: shows what an image file says of itself, also one that we would
 * not serve.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/compress.h"
#include "base/error.h"
#include "base/escape.h"
#include "disk/chain.h"
#include "disk/open.h"
#include "format/backing-json.h"
#include "format/bitmap-directory.h"
#include "format/first-read.h"
#include "format/header.h"
#include "format/probe.h"
#include "format/qcow1-header.h"
#include "format/snaptab.h"
#include "qcow2.h"
#include "storage/io-open.h"
#include "storage/path-policy.h"

enum { MAX_FEATURES = 3 * 64 };

/* The public part, and what its pointers point to. */
struct info {
    struct qcow2_info pub; /* first */
    uint64_t dev, ino;
    struct header hdr;
    struct qcow1_header hdr1;
    struct snapshot_table snaptab;
    struct policy_place place;
    char *path, *full_backing, *data_file, *encryption;
    struct qcow2_snapshot *snapshots;
    struct qcow2_info_extension *extensions;
    struct qcow2_info_bitmap *bitmaps;
    struct qcow2_info_feature features[MAX_FEATURES];
    char feature_names[MAX_FEATURES][sizeof(
        ((struct disk_feature_name *)0)->name) + 1];
};

/* Feature bits and extensions as the specification calls them. */
static const struct {
    enum qcow2_feature_kind kind;
    unsigned bit;
    const char *name;
} known_features[] = {
    { QCOW2_INCOMPATIBLE, 0, "dirty bit" },
    { QCOW2_INCOMPATIBLE, 1, "corrupt bit" },
    { QCOW2_INCOMPATIBLE, 2, "external data file" },
    { QCOW2_INCOMPATIBLE, 3, "compression type" },
    { QCOW2_INCOMPATIBLE, 4, "extended L2 entries" },
    { QCOW2_COMPATIBLE, 0, "lazy refcounts" },
    { QCOW2_AUTOCLEAR, 0, "bitmaps" },
    { QCOW2_AUTOCLEAR, 1, "raw external data" },
};

static const char *
extension_name(uint32_t type)
{
    switch (type) {
    case EXT_BACKING_FORMAT:
        return "backing file format";
    case EXT_FEATURE_NAMES:
        return "feature name table";
    case EXT_BITMAPS:
        return "bitmaps";
    case EXT_CRYPT_HEADER:
        return "full disk encryption header";
    case EXT_DATA_FILE_NAME:
        return "external data file name";
    }
    return NULL;
}

/* Names that lead out of the image's directory, by their letters alone:
 * nothing is looked up in the file system.
 */
static bool
leads_outside(const char *image_path, const char *name)
{
    const char *slash = strrchr(image_path, '/');
    size_t dir_len = slash ? slash - image_path + 1 : 0;

    if (name[strcspn(name, ":/")] == ':')
        return true;
    if (name[0] == '/') {
        if (dir_len == 0 || strncmp(name, image_path, dir_len) != 0)
            return true;
        name += dir_len;
    }
    while (*name) {
        size_t len = strcspn(name, "/");

        if (len == 2 && memcmp(name, "..", 2) == 0)
            return true;
        name += len + strspn(name + len, "/");
    }
    return false;
}

char *
qcow2_join_name(const char *image_path, const char *name)
{
    const char *slash = strrchr(image_path, '/');
    int dir_len = slash ? slash - image_path + 1 : 0;
    char *path;

    if (name[0] == '/' || name[strcspn(name, ":/")] == ':')
        return strdup(name);
    if (asprintf(&path, "%.*s%s", dir_len, image_path, name) == -1)
        return NULL;
    return path;
}

/* The image's own name for a feature goes before ours: it says what whoever
 * made it meant.
 */
static bool
copy_own_name(const struct header *h, enum qcow2_feature_kind kind,
              unsigned bit, char *name)
{
    for (unsigned i = 0; i < h->nr_extensions; i++) {
        const struct header_extension *e = &h->extensions[i];

        if (e->type != EXT_FEATURE_NAMES)
            continue;
        for (uint32_t at = 0;
             e->length - at >= sizeof(struct disk_feature_name);
             at += sizeof(struct disk_feature_name)) {
            struct disk_feature_name f;

            memcpy(&f, e->data + at, sizeof f);
            if (f.type == kind && f.bit == bit) {
                memcpy(name, f.name, sizeof f.name);
                name[sizeof f.name] = '\0';
                return true;
            }
        }
    }
    return false;
}

static void
add_features(struct info *info, enum qcow2_feature_kind kind, uint64_t bits)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        size_t n = info->pub.nr_features;
        struct qcow2_info_feature *f = &info->features[n];

        if (!(bits >> bit & 1))
            continue;
        info->pub.nr_features++;
        *f = (struct qcow2_info_feature){ .kind = kind, .bit = bit };
        for (size_t i = 0;
             i < sizeof known_features / sizeof known_features[0]; i++)
            if (known_features[i].kind == kind
                && known_features[i].bit == bit) {
                f->name = known_features[i].name;
                f->known = true;
            }
        if (!f->known && copy_own_name(&info->hdr, kind, bit,
                                       info->feature_names[n]))
            f->name = info->feature_names[n];
    }
}

static int
fill_extensions(struct info *info, struct qcow2_error *err)
{
    const struct header *h = &info->hdr;

    info->extensions = calloc(h->nr_extensions + 1,
                              sizeof *info->extensions);
    if (!info->extensions)
        return error_nomem(err);
    for (unsigned i = 0; i < h->nr_extensions; i++) {
        const struct header_extension *e = &h->extensions[i];

        info->extensions[i] = (struct qcow2_info_extension){
            .type = e->type, .nr_bytes = e->length,
            .name = extension_name(e->type),
        };
        if (e->type == EXT_DATA_FILE_NAME && !info->data_file) {
            info->data_file = strndup((const char *)e->data, e->length);
            if (!info->data_file)
                return error_nomem(err);
        }
    }
    info->pub.nr_extensions = h->nr_extensions;
    info->pub.extensions = info->extensions;
    return 0;
}

/* What is wrong with the image goes to the first thing that is. */
static void
refuse(struct info *info, const struct qcow2_error *why)
{
    if (info->pub.refusal.errnum == 0)
        info->pub.refusal = *why;
}

static int
fill_snapshots(struct info *info, struct io *io,
               const struct qcow2_info_options *options,
               struct qcow2_error *err)
{
    struct snapshot_table *t = &info->snaptab;
    struct header h = info->hdr;
    struct qcow2_error e;
    uint32_t nr_lost;

    if (h.snapshots_offset == 0)
        return 0;
    if (options->limit_snapshots)
        h.nr_snapshots = min_u64(h.nr_snapshots, options->max_snapshots);
    header_drop_parts(&h, 1u << HEADER_SNAPSHOTS);
    if (snaptab_read_loosely(io, &h, t, &nr_lost, &e, err) == -1)
        return -1;
    if (nr_lost > 0)
        refuse(info, &e);
    for (uint32_t i = 0; i < t->nr; i++)
        if (t->snapshots[i].flaw) {
            error_set(&e, EIO, "snapshot %" PRIu32 ": '%s': %s", i + 1,
                      ESCAPED(t->snapshots[i].name), t->snapshots[i].flaw);
            refuse(info, &e);
        }
    info->snapshots = calloc(t->nr + 1, sizeof *info->snapshots);
    if (!info->snapshots)
        return error_nomem(err);
    for (uint32_t i = 0; i < t->nr; i++) {
        const struct snapshot *s = &t->snapshots[i];

        info->snapshots[i] = (struct qcow2_snapshot){
            .id = s->id, .name = s->name, .disk_size = s->disk_size,
            .vm_state_size = s->vm_state_size, .date_sec = s->date_sec,
            .date_nsec = s->date_nsec, .vm_clock_nsec = s->vm_clock_nsec,
            .icount = s->icount,
        };
    }
    info->pub.nr_snapshots = t->nr;
    info->pub.snapshots = info->snapshots;
    return 0;
}

/* Decodes the bitmap at *pos of the directory and moves *pos past it. 0: it
 * makes no sense. */
static int
decode_bitmap(const unsigned char *dir, uint64_t size, uint64_t *pos,
              struct qcow2_info_bitmap *b, struct qcow2_error *err)
{
    struct bitmap_entry e;

    if (!bitmap_entry_next(dir, size, pos, &e) || e.granularity_bits > 63)
        return 0;
    b->name = strndup(e.name, e.name_size);
    if (!b->name)
        return error_nomem(err);
    b->granularity = UINT64_C(1) << e.granularity_bits;
    b->in_use = e.flags & BITMAP_IN_USE;
    b->automatic = e.flags & BITMAP_AUTO;
    return 1;
}

static int
fill_bitmaps(struct info *info, struct io *io, struct qcow2_error *err)
{
    const struct header *h = &info->hdr;
    CLEANUP_FREE unsigned char *dir = NULL;
    uint64_t pos = 0;
    int r = 1;

    /* What the header may claim was checked, but perhaps not accepted. */
    if (h->nr_bitmaps == 0 || h->nr_bitmaps > MAX_BITMAPS
        || h->bitmap_directory_size > MAX_BITMAP_DIRECTORY_BYTES
        || !range_inside(h->bitmap_directory_offset,
                         h->bitmap_directory_size, info->pub.file_size))
        return 0;
    dir = malloc(h->bitmap_directory_size + 1);
    info->bitmaps = calloc(h->nr_bitmaps, sizeof *info->bitmaps);
    if (!dir || !info->bitmaps)
        return error_nomem(err);
    info->pub.bitmaps = info->bitmaps;
    if (io_pread(io, dir, h->bitmap_directory_size,
                 h->bitmap_directory_offset, err) == -1)
        return -1;
    /* A damaged directory keeps no image from being opened. */
    while (r == 1 && info->pub.nr_bitmaps < h->nr_bitmaps) {
        r = decode_bitmap(dir, h->bitmap_directory_size, &pos,
                          &info->bitmaps[info->pub.nr_bitmaps], err);
        info->pub.nr_bitmaps += r == 1;
    }
    return r == -1 ? -1 : 0;
}

static const char *
encryption_name(uint32_t method)
{
    switch (method) {
    case CRYPT_NONE:
        return NULL;
    case CRYPT_AES:
        return "aes";
    case CRYPT_LUKS:
        return "luks";
    }
    return "unknown";
}

static void
fill_header(struct info *info)
{
    const struct header *h = &info->hdr;
    struct qcow2_info *pub = &info->pub;

    pub->virtual_size = h->size;
    pub->version = h->version;
    pub->cluster_size = UINT32_C(1) << h->cluster_bits;
    if (h->refcount_order <= MAX_REFCOUNT_ORDER)
        pub->refcount_bits = 1u << h->refcount_order;
    pub->compression = compress_name(h->compression_type);
    pub->encryption = encryption_name(h->crypt_method);
    pub->dirty = h->incompatible & INCOMPAT_DIRTY;
    pub->corrupt = h->incompatible & INCOMPAT_CORRUPT;
    pub->extended_l2 = h->incompatible & INCOMPAT_EXTENDED_L2;
    pub->lazy_refcounts = h->compatible & COMPAT_LAZY_REFCOUNTS;
    pub->has_data_file = h->incompatible & INCOMPAT_DATA_FILE;
    pub->data_file_raw = h->autoclear & AUTOCLEAR_RAW_DATA;
    pub->features = info->features;
    add_features(info, QCOW2_INCOMPATIBLE, h->incompatible);
    add_features(info, QCOW2_COMPATIBLE, h->compatible);
    add_features(info, QCOW2_AUTOCLEAR, h->autoclear);
}

static int
fill_backing(struct info *info, const char *name, const char *format,
             struct qcow2_error *err)
{
    struct qcow2_info *pub = &info->pub;

    if (!name)
        return 0;
    pub->backing_file = name;
    pub->backing_format = format;
    pub->full_backing_file = info->full_backing =
        qcow2_join_name(pub->path, name);
    if (!info->full_backing)
        return error_nomem(err);
    pub->backing_outside = leads_outside(pub->path, name);
    return 0;
}

static int
fill_names(struct info *info, struct qcow2_error *err)
{
    struct qcow2_info *pub = &info->pub;

    if (fill_backing(info, info->hdr.backing_file, info->hdr.backing_format,
                     err) == -1)
        return -1;
    pub->data_file = info->data_file;
    if (pub->data_file)
        pub->data_file_outside = leads_outside(pub->path, pub->data_file);
    return 0;
}

static int
fill_qcow2(struct info *info, struct io *io,
           const struct qcow2_info_options *options, struct qcow2_error *err)
{
    if (header_read_loosely(io, &info->hdr, &info->pub.refusal, err) == -1)
        return -1;
    fill_header(info);
    if (fill_extensions(info, err) == -1
        || fill_names(info, err) == -1
        || fill_snapshots(info, io, options, err) == -1
        || (!options->no_bitmaps && fill_bitmaps(info, io, err) == -1))
        return -1;
    return 0;
}

static int
fill_qcow1(struct info *info, struct io *io, struct qcow2_error *err)
{
    struct qcow1_header *h = &info->hdr1;
    struct qcow2_info *pub = &info->pub;

    if (qcow1_header_read_loosely(io, h, &pub->refusal, err) == -1)
        return -1;
    pub->virtual_size = h->size;
    if (h->cluster_bits <= MAX_CLUSTER_BITS)
        pub->cluster_size = UINT32_C(1) << h->cluster_bits;
    pub->encryption = encryption_name(h->crypt_method);
    return fill_backing(info, h->backing_file, NULL, err);
}

/* What says nothing of itself is raw. */
static int
fill_by_format(struct info *info, struct io *io, enum qcow2_format format,
               const struct qcow2_info_options *options,
               struct qcow2_error *err)
{
    if (probe_format(io, true, &format, err) == -1)
        return -1;
    info->pub.format = format;
    switch (format) {
    case QCOW2_FORMAT_AUTO:
    case QCOW2_FORMAT_RAW:
        info->pub.virtual_size = info->pub.file_size;
        return 0;
    case QCOW2_FORMAT_QCOW2:
        return fill_qcow2(info, io, options, err);
    case QCOW2_FORMAT_QCOW:
        return fill_qcow1(info, io, err);
    }
    __builtin_unreachable();
}

/* An NBD server does not say. */
static int
fill_allocated(struct info *info, struct io *io, struct qcow2_error *err)
{
    struct qcow2_error e;

    if (io_get_allocated(io, &info->pub.allocated_size, &e) == 0)
        return 0;
    info->pub.allocated_size = UINT64_MAX;
    if (e.errnum == ENOTSUP)
        return 0;
    if (err)
        *err = e;
    return -1;
}

/* Takes over io, also on failure. */
static struct info *
info_new(struct io *io, const char *path, const struct policy_place *place,
         enum qcow2_format format, const struct qcow2_info_options *options,
         struct qcow2_error *err)
{
    struct info *info = calloc(1, sizeof *info);
    int r = -1;

    if (!info || !(info->path = strdup(path))) {
        error_nomem(err);
        goto out;
    }
    info->pub.path = info->path;
    policy_place_copy(&info->place, place);
    info->dev = io->dev;
    info->ino = io->ino;
    if (first_read_prepare(io, options->failures, options->no_lock, err) == -1
        || io_get_size(io, &info->pub.file_size, err) == -1
        || fill_allocated(info, io, err) == -1)
        goto out;
    r = fill_by_format(info, io, format, options, err);

out:
    io_close(io);
    if (r == -1) {
        qcow2_info_free(info ? &info->pub : NULL);
        return NULL;
    }
    return info;
}

static int
check_loop(const struct info *top, const struct policy_file *file,
           struct qcow2_error *err)
{
    unsigned depth = 0;

    for (const struct info *i = top; i; i = (struct info *)i->pub.backing) {
        if (file->ino != 0 && i->dev == file->dev && i->ino == file->ino)
            return error_set(err, EIO, "it is already part of the backing "
                             "chain, which forms a loop");
        if (++depth > MAX_CHAIN_DEPTH)
            return error_set(err, EIO, "the backing chain has more than %d "
                             "layers", MAX_CHAIN_DEPTH);
    }
    return 0;
}

static enum io_lock
lock_of(const struct qcow2_info_options *options)
{
    return options->no_lock ? IO_LOCK_NONE : IO_LOCK_READ;
}

/* Of backing files; the window is of the top. */
static struct io_open_options
io_options_of(const struct qcow2_info_options *options)
{
    return (struct io_open_options){
        .readonly = true, .lock = lock_of(options),
        .nbd_timeout_ms = options->nbd_timeout_ms,
    };
}

/* Nobody serves what is read here, so a format that nothing declares may be
 * guessed.
 */
static struct info *
open_backing(const struct info *top, const struct info *above,
             struct policy_allow *allow,
             const struct qcow2_info_options *options, struct qcow2_error *err)
{
    const char *name = above->pub.backing_file;
    char plain[MAX_BACKING_NAME_BYTES + 1];
    enum qcow2_format format = QCOW2_FORMAT_AUTO, says;
    struct info *info = NULL;
    struct policy_file file;
    struct io *io;

    if (chain_declared_format(above->pub.backing_format, &format, err) == -1)
        return NULL;
    if (backing_json_parse(name, plain, &says)) {
        name = plain;
        format = format == QCOW2_FORMAT_AUTO ? says : format;
    }
    if (policy_resolve(&above->place, name, allow, &file, err) == -1)
        return NULL;
    if (check_loop(top, &file, err) == 0) {
        /* Each name may add a kilobyte to the one above: what no system call
         * would take becomes what it stands for. */
        const char *path = strlen(above->full_backing) < PATH_MAX
                           ? above->full_backing : file.path;

        const struct io_open_options o = io_options_of(options);

        io = io_open(&file, &o, err);
        info = io ? info_new(io, path, &file.place, format, options, err)
                  : NULL;
    }
    policy_file_free(&file);
    return info;
}

/* Appends the layers below top, as far as they can be opened. */
static void
open_chain(struct info *top, const struct qcow2_info_options *options)
{
    struct info *last = top;
    struct policy_allow allow;

    if (policy_allow_init(&allow, options->allow, options->nr_allow,
                        &top->pub.backing_error) == -1)
        return;
    while (last && last->pub.backing_file) {
        struct info *below = open_backing(top, last, &allow, options,
                                          &last->pub.backing_error);

        if (!below)
            error_prefix(&last->pub.backing_error,
                         "backing file '%s' of '%s'",
                         ESCAPED(last->pub.backing_file),
                         ESCAPED(last->path));
        else
            last->pub.backing = &below->pub;
        last = below;
    }
    policy_allow_free(&allow);
}

/* What options->fd, options->file or path name. */
static struct info *
open_top(const char *path, const struct qcow2_info_options *options,
         struct qcow2_error *err)
{
    struct policy_place place = { .kind = POLICY_UNNAMED };
    struct info *info = NULL;
    struct policy_file found = POLICY_FILE_INIT;
    const struct policy_file *file = &found;
    struct io_open_options o = io_options_of(options);
    struct io *io;

    o.window = options->window;
    if (options->use_fd && options->fd >= 0) {
        io = io_file_open(path, options->fd, true, o.lock, err);
        if (io)
            io = io_open_over(io, &o, err);
        if (io)
            policy_place_of_fd(options->fd, &place);
    } else {
        if (options->file)
            file = &options->file->file;
        else if (policy_trust(path, &found, err) == -1)
            return NULL;
        io = io_open(file, &o, err);
        if (io)
            policy_place_copy(&place, &file->place);
    }
    if (io)
        info = info_new(io, path, &place, options->format, options, err);
    policy_place_free(&place);
    policy_file_free(&found);
    return info;
}

struct qcow2_info *
qcow2_get_info(const char *path, const struct qcow2_info_options *options,
               struct qcow2_error *err)
{
    struct info *top = open_top(path, options, err);

    if (top && options->chain)
        open_chain(top, options);
    return top ? &top->pub : NULL;
}

void
qcow2_info_free(struct qcow2_info *pub)
{
    while (pub) {
        struct info *info = (struct info *)pub;

        pub = pub->backing;
        for (size_t i = 0; i < info->pub.nr_bitmaps; i++)
            free((char *)info->bitmaps[i].name);
        free(info->bitmaps);
        free(info->extensions);
        free(info->snapshots);
        policy_place_free(&info->place);
        free(info->path);
        free(info->full_backing);
        free(info->data_file);
        snaptab_free(&info->snaptab);
        header_free(&info->hdr);
        qcow1_header_free(&info->hdr1);
        free(info);
    }
}
