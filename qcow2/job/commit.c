/* SPDX-License-Identifier: BSD-3-Clause */
/* commit.c: writes what an overlay holds into a layer below it.
 *
 * The order is what makes it restartable: all goes to the base and is made
 * durable there before the overlay loses anything. While both have it, it
 * does not matter which one is read.
 */
#include "job/commit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "disk/open-disk.h"
#include "disk/open.h"
#include "edit/keep.h"
#include "job/copy-job.h"
#include "meta/alloc.h"
#include "meta/flush.h"
#include "meta/l1.h"
#include "meta/map.h"
#include "meta/overlap.h"
#include "meta/tree.h"
#include "meta/txn.h"
#include "request/request.h"
#include "storage/path-policy.h"

enum {
    NR_THREADS = 4,
    TABLES_PER_STEP = 64,
};

enum phase {
    PHASE_SNAPSHOTS, PHASE_GROW, PHASE_COPY, PHASE_EMPTY, PHASE_END,
    NR_PHASES
};

struct commit {
    struct copy_job j; /* first */
    struct qcow2_disk *top, *base;
    struct source_chain *chain; /* of top, which ends above the base, */
    struct source_chain *base_chain; /* and of the base */
    bool empty;
    enum qcow2_left_to_backing snapshots;
    struct keep keep;
    uint32_t next_l1;     /* of top, to be emptied */
};

static int
plan(void *opaque, uint64_t guest_off, uint64_t nr_bytes,
     enum copy_kind *kind, uint64_t *len, struct qcow2_error *err)
{
    const struct source_chain *chain = ((struct commit *)opaque)->chain;
    struct mapping m;
    unsigned depth;

    if (source_chain_lookup(chain, 0, guest_off, nr_bytes, &m, &depth, err)
        == -1)
        return -1;
    *len = m.nr_bytes;
    /* Past the end of a layer it is zeroes, not what the base has there. */
    *kind = depth == chain->nr_layers ? COPY_SKIP
            : m.kind == MAP_ZERO ? COPY_ZERO : COPY_DATA;
    return 0;
}

/* Nobody writes to top meanwhile, so it is read without locks. */
static int
read_chunk(void *opaque, struct copy_chunk *c, struct qcow2_error *err)
{
    const struct source_chain *chain = ((struct commit *)opaque)->chain;

    return read_chain(chain, 0, c->buf, c->nr_bytes, c->guest_off, err);
}

static int
write_chunk(void *opaque, struct copy_chunk *c, struct qcow2_error *err)
{
    struct qcow2_disk *base = ((struct commit *)opaque)->base;

    if (c->kind == COPY_ZERO)
        return qcow2_zero(base, c->nr_bytes, c->guest_off, QCOW2_MAY_TRIM,
                          err);
    return qcow2_pwrite(base, c->buf, c->nr_bytes, c->guest_off, 0, err);
}

/* Does the base decide what top's snapshots read where they, at guest_off,
 * leave it to what is below? Shortens *nr_bytes to what that is true of. */
static int
is_left_to_base(const struct commit *c, uint64_t guest_off,
                uint64_t *nr_bytes, bool *left, struct qcow2_error *err)
{
    const struct source_chain *chain = c->chain;
    struct mapping m;
    unsigned depth;

    if (source_chain_lookup(chain, 1, guest_off, *nr_bytes, &m, &depth, err)
        == -1)
        return -1;
    *nr_bytes = min_u64(*nr_bytes, m.nr_bytes);
    *left = depth == chain->nr_layers;
    return 0;
}

/* And does top have something there, which goes to the base? */
static int
is_committed(const struct commit *c, uint64_t guest_off, uint64_t *nr_bytes,
             bool *committed, struct qcow2_error *err)
{
    struct view *v = &c->top->file->image->active;
    struct mapping m;

    if (is_left_to_base(c, guest_off, nr_bytes, committed, err) == -1)
        return -1;
    if (!*committed)
        return 0;
    *committed = guest_off < v->src.size;
    if (!*committed)
        return 0;
    *nr_bytes = min_u64(*nr_bytes, v->src.size - guest_off);
    if (map_lookup(v, guest_off, *nr_bytes, &m, err) == -1)
        return -1;
    *nr_bytes = min_u64(*nr_bytes, m.nr_bytes);
    *committed = m.kind != MAP_UNALLOCATED;
    return 0;
}

static int
keep_plan(void *opaque, uint64_t guest_off, uint64_t nr_bytes,
          bool *may_change, uint64_t *len, struct qcow2_error *err)
{
    *len = nr_bytes;
    return is_committed(opaque, guest_off, len, may_change, err);
}

static int
keep_read_old(void *opaque, void *buf, size_t nr_bytes, uint64_t guest_off,
              struct qcow2_error *err)
{
    const struct commit *c = opaque;

