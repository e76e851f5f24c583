/* SPDX-License-Identifier: BSD-3-Clause */
/* test-concurrent-snapshots: threads write, zero and flush while another
 * creates, applies and deletes snapshots and lets the disk grow; after that
 * every state that a power cut may leave is tried. CRASH_LONG=1 does more of
 * it; the order of threads is not the seed's.
 *
 * A content is legal where no other one began after it had been answered
 * and is durable: real time is the order, whichever thread it was.
 */
#include <pthread.h>
#include <stdlib.h>

#include "expect.h"
#include "io-crash.h"
#include "rig.h"
#include "states.h"

enum {
    NR_WRITERS = 3, NR_WRITES = 9, NR_WHOLE = 5,
    SIZE = 20480, NR_SECTORS = SIZE / SECTOR,
    MAX_VERSIONS = 40, MAX_SAVED = 4,
    LAST_CONTENT = 4711,
};

/* A content of a sector, or a size of the disk. */
struct version {
    uint64_t sent, answered; /* moments */
    bool durable;            /* once it is answered */
    union {
        unsigned char bytes[SECTOR];
        uint64_t size;
    };
};

struct versions {
    struct version of[MAX_VERSIONS];
    unsigned nr;
};

struct saved {
    char name[16];
    uint64_t size;
    uint64_t create_sent, created, delete_sent, deleted;
    unsigned char content[SIZE];
};

struct trial {
    struct rig rig;
    struct crash_log *log;
    pthread_mutex_t lock;
    struct versions sectors[NR_SECTORS], sizes;
    struct { uint64_t sent, answered; } flushes[NR_WRITERS * NR_WRITES + 1];
    unsigned nr_flushes;
    struct saved saved[MAX_SAVED];
    unsigned nr_saved;
};

struct thread {
    struct trial *t;
    pthread_barrier_t *start;
    struct rng rng;
    unsigned index;
    struct qcow2_error err;
    int result;
};

static uint64_t
mark(struct trial *t, enum crash_mark what)
{
    return crash_log_mark(t->log, what) + 1;
}

static struct version *
add_version(struct versions *v, uint64_t sent)
{
    EXPECT(v->nr < MAX_VERSIONS, "too many versions");
    v->of[v->nr] = (struct version){ .sent = sent, .answered = UINT64_MAX };
    return &v->of[v->nr++];
}

/* Was w durable before the cut, and did it come after v? */
static bool
is_over(const struct version *v, const struct version *w, uint64_t flushed,
        uint64_t moment)
{
    return w->sent > v->answered
           && (w->answered < flushed
               || (w->durable && w->answered <= moment));
}

/* flushed: when the last flush that was answered before was sent. */
static bool
version_legal(const struct versions *all, const struct version *v,
              uint64_t flushed, uint64_t moment)
{
    if (v->sent > moment)
        return false;
    for (unsigned i = 0; i < all->nr; i++)
        if (is_over(v, &all->of[i], flushed, moment))
            return false;
    return true;
}

static bool
sector_legal(const struct trial *t, unsigned sector,
             const unsigned char *got, uint64_t flushed, uint64_t moment)
{
    const struct versions *all = &t->sectors[sector];

    for (unsigned i = all->nr; i-- > 0; )
        if (memcmp(all->of[i].bytes, got, SECTOR) == 0
            && version_legal(all, &all->of[i], flushed, moment))
            return true;
    return false;
}

static uint64_t
flushed_before(const struct trial *t, uint64_t moment)
{
    uint64_t sent = 0;

    for (unsigned i = 0; i < t->nr_flushes; i++)
        if (t->flushes[i].answered <= moment && t->flushes[i].sent > sent)
            sent = t->flushes[i].sent;
    return sent;
}

/* Writers. */

static int
flush(struct thread *w)
{
    struct trial *t = w->t;
    uint64_t sent, answered;

    sent = mark(t, CRASH_MARK_ALLOWS);
    if (qcow2_flush(t->rig.play.disk, &w->err) != 0)
        return -1;
    pthread_mutex_lock(&t->lock);
    answered = mark(t, CRASH_MARK_DEMANDS);
    t->flushes[t->nr_flushes].sent = sent;
    t->flushes[t->nr_flushes++].answered = answered;
    pthread_mutex_unlock(&t->lock);
    return 0;
}

