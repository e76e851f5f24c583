/* SPDX-License-Identifier: BSD-3-Clause */
/* extents.c: tells what a range of a disk is, from tables alone. */
#include "request/request.h"

#include <errno.h>

#include "base/checked.h"
#include "base/error.h"

/* Extents that continue each other are told as one. */
struct walk {
    qcow2_extent_fn *fn;
    void *opaque;
    struct qcow2_extent pending; /* nr_bytes 0: none */
    bool stopped;
};

static bool
continues(const struct qcow2_extent *a, const struct qcow2_extent *b)
{
    return a->present == b->present && a->hole == b->hole
           && a->zero == b->zero && a->depth == b->depth
           && a->compressed == b->compressed
           && a->has_host_off == b->has_host_off
           && (!a->has_host_off
               || a->host_off + a->nr_bytes == b->host_off);
}

static void
tell_pending(struct walk *w)
{
    if (w->pending.nr_bytes > 0 && !w->stopped)
        w->stopped = w->fn(w->opaque, &w->pending) != 0;
    w->pending.nr_bytes = 0;
}

static void
tell(struct walk *w, const struct qcow2_extent *e)
{
    if (w->pending.nr_bytes > 0 && continues(&w->pending, e)) {
        w->pending.nr_bytes += e->nr_bytes;
        return;
    }
    tell_pending(w);
    w->pending = *e;
}

int
extents_get(const struct source_chain *chain, uint64_t guest_off,
            uint64_t nr_bytes, struct qcow2_extent *e,
            struct qcow2_error *err)
{
    struct mapping m;
    unsigned depth;

    if (source_chain_lookup(chain, 0, guest_off, nr_bytes, &m, &depth, err)
        == -1)
        return -1;
    *e = (struct qcow2_extent){
        .guest_off = guest_off,
        .nr_bytes = m.nr_bytes,
        .present = m.source != NULL,
        .zero = m.kind == MAP_ZERO,
        .hole = m.kind == MAP_ZERO && !m.has_host,
        .depth = m.source ? depth : depth - 1,
        .compressed = m.kind == MAP_COMPRESSED,
        .has_host_off = m.has_host,
        .host_off = m.host_off,
    };
    if (m.source && m.kind == MAP_DATA && m.source->ops->has_file_holes) {
        if (io_extent(m.source->io, m.host_off, &e->nr_bytes, &e->hole, err)
            == -1)
            return -1;
        e->zero = e->hole;
    }
    return 0;
}

enum {
    /* Deeper chains would fill the cache with what is read ahead. */
    MAX_PRELOAD_LAYERS = 16,
    /* After so many bytes the caller probably asks for the next. */
    PRELOAD_AFTER_BYTES = 32 << 20,
};

/* Reads tables ahead of guest_off, and returns how far. */
static uint64_t
preload(const struct source_chain *chain, uint64_t guest_off, uint64_t to)
{
    uint64_t reach = guest_off + 1;

    if (chain->nr_layers > MAX_PRELOAD_LAYERS)
        return to;
    for (unsigned i = 0; i < chain->nr_layers; i++) {
        struct source *s = chain->layers[i];

        if (s->ops->preload && guest_off < s->size)
            reach = max_u64(reach, s->ops->preload(s, guest_off,
                                                   min_u64(to, s->size)));
    }
    return reach;
}

int
extents_walk(const struct source_chain *chain, struct image *img,
             uint64_t nr_bytes, uint64_t guest_off, qcow2_extent_fn *fn,
             void *opaque, struct qcow2_error *err)
{
    struct walk w = { .fn = fn, .opaque = opaque };
    uint64_t ahead = guest_off + PRELOAD_AFTER_BYTES;

    while (nr_bytes > 0 && !w.stopped) {
        uint64_t piece = img ? min_u64(nr_bytes,
                                       map_piece(&img->active, guest_off))
                             : nr_bytes;
        struct qcow2_extent e;
        struct range r;
        int ret;

        if (guest_off >= ahead)
            ahead = preload(chain, guest_off, guest_off + nr_bytes);
        if (img)
            range_lock_shared(&img->ranges, &r, guest_off,
                              guest_off + piece);
        ret = extents_get(chain, guest_off, piece, &e, err);
        if (img)
            range_unlock(&img->ranges, &r);
        if (ret == -1)
            return -1;
        tell(&w, &e);
        nr_bytes -= e.nr_bytes;
        guest_off += e.nr_bytes;
    }
    tell_pending(&w);
    return 0;
}
