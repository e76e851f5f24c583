/* SPDX-License-Identifier: BSD-3-Clause */
/* test-snapshots: random sequences of requests, snapshots created, applied
 * and deleted, sizes changed and clusters preallocated, against a model, over
 * cluster sizes, versions, refcount widths and backing files; afterwards
 * nothing is damaged or leaked, and the other implementation finds the same.
 * TEST_ROUNDS and TEST_SEED make longer and other runs.
 */
#include <errno.h>
#include <stdlib.h>

#include "audit.h"
#include "contents.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "oracle.h"
#include "play.h"
#include "tmpdir.h"

enum backing { NO_BACKING, SHORTER, LONGER, NR_BACKINGS };

static const char *const backing_names[] = {
    "no backing", "shorter backing", "longer backing"
};

struct shape {
    unsigned version, cluster_bits, refcount_bits;
    enum backing backing;
    bool in_memory, extended; /* L2 entries */
    uint64_t size;
};

/* A snapshot that stays open while other things happen. */
struct reader {
    struct qcow2_disk *disk;
    char id[32];
};

struct trial {
    struct shape g;
    struct rng rng;
    struct mem *mem;        /* in memory: the file; otherwise at path */
    char path[1024];
    struct contents now;    /* but for the disk's bytes, which play has */
    struct play play;
    struct reader reader;
    uint64_t next_seed;
    unsigned nr_ops, nr_whole, nr_refused;
};

static uint64_t total_ops, total_whole, total_refused;

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static uint64_t
cluster_size_of(const struct trial *t)
{
    return UINT64_C(1) << t->g.cluster_bits;
}

static uint64_t
max_size(const struct trial *t)
{
    return t->g.size * 2;
}

/* A place for every kind of cluster. */
static struct builder *
make_image(const struct shape *g)
{
    struct builder *b = builder_new();

    builder_add(b, "version %u; cluster %u; refcount-bits %u; size %llu",
                g->version, 1u << g->cluster_bits, g->refcount_bits,
                (unsigned long long)g->size);
    if (g->extended)
        builder_add(b, "extended-l2");
    if (g->backing != NO_BACKING)
        builder_add(b, "backing base raw");
    builder_add(b, "data 0-1 1; gap 2; data 3 2");
    if (g->extended)
        builder_add(b, "subclusters 1 ddzzuudzp 7; subclusters 2 zpud 8");
    if (g->refcount_bits >= 8)
        builder_add(b, "compressed 4-6 3; gap 1; compressed 9 4");
    if (g->version > 2)
        builder_add(b, "zero 7; zero-alloc 8; zero 10-11");
    if (g->refcount_bits > 2) {
        builder_add(b, "snapshot 3 before; data 1-2 5; unallocated 3");
        if (g->extended)
            builder_add(b, "subclusters 1 uudzzd 9");
        if (g->refcount_bits >= 8)
            builder_add(b, "compressed 3 6");
    }
    return b;
}

static unsigned char *
make_backing(struct trial *t, uint64_t *nr_bytes)
{
    unsigned char *bytes;

    *nr_bytes = 0;
    if (t->g.backing == NO_BACKING)
        return NULL;
    *nr_bytes = t->g.backing == SHORTER ? t->g.size * 2 / 3 + 100
                                        : max_size(t) + 1000;
    bytes = must_have(malloc(*nr_bytes));
    pattern_fill(bytes, *nr_bytes, 77, 0);
    memset(bytes + *nr_bytes / 2, 0, *nr_bytes / 5);
    tmpdir_write_file(tmpdir_path("base"), bytes, *nr_bytes);
    return bytes;
}

static void
open_disk(struct trial *t)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;

    if (t->mem)
        t->play.disk = disk_open_io(io_mem_open(t->mem, false), t->path,
                                    &options, &err);
    else
        t->play.disk = qcow2_open(t->path, &options, &err);
    EXPECT(t->play.disk, "open: %s", err.text);
}

/* The disk's bytes are the model's from now on. */
static void
show_disk(struct trial *t)
{
    struct qcow2_disk *disk = t->play.disk;

    if (t->play.scratch)
        play_free(&t->play);
    play_init(&t->play, t->now.disk, t->now.size);
    t->play.disk = disk;
    t->play.cluster_size = cluster_size_of(t);
    if (t->g.extended)
        t->play.subcluster_size = cluster_size_of(t) / 32;
    t->play.may_keep_trimmed = t->g.version == 2 && t->g.backing;
    t->play.must_be_fast = t->g.version == 3;
}

