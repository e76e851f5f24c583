/* SPDX-License-Identifier: BSD-3-Clause */
/* seeds.c: see seeds.h. */
#include "seeds.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/compress.h"
#include "bases.h"
#include "input.h"
#include "qcow1-image.h"
#include "rng.h"
#include "session.h"
#include "tmpdir.h"
#include "whole-scenes.h"

enum { MAX_SEED_BYTES = 64 << 10, MAX_RAW_BYTES = 16 << 10 };

struct seeds {
    seed_fn *fn;
    void *opaque;
    uint8_t buf[MAX_SEED_BYTES];
    size_t len;
    unsigned nr_random; /* sectors of data that have just been seen */
};

static void
put(struct seeds *s, uint64_t value, unsigned nr_bytes)
{
    while (nr_bytes-- > 0 && s->len < sizeof s->buf)
        s->buf[s->len++] = value >> (8 * nr_bytes);
}

static void
put_bytes(struct seeds *s, const void *bytes, size_t nr_bytes)
{
    nr_bytes = min_u64(nr_bytes, sizeof s->buf - s->len);
    memcpy(s->buf + s->len, bytes, nr_bytes);
    s->len += nr_bytes;
}

static void
put_command(struct seeds *s, unsigned kind, unsigned a, unsigned b,
            uint64_t c)
{
    put(s, kind, 1);
    put(s, a, 1);
    put(s, b, 2);
    put(s, c, 8);
}

static void
tell(struct seeds *s, const char *what, unsigned i)
{
    char name[300];

    snprintf(name, sizeof name, "%s-%02u", what, i);
    s->fn(s->opaque, name, s->buf, s->len);
    s->len = 0;
}

/* Guests' data look random, and are left out but for their beginning: it is
 * tables that matter. */
static size_t
worth_keeping(struct seeds *s, const uint8_t *sector, size_t nr_bytes)
{
    size_t nr_zero = 0, last = 0;

    for (size_t i = 0; i < nr_bytes; i++) {
        nr_zero += sector[i] == 0;
        last = sector[i] ? i + 1 : last;
    }
    s->nr_random = nr_zero < nr_bytes / 8 ? s->nr_random + 1 : 0;
    return s->nr_random == 0 ? last : s->nr_random == 1 ? 16 : 0;
}

static void
put_page(void *opaque, uint64_t off, const void *bytes, size_t nr_bytes)
{
    struct seeds *s = opaque;

    for (size_t i = 0; i < nr_bytes; i += 512) {
        const uint8_t *sector = (const uint8_t *)bytes + i;
        size_t n = worth_keeping(s, sector, min_u64(512, nr_bytes - i));

        if (n > 0) {
            put(s, (off + i) / 512, 4);
            put(s, n, 2);
            put_bytes(s, sector, n);
        }
    }
}

static void
put_sparse(struct seeds *s, const struct sparse *f)
{
    put(s, INPUT_SPARSE, 1);
    put(s, sparse_size(f), 8);
    sparse_each(f, put_page, s);
    put(s, 0, 6);
}

static void
put_operations(struct seeds *s, unsigned seed)
{
    struct rng r;

    rng_init(&r, 4711, seed);
    for (unsigned i = 0; i < 12; i++)
        put_command(s, 0x80 + rng_below(&r, NR_OPERATIONS), rng_next(&r),
                    rng_below(&r, 90), rng_next(&r) & 0xffff);
}

/* Each place once, with a value of each sort. */
static void
put_patches(struct seeds *s, unsigned i)
{
    put_command(s, PATCH_SET | 3, i % NR_PLACES | VALUE_PLACE << 4, 1,
                (i + 3) % NR_PLACES);
    put_command(s, PATCH_XOR | 3, (i + 5) % NR_PLACES | VALUE_BIT << 4, 2, i);
    put_command(s, PATCH_ADD | 1, (i + 9) % NR_PLACES | VALUE_CLUSTER << 4, 0,
                i);
}