/* Sectors of the writers alternate, and share clusters. */
static int
write_sector(struct thread *w, unsigned nth)
{
    struct trial *t = w->t;
    unsigned nr = NR_SECTORS / NR_WRITERS;
    unsigned sector = rng_below(&w->rng, nr) * NR_WRITERS + w->index;
    uint64_t off = (uint64_t)sector * SECTOR;
    unsigned flags = rng_percent(&w->rng, 15) ? QCOW2_FUA : 0;
    bool zero = rng_percent(&w->rng, 30);
    unsigned char bytes[SECTOR];
    struct version *v;
    int r;

    pattern_fill(bytes, SECTOR, zero ? 0 : 1000 * (w->index + 1) + nth, off);
    pthread_mutex_lock(&t->lock);
    v = add_version(&t->sectors[sector], mark(t, CRASH_MARK_ALLOWS));
    memcpy(v->bytes, bytes, SECTOR);
    pthread_mutex_unlock(&t->lock);
    r = zero ? qcow2_zero(t->rig.play.disk, SECTOR, off,
                          flags | QCOW2_MAY_TRIM, &w->err)
             : qcow2_pwrite(t->rig.play.disk, bytes, SECTOR, off, flags,
                            &w->err);
    pthread_mutex_lock(&t->lock);
    v->durable = flags & QCOW2_FUA;
    v->answered = mark(t, v->durable ? CRASH_MARK_DEMANDS
                                     : CRASH_MARK_ALLOWS);
    pthread_mutex_unlock(&t->lock);
    return r;
}

static void *
write_sectors(void *arg)
{
    struct thread *w = arg;

    pthread_barrier_wait(w->start);
    for (unsigned i = 0; i < NR_WRITES && w->result == 0; i++)
        w->result = rng_percent(&w->rng, 15) ? flush(w) : write_sector(w, i);
    return NULL;
}

/* Whole operations. */

static bool
is_there(const struct saved *s)
{
    return s->delete_sent == UINT64_MAX;
}

/* The snapshot is read at once: it holds what states must show. */
static int
create(struct thread *w)
{
    static const struct qcow2_snapshot_create_options plain = { 0 };
    struct trial *t = w->t;
    struct saved *s = &t->saved[t->nr_saved];
    struct qcow2_disk *disk;
    int r;

    snprintf(s->name, sizeof s->name, "s%u", t->nr_saved);
    s->created = s->delete_sent = s->deleted = UINT64_MAX;
    s->create_sent = mark(t, CRASH_MARK_ALLOWS);
    if (qcow2_snapshot_create(t->rig.play.disk, s->name, &plain, &w->err)
        != 0)
        return -1;
    s->created = mark(t, CRASH_MARK_DEMANDS);
    t->nr_saved++;
    disk = qcow2_open_snapshot(t->rig.play.disk, s->name, &w->err);
    if (!disk)
        return -1;
    s->size = qcow2_get_size(disk);
    r = qcow2_pread(disk, s->content, SIZE, 0, &w->err);
    return qcow2_close(disk, &w->err) == 0 ? r : -1;
}

static int
delete(struct thread *w, struct saved *s)
{
    s->delete_sent = mark(w->t, CRASH_MARK_ALLOWS);
    if (qcow2_snapshot_delete(w->t->rig.play.disk, s->name, &w->err) != 0)
        return -1;
    s->deleted = mark(w->t, CRASH_MARK_DEMANDS);
    return 0;
}

static int
apply(struct thread *w, const struct saved *s)
{
    struct trial *t = w->t;
    struct version *v[NR_SECTORS], *size;
    uint64_t sent, answered;
    int r;

    pthread_mutex_lock(&t->lock);
    sent = mark(t, CRASH_MARK_ALLOWS);
    for (unsigned i = 0; i < NR_SECTORS; i++) {
        v[i] = add_version(&t->sectors[i], sent);
        memcpy(v[i]->bytes, s->content + i * SECTOR, SECTOR);
    }
    size = add_version(&t->sizes, sent);
    size->size = s->size;
    pthread_mutex_unlock(&t->lock);
    r = qcow2_snapshot_apply(t->rig.play.disk, s->name, &w->err);
    pthread_mutex_lock(&t->lock);
    answered = mark(t, CRASH_MARK_DEMANDS);
    for (unsigned i = 0; i < NR_SECTORS; i++) {
        v[i]->durable = true;
        v[i]->answered = answered;
    }
    size->durable = true;
    size->answered = answered;
    pthread_mutex_unlock(&t->lock);
    return r;
}

