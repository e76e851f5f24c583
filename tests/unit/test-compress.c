/* SPDX-License-Identifier: BSD-3-Clause */
/* test-compress.c: clusters compressed and decompressed, well-formed and
 * not.
 */
#include "base/compress.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "expect.h"
#include "rng.h"

#define FOR_EACH_TYPE(type)                                             \
    for (unsigned type = 0; type <= COMPRESS_ZSTD; type++)              \
        if (compress_supported(type))

static struct compress_context *context;

static int
make_context(void **state)
{
    (void)state;
    context = compress_context_new();
    return context ? 0 : -1;
}

static int
free_context(void **state)
{
    (void)state;
    compress_context_free(context);
    return 0;
}

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
    n = compress_encode(context, type, 0, s->plain, len, s->packed, len - 1);
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
    EXPECT(compress_decode(context, type, s->packed, in_len, s->out, s->len)
               == 0,
           "type %u, %zu of %zu bytes", type, in_len, s->packed_len);
    expect_same("decompressed", s->out, s->plain, s->len, 0);
    assert_int_equal(s->out[s->len], 0xee);
}

static void
expect_damaged(unsigned type, const void *in, size_t in_len, void *out,
               size_t out_len)
{
    errno = 0;
    EXPECT(compress_decode(context, type, in, in_len, out, out_len) == -1,
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
            long n = compress_encode(context, type, level, plain, sizeof plain,
                                     packed, sizeof packed);

            EXPECT(n > 0, "type %u, level %d", type, level);
            assert_int_equal(compress_decode(context, type, packed, n, out,
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
        assert_int_equal(compress_encode(context, type, 0, s.plain, s.len,
                                         s.out, s.packed_len - 1), 0);
        assert_int_equal(compress_encode(context, type, 0, s.plain, s.len,
                                         s.out, 1), 0);
        sample_free(&s);

        rng_init(&rng, 1, 0);
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = rng_next(&rng);
        assert_int_equal(compress_encode(context, type, 0, noise, sizeof noise,
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
            compress_decode(context, type, in, len, out, sizeof out);
            compress_decode_start(context, type, in, len, out, sizeof out,
                                  rng_below(&rng, sizeof out + 1));
            for (size_t j = 0; j < sizeof in; j++)
                in[j] = rng_next(&rng);
            compress_decode(context, type, in, sizeof in, out, sizeof out);
            compress_decode_start(context, type, in, sizeof in, out,
                                  sizeof out,
                                  rng_below(&rng, sizeof out + 1));
        }
        sample_free(&s);
    }
}

/* Runs zlib itself, another way for each block, if `strategies` are given:
 * 'd' usual, 'f' fixed codes, 'h' no matches, 's' stored.
 */
static size_t
deflate_blocks(const char *strategies, const unsigned char *in, size_t in_len,
               size_t block_len, unsigned char *out, size_t out_len)
{
    z_stream s = { .next_in = (void *)in, .next_out = out,
                   .avail_out = out_len };

    assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, -15, 9,
                                  Z_DEFAULT_STRATEGY), Z_OK);
    for (size_t pos = 0, i = 0; pos < in_len; pos += block_len, i++) {
        char how = strategies[i % strlen(strategies)];
        bool last = in_len - pos <= block_len;

        deflateParams(&s, how == 's' ? 0 : 9,
                      how == 'f' ? Z_FIXED
                      : how == 'h' ? Z_HUFFMAN_ONLY : Z_DEFAULT_STRATEGY);
        s.avail_in = last ? in_len - pos : block_len;
        assert_int_equal(deflate(&s, last ? Z_FINISH : Z_FULL_FLUSH),
                         last ? Z_STREAM_END : Z_OK);
    }
    deflateEnd(&s);
    return s.total_out;
}

/* Whatever is asked for of the start of a cluster is right, and nothing is
 * written behind it. */
static void
expect_starts(const char *what, unsigned type, struct sample *s,
              struct rng *rng)
{
    for (int i = 0; i < 300; i++) {
        size_t wanted = i < 64 ? (size_t)i * s->len / 64 + rng_below(rng, 2)
                               : rng_below(rng, s->len + 1);

        memset(s->out, 0xee, s->len + 1);
        EXPECT(compress_decode_start(context, type, s->packed, s->packed_len,
                                     s->out, s->len, wanted) == 0,
               "%s: %zu of %zu bytes", what, wanted, s->len);
        expect_same(what, s->out, s->plain, wanted, 0);
        assert_int_equal(s->out[s->len], 0xee);
    }
}

static void
the_start_of_a_cluster_is_enough(void **state)
{
    uint64_t seed = rng_seed(1);

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    FOR_EACH_TYPE(type) {
        for (size_t len = 512; len <= 65536; len *= 4) {
            struct sample s;
            struct rng rng;

            rng_init(&rng, seed, len);
            sample_make(&s, type, len, len);
            expect_starts("start", type, &s, &rng);
            sample_free(&s);
        }
    }
}

/* Noise and text in turns, in blocks of all kinds: stored ones hide where a
 * decoder that is out of room has come to. */
static void
the_start_of_any_deflate_is_enough(void **state)
{
    static const char *const strategies[] = {
        "d", "f", "h", "s", "ds", "sd", "fs", "hs", "dfhs", "sssd", "dddds",
    };
    uint64_t seed = rng_seed(1);
    struct sample s = { .len = 65536 };

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    s.plain = malloc(s.len);
    s.packed = malloc(4 * s.len);
    s.out = malloc(s.len + 1);
    for (size_t i = 0; i < sizeof strategies / sizeof strategies[0]; i++) {
        for (size_t block = 100; block <= 100000; block *= 10) {
            struct rng rng;

            rng_init(&rng, seed, i * 8 + block);
            pattern_fill(s.plain, s.len, seed + i, 0);
            for (size_t pos = 0; pos < s.len; pos++)
                if (pos / 1500 % 3 == 0)
                    s.plain[pos] = rng_next(&rng);
            s.packed_len = deflate_blocks(strategies[i], s.plain, s.len,
                                          block, s.packed, 4 * s.len);
            expect_starts(strategies[i], COMPRESS_ZLIB, &s, &rng);
        }
    }
    sample_free(&s);
}

static void
a_start_that_is_damaged_is_told(void **state)
{
    (void)state;
    FOR_EACH_TYPE(type) {
        struct sample s;

        sample_make(&s, type, 65536, 3);
        errno = 0;
        assert_int_equal(compress_decode_start(context, type, s.packed,
                                               s.packed_len / 2, s.out,
                                               s.len, s.len - 1), -1);
        assert_int_equal(errno, EIO);
        memset(s.packed, 0xff, 64);
        errno = 0;
        assert_int_equal(compress_decode_start(context, type, s.packed,
                                               s.packed_len, s.out, s.len,
                                               4096), -1);
        assert_int_equal(errno, EIO);
        sample_free(&s);
    }
}

/* Calls of all kinds in any order, failures among them. */
static void
a_context_serves_all_calls(void **state)
{
    uint64_t seed = rng_seed(1);
    struct rng rng;

    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    rng_init(&rng, seed, 0);
    for (int i = 0; i < 300; i++) {
        size_t len = 512 << rng_below(&rng, 8), wanted, packed_len;
        unsigned type = rng_below(&rng, 2);
        unsigned char *plain = malloc(len), *packed = malloc(len);
        unsigned char *out = malloc(len);
        long n;

        if (!compress_supported(type))
            type = COMPRESS_ZLIB;
        pattern_fill(plain, len, i + 1, 0);
        n = compress_encode(context, type, rng_below(&rng, 10), plain, len,
                            packed, rng_percent(&rng, 80) ? len : len / 64);
        packed_len = n > 0 ? n : 0;
        wanted = rng_below(&rng, len + 1);
        if (n == 0 || rng_percent(&rng, 20)) {
            compress_decode(context, type, packed, packed_len / 2, out, len);
        } else {
            assert_int_equal(compress_decode_start(context, type, packed, n,
                                                   out, len, wanted), 0);
            expect_same("start", out, plain, wanted, 0);
            assert_int_equal(compress_decode(context, type, packed, n, out,
                                             len), 0);
            expect_same("all", out, plain, len, 0);
        }
        free(plain);
        free(packed);
        free(out);
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
    assert_int_equal(compress_decode(context, COMPRESS_ZLIB, packed, n, out,
                                     sizeof out), 0);
    expect_same("decompressed", out, plain, sizeof out, 0);
}

/* What a reader gets whose window is no larger than it must be: it looks
 * into the window only where it comes to the end of the output at hand. */
static void
expect_window_of_4_kib(unsigned char *packed, size_t packed_len,
                       const unsigned char *plain, size_t len)
{
    unsigned char *out = malloc(len);
    z_stream s = { .next_in = packed, .avail_in = packed_len,
                   .next_out = out };
    int r = Z_OK;

    assert_int_equal(inflateInit2(&s, -12), Z_OK);
    while (r == Z_OK && s.total_out < len) {
        s.avail_out = len - s.total_out < 61 ? len - s.total_out : 61;
        r = inflate(&s, Z_NO_FLUSH);
    }
    if (r == Z_OK)
        r = inflate(&s, Z_FINISH);
    assert_int_equal(r, Z_STREAM_END);
    assert_int_equal(s.total_out, len);
    inflateEnd(&s);
    expect_same("decompressed", out, plain, len, 0);
    free(out);
}

static void
deflate_is_written_for_a_window_of_4_kib(void **state)
{
    static unsigned char plain[65536], packed[131072];

    (void)state;
    for (int level = 0; level <= 9; level += 9) {
        for (unsigned seed = 0; seed < 8; seed++) {
            size_t len = 65536 >> seed % 4;
            long n;

            fill_with_a_far_repetition(plain, sizeof plain);
            /* Distances around 4 KiB. */
            for (size_t i = 4096 + seed - 4; seed > 0 && i < len; i++)
                if (i / 50 % 3 != 0)
                    plain[i] = plain[i - 4096 - seed + 4];
            n = compress_encode(context, COMPRESS_ZLIB, level, plain, len,
                                packed, sizeof packed);
            EXPECT(n > 0, "level %d, seed %u", level, seed);
            expect_window_of_4_kib(packed, n, plain, len);
        }
    }
}

/* Made-up words, the first of which come most often. */
static void
fill_with_text(unsigned char *buf, size_t len)
{
    struct rng rng;
    size_t pos = 0;

    rng_init(&rng, 1, 0);
    while (pos < len) {
        uint64_t word = rng_below(&rng, 1 + rng_below(&rng, 1000));

        for (unsigned i = 0; i < 2 + word % 7 && pos < len; i++)
            buf[pos++] = 'a' + (word * 31 + i * (word / 9 + 5)) % 26;
        if (pos < len)
            buf[pos++] = ' ';
    }
}

/* The default may be another library's, but not a much worse one. */
static void
the_default_is_about_as_small_as_level_6(void **state)
{
    static unsigned char plain[65536], packed[65536];
    long n, m;

    (void)state;
    fill_with_text(plain, sizeof plain);
    n = compress_encode(context, COMPRESS_ZLIB, 0, plain, sizeof plain,
                        packed, sizeof packed);
    m = compress_encode(context, COMPRESS_ZLIB, 6, plain, sizeof plain,
                        packed, sizeof packed);
    print_message("default %ld, level 6 %ld bytes\n", n, m);
    EXPECT(n > 0 && n <= m + m / 8, "%ld bytes, at level 6 %ld", n, m);
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
    n = compress_encode(context, COMPRESS_ZSTD, 0, plain, 10000, packed,
                        sizeof packed);
    assert_true(n > 0);
    memcpy(packed + n, skipped, sizeof skipped);
    n += sizeof skipped;
    m = compress_encode(context, COMPRESS_ZSTD, 0, plain + 10000,
                        sizeof plain - 10000, packed + n,
                        sizeof packed - n);
    assert_true(m > 0);
    assert_int_equal(compress_decode(context, COMPRESS_ZSTD, packed, n + m, out,
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

/* nr blocks of deflate that hold nothing, then one with len bytes: the end.
 * Returns the length of all. */
static size_t
many_blocks(unsigned char *out, size_t nr, unsigned len)
{
    static const unsigned char nothing[] = { 0, 0, 0, 0xff, 0xff };
    size_t n = 0;

    for (size_t i = 0; i < nr; i++, n += sizeof nothing)
        memcpy(out + n, nothing, sizeof nothing);
    out[n] = 1;
    out[n + 1] = len & 0xff;
    out[n + 2] = len >> 8;
    out[n + 3] = ~len & 0xff;
    out[n + 4] = ~len >> 8 & 0xff;
    memset(out + n + 5, 'x', len);
    return n + 5 + len;
}

/* nr blocks that hold nothing, then more than the cluster has, in few bytes:
 * zlib alone reads it. */
static int
decode_behind_blocks(size_t nr)
{
    static unsigned char plain[70000], in[100000], out[65536];
    size_t n = many_blocks(in, nr, 0) - 5;

    n += deflate_blocks("d", plain, sizeof plain, sizeof plain, in + n,
                        sizeof in - n);
    return compress_decode(context, COMPRESS_ZLIB, in, n, out, sizeof out);
}

static void
blocks_of_nothing_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(decode_behind_blocks(4000), 0);
    assert_int_equal(decode_behind_blocks(6000), -1);
    assert_int_equal(errno, EIO);
}

static void
input_much_longer_than_a_cluster_is_damaged(void **state)
{
    static unsigned char in[20000], out[4096];

    (void)state;
    assert_int_equal(compress_decode(context, COMPRESS_ZLIB, in,
                                     many_blocks(in, 60, 4096), out,
                                     sizeof out), 0);
    expect_damaged(COMPRESS_ZLIB, in, many_blocks(in, 1500, 4096), out,
                   sizeof out);
    EXPECT(compress_decode_start(context, COMPRESS_ZLIB, in,
                                 many_blocks(in, 1500, 4096), out,
                                 sizeof out, 512) == -1, "a start of it");
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
    assert_int_equal(compress_decode(context, 2, buf, sizeof buf, out,
                                     sizeof out), -1);
    assert_int_equal(errno, ENOTSUP);
    assert_int_equal(compress_encode(context, 2, 0, buf, sizeof buf, out,
                                     sizeof out), -1);
    assert_int_equal(errno, ENOTSUP);
    assert_int_equal(compress_encode(context, COMPRESS_ZLIB, 99, buf,
                                     sizeof buf, out, sizeof out), -1);
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
        cmocka_unit_test(the_start_of_a_cluster_is_enough),
        cmocka_unit_test(the_start_of_any_deflate_is_enough),
        cmocka_unit_test(a_start_that_is_damaged_is_told),
        cmocka_unit_test(a_context_serves_all_calls),
        cmocka_unit_test(deflate_with_the_largest_window_is_read),
        cmocka_unit_test(deflate_is_written_for_a_window_of_4_kib),
        cmocka_unit_test(the_default_is_about_as_small_as_level_6),
        cmocka_unit_test(deflate_that_goes_on_after_the_cluster_is_read),
        cmocka_unit_test(zstd_in_several_frames_is_read),
        cmocka_unit_test(zstd_never_writes_past_the_cluster),
        cmocka_unit_test(blocks_of_nothing_are_bounded),
        cmocka_unit_test(input_much_longer_than_a_cluster_is_damaged),
        cmocka_unit_test(types_have_names),
        cmocka_unit_test(unknown_types_are_refused),
    };

    return cmocka_run_group_tests(tests, make_context, free_context);
}
