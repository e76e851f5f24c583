/* SPDX-License-Identifier: BSD-3-Clause */
/* history.h: what an image may hold after it was cut short: what it held at
 * some moment, remembered for every request and every operation on the whole
 * image. Moments are the caller's numbers (marks in a crash log).
 *
 * A request changes sectors, each of which may be found as before or after.
 * An operation on the whole image happens or does not.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include "contents.h"
#include "rig.h"

/* What the image holds after a step. */
struct phase {
    struct contents holds;
    unsigned epoch;    /* operations on the whole image that came before */
    uint64_t sent;     /* from then on it may be found */
    uint64_t answered; /* from then on it must: durable; UINT64_MAX: never */
};

struct history {
    struct phase *phases;
    unsigned nr;
};

/* The first phase; c is copied, as it is by the others. */
void history_begin(struct history *h, const struct contents *c);
void history_free(struct history *h);

/* The phase that came last. */
struct phase *history_last(struct history *h);

/* A step is sent. */
void history_request(struct history *h, const struct contents *after,
                     uint64_t sent);
void history_whole(struct history *h, const struct contents *after,
                   uint64_t sent);

/* All steps up to now are durable. */
void history_durable(struct history *h, uint64_t answered);

/* Why `got` is not what a cut at this moment may show; NULL: it is. */
const char *history_forbids(const struct history *h,
                            const struct contents *got, uint64_t moment);

/* What must hold of the file m, left by a cut or failure at this moment:
 *
 *   - no refcount is below its references, and nothing shared looks as if it
 *     were not; leaks, and COPIED flags that are harmlessly wrong, only where
 *     the dirty bit is set, or (leaks) on the way, or in version 2;
 *   - it opens for writing, which settles all that the dirty bit covers;
 *   - the disk, its size and the snapshots are as the history allows, read
 *     before that or after it;
 *   - all of the disk can be written, a snapshot created, the others deleted,
 *     the size changed, and nothing else changes by that.
 */
struct aftermath {
    uint64_t nr_states, nr_dirty, nr_leaky, nr_miscopied;
    unsigned max_leaks;
};
void history_check(const struct history *h, struct rig *r, struct mem *m,
                   uint64_t moment, struct aftermath *sum);
void aftermath_report(const struct aftermath *sum, const char *name);

#endif /* HISTORY_H */
