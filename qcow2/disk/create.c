/* SPDX-License-Identifier: BSD-3-Clause */
/* create.c: makes new, empty images. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/compress.h"
#include "base/error.h"
#include "base/escape.h"
#include "disk/create.h"
#include "disk/open-disk.h"
#include "disk/open.h"
#include "format/header.h"
#include "format/probe.h"
#include "format/refcount-growth.h"
#include "meta/refcount.h"
#include "storage/failures.h"
#include "storage/io-open.h"
#include "storage/path-policy.h"

enum {
    DEFAULT_VERSION = 3,
    DEFAULT_CLUSTER_BITS = 16,
    DEFAULT_EXTENDED_L2_CLUSTER_BITS = 17, /* subclusters of 4 KiB */
    DEFAULT_REFCOUNT_ORDER = 4,
};

/* What is to be made, checked and with defaults filled in. */
struct plan {
    struct header_new hn;
    uint32_t cluster_size;
    struct refcount_layout at;
    unsigned char *header;  /* a cluster */
    unsigned char *tables;  /* reftable and refblocks as on disk */
};

static int
plan_version(const struct qcow2_create_options *o, struct header_new *hn,
             struct qcow2_error *err)
{
    hn->version = o->version ? o->version : DEFAULT_VERSION;
    if (hn->version != 2 && hn->version != 3)
        return error_set(err, EINVAL, "version %u: must be 2 or 3",
                         hn->version);
    if (hn->version == 2 && o->refcount_bits && o->refcount_bits != 16)
        return error_set(err, EINVAL, "refcounts of %u bits: version 2 has "
                         "only 16; use version 3", o->refcount_bits);
    if (hn->version == 2 && o->zstd)
        return error_set(err, EINVAL, "compression type zstd: version 2 has "
                         "only zlib; use version 3");
    if (hn->version == 2 && o->lazy_refcounts)
        return error_set(err, EINVAL, "lazy refcounts: version 2 has none; "
                         "use version 3");
    if (hn->version == 2 && o->extended_l2)
        return error_set(err, EINVAL, "extended L2 entries: version 2 has "
                         "none; use version 3");
    if (o->zstd && !compress_supported(COMPRESS_ZSTD))
        return error_set(err, ENOTSUP, "compression type zstd is not built "
                         "in");
    hn->compression_type = o->zstd ? COMPRESS_ZSTD : COMPRESS_ZLIB;
    if (hn->version == 2 && o->data_file)
        return error_set(err, EINVAL, "an external data file: version 2 has "
                         "none; use version 3");
    hn->data_file = o->data_file;
    hn->lazy_refcounts = o->lazy_refcounts;
    return 0;
}

static int
plan_geometry(const struct qcow2_create_options *o, struct header_new *hn,
              struct qcow2_error *err)
{
    hn->extended_l2 = o->extended_l2;
    hn->cluster_bits = o->extended_l2 ? DEFAULT_EXTENDED_L2_CLUSTER_BITS
                                      : DEFAULT_CLUSTER_BITS;
    hn->refcount_order = DEFAULT_REFCOUNT_ORDER;
    if (o->cluster_size) {
        if (!is_power_of_2(o->cluster_size)
            || o->cluster_size < 1u << MIN_CLUSTER_BITS
            || o->cluster_size > 1u << MAX_CLUSTER_BITS)
            return error_set(err, EINVAL, "clusters of %" PRIu32 " bytes: "
                             "must be a power of two from %u to %u",
                             o->cluster_size, 1u << MIN_CLUSTER_BITS,
                             1u << MAX_CLUSTER_BITS);
        hn->cluster_bits = __builtin_ctz(o->cluster_size);
        if (hn->extended_l2
            && hn->cluster_bits < MIN_EXTENDED_L2_CLUSTER_BITS)
            return error_set(err, EINVAL, "clusters of %" PRIu32 " bytes: "
                             "extended L2 entries need at least %u",
                             o->cluster_size,
                             1u << MIN_EXTENDED_L2_CLUSTER_BITS);
    }
    if (o->refcount_bits) {
        if (!is_power_of_2(o->refcount_bits)
            || o->refcount_bits > 1u << MAX_REFCOUNT_ORDER)
            return error_set(err, EINVAL, "refcounts of %u bits: must be a "
                             "power of two from 1 to %u", o->refcount_bits,
                             1u << MAX_REFCOUNT_ORDER);
        hn->refcount_order = __builtin_ctz(o->refcount_bits);
    }
    return 0;
}

