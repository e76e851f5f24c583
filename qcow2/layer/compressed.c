/* SPDX-License-Identifier: BSD-3-Clause */
/* compressed.c: reads compressed clusters; see compressed.h.
 *
 * Parts of clusters come through the cache of decompressed ones, so that two
 * readers of one cluster decompress it once; but where nothing says that
 * more of a cluster will be wanted, only its start is decompressed, as far as
 * it is. Whole clusters in a row are decompressed in place, and read in one
 * I/O as long as they lie in that order.
 */
#include "layer/compressed.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

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
read_failed(const struct compressed_file *f, struct qcow2_error *err)
{
    return error_prefix(err, "%s: compressed cluster", f->source->io->name);
}

/* errno is what compress_decode left. */
static int
decode_failed(const struct compressed_file *f, uint64_t host_off,
              struct qcow2_error *err)
{
    if (errno != EIO)
        return error_set_errno(err, errno, "%s: compressed cluster",
                               f->source->io->name);
    /* Only the data of this cluster are lost, and no write can make that
     * worse: the image stays writable. */
    return error_set(err, EIO, "%s: the compressed cluster at host offset "
                     "0x%" PRIx64 " cannot be decompressed",
                     f->source->io->name, host_off);
}

static int
decode(const struct compressed_file *f, struct workspace *w,
       const struct compressed_part *p, const void *in, void *out,
       struct qcow2_error *err)
{
    if (compress_decode(w->context, f->type, in,
                        p->compressed_len, out, f->cluster_size) == -1)
        return decode_failed(f, p->host_off, err);
    return 0;
}

/* Whole clusters, whose compressed data lie in [host_off, host_end). */
static int
read_run(const struct compressed_file *f, const struct compressed_part *parts,
         unsigned nr, uint64_t host_off, uint64_t host_end,
         struct qcow2_error *err)
{
    struct workspace *w = decompress_pool_take_space(
        f->pool, host_end - host_off, 0, err);
    int r;

    if (!w)
        return -1;
    r = io_pread(f->source->io, w->in, host_end - host_off, host_off, err);
    if (r == -1)
        read_failed(f, err);
    for (unsigned i = 0; i < nr && r == 0; i++)
        r = decode(f, w, &parts[i], w->in + (parts[i].host_off - host_off),
                   parts[i].buf, err);
    decompress_pool_put_space(f->pool, w);
    return r;
}

static bool
is_whole(const struct compressed_file *f, const struct compressed_part *p)
{
    return p->nr_bytes == f->cluster_size;
}

/* How many whole clusters there are at the start of parts, near to each
 * other on the host; *host_end is behind them. */
static unsigned
find_run(const struct compressed_file *f,
         const struct compressed_part *parts, unsigned nr,
         uint64_t *host_end)
{
    uint64_t start = parts[0].host_off;
    uint64_t most = f->source->io->is_local ? MAX_RUN_BYTES
                                            : MAX_REMOTE_RUN_BYTES;
    unsigned i;

    *host_end = start;
    for (i = 0; i < nr; i++) {
        uint64_t end = parts[i].host_off + parts[i].compressed_len;

        if (!is_whole(f, &parts[i])
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
    const struct compressed_file *file;
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
    return read_run(l->file, &p, 1, host_off, host_off + p.compressed_len,
                    err);
}

static struct block *
get_cluster(const struct compressed_file *f, const struct compressed_part *p,
            struct qcow2_error *err)
{
    struct load l = { f, p };

    return cache_get(decompress_pool_cache(f->pool), f->owner, p->host_off,
                     f->cluster_size, load_cluster, &l, err);
}

/* While another thread decompresses the cluster that this one waits for:
 * does the same for the next one. Only where nobody writes, as no lock is
 * held on it.
 */
static void
load_next(const struct compressed_file *f, const struct compressed_part *p)
{
    struct cache *cache = decompress_pool_cache(f->pool);
    struct source *s = f->source;
    uint64_t guest_off = p->guest_off + f->cluster_size;
    struct compressed_part next;
    struct mapping m;

    if (!f->is_constant || guest_off >= s->size
        || !cache_has(cache, f->owner, p->host_off)
        || s->ops->lookup(s, guest_off, 1, &m, NULL) == -1
        || m.kind != MAP_COMPRESSED || cache_has(cache, f->owner, m.host_off))
        return;
    next = compressed_part_of(&m, guest_off, NULL);
    cache_put(get_cluster(f, &next, NULL));
}

/* Decompresses no more than is wanted. */
static int
read_start(const struct compressed_file *f, const struct compressed_part *p,
           struct qcow2_error *err)
{
    struct workspace *w = decompress_pool_take_space(
        f->pool, p->compressed_len, f->cluster_size, err);
    int r;

    if (!w)
        return -1;
    r = io_pread(f->source->io, w->in, p->compressed_len, p->host_off, err);
    if (r == -1)
        read_failed(f, err);
    else if (compress_decode_start(w->context, f->type,
                                   w->in, p->compressed_len, w->out,
                                   f->cluster_size, p->skip + p->nr_bytes)
             == -1)
        r = decode_failed(f, p->host_off, err);
    else
        memcpy(p->buf, w->out + p->skip, p->nr_bytes);
    decompress_pool_put_space(f->pool, w);
    return r;
}

static int
read_part(const struct compressed_file *f, const struct compressed_part *p,
          struct qcow2_error *err)
{
    enum cluster_use use = decompress_pool_note(
        f->pool, f->source, p->guest_off / f->cluster_size);
    struct block *b =
        cache_peek(decompress_pool_cache(f->pool), f->owner, p->host_off);

    if (!b && use == CLUSTER_FIRST
        && compress_can_stop_early(f->type,
                                   f->cluster_size, p->skip + p->nr_bytes))
        return read_start(f, p, err);
    if (!b && use == CLUSTER_NEXT)
        load_next(f, p);
    if (!b)
        b = get_cluster(f, p, err);
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
bypasses_cache(const struct compressed_file *f,
               const struct compressed_part *parts, unsigned nr, unsigned i)
{
    return is_whole(f, &parts[i])
           && ((i > 0 && is_whole(f, &parts[i - 1]))
               || (i + 1 < nr && is_whole(f, &parts[i + 1])))
           && !cache_has(decompress_pool_cache(f->pool), f->owner,
                         parts[i].host_off);
}

int
compressed_read(const struct compressed_file *f,
                const struct compressed_part *parts, unsigned nr,
                struct qcow2_error *err)
{
    for (unsigned i = 0; i < nr;) {
        uint64_t host_end;
        unsigned n = find_run(f, parts + i, nr - i, &host_end);

        if ((n > 1 || bypasses_cache(f, parts, nr, i)
                 ? read_run(f, parts + i, n, parts[i].host_off, host_end, err)
                 : read_part(f, &parts[i], err)) == -1)
            return -1;
        i += max_u64(n, 1);
    }
    return 0;
}
