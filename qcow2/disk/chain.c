/* SPDX-License-Identifier: BSD-3-Clause */
/* chain.c: walks down backing chains and opens them; see chain.h. */
#include "disk/chain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/escape.h"
#include "disk/open-data.h"
#include "format/backing-json.h"
#include "format/first-read.h"
#include "format/probe.h"
#include "layer/resolve.h"
#include "storage/io-nbd.h"
#include "storage/io-open.h"
#include "storage/path-policy.h"

enum {
    /* Chains this deep get a resolver: a walk costs more than it from here
     * on. Larger granules than these save little memory. */
    RESOLVER_MIN_LAYERS = 4,
    RESOLVER_GRANULE_BITS = 16,
    /* A chain may take so many times as long as a connection to a server,
     * before another connection is begun for it: an image that comes from a
     * slow server could name thousands of others. */
    TIMEOUTS_A_CHAIN = 4,
};

/* A walk down a chain, to find the layers below `above`. */
struct walk {
    struct qcow2_pool *pool;
    const struct qcow2_options *options;
    const char *disk_path;
    const struct policy_place *disk_place;
    struct policy_allow *allow;
    const struct backing_name *disk_says;
    uint64_t dev, ino;          /* of the disk itself; 0: has none */
    struct chain_stop *stop;    /* or NULL */
    struct layer *top;
    struct layer *above;        /* NULL: the disk itself */
    unsigned depth;             /* layers so far */
    uint64_t started_ms;
};

static const char *
path_above(const struct walk *w)
{
    return w->above ? w->above->path : w->disk_path;
}

/* What the file is that comes next. */
struct naming {
    const char *name;           /* NULL: there is none; or plain */
    char plain[MAX_BACKING_NAME_BYTES + 1]; /* what a json: name says */
    bool trusted;               /* the user said the name */
    enum qcow2_format format;   /* AUTO: nobody said it */
    bool format_trusted;        /* said, and of the file that is named */
    bool can_be_said;           /* the image that names it has a place for
                                 * the format */
};

int
chain_declared_format(const char *declared, enum qcow2_format *format,
                      struct qcow2_error *err)
{
    if (!declared || qcow2_format_find(declared, format))
        return 0;
    return error_set(err, ENOTSUP, "its declared format '%s' is not "
                     "supported, only qcow2, qcow and raw are",
                     ESCAPED(declared));
}

static int
find_format(const struct walk *w, const char *declared, struct naming *n,
            struct qcow2_error *err)
{
    if (!w->above && w->options->backing_format != QCOW2_FORMAT_AUTO) {
        n->format = w->options->backing_format;
        n->format_trusted = true;
        return 0;
    }
    if (!declared)
        return 0;
    /* What an image declares is about the file that it names itself. */
    n->format_trusted = !n->trusted;
    return chain_declared_format(declared, &n->format, err);
}

/* Takes a name of "json:" that says a plain path for that path, and what it
 * declares for the declaration.
 */
static int
take_json(struct naming *n, const char **declared, struct qcow2_error *err)
{
    enum qcow2_format format;
    const char *says;

    if (n->trusted || !backing_json_parse(n->name, n->plain, &format))
        return 0;
    n->name = n->plain;
    says = qcow2_format_name(format);
    if (*declared && strcmp(*declared, says) != 0)
        return error_set(err, EIO, "its json: name says %s, but its declared "
                         "format is '%s'", says, ESCAPED(*declared));
    *declared = says;
    return 0;
}

/* 1: *n is the backing file of w->above; 0: it has none. */
static int
find_next(const struct walk *w, struct naming *n, struct qcow2_error *err)
{
    struct backing_name says = w->above ? source_backing(w->above->source)
                                        : *w->disk_says;

    *n = (struct naming){ .format = QCOW2_FORMAT_AUTO };
    if (!w->above && w->options->backing_none)
        return 0;
    n->name = says.file;
    n->can_be_said = says.can_declare;
    if (!w->above && w->options->backing) {
        n->name = w->options->backing;
        n->trusted = true;
    }
    if (!n->name)
        return 0;
    if (take_json(n, &says.format, err) == -1)
        return -1;
    return find_format(w, says.format, n, err) == 0 ? 1 : -1;
}

/* A guest may have written what the first bytes look like: they can object
 * to raw, but never decide for another format.
 */
