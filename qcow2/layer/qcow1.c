/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow1.c: looks guest bytes up in images of version 1; see qcow1.h.
 *
 * Both tables are read through the metadata cache, by pages of the file, so
 * that a table costs no more than what is looked up in it, whatever a header
 * claims, and tables that lie over each other are no special case.
 */
#include "layer/qcow1.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/format.h"
#include "format/qcow1-header.h"
#include "layer/compressed.h"

enum { PAGE_BYTES = 4096 };

struct qcow1 {
    struct source src; /* first: it is a source */
    struct store store;
    struct qcow1_header hdr;
    struct cache *meta;
    struct decompress_pool *decompress;
};

/* Entries of a table, as far as they lie in one page. */
struct entries {
    struct block *page;
    const unsigned char *first;
    uint64_t nr;
};

static int
load_page(void *opaque, uint64_t host_off, void *data, uint32_t size,
          struct qcow2_error *err)
{
    const struct qcow1 *q = opaque;

    return io_pread(q->src.io, data, size, host_off, err);
}

/* The entries from the one at host_off on, a multiple of 8, of which at most
 * `most` are of interest. Unpinned by cache_put of the page. */
static int
entries_get(struct qcow1 *q, uint64_t host_off, uint64_t most,
            struct entries *e, struct qcow2_error *err)
{
    uint64_t into = host_off % PAGE_BYTES;

    e->page = cache_get(q->meta, q, host_off - into, PAGE_BYTES, load_page, q,
                        err);
    if (!e->page)
        return error_prefix(err, "%s: table", q->src.io->name);
    e->first = e->page->data + into;
    e->nr = min_u64(most, (PAGE_BYTES - into) / sizeof(be64));
    return 0;
}

static uint64_t
entry(const struct entries *e, uint64_t i)
{
    be64 value;

    memcpy(&value, e->first + i * sizeof value, sizeof value);
    return be64_get(value);
}

/* How many entries continue the first one, each `step` more? */
static uint64_t
run_length(const struct entries *e, uint64_t step)
{
    uint64_t first = entry(e, 0), n = 1;

    while (n < e->nr && entry(e, n) == first + n * step)
        n++;
    return n;
}

static int
refuse_entry(const struct qcow1 *q, const char *table, uint64_t guest_off,
             uint64_t value, struct qcow2_error *err)
{
    return error_set(err, EIO, "%s: the %s entry of guest offset 0x%" PRIx64
                     ", 0x%" PRIx64 ", is invalid", q->src.io->name, table,
                     guest_off, value);
}

static unsigned
reach_bits(const struct qcow1 *q)
{
    return q->hdr.cluster_bits + q->hdr.l2_bits;
}

/* The place of the L2 table of guest_off. 0: there is none, for *nr_bytes. */
static int
find_l2(struct qcow1 *q, uint64_t guest_off, uint64_t *table_off,
        uint64_t *nr_bytes, struct qcow2_error *err)
{
    uint64_t idx = guest_off >> reach_bits(q), table_bytes, nr;
    struct entries e;

    if (entries_get(q, q->hdr.l1_offset + idx * sizeof(be64),
                    q->hdr.l1_entries - idx, &e, err) == -1)
        return -1;
    *table_off = entry(&e, 0);
    nr = run_length(&e, 0);
    cache_put(e.page);
    if (*table_off == 0) {
        *nr_bytes = ((idx + nr) << reach_bits(q)) - guest_off;
        return 0;
    }
    table_bytes = sizeof(be64) << q->hdr.l2_bits;
    if (*table_off < QCOW1_HEADER_LENGTH
        || !is_aligned(*table_off, sizeof(be64))
        || !range_inside(*table_off, table_bytes, q->hdr.file_size))
        return refuse_entry(q, "L1", guest_off, *table_off, err);
    return 0;
}

/* A compressed cluster, `into` bytes in. How many bytes its data have is exact,
 * unlike in version 2. */
static int
map_compressed(struct qcow1 *q, uint64_t value, uint64_t into,
               struct mapping *m)
{
    unsigned shift = 63 - q->hdr.cluster_bits;

    m->kind = MAP_COMPRESSED;
    m->host_off = value & ((UINT64_C(1) << shift) - 1);
    m->compressed_len = (value & ~QCOW1_COMPRESSED) >> shift;
    m->skip = into;
    return m->compressed_len > 0
           && range_inside(m->host_off, m->compressed_len, q->hdr.file_size)
           ? 0 : -1;
}

