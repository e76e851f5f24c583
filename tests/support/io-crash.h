/* SPDX-License-Identifier: BSD-3-Clause */
/* io-crash.h: a file that remembers all that was done to it, and can show
 * every state in which a power cut may have left it.
 *
 * The model is io.h's: a flush makes stable what had returned before it was
 * called; of everything else begun before the cut any subset survives, each
 * write torn at 512 bytes. The log knows when each operation began and
 * returned, so this is exact for concurrent operations too.
 *
 * A test records a workload, then enumerates. It tells what a state must
 * hold by marks: a state knows how many of the log's marks had been put
 * before its cut.
 */
#ifndef IO_CRASH_H
#define IO_CRASH_H

#include <stdbool.h>
#include <stdint.h>

#include "io-mem.h"
#include "rng.h"
#include "storage/io.h"

struct crash_log;

/* A file that starts as (a copy of) what start holds, all of it stable. */
struct crash_log *crash_log_new(struct mem *start);

/* No backend may be open on it. NULL is fine. */
void crash_log_free(struct crash_log *log);

/* A backend on the file; several may be open at once. Safe for any number
 * of threads. */
struct io *io_crash_open(struct crash_log *log);

/* What the file holds if nothing gets lost; the log's. */
struct mem *crash_log_content(struct crash_log *log);

/* What a mark means for states after it. */
enum crash_mark {
    CRASH_MARK_ALLOWS,  /* they may hold more than those before: a request
                         * was sent */
    CRASH_MARK_DEMANDS, /* they must hold more: a flush was answered */
};

/* Returns the mark's number: 0, 1, … */
unsigned crash_log_mark(struct crash_log *log, enum crash_mark mark);
unsigned crash_log_nr_marks(struct crash_log *log);

/* Of n unsynced operations all 2^n subsets are tried if n is at most
 * CRASH_MAX_EXHAUSTIVE; and all subsets of their sectors, if there are not
 * more of these. Otherwise none, all, each alone, all but each, and
 * nr_random random ones; and nr_torn more have one torn operation.
 */
enum { CRASH_MAX_EXHAUSTIVE = 12 };

struct crash_options {
    unsigned nr_random;
    unsigned nr_torn;
    uint64_t seed;
    unsigned first_mark;   /* cuts that this many marks do not precede are
                            * left out: they were tried with another log
                            * that begins alike */
};

#define CRASH_OPTIONS_INIT { .nr_random = 50, .nr_torn = 20, .seed = 1 }

struct crash_state {
    struct mem *image;  /* may be changed; freed after the call unless
                         * something is open on it */
    unsigned nr_marks;  /* marks number 0 to nr_marks - 1 precede the cut */
    const char *what;   /* the cut and what survived, for messages */
};

/* Non-zero ends the enumeration. */
typedef int crash_state_fn(void *opaque, const struct crash_state *state);

struct crash_stats {
    uint64_t nr_points;    /* places of cuts that can differ */
    uint64_t nr_sampled;   /* of them: not all subsets were tried */
    uint64_t nr_states;    /* made */
    uint64_t nr_distinct;  /* shown to the function */
    unsigned max_unsynced; /* a large one is a finding of its own */
};

/* Shows fn every state, in the order of the cuts. States equal in content
 * are shown once for all cuts that demand the same: the first one, which
 * allows least. Returns what fn returned last. stats may be NULL.
 */
int crash_log_enumerate(struct crash_log *log,
                        const struct crash_options *options,
                        crash_state_fn *fn, void *opaque,
                        struct crash_stats *stats);

/* Files that one power cut hits. Moments are numbers from 0 to the present
 * one; of logs that share a clock, which they must before anything is done,
 * the same ones. other lives longer. A flush of one file is none of another.
 */
void crash_log_share_clock(struct crash_log *log, struct crash_log *other);
uint64_t crash_log_moment(struct crash_log *log);

/* Of what is not stable. */
enum crash_survival { CRASH_NOTHING, CRASH_ALL, CRASH_ANY };

/* The nth flush from now on, counted from 1, fails as fdatasync does with a
 * kernel's page cache: of what had returned and is not stable, that much is
 * written, and the rest never is (CRASH_ANY: all, nothing or a part of each
 * operation, by seed). But the file reads as if all was, and later flushes
 * succeed without it, until the cache is dropped (io_drop_cache): then what
 * was not written is gone. Not for operations in flight meanwhile.
 */
void crash_log_fail_flush(struct crash_log *log, unsigned nth,
                          enum crash_survival survival, uint64_t seed);
bool crash_log_flush_failed(struct crash_log *log);

/* Whether dropping the cache has no effect: a process that was killed drops
 * nothing. */
void crash_log_keep_cache(struct crash_log *log, bool keep);

/* What a cut at that moment may leave of the file; rng: for CRASH_ANY, which
 * tears, too. The caller frees it. */
struct mem *crash_log_state_at(const struct crash_log *log, uint64_t moment,
                               enum crash_survival survival,
                               struct rng *rng);

#endif /* IO_CRASH_H */
