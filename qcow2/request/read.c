/* SPDX-License-Identifier: BSD-3-Clause */
/* read.c: reads guest bytes through a chain. */
#include "request/request.h"

#include <string.h>

#include "base/checked.h"

/* Compressed clusters handed down at once. */
enum { MAX_PARTS = 64 };

int
read_mapping(const struct mapping *m, void *buf, uint64_t guest_off,
             struct qcow2_error *err)
{
    switch (m->kind) {
    case MAP_UNALLOCATED:
    case MAP_ZERO:
        memset(buf, 0, m->nr_bytes);
        return 0;
    case MAP_DATA:
        return store_read(m->source->data, buf, m->nr_bytes, guest_off,
                          m->host_off, err);
    case MAP_COMPRESSED:
        break;
    }
    __builtin_unreachable();
}

/* Compressed clusters in a row, of one layer. *m is the first one's mapping
 * at first, and *done is how many bytes were read. */
static int
read_compressed(const struct source_chain *chain, unsigned first,
                struct mapping *m, void *buf, size_t nr_bytes,
                uint64_t guest_off, size_t *done, struct qcow2_error *err)
{
    struct compressed_part parts[MAX_PARTS];
    struct source *source = m->source;
    unsigned nr = 0;

    *done = 0;
    for (;;) {
        parts[nr++] = compressed_part_of(m, guest_off + *done,
                                         (char *)buf + *done);
        *done += m->nr_bytes;
        if (*done == nr_bytes || nr == MAX_PARTS)
            break;
        if (source_chain_lookup(chain, first, guest_off + *done,
                                nr_bytes - *done, m, NULL, err) == -1)
            return -1;
        if (m->kind != MAP_COMPRESSED || m->source != source)
            break;
    }
    return source->ops->read_compressed(source, parts, nr, err);
}

int
read_chain(const struct source_chain *chain, unsigned first, void *buf,
           size_t nr_bytes, uint64_t guest_off, struct qcow2_error *err)
{
    while (nr_bytes > 0) {
        struct mapping m;
        size_t done;
        int r;

        if (source_chain_lookup(chain, first, guest_off, nr_bytes, &m, NULL,
                                err) == -1)
            return -1;
        done = m.nr_bytes;
        r = m.kind == MAP_COMPRESSED
                ? read_compressed(chain, first, &m, buf, nr_bytes, guest_off,
                                  &done, err)
                : read_mapping(&m, buf, guest_off, err);
        if (r == -1)
            return -1;
        buf = (char *)buf + done;
        nr_bytes -= done;
        guest_off += done;
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
        ret = read_chain(img->chain, 0, buf, piece, guest_off, err);
        range_unlock(&img->ranges, &r);
        if (ret == -1)
            return -1;
        buf = (char *)buf + piece;
        nr_bytes -= piece;
        guest_off += piece;
    }
    return 0;
}
