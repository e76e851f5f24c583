/* SPDX-License-Identifier: BSD-3-Clause */
/* read.c: reads guest bytes through a chain. */
#include "request.h"

#include <string.h>

#include "checked.h"

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