static void
start(struct trial *t)
{
    struct builder *b = make_image(&t->g);
    uint64_t nr_below;
    unsigned char *below = make_backing(t, &nr_below);
    const unsigned char *bytes;
    size_t nr_bytes;

    snprintf(t->path, sizeof t->path, "%s", tmpdir_path("image"));
    bytes = builder_bytes(b, &nr_bytes);
    if (t->g.in_memory)
        t->mem = mem_new(bytes, nr_bytes);
    else
        builder_write(b, t->path);
    open_disk(t);
    contents_read(&t->now, t->play.disk);
    contents_expect_built(&t->now, b, below, nr_below);
    show_disk(t);
    builder_free(b);
    free(below);
}

static void
verify(struct trial *t)
{
    memcpy(t->now.disk, t->play.model.disk, t->now.size);
    contents_expect(t->play.disk, &t->now);
}

/* As the other implementation sees it: the disk, and in copies of the image
 * each snapshot applied. */
static void
ask_oracle(struct trial *t)
{
    const char *copy = tmpdir_path("copy");

    oracle_expect_clean(t->path);
    oracle_expect_content(t->path, t->now.disk, t->now.size);
    if (!oracle_present())
        return;
    for (unsigned i = 0; i < t->now.nr; i++) {
        const struct saved *s = &t->now.saved[i];

        EXPECT(oracle_run("cp '%s' '%s' && qemu-img snapshot -a %s '%s'",
                          t->path, copy, s->id, copy) == 0, "apply %s",
               s->name);
        oracle_expect_clean(copy);
        oracle_expect_content(copy, s->disk, s->size);
    }
}

static void
close_disk(struct trial *t)
{
    struct qcow2_error err;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    EXPECT_OK(qcow2_close(t->reader.disk, &err), &err);
    t->reader.disk = NULL;
    EXPECT_OK(qcow2_close(t->play.disk, &err), &err);
    if (!t->mem) {
        oracle_expect_clean(t->path);
        return;
    }
    bytes = mem_bytes(t->mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
}

static void
end(struct trial *t)
{
    play_free(&t->play);
    contents_free(&t->now);
    mem_free(t->mem);
    total_ops += t->nr_ops;
    total_whole += t->nr_whole;
    total_refused += t->nr_refused;
    tmpdir_clear();
}

static const struct saved *
saved_being_read(const struct trial *t)
{
    for (unsigned i = 0; t->reader.disk && i < t->now.nr; i++)
        if (strcmp(t->now.saved[i].id, t->reader.id) == 0)
            return &t->now.saved[i];
    return NULL;
}

/* Reads the snapshot that is open, or opens one, or closes it. */
static void
play_reader(struct trial *t)
{
    const struct saved *s = saved_being_read(t);
    struct qcow2_error err;
    unsigned char *got;

    if (!s) {
        if (t->now.nr == 0)
            return;
        s = &t->now.saved[rng_below(&t->rng, t->now.nr)];
        t->reader.disk = qcow2_open_snapshot(t->play.disk, s->id, &err);
        EXPECT(t->reader.disk, "%s", err.text);
        snprintf(t->reader.id, sizeof t->reader.id, "%s", s->id);
    }
    got = must_have(malloc(s->size + 1));
    EXPECT_OK(qcow2_pread(t->reader.disk, got, s->size, 0, &err), &err);
    expect_same("snapshot", got, s->disk, s->size, 0);
    free(got);
    if (rng_percent(&t->rng, 50)) {
        EXPECT_OK(qcow2_close(t->reader.disk, &err), &err);
        t->reader.disk = NULL;
    }
}

/* Is it right to refuse op? Then nothing may have changed. */
static bool
may_refuse(const struct trial *t, const struct whole_op *op,
           const struct qcow2_error *err)
{
    const struct saved *read = saved_being_read(t);

    switch (op->kind) {
    case WHOLE_CREATE:
    case WHOLE_APPLY:
        return err->errnum == ENOTSUP && t->g.refcount_bits < 8;
    case WHOLE_DELETE:
        return err->errnum == EBUSY && read == &t->now.saved[op->i];
    case WHOLE_RESIZE:
        return err->errnum == ENOTSUP && t->g.version == 2 && t->now.nr > 0;
    case WHOLE_PREALLOCATE:
    case WHOLE_AMEND:
        return false;
    }
    return false;
}

static void
play_whole(struct trial *t)
{
    struct whole_op op = whole_random(&t->now, &t->rng, cluster_size_of(t),
                                      max_size(t), t->mem ? 1 : 512,
                                      t->next_seed++);
    struct qcow2_error err;

    expect_step("%u: %s", t->nr_ops, whole_text(&op));
    t->nr_whole++;
    if (whole_run(t->play.disk, &t->now, &op, &err) == 0) {
        EXPECT(op.kind != WHOLE_DELETE
               || saved_being_read(t) != &t->now.saved[op.i],
               "a snapshot that is being read was deleted");
        memcpy(t->now.disk, t->play.model.disk, t->now.size);
        whole_model(&t->now, &op);
        show_disk(t);
    } else {
        EXPECT(may_refuse(t, &op, &err), "%s", err.text);
        t->nr_refused++;
    }
    if (rng_percent(&t->rng, 30))
        verify(t);
}

static void
play_request(struct trial *t)
{
    struct op op = play_random(&t->play, &t->rng, t->next_seed++);
    struct qcow2_error err;

    expect_step("%u: %s", t->nr_ops, play_text(&op));
    if (op.kind == OP_REOPEN) {
        verify(t);
        close_disk(t);
        open_disk(t);
        verify(t);
    } else {
        EXPECT_OK(play_op(&t->play, &op, &err), &err);
    }
}

static void
try_geometry(const struct shape *g, unsigned nr_ops, uint64_t stream)
{
    uint64_t seed = rng_seed(1);
    struct trial t = { .g = *g, .next_seed = 100 };

    expect_case("TEST_SEED=%llu: stream %llu: v%u, clusters of %u, refcounts "
                "of %u bits,%s %s, size %llu", (unsigned long long)seed,
                (unsigned long long)stream, g->version, 1u << g->cluster_bits,
                g->refcount_bits, g->extended ? " subclusters," : "",
                backing_names[g->backing],
                (unsigned long long)g->size);
    rng_init(&t.rng, seed, stream);
    start(&t);
    for (; t.nr_ops < nr_ops; t.nr_ops++) {
        unsigned dice = rng_below(&t.rng, 100);

        if (dice < 25)
            play_whole(&t);
        else if (dice < 30)
            play_reader(&t);
        else
            play_request(&t);
    }
    expect_step("the end");
    verify(&t);
    close_disk(&t);
    if (!t.mem)
        ask_oracle(&t);
    open_disk(&t);
    verify(&t);
    close_disk(&t);
    end(&t);
}

static void
report(void)
{
    print_message("%llu operations, of them %llu on whole tables (%llu "
                  "refused)\n", (unsigned long long)total_ops,
                  (unsigned long long)total_whole,
                  (unsigned long long)total_refused);
    total_ops = total_whole = total_refused = 0;
}

/* Sizes end inside a sector, at a sector, at a cluster; small clusters need
 * several L2 tables. */
static uint64_t
size_for(unsigned cluster_bits, unsigned n)
{
    uint64_t nr_clusters = cluster_bits > 18 ? 12 : 180 - 10 * cluster_bits;
    static const unsigned cut[] = { 100, 512, 0, 700 };

    return (nr_clusters << cluster_bits) - cut[n % 4];
}

static void
every_geometry(void **state)
{
    static const unsigned widths[] = { 16, 64, 8, 4, 32, 2, 1 };
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned i = 0; i < 96 * rounds; i++) {
        struct shape g = {
            .version = i % 4 == 0 ? 2 : 3,
            .backing = i / 4 % NR_BACKINGS,
            .cluster_bits = 9 + i / 12 % 8,
            .in_memory = true,
        };

        g.refcount_bits = g.version == 2 ? 16 : widths[i % 7];
        g.size = size_for(g.cluster_bits, i);
        try_geometry(&g, 120, i);
    }
    report();
}

