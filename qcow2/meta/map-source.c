/* SPDX-License-Identifier: BSD-3-Clause */
/* map-source.c: a view as a layer of a chain; see map.h. */
#include "layer/compressed.h"
#include "meta/l2-cache.h"
#include "meta/map.h"

static int
lookup(struct source *s, uint64_t guest_off, uint64_t nr_bytes,
       struct mapping *m, struct qcow2_error *err)
{
    return map_lookup((struct view *)s, guest_off, nr_bytes, m, err);
}

static void
forget(struct source *s, uint64_t from, uint64_t to)
{
    l2_cache_forget((struct view *)s, from, to);
}

static uint64_t
preload(struct source *s, uint64_t from, uint64_t to)
{
    return l2_cache_preload((struct view *)s, from, to);
}

static int
read_compressed(struct source *s, const struct compressed_part *parts,
                unsigned nr, struct qcow2_error *err)
{
    struct image *img = ((struct view *)s)->img;
    const struct compressed_file f = {
        .source = s,
        .owner = img,
        .pool = img->decompress,
        .type = img->compression_type,
        .cluster_size = img->cluster_size,
        .is_constant = img->readonly,
    };

    return compressed_read(&f, parts, nr, err);
}

static struct backing_name
backing(const struct source *s)
{
    const struct header *h = &((const struct view *)s)->img->hdr;

    return (struct backing_name){ h->backing_file, h->backing_format,
                                  true };
}

static void
free_layer(struct source *s)
{
    image_free(((struct view *)s)->img);
}

const struct source_ops map_source_ops = {
    .lookup = lookup,
    .preload = preload,
    .forget = forget,
    .read_compressed = read_compressed,
    .backing = backing,
    .free = free_layer,
    .format = QCOW2_FORMAT_QCOW2,
};
