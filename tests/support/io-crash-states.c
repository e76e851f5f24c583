/* SPDX-License-Identifier: BSD-3-Clause */
/* io-crash-states.c: makes the states that a power cut may leave out of
 * the log; see io-crash.h.
 *
 * A state is the base (all operations up to the first that is not stable)
 * and some of the operations after it, applied in the order of the log. One
 * buffer holds the base; another gets the operations of a state applied,
 * and taken back by copying what they touched from the base. Hashes are
 * sums over sectors, so equal states are found by looking at what was
 * touched alone.
 */
#include "io-crash-private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "rng.h"
#include "states.h"

enum { SECTOR = 512 };

static const char *const op_names[] = {
    "write", "zero", "punch", "truncate", "flush"
};

/* What survives of an operation. */
enum survival { NOTHING, ALL, TORN };

/* Bytes past size are zero. */
struct content {
    unsigned char *bytes;
    uint64_t size;
};

struct cut {
    const struct crash_log *log;
    const struct crash_options *options;
    crash_state_fn *fn;
    void *opaque;
    struct crash_stats *stats;
    struct rng rng;

    uint64_t capacity;      /* of both contents: whole sectors */
    struct content base, state;
    uint64_t base_hash, state_hash;
    uint32_t *visited;      /* a sector: the last state that touched it */
    uint32_t visit;

    bool *stable;           /* one an operation */
    unsigned base_end;      /* the base is all operations before this one */
    unsigned begun;         /* operations begun before the cut */
    unsigned nr_marks, nr_demands;
    uint64_t nr_walked;     /* cuts, shown or not */

    unsigned *unsynced;     /* indexes of operations */
    unsigned nr_unsynced;
    enum survival *survives; /* one an unsynced operation */
    uint64_t *first_sector; /* of each of them in `sectors`, and the end */
    bool *sectors;          /* of torn ones: which survive */
    uint64_t max_sectors;

    uint64_t *seen;         /* hash table; 0 is empty */
    uint64_t nr_seen, max_seen;
};

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static uint64_t
mix(uint64_t z)
{
    z = (z ^ (z >> 32)) * UINT64_C(0xd6e8feb86659fd93);
    z = (z ^ (z >> 32)) * UINT64_C(0xd6e8feb86659fd93);
    return z ^ (z >> 32);
}