static int
settle_format(const struct walk *w, const struct naming *n, struct io *io,
              enum qcow2_format *format, struct qcow2_error *err)
{
    const char *looks_like;

    *format = n->format;
    if (n->format_trusted || (n->format != QCOW2_FORMAT_AUTO
                              && n->format != QCOW2_FORMAT_RAW))
        return 0;
    *format = QCOW2_FORMAT_RAW;
    if (probe_io(io, &looks_like, err) == -1)
        return -1;
    if (!looks_like)
        return 0;
    error_set(err, EPERM, "refused: it looks like %s, but nothing says that "
              "this is its format, and a guest with it as raw disk could "
              "have written that%s", looks_like,
              w->above && !n->can_be_said
              ? "; only a qcow2 image made of the one above it could say it"
              : "");
    if (!w->above)
        error_hint(err, QCOW2_HINT_BACKING_FORMAT);
    if (!n->trusted && n->can_be_said)
        error_hint(err, QCOW2_HINT_DECLARE_FORMAT);
    return -1;
}

static int
refuse_loop(struct qcow2_error *err)
{
    return error_set(err, EIO, "it is already part of the backing chain, "
                     "which forms a loop");
}

/* A file that is already part of the chain: it would never end. */
static int
check_loop(const struct walk *w, const struct policy_file *file,
           struct qcow2_error *err)
{
    bool loop = w->ino != 0 && w->dev == file->dev && w->ino == file->ino;

    for (struct layer *l = w->above ? w->top : NULL; l && !loop;
         l = l == w->above ? NULL : l->backing)
        loop = pool_is_file(l, file);
    return loop ? refuse_loop(err) : 0;
}

static uint64_t
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * UINT64_C(1000) + t.tv_nsec / 1000000;
}

static struct io *
open_file(const struct walk *w, const struct policy_file *file,
          enum io_lock lock, struct qcow2_error *err)
{
    unsigned timeout_ms = w->options->nbd_timeout_ms;
    uint64_t limit_ms = io_nbd_timeout(timeout_ms) * TIMEOUTS_A_CHAIN;

    const struct io_open_options o = {
        .readonly = true, .lock = lock, .nbd_timeout_ms = timeout_ms,
        .driver = w->options->driver,
        .direct = io_cache_is_direct(w->options->backing_cache),
    };

    if (!policy_is_remote(file) || now_ms() - w->started_ms <= limit_ms)
        return io_open(file, &o, err);
    error_set(err, ETIMEDOUT, "to open the layers above it took longer than "
              "%g seconds", limit_ms / 1000.0);
    return NULL;
}

/* The layer of an NBD export that another disk uses already, so that no
 * connection needs to be made; NULL: there is none. What looks like another
 * format is left to the format's own code.
 */
static struct layer *
find_export(const struct walk *w, const struct naming *n,
            const struct policy_file *file, bool locked)
{
    enum qcow2_format format = n->format;
    struct layer *l;

    if (!policy_is_remote(file) || format == QCOW2_FORMAT_AUTO)
        return NULL;
    l = pool_find(w->pool, file, format, locked);
    if (l && settle_format(w, n, l->source->io, &format, NULL) == -1) {
        pool_put(w->pool, l);
        l = NULL;
    }
    return l;
}

static struct data_opening
data_opening(const struct walk *w, const struct policy_place *place)
{
    bool locked = !w->options->no_lock && !w->options->no_lock_backing;

    return (struct data_opening){
        .place = place, .allow = w->allow, .options = w->options,
        .readonly = true, .lock = locked ? IO_LOCK_READ : IO_LOCK_NONE,
        .direct = io_cache_is_direct(w->options->backing_cache),
    };
}

struct data_opener {
    struct layer_opener opener; /* first */
    const struct walk *walk;
};

static int
open_data(const struct layer_opener *o, struct source *source,
          const struct policy_place *place, struct qcow2_error *err)
{
    const struct walk *w = ((const struct data_opener *)o)->walk;
    const struct data_opening how = data_opening(w, place);

    return source->ops->format == QCOW2_FORMAT_QCOW2
               ? data_open(((struct view *)source)->img, &how, err) : 0;
}

