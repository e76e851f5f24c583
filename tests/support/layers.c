/* SPDX-License-Identifier: BSD-3-Clause */
/* layers.c: see layers.h. */
#include "layers.h"

#include <stdlib.h>

#include "expect.h"
#include "oracle.h"
#include "tmpdir.h"

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

/* Where a layer shows what is below it, it begins as that. */
static void
begin_content(struct layers *l, struct test_layer *t)
{
    t->shows = must_have(calloc(1, t->size));
    if (t > l->layer) {
        const struct test_layer *below = t - 1;

        memcpy(t->shows, below->shows,
               below->size < t->size ? below->size : t->size);
    }
}

static void
make_raw(struct layers *l, struct test_layer *t)
{
    t->raw = true;
    t->cluster_bits = 12;
    begin_content(l, t);
    pattern_fill(t->shows, t->size, l->next_seed++, 0);
    memset(t->shows + t->size / 3, 0, t->size / 4);
    tmpdir_write_file(tmpdir_path(t->name), t->shows, t->size);
}

/* Subclusters of all kinds, in runs of a few. */
static void
add_subclusters(struct layers *l, struct test_layer *t, uint64_t nr)
{
    char letters[33] = "";

    for (unsigned i = 0; i < 32; i++)
        letters[i] = i > 0 && rng_percent(l->rng, 70)
                     ? letters[i - 1] : "dzup"[rng_below(l->rng, 4)];
    builder_add(t->image, "subclusters %llu %s %llu",
                (unsigned long long)rng_below(l->rng, nr), letters,
                (unsigned long long)l->next_seed++);
}

/* A few clusters of every kind, in any order. */
static void
add_clusters(struct layers *l, struct test_layer *t, unsigned nr_lines)
{
    static const char *const kinds[] = {
        "data", "data", "data", "compressed", "unallocated", "unallocated",
        "zero", "zero", "zero-alloc"
    };
    uint64_t nr = (t->size + (UINT64_C(1) << t->cluster_bits) - 1)
                  >> t->cluster_bits;

    while (nr_lines-- > 0) {
        const char *kind = kinds[rng_below(l->rng, t->version == 2 ? 6 : 9)];
        uint64_t first = rng_below(l->rng, nr);
        uint64_t last = first + rng_below(l->rng, nr / 4 + 1);

        if (last >= nr)
            last = nr - 1;
        builder_add(t->image, "%s %llu-%llu %llu", kind,
                    (unsigned long long)first, (unsigned long long)last,
                    (unsigned long long)l->next_seed++);
        for (unsigned i = 0; t->extended && i < 3; i++)
            add_subclusters(l, t, nr);
    }
}

static void
make_qcow2(struct layers *l, struct test_layer *t, bool snapshots)
{
    t->version = rng_percent(l->rng, 30) ? 2 : 3;
    t->cluster_bits = 9 + rng_below(l->rng, 8);
    t->extended = t->version == 3 && rng_percent(l->rng, 35);
    if (t->extended)
        t->cluster_bits = 14 + rng_below(l->rng, 3);
    t->image = builder_new();
    builder_add(t->image, "version %u; cluster %u; size %llu", t->version,
                1U << t->cluster_bits, (unsigned long long)t->size);
    if (t->version == 3)
        builder_add(t->image, "refcount-bits %u",
                    4U << rng_below(l->rng, 5));
    if (t->extended)
        builder_add(t->image, "extended-l2");
    if (t > l->layer)
        builder_add(t->image, "backing %s %s", (t - 1)->name,
                    (t - 1)->raw ? "raw" : "qcow2");
    add_clusters(l, t, 6);
    if (snapshots) {
        builder_add(t->image, "snapshot 1 first");
        add_clusters(l, t, 3);
        builder_add(t->image, "snapshot 2 second");
        add_clusters(l, t, 3);
    }
    builder_write(t->image, tmpdir_path(t->name));
    begin_content(l, t);
    builder_overlay(t->image, -1, t->shows, t->size);
}

void
layers_make(struct layers *l, struct rng *rng, unsigned nr, bool snapshots,
            const char *prefix)
{
    memset(l, 0, sizeof *l);
    l->rng = rng;
    l->nr = nr;
    l->snapshots = snapshots;
    l->next_seed = 1 + rng_below(rng, 1U << 20);
    for (unsigned i = 0; i < nr; i++) {
        struct test_layer *t = &l->layer[i];

        /* Sizes are near each other, so that ends meet in clusters. */
        t->size = (1 + rng_below(rng, 1200)) * 512;
        if (rng_percent(rng, 50))
            t->size = 300000 / 512 * 512 + rng_below(rng, 3) * 512;
        snprintf(t->name, sizeof t->name, "%s%u", prefix, i);
        if (i == 0 && nr > 1 && rng_percent(rng, 40))
            make_raw(l, t);
        else
            make_qcow2(l, t, snapshots && i == nr - 1);
    }
}

