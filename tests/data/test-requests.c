/* SPDX-License-Identifier: BSD-3-Clause */
/* test-requests: random requests against a flat model, over every cluster
 * size, both versions, all kinds of backing files, with and without
 * snapshots; afterwards nothing is damaged, leaked or changed that should
 * not be. TEST_ROUNDS and TEST_SEED make longer and other runs.
 */
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "disk/open.h"
#include "expect.h"
#include "io-mem.h"
#include "oracle.h"
#include "play.h"
#include "snapshots.h"
#include "tmpdir.h"

enum backing { NO_BACKING, OTHER_QCOW2, SHORT_RAW, LONG_RAW, NR_BACKINGS };

static const char *const backing_names[] = {
    "no backing", "qcow2 backing", "short raw backing", "long raw backing"
};

struct shape {
    unsigned version, cluster_bits, refcount_bits;
    enum backing backing;
    bool snapshots, zstd, extended_l2;
    uint64_t size;
};

struct trial {
    struct shape g;
    struct rng rng;
    struct builder *image;
    unsigned char *below;   /* what the backing file shows, of g.size */
    unsigned char *base;    /* the backing file's bytes */
    size_t nr_base;
    bool in_memory;
    struct mem *mem;        /* in memory: the file; otherwise at path */
    char path[1024];
    struct play play;
    uint64_t next_seed;
};

static uint64_t
new_seed(struct trial *t)
{
    return t->next_seed++;
}

/* A few clusters of every kind, in any order. */
static void
add_random_clusters(struct trial *t, struct builder *b, unsigned version,
                    bool compressed, uint64_t nr_clusters, unsigned nr_lines)
{
    static const char *const kinds[] = {
        "data", "data", "data", "compressed", "compressed", "unallocated",
        "zero", "zero-alloc", "gap"
    };

    while (nr_lines-- > 0) {
        const char *kind = kinds[rng_below(&t->rng, version == 2 ? 6 : 9)];
        uint64_t first = rng_below(&t->rng, nr_clusters);
        uint64_t n = rng_below(&t->rng, 4);

        if (first + n >= nr_clusters)
            n = nr_clusters - 1 - first;
        if (strcmp(kind, "gap") == 0)
            builder_add(b, "gap 1");
        else if (compressed || strcmp(kind, "compressed") != 0)
            builder_add(b, "%s %llu-%llu %llu", kind,
                        (unsigned long long)first,
                        (unsigned long long)(first + n),
                        (unsigned long long)new_seed(t));
    }
}

/* Clusters of which every subcluster is of some kind. */
static void
add_random_subclusters(struct trial *t, uint64_t nr_clusters)
{
    for (unsigned i = 0; t->g.extended_l2 && i < 4; i++) {
        char kinds[33] = "";

        for (unsigned j = 0; j < 32; j++)
            kinds[j] = j % 8 ? kinds[j - 1] : "dzup"[rng_below(&t->rng, 4)];
        for (unsigned j = 0; j < 6; j++)
            kinds[rng_below(&t->rng, 32)] = "dzup"[rng_below(&t->rng, 4)];
        builder_add(t->image, "subclusters %llu %s %llu",
                    (unsigned long long)rng_below(&t->rng, nr_clusters),
                    kinds, (unsigned long long)new_seed(t));
    }
}

static void
make_qcow2_backing(struct trial *t)
{
    unsigned bits = t->g.cluster_bits > 14 ? t->g.cluster_bits - 4
                                           : t->g.cluster_bits + 3;
    unsigned version = t->g.version == 2 ? 3 : 2;
    uint64_t cluster_size = UINT64_C(1) << bits;
    uint64_t size = t->g.size + 5 * 512;
    struct builder *b = builder_new();

    if (rng_percent(&t->rng, 50))
        size = t->g.size / 4 * 3;
    if (!t->in_memory) /* for qemu-img, which rounds down */
        size = size / 512 * 512;
    builder_add(b, "version %u; cluster %llu; size %llu", version,
                (unsigned long long)cluster_size, (unsigned long long)size);
    add_random_clusters(t, b, version, true,
                        (size + cluster_size - 1) / cluster_size, 8);
    builder_write(b, tmpdir_path("base"));
    builder_overlay(b, -1, t->below, size < t->g.size ? size : t->g.size);
    builder_free(b);
}