/* 0 for a sector of zeroes, so that growing a file changes no sum. */
static uint64_t
sector_hash(const struct content *c, uint64_t sector)
{
    const unsigned char *p = c->bytes + sector * SECTOR;
    uint64_t h = sector + 1, any = 0;

    for (unsigned i = 0; i < SECTOR; i += 8) {
        uint64_t word;

        memcpy(&word, p + i, sizeof word);
        any |= word;
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return any ? mix(h) : 0;
}

/* Operations on contents. */

/* What an operation may change, to the sector. */
static void
touched(const struct cut *cut, const struct op *op, uint64_t *first,
        uint64_t *end)
{
    uint64_t op_end = op->kind == OP_TRUNCATE ? cut->capacity
                                              : op->off + op->nr_bytes;

    *first = min_u64(op->off, cut->capacity) / SECTOR;
    *end = div_round_up(min_u64(op_end, cut->capacity), SECTOR);
}

/* The part [from, from + nr_bytes) of a write or zero. */
static void
apply_part(struct content *c, const struct op *op, uint64_t from,
           uint64_t nr_bytes)
{
    unsigned char *to = c->bytes + op->off + from;

    if (op->kind == OP_WRITE)
        memcpy(to, op->data + from, nr_bytes);
    else
        memset(to, 0, nr_bytes);
    if (op->kind != OP_PUNCH)
        c->size = max_u64(c->size, op->off + from + nr_bytes);
}

static void
apply(const struct cut *cut, struct content *c, const struct op *op)
{
    if (op->failed)
        return;
    switch (op->kind) {
    case OP_WRITE:
    case OP_ZERO:
        apply_part(c, op, 0, op->nr_bytes);
        break;
    case OP_PUNCH:
        if (op->off < c->size)
            apply_part(c, op, 0, min_u64(op->nr_bytes, c->size - op->off));
        break;
    case OP_TRUNCATE:
        if (op->off < c->size)
            memset(c->bytes + op->off, 0, cut->capacity - op->off);
        c->size = op->off;
        break;
    case OP_FLUSH:
        break;
    }
}

/* Into how many parts a cut may tear it. */
static uint64_t
nr_sectors(const struct op *op)
{
    bool in_sectors = op->kind == OP_WRITE || op->kind == OP_ZERO
                      || op->kind == OP_PUNCH;

    if (!in_sectors || op->failed || op->nr_bytes == 0)
        return 1;
    return div_round_up(op->off % SECTOR + op->nr_bytes, SECTOR);
}

/* Applies those sectors of op that `sectors` says. */
static void
apply_torn(const struct cut *cut, struct content *c, const struct op *op,
           const bool *sectors)
{
    uint64_t end = op->nr_bytes;

    if (op->kind == OP_PUNCH)
        end = min_u64(end, cut->capacity - min_u64(op->off, cut->capacity));
    for (uint64_t from = 0; from < end; sectors++) {
        uint64_t at = op->off + from;
        uint64_t n = min_u64(SECTOR - at % SECTOR, end - from);

        if (*sectors)
            apply_part(c, op, from, n);
        from += n;
    }
}

/* All of what `survives` chooses, on top of the base. Operations before the
 * first unsynced one are in the base; others that are stable are applied in
 * their turn.
 */
static void
build_state(struct cut *cut)
{
    unsigned u = 0;

    for (unsigned i = cut->base_end; i < cut->begun; i++) {
        const struct op *op = &cut->log->ops[i];

        if (cut->stable[i] || op->kind == OP_FLUSH) {
            apply(cut, &cut->state, op);
            continue;
        }
        if (cut->survives[u] == TORN)
            apply_torn(cut, &cut->state, op,
                       cut->sectors + cut->first_sector[u]);
        else if (cut->survives[u] == ALL)
            apply(cut, &cut->state, op);
        u++;
    }
}

static void
hash_state(struct cut *cut)
{
    cut->visit++;
    cut->state_hash = cut->base_hash;
    for (unsigned i = cut->base_end; i < cut->begun; i++) {
        uint64_t s, end;

        for (touched(cut, &cut->log->ops[i], &s, &end); s < end; s++) {
            if (cut->visited[s] == cut->visit)
                continue;
            cut->visited[s] = cut->visit;
            cut->state_hash += sector_hash(&cut->state, s)
                               - sector_hash(&cut->base, s);
        }
    }
}

static void
take_back_state(struct cut *cut)
{
    for (unsigned i = cut->base_end; i < cut->begun; i++) {
        uint64_t s, end;

        touched(cut, &cut->log->ops[i], &s, &end);
        if (s < end)
            memcpy(cut->state.bytes + s * SECTOR,
                   cut->base.bytes + s * SECTOR, (end - s) * SECTOR);
    }
    cut->state.size = cut->base.size;
}

/* Moves op, which is stable, into the base. */
static void
add_to_base(struct cut *cut, const struct op *op)
{
    uint64_t first, end;

    touched(cut, op, &first, &end);
    for (uint64_t s = first; s < end; s++)
        cut->base_hash -= sector_hash(&cut->base, s);
    apply(cut, &cut->base, op);
    for (uint64_t s = first; s < end; s++)
        cut->base_hash += sector_hash(&cut->base, s);
    if (first < end)
        memcpy(cut->state.bytes + first * SECTOR,
               cut->base.bytes + first * SECTOR, (end - first) * SECTOR);
    cut->state.size = cut->base.size;
}

/* Showing states. */

/* Enters key; was it there? */
static bool
seen_before(struct cut *cut, uint64_t key)
{
    uint64_t i;

    if (cut->nr_seen * 2 >= cut->max_seen) {
        uint64_t *old = cut->seen, nr_old = cut->max_seen;

        cut->max_seen = nr_old ? nr_old * 2 : 1024;
        cut->seen = must_have(calloc(cut->max_seen, sizeof *cut->seen));
        cut->nr_seen = 0;
        for (i = 0; i < nr_old; i++)
            if (old[i])
                seen_before(cut, old[i]);
        free(old);
    }
    key += key == 0;
    for (i = key & (cut->max_seen - 1); cut->seen[i];
         i = (i + 1) & (cut->max_seen - 1))
        if (cut->seen[i] == key)
            return true;
    cut->seen[i] = key;
    cut->nr_seen++;
    return false;
}

static void
describe(const struct cut *cut, char *buf, size_t size)
{
    int n = snprintf(buf, size, "cut after operation %u of %u, mark %u;"
                     " of %u unsynced survive:", cut->begun,
                     cut->log->nr_ops, cut->nr_marks, cut->nr_unsynced);

    for (unsigned u = 0; u < cut->nr_unsynced && (size_t)n < size; u++) {
        const struct op *op = &cut->log->ops[cut->unsynced[u]];

        if (cut->survives[u] == NOTHING)
            continue;
        n += snprintf(buf + n, size - n, " %s%s 0x%llx+0x%llx",
                      cut->survives[u] == TORN ? "torn " : "",
                      op_names[op->kind],
                      (unsigned long long)op->off,
                      (unsigned long long)op->nr_bytes);
    }
}

static int
show(struct cut *cut)
{
    char what[1024];
    struct crash_state s = { .nr_marks = cut->nr_marks, .what = what };
    uint64_t key;
    int r = 0;

    build_state(cut);
    hash_state(cut);
    cut->stats->nr_states++;
    key = mix(cut->state_hash ^ mix(cut->state.size)
              ^ mix(~(uint64_t)cut->nr_demands));
    if (!seen_before(cut, key)) {
        cut->stats->nr_distinct++;
        describe(cut, what, sizeof what);
        s.image = mem_like(cut->log->start, cut->state.bytes,
                           cut->state.size);
        r = cut->fn(cut->opaque, &s);
        mem_free(s.image);
    }
    take_back_state(cut);
    return r;
}

/* Choosing states. With `newest`, only those where something of the last
 * operation to begin survives: the others were possible at the cut before
 * it.
 */

static void
choose_all(struct cut *cut, bool survive)
{
    for (unsigned u = 0; u < cut->nr_unsynced; u++)
        cut->survives[u] = survive ? ALL : NOTHING;
}

static void
choose_any(struct cut *cut)
{
    for (unsigned u = 0; u < cut->nr_unsynced; u++)
        cut->survives[u] = rng_percent(&cut->rng, 50) ? ALL : NOTHING;
}

static int
show_with(struct cut *cut, bool newest)
{
    if (newest)
        cut->survives[cut->nr_unsynced - 1] = ALL;
    return show(cut);
}

static uint64_t
sectors_of(const struct cut *cut, unsigned u)
{
    return cut->first_sector[u + 1] - cut->first_sector[u];
}

/* Every subset of all sectors, of which there are few. */
static int
show_every_tear(struct cut *cut, bool newest)
{
    uint64_t n = cut->first_sector[cut->nr_unsynced];
    int r = 0;

    for (uint64_t mask = 0; mask < UINT64_C(1) << n && r == 0; mask++) {
        if (newest && mask >> cut->first_sector[cut->nr_unsynced - 1] == 0)
            continue;
        for (uint64_t i = 0; i < n; i++)
            cut->sectors[i] = mask >> i & 1;
        for (unsigned u = 0; u < cut->nr_unsynced; u++) {
            cut->survives[u] = TORN;
            if (sectors_of(cut, u) == 1)
                cut->survives[u] = cut->sectors[cut->first_sector[u]];
        }
        r = show(cut);
    }
    return r;
}

static int
show_every_subset(struct cut *cut, bool newest)
{
    unsigned n = cut->nr_unsynced - newest;
    int r = 0;

    for (uint64_t mask = 0; mask < UINT64_C(1) << n && r == 0; mask++) {
        for (unsigned u = 0; u < n; u++)
            cut->survives[u] = mask >> u & 1;
        r = show_with(cut, newest);
    }
    return r;
}

static int
show_some_subsets(struct cut *cut, bool newest)
{
    int r = 0;

    for (int all = 0; all <= 1 && r == 0; all++) {
        choose_all(cut, all);
        r = show_with(cut, newest);
        for (unsigned u = 0; u < cut->nr_unsynced && r == 0; u++) {
            choose_all(cut, all);
            cut->survives[u] = all ? NOTHING : ALL;
            r = show_with(cut, newest);
        }
    }
    for (unsigned i = 0; i < cut->options->nr_random && r == 0; i++) {
        choose_any(cut);
        r = show_with(cut, newest);
    }
    return r;
}

/* A prefix, a suffix, or any of the sectors. */
static void
tear(struct cut *cut, unsigned u)
{
    bool *sectors = cut->sectors + cut->first_sector[u];
    uint64_t nr = sectors_of(cut, u);
    uint64_t at = 1 + rng_below(&cut->rng, nr - 1);
    uint64_t how = rng_below(&cut->rng, 3);

    cut->survives[u] = TORN;
    for (uint64_t i = 0; i < nr; i++)
        sectors[i] = how == 0 ? i < at
                     : how == 1 ? i >= at : rng_percent(&cut->rng, 50);
}

/* Some states with one torn operation: each second one tears the newest, if
 * that can be. */
static int
show_torn(struct cut *cut, bool newest)
{
    unsigned nr_can = 0, last = cut->nr_unsynced - 1;
    int r = 0;

    for (unsigned u = 0; u < cut->nr_unsynced; u++)
        nr_can += sectors_of(cut, u) > 1;
    for (unsigned i = 0; nr_can && i < cut->options->nr_torn && !r; i++) {
        uint64_t which = rng_below(&cut->rng, nr_can);
        unsigned u = 0;

        while (sectors_of(cut, u) == 1 || which-- > 0)
            u++;
        if (newest && i % 2 == 0 && sectors_of(cut, last) > 1)
            u = last;
        choose_any(cut);
        tear(cut, u);
        r = show(cut);
    }
    return r;
}

static void
find_unsynced(struct cut *cut)
{
    uint64_t nr = 0;

    cut->nr_unsynced = 0;
    for (unsigned i = cut->base_end; i < cut->begun; i++) {
        const struct op *op = &cut->log->ops[i];

        if (cut->stable[i] || op->kind == OP_FLUSH)
            continue;
        cut->first_sector[cut->nr_unsynced] = nr;
        cut->unsynced[cut->nr_unsynced++] = i;
        nr += nr_sectors(op);
    }
    cut->first_sector[cut->nr_unsynced] = nr;
    if (nr > cut->max_sectors) {
        cut->max_sectors = 2 * nr;
        free(cut->sectors);
        cut->sectors = must_have(calloc(cut->max_sectors, sizeof(bool)));
    }
}

static int
show_point(struct cut *cut, bool newest)
{
    int r;

    cut->nr_walked++;
    if (cut->nr_marks < cut->options->first_mark)
        return 0;
    find_unsynced(cut);
    cut->stats->nr_points++;
    if (cut->stats->max_unsynced < cut->nr_unsynced)
        cut->stats->max_unsynced = cut->nr_unsynced;
    /* Cuts are independent of each other's number of states. */
    rng_init(&cut->rng, cut->options->seed, cut->nr_walked);

    if (cut->first_sector[cut->nr_unsynced] <= CRASH_MAX_EXHAUSTIVE)
        return show_every_tear(cut, newest);
    if (cut->nr_unsynced <= CRASH_MAX_EXHAUSTIVE) {
        r = show_every_subset(cut, newest);
    } else {
        cut->stats->nr_sampled++;
        r = show_some_subsets(cut, newest);
    }
    return r ? r : show_torn(cut, newest);
}

/* Flush f ended: all that had ended before it began is stable. */
static void
make_stable(struct cut *cut, const struct op *f)
{
    const struct crash_log *log = cut->log;

    for (unsigned i = cut->base_end; i < cut->begun; i++)
        if (log->ops[i].end && log->ops[i].end < f->begin)
            cut->stable[i] = true;
    while (cut->base_end < cut->begun
           && (cut->stable[cut->base_end]
               || log->ops[cut->base_end].kind == OP_FLUSH))
        add_to_base(cut, &log->ops[cut->base_end++]);
}

static int
walk(struct cut *cut)
{
    const struct crash_log *log = cut->log;
    int r = show_point(cut, false);

    for (unsigned i = 0; i < log->nr_events && r == 0; i++) {
        const struct event *e = &log->events[i];

        switch (e->kind) {
        case EVENT_OP_BEGINS:
            cut->begun = e->index + 1;
            r = show_point(cut, true);
            break;
        case EVENT_FLUSH_ENDS:
            make_stable(cut, &log->ops[e->index]);
            r = show_point(cut, false);
            break;
        case EVENT_MARK:
            cut->nr_marks++;
            if (e->mark == CRASH_MARK_DEMANDS) {
                cut->nr_demands++;
                r = show_point(cut, false);
            }
            break;
        }
    }
    return r;
}

static void
load_base(struct cut *cut)
{
    const unsigned char *bytes = mem_bytes(cut->log->start, &cut->base.size);

    cut->capacity = cut->base.size;
    for (unsigned i = 0; i < cut->log->nr_ops; i++) {
        const struct op *op = &cut->log->ops[i];

        if (!op->failed)
            cut->capacity = max_u64(cut->capacity, op->off + op->nr_bytes);
    }
    cut->capacity = round_up(max_u64(cut->capacity, 1), SECTOR);
    cut->base.bytes = must_have(calloc(1, cut->capacity));
    cut->state.bytes = must_have(malloc(cut->capacity));
    memcpy(cut->base.bytes, bytes, cut->base.size);
    memcpy(cut->state.bytes, cut->base.bytes, cut->capacity);
    cut->state.size = cut->base.size;
    for (uint64_t s = 0; s < cut->capacity / SECTOR; s++)
        cut->base_hash += sector_hash(&cut->base, s);
}

int
crash_log_enumerate(struct crash_log *log,
                    const struct crash_options *options, crash_state_fn *fn,
                    void *opaque, struct crash_stats *stats)
{
    struct crash_stats ignored;
    struct cut cut = {
        .log = log, .options = options, .fn = fn, .opaque = opaque,
        .stats = stats ? stats : &ignored,
    };
    unsigned nr = log->nr_ops + 1;
    int r;

    memset(cut.stats, 0, sizeof *cut.stats);
    load_base(&cut);
    cut.visited = must_have(calloc(cut.capacity / SECTOR,
                                   sizeof *cut.visited));
    cut.stable = must_have(calloc(nr, sizeof *cut.stable));
    cut.survives = must_have(calloc(nr, sizeof *cut.survives));
    cut.unsynced = must_have(calloc(nr, sizeof *cut.unsynced));
    cut.first_sector = must_have(calloc(nr + 1, sizeof *cut.first_sector));
    r = walk(&cut);
    states_tried(cut.stats);
    free(cut.base.bytes);
    free(cut.state.bytes);
    free(cut.visited);
    free(cut.stable);
    free(cut.survives);
    free(cut.unsynced);
    free(cut.first_sector);
    free(cut.sectors);
    free(cut.seen);
    return r;
}

/* One state. */

uint64_t
crash_log_last_flush(const struct crash_log *log, uint64_t moment)
{
    uint64_t begin = 0;

    for (unsigned i = 0; i < log->nr_ops; i++) {
        const struct op *op = &log->ops[i];

        if (op->kind == OP_FLUSH && op->end && op->end <= moment)
            begin = max_u64(begin, op->begin);
    }
    return begin;
}

/* Nothing, all, or any sectors of it. */
static void
apply_any(struct cut *cut, const struct op *op, struct rng *rng)
{
    uint64_t nr = nr_sectors(op);
    bool *sectors;

    if (nr == 1 || rng_percent(rng, 67)) {
        if (rng_percent(rng, 50))
            apply(cut, &cut->base, op);
        return;
    }
    sectors = must_have(calloc(nr, sizeof *sectors));
    for (uint64_t i = 0; i < nr; i++)
        sectors[i] = rng_percent(rng, 50);
    apply_torn(cut, &cut->base, op, sectors);
    free(sectors);
}

struct mem *
crash_log_state_at(const struct crash_log *log, uint64_t moment,
                   enum crash_survival survival, struct rng *rng)
{
    uint64_t flushed = crash_log_last_flush(log, moment);
    struct cut cut = { .log = log };
    struct mem *m;

    load_base(&cut);
    for (unsigned i = 0; i < log->nr_ops && log->ops[i].begin <= moment;
         i++) {
        const struct op *op = &log->ops[i];

        if ((op->end && op->end < flushed) || survival == CRASH_ALL)
            apply(&cut, &cut.base, op);
        else if (survival == CRASH_ANY && op->kind != OP_FLUSH)
            apply_any(&cut, op, rng);
    }
    m = mem_like(log->start, cut.base.bytes, cut.base.size);
    free(cut.base.bytes);
    free(cut.state.bytes);
    return m;
}