static void
base_seeds(struct seeds *s)
{
    for (unsigned i = 0; i < nr_bases; i++) {
        const struct sparse *f = base_image(i);

        put(s, i, 1);
        tell(s, "base", i);
        put(s, i, 1);
        put_operations(s, i);
        tell(s, "operations", i);
        put(s, i, 1);
        put_patches(s, i);
        put_operations(s, i + 100);
        tell(s, "patches", i);
        if (sparse_size(f) <= MAX_RAW_BYTES) {
            s->len = sparse_size(f);
            sparse_read(f, 0, s->buf, s->len);
            tell(s, "raw", i);
        }
    }
}

static void
recipe_seeds(struct seeds *s, const char *check_dir)
{
    struct dirent **entries;
    int nr = scandir(check_dir, &entries, NULL, alphasort);

    for (int i = 0; i < nr; i++) {
        char path[1024], *text;
        struct sparse *f;
        uint8_t *bytes;
        size_t n;

        snprintf(path, sizeof path, "%s/%s/recipe", check_dir,
                 entries[i]->d_name);
        if (access(path, R_OK) == 0) {
            bytes = tmpdir_read_file(path, &n);
            text = strndup((char *)bytes, n);
            f = base_build(text);
            put_sparse(s, f);
            tell(s, entries[i]->d_name, i);
            sparse_free(f);
            free(text);
            free(bytes);
        }
        free(entries[i]);
    }
    if (nr >= 0)
        free(entries);
}

/* Each word of extended entries with each bit that may mean something. */
static void
subcluster_seeds(struct seeds *s)
{
    static const uint8_t bits[] = { 0, 1, 9, 14, 31, 32, 33, 62, 63 };

    for (unsigned i = 0; i < 16; i++) {
        put(s, nr_bases - 1 - i % 2, 1);
        for (unsigned j = 0; j < 3; j++)
            put_command(s, PATCH_XOR | 3, PLACE_L2 | VALUE_BIT << 4, i,
                        bits[(i + 4 * j) % sizeof bits]);
        put_operations(s, 500 + i);
        tell(s, "subclusters", i);
    }
}

/* What is not as we write it, but no damage. */
static void
odd_seeds(struct seeds *s)
{
    struct sparse *f = base_build("cluster 4K; size 1M; data 0-3 1;"
                                  "poke l2[9] = 0x8000000000000000");

    put_sparse(s, f);
    put_operations(s, 300);
    tell(s, "copied-without-a-place", 0);
    sparse_free(f);
}

/* The smallest and the largest clusters and refcounts, with refcount blocks
 * for the last clusters that a table can have. */
static void
extreme_seeds(struct seeds *s)
{
    static const char *const clusters[] = { "512", "64K", "1M", "2M" };
    static const unsigned widths[] = { 1, 64 };

    for (unsigned i = 0; i < 8; i++) {
        unsigned last = i / 2 == 0 ? 63 : i / 2 == 1 ? 8191
                        : i / 2 == 2 ? 131071 : 262143;
        char recipe[200];
        struct sparse *f;

        snprintf(recipe, sizeof recipe, "cluster %s; refcount-bits %u;"
                 "size 8M; incompatible 0; data 0 1;"
                 "poke reftable[%u] = @refblock[0]", clusters[i / 2],
                 widths[i % 2], last);
        f = base_build(recipe);
        put_sparse(s, f);
        put_operations(s, 400 + i);
        tell(s, "extreme-geometry", i);
        sparse_free(f);
    }
}

static void
scene_seeds(struct seeds *s)
{
    for (unsigned i = 0; i < nr_whole_scenes; i++) {
        struct sparse *f = base_build(whole_scenes[i].recipe);

        put_sparse(s, f);
        put_operations(s, i + 200);
        tell(s, "scene", i);
        sparse_free(f);
    }
}

/* Little in the file, and much that it claims: 60 refblocks with a leak
 * each among 16 million refcounts. In a table that has to be rebuilt, too. */
static void
large_seed(struct seeds *s, const char *name, bool rebuilt)
{
    enum { CLUSTER = 2 << 20, NR = 60 };
    struct sparse *f = base_build("cluster 2M; refcount-bits 1; size 1M");
    uint64_t reftable = sparse_get(f, 48, 8), at = sparse_size(f);

    for (unsigned i = 1; i <= NR; i++, at += CLUSTER) {
        sparse_put(f, reftable + i * 8, 8, at);
        sparse_put(f, at + i * 9000, 1, 1);
    }
    if (rebuilt)
        sparse_put(f, reftable + (NR + 1) * 8, 8, 1);
    sparse_truncate(f, at);
    put_sparse(s, f);
    tell(s, name, NR);
    sparse_free(f);
}

