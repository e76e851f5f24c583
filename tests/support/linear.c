/* SPDX-License-Identifier: BSD-3-Clause */
/* linear.c: see linear.h. The search goes through the calls and returns of a
 * block's requests in the order of time. A request may come next as long as
 * no return precedes its call. A read that fits what the block holds comes
 * next at once, which is never wrong; among writes each is tried. When a
 * return is met whose request had no turn, the last write tried was wrong.
 * What was in vain once (the same requests done, the same content) is not
 * tried again.
 */
#include "linear.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

void
linear_add(struct linear_history *h, struct linear_event e)
{
    if (h->nr == h->capacity) {
        h->capacity = h->capacity ? 2 * h->capacity : 256;
        h->events = must_have(reallocarray(h->events, h->capacity,
                                           sizeof *h->events));
    }
    h->events[h->nr++] = e;
}

void
linear_free(struct linear_history *h)
{
    free(h->events);
    memset(h, 0, sizeof *h);
}

void
linear_make_block(void *block, uint64_t value, uint64_t off)
{
    if (value == 0) {
        memset(block, 0, LINEAR_BLOCK);
        return;
    }
    pattern_fill(block, LINEAR_BLOCK, value, off);
    memcpy(block, &value, sizeof value);
}

bool
linear_value_of(const void *block, uint64_t off, const void *initial,
                uint64_t *value)
{
    unsigned char want[LINEAR_BLOCK] = { 0 };

    *value = 0;
    if (memcmp(block, want, LINEAR_BLOCK) == 0)
        return true;
    *value = LINEAR_INITIAL;
    if (memcmp(block, initial, LINEAR_BLOCK) == 0)
        return true;
    memcpy(value, block, sizeof *value);
    linear_make_block(want, *value, off);
    return memcmp(block, want, LINEAR_BLOCK) == 0;
}

/* A call, or a return, in a list of those not done, in order of time. */
struct mark {
    struct mark *prev, *next;
    struct mark *of_return;     /* a call's; NULL: this is a return */
    const struct linear_event *event;
    uint64_t at;
    uint64_t hash;
};

/* What was done, to be undone: a call, and the content before it. */
struct done {
    struct mark *call;
    uint64_t before;
};

struct search {
    struct mark ends;           /* before the first and after the last */
    struct done *done;
    size_t nr_done, most_done;
    const struct linear_event *stuck;
    uint64_t value;             /* what the block holds */
    uint64_t hash;              /* of what is done */
    uint64_t *seen;             /* open hash; 0: nothing */
    size_t nr_seen, seen_capacity;
};

static void
enter(uint64_t *seen, size_t capacity, uint64_t key, bool *is_new)
{
    size_t i = key & (capacity - 1);

    while (seen[i] && seen[i] != key)
        i = (i + 1) & (capacity - 1);
    *is_new = seen[i] == 0;
    seen[i] = key;
}

/* Is it the first time that these are done with this content? */
static bool
is_new_state(struct search *s, uint64_t hash, uint64_t value)
{
    uint64_t key = (hash ^ (value + 1) * UINT64_C(0x9e3779b97f4a7c15)) | 1;
    bool is_new;

    if (s->nr_seen * 2 >= s->seen_capacity) {
        size_t capacity = s->seen_capacity ? 2 * s->seen_capacity : 1024;
        uint64_t *seen = must_have(calloc(capacity, sizeof *seen));

        for (size_t i = 0; i < s->seen_capacity; i++)
            if (s->seen[i])
                enter(seen, capacity, s->seen[i], &is_new);
        free(s->seen);
        s->seen = seen;
        s->seen_capacity = capacity;
    }
    enter(s->seen, s->seen_capacity, key, &is_new);
    s->nr_seen += is_new;
    return is_new;
}

static void
unlink_mark(struct mark *m)
{
    m->prev->next = m->next;
    m->next->prev = m->prev;
}

static void
relink_mark(struct mark *m)
{
    m->prev->next = m;
    m->next->prev = m;
}

static void
do_call(struct search *s, struct mark *call)
{
    s->done[s->nr_done++] = (struct done){ call, s->value };
    if (!call->event->is_read)
        s->value = call->event->value;
    s->hash ^= call->hash;
    unlink_mark(call);
    unlink_mark(call->of_return);
}

