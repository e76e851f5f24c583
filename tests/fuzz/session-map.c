/* SPDX-License-Identifier: BSD-3-Clause */
/* session-map.c: extents cover a disk, and what they say is so; see
 * session.h.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "bounds.h"
#include "disk/open-disk.h"
#include "session.h"


/* Of the first few, the content is compared. */
enum { MAX_EXTENTS = 400, MAX_COMPARED = 40, MAX_BYTES = 64 << 10 };

struct mapped {
    uint64_t pos, size;
    unsigned nr;
    struct qcow2_extent extents[MAX_COMPARED];
};

static int
note_extent(void *opaque, const struct qcow2_extent *e)
{
    struct mapped *m = opaque;

    MUST(e->guest_off == m->pos && e->nr_bytes > 0
         && e->nr_bytes <= m->size - m->pos,
         "extent of %" PRIu64 " bytes at %" PRIu64 ", expected at %" PRIu64,
         e->nr_bytes, e->guest_off, m->pos);
    MUST(e->present || e->zero, "neither there nor zero");
    MUST(!e->compressed || !e->has_host_off, "compressed, and has a place");
    if (m->nr < MAX_COMPARED)
        m->extents[m->nr] = *e;
    m->nr++;
    m->pos += e->nr_bytes;
    return m->nr >= MAX_EXTENTS;
}

static void
compare(struct session *s, const struct qcow2_extent *e)
{
    struct io *data = s->disk->file->image->data->io;
    size_t nr_bytes = min_u64(e->nr_bytes, MAX_BYTES);
    unsigned char *buf = malloc(2 * nr_bytes), *want = buf + nr_bytes;

    memset(want, 0, nr_bytes);
    if (e->has_host_off && e->depth == 0 && !e->zero)
        MUST(io_pread(data, want, nr_bytes, e->host_off, NULL) == 0,
             "nothing can be read at 0x%" PRIx64, e->host_off);
    if (qcow2_pread(s->disk, buf, nr_bytes, e->guest_off, NULL) == 0
        && (e->zero || (e->has_host_off && e->depth == 0)))
        MUST(memcmp(buf, want, nr_bytes) == 0,
             "extent at %" PRIu64 " is not what it says", e->guest_off);
    free(buf);
}

void
session_map(struct session *s)
{
    struct mapped m = { .size = qcow2_get_size(s->disk) };
    struct qcow2_error err;
    int r = qcow2_map(s->disk, m.size, 0, note_extent, &m, &err);

    if (r == -1)
        session_failed(s, "extents", &err);
    else
        MUST(m.pos == m.size || m.nr >= MAX_EXTENTS, "extents end at %" PRIu64,
             m.pos);
    for (unsigned i = 0; i < m.nr && i < MAX_COMPARED; i++)
        compare(s, &m.extents[i]);
}
