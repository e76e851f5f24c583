/* SPDX-License-Identifier: BSD-3-Clause */
/* compressed.c: reads compressed clusters.
 *
 * Parts of clusters come through the cache of decompressed ones, so that two
 * readers of one cluster decompress it once; but where nothing says that
 * more of a cluster will be wanted, only its start is decompressed, as far as
 * it is. Whole clusters in a row are decompressed in place, and read in one
 * I/O as long as they lie in that order.
 */
#include "meta/compressed.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "cache/decompress-pool.h"
#include "meta/image.h"
#include "meta/map.h"

enum {
    /* The most compressed data read at once, if a cluster has not more: what
     * stays in a CPU's cache, or from elsewhere than a file what makes up for
     * the way there. */
    MAX_RUN_BYTES = 512 << 10,
    MAX_REMOTE_RUN_BYTES = 2 << 20,
    /* Read over, rather than read around. */
    MAX_GAP_BYTES = 4096,
};

static int
read_failed(const struct image *img, struct qcow2_error *err)
{
    return error_prefix(err, "%s: compressed cluster", img->name);
}

/* errno is what compress_decode left. */
static int
decode_failed(struct image *img, uint64_t host_off, struct qcow2_error *err)
{
    if (errno != EIO)
        return error_set_errno(err, errno, "%s: compressed cluster",
                               img->name);
    /* Only the data of this cluster are lost, and no write can make that
     * worse: the image stays writable. */
    return error_set(err, EIO, "%s: the compressed cluster at host offset "
                     "0x%" PRIx64 " cannot be decompressed", img->name,
                     host_off);
}

static int
decode(struct image *img, struct workspace *w, const struct compressed_part *p,
       const void *in, void *out, struct qcow2_error *err)
{
    if (compress_decode(w->context, img->compression_type, in,
                        p->compressed_len, out, img->cluster_size) == -1)
        return decode_failed(img, p->host_off, err);
    return 0;
}

/* Whole clusters, whose compressed data lie in [host_off, host_end). */
static int
read_run(struct image *img, const struct compressed_part *parts, unsigned nr,
         uint64_t host_off, uint64_t host_end, struct qcow2_error *err)
{
    struct workspace *w = decompress_pool_take_space(
        img->decompress, host_end - host_off, 0, err);
    int r;

    if (!w)
        return -1;
    r = io_pread(img->io, w->in, host_end - host_off, host_off, err);
    if (r == -1)
        read_failed(img, err);
    for (unsigned i = 0; i < nr && r == 0; i++)
        r = decode(img, w, &parts[i], w->in + (parts[i].host_off - host_off),
                   parts[i].buf, err);
    decompress_pool_put_space(img->decompress, w);
    return r;
}

static bool
is_whole(const struct image *img, const struct compressed_part *p)
{
    return p->nr_bytes == img->cluster_size;
}

/* How many whole clusters there are at the start of parts, near to each
 * other on the host; *host_end is behind them. */
static unsigned
find_run(const struct image *img, const struct compressed_part *parts,
         unsigned nr, uint64_t *host_end)
{
    uint64_t start = parts[0].host_off;
    uint64_t most = img->io->is_local ? MAX_RUN_BYTES : MAX_REMOTE_RUN_BYTES;
    unsigned i;

    *host_end = start;
    for (i = 0; i < nr; i++) {
        uint64_t end = parts[i].host_off + parts[i].compressed_len;

        if (!is_whole(img, &parts[i])
            || parts[i].host_off < start
            || parts[i].host_off > *host_end + MAX_GAP_BYTES
            || (i > 0 && end - start > most))
            break;
        *host_end = max_u64(*host_end, end);
    }
    return i;
}

/* One cluster to load into the cache. */
struct load {
    struct image *img;
    const struct compressed_part *part;
};

static int
load_cluster(void *opaque, uint64_t host_off, void *data, uint32_t size,
             struct qcow2_error *err)
{
    const struct load *l = opaque;
    struct compressed_part p = *l->part;

    (void)size;
    p.buf = data;
    return read_run(l->img, &p, 1, host_off, host_off + p.compressed_len,
                    err);
}

