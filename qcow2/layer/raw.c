/* SPDX-License-Identifier: BSD-3-Clause */
/* raw.c: a raw file as a layer: all of it is data at its own offset. */
#include "layer/source.h"

#include <stdlib.h>

#include "base/error.h"

struct raw {
    struct source src; /* first: it is a source */
    struct store store;
};

static int
raw_lookup(struct source *s, uint64_t guest_off, uint64_t nr_bytes,
           struct mapping *m, struct qcow2_error *err)
{
    (void)err;
    *m = (struct mapping){
        .kind = MAP_DATA,
        .nr_bytes = nr_bytes,
        .source = s,
        .host_off = guest_off,
        .has_host = true,
        .copied = true,
    };
    return 0;
}

static const struct source_ops raw_source_ops = {
    .lookup = raw_lookup,
    .free = raw_free,
    .has_file_holes = true,
    .format = QCOW2_FORMAT_RAW,
};

struct source *
raw_new(struct io *io, struct qcow2_error *err)
{
    struct raw *raw = calloc(1, sizeof *raw);
    struct source *s = raw ? &raw->src : NULL;

    if (!s) {
        io_close(io);
        error_nomem(err);
        return NULL;
    }
    s->ops = &raw_source_ops;
    s->io = io;
    raw->store = store_plain(io);
    s->data = &raw->store;
    if (io_get_size(io, &s->size, err) == -1) {
        raw_free(s);
        return NULL;
    }
    return s;
}

void
raw_free(struct source *s)
{
    if (!s)
        return;
    io_close(s->io);
    free(s); /* a struct raw */
}
