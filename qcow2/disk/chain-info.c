/* SPDX-License-Identifier: BSD-3-Clause */
/* chain-info.c: finds out what the layers of a disk are, and what each of them
 * contributes.
 */
#include <errno.h>
#include <stdio.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/open-disk.h"
#include "meta/map.h"

unsigned
qcow2_get_nr_layers(const struct qcow2_disk *disk)
{
    RDLOCK_SCOPE_IF(disk_request_lock(disk));

    return disk_chain(disk)->nr_layers;
}

/* With disk_request_lock held. */
static int
check_layer(const struct qcow2_disk *disk, unsigned layer,
            struct qcow2_error *err)
{
    unsigned nr_layers = disk_chain(disk)->nr_layers;

    if (layer < nr_layers)
        return 0;
    return error_set(err, EINVAL, "there is no layer %u: the disk has %u",
                     layer, nr_layers);
}

static void
describe_source(const struct source *s, struct qcow2_layer *out)
{
    struct backing_name below = source_backing(s);

    if (s->ops->format == QCOW2_FORMAT_QCOW2) {
        const struct header *h = &((const struct view *)s)->img->hdr;

        out->nr_snapshots = h->nr_snapshots;
        snprintf(out->data_file, sizeof out->data_file, "%s",
                 h->data_file ? h->data_file : "");
    }
    snprintf(out->backing, sizeof out->backing, "%s",
             below.file ? below.file : "");
    snprintf(out->backing_format, sizeof out->backing_format, "%s",
             below.format ? below.format : "");
}

int
qcow2_get_layer(const struct qcow2_disk *disk, unsigned layer,
                struct qcow2_layer *out, struct qcow2_error *err)
{
    struct qcow2_error error;
    struct source *s;
    RDLOCK_SCOPE_IF(disk->file->image ? disk_image_lock(disk)
                                      : disk_request_lock(disk));

    if (check_layer(disk, layer, err) == -1)
        return -1;
    s = disk_chain(disk)->layers[layer];
    *out = (struct qcow2_layer){
        .format = s->ops->format, .size = s->size,
    };
    snprintf(out->name, sizeof out->name, "%s", s->io->name);
    describe_source(s, out);
    if (io_get_size(s->io, &out->file_size, err) == -1)
        return -1;
    if (io_get_allocated(s->io, &out->allocated, &error) == 0)
        return 0;
    if (error.errnum == ENOTSUP) {
        out->allocated = 0;
        return 0;
    }
    if (err)
        *err = error;
    return -1;
}

/* What one layer alone has somewhere. */
static int
get_own(struct source *s, uint64_t guest_off, uint64_t *nr_bytes,
        bool *has, bool *data, struct qcow2_error *err)
{
    struct mapping m;
    bool hole = false;

    *has = *data = false;
    if (guest_off >= s->size)
        return 0;
    *nr_bytes = min_u64(*nr_bytes, s->size - guest_off);
    if (s->ops->lookup(s, guest_off, *nr_bytes, &m, err) == -1)
        return -1;
    *nr_bytes = min_u64(*nr_bytes, m.nr_bytes);
    if (m.kind == MAP_DATA && s->ops->has_file_holes
        && io_extent(s->io, m.host_off, nr_bytes, &hole, err) == -1)
        return -1;
    *has = m.kind != MAP_UNALLOCATED && !hole;
    *data = *has && m.kind != MAP_ZERO;
    return 0;
}

/* Does a layer above decide? *nr_bytes: how far that holds. */
static int
is_hidden(const struct source_chain *chain, unsigned layer,
          uint64_t guest_off, uint64_t *nr_bytes, bool *hidden,
          struct qcow2_error *err)
{
    const struct source_chain above = {
        .nr_layers = layer, .layers = chain->layers,
    };
    struct mapping m;
    unsigned depth;

    *hidden = layer > 0 && guest_off >= chain->layers[0]->size;
    if (layer == 0 || *hidden)
        return 0;
    if (source_chain_walk(&above, 0, guest_off, *nr_bytes, &m, &depth, err)
        == -1)
        return -1;
    *nr_bytes = min_u64(*nr_bytes, m.nr_bytes);
    *hidden = depth < layer;
    return 0;
}

/* Adds up a run from guest_off on, shortened to what is alike. */
static int
add_run(const struct source_chain *chain, unsigned layer,
        uint64_t guest_off, uint64_t *nr_bytes,
        struct qcow2_layer_usage *usage, struct qcow2_error *err)
{
    bool has, data, hidden, below = true, below_data;

    if (get_own(chain->layers[layer], guest_off, nr_bytes, &has, &data, err)
        == -1)
        return -1;
    if (!has)
        return 0;
    if (is_hidden(chain, layer, guest_off, nr_bytes, &hidden, err) == -1)
        return -1;
    if (layer + 1 < chain->nr_layers
        && get_own(chain->layers[layer + 1], guest_off, nr_bytes, &below,
                   &below_data, err) == -1)
        return -1;
    usage->own += *nr_bytes;
    if (!hidden)
        usage->visible += *nr_bytes;
    if (data && !below)
        usage->added += *nr_bytes;
    return 0;
}

/* Adds up one run from guest_off on; *nr_bytes is 0 at the layer's end. */
static int
add_next_run(struct qcow2_disk *disk, unsigned layer, uint64_t guest_off,
             uint64_t *nr_bytes, struct qcow2_layer_usage *usage,
             struct qcow2_error *err)
{
    struct image *img = disk->readonly ? NULL : disk->file->image;
    const struct source_chain *chain;
    struct range r;
    uint64_t size;
    int ret;
    RDLOCK_SCOPE_IF(disk_request_lock(disk));

    /* The disk may have been resized, or put on other layers, since the last
     * run. */
    if (check_layer(disk, layer, err) == -1)
        return -1;
    chain = disk_chain(disk);
    size = chain->layers[layer]->size;
    *nr_bytes = size - min_u64(size, guest_off);
    if (*nr_bytes == 0)
        return 0;
    if (!img)
        return add_run(chain, layer, guest_off, nr_bytes, usage, err);
    *nr_bytes = min_u64(*nr_bytes, map_piece(&img->active, guest_off));
    range_lock_shared(&img->ranges, &r, guest_off, guest_off + *nr_bytes);
    ret = add_run(chain, layer, guest_off, nr_bytes, usage, err);
    range_unlock(&img->ranges, &r);
    return ret;
}

int
qcow2_get_layer_usage(struct qcow2_disk *disk, unsigned layer,
                      struct qcow2_layer_usage *out,
                      struct qcow2_error *err)
{
    struct qcow2_layer_usage usage = { .own = 0 };
    uint64_t off = 0, n;

    do {
        if (add_next_run(disk, layer, off, &n, &usage, err) == -1)
            return -1;
        off += n;
    } while (n > 0);
    *out = usage;
    return 0;
}
