/* SPDX-License-Identifier: BSD-3-Clause */
/* fakes.c: see fakes.h. */
#include "fakes.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

static int
lookup(struct source *s, uint64_t guest_off, uint64_t nr_bytes,
       struct mapping *m, struct qcow2_error *err)
{
    struct fake *f = (struct fake *)s;
    uint64_t first = guest_off / f->block_bytes, n = 1;

    __atomic_add_fetch(&f->nr_lookups, 1, __ATOMIC_RELAXED);
    if (f->fails[first])
        return error_set(err, EIO, "block %u", (unsigned)first);
    while (first + n < FAKE_BLOCKS && !f->fails[first + n]
           && f->kinds[first + n] == f->kinds[first])
        n++;
    *m = (struct mapping){ .kind = f->kinds[first], .source = s };
    m->nr_bytes = min_u64(nr_bytes,
                          (first + n) * f->block_bytes - guest_off);
    m->has_host = m->kind == MAP_DATA;
    m->host_off = m->has_host ? f->host_off + guest_off : 0;
    return 0;
}

static const struct source_ops fake_ops = { .lookup = lookup };

void
fake_init(struct fake *f, uint64_t size, unsigned block_bytes)
{
    memset(f, 0, sizeof *f);
    f->src.ops = &fake_ops;
    f->src.size = size;
    f->block_bytes = block_bytes;
}

void
fake_fill(struct fake *f, unsigned from, unsigned to, enum map_kind kind)
{
    for (unsigned i = from; i < to; i++)
        f->kinds[i] = kind;
}
