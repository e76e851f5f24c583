/* SPDX-License-Identifier: BSD-3-Clause */
/* target-decompress.c: decompression, and compression, of any bytes. What
 * libdeflate makes of a stream is what zlib makes of it, if that makes
 * anything of it; what was compressed is what comes out again.
 *
 * The first byte of the input says the type and the size of a cluster.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/compress.h"
#include "bounds.h"
#include "targets.h"

/* Or to nothing at all: zlib knows more reasons to refuse a stream. */
static bool
inflates_to(const uint8_t *in, size_t in_len, const uint8_t *out,
            size_t out_len)
{
    uint8_t *buf = malloc(out_len);
    z_stream s = {
        .next_in = (Bytef *)in, .avail_in = in_len,
        .next_out = buf, .avail_out = out_len,
    };
    bool same;
    int r;

    if (inflateInit2(&s, -15) != Z_OK)
        abort();
    r = inflate(&s, Z_FINISH);
    same = r == Z_DATA_ERROR
           || (s.avail_out == 0 && memcmp(buf, out, out_len) == 0);
    inflateEnd(&s);
    free(buf);
    return same;
}

static void
there_and_back(struct compress_context *c, enum compress_type type,
               const uint8_t *data, size_t nr_bytes)
{
    uint8_t *packed = malloc(nr_bytes + 1), *out = malloc(nr_bytes + 1);
    long n = compress_encode(c, type, 0, data, nr_bytes, packed, nr_bytes);

    MUST(n >= 0 && (size_t)n <= nr_bytes, "compressed to %ld bytes", n);
    if (n > 0)
        MUST(compress_decode(c, type, packed, n, out, nr_bytes) == 0
             && memcmp(out, data, nr_bytes) == 0,
             "compressed data became something else");
    free(out);
    free(packed);
}

/* The start of it, however little is wanted, is what the whole begins with,
 * where there is a whole. */
static void
start(struct compress_context *c, enum compress_type type, const uint8_t *in,
      size_t in_len, const uint8_t *whole, size_t out_len)
{
    uint8_t *out = malloc(out_len);

    for (size_t wanted = out_len; wanted > 0; wanted = wanted * 5 / 8) {
        int r = compress_decode_start(c, type, in, in_len, out, out_len,
                                      wanted);

        if (whole)
            MUST(r == 0 && memcmp(out, whole, wanted) == 0,
                 "the first %zu bytes are others", wanted);
    }
    free(out);
}

void
target_decompress(const uint8_t *data, size_t nr_bytes)
{
    enum compress_type type = COMPRESS_ZLIB;
    struct compress_context *c;
    uint8_t *out, *in;
    size_t out_len;
    bool ok;

    if (nr_bytes < 2)
        return;
    c = compress_context_new();
    if (!c)
        abort();
    if (data[0] & 1 && compress_supported(COMPRESS_ZSTD))
        type = COMPRESS_ZSTD;
    out_len = (size_t)512 << (data[0] >> 1) % 13;
    data++;
    nr_bytes--;
    in = malloc(nr_bytes); /* so that nobody reads past its end unseen */
    memcpy(in, data, nr_bytes);
    out = calloc(1, out_len);
    ok = compress_decode(c, type, in, nr_bytes, out, out_len) == 0;
    if (ok && type == COMPRESS_ZLIB)
        MUST(inflates_to(in, nr_bytes, out, out_len), "zlib disagrees");
    start(c, type, in, nr_bytes, ok ? out : NULL, out_len);
    free(out);
    there_and_back(c, type, in, min_u64(nr_bytes, 64 << 10));
    free(in);
    compress_context_free(c);
}