    while (nr_bytes > 0) {
        uint64_t n = nr_bytes;
        bool left;

        if (is_left_to_base(c, guest_off, &n, &left, err) == -1
            || read_chain(left ? c->base_chain : c->chain, !left, buf,
                          n, guest_off, err) == -1)
            return -1;
        buf = (char *)buf + n;
        nr_bytes -= n;
        guest_off += n;
    }
    return 0;
}

static int
keep_read_new(void *opaque, void *buf, size_t nr_bytes, uint64_t guest_off,
              struct qcow2_error *err)
{
    const struct commit *c = opaque;

    while (nr_bytes > 0) {
        uint64_t n = nr_bytes;
        bool committed;

        if (is_committed(c, guest_off, &n, &committed, err) == -1
            || (committed ? read_chain(c->chain, 0, buf, n, guest_off, err)
                          : keep_read_old(opaque, buf, n, guest_off, err))
               == -1)
            return -1;
        buf = (char *)buf + n;
        nr_bytes -= n;
        guest_off += n;
    }
    return 0;
}

static const struct keep_ops keep_ops = {
    .plan = keep_plan,
    .read_old = keep_read_old,
    .read_new = keep_read_new,
};

static int
grow_base(struct commit *c, struct qcow2_error *err)
{
    uint64_t size = qcow2_get_size(c->top), old = qcow2_get_size(c->base);
    const struct io *io = disk_io(c->base);

    if (size <= old)
        return 0;
    if (!c->base->file->image && !io->can_grow)
        return error_set(err, ENOSPC, "%s: its %" PRIu64 " bytes cannot take "
                         "a disk of %" PRIu64 ", and it cannot grow",
                         io->name, old, size);
    return qcow2_resize(c->base, size, false, err) == -1 ? -1
               : qcow2_preallocate(c->base, size - old, old,
                                   QCOW2_PREALLOC_OFF, err);
}

/* Frees some of top's L2 tables and what they map; 1: there are more. */
static int
empty_tables(struct commit *c, struct image *img, struct qcow2_error *err)
{
    struct view *v = &img->active;

    for (unsigned n = 0; c->next_l1 < v->l1_entries; c->next_l1++) {
        uint64_t entry = v->l1[c->next_l1];

        if (entry == 0)
            continue;
        if (n++ == TABLES_PER_STEP)
            return 1;
        /* Change first, free after: a flush may come between (I3). */
        l1_set(v, c->next_l1, 0);
        if (tree_free(img, &entry, c->next_l1, 1, err) == -1)
            return -1;
    }
    if (overlap_fill(img, err) == -1 || flush_all(img, err) == -1
        || alloc_cut_file(img, true, err) == -1)
        return -1;
    return 0;
}

/* After each step the disk is in order, with fewer tables. */
static int
empty_top(struct commit *c, struct qcow2_error *err)
{
    struct image *img = c->top->file->image;
    struct txn t;
    int r;

    if (txn_begin(&t, img, TXN_TABLES | TXN_DIRTY, err) == -1)
        return -1;
    t.unsettled = true;
    r = empty_tables(c, img, err);
    return txn_end(&t, r == -1 ? -1 : 0, err) == -1 ? -1 : r;
}

static int
close_disks(struct commit *c, struct qcow2_error *err)
{
    struct qcow2_disk *top = c->top, *base = c->base;
    int r;

    source_chain_put(c->chain);
    source_chain_put(c->base_chain);
    c->chain = c->base_chain = NULL;
    c->top = c->base = NULL;
    r = qcow2_close(base, err);
    if (qcow2_close(top, r == 0 ? err : NULL) == -1)
        r = -1;
    return r;
}

static int
run_phase(struct copy_job *j, unsigned phase, struct qcow2_error *err)
{
    struct commit *c = (struct commit *)j;
    int r;

    switch ((enum phase)phase) {
    case PHASE_SNAPSHOTS:
        return c->snapshots == QCOW2_SNAPSHOTS_CHANGE
                   ? 0 : keep_step(&c->keep, err);
    case PHASE_GROW:
        return grow_base(c, err);
    case PHASE_COPY:
        r = copy_step(&j->copy, err);
        return r == 0 ? disk_flush(c->base, err) : r;
    case PHASE_EMPTY:
        return c->empty ? empty_top(c, err) : 0;
    case PHASE_END:
        return close_disks(c, err);
    case NR_PHASES:
        break;
    }
    __builtin_unreachable();
}

static void
commit_free(struct copy_job *j)
{
    struct commit *c = (struct commit *)j;

    keep_end(&c->keep);
    close_disks(c, NULL);
}

static const struct copy_job_ops commit_ops = {
    .name = "commit",
    .nr_phases = NR_PHASES,
    .run_phase = run_phase,
    .free = commit_free,
    .copy = { .plan = plan, .read = read_chunk, .write = write_chunk },
};

struct qcow2_job *
commit_new(struct qcow2_disk *top, struct qcow2_disk *base, bool empty,
           enum qcow2_left_to_backing snapshots, struct qcow2_error *err)
{
    struct commit *c = calloc(1, sizeof *c);

