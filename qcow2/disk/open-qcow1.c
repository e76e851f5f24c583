/* SPDX-License-Identifier: BSD-3-Clause */
/* open-qcow1.c: opens images of version 1 as disks, which are never written,
 * and as layers.
 */
#include <errno.h>

#include "base/error.h"
#include "disk/format-driver.h"
#include "disk/open-disk.h"
#include "layer/qcow1.h"

static int
finish(struct open_file *file, struct qcow2_error *err)
{
    (void)file;
    (void)err;
    return 0;
}

static bool
can_fast_zero(const struct open_file *file)
{
    (void)file;
    return false;
}

static uint32_t
cluster_size(const struct open_file *file)
{
    return UINT32_C(1) << file->chain->layers[0]->unit_bits;
}

/* All others change something. */
static const struct disk_ops qcow1_disk_ops = {
    .format = QCOW2_FORMAT_QCOW,
    .finish = finish,
    .can_fast_zero = can_fast_zero,
    .cluster_size = cluster_size,
    .subcluster_size = cluster_size,
};

static struct source *
open_layer(struct qcow2_pool *pool, struct io *io, struct qcow2_error *err)
{
    return qcow1_open(io, pool->meta, pool->decompress, err);
}

/* The layer on those below it; NULL: the layer is still the caller's. */
static struct source_chain *
open_chain(struct qcow2_pool *pool, struct source *s,
           const struct opening *o, struct qcow2_error *err)
{
    struct backing_name says = source_backing(s);
    struct layer *below;

    if (chain_open(pool, o->path, o->place, &says, o->options, s->io->dev,
                   s->io->ino, o->stop, &below, err) == -1)
        return NULL;
    return chain_new(pool, s, below, err);
}

static int
open_disk(struct open_file *file, struct io *io, const struct opening *o,
          struct qcow2_error *err)
{
    struct source *s;

    if (!o->options->readonly) {
        error_set(err, EROFS, "%s: an image of the format qcow (version 1) is "
                  "read, but not written", io->name);
        io_close(io);
        return error_hint(err, QCOW2_HINT_READONLY | QCOW2_HINT_CONVERT);
    }
    s = open_layer(file->pool, io, err);
    if (!s)
        return -1;
    file->ops = &qcow1_disk_ops;
    file->chain = open_chain(file->pool, s, o, err);
    if (file->chain)
        return 0;
    s->ops->free(s);
    return -1;
}

static void
free_disk(struct open_file *file)
{
    struct source *s = file->chain ? file->chain->layers[0] : NULL;

    source_chain_put(file->chain);
    if (s)
        s->ops->free(s);
}

const struct format_driver qcow1_driver = {
    .format = QCOW2_FORMAT_QCOW,
    .open = open_disk,
    .open_layer = open_layer,
    .free = free_disk,
};
