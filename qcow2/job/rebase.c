/* SPDX-License-Identifier: BSD-3-Clause */
/* rebase.c: puts an overlay on another backing file, without changing what
 * it reads as: where it leaves a cluster to its backing file, and the old
 * and the new one differ, it gets the old content as its own first.
 *
 * What is copied is durable before the header names the new file. Until then
 * the overlay is on the old one, and has only become fuller.
 */
#include "job/rebase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/blocks.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "disk/open-disk.h"
#include "disk/open.h"
#include "edit/keep.h"
#include "format/header.h"
#include "format/probe.h"
#include "job/copy-job.h"
#include "meta/data-file.h"
#include "meta/flush.h"
#include "meta/map.h"
#include "meta/txn.h"
#include "request/request.h"
#include "storage/path-policy.h"

enum { NR_THREADS = 4 };

enum phase {
    PHASE_SNAPSHOTS, PHASE_BEGIN, PHASE_COPY, NR_PHASES
};

struct rebase {
    struct copy_job j; /* first */
    struct qcow2_disk *top, *below;
    struct image *img;    /* of top, */
    struct source_chain *chain; /* and its chain */
    char *name;           /* of the new backing file; NULL: none */
    const char *format;
    bool header_only;
    enum qcow2_left_to_backing snapshots;
    struct keep keep;
};

/* What a backing chain holds somewhere. */
struct content {
    struct mapping m;
    bool zero;
    uint64_t nr_bytes;
};

static int
get_content(const struct source_chain *chain, unsigned first,
            uint64_t guest_off, uint64_t nr_bytes, struct content *c,
            struct qcow2_error *err)
{
    struct mapping *m = &c->m;

    if (source_chain_lookup(chain, first, guest_off, nr_bytes, m, NULL, err)
        == -1)
        return -1;
    c->zero = m->kind == MAP_ZERO;
    c->nr_bytes = m->nr_bytes;
    if (m->kind == MAP_DATA && m->source->ops->has_file_holes)
        return io_extent(m->source->io, m->host_off, &c->nr_bytes, &c->zero,
                         err);
    return 0;
}

/* Is it the same without looking? Old and new chain often share files. */
static bool
is_same(const struct content *a, const struct content *b)
{
    const struct io *x, *y;

    if (a->zero || b->zero)
        return a->zero && b->zero;
    x = source_file(a->m.source, a->m.kind == MAP_COMPRESSED);
    y = source_file(b->m.source, b->m.kind == MAP_COMPRESSED);
    return x->ino != 0 && x->ino == y->ino && x->dev == y->dev
           && a->m.kind == b->m.kind && a->m.host_off == b->m.host_off
           && a->m.skip == b->m.skip;
}

/* May old and new backing file differ, as far as tables tell? */
static int
may_differ(void *opaque, uint64_t guest_off, uint64_t nr_bytes, bool *differ,
           uint64_t *len, struct qcow2_error *err)
{
    struct rebase *r = opaque;
    struct content old, new = { .zero = true };

    if (get_content(r->chain, 1, guest_off, nr_bytes, &old, err) == -1)
        return -1;
    *len = min_u64(nr_bytes, old.nr_bytes);
    if (r->below) {
        if (get_content(disk_chain(r->below), 0, guest_off, *len, &new, err)
            == -1)
            return -1;
        *len = min_u64(*len, new.nr_bytes);
    }
    *differ = !is_same(&old, &new);
    return 0;
}

static int
read_old(void *opaque, void *buf, size_t nr_bytes, uint64_t guest_off,
         struct qcow2_error *err)
{
    struct rebase *r = opaque;

    return read_chain(r->chain, 1, buf, nr_bytes, guest_off, err);
}

static int
read_new(void *opaque, void *buf, size_t nr_bytes, uint64_t guest_off,
         struct qcow2_error *err)
{
    struct rebase *r = opaque;

    if (r->below)
        return read_chain(disk_chain(r->below), 0, buf, nr_bytes, guest_off,
                          err);
    memset(buf, 0, nr_bytes);
    return 0;
}