static int
grow(struct thread *w)
{
    struct trial *t = w->t;
    uint64_t to = SIZE + rng_below(&w->rng, 30) * SECTOR;
    struct version *size = add_version(&t->sizes,
                                       mark(t, CRASH_MARK_ALLOWS));

    size->size = to;
    if (qcow2_resize(t->rig.play.disk, to, true, &w->err) != 0)
        return -1;
    size->durable = true;
    size->answered = mark(t, CRASH_MARK_DEMANDS);
    return 0;
}

static int
change_whole(struct thread *w)
{
    struct trial *t = w->t;
    unsigned dice = rng_below(&w->rng, 100);
    struct saved *s;

    if (t->nr_saved == 0 || (dice < 40 && t->nr_saved < MAX_SAVED))
        return create(w);
    s = &t->saved[rng_below(&w->rng, t->nr_saved)];
    if (!is_there(s) || dice < 55)
        return grow(w);
    return dice < 80 ? apply(w, s) : delete(w, s);
}

static void *
change_all(void *arg)
{
    struct thread *w = arg;

    pthread_barrier_wait(w->start);
    for (unsigned i = 0; i < NR_WHOLE && w->result == 0; i++)
        w->result = change_whole(w);
    return NULL;
}

static void
run_threads(struct trial *t, uint64_t stream)
{
    struct thread threads[NR_WRITERS + 1];
    pthread_t ids[NR_WRITERS + 1];
    pthread_barrier_t start;

    pthread_barrier_init(&start, NULL, NR_WRITERS + 1);
    for (unsigned i = 0; i <= NR_WRITERS; i++) {
        threads[i] = (struct thread){ .t = t, .start = &start, .index = i };
        rng_init(&threads[i].rng, rng_seed(1), stream + i);
        EXPECT(pthread_create(&ids[i], NULL,
                              i < NR_WRITERS ? write_sectors : change_all,
                              &threads[i]) == 0, "thread");
    }
    for (unsigned i = 0; i <= NR_WRITERS; i++)
        pthread_join(ids[i], NULL);
    for (unsigned i = 0; i <= NR_WRITERS; i++)
        EXPECT(threads[i].result == 0, "thread %u: %s", i,
               threads[i].err.text);
    pthread_barrier_destroy(&start);
}

/* States. */

static void
expect_saved(const struct trial *t, struct qcow2_disk *disk, uint64_t moment)
{
    unsigned char got[SIZE];
    unsigned nr = 0;

    for (unsigned i = 0; i < t->nr_saved; i++) {
        const struct saved *s = &t->saved[i];
        struct qcow2_error err;
        struct qcow2_disk *snapshot = qcow2_open_snapshot(disk, s->name,
                                                          &err);

        EXPECT(snapshot || s->created > moment || s->delete_sent <= moment,
               "%s is missing: %s", s->name, err.text);
        EXPECT(!snapshot || (s->create_sent <= moment
                             && s->deleted > moment),
               "%s is there", s->name);
        if (!snapshot)
            continue;
        nr++;
        EXPECT(qcow2_get_size(snapshot) == s->size, "%s: size", s->name);
        EXPECT_OK(qcow2_pread(snapshot, got, SIZE, 0, &err), &err);
        expect_same(s->name, got, s->content, SIZE, 0);
        EXPECT_OK(qcow2_close(snapshot, &err), &err);
    }
    EXPECT(qcow2_get_nr_snapshots(disk) == nr, "%zu snapshots",
           qcow2_get_nr_snapshots(disk));
}

static void
expect_disk(const struct trial *t, struct qcow2_disk *disk, uint64_t moment)
{
    uint64_t size = qcow2_get_size(disk), flushed = flushed_before(t, moment);
    unsigned char got[SIZE];
    struct qcow2_error err;
    bool legal = false;

    for (unsigned i = 0; i < t->sizes.nr; i++)
        legal |= t->sizes.of[i].size == size
                 && version_legal(&t->sizes, &t->sizes.of[i], 0, moment);
    EXPECT(legal, "size %llu", (unsigned long long)size);
    EXPECT_OK(qcow2_pread(disk, got, SIZE, 0, &err), &err);
    for (unsigned i = 0; i < NR_SECTORS; i++)
        EXPECT(sector_legal(t, i, got + i * SECTOR, flushed, moment),
               "sector %u: %02x %02x %02x…", i, got[i * SECTOR],
               got[i * SECTOR + 1], got[i * SECTOR + 2]);
}