static struct geometry
geometry_of(const struct header_new *hn)
{
    return geometry_make(hn->cluster_bits, hn->refcount_order,
                         hn->extended_l2);
}

static int
plan_size(uint64_t size, struct header_new *hn, struct qcow2_error *err)
{
    struct geometry geo = geometry_of(hn);
    uint64_t nr_entries;

    /* Other programs round it down to sectors. */
    if (add_overflows(size, 511, &hn->size))
        hn->size = UINT64_MAX;
    hn->size = round_down(hn->size, 512);
    if (hn->data_file && hn->size > MAX_HOST_OFFSET)
        return error_set(err, EINVAL, "a size of %" PRIu64 " bytes is more "
                         "than tables can map to a data file (%" PRIu64 ")",
                         size, MAX_HOST_OFFSET);
    nr_entries = geometry_l1_entries(&geo, hn->size);
    if (nr_entries > MAX_L1_BYTES / sizeof(be64))
        return error_set(err, EINVAL, "a size of %" PRIu64 " bytes is more "
                         "than clusters of %u bytes can map (%" PRIu64 "); "
                         "use larger clusters", size, 1u << hn->cluster_bits,
                         (uint64_t)MAX_L1_BYTES / sizeof(be64)
                             << geometry_l1_reach_bits(&geo));
    hn->l1_size = nr_entries;
    return 0;
}

static void
plan_layout(struct plan *p)
{
    struct geometry geo = geometry_of(&p->hn);
    struct refcount_layout *at = &p->at;

    refcount_layout_plan(&geo, p->hn.l1_size, at);
    p->hn.reftable_offset = at->reftable << p->hn.cluster_bits;
    p->hn.reftable_clusters = at->nr_reftable;
    if (p->hn.l1_size > 0)
        p->hn.l1_offset = at->l1 << p->hn.cluster_bits;
}

/* The tables lie next to each other, so one write does. */
static int
build_tables(struct plan *p, struct qcow2_error *err)
{
    unsigned refblock_bits = geometry_of(&p->hn).refblock_bits;
    const struct refcount_layout *at = &p->at;
    unsigned char *refblocks;

    p->header = calloc(1, p->cluster_size);
    p->tables = calloc(at->nr_reftable + at->nr_refblocks, p->cluster_size);
    if (!p->header || !p->tables)
        return error_nomem(err);
    for (uint64_t i = 0; i < at->nr_refblocks; i++) {
        be64 entry = be64_make((at->refblocks + i) << p->hn.cluster_bits);

        memcpy(p->tables + i * sizeof entry, &entry, sizeof entry);
    }
    refblocks = p->tables + at->nr_reftable * p->cluster_size;
    for (uint64_t i = 0; i < at->end; i++)
        refcount_set(refblocks + (i >> refblock_bits) * p->cluster_size,
                     p->hn.refcount_order,
                     i & ((UINT64_C(1) << refblock_bits) - 1), 1);
    if (header_encode(&p->hn, p->header, p->cluster_size, err) == -1)
        return -1;
    return 0;
}

static int
make_plan(const struct qcow2_create_options *o, uint64_t size,
          struct plan *p, struct qcow2_error *err)
{
    struct header_new *hn = &p->hn;

    if (plan_version(o, hn, err) == -1
        || plan_geometry(o, hn, err) == -1
        || plan_size(size, hn, err) == -1)
        return -1;
    hn->backing_file = o->backing;
    if (o->backing)
        hn->backing_format = qcow2_format_name(o->backing_format);
    hn->data_file_raw = o->data_file_raw;
    p->cluster_size = UINT32_C(1) << hn->cluster_bits;
    plan_layout(p);
    return build_tables(p, err);
}

