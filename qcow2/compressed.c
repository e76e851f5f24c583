/* SPDX-License-Identifier: BSD-3-Clause */
/* compressed.c: reads compressed clusters, through the cache of decompressed
 * ones: two readers of one cluster decompress it once.
 */
#include "compressed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "compress.h"
#include "error.h"
#include "image.h"

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
                        data, size) == -1) {
        if (errno != EIO)
            return error_set_errno(err, errno, "%s: compressed cluster",
                                   img->name);
        return image_damaged(img, err, "the compressed cluster at 0x%llx "
                             "cannot be decompressed",
                             (unsigned long long)host_off);
    }
    return 0;
}

int
compressed_read(struct source *s, const struct mapping *m, uint32_t from,
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