static const struct keep_ops keep_ops = {
    .plan = may_differ,
    .read_old = read_old,
    .read_new = read_new,
};

static int
plan(void *opaque, uint64_t guest_off, uint64_t nr_bytes,
     enum copy_kind *kind, uint64_t *len, struct qcow2_error *err)
{
    struct rebase *r = opaque;
    struct mapping m;
    bool differ;

    *kind = COPY_SKIP;
    if (map_lookup(&r->img->active, guest_off, nr_bytes, &m, err) == -1)
        return -1;
    *len = m.nr_bytes;
    if (m.kind != MAP_UNALLOCATED)
        return 0;
    if (may_differ(r, guest_off, *len, &differ, len, err) == -1)
        return -1;
    if (differ)
        *kind = COPY_DATA;
    return 0;
}

/* Old content into buf, new content into space. */
static int
read_chunk(void *opaque, struct copy_chunk *c, struct qcow2_error *err)
{
    return read_old(opaque, c->buf, c->nr_bytes, c->guest_off, err) == -1
                   || read_new(opaque, c->space, c->nr_bytes, c->guest_off,
                               err) == -1
               ? -1 : 0;
}

/* Every subcluster in a data chunk was left to the backing file by top when the
 * chunk was planned. Those that will read differently get the old content,
 * also where that is zeroes, unless somebody wrote to them since. */
static int
write_chunk(void *opaque, struct copy_chunk *c, struct qcow2_error *err)
{
    struct rebase *r = opaque;

    RDLOCK_SCOPE(&r->img->rwlock);
    for (uint64_t pos = 0, len; pos < c->nr_bytes; pos += len) {
        uint64_t guest_off = c->guest_off + pos;
        bool same;

        len = blocks_alike(c->buf + pos, c->space + pos, c->nr_bytes - pos,
                           guest_off, r->img->subcluster_size, &same);
        if (!same
            && populate_shown(r->img, c->buf + pos, len, guest_off, err) == -1)
            return -1;
    }
    return 0;
}

static int
begin(struct rebase *r, struct qcow2_error *err)
{
    return r->header_only ? image_check_state(r->img, err)
                          : image_begin_write(r->img, err);
}

/* A change of the header alone leaves bitmaps as right as they are. */
static int
write_header(struct rebase *r, struct qcow2_error *err)
{
    const struct header_update u = {
        .parts = HEADER_SET_BACKING | HEADER_SET_AUTOCLEAR,
        .backing_file = r->name,
        .backing_format = r->format,
        .autoclear = (r->img->hdr.autoclear & AUTOCLEAR_BITMAPS)
                     | (r->name ? 0 : header_kept_autoclear(&r->img->hdr)),
    };
    struct txn t;

    if (txn_begin(&t, r->img,
                  TXN_HEADER_ONLY | (r->header_only ? TXN_ANY_VIEW : 0), err)
        == -1)
        return -1;
    return txn_end(&t, txn_switch(&t, &u, err), err);
}

static int
close_disks(struct rebase *r, struct qcow2_error *err)
{
    struct qcow2_disk *top = r->top, *below = r->below;

    source_chain_put(r->chain);
    r->chain = NULL;
    r->top = r->below = NULL;
    qcow2_close(below, NULL); /* only read */
    return qcow2_close(top, err);
}

static int
run_phase(struct copy_job *j, unsigned phase, struct qcow2_error *err)
{
    struct rebase *r = (struct rebase *)j;

    switch ((enum phase)phase) {
    case PHASE_SNAPSHOTS:
        return r->header_only || r->snapshots == QCOW2_SNAPSHOTS_CHANGE
                   ? 0 : keep_step(&r->keep, err);
    case PHASE_BEGIN:
        return begin(r, err);
    case PHASE_COPY:
        return r->header_only ? 0 : copy_step(&j->copy, err);
    case NR_PHASES:
        break;
    }
    __builtin_unreachable();
}