/* Maps as many bytes as entries say the same of; -1: the first is invalid. */
static int
map_entries(struct qcow1 *q, const struct entries *e, uint64_t into,
            struct mapping *m)
{
    unsigned bits = q->hdr.cluster_bits;
    uint64_t value = entry(e, 0), nr = 1;
    int r = 0;

    if (value == 0) {
        m->kind = MAP_UNALLOCATED;
        nr = run_length(e, 0);
    } else if (value & QCOW1_COMPRESSED) {
        r = map_compressed(q, value, into, m);
    } else {
        m->kind = MAP_DATA;
        m->has_host = true;
        m->host_off = value + into;
        nr = run_length(e, UINT64_C(1) << bits);
        /* The file may end inside a cluster, which then ends with zeroes. */
        if (!is_aligned(value, 512) || value >= q->hdr.file_size)
            r = -1;
        nr = min_u64(nr, div_round_up(q->hdr.file_size - value,
                                      UINT64_C(1) << bits));
    }
    m->nr_bytes = min_u64(m->nr_bytes, (nr << bits) - into);
    return r;
}

static int
lookup(struct source *s, uint64_t guest_off, uint64_t nr_bytes,
       struct mapping *m, struct qcow2_error *err)
{
    struct qcow1 *q = (struct qcow1 *)s;
    unsigned bits = q->hdr.cluster_bits;
    uint64_t nr_entries = UINT64_C(1) << q->hdr.l2_bits;
    uint64_t idx = guest_off >> bits & (nr_entries - 1), table_off, value;
    struct entries e;
    int r;

    *m = (struct mapping){
        .kind = MAP_UNALLOCATED, .nr_bytes = nr_bytes, .source = s,
    };
    if (find_l2(q, guest_off, &table_off, &nr_bytes, err) == -1)
        return -1;
    m->nr_bytes = min_u64(m->nr_bytes, nr_bytes);
    if (table_off == 0)
        return 0;
    if (entries_get(q, table_off + idx * sizeof(be64), nr_entries - idx, &e,
                    err) == -1)
        return -1;
    value = entry(&e, 0);
    r = map_entries(q, &e, guest_off & ((UINT64_C(1) << bits) - 1), m);
    cache_put(e.page);
    return r == 0 ? 0 : refuse_entry(q, "L2", guest_off, value, err);
}

static int
read_compressed(struct source *s, const struct compressed_part *parts,
                unsigned nr, struct qcow2_error *err)
{
    struct qcow1 *q = (struct qcow1 *)s;
    const struct compressed_file f = {
        .source = s,
        .owner = q,
        .pool = q->decompress,
        .type = COMPRESS_ZLIB,
        .cluster_size = UINT32_C(1) << q->hdr.cluster_bits,
        .is_constant = true,
    };

    return compressed_read(&f, parts, nr, err);
}

static struct backing_name
backing(const struct source *s)
{
    return (struct backing_name){
        .file = ((const struct qcow1 *)s)->hdr.backing_file,
    };
}

static void
free_layer(struct source *s)
{
    struct qcow1 *q = (struct qcow1 *)s;

    cache_drop_owner(q->meta, q);
    cache_drop_owner(decompress_pool_cache(q->decompress), q);
    qcow1_header_free(&q->hdr);
    io_close(s->io);
    free(q);
}

static const struct source_ops qcow1_source_ops = {
    .lookup = lookup,
    .read_compressed = read_compressed,
    .backing = backing,
    .free = free_layer,
    .format = QCOW2_FORMAT_QCOW,
};

struct source *
qcow1_open(struct io *io, struct cache *meta,
           struct decompress_pool *decompress, struct qcow2_error *err)
{
    struct qcow1 *q = calloc(1, sizeof *q);

    if (!q)
        error_nomem(err);
    if (!q || qcow1_header_read(io, &q->hdr, err) == -1) {
        io_close(io);
        free(q);
        return NULL;
    }
    q->store = store_plain(io);
    q->meta = meta;
    q->decompress = decompress;
    q->src = (struct source){
        .ops = &qcow1_source_ops, .io = io, .data = &q->store,
        .size = q->hdr.size, .unit_bits = q->hdr.cluster_bits,
    };
    return &q->src;
}
