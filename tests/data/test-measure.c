/* SPDX-License-Identifier: BSD-3-Clause */
/* test-measure: an image that convert makes is never larger than measure
 * said, whatever its geometry and content; and as large where all of it is
 * written and its refcount table has not moved. TEST_ROUNDS and TEST_SEED
 * make longer and other runs.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "expect.h"
#include "qcow2.h"
#include "rng.h"
#include "tmpdir.h"

enum pattern { ALL, EVERY_OTHER, LAST, ANYWHERE, NR_PATTERNS };
enum { BLOCK_BYTES = 4096 };

struct subject {
    struct qcow2_convert_options o;
    enum pattern pattern;
    bool random;        /* data that cannot be compressed */
    uint64_t size;
};

static bool
has_data(const struct subject *s, struct rng *rng, uint64_t block)
{
    uint64_t nr = s->size / BLOCK_BYTES;

    switch (s->pattern) {
    case ALL:
        return true;
    case EVERY_OTHER:
        return block % 2 == 0;
    case LAST:
        return block >= nr - nr / 16 - 1;
    case ANYWHERE:
    case NR_PATTERNS:
        break;
    }
    return rng_percent(rng, 20);
}

static void
make_source(const struct subject *s, struct rng *rng)
{
    unsigned char *data = calloc(1, s->size);
    FILE *f = fopen(tmpdir_path("source"), "w");

    EXPECT(data && f, "no source");
    for (uint64_t i = 0; i < s->size / BLOCK_BYTES; i++) {
        unsigned char *block = data + i * BLOCK_BYTES;

        if (!has_data(s, rng, i))
            continue;
        memset(block, 'x', BLOCK_BYTES);
        for (unsigned j = 0; s->random && j < BLOCK_BYTES; j++)
            block[j] = 1 + rng_below(rng, 255);
    }
    EXPECT(fwrite(data, s->size, 1, f) == 1 && fclose(f) == 0, "no source");
    free(data);
}

static struct qcow2_disk *
open_source(void)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.readonly = true;
    options.format = QCOW2_FORMAT_RAW;
    disk = qcow2_open(tmpdir_path("source"), &options, &err);
    EXPECT(disk, "%s", err.text);
    return disk;
}

static void
convert(struct qcow2_disk *source, const struct subject *s)
{
    struct qcow2_error err;
    struct qcow2_job *job = qcow2_convert(&source, 1, tmpdir_path("target"),
                                          &s->o, &err);

    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
}

/* Is the refcount table where a new image has it? */
static bool
table_stayed(uint32_t cluster_size)
{
    FILE *f = fopen(tmpdir_path("target"), "r");
    unsigned char header[72];

    EXPECT(f && fread(header, sizeof header, 1, f) == 1, "no target");
    fclose(f);
    return be64_get(*(const be64 *)(header + 48)) == cluster_size;
}

static void
expect_bound(const struct subject *s, struct rng *rng)
{
    struct qcow2_measure_options mo = {
        .format = QCOW2_FORMAT_QCOW2, .create = s->o.create,
        .prealloc = s->o.prealloc,
    };
    struct qcow2_disk *source;
    struct qcow2_measure m;
    struct qcow2_error err;
    struct stat st;
    uint64_t size, bound;

    tmpdir_clear();
    make_source(s, rng);
    source = open_source();
    EXPECT_OK(qcow2_measure(source, &mo, &m, &err), &err);
    convert(source, s);
    qcow2_close(source, NULL);
    EXPECT(stat(tmpdir_path("target"), &st) == 0, "no target");
    size = st.st_size;
    /* Of preallocated metadata the data are holes. */
    bound = s->o.prealloc == QCOW2_PREALLOC_METADATA ? m.fully_allocated
                                                     : m.required;
    EXPECT(size <= bound, "%llu bytes measured, %llu made",
           (unsigned long long)bound, (unsigned long long)size);
    EXPECT(m.required <= m.fully_allocated, "more than all");
    if (s->pattern == ALL && !s->o.compress
        && table_stayed(s->o.create.cluster_size))
        EXPECT(size == bound, "%llu bytes measured, %llu made",
               (unsigned long long)bound, (unsigned long long)size);
}

static void
describe(const struct subject *s)
{
    expect_case("cluster %u refcount bits %u pattern %u%s%s threads %u%s "
                "prealloc %u size %llu", s->o.create.cluster_size,
                s->o.create.refcount_bits, s->pattern,
                s->random ? " random" : "",
                s->o.compress ? " compressed" : "", s->o.nr_threads,
                s->o.out_of_order ? " out of order" : "", s->o.prealloc,
                (unsigned long long)s->size);
}

/* Clusters of 512 bytes, whose refcount table moves soonest, and again. */
static void
tables_that_move_are_counted(void **state)
{
    static const unsigned bits[] = { 1, 16, 32, 64 };
    struct rng rng;

    (void)state;
    rng_init(&rng, rng_seed(1), 0);
    for (unsigned i = 0; i < 2 * sizeof bits / sizeof *bits; i++) {
        struct subject s = { .size = i % 2 ? 8 << 20 : 5 << 20 };

        s.o.format = QCOW2_FORMAT_QCOW2;
        s.o.create.cluster_size = 512;
        s.o.create.refcount_bits = bits[i / 2];
        s.o.nr_threads = i % 2 ? 8 : 1;
        s.o.out_of_order = i % 2;
        describe(&s);
        expect_bound(&s, &rng);
    }
}

static void
any_image_is_within_its_measure(void **state)
{
    uint64_t seed = rng_seed(1);
    unsigned rounds = env_number("TEST_ROUNDS", 60);

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        struct subject s = { .random = false };
        struct rng rng;

        rng_init(&rng, seed, 1 + i);
        s.o.format = QCOW2_FORMAT_QCOW2;
        s.o.create.cluster_size = 512U << rng_below(&rng, 13);
        s.o.create.refcount_bits = 1U << rng_below(&rng, 7);
        s.o.compress = rng_percent(&rng, 40);
        s.o.create.zstd = s.o.compress && qcow2_has_feature("zstd")
                          && rng_percent(&rng, 50);
        s.o.nr_threads = 1 + rng_below(&rng, 5);
        s.o.out_of_order = rng_percent(&rng, 30);
        if (!s.o.compress && rng_percent(&rng, 20))
            s.o.prealloc = rng_below(&rng, 4);
        s.pattern = rng_below(&rng, NR_PATTERNS);
        s.random = rng_percent(&rng, 50);
        s.size = (1 + rng_below(&rng, 1000)) * BLOCK_BYTES;
        describe(&s);
        expect_bound(&s, &rng);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_that_move_are_counted),
        cmocka_unit_test(any_image_is_within_its_measure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