static struct layer *
open_layer(const struct walk *w, const struct naming *n,
           const struct policy_file *file, struct qcow2_error *err)
{
    bool locked = !w->options->no_lock && !w->options->no_lock_backing;
    struct layer *l = find_export(w, n, file, locked);
    const struct data_opener rest = { { open_data }, w };
    enum qcow2_format format;
    struct io *io;

    if (l)
        return l;
    io = open_file(w, file, locked ? IO_LOCK_READ : IO_LOCK_NONE, err);
    if (!io)
        return NULL;
    if (first_read_prepare(io, w->options->failures, !locked, err) == -1
        || settle_format(w, n, io, &format, err) == -1) {
        io_close(io);
        return NULL;
    }
    return pool_get(w->pool, io, file, format, locked, &rest.opener, err);
}

static struct layer *
open_and_link(const struct walk *w, const struct naming *n,
              const struct policy_file *file, struct layer **link,
              struct qcow2_error *err)
{
    struct layer *l = open_layer(w, n, file, err);

    if (!l)
        return NULL;
    l = pool_link(w->pool, w->above, link, l);
    if (!l)
        refuse_loop(err);
    return l;
}

/* Stop opening the chain here? */
static bool
is_stop(const struct chain_stop *stop, const struct policy_file *file)
{
    return stop && (stop->ino == 0 || (stop->dev == file->dev
                                       && stop->ino == file->ino));
}

/* Fills what was found out. Takes over file. */
static int
stop_at(const struct walk *w, const struct naming *n, struct policy_file *file,
        struct qcow2_error *err)
{
    struct chain_stop *stop = w->stop;
    struct io *io = open_file(w, file, IO_LOCK_NONE, err);

    if (!io
        || first_read_prepare(io, w->options->failures, true, err) == -1
        || settle_format(w, n, io, &stop->format, err) == -1) {
        io_close(io);
        policy_file_free(file);
        return -1;
    }
    io_close(io);
    stop->reached = true;
    stop->depth = w->depth + 1;
    stop->guessed = stop->format == QCOW2_FORMAT_RAW && !n->format_trusted;
    stop->file = *file;
    return 0;
}

/* Only the file directly below the disk can be replaced by another. */
static int
find_file(struct walk *w, const struct naming *n, struct policy_file *file,
          struct qcow2_error *err)
{
    if (n->trusted)
        return policy_trust(n->name, file, err);
    if (w->above)
        return policy_resolve(&w->above->place, n->name, w->allow, file,
                              err);
    if (w->options->trust_backing)
        return policy_trust_name(w->disk_place, n->name, file, err);
    if (policy_resolve(w->disk_place, n->name, w->allow, file, err) == 0)
        return 0;
    return err && err->errnum == EPERM ? error_hint(err, QCOW2_HINT_BACKING)
                                       : -1;
}

/* Steps to the layer below w->above, opening it if need be. A layer that is
 * shared brings those below it along; but what another disk may open, this
 * one may not necessarily, so the path policy decides on every name again.
 * 1: done; 0: it is where to stop.
 */
static int
step(struct walk *w, const struct naming *n, struct qcow2_error *err)
{
    struct layer **link = w->above ? &w->above->backing : &w->top, *next;
    struct data_opening how;
    struct policy_file file;
    int r;

    if (w->depth == MAX_CHAIN_DEPTH)
        return error_set(err, EIO, "the backing chain has more than %d "
                         "layers", MAX_CHAIN_DEPTH);
    if (find_file(w, n, &file, err) == -1)
        return -1;
    if (is_stop(w->stop, &file))
        return stop_at(w, n, &file, err);
    r = check_loop(w, &file, err);
    next = r == 0 ? pool_follow(w->pool, link) : NULL;
    if (r == 0 && !next) {
        next = open_and_link(w, n, &file, link, err);
        r = next ? 0 : -1;
    }
    if (r == 0 && !pool_is_file(next, &file))
        r = error_set(err, EIO, "it was replaced while the image above it is "
                      "in use");
    if (r == 0 && next->source->data->io != next->source->io) {
        how = data_opening(w, &next->place);
        r = data_check_allowed(((struct view *)next->source)->img, &how, err);
    }
    policy_file_free(&file);
    if (r == -1)
        return -1;
    w->above = next;
    w->depth++;
    return 1;
}