static int
check_data_file(const struct qcow2_create_options *o, struct qcow2_error *err)
{
    if (o->data_file_raw && !o->data_file)
        return error_set(err, EINVAL, "a raw data file, but no data file");
    if (o->data_file_raw && o->backing)
        return error_set(err, EINVAL, "with a raw data file there can be no "
                         "backing file, which nobody would see in it");
    if (o->data_file
        && (!o->data_file[0]
            || strlen(o->data_file) > MAX_DATA_FILE_NAME_BYTES))
        return error_set(err, EINVAL, "the data file name must have 1 to %d "
                         "bytes", MAX_DATA_FILE_NAME_BYTES);
    return 0;
}

static int
check_backing_name(const struct qcow2_create_options *o,
                   struct qcow2_error *err)
{
    if (!o->backing) {
        if (o->size_from_backing)
            return error_set(err, EINVAL, "no size: there is no backing "
                             "file to take it from");
        if (o->backing_format != QCOW2_FORMAT_AUTO)
            return error_set(err, EINVAL, "a backing format, but no backing "
                             "file");
        return 0;
    }
    if (o->backing_format == QCOW2_FORMAT_AUTO)
        return error_set(err, EINVAL, "backing file '%s': its format must be "
                         "said, qcow2 or raw", o->backing);
    if (o->size_from_backing && o->backing_unchecked)
        return error_set(err, EINVAL, "no size: the backing file that has it "
                         "is not to be opened");
    if (!o->backing[0] || strlen(o->backing) > MAX_BACKING_NAME_BYTES)
        return error_set(err, EINVAL, "the backing file name must have 1 to "
                         "%d bytes", MAX_BACKING_NAME_BYTES);
    return 0;
}

/* Locked, if possible. A file that others have open for writing is read as it
 * is at this moment: its size and format are all that is needed, and the new
 * image depends on it in the same way whether the others stop now or later. */
static struct qcow2_disk *
open_used(const struct policy_file *file, struct qcow2_options *options,
          struct qcow2_error *err)
{
    struct qcow2_error error;
    struct qcow2_disk *disk = disk_open_file(file, options, NULL, &error);

    if (disk)
        return disk;
    if (error.errnum == EBUSY) {
        options->no_lock = true;
        return disk_open_file(file, options, NULL, err);
    }
    if (err)
        *err = error;
    return NULL;
}

/* Opens the backing file, which the user chose, and those below it as the new
 * image will: what cannot be opened then is refused now.
 */
static struct qcow2_disk *
open_backing(const struct policy_place *place,
             const struct qcow2_create_options *o, struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk = NULL;
    struct policy_file file;

    options.format = o->backing_format;
    options.readonly = true;
    options.allow = o->allow;
    options.nr_allow = o->nr_allow;
    options.driver = o->driver;
    if (policy_trust_name(place, o->backing, &file, err) == 0) {
        disk = open_used(&file, &options, err);
        policy_file_free(&file);
    }
    if (!disk)
        error_prefix(err, "backing file '%s'", ESCAPED(o->backing));
    return disk;
}

/* Is the file one that the disk consists of? */
static bool
has_file(const struct qcow2_disk *disk, const struct policy_file *file)
{
    struct source_chain *chain = disk_get_chain(disk);
    bool found = false;

    for (unsigned i = 0; i < chain->nr_layers && !found; i++)
        found = source_has_file(chain->layers[i], file->dev, file->ino);
    source_chain_put(chain);
    return found;
}

/* A file cannot take the place of one in its own chain. */
static int
check_not_below(const struct policy_file *old, const struct policy_place *place,
                const struct qcow2_create_options *o,
                const struct qcow2_disk *backing, struct qcow2_error *err)
{
    struct policy_file file;
    bool below = false;

    if (!o->backing || !old->path)
        return 0;
    if (policy_trust_name(place, o->backing, &file, NULL) == 0) {
        below = policy_is_same(&file, old);
        policy_file_free(&file);
    }
    if (!below && backing)
        below = has_file(backing, old);
    if (!below)
        return 0;
    return error_set(err, EINVAL, "it would be in its own backing chain");
}