    if (!c) {
        qcow2_close(base, NULL);
        qcow2_close(top, NULL);
        error_nomem(err);
        return NULL;
    }
    copy_job_init(&c->j, &commit_ops);
    c->top = top;
    c->base = base;
    c->chain = disk_get_chain(top);
    c->base_chain = disk_get_chain(base);
    c->empty = empty;
    c->snapshots = snapshots;
    c->keep.ops = &keep_ops;
    c->keep.opaque = c;
    c->keep.disk = top;
    c->keep.check_only = snapshots == QCOW2_SNAPSHOTS_REFUSE;
    c->j.copy.end = qcow2_get_size(top);
    c->j.copy.align = 1;
    c->j.copy.nr_threads = NR_THREADS;
    return &c->j.job;
}

/* Finds the file that the user means by base: as a name from the image's
 * directory, as names in images are, or from the current one. */
static int
find_base(const struct policy_file *image, const char *base,
          struct chain_stop *stop, struct qcow2_error *err)
{
    struct policy_file file;

    if (policy_trust_name(&image->place, base, &file, NULL) == -1
        && policy_trust(base, &file, err) == -1)
        return error_prefix(err, "base '%s'", ESCAPED(base));
    stop->dev = file.dev;
    stop->ino = file.ino;
    policy_file_free(&file);
    return 0;
}

static struct qcow2_disk *
open_top(const char *path, const struct qcow2_options *options,
         const struct qcow2_commit_options *commit, struct chain_stop *stop,
         struct qcow2_error *err)
{
    struct qcow2_options o = *options;
    struct qcow2_disk *top = NULL;
    struct policy_file file;

    o.readonly = commit->keep
                 && commit->snapshots != QCOW2_SNAPSHOTS_KEEP;
    o.fd = -1;
    o.pool = NULL; /* layers that others use have the base open */
    if (policy_trust(path, &file, err) == -1)
        return NULL;
    if (!commit->base || find_base(&file, commit->base, stop, err) == 0)
        top = disk_open_file(&file, &o, stop, err);
    policy_file_free(&file);
    return top;
}

static int
check_reached(struct qcow2_disk *top, const struct chain_stop *stop,
              const char *base, struct qcow2_error *err)
{
    const char *name = disk_io(top)->name;

    if (stop->reached)
        return 0;
    if (base)
        return error_set(err, EINVAL, "%s: '%s' is not in its backing chain",
                         name, ESCAPED(base));
    return error_set(err, EINVAL, "%s: it has no backing file to commit to",
                     name);
}

/* The base as a disk of its own, for writing, on what stands below it. */
static struct qcow2_disk *
open_base(struct qcow2_disk *top, const struct chain_stop *above,
          const struct qcow2_options *options, struct qcow2_error *err)
{
    const struct io *top_io = disk_io(top);
    struct chain_stop loop = { .dev = top_io->dev, .ino = top_io->ino };
    struct qcow2_options o = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *base;

    /* What is only guessed to be raw is guarded: it must not come to look
     * like anything else. */
    o.format = above->guessed ? QCOW2_FORMAT_AUTO : above->format;
    o.probe_raw = true;
    o.no_lock = options->no_lock;
    o.allow = options->allow;
    o.nr_allow = options->nr_allow;
    o.no_discard = options->no_discard;
    o.cache = options->cache;
    o.backing_cache = options->backing_cache;
    o.nbd_timeout_ms = options->nbd_timeout_ms;
    o.driver = options->driver;
    o.failures = options->failures;
    o.warn = options->warn;
    o.warn_opaque = options->warn_opaque;
    o.debug = options->debug;
    o.debug_topics = options->debug_topics;
    o.debug_opaque = options->debug_opaque;
    base = disk_open_file(&above->file, &o, loop.ino ? &loop : NULL, err);
    if (loop.reached) {
        policy_file_free(&loop.file);
        qcow2_close(base, NULL);
        base = NULL;
        error_set(err, EIO, "the backing chain forms a loop");
    }
    if (!base)
        error_prefix(err, "base '%s'", ESCAPED(above->file.path));
    return base;
}

struct qcow2_job *
qcow2_commit(const char *path, const struct qcow2_options *options,
             const struct qcow2_commit_options *commit,
             struct qcow2_error *err)
{
    struct chain_stop stop = { .ino = 0 };
    struct qcow2_job *job = NULL;
    struct qcow2_disk *top, *base = NULL;

    top = open_top(path, options, commit, &stop, err);
    if (!top) {
        policy_file_free(&stop.file); /* it may fail after the base is found */
        return NULL;
    }
    if (check_reached(top, &stop, commit->base, err) == 0
        && disk_check_own_view(top, err) == 0)
        base = open_base(top, &stop, options, err);
    if (base)
        job = commit_new(top, base, !commit->keep && stop.depth == 1,
                         commit->snapshots, err);
    else
        qcow2_close(top, NULL);
    policy_file_free(&stop.file);
    return job;
}
