/* SPDX-License-Identifier: BSD-3-Clause */
/* io-behind.c: when large writes are to begin; see io-behind.h. */
#include "storage/io-behind.h"

#include "base/checked.h"

static void
begin_anew(struct io_behind *b)
{
    b->from = UINT64_MAX;
    b->to = b->nr_bytes = 0;
}

void
io_behind_init(struct io_behind *b)
{
    pthread_mutex_init(&b->lock, NULL);
    begin_anew(b);
}

void
io_behind_destroy(struct io_behind *b)
{
    pthread_mutex_destroy(&b->lock);
}

bool
io_behind_written(struct io_behind *b, uint64_t host_off, uint64_t nr_bytes,
                  uint64_t *from, uint64_t *to)
{
    bool enough;

    if (nr_bytes < IO_BEHIND_LARGE)
        return false;
    pthread_mutex_lock(&b->lock);
    b->nr_bytes += nr_bytes;
    *from = b->from = min_u64(b->from, host_off);
    *to = b->to = max_u64(b->to, host_off + nr_bytes);
    enough = b->nr_bytes >= IO_BEHIND_BEGIN;
    if (enough)
        begin_anew(b);
    pthread_mutex_unlock(&b->lock);
    return enough;
}