/* Walks to the end of the chain. */
static int
walk_down(struct walk *w, struct qcow2_error *err)
{
    struct naming n;
    int r;

    do {
        r = find_next(w, &n, err);
        if (r == 1)
            r = step(w, &n, err);
    } while (r == 1);
    if (r == -1) {
        error_prefix(err, "backing file '%s' of '%s'", ESCAPED(n.name),
                     ESCAPED(path_above(w)));
        pool_put(w->pool, w->top);
    }
    return r;
}

/* Where the disk itself is, if that is needed and not known yet. */
static int
find_place(const struct walk *w, struct policy_place *place,
           struct qcow2_error *err)
{
    *place = (struct policy_place){ .kind = POLICY_UNNAMED };
    if (w->disk_place || !w->disk_says->file || w->options->backing
        || w->options->backing_none)
        return 0;
    if (w->options->fd < 0)
        return policy_place_of(w->disk_path, place, err);
    policy_place_of_fd(w->options->fd, place);
    return 0;
}

int
chain_open(struct qcow2_pool *pool, const char *path,
           const struct policy_place *place, const struct backing_name *says,
           const struct qcow2_options *options, uint64_t dev, uint64_t ino,
           struct chain_stop *stop, struct layer **top,
           struct qcow2_error *err)
{
    struct policy_allow allow;
    struct walk w = {
        .pool = pool, .options = options, .disk_path = path,
        .disk_place = place, .disk_says = says, .dev = dev, .ino = ino,
        .stop = stop, .allow = &allow, .started_ms = now_ms(),
    };
    struct policy_place found;
    int r;

    *top = NULL;
    if (policy_allow_init(&allow, options->allow, options->nr_allow, err)
        == -1 || find_place(&w, &found, err) == -1)
        return -1;
    if (!place)
        w.disk_place = &found;
    r = walk_down(&w, err);
    policy_place_free(&found);
    policy_allow_free(&allow);
    *top = r == 0 ? w.top : NULL;
    return r;
}

/* The smallest unit among layers, as far as granules go. */
static unsigned
granule_bits(const struct layer *below)
{
    unsigned bits = RESOLVER_GRANULE_BITS;

    for (const struct layer *l = below; l; l = l->backing)
        if (l->source->unit_bits != 0)
            bits = min_u64(bits, l->source->unit_bits);
    return bits;
}

/* A chain and what it uses. */
struct pooled_chain {
    struct source_chain chain;  /* first */
    struct qcow2_pool *pool;
    struct layer *below;
};

static void
free_pooled(struct source_chain *chain)
{
    struct pooled_chain *p = (struct pooled_chain *)chain;

    pool_put(p->pool, p->below);
    free(p);
}

static struct source **
list_layers(struct source *top, const struct layer *below, unsigned *nr)
{
    struct source **layers;
    unsigned n = 1;

    for (const struct layer *l = below; l; l = l->backing)
        n++;
    layers = calloc(n, sizeof *layers);
    *nr = n;
    if (!layers)
        return NULL;
    layers[0] = top;
    n = 1;
    for (const struct layer *l = below; l; l = l->backing)
        layers[n++] = l->source;
    return layers;
}

struct source_chain *
chain_new(struct qcow2_pool *pool, struct source *top, struct layer *below,
          struct qcow2_error *err)
{
    struct pooled_chain *p = calloc(1, sizeof *p);
    struct source_chain *chain;

    if (!p) {
        pool_put(pool, below);
        error_nomem(err);
        return NULL;
    }
    p->pool = pool;
    p->below = below;
    chain = &p->chain;
    chain->free = free_pooled;
    chain->nr_refs = 1;
    chain->layers = list_layers(top, below, &chain->nr_layers);
    if (!chain->layers) {
        source_chain_put(chain);
        error_nomem(err);
        return NULL;
    }
    if (data_check_chain(chain, err) == -1) {
        source_chain_put(chain);
        return NULL;
    }
    if (chain->nr_layers < RESOLVER_MIN_LAYERS)
        return chain;
    chain->resolver = resolver_new(pool->meta, granule_bits(below), err);
    if (!chain->resolver) {
        source_chain_put(chain);
        return NULL;
    }
    return chain;
}

struct source_chain *
chain_new_beside(const struct source_chain *chain, struct source *top,
                 struct qcow2_error *err)
{
    const struct pooled_chain *p = (const struct pooled_chain *)chain;

    if (chain->free != free_pooled)
        return source_chain_new(top, err);
    return chain_new(p->pool, top, pool_use(p->pool, p->below), err);
}