static int
check_state(void *opaque, const struct crash_state *state)
{
    struct trial *t = opaque;
    unsigned char bytes[SIZE];
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct audit before, after;
    uint64_t nr_bytes;
    const unsigned char *file;

    expect_step("%s", state->what);
    before = states_expect_sound(state->image);
    disk = rig_open_disk(&t->rig, io_mem_open(state->image, false));
    expect_disk(t, disk, state->nr_marks);
    expect_saved(t, disk, state->nr_marks);
    pattern_fill(bytes, SIZE, LAST_CONTENT, 0);
    EXPECT_OK(qcow2_pwrite(disk, bytes, SIZE, 0, 0, &err), &err);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    expect_saved(t, disk, state->nr_marks);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    file = mem_bytes(state->image, &nr_bytes);
    audit_image(file, nr_bytes, &after);
    EXPECT(after.nr_corruptions + after.nr_uncopied == 0 && !after.dirty,
           "used: %s", after.first);
    EXPECT(after.nr_leaks <= (before.dirty ? 0 : before.nr_leaks),
           "%u leaks became %u", before.nr_leaks, after.nr_leaks);
    return 0;
}

/* Did the sector read so at some moment between? */
static bool
was_there(const struct versions *all, const unsigned char *got,
          uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < all->nr; i++) {
        const struct version *v = &all->of[i];
        bool over = v->sent > to || memcmp(v->bytes, got, SECTOR) != 0;

        for (unsigned k = 0; k < all->nr && !over; k++)
            over = all->of[k].sent > v->answered
                   && all->of[k].answered < from;
        if (!over)
            return true;
    }
    return false;
}

/* What a snapshot holds was the disk at some moment while it was made. */
static void
expect_saved_legal(const struct trial *t)
{
    for (unsigned i = 0; i < t->nr_saved; i++) {
        const struct saved *s = &t->saved[i];

        for (unsigned k = 0; k < NR_SECTORS; k++)
            EXPECT(was_there(&t->sectors[k], s->content + k * SECTOR,
                             s->create_sent, s->created),
                   "%s, sector %u", s->name, k);
    }
}

static void
run(struct trial *t, const char *recipe, unsigned round)
{
    struct crash_options options = {
        .nr_random = 5, .nr_torn = 4, .seed = rng_seed(1)
    };
    struct qcow2_error err;

    expect_case("TEST_SEED=%llu: %s, round %u",
                (unsigned long long)rng_seed(1), recipe, round);
    memset(t, 0, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    rig_init(&t->rig, recipe, 15000);
    rig_start(&t->rig);
    t->log = crash_log_new(t->rig.mem);
    t->rig.play.disk = rig_open_disk(&t->rig, io_crash_open(t->log));
    for (unsigned i = 0; i < NR_SECTORS; i++) {
        struct version *v = add_version(&t->sectors[i], 0);

        v->answered = 0;
        memcpy(v->bytes, t->rig.play.model.disk + i * SECTOR, SECTOR);
    }
    *add_version(&t->sizes, 0) = (struct version){ .size = SIZE };
    run_threads(t, round * 100);
    EXPECT_OK(qcow2_close(t->rig.play.disk, &err), &err);
    t->flushes[t->nr_flushes].sent = mark(t, CRASH_MARK_ALLOWS);
    t->flushes[t->nr_flushes++].answered = mark(t, CRASH_MARK_DEMANDS);
    expect_saved_legal(t);
    crash_log_enumerate(t->log, &options, check_state, t, NULL);
    crash_log_free(t->log);
    rig_end(&t->rig);
    rig_free(&t->rig);
    pthread_mutex_destroy(&t->lock);
}

static void
threads_and_operations_on_the_whole_image(void **state)
{
    static const char *const recipes[] = {
        "cluster 1K; refcount-bits 64; size 20480; backing base.raw raw;"
        "data 0-5 1; zero-alloc 7; compressed 8-11 2; gap 3",
        "cluster 512; refcount-bits 16; size 20480; backing base.raw raw;"
        "data 0-5 1; zero 6; compressed 8-11 2; gap 3",
    };
    unsigned nr = states_are_many() ? 60 : 12;
    struct trial *t = malloc(sizeof *t);

    (void)state;
    assert_non_null(t);
    for (unsigned i = 0; i < nr; i++)
        run(t, recipes[i % 2], i);
    free(t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_operations_on_the_whole_image),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    states_print();
    return failed;
}
