/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow1-image.c: see qcow1-image.h. */
#include "qcow1-image.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/compress.h"

enum { HEADER_BYTES = 48 };

struct maker {
    struct qcow1_image *image;
    struct rng *rng;
    struct compress_context *context;
    size_t room;
};

uint64_t
qcow1_image_get(const struct qcow1_image *image, uint64_t off, unsigned width)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value = value << 8 | image->bytes[off + i];
    return value;
}

void
qcow1_image_put(struct qcow1_image *image, uint64_t off, unsigned width,
                uint64_t value)
{
    while (width-- > 0) {
        image->bytes[off + width] = value;
        value >>= 8;
    }
}

/* The offset of nr_bytes of zeroes at the end of the file. */
static uint64_t
append(struct maker *m, uint64_t align, size_t nr_bytes)
{
    struct qcow1_image *image = m->image;
    size_t at = round_up(image->nr_bytes, align), end = at + nr_bytes;

    if (end > m->room) {
        image->bytes = realloc(image->bytes, 2 * end);
        if (!image->bytes)
            abort();
        memset(image->bytes + m->room, 0, 2 * end - m->room);
        m->room = 2 * end;
    }
    image->nr_bytes = end;
    return at;
}

/* Places count bytes, unlike those of other data. */
static uint64_t
append_compressed(struct maker *m, const unsigned char *data, size_t size)
{
    unsigned char *packed = malloc(size);
    long n = packed ? compress_encode(m->context, COMPRESS_ZLIB, 0, data, size,
                                      packed, size - 1) : -1;
    uint64_t at = 0;

    if (n == -1)
        abort();
    if (n > 0) {
        at = append(m, 1, n);
        memcpy(m->image->bytes + at, packed, n);
        at |= (uint64_t)n << (63 - m->image->cluster_bits)
              | UINT64_C(1) << 63;
    }
    free(packed);
    return at;
}

/* The entry for a cluster of data. */
static uint64_t
append_cluster(struct maker *m, const unsigned char *data, bool compressed)
{
    size_t size = (size_t)1 << m->image->cluster_bits;
    uint64_t entry = compressed ? append_compressed(m, data, size) : 0;

    if (entry != 0)
        return entry;
    entry = append(m, 512, size);
    memcpy(m->image->bytes + entry, data, size);
    return entry;
}

static uint64_t
find_l2(struct maker *m, uint64_t l1, uint64_t idx)
{
    unsigned l2_bits = m->image->l2_bits;
    uint64_t at = l1 + (idx >> l2_bits) * 8;
    uint64_t table = qcow1_image_get(m->image, at, 8);

    if (table == 0) {
        table = append(m, 8, (size_t)8 << l2_bits);
        qcow1_image_put(m->image, at, 8, table);
    }
    return table + (idx & ((1u << l2_bits) - 1)) * 8;
}

static void
fill_clusters(struct maker *m, uint64_t l1)
{
    enum { NOTHING, DATA, COMPRESSED, NR_KINDS } kind = NOTHING;
    struct qcow1_image *image = m->image;
    size_t size = (size_t)1 << image->cluster_bits;
    unsigned char *data = malloc(size);
    uint64_t nr = div_round_up(image->size, size);

    for (uint64_t i = 0; data && i < nr; i++) {
        uint64_t off = i * size, at;

        if (rng_percent(m->rng, 30))
            kind = rng_below(m->rng, NR_KINDS);
        if (kind == NOTHING)
            continue;
        pattern_fill(data, size, 1 + rng_below(m->rng, 1000), off);
        at = find_l2(m, l1, i);
        qcow1_image_put(image, at, 8,
                        append_cluster(m, data, kind == COMPRESSED));
        memcpy(image->shows + off, data, min_u64(size, image->size - off));
    }
    free(data);
}

void
qcow1_image_make(struct qcow1_image *image, struct rng *rng)
{
    struct maker m = {
        .image = image, .rng = rng, .context = compress_context_new(),
    };
    size_t name_size = image->backing ? strlen(image->backing) : 0;
    unsigned reach_bits = image->cluster_bits + image->l2_bits;
    uint64_t l1;

    image->bytes = NULL;
    image->nr_bytes = 0;
    image->shows = calloc(1, image->size + 1);
    if (!m.context || !image->shows)
        abort();
    if (image->below)
        memcpy(image->shows, image->below,
               min_u64(image->below_size, image->size));
    append(&m, 1, HEADER_BYTES + name_size);
    l1 = append(&m, 8, div_round_up(image->size, UINT64_C(1) << reach_bits)
                           * 8);
    memcpy(image->bytes, "QFI\xfb\0\0\0\1", 8);
    if (image->backing) {
        qcow1_image_put(image, QCOW1_AT_NAME, 8, HEADER_BYTES);
        qcow1_image_put(image, QCOW1_AT_NAME_SIZE, 4, name_size);
        memcpy(image->bytes + HEADER_BYTES, image->backing, name_size);
    }
    qcow1_image_put(image, QCOW1_AT_SIZE, 8, image->size);
    qcow1_image_put(image, QCOW1_AT_CLUSTER_BITS, 1, image->cluster_bits);
    qcow1_image_put(image, QCOW1_AT_L2_BITS, 1, image->l2_bits);
    qcow1_image_put(image, QCOW1_AT_L1, 8, l1);
    fill_clusters(&m, l1);
    compress_context_free(m.context);
}

void
qcow1_image_free(struct qcow1_image *image)
{
    free(image->bytes);
    free(image->shows);
    image->bytes = image->shows = NULL;
}
