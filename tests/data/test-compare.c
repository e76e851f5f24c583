/* SPDX-License-Identifier: BSD-3-Clause */
/* test-compare: compare tells the first difference of random chains, and
 * measure the figures, as the other implementation does. TEST_ROUNDS
 * and TEST_SEED make longer and other runs.
 */
#include <errno.h>
#include <stdlib.h>

#include "expect.h"
#include "layers.h"
#include "oracle.h"
#include "tmpdir.h"

static struct qcow2_compare_result
compare(struct qcow2_disk *a, struct qcow2_disk *b, bool strict)
{
    struct qcow2_compare_result result;
    struct qcow2_error err;
    struct qcow2_job *job = qcow2_compare(a, b, strict, &result, &err);

    EXPECT(job, "%s", err.text);
    EXPECT_OK(qcow2_job_run(job, NULL, NULL, &err), &err);
    qcow2_job_free(job);
    return result;
}

static struct qcow2_compare_result
compare_names(const char *a, const char *b, enum qcow2_format b_format,
              bool strict)
{
    struct qcow2_disk *x = layers_open(a, QCOW2_FORMAT_QCOW2);
    struct qcow2_disk *y = layers_open(b, b_format);
    struct qcow2_compare_result result = compare(x, y, strict);
    struct qcow2_compare_result other = compare(y, x, strict);

    EXPECT(memcmp(&result, &other, sizeof result) == 0, "not symmetric");
    qcow2_close(x, NULL);
    qcow2_close(y, NULL);
    return result;
}

/* The first sector that differs; shorter counts as zeroes. */
static uint64_t
first_difference(const unsigned char *a, uint64_t a_size,
                 const unsigned char *b, uint64_t b_size)
{
    for (uint64_t at = 0; at < a_size || at < b_size; at++)
        if ((at < a_size ? a[at] : 0) != (at < b_size ? b[at] : 0))
            return at / 512 * 512;
    return UINT64_MAX;
}

static void
the_first_difference_is_told(void **state)
{
    uint64_t seed = rng_seed(1);
    unsigned rounds = env_number("TEST_ROUNDS", 60);

    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        struct qcow2_compare_result result;
        struct layers chain, same;
        struct test_layer *top;
        unsigned char *other;
        uint64_t size, at;
        struct rng rng;

        tmpdir_clear();
        rng_init(&rng, seed, i);
        layers_make(&chain, &rng, 1 + rng_below(&rng, 3), false, "l");
        layers_make(&same, &rng, 1, false, "m");
        top = layers_top(&chain);
        size = top->size + (rng_percent(&rng, 50) ? 0 : 5 * 512);
        expect_case("seed %llu round %u: %s", (unsigned long long)seed, i,
                    layers_text(&chain));
        other = calloc(1, size);
        memcpy(other, top->shows, top->size);
        if (rng_percent(&rng, 70))
            other[rng_below(&rng, size)] ^= 1;
        tmpdir_write_file(tmpdir_path("other"), other, size);
        at = first_difference(top->shows, top->size, other, size);
        result = compare_names(top->name, "other", QCOW2_FORMAT_RAW, false);
        EXPECT(result.sizes_differ == (size != top->size), "sizes");
        EXPECT(result.difference == (at == UINT64_MAX
                                     ? QCOW2_SAME : QCOW2_DIFFERENT_CONTENT),
               "difference %d", result.difference);
        EXPECT(at == UINT64_MAX || result.guest_off == at,
               "at %llu, not %llu", (unsigned long long)result.guest_off,
               (unsigned long long)at);
        result = compare_names(top->name, layers_top(&same)->name,
                               QCOW2_FORMAT_QCOW2, false);
        at = first_difference(top->shows, top->size, layers_top(&same)->shows,
                              layers_top(&same)->size);
        EXPECT(at == UINT64_MAX || result.guest_off == at,
               "at %llu, not %llu", (unsigned long long)result.guest_off,
               (unsigned long long)at);
        free(other);
        layers_free(&chain);
        layers_free(&same);
    }
}

/* Pairs, and what strict comparing finds first. */
static const struct {
    const char *a, *b;
    enum qcow2_difference difference;
    uint64_t guest_off;
} pairs[] = {
    { "size 1M; data 0 1; data 3 2", "size 1M; data 3 2; data 0 1",
      QCOW2_SAME, 0 },
    { "size 1M; data 0 1; zero 3", "size 1M; data 0 1",
      QCOW2_DIFFERENT_ALLOCATION, 196608 },
    { "size 1M; data 0 1; zero 3", "size 1M; data 0 1; zero-alloc 3",
      QCOW2_DIFFERENT_ALLOCATION, 196608 },
    { "size 1M; data 0 1; data 3 0", "size 1M; data 0 1",
      QCOW2_DIFFERENT_ALLOCATION, 196608 },
    { "size 1M; compressed 0 1", "size 1M; data 0 1",
      QCOW2_DIFFERENT_ALLOCATION, 0 },
    { "size 1M; data 0 1", "size 2M; data 0 1", QCOW2_DIFFERENT_SIZE, 0 },
    { "size 1M; data 0-1 1; zero 4", "size 1M; data 0 1; data 1 2",
      QCOW2_DIFFERENT_CONTENT, 65536 },
    { "size 1M; data 1 1; zero 0", "size 1M; data 1 2",
      QCOW2_DIFFERENT_ALLOCATION, 0 },
};