static void
large_seeds(struct seeds *s)
{
    large_seed(s, "refblocks", false);
    large_seed(s, "rebuilt-refblocks", true);
}

/* The table alone, with what comes behind it in its cluster. */
static void
snapshot_seeds(struct seeds *s)
{
    for (unsigned i = 0; i < nr_bases; i++) {
        const struct sparse *f = base_image(i);
        uint64_t at = sparse_get(f, 64, 8);
        uint8_t table[256];

        sparse_read(f, at, table, sizeof table);
        put(s, INPUT_SNAPSHOTS, 1);
        put(s, i, 1);
        put(s, sparse_get(f, 60, 4), 2);
        put_bytes(s, table, sizeof table);
        tell(s, "table", i);
    }
}

/* Directories that say about all that one can. */
static void
bitmap_seeds(struct seeds *s)
{
    for (unsigned i = 0; i < nr_bases; i++) {
        put(s, INPUT_BITMAPS, 1);
        put(s, i, 1);
        put(s, 2, 2);
        for (unsigned j = 0; j < 2; j++) {
            put(s, sparse_size(base_image(i)) / 2 & ~UINT64_C(511), 8);
            put(s, 1 + i + j, 4);       /* table entries */
            put(s, i & 3, 4);           /* flags */
            put(s, 1, 1);               /* type */
            put(s, 9 + i, 1);           /* granularity */
            put(s, 3, 2);
            put(s, j * 8, 4);           /* extra data */
            put(s, 0, j * 8);
            put_bytes(s, "bit\0\0\0\0\0", 8);
        }
        tell(s, "directory", i);
    }
}

static void
compressed_seeds(struct seeds *s)
{
    struct compress_context *context = compress_context_new();

    if (!context)
        abort();
    for (unsigned i = 0; i < 26; i++) {
        enum compress_type type = i & 1;
        size_t size = (size_t)512 << i / 2;
        uint8_t *buf, *packed;
        long n;

        if (!compress_supported(type))
            continue;
        buf = malloc(2 * size);
        packed = buf + size;
        pattern_fill(buf, size, i / 4, 0);
        n = compress_encode(context, type, 0, buf, size, packed, size);
        if (n > 0 && n < MAX_SEED_BYTES) {
            put(s, i, 1);
            put_bytes(s, packed, n);
            tell(s, "stream", i);
        }
        free(buf);
    }
    compress_context_free(context);
}

/* The smallest and largest geometries, and between them. */
static void
qcow1_seeds(struct seeds *s)
{
    for (unsigned i = 0; i < 16; i++) {
        struct qcow1_image image = {
            .cluster_bits = 9 + i % 8, .l2_bits = 6 + i * 5 % 8,
            .size = 1 + i * 1531, .backing = i & 1 ? "below" : NULL,
        };
        struct rng rng;

        rng_init(&rng, 1, i);
        qcow1_image_make(&image, &rng);
        put_bytes(s, image.bytes, image.nr_bytes);
        tell(s, "version-1", i);
        qcow1_image_free(&image);
    }
}

void
seeds_each(const char *target, const char *check_dir, seed_fn *fn,
           void *opaque)
{
    struct seeds *s = calloc(1, sizeof *s);

    if (!s)
        abort();
    s->fn = fn;
    s->opaque = opaque;
    if (strcmp(target, "decompress") == 0) {
        compressed_seeds(s);
    } else if (strcmp(target, "qcow1") == 0) {
        qcow1_seeds(s);
    } else {
        base_seeds(s);
        recipe_seeds(s, check_dir);
        scene_seeds(s);
        large_seeds(s);
        odd_seeds(s);
        subcluster_seeds(s);
        extreme_seeds(s);
    }
    if (strcmp(target, "snapshots") == 0)
        snapshot_seeds(s);
    if (strcmp(target, "bitmaps") == 0)
        bitmap_seeds(s);
    free(s);
}