static int
finish(struct copy_job *j, struct qcow2_error *err)
{
    struct rebase *r = (struct rebase *)j;

    return write_header(r, err) == -1 ? -1 : close_disks(r, err);
}

static void
rebase_free(struct copy_job *j)
{
    struct rebase *r = (struct rebase *)j;

    keep_end(&r->keep);
    close_disks(r, NULL);
    free(r->name);
}

static const struct copy_job_ops rebase_ops = {
    .name = "rebase",
    .nr_phases = NR_PHASES,
    .run_phase = run_phase,
    .finish = finish,
    .free = rebase_free,
    .copy = { .plan = plan, .read = read_chunk, .write = write_chunk },
};

static int
check_options(const struct qcow2_rebase_options *rebase,
              struct qcow2_error *err)
{
    if (!rebase->backing)
        return 0;
    if (rebase->backing_format == QCOW2_FORMAT_AUTO)
        return error_set(err, EINVAL, "backing file '%s': its format must be "
                         "said, qcow2 or raw", ESCAPED(rebase->backing));
    if (!rebase->backing[0]
        || strlen(rebase->backing) > MAX_BACKING_NAME_BYTES)
        return error_set(err, EINVAL, "the backing file name must have 1 to "
                         "%d bytes", MAX_BACKING_NAME_BYTES);
    return 0;
}

struct qcow2_job *
rebase_new(struct qcow2_disk *top, struct qcow2_disk *below,
           const struct qcow2_rebase_options *rebase,
           struct qcow2_error *err)
{
    struct rebase *r = calloc(1, sizeof *r);

    if (r && rebase->backing)
        r->name = strdup(rebase->backing);
    if (!r || (rebase->backing && !r->name)) {
        qcow2_close(below, NULL);
        qcow2_close(top, NULL);
        free(r);
        error_nomem(err);
        return NULL;
    }
    copy_job_init(&r->j, &rebase_ops);
    r->top = top;
    r->below = below;
    r->img = top->file->image;
    r->chain = disk_get_chain(top);
    if (r->name)
        r->format = qcow2_format_name(rebase->backing_format);
    r->header_only = rebase->header_only;
    r->snapshots = rebase->snapshots;
    r->keep.ops = &keep_ops;
    r->keep.opaque = r;
    r->keep.disk = top;
    r->keep.check_only = r->snapshots == QCOW2_SNAPSHOTS_REFUSE;
    r->j.copy.end = qcow2_get_size(top);
    r->j.copy.align = r->img->subcluster_size;
    r->j.copy.nr_threads = NR_THREADS;
    r->j.copy.needs_space = true;
    return &r->j.job;
}

/* Opens the new backing file, which the user has named, as a disk. */
static struct qcow2_disk *
open_below(const struct policy_file *image, struct qcow2_disk *top,
           const struct qcow2_options *options,
           const struct qcow2_rebase_options *rebase,
           struct qcow2_error *err)
{
    struct chain_stop loop = { .dev = top->file->image->io->dev,
                               .ino = top->file->image->io->ino };
    struct qcow2_options o = *options;
    struct qcow2_disk *below = NULL;
    struct policy_file file;

    o.format = rebase->backing_format;
    o.readonly = true;
    o.no_lock |= o.no_lock_backing;
    o.fd = -1;
    o.pool = NULL;
    o.window = (struct qcow2_window){ 0 }; /* of the image, not of this */
    o.data_file = NULL;
    o.cache = options->backing_cache;
    o.backing_none = false;
    o.backing = NULL;
    o.backing_format = QCOW2_FORMAT_AUTO;
    if (policy_trust_name(&image->place, rebase->backing, &file, err) == -1)
        return NULL;
    loop.reached = loop.ino != 0 && file.dev == loop.dev
                   && file.ino == loop.ino;
    if (!loop.reached)
        below = disk_open_file(&file, &o, loop.ino ? &loop : NULL, err);
    if (loop.reached) {
        policy_file_free(&loop.file);
        qcow2_close(below, NULL);
        below = NULL;
        error_set(err, EINVAL, "the image would be in its own backing chain");
    }
    policy_file_free(&file);
    return below;
}

