/* SPDX-License-Identifier: BSD-3-Clause */
/* test-qcow1: random images of version 1 read as they were made, alone, and
 * in chains with layers of other formats.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checked.h"
#include "expect.h"
#include "layers.h"
#include "oracle.h"
#include "qcow1-image.h"
#include "rng.h"
#include "tmpdir.h"

enum { NR_IMAGES = 60, NR_CHAINS = 40, MAX_SIZE = 300000, NR_READS = 60 };

/* What extents say of bytes: zeroes are zeroes, and all is covered. */
struct covered {
    const unsigned char *shows;
    uint64_t end;
};

static int
cover(void *opaque, const struct qcow2_extent *e)
{
    struct covered *c = opaque;

    EXPECT(e->guest_off == c->end && e->nr_bytes > 0, "a gap");
    c->end += e->nr_bytes;
    for (uint64_t i = e->guest_off; e->zero && i < c->end; i++)
        EXPECT(c->shows[i] == 0, "0x%llx is no zero", (unsigned long long)i);
    return 0;
}

static void
disk_shows(struct rng *rng, const char *name, enum qcow2_format format,
           const unsigned char *shows, uint64_t size)
{
    struct qcow2_disk *disk = layers_open(name, format);
    unsigned char *buf = malloc(size + 1);
    struct covered c = { shows, 0 };
    struct qcow2_error err;

    assert_int_equal(qcow2_get_size(disk), size);
    for (unsigned i = 0; i < NR_READS; i++) {
        uint64_t off = rng_below(rng, size + 1);
        uint64_t n = rng_below(rng, min_u64(size - off,
                                            i & 1 ? 3000 : size) + 1);

        EXPECT_OK(qcow2_pread(disk, buf, n, off, &err), &err);
        expect_same("a part", buf, shows + off, n, off);
    }
    EXPECT_OK(qcow2_pread(disk, buf, size, 0, &err), &err);
    expect_same("all of it", buf, shows, size, 0);
    EXPECT_OK(qcow2_map(disk, size, 0, cover, &c, &err), &err);
    EXPECT(c.end == size, "extents end at %llu", (unsigned long long)c.end);
    free(buf);
    qcow2_close(disk, NULL);
}

/* The other implementation reads the same; it knows whole sectors only. */
static void
oracle_shows(const char *name, const unsigned char *shows, uint64_t size)
{
    unsigned char *bytes;
    size_t nr_bytes;

    EXPECT(oracle_run("qemu-img convert -f qcow -O raw %s %s",
                      tmpdir_path(name), tmpdir_path("oracle")) == 0,
           "qemu-img convert");
    bytes = tmpdir_read_file(tmpdir_path("oracle"), &nr_bytes);
    assert_int_equal(nr_bytes, size);
    expect_same("what the oracle reads", bytes, shows, size, 0);
    free(bytes);
}

static void
random_geometry(struct qcow1_image *image, struct rng *rng, bool sectors)
{
    image->cluster_bits = 9 + rng_below(rng, 8);
    image->l2_bits = 6 + rng_below(rng, 8);
    image->size = 1 + rng_below(rng, MAX_SIZE);
    if (sectors)
        image->size = round_up(image->size, 512);
}

static void
random_images_read_as_they_were_made(void **state)
{
    uint64_t seed = rng_seed(1);

    (void)state;
    for (unsigned i = 0; i < NR_IMAGES; i++) {
        bool sectors = i % 4 == 0;
        struct qcow1_image image = { .size = 0 };
        struct rng rng;

        rng_init(&rng, seed, i);
        random_geometry(&image, &rng, sectors);
        expect_case("seed %llu, image %u: clusters of %u bits, tables of %u, "
                    "%llu bytes", (unsigned long long)seed, i,
                    image.cluster_bits, image.l2_bits,
                    (unsigned long long)image.size);
        qcow1_image_make(&image, &rng);
        tmpdir_write_file(tmpdir_path("image"), image.bytes, image.nr_bytes);
        disk_shows(&rng, "image", i & 1 ? QCOW2_FORMAT_QCOW
                                        : QCOW2_FORMAT_AUTO,
                   image.shows, image.size);
        if (sectors && oracle_present())
            oracle_shows("image", image.shows, image.size);
        qcow1_image_free(&image);
    }
    tmpdir_clear();
}