static struct block *
get_cluster(struct image *img, const struct compressed_part *p,
            struct qcow2_error *err)
{
    struct load l = { img, p };

    return cache_get(decompress_pool_cache(img->decompress), img, p->host_off,
                     img->cluster_size, load_cluster, &l, err);
}

/* While another thread decompresses the cluster that this one waits for:
 * does the same for the next one. Only where nobody writes, as no lock is
 * held on it.
 */
static void
load_next(struct view *v, const struct compressed_part *p)
{
    struct image *img = v->img;
    struct cache *cache = decompress_pool_cache(img->decompress);
    uint64_t guest_off = p->guest_off + img->cluster_size;
    struct compressed_part next;
    struct mapping m;

    if (!img->readonly || guest_off >= v->src.size
        || !cache_has(cache, img, p->host_off)
        || map_lookup(v, guest_off, 1, &m, NULL) == -1
        || m.kind != MAP_COMPRESSED || cache_has(cache, img, m.host_off))
        return;
    next = compressed_part_of(&m, guest_off, NULL);
    cache_put(get_cluster(img, &next, NULL));
}

/* Decompresses no more than is wanted. */
static int
read_start(struct image *img, const struct compressed_part *p,
           struct qcow2_error *err)
{
    struct workspace *w = decompress_pool_take_space(
        img->decompress, p->compressed_len, img->cluster_size, err);
    int r;

    if (!w)
        return -1;
    r = io_pread(img->io, w->in, p->compressed_len, p->host_off, err);
    if (r == -1)
        read_failed(img, err);
    else if (compress_decode_start(w->context, img->compression_type,
                                   w->in, p->compressed_len, w->out,
                                   img->cluster_size, p->skip + p->nr_bytes)
             == -1)
        r = decode_failed(img, p->host_off, err);
    else
        memcpy(p->buf, w->out + p->skip, p->nr_bytes);
    decompress_pool_put_space(img->decompress, w);
    return r;
}

static int
read_part(struct view *v, const struct compressed_part *p,
          struct qcow2_error *err)
{
    struct image *img = v->img;
    enum cluster_use use = decompress_pool_note(
        img->decompress, v, p->guest_off >> img->cluster_bits);
    struct block *b =
        cache_peek(decompress_pool_cache(img->decompress), img, p->host_off);

    if (!b && use == CLUSTER_FIRST
        && compress_can_stop_early(img->compression_type,
                                   img->cluster_size, p->skip + p->nr_bytes))
        return read_start(img, p, err);
    if (!b && use == CLUSTER_NEXT)
        load_next(v, p);
    if (!b)
        b = get_cluster(img, p, err);
    if (!b)
        return -1;
    memcpy(p->buf, b->data + p->skip, p->nr_bytes);
    cache_put(b);
    return 0;
}

/* Several writers at work at once leave clusters in any order, so that no
 * run is found. A row of them is read by somebody in sequence all the same,
 * who will not come back: only what is there is taken from the cache.
 */
static bool
bypasses_cache(const struct image *img, const struct compressed_part *parts,
               unsigned nr, unsigned i)
{
    return is_whole(img, &parts[i])
           && ((i > 0 && is_whole(img, &parts[i - 1]))
               || (i + 1 < nr && is_whole(img, &parts[i + 1])))
           && !cache_has(decompress_pool_cache(img->decompress), img,
                         parts[i].host_off);
}

int
compressed_read(struct source *s, const struct compressed_part *parts,
                unsigned nr, struct qcow2_error *err)
{
    struct view *v = (struct view *)s;

    for (unsigned i = 0; i < nr;) {
        uint64_t host_end;
        unsigned n = find_run(v->img, parts + i, nr - i, &host_end);

        if ((n > 1 || bypasses_cache(v->img, parts, nr, i)
                 ? read_run(v->img, parts + i, n, parts[i].host_off,
                            host_end, err)
                 : read_part(v, &parts[i], err)) == -1)
            return -1;
        i += max_u64(n, 1);
    }
    return 0;
}