/* What is there may be an image, which must not be one any more before its
 * tables are written over. The new one begins with nr_bytes. */
static int
remove_old(struct io *io, uint64_t nr_bytes, struct qcow2_error *err)
{
    uint64_t size;

    if (io_get_size(io, &size, err) == -1)
        return -1;
    if (!io->can_grow && size < nr_bytes)
        return error_set(err, ENOSPC, "%s: it has %" PRIu64 " bytes, of which "
                         "an empty image needs %" PRIu64, io->name, size,
                         nr_bytes);
    if (size == 0)
        return 0;
    if (io_zero(io, 0, min_u64(size, 512), 0, err) == -1
        || io_flush(io, err) == -1)
        return -1;
    return io->can_grow ? io_truncate(io, 0, err) : 0;
}

/* The header makes it an image, so it comes last. */
static int
write_image(struct io *io, const struct plan *p, struct qcow2_error *err)
{
    const struct refcount_layout *at = &p->at;
    uint64_t l1_bytes = at->nr_l1 << p->hn.cluster_bits;
    size_t nr_table_bytes = (at->nr_reftable + at->nr_refblocks)
                            << p->hn.cluster_bits;

    if (remove_old(io, at->end << p->hn.cluster_bits, err) == -1)
        return -1;
    /* A flush writes to the L1 table: its space is taken now. */
    if (io_zero(io, p->hn.l1_offset, l1_bytes, 0, err) == -1
        || io_pwrite(io, p->tables, nr_table_bytes, p->hn.reftable_offset,
                     err) == -1
        || io_flush(io, err) == -1
        || io_pwrite(io, p->header, p->cluster_size, 0, err) == -1
        || io_flush(io, err) == -1)
        return -1;
    return 0;
}

/* Makes the data file, empty and as long as the disk. */
static int
create_data(struct policy_target *t, const struct qcow2_create_options *o,
            mode_t mode, const struct plan *p, struct qcow2_error *err)
{
    const struct io_create_options c = {
        .overwrite = o->overwrite, .mode = mode, .driver = o->driver,
    };
    struct io *io = io_create(t, &c, err);
    int r;

    if (!io)
        return -1;
    io_advise_layout(io, o->nocow, o->extent_size_hint);
    r = create_set_size(io, p->hn.size, err);
    if (r == 0)
        r = io_flush(io, err);
    io_close(io);
    return r;
}

/* An old image is not emptied for want of a data file that can be had. */
static int
try_old_data(const struct policy_target *data,
             const struct qcow2_create_options *o, struct qcow2_error *err)
{
    const struct io_open_options how = {
        .lock = IO_LOCK_WRITE, .driver = o->driver,
    };
    struct io *io;

    if (!o->data_file || !data->file.path || !o->overwrite)
        return 0;
    io = io_open(&data->file, &how, err);
    io_close(io);
    return io ? 0 : -1;
}

static struct io *
create_file(struct policy_target *t, const struct qcow2_create_options *o,
            mode_t mode, const struct plan *p, struct qcow2_error *err)
{
    const struct io_create_options c = {
        .overwrite = o->overwrite, .mode = mode, .driver = o->driver,
    };
    struct io *io = NULL;
    int r = try_old_data(t->beside, o, err);

    if (r == 0)
        io = io_create(t, &c, err);
    if (!io)
        return NULL;
    failures_note_locks(o->failures, io);
    io_advise_layout(io, o->nocow, o->extent_size_hint);
    if (o->data_file)
        r = create_data(t->beside, o, mode, p, err);
    if (r == 0 && write_image(io, p, err) == 0)
        return io;
    /* Still locked, so nobody has begun to use it. */
    policy_target_remove(t);
    io_close(io);
    return NULL;
}

