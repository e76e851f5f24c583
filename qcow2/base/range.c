/* SPDX-License-Identifier: BSD-3-Clause */
/* range.c: interval locks; see range.h. */
#include "base/range.h"

#include <assert.h>
#include <stdlib.h>

#include "base/error.h"

int
range_lock_init(struct range_lock *rl, unsigned window_bits,
                struct qcow2_error *err)
{
    rl->window_bits = window_bits;
    rl->shards = aligned_alloc(_Alignof(struct range_shard),
                               RANGE_SHARDS * sizeof *rl->shards);
    if (!rl->shards)
        return error_nomem(err);
    for (unsigned i = 0; i < RANGE_SHARDS; i++) {
        struct range_shard *s = &rl->shards[i];

        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->released, NULL);
        s->nr_waiting = 0;
        s->first = s->last = NULL;
    }
    return 0;
}

void
range_lock_destroy(struct range_lock *rl)
{
    if (!rl->shards)
        return;
    for (unsigned i = 0; i < RANGE_SHARDS; i++) {
        struct range_shard *s = &rl->shards[i];

        assert(!s->first);
        pthread_cond_destroy(&s->released);
        pthread_mutex_destroy(&s->lock);
    }
    free(rl->shards);
    rl->shards = NULL;
}

static struct range_shard *
shard_of(struct range_lock *rl, const struct range *r)
{
    return &rl->shards[(r->start >> rl->window_bits) % RANGE_SHARDS];
}

/* Does somebody who came earlier hold r back? */
static bool
must_wait(const struct range *r)
{
    for (const struct range *o = r->prev; o; o = o->prev)
        if (o->start < r->end && r->start < o->end
            && (o->exclusive || r->exclusive))
            return true;
    return false;
}

static void
lock_range(struct range_lock *rl, struct range *r,
           uint64_t start, uint64_t end, bool exclusive)
{
    struct range_shard *s;

    assert(start < end
           && start >> rl->window_bits == (end - 1) >> rl->window_bits);
    r->start = start;
    r->end = end;
    r->exclusive = exclusive;
    r->next = NULL;

    s = shard_of(rl, r);
    pthread_mutex_lock(&s->lock);
    r->prev = s->last;
    if (s->last)
        s->last->next = r;
    else
        s->first = r;
    s->last = r;
    while (must_wait(r)) {
        s->nr_waiting++;
        pthread_cond_wait(&s->released, &s->lock);
        s->nr_waiting--;
    }
    pthread_mutex_unlock(&s->lock);
}

void
range_lock_shared(struct range_lock *rl, struct range *r,
                  uint64_t start, uint64_t end)
{
    lock_range(rl, r, start, end, false);
}

void
range_lock_exclusive(struct range_lock *rl, struct range *r,
                     uint64_t start, uint64_t end)
{
    lock_range(rl, r, start, end, true);
}

void
range_unlock(struct range_lock *rl, struct range *r)
{
    struct range_shard *s = shard_of(rl, r);

    pthread_mutex_lock(&s->lock);
    if (r->prev)
        r->prev->next = r->next;
    else
        s->first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        s->last = r->prev;
    if (s->nr_waiting)
        pthread_cond_broadcast(&s->released);
    pthread_mutex_unlock(&s->lock);
}