/* A layer, by its number, and what it shows. */
struct shown {
    enum qcow2_format format;
    char name[16];
    unsigned char *bytes;
    uint64_t size;
};

static void
make_qcow1(struct shown *layer, const struct shown *below, struct rng *rng)
{
    struct qcow1_image image = { .size = 0 };
    char name[200];

    random_geometry(&image, rng, true);
    if (below) {
        image.below = below->bytes;
        image.below_size = below->size;
        image.backing = below->name;
    }
    /* A declaration needs another form of name there. */
    if (below && below->format != QCOW2_FORMAT_RAW) {
        snprintf(name, sizeof name, "json:{\"driver\":\"%s\",\"file\":"
                 "{\"driver\":\"file\",\"filename\":\"%s\"}}",
                 qcow2_format_name(below->format), below->name);
        image.backing = name;
    }
    qcow1_image_make(&image, rng);
    tmpdir_write_file(tmpdir_path(layer->name), image.bytes, image.nr_bytes);
    layer->bytes = image.shows;
    layer->size = image.size;
    free(image.bytes);
}

static void
write_some(struct shown *layer, struct rng *rng)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk = qcow2_open(tmpdir_path(layer->name), &options,
                                         &err);

    EXPECT(disk, "%s", err.text);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t off = rng_below(rng, layer->size);
        uint64_t n = 1 + rng_below(rng, min_u64(layer->size - off, 20000));

        pattern_fill(layer->bytes + off, n, 2000 + rng_below(rng, 99), off);
        EXPECT_OK(qcow2_pwrite(disk, layer->bytes + off, n, off, 0, &err),
                  &err);
    }
    EXPECT_OK(qcow2_close(disk, &err), &err);
}

static void
make_qcow2(struct shown *layer, const struct shown *below, struct rng *rng)
{
    struct qcow2_create_options o = {
        .size = round_up(1 + rng_below(rng, MAX_SIZE), 512),
        .cluster_size = 512u << rng_below(rng, 8),
        .overwrite = true,
    };
    struct qcow2_error err;

    if (below) {
        o.backing = below->name;
        o.backing_format = below->format;
    }
    EXPECT_OK(qcow2_create(tmpdir_path(layer->name), &o, &err), &err);
    layer->size = o.size;
    layer->bytes = calloc(1, o.size);
    if (below)
        memcpy(layer->bytes, below->bytes, min_u64(below->size, o.size));
    write_some(layer, rng);
}

static void
make_layer(struct shown *layer, const struct shown *below, struct rng *rng)
{
    layer->format = QCOW2_FORMAT_RAW;
    if (below || rng_percent(rng, 50))
        layer->format = rng_percent(rng, 60) ? QCOW2_FORMAT_QCOW
                                             : QCOW2_FORMAT_QCOW2;
    switch (layer->format) {
    case QCOW2_FORMAT_AUTO:
    case QCOW2_FORMAT_RAW:
        layer->size = 512 * (1 + rng_below(rng, 400));
        layer->bytes = malloc(layer->size);
        pattern_fill(layer->bytes, layer->size, 3000, 0);
        tmpdir_write_file(tmpdir_path(layer->name), layer->bytes, layer->size);
        return;
    case QCOW2_FORMAT_QCOW2:
        make_qcow2(layer, below, rng);
        return;
    case QCOW2_FORMAT_QCOW:
        make_qcow1(layer, below, rng);
        return;
    }
}

static void
chains_of_all_formats_read_right(void **state)
{
    uint64_t seed = rng_seed(2);

    (void)state;
    for (unsigned i = 0; i < NR_CHAINS; i++) {
        struct shown layers[7];
        unsigned nr = 2 + i % 6;
        struct rng rng;

        tmpdir_clear();
        rng_init(&rng, seed, i);
        expect_case("seed %llu, chain %u", (unsigned long long)seed, i);
        for (unsigned n = 0; n < nr; n++) {
            struct shown *l = &layers[n];

            snprintf(l->name, sizeof l->name, "layer%u", n);
            make_layer(l, n > 0 ? l - 1 : NULL, &rng);
            expect_step("layer %u: %s", n, qcow2_format_name(l->format));
        }
        disk_shows(&rng, layers[nr - 1].name, layers[nr - 1].format,
                   layers[nr - 1].bytes, layers[nr - 1].size);
        for (unsigned n = 0; n < nr; n++)
            free(layers[n].bytes);
    }
    tmpdir_clear();
}