static void
make_raw_backing(struct trial *t, uint64_t size)
{
    unsigned char *bytes = malloc(size);

    if (!bytes)
        abort();
    pattern_fill(bytes, size, new_seed(t), 0);
    memset(bytes + size / 3, 0, size / 4);
    tmpdir_write_file(tmpdir_path("base"), bytes, size);
    memcpy(t->below, bytes, size < t->g.size ? size : t->g.size);
    free(bytes);
}

static void
make_backing(struct trial *t)
{
    t->below = calloc(1, t->g.size);
    if (!t->below)
        abort();
    switch (t->g.backing) {
    case NR_BACKINGS:
    case NO_BACKING:
        return;
    case OTHER_QCOW2:
        make_qcow2_backing(t);
        break;
    case SHORT_RAW:
        make_raw_backing(t, t->g.size / 2 + 100);
        break;
    case LONG_RAW:
        make_raw_backing(t, t->g.size + 70000);
        break;
    }
    t->base = tmpdir_read_file(tmpdir_path("base"), &t->nr_base);
}

static void
make_image(struct trial *t)
{
    const struct shape *g = &t->g;
    uint64_t cluster_size = UINT64_C(1) << g->cluster_bits;
    uint64_t nr_clusters = (g->size + cluster_size - 1) / cluster_size;
    unsigned nr_lines = g->cluster_bits > 18 ? 2 : 6;
    bool compressed = g->refcount_bits >= 8;

    make_backing(t);
    t->image = builder_new();
    builder_add(t->image, "version %u; cluster %llu; refcount-bits %u;"
                "size %llu; compression %s", g->version,
                (unsigned long long)cluster_size, g->refcount_bits,
                (unsigned long long)g->size, g->zstd ? "zstd" : "zlib");
    if (g->extended_l2)
        builder_add(t->image, "extended-l2");
    if (g->backing != NO_BACKING)
        builder_add(t->image, "backing base %s",
                    g->backing == OTHER_QCOW2 ? "qcow2" : "raw");
    add_random_clusters(t, t->image, g->version, compressed, nr_clusters,
                        nr_lines);
    add_random_subclusters(t, nr_clusters);
    for (unsigned i = 1; g->snapshots && i <= 2; i++) {
        builder_add(t->image, "snapshot %u name%u", i, i);
        add_random_clusters(t, t->image, g->version, compressed, nr_clusters,
                            nr_lines / 2);
        add_random_subclusters(t, nr_clusters);
    }
}

static void
open_disk(struct trial *t, bool readonly)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;

    options.readonly = readonly;
    if (t->mem) {
        t->play.host = io_mem_open(t->mem, true);
        t->play.disk = disk_open_io(io_mem_open(t->mem, readonly), t->path,
                                    &options, &err);
    } else {
        t->play.disk = qcow2_open(t->path, &options, &err);
    }
    EXPECT(t->play.disk, "open: %s", err.text);
    EXPECT(qcow2_get_size(t->play.disk) == t->g.size, "size");
}

static void
close_disk(struct trial *t)
{
    struct qcow2_error err;

    EXPECT_OK(qcow2_close(t->play.disk, &err), &err);
    io_close(t->play.host);
    t->play.host = NULL;
    if (t->mem) {
        uint64_t nr_bytes;
        const unsigned char *bytes = mem_bytes(t->mem, &nr_bytes);
        struct audit a;

        audit_image(bytes, nr_bytes, &a);
        EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), "
               "%u without COPIED, %u leaks%s", a.nr_corruptions, a.first,
               a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
    }
}