static struct mark *
undo_call(struct search *s)
{
    struct done *d = &s->done[--s->nr_done];

    relink_mark(d->call->of_return);
    relink_mark(d->call);
    s->hash ^= d->call->hash;
    s->value = d->before;
    return d->call;
}

static void
do_reads(struct search *s)
{
    struct mark *m = s->ends.next;

    while (m->of_return) {
        if (m->event->is_read && m->event->value == s->value) {
            do_call(s, m);
            m = s->ends.next;
        } else {
            m = m->next;
        }
    }
}

/* Back to the last write, and on to what follows it; NULL: there is none. */
static struct mark *
go_back(struct search *s)
{
    struct mark *m;

    do {
        if (s->nr_done == 0)
            return NULL;
        m = undo_call(s);
    } while (m->event->is_read);
    return m->next;
}

static bool
find_order(struct search *s)
{
    struct mark *m;

    do_reads(s);
    m = s->ends.next;
    while (s->ends.next != &s->ends) {
        if (!m->of_return) {
            if (s->nr_done >= s->most_done) {
                s->most_done = s->nr_done;
                s->stuck = m->event;
            }
            m = go_back(s);
            if (!m)
                return false;
        } else if (!m->event->is_read
                   && is_new_state(s, s->hash ^ m->hash, m->event->value)) {
            do_call(s, m);
            do_reads(s);
            m = s->ends.next;
        } else {
            m = m->next;
        }
    }
    return true;
}

static int
compare_marks(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;

    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return !x->of_return - !y->of_return; /* a call before its return */
}

/* Calls and returns of these events, sorted; of_return is only a flag until
 * they are in their places. */
static struct mark *
make_marks(const struct linear_event *events, size_t nr)
{
    struct mark *marks = must_have(calloc(2 * nr, sizeof *marks));
    struct mark **returns = must_have(calloc(nr, sizeof *returns));
    struct rng r;

    rng_init(&r, 1, 0);
    for (size_t i = 0; i < nr; i++) {
        marks[2 * i] = (struct mark){ .event = &events[i],
                                      .at = events[i].start,
                                      .of_return = marks,
                                      .hash = rng_next(&r) };
        marks[2 * i + 1] = (struct mark){ .event = &events[i],
                                          .at = events[i].end };
    }
    qsort(marks, 2 * nr, sizeof *marks, compare_marks);
    for (size_t i = 0; i < 2 * nr; i++)
        if (!marks[i].of_return)
            returns[marks[i].event - events] = &marks[i];
    for (size_t i = 0; i < 2 * nr; i++)
        if (marks[i].of_return)
            marks[i].of_return = returns[marks[i].event - events];
    free(returns);
    return marks;
}

static bool
check_block(const struct linear_event *events, size_t nr, char *why,
            size_t size)
{
    struct mark *marks = make_marks(events, nr);
    struct search s = { .value = UINT64_MAX };
    bool found;

    s.done = must_have(calloc(nr, sizeof *s.done));
    s.ends.next = &marks[0];
    s.ends.prev = &marks[2 * nr - 1];
    for (size_t i = 0; i < 2 * nr; i++) {
        marks[i].prev = i ? &marks[i - 1] : &s.ends;
        marks[i].next = i + 1 < 2 * nr ? &marks[i + 1] : &s.ends;
    }
    found = find_order(&s);
    if (!found)
        snprintf(why, size, "block %" PRIu64 ": no order explains that "
                 "between %" PRIu64 " and %" PRIu64 " request %" PRIu64
                 " was %s", s.stuck->block, s.stuck->start, s.stuck->end,
                 s.stuck->value, s.stuck->is_read ? "read" : "written");
    free(s.seen);
    free(s.done);
    free(marks);
    return found;
}

static int
compare_events(const void *a, const void *b)
{
    const struct linear_event *x = a, *y = b;

    if (x->block != y->block)
        return x->block < y->block ? -1 : 1;
    return x->start < y->start ? -1 : x->start > y->start;
}

bool
linear_check(struct linear_history *h, char *why, size_t size)
{
    size_t first = 0;

    qsort(h->events, h->nr, sizeof *h->events, compare_events);
    for (size_t i = 1; i <= h->nr; i++) {
        if (i < h->nr && h->events[i].block == h->events[first].block)
            continue;
        if (!check_block(h->events + first, i - first, why, size))
            return false;
        first = i;
    }
    return true;
}
