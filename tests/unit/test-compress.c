/* SPDX-License-Identifier: BSD-3-Clause */
/* test-compress.c: clusters compressed and decompressed, well-formed and
 * not.
 */
#include "compress.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "expect.h"
#include "rng.h"

#define FOR_EACH_TYPE(type)                                             \
    for (unsigned type = 0; type <= COMPRESS_ZSTD; type++)              \
        if (compress_supported(type))

/* Compressible content of a cluster, and what it becomes. */
struct sample {
    size_t len, packed_len;
    unsigned char *plain, *packed, *out;
};

static void
sample_make(struct sample *s, unsigned type, size_t len, uint64_t seed)
{
    long n;

    s->len = len;
    s->plain = malloc(len);
    s->packed = malloc(2 * len);
    s->out = malloc(len + 1);
    pattern_fill(s->plain, len, seed, 0);
    n = compress_encode(type, 0, s->plain, len, s->packed, len - 1);
    EXPECT(n > 0, "type %u, %zu bytes: %ld", type, len, n);
    s->packed_len = n;
}

static void
sample_free(struct sample *s)
{
    free(s->plain);
    free(s->packed);
    free(s->out);
}

static void
expect_plain(struct sample *s, unsigned type, size_t in_len)
{
    memset(s->out, 0xee, s->len + 1);
    EXPECT(compress_decode(type, s->packed, in_len, s->out, s->len) == 0,
           "type %u, %zu of %zu bytes", type, in_len, s->packed_len);
    expect_same("decompressed", s->out, s->plain, s->len, 0);
    assert_int_equal(s->out[s->len], 0xee);
}

static void
expect_damaged(unsigned type, const void *in, size_t in_len, void *out,
               size_t out_len)
{
    errno = 0;
    EXPECT(compress_decode(type, in, in_len, out, out_len) == -1,
           "type %u, %zu bytes in, %zu out", type, in_len, out_len);
    assert_int_equal(errno, EIO);
}

static void
clusters_of_every_size_come_back(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type) {
        for (size_t len = 512; len <= 2 << 20; len *= 2) {
            struct sample s;

            sample_make(&s, type, len, len);
            expect_plain(&s, type, s.packed_len);
            sample_free(&s);
        }
    }
}

static void
every_level_comes_back(void **state)
{
    static unsigned char plain[65536], packed[65536], out[65536];

    (void)state;
    pattern_fill(plain, sizeof plain, 5, 0);
    FOR_EACH_TYPE(type) {
        for (int level = 0; level <= 9; level++) {
            long n = compress_encode(type, level, plain, sizeof plain,
                                     packed, sizeof packed);

            EXPECT(n > 0, "type %u, level %d", type, level);
            assert_int_equal(compress_decode(type, packed, n, out,
                                             sizeof out), 0);
            expect_same("decompressed", out, plain, sizeof out, 0);
        }
    }
}

/* A descriptor counts whole sectors: other data follows. */
static void
what_follows_the_data_is_ignored(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type) {
        struct sample s;

        sample_make(&s, type, 65536, 3);
        memset(s.packed + s.packed_len, 0xa5, s.len);
        expect_plain(&s, type, s.packed_len + 1);
        expect_plain(&s, type, s.packed_len + 511);
        memset(s.packed + s.packed_len, 0, s.len);
        expect_plain(&s, type, s.packed_len + s.len);
        sample_free(&s);
    }
}

static void
what_does_not_fit_is_told(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type) {
        static unsigned char noise[4096], packed[4096];
        struct sample s;
        struct rng rng;

        sample_make(&s, type, 65536, 3);
        assert_int_equal(compress_encode(type, 0, s.plain, s.len, s.out,
                                         s.packed_len - 1), 0);
        assert_int_equal(compress_encode(type, 0, s.plain, s.len, s.out,
                                         1), 0);
        sample_free(&s);

        rng_init(&rng, 1, 0);
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = rng_next(&rng);
        assert_int_equal(compress_encode(type, 0, noise, sizeof noise,
                                         packed, sizeof packed - 1), 0);
    }
}

static void
data_that_ends_early_is_damaged(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type) {
        struct sample s;

        sample_make(&s, type, 4096, 3);
        for (size_t n = 0; n < s.packed_len - 16; n += 7)
            expect_damaged(type, s.packed, n, s.out, s.len);
        sample_free(&s);
    }
}

static void
data_for_less_than_a_cluster_is_damaged(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type) {
        struct sample s;

        sample_make(&s, type, 4096, 3);
        expect_damaged(type, s.packed, s.packed_len, s.out, s.len + 1);
        sample_free(&s);
    }
}

static void
noise_is_damaged_or_harmless(void **state)
{
    uint64_t seed = rng_seed(1);
    static unsigned char in[2048], out[4096];

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    FOR_EACH_TYPE(type) {
        struct sample s;
        struct rng rng;

        sample_make(&s, type, sizeof out, 3);
        rng_init(&rng, seed, type);
        for (int i = 0; i < 2000; i++) {
            size_t len = s.packed_len < sizeof in ? s.packed_len : sizeof in;

            memcpy(in, s.packed, len);
            for (int j = 0; j < 3; j++)
                in[rng_below(&rng, len)] = rng_next(&rng);
            compress_decode(type, in, len, out, sizeof out);
            for (size_t j = 0; j < sizeof in; j++)
                in[j] = rng_next(&rng);
            compress_decode(type, in, sizeof in, out, sizeof out);
        }
        sample_free(&s);
    }
}

/* Runs zlib itself. */
static size_t
deflate_with_window(int window_bits, const void *in, size_t in_len,
                    void *out, size_t out_len)
{
    z_stream s = { .next_in = (void *)in, .avail_in = in_len,
                   .next_out = out, .avail_out = out_len };

    assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, window_bits, 9,
                                  Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
    deflateEnd(&s);
    return s.total_out;
}