static void
verify_snapshots(struct trial *t)
{
    unsigned char *want = malloc(t->g.size), *got = malloc(t->g.size);
    struct qcow2_error err;

    if (!want || !got)
        abort();
    for (size_t i = 0; i < qcow2_get_nr_snapshots(t->play.disk); i++) {
        struct qcow2_snapshot info;
        struct qcow2_disk *s;

        snapshot_get(t->play.disk, i, &info);
        s = qcow2_open_snapshot(t->play.disk, info.name, &err);
        EXPECT(s, "snapshot %s: %s", info.name, err.text);
        memcpy(want, t->below, t->g.size);
        builder_overlay(t->image, i, want, t->g.size);
        EXPECT_OK(qcow2_pread(s, got, t->g.size, 0, &err), &err);
        expect_same("snapshot", got, want, t->g.size, 0);
        EXPECT_OK(qcow2_close(s, &err), &err);
    }
    free(want);
    free(got);
}

static void
expect_base_unchanged(struct trial *t)
{
    unsigned char *now;
    size_t nr_now;

    if (!t->base)
        return;
    now = tmpdir_read_file(tmpdir_path("base"), &nr_now);
    EXPECT(nr_now == t->nr_base && memcmp(now, t->base, nr_now) == 0,
           "the backing file has changed");
    free(now);
}

static void
start(struct trial *t)
{
    unsigned char *content;
    size_t nr_bytes;
    const unsigned char *bytes;

    make_image(t);
    bytes = builder_bytes(t->image, &nr_bytes);
    snprintf(t->path, sizeof t->path, "%s", tmpdir_path("image"));
    if (t->in_memory)
        t->mem = mem_new(bytes, nr_bytes);
    else
        builder_write(t->image, t->path);

    content = malloc(t->g.size);
    if (!content)
        abort();
    memcpy(content, t->below, t->g.size);
    builder_overlay(t->image, -1, content, t->g.size);
    play_init(&t->play, content, t->g.size);
    free(content);
    t->play.cluster_size = UINT32_C(1) << t->g.cluster_bits;
    if (t->g.extended_l2)
        t->play.subcluster_size = t->play.cluster_size / 32;
    t->play.may_keep_trimmed = t->g.version == 2 && t->g.backing;
    t->play.must_be_fast = t->g.version == 3;
}

static void
end(struct trial *t)
{
    play_free(&t->play);
    builder_free(t->image);
    mem_free(t->mem);
    free(t->below);
    free(t->base);
}

static void
play_trial(struct trial *t, unsigned nr_ops)
{
    struct qcow2_error err;

    open_disk(t, false);
    play_verify(&t->play);
    verify_snapshots(t);
    for (unsigned i = 0; i < nr_ops; i++) {
        struct op op = play_random(&t->play, &t->rng, new_seed(t));

        expect_step("%u: %s", i, play_text(&op));
        if (op.kind == OP_REOPEN) {
            close_disk(t);
            open_disk(t, false);
        } else {
            EXPECT_OK(play_op(&t->play, &op, &err), &err);
        }
    }
    expect_step("the end");
    play_verify(&t->play);
    verify_snapshots(t);
    close_disk(t);
    open_disk(t, true);
    play_verify(&t->play);
    verify_snapshots(t);
    close_disk(t);
    expect_base_unchanged(t);
    if (!t->mem) {
        oracle_expect_clean(t->path);
        oracle_expect_content(t->path, t->play.model.disk, t->g.size);
    }
}

static void
try_geometry(const struct shape *g, bool in_memory, unsigned nr_ops,
             uint64_t stream)
{
    uint64_t seed = rng_seed(1);
    struct trial t = { .g = *g, .next_seed = 1, .in_memory = in_memory };

    expect_case("TEST_SEED=%llu: v%u, clusters of %u, refcounts of %u bits, "
                "%s%s%s%s, size %llu", (unsigned long long)seed, g->version,
                1U << g->cluster_bits, g->refcount_bits,
                backing_names[g->backing], g->snapshots ? ", snapshots" : "",
                g->zstd ? ", zstd" : "",
                g->extended_l2 ? ", subclusters" : "",
                (unsigned long long)g->size);
    rng_init(&t.rng, seed, stream);
    start(&t);
    play_trial(&t, nr_ops);
    end(&t);
    tmpdir_clear();
}