void
layers_free(struct layers *l)
{
    for (unsigned i = 0; i < l->nr; i++) {
        if (l->layer[i].image)
            builder_free(l->layer[i].image);
        free(l->layer[i].shows);
    }
}

struct test_layer *
layers_top(struct layers *l)
{
    return &l->layer[l->nr - 1];
}

const char *
layers_text(const struct layers *l)
{
    static char text[512];
    int len = 0;

    for (unsigned i = 0; i < l->nr; i++) {
        const struct test_layer *t = &l->layer[i];

        len += snprintf(text + len, sizeof text - len, "%s%s v%u bits %u%s "
                        "size %llu", i ? " <- " : "", t->raw ? "raw" : "qcow2",
                        t->version, t->cluster_bits,
                        t->extended ? " extended" : "",
                        (unsigned long long)t->size);
    }
    return text;
}

unsigned char *
layers_read(struct qcow2_disk *disk)
{
    uint64_t size = qcow2_get_size(disk);
    unsigned char *content = must_have(malloc(size ? size : 1));
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(disk, content, size, 0, &err), &err);
    return content;
}

struct qcow2_disk *
layers_open(const char *name, enum qcow2_format format)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.readonly = true;
    options.format = format;
    disk = qcow2_open(tmpdir_path(name), &options, &err);
    EXPECT(disk, "open %s: %s", name, err.text);
    return disk;
}

void
layers_expect(const char *name, enum qcow2_format format,
              const unsigned char *content, uint64_t nr_bytes)
{
    struct qcow2_disk *disk = layers_open(name, format);
    unsigned char *got = layers_read(disk);

    EXPECT(qcow2_get_size(disk) == nr_bytes, "%s has %llu bytes, not %llu",
           name, (unsigned long long)qcow2_get_size(disk),
           (unsigned long long)nr_bytes);
    qcow2_close(disk, NULL);
    expect_same(name, got, content, nr_bytes, 0);
    free(got);
    if (format == QCOW2_FORMAT_QCOW2) {
        oracle_expect_clean(tmpdir_path(name));
        oracle_expect_content(tmpdir_path(name), content, nr_bytes);
    }
}

void
layers_expect_snapshots(const struct layers *l, const unsigned char *below,
                        uint64_t nr_bytes)
{
    static const char *const names[] = { "first", "second" };
    const struct test_layer *t = &l->layer[l->nr - 1];
    struct qcow2_disk *disk = layers_open(t->name, QCOW2_FORMAT_QCOW2);
    struct qcow2_error err;

    for (unsigned i = 0; i < 2; i++) {
        struct qcow2_disk *s = qcow2_open_snapshot(disk, names[i], &err);
        unsigned char *got, *want = must_have(calloc(1, t->size));

        EXPECT(s, "%s", err.text);
        if (nr_bytes > 0)
            memcpy(want, below, nr_bytes < t->size ? nr_bytes : t->size);
        builder_overlay(t->image, i, want, t->size);
        got = layers_read(s);
        expect_same(names[i], got, want, t->size, 0);
        free(got);
        free(want);
        qcow2_close(s, NULL);
    }
    qcow2_close(disk, NULL);
}

/* What a snapshot of the top layer shows on below[0, nr_bytes). */
static unsigned char *
snapshot_on(const struct layers *l, unsigned i, const unsigned char *below,
            uint64_t nr_bytes)
{
    const struct test_layer *t = &l->layer[l->nr - 1];
    unsigned char *shows = must_have(calloc(1, t->size));

    if (nr_bytes > 0)
        memcpy(shows, below, nr_bytes < t->size ? nr_bytes : t->size);
    builder_overlay(t->image, i, shows, t->size);
    return shows;
}

bool
layers_snapshots_differ(const struct layers *l, const unsigned char *old,
                        uint64_t nr_old, const unsigned char *new,
                        uint64_t nr_new)
{
    bool differ = false;

    for (unsigned i = 0; i < 2 && l->snapshots; i++) {
        unsigned char *a = snapshot_on(l, i, old, nr_old);
        unsigned char *b = snapshot_on(l, i, new, nr_new);

        differ |= memcmp(a, b, l->layer[l->nr - 1].size) != 0;
        free(a);
        free(b);
    }
    return differ;
}