int
create_io(struct io *io, const struct qcow2_create_options *o,
          struct qcow2_error *err)
{
    struct plan p = { .cluster_size = 0 };
    int r = make_plan(o, o->size, &p, err);

    if (r == 0)
        r = write_image(io, &p, err);
    free(p.header);
    free(p.tables);
    return r;
}

/* Finds the data file, which is neither the image nor below it. */
static int
find_data(const struct policy_target *t, const struct policy_place *place,
          const struct qcow2_create_options *o,
          const struct qcow2_disk *backing, struct policy_target *data,
          struct qcow2_error *err)
{
    if (!o->data_file)
        return 0;
    if (policy_target_find_from(place, o->data_file, data, err) == -1
        || check_not_below(&data->file, place, o, backing, err) == -1)
        return error_prefix(err, "data file '%s'", ESCAPED(o->data_file));
    if (policy_target_is_same(t, data))
        return error_set(err, EINVAL, "data file '%s': it is the image itself",
                         ESCAPED(o->data_file));
    return 0;
}

/* Decides what is to be made. *backing is its backing file, to be closed once
 * it is made. */
static int
settle(const struct policy_target *t, const struct qcow2_create_options *o,
       struct plan *p, struct qcow2_disk **backing,
       struct policy_target *data, struct qcow2_error *err)
{
    struct policy_place place;
    uint64_t size = o->size;
    int r = 0;

    policy_target_place(t, &place);
    if (o->backing && !o->backing_unchecked) {
        *backing = open_backing(&place, o, err);
        r = *backing ? 0 : -1;
        if (*backing && o->size_from_backing)
            size = qcow2_get_size(*backing);
    }
    if (r == 0)
        r = check_not_below(&t->file, &place, o, *backing, err);
    if (r == 0)
        r = find_data(t, &place, o, *backing, data, err);
    if (r == 0)
        r = make_plan(o, size, p, err);
    policy_place_free(&place);
    return r == 0 ? 0 : error_prefix(err, "%s: cannot create",
                                     ESCAPED(t->path));
}

struct io *
create_target(struct policy_target *t, const struct qcow2_create_options *o,
              mode_t mode, struct qcow2_error *err)
{
    struct policy_target *data = calloc(1, sizeof *data);
    struct qcow2_disk *backing = NULL;
    struct plan p = { .cluster_size = 0 };
    struct io *io = NULL;

    if (!data) {
        error_nomem(err);
        return NULL;
    }
    *data = (struct policy_target)POLICY_TARGET_INIT;
    t->beside = data;
    if (check_backing_name(o, err) == -1 || check_data_file(o, err) == -1) {
        error_prefix(err, "%s: cannot create", ESCAPED(t->path));
        return NULL;
    }
    if (settle(t, o, &p, &backing, data, err) == 0)
        io = create_file(t, o, mode, &p, err);
    if (io && o->size_created)
        *o->size_created = p.hn.size;
    if (backing)
        qcow2_close(backing, NULL);
    free(p.header);
    free(p.tables);
    return io;
}

int
qcow2_create(const char *path, const struct qcow2_create_options *o,
             struct qcow2_error *err)
{
    enum qcow2_preallocation prealloc = o->prealloc;
    struct policy_target target;
    struct io *io;
    int r = -1;

    if (policy_target_find(path, &target, err) == -1)
        return -1;
    /* Other programs expect tables to know all of a raw data file. */
    if (o->data_file_raw && prealloc == QCOW2_PREALLOC_OFF)
        prealloc = QCOW2_PREALLOC_METADATA;
    io = create_target(&target, o, CREATE_MODE, err);
    if (io && (prealloc == QCOW2_PREALLOC_OFF
               || (o->backing && !o->extended_l2))) {
        io_close(io);
        r = 0;
    } else if (io) {
        r = create_preallocate(io, &target, QCOW2_FORMAT_QCOW2, prealloc, err);
        if (r == -1)
            policy_target_remove(&target);
    }
    policy_target_free(&target);
    return r;
}
