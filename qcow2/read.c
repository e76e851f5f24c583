/* SPDX-License-Identifier: BSD-3-Clause */
/* read.c: reads guest bytes through a chain. */
#include "request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "cleanup.h"
#include "error.h"

/* One compressed cluster to load into the cache of decompressed ones. */
struct compressed {
    struct image *img;
    uint32_t compressed_len;
};

static int
load_cluster(void *opaque, uint64_t host_off, void *data, uint32_t size,
             struct qcow2_error *err)
{
    const struct compressed *c = opaque;
    struct image *img = c->img;
    CLEANUP_FREE void *in = malloc(c->compressed_len);

    if (!in)
        return error_nomem(err);
    if (io_pread(img->io, in, c->compressed_len, host_off, err) == -1)
        return error_prefix(err, "%s: compressed cluster", img->name);
    if (compress_decode(img->hdr.compression_type, in, c->compressed_len,
                        data, size) == -1)
        return image_damaged(img, err, "the compressed cluster at 0x%llx "
                             "cannot be decompressed",
                             (unsigned long long)host_off);
    return 0;
}

int
read_compressed(struct source *s, const struct mapping *m, uint32_t from,
                void *buf, size_t nr_bytes, struct qcow2_error *err)
{
    struct image *img = ((struct view *)s)->img;
    struct compressed c = { img, m->compressed_len };
    struct block *b = cache_get(img->clusters, img, m->host_off,
                                img->cluster_size, load_cluster, &c, err);

    if (!b)
        return -1;
    memcpy(buf, b->data + from, nr_bytes);
    cache_put(b);
    return 0;
}

static int
read_mapping(const struct mapping *m, void *buf, struct qcow2_error *err)
{
    switch (m->kind) {
    case MAP_UNALLOCATED:
    case MAP_ZERO:
        memset(buf, 0, m->nr_bytes);
        return 0;
    case MAP_DATA:
        return io_pread(m->source->io, buf, m->nr_bytes, m->host_off, err);
    case MAP_COMPRESSED:
        return m->source->ops->read_compressed(m->source, m, m->skip, buf,
                                               m->nr_bytes, err);
    }
    __builtin_unreachable();
}

int
read_chain(const struct source_chain *chain, unsigned first, void *buf,
           size_t nr_bytes, uint64_t guest_off, struct qcow2_error *err)
{
    while (nr_bytes > 0) {
        struct mapping m;

        if (source_chain_lookup(chain, first, guest_off, nr_bytes, &m, NULL,
                                err) == -1
            || read_mapping(&m, buf, err) == -1)
            return -1;
        buf = (char *)buf + m.nr_bytes;
        nr_bytes -= m.nr_bytes;
        guest_off += m.nr_bytes;
    }
    return 0;
}

int
read_active(struct image *img, void *buf, size_t nr_bytes,
            uint64_t guest_off, struct qcow2_error *err)
{
    while (nr_bytes > 0) {
        size_t piece = min_u64(nr_bytes,
                               map_piece(&img->active, guest_off));
        struct range r;
        int ret;

        range_lock_shared(&img->ranges, &r, guest_off, guest_off + piece);
        ret = read_chain(&img->chain, 0, buf, piece, guest_off, err);
        range_unlock(&img->ranges, &r);
        if (ret == -1)
            return -1;
        buf = (char *)buf + piece;
        nr_bytes -= piece;
        guest_off += piece;
    }
    return 0;
}
