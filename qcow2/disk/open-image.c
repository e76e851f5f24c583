/* SPDX-License-Identifier: BSD-3-Clause */
/* open-image.c: opens qcow2 images as disks and as layers. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "check/check.h"
#include "disk/format-driver.h"
#include "disk/open-data.h"
#include "disk/open-disk.h"
#include "format/probe.h"
#include "storage/path-policy.h"

/* What keeps an image from being written, or must be done before. */
static int
prepare_writable(struct image *img, struct qcow2_error *err)
{
    if (img->hdr.incompatible & INCOMPAT_CORRUPT) {
        error_set(err, EROFS, "%s: the image is marked corrupt and cannot be "
                  "written", img->name);
        return error_hint(err, QCOW2_HINT_READONLY | QCOW2_HINT_REPAIR);
    }
    if (img->hdr.incompatible & INCOMPAT_DIRTY) {
        IMAGE_DEBUG(img, QCOW2_DEBUG_OPEN, "%s: was not closed cleanly: "
                    "repairing refcounts", img->name);
        return check_repair_dirty(img, err);
    }
    return 0;
}

/* Do both names lead to one file? */
static bool
is_same_file(const struct policy_place *place, const char *named,
             const char *given)
{
    struct policy_file a = POLICY_FILE_INIT, b = POLICY_FILE_INIT;
    bool same = strcmp(named, given) == 0;

    if (place && policy_trust_name(place, named, &a, NULL) == 0) {
        same = policy_trust(given, &b, NULL) == 0 && policy_is_same(&a, &b);
        policy_file_free(&a);
        policy_file_free(&b);
    }
    return same;
}

/* Do the options give the image another backing file than it names, or read
 * that in another way than it says? */
static bool
is_overridden(const struct header *h, const struct policy_place *place,
              const struct qcow2_options *o)
{
    if (o->backing_none)
        return h->backing_file != NULL;
    if (o->backing && (!h->backing_file
                       || !is_same_file(place, h->backing_file, o->backing)))
        return true;
    return h->backing_file && h->backing_format
           && o->backing_format != QCOW2_FORMAT_AUTO
           && strcmp(h->backing_format,
                     qcow2_format_name(o->backing_format)) != 0;
}

/* Opens the layers below the image, and puts it on them. */
static int
open_chain(struct qcow2_pool *pool, struct image *img,
           const struct opening *o, uint64_t dev, uint64_t ino,
           struct qcow2_error *err)
{
    struct backing_name says = source_backing(&img->active.src);
    struct source_chain *chain;
    struct layer *below;

    if (chain_open(pool, o->path, o->place, &says, o->options, dev, ino,
                   o->stop, &below, err) == -1)
        return -1;
    chain = chain_new(pool, &img->active.src, below, err);
    if (!chain)
        return -1;
    source_chain_put(img->chain);
    img->chain = chain;
    return 0;
}

static int
open_disk(struct open_file *file, struct io *io, const struct opening *o,
          struct qcow2_error *err)
{
    const struct qcow2_options *options = o->options;
    uint64_t dev = io->dev, ino = io->ino;
    struct image *img = image_open(io, options->readonly, file->pool->meta,
                                   file->pool->decompress, err);

    if (!img)
        return -1;
    file->image = img;
    file->ops = &image_disk_ops;
    file->requests = &img->rwlock;
    img->overridden = is_overridden(&img->hdr, o->place, options);
    img->no_discard = options->no_discard;
    img->warn = options->warn;
    img->warn_opaque = options->warn_opaque;
    img->debug = options->debug;
    img->debug_topics = options->debug ? options->debug_topics : 0;
    img->debug_opaque = options->debug_opaque;
    if (data_open_disk(img, o->path, o->place, options, err) == -1
        || open_chain(file->pool, img, o, dev, ino, err) == -1)
        return -1;
    if (!options->readonly && prepare_writable(img, err) == -1)
        return -1;
    if (!options->readonly && img->hdr.bitmap_directory_size > 0)
        bitmap_observe(&file->bitmaps, img);
    IMAGE_DEBUG(img, QCOW2_DEBUG_OPEN, "%s: version %u, %" PRIu64 " bytes in "
                "clusters of %" PRIu32 ", %u layers, %" PRIu32 " snapshots",
                img->name, img->hdr.version, img->hdr.size,
                img->cluster_size, img->chain->nr_layers, img->snaptab.nr);
    return 0;
}

static struct source *
open_layer(struct qcow2_pool *pool, struct io *io, struct qcow2_error *err)
{
    struct image *img = image_open_layer(io, pool->meta, pool->decompress,
                                         err);

    return img ? &img->active.src : NULL;
}

static void
free_disk(struct open_file *file)
{
    image_free(file->image);
}

const struct format_driver image_driver = {
    .format = QCOW2_FORMAT_QCOW2,
    .open = open_disk,
    .open_layer = open_layer,
    .free = free_disk,
};