/* "base" is of version 1, and "top" an overlay on it. */
static void
make_overlay(struct shown layers[2], struct rng *rng)
{
    tmpdir_clear();
    layers[0] = (struct shown){ QCOW2_FORMAT_QCOW, "base", NULL, 0 };
    layers[1] = (struct shown){ QCOW2_FORMAT_QCOW2, "top", NULL, 0 };
    rng_init(rng, 3, 0);
    make_qcow1(&layers[0], NULL, rng);
    make_qcow2(&layers[1], &layers[0], rng);
}

static void
end_overlay(struct shown layers[2])
{
    free(layers[0].bytes);
    free(layers[1].bytes);
    tmpdir_clear();
}

static void
nothing_is_committed_to_it(void **state)
{
    const struct qcow2_commit_options commit = { .base = NULL };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct shown layers[2];
    struct rng rng;

    (void)state;
    expect_case("commit");
    make_overlay(layers, &rng);
    EXPECT(!qcow2_commit(tmpdir_path("top"), &options, &commit, &err),
           "committed");
    assert_int_equal(err.errnum, EROFS);
    disk_shows(&rng, "base", QCOW2_FORMAT_QCOW, layers[0].bytes,
               layers[0].size);
    disk_shows(&rng, "top", QCOW2_FORMAT_QCOW2, layers[1].bytes,
               layers[1].size);
    end_overlay(layers);
}

static void
rebase_to(const char *backing, enum qcow2_format format)
{
    const struct qcow2_rebase_options rebase = {
        .backing = backing, .backing_format = format,
    };
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_job *job = qcow2_rebase(tmpdir_path("top"), &options,
                                         &rebase, &err);

    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
}

static void
overlays_are_put_on_it_and_off_it(void **state)
{
    struct shown layers[2], other = { QCOW2_FORMAT_QCOW, "other", NULL, 0 };
    struct rng rng;

    (void)state;
    expect_case("rebase");
    make_overlay(layers, &rng);
    make_qcow1(&other, NULL, &rng);
    rebase_to("other", QCOW2_FORMAT_QCOW);
    disk_shows(&rng, "top", QCOW2_FORMAT_QCOW2, layers[1].bytes,
               layers[1].size);
    rebase_to(NULL, QCOW2_FORMAT_AUTO);
    EXPECT(unlink(tmpdir_path("other")) == 0, "unlink");
    disk_shows(&rng, "top", QCOW2_FORMAT_QCOW2, layers[1].bytes,
               layers[1].size);
    free(other.bytes);
    end_overlay(layers);
}

/* It has no place to declare the format of its backing file: what does not
 * look raw is opened if somebody says what it is. */
static void
what_it_names_is_not_guessed(void **state)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow1_image image = {
        .cluster_bits = 9, .l2_bits = 9, .size = 5000, .backing = "top",
    };
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct shown layers[2];
    struct rng rng;

    (void)state;
    expect_case("guess");
    make_overlay(layers, &rng);
    qcow1_image_make(&image, &rng);
    tmpdir_write_file(tmpdir_path("over"), image.bytes, image.nr_bytes);
    options.readonly = true;
    EXPECT(!qcow2_open(tmpdir_path("over"), &options, &err), "was guessed");
    assert_int_equal(err.errnum, EPERM);
    assert_int_equal(err.hints, QCOW2_HINT_BACKING_FORMAT);
    options.backing_format = QCOW2_FORMAT_QCOW2;
    disk = qcow2_open(tmpdir_path("over"), &options, &err);
    EXPECT(disk, "%s", err.text);
    qcow2_close(disk, NULL);
    qcow1_image_free(&image);
    end_overlay(layers);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_images_read_as_they_were_made),
        cmocka_unit_test(chains_of_all_formats_read_right),
        cmocka_unit_test(nothing_is_committed_to_it),
        cmocka_unit_test(overlays_are_put_on_it_and_off_it),
        cmocka_unit_test(what_it_names_is_not_guessed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