/* Noise that repeats itself after 20,000 bytes. */
static void
fill_with_a_far_repetition(unsigned char *buf, size_t len)
{
    struct rng rng;

    rng_init(&rng, 9, 0);
    for (size_t i = 0; i < len; i++)
        buf[i] = i < 20000 ? rng_next(&rng) : buf[i - 20000];
}

static void
deflate_with_the_largest_window_is_read(void **state)
{
    static unsigned char plain[65536], packed[65536], out[65536];
    size_t n;

    (void)state;
    fill_with_a_far_repetition(plain, sizeof plain);
    n = deflate_with_window(-15, plain, sizeof plain, packed,
                            sizeof packed);
    assert_true(n < 30000);
    assert_int_equal(compress_decode(COMPRESS_ZLIB, packed, n, out,
                                     sizeof out), 0);
    expect_same("decompressed", out, plain, sizeof out, 0);
}

static void
deflate_is_written_for_a_window_of_4_kib(void **state)
{
    static unsigned char plain[65536], packed[131072], out[65536];
    z_stream s = { .next_in = packed, .next_out = out,
                   .avail_out = sizeof out };
    long n;

    (void)state;
    fill_with_a_far_repetition(plain, sizeof plain);
    n = compress_encode(COMPRESS_ZLIB, 9, plain, sizeof plain, packed,
                        sizeof packed);
    assert_true(n > 0);
    s.avail_in = n;
    assert_int_equal(inflateInit2(&s, -12), Z_OK);
    assert_int_equal(inflate(&s, Z_NO_FLUSH), Z_STREAM_END);
    inflateEnd(&s);
    expect_same("decompressed", out, plain, sizeof out, 0);
}

/* Some writers compress more than the cluster; its part is what counts. */
static void
deflate_that_goes_on_after_the_cluster_is_read(void **state)
{
    struct sample s;

    (void)state;
    sample_make(&s, COMPRESS_ZLIB, 65536, 3);
    s.len = 4096;
    expect_plain(&s, COMPRESS_ZLIB, s.packed_len);
    sample_free(&s);
}

static void
zstd_in_several_frames_is_read(void **state)
{
    static unsigned char plain[65536], packed[65536 + 8], out[65536];
    /* A frame to be skipped, with 4 bytes in it. */
    static const unsigned char skipped[] = {
        0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4
    };
    long n, m;

    (void)state;
    if (!compress_supported(COMPRESS_ZSTD))
        skip();
    pattern_fill(plain, sizeof plain, 4, 0);
    n = compress_encode(COMPRESS_ZSTD, 0, plain, 10000, packed,
                        sizeof packed);
    assert_true(n > 0);
    memcpy(packed + n, skipped, sizeof skipped);
    n += sizeof skipped;
    m = compress_encode(COMPRESS_ZSTD, 0, plain + 10000,
                        sizeof plain - 10000, packed + n,
                        sizeof packed - n);
    assert_true(m > 0);
    assert_int_equal(compress_decode(COMPRESS_ZSTD, packed, n + m, out,
                                     sizeof out), 0);
    expect_same("decompressed", out, plain, sizeof out, 0);
    expect_damaged(COMPRESS_ZSTD, packed, n, out, sizeof out);
}

static void
zstd_never_writes_past_the_cluster(void **state)
{
    struct sample s;

    (void)state;
    if (!compress_supported(COMPRESS_ZSTD))
        skip();
    sample_make(&s, COMPRESS_ZSTD, 65536, 3);
    memset(s.out, 0xee, s.len);
    expect_damaged(COMPRESS_ZSTD, s.packed, s.packed_len, s.out, 4096);
    for (size_t i = 4096; i < s.len; i++)
        assert_int_equal(s.out[i], 0xee);
    sample_free(&s);
}

static void
types_have_names(void **state)
{
    (void)state;
    assert_string_equal(compress_name(COMPRESS_ZLIB), "zlib");
    assert_string_equal(compress_name(COMPRESS_ZSTD), "zstd");
    assert_string_equal(compress_name(2), "unknown");
    assert_true(compress_supported(COMPRESS_ZLIB));
    assert_false(compress_supported(2));
}

static void
unknown_types_are_refused(void **state)
{
    char buf[512] = "", out[512];

    (void)state;
    assert_int_equal(compress_decode(2, buf, sizeof buf, out, sizeof out),
                     -1);
    assert_int_equal(errno, ENOTSUP);
    assert_int_equal(compress_encode(2, 0, buf, sizeof buf, out,
                                     sizeof out), -1);
    assert_int_equal(errno, ENOTSUP);
    assert_int_equal(compress_encode(COMPRESS_ZLIB, 99, buf, sizeof buf, out,
                                     sizeof out), -1);
    assert_int_equal(errno, ENOTSUP);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clusters_of_every_size_come_back),
        cmocka_unit_test(every_level_comes_back),
        cmocka_unit_test(what_follows_the_data_is_ignored),
        cmocka_unit_test(what_does_not_fit_is_told),
        cmocka_unit_test(data_that_ends_early_is_damaged),
        cmocka_unit_test(data_for_less_than_a_cluster_is_damaged),
        cmocka_unit_test(noise_is_damaged_or_harmless),
        cmocka_unit_test(deflate_with_the_largest_window_is_read),
        cmocka_unit_test(deflate_is_written_for_a_window_of_4_kib),
        cmocka_unit_test(deflate_that_goes_on_after_the_cluster_is_read),
        cmocka_unit_test(zstd_in_several_frames_is_read),
        cmocka_unit_test(zstd_never_writes_past_the_cluster),
        cmocka_unit_test(types_have_names),
        cmocka_unit_test(unknown_types_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