/* Sizes end inside a sector, at a sector, at a cluster. */
static uint64_t
size_for(unsigned cluster_bits, unsigned n)
{
    uint64_t cluster_size = UINT64_C(1) << cluster_bits;
    uint64_t nr_clusters = cluster_bits > 18 ? 4 : 90 - 4 * cluster_bits;
    static const unsigned cut[] = { 0, 512, 100, 0 };

    return nr_clusters * cluster_size - cut[n % 4];
}

static void
every_geometry(void **state)
{
    unsigned rounds = env_number("TEST_ROUNDS", 1), n = 0;
    static const unsigned widths[] = { 16, 8, 32, 64 };

    (void)state;
    for (unsigned i = 0; i < 16 * 13 * rounds; i++) {
        struct shape g = {
            .version = 2 + i % 2,
            .backing = i / 2 % NR_BACKINGS,
            .snapshots = i / 8 % 2,
            .cluster_bits = 9 + i / 16 % 13,
        };

        g.refcount_bits = g.version == 2 ? 16 : widths[i / 2 % 4];
        g.zstd = g.version == 3 && i % 3 == 0 && builder_has_zstd();
        g.size = size_for(g.cluster_bits, n++);
        try_geometry(&g, true, g.cluster_bits > 18 ? 60 : 120, i);
    }
}

static void
narrow_refcounts(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        struct shape g = {
            .version = 3,
            .backing = i % NR_BACKINGS,
            .cluster_bits = 9 + i,
            .refcount_bits = 1 << i % 3,
        };

        if (g.cluster_bits > 16)
            g.cluster_bits = 9;
        g.snapshots = g.refcount_bits == 4;
        g.size = size_for(g.cluster_bits, i);
        try_geometry(&g, true, 120, 1000 + i);
    }
}

static void
tiny_disks(void **state)
{
    static const uint64_t sizes[] = { 0, 1, 511, 512, 513, 65536, 65537 };

    (void)state;
    for (unsigned i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        struct shape g = {
            .version = 2 + i % 2,
            .cluster_bits = i % 3 ? 16 : 9,
            .refcount_bits = 16,
            .size = sizes[i / 2],
        };

        if (g.size > 0)
            try_geometry(&g, true, 60, 2000 + i);
    }
}

static void
subclusters(void **state)
{
    unsigned rounds = env_number("TEST_ROUNDS", 1);

    (void)state;
    for (unsigned i = 0; i < 40 * rounds; i++) {
        struct shape g = {
            .version = 3,
            .extended_l2 = true,
            .backing = i % NR_BACKINGS,
            .snapshots = i / 4 % 2,
            .cluster_bits = 14 + i % 5,
            .refcount_bits = 16,
            .zstd = i % 3 == 0 && builder_has_zstd(),
        };

        g.size = size_for(g.cluster_bits, i) / 4;
        try_geometry(&g, true, 150, 4000 + i);
    }
}

/* The same on real files, judged by the other implementation. */
static void
real_files_satisfy_qemu(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        struct shape g = {
            .version = 2 + i % 2,
            .backing = i / 2 % NR_BACKINGS,
            .snapshots = i / 8 % 2,
            .cluster_bits = 9 + i * 5 % 13,
            .refcount_bits = 16,
            .extended_l2 = i >= 32 || (i % 2 && 9 + i * 5 % 13 >= 14),
        };

        if (i >= 32) {
            g.version = 3;
            g.cluster_bits = 14 + i % 4;
        }

        /* qemu-img rounds sizes down to sectors. */
        g.size = size_for(g.cluster_bits, 0) - 512 * (i % 2);
        try_geometry(&g, false, 80, 3000 + i);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_geometry),
        cmocka_unit_test(narrow_refcounts),
        cmocka_unit_test(tiny_disks),
        cmocka_unit_test(subclusters),
        cmocka_unit_test(real_files_satisfy_qemu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