static void
subclusters(void **state)
{
    static const unsigned widths[] = { 16, 64, 4 };
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned i = 0; i < 12 * rounds; i++) {
        struct shape g = {
            .version = 3,
            .backing = i % NR_BACKINGS,
            .cluster_bits = 14 + i / 3 % 3,
            .refcount_bits = widths[i / 2 % 3],
            .in_memory = i % 4 > 0,
            .extended = true,
        };

        g.size = size_for(g.cluster_bits, g.in_memory ? i : 1);
        try_geometry(&g, 80, 3000 + i);
    }
    report();
}

static void
largest_clusters(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct shape g = {
            .version = 3 - i,
            .backing = i ? LONGER : NO_BACKING,
            .cluster_bits = 21,
            .refcount_bits = 16,
            .in_memory = true,
        };

        g.size = size_for(g.cluster_bits, i);
        try_geometry(&g, 40, 1000 + i);
    }
    report();
}

/* The same on real files, judged by the other implementation. */
static void
real_files_satisfy_qemu(void **state)
{
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned i = 0; i < 12 * rounds; i++) {
        struct shape g = {
            .version = i % 3 == 0 ? 2 : 3,
            .backing = i / 3 % NR_BACKINGS,
            .cluster_bits = 9 + i % 8,
            .refcount_bits = 16,
        };

        g.size = size_for(g.cluster_bits, 1);
        try_geometry(&g, 60, 2000 + i);
    }
    report();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_geometry),
        cmocka_unit_test(subclusters),
        cmocka_unit_test(largest_clusters),
        cmocka_unit_test(real_files_satisfy_qemu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