static struct qcow2_disk *
open_top(const struct policy_file *file, const struct qcow2_options *options,
         bool header_only, struct qcow2_error *err)
{
    struct qcow2_options o = *options;
    struct qcow2_disk *top;

    o.readonly = false;
    o.fd = -1;
    o.pool = NULL;
    if (header_only)
        o.backing_none = true;
    top = disk_open_file(file, &o, NULL, err);
    if (top && !top->file->image) {
        qcow2_close(top, NULL);
        error_set(err, EINVAL, "%s: a raw disk has no backing file",
                  ESCAPED(file->path));
        return NULL;
    }
    if (top && !header_only && disk_check_own_view(top, err) == -1) {
        qcow2_close(top, NULL);
        return NULL;
    }
    return top;
}

/* What a data file of its own has to do with the new backing file. */
static int
check_data_file(const struct policy_file *image, struct qcow2_disk *top,
                struct qcow2_disk *below, const char *backing,
                struct qcow2_error *err)
{
    const struct image *img = top->file->image;
    const struct io *io = img->data->io;
    struct policy_file file;
    bool same = false;

    if (!data_file_is_used(img) || !backing)
        return 0;
    if (img->data->zeroes_are_data)
        return error_set(err, ENOTSUP, "%s: its data file is the disk as a raw "
                         "image, so it cannot have a backing file", img->name);
    if (below) {
        struct source_chain *chain = disk_get_chain(below);

        for (unsigned i = 0; i < chain->nr_layers; i++)
            same |= source_has_file(chain->layers[i], io->dev, io->ino);
        source_chain_put(chain);
    } else if (policy_trust_name(&image->place, backing, &file, NULL) == 0) {
        same = io->ino != 0 && file.dev == io->dev && file.ino == io->ino;
        policy_file_free(&file);
    }
    return same ? error_set(err, EINVAL, "%s: its data file would be in its "
                            "own backing chain", img->name) : 0;
}

/* The name is stored as it is, and need not lead anywhere, but not to the
 * image itself: that could not be opened any more. */
static int
check_not_itself(const struct policy_file *image, const char *backing,
                 struct qcow2_error *err)
{
    struct policy_file file;
    bool same = false;

    if (policy_trust_name(&image->place, backing, &file, NULL) == 0) {
        same = policy_is_same(&file, image);
        policy_file_free(&file);
    }
    if (!same)
        return 0;
    return error_set(err, EINVAL, "%s: the image would be its own backing "
                     "file", ESCAPED(image->path));
}

static struct qcow2_job *
rebase_file(const struct policy_file *file, const struct qcow2_options *options,
            const struct qcow2_rebase_options *rebase,
            struct qcow2_error *err)
{
    struct qcow2_disk *top, *below = NULL;

    if (rebase->backing && rebase->header_only
        && check_not_itself(file, rebase->backing, err) == -1)
        return NULL;
    top = open_top(file, options, rebase->header_only, err);
    if (!top)
        return NULL;
    if (rebase->backing && !rebase->header_only) {
        below = open_below(file, top, options, rebase, err);
        if (!below) {
            qcow2_close(top, NULL);
            error_prefix(err, "new backing file '%s'",
                         ESCAPED(rebase->backing));
            return NULL;
        }
    }
    if (check_data_file(file, top, below, rebase->backing, err) == -1) {
        qcow2_close(below, NULL);
        qcow2_close(top, NULL);
        return NULL;
    }
    return rebase_new(top, below, rebase, err);
}

struct qcow2_job *
qcow2_rebase(const char *path, const struct qcow2_options *options,
             const struct qcow2_rebase_options *rebase,
             struct qcow2_error *err)
{
    struct policy_file file;
    struct qcow2_job *job;

    if (check_options(rebase, err) == -1
        || policy_trust(path, &file, err) == -1)
        return NULL;
    job = rebase_file(&file, options, rebase, err);
    policy_file_free(&file);
    return job;
}