static void
strict_comparing_agrees_with_the_other_implementation(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        static const char *const words[] = {
            "identical", "size mismatch", "block status mismatch",
            "Content mismatch",
        };
        struct qcow2_compare_result result;

        tmpdir_clear();
        expect_case("%s against %s", pairs[i].a, pairs[i].b);
        builder_make(tmpdir_path("a"), pairs[i].a);
        builder_make(tmpdir_path("b"), pairs[i].b);
        result = compare_names("a", "b", QCOW2_FORMAT_QCOW2, true);
        EXPECT(result.difference == pairs[i].difference, "difference %d",
               result.difference);
        EXPECT(result.guest_off == pairs[i].guest_off, "at %llu",
               (unsigned long long)result.guest_off);
        if (!oracle_present())
            continue;
        EXPECT(oracle_run("qemu-img compare -s '%s' '%s' | grep -q '%s'",
                          tmpdir_path("a"), tmpdir_path("b"),
                          words[result.difference]) == 0, "oracle");
    }
}

/* The longest file that a refcount table of one cluster counts. */
static uint64_t
one_table_bytes(const struct qcow2_measure_options *o)
{
    uint64_t size = o->create.cluster_size;

    return size / 8 * (size * 8 / o->create.refcount_bits) * size;
}

static void
expect_measured(struct qcow2_disk *source, const char *source_text,
                const struct qcow2_measure_options *o)
{
    static const char *const prealloc[] = {
        "off", "metadata", "falloc", "full"
    };
    unsigned long long required, all, moved;
    struct qcow2_measure m;
    struct qcow2_error err;
    char format[256] = "-O raw";
    FILE *f;

    if (o->format != QCOW2_FORMAT_RAW)
        snprintf(format, sizeof format, "-O qcow2 -o compat=1.1,"
                 "cluster_size=%u,refcount_bits=%u,preallocation=%s",
                 o->create.cluster_size, o->create.refcount_bits,
                 prealloc[o->prealloc]);
    expect_step("%s %s", format, source_text);
    EXPECT_OK(qcow2_measure(source, o, &m, &err), &err);
    EXPECT(oracle_run("qemu-img measure %s %s >'%s'", format, source_text,
                      tmpdir_path("out")) == 0, "measure failed");
    f = fopen(tmpdir_path("out"), "r");
    EXPECT(f && fscanf(f, "required size: %llu\nfully allocated size: %llu",
                       &required, &all) == 2, "no figures");
    fclose(f);
    /* The other one does not count the places that tables move from. */
    moved = o->format != QCOW2_FORMAT_RAW && all > one_table_bytes(o)
            ? m.fully_allocated - all : 0;
    EXPECT(m.required == required + moved && m.fully_allocated == all + moved
           && moved <= all / 16,
           "ours: %llu, %llu; theirs: %llu, %llu",
           (unsigned long long)m.required,
           (unsigned long long)m.fully_allocated, required, all);
}

static void
measures_agree_with_the_other_implementation(void **state)
{
    uint64_t seed = rng_seed(2);

    (void)state;
    oracle_or_skip();
    for (unsigned i = 0; i < 40; i++) {
        struct qcow2_measure_options o;
        struct layers chain;
        struct rng rng;
        char text[1200];

        tmpdir_clear();
        rng_init(&rng, seed, i);
        memset(&o, 0, sizeof o);
        o.format = rng_percent(&rng, 15) ? QCOW2_FORMAT_RAW
                                         : QCOW2_FORMAT_QCOW2;
        o.create.cluster_size = 512U << rng_below(&rng, 13);
        o.create.refcount_bits = 1U << rng_below(&rng, 7);
        o.prealloc = rng_below(&rng, 4);
        layers_make(&chain, &rng, 1 + rng_below(&rng, 3), false, "l");
        expect_case("seed %llu round %u: %s", (unsigned long long)seed, i,
                    layers_text(&chain));
        if (rng_percent(&rng, 60)) {
            struct qcow2_disk *disk = layers_open(layers_top(&chain)->name,
                                                  QCOW2_FORMAT_QCOW2);

            snprintf(text, sizeof text, "'%s'",
                     tmpdir_path(layers_top(&chain)->name));
            expect_measured(disk, text, &o);
            qcow2_close(disk, NULL);
        } else {
            o.create.size = rng_below(&rng, UINT64_C(1) << 34);
            snprintf(text, sizeof text, "--size %llu",
                     (unsigned long long)o.create.size);
            expect_measured(NULL, text, &o);
        }
        layers_free(&chain);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_difference_is_told),
        cmocka_unit_test(strict_comparing_agrees_with_the_other_implementation),
        cmocka_unit_test(measures_agree_with_the_other_implementation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
