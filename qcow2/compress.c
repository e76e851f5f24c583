/* SPDX-License-Identifier: BSD-3-Clause */
/* compress.c: deflate and zstd, buffer to buffer; see compress.h.
 *
 * Contexts are allocated for each call, so that there is nothing to share
 * between threads or to free when they end. That costs next to nothing, but
 * for zstd in virtual machines: it asks the CPU for its features each time,
 * which takes them some 20 microseconds.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "compress.h"

#include <errno.h>
#include <limits.h>
#include <zlib.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

enum {
    /* What readers are promised: they may allocate a window of 4 KiB. */
    WRITE_WINDOW_BITS = 12,
    /* The most deflate knows: other writers are less modest. */
    READ_WINDOW_BITS = 15,
    ZLIB_MEM_LEVEL = 9,
};

bool
compress_supported(unsigned type)
{
    switch (type) {
    case COMPRESS_ZLIB:
        return true;
    case COMPRESS_ZSTD:
#ifdef HAVE_ZSTD
        return true;
#else
        return false;
#endif
    }
    return false;
}

const char *
compress_name(unsigned type)
{
    switch (type) {
    case COMPRESS_ZLIB:
        return "zlib";
    case COMPRESS_ZSTD:
        return "zstd";
    }
    return "unknown";
}

#ifdef HAVE_LIBDEFLATE
/* Fast, but fails on streams that do not end exactly where out does. */
static bool
decode_libdeflate(const void *in, size_t in_len, void *out, size_t out_len)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    enum libdeflate_result r;
    size_t used;

    if (!d)
        return false;
    /* Without a place for the output's length it must be out_len. */
    r = libdeflate_deflate_decompress_ex(d, in, in_len, out, out_len,
                                         &used, NULL);
    libdeflate_free_decompressor(d);
    return r == LIBDEFLATE_SUCCESS;
}
#endif

/* Full output is success, even if the stream goes on or its end is cut. */
static int
decode_zlib(const void *in, size_t in_len, void *out, size_t out_len)
{
    z_stream s = {
        .next_in = (Bytef *)in,
        .avail_in = in_len,
        .next_out = out,
        .avail_out = out_len,
    };
    int r;

    if (in_len > UINT_MAX || out_len > UINT_MAX) {
        errno = ENOTSUP;
        return -1;
    }
    r = inflateInit2(&s, -READ_WINDOW_BITS);
    if (r == Z_OK) {
        r = inflate(&s, Z_FINISH);
        inflateEnd(&s);
    }
    if ((r == Z_STREAM_END || r == Z_BUF_ERROR) && s.avail_out == 0)
        return 0;
    errno = r == Z_MEM_ERROR ? ENOMEM : EIO;
    return -1;
}

static int
decode_deflate(const void *in, size_t in_len, void *out, size_t out_len)
{
#ifdef HAVE_LIBDEFLATE
    if (decode_libdeflate(in, in_len, out, out_len))
        return 0;
    /* zlib decides what is damaged, so that every build agrees on it. */
#endif
    return decode_zlib(in, in_len, out, out_len);
}

static long
encode_deflate(int level, const void *in, size_t in_len,
               void *out, size_t out_len)
{
    z_stream s = {
        .next_in = (Bytef *)in,
        .avail_in = in_len,
        .next_out = out,
        .avail_out = out_len,
    };
    int r;

    if (in_len > UINT_MAX || out_len > UINT_MAX) {
        errno = ENOTSUP;
        return -1;
    }
    r = deflateInit2(&s, level ? level : Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                     -WRITE_WINDOW_BITS, ZLIB_MEM_LEVEL, Z_DEFAULT_STRATEGY);
    if (r != Z_OK) {
        errno = r == Z_MEM_ERROR ? ENOMEM : ENOTSUP;
        return -1;
    }
    r = deflate(&s, Z_FINISH);
    deflateEnd(&s);
    return r == Z_STREAM_END ? (long)s.total_out : 0;
}

#ifdef HAVE_ZSTD
/* One frame after the other, each at once into its place: needs no window,
 * however large the one a frame claims.
 */
static int
decode_zstd(const void *in, size_t in_len, void *out, size_t out_len)
{
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    const char *src = in;
    char *dst = out;

    if (!ctx) {
        errno = ENOMEM;
        return -1;
    }
    while (out_len > 0) {
        size_t frame = ZSTD_findFrameCompressedSize(src, in_len);
        size_t got;

        if (ZSTD_isError(frame))
            break;
        got = ZSTD_decompressDCtx(ctx, dst, out_len, src, frame);
        if (ZSTD_isError(got))
            break;
        src += frame;
        in_len -= frame;
        dst += got;
        out_len -= got;
    }
    ZSTD_freeDCtx(ctx);
    if (out_len == 0)
        return 0;
    errno = EIO;
    return -1;
}

static long
encode_zstd(int level, const void *in, size_t in_len,
            void *out, size_t out_len)
{
    size_t r = ZSTD_compress(out, out_len, in, in_len, level);

    if (!ZSTD_isError(r))
        return (long)r;
    switch ((int)ZSTD_getErrorCode(r)) {
    case ZSTD_error_dstSize_tooSmall:
        return 0;
    case ZSTD_error_memory_allocation:
        errno = ENOMEM;
        return -1;
    }
    errno = ENOTSUP;
    return -1;
}
#endif /* HAVE_ZSTD */

int
compress_decode(enum compress_type type, const void *in, size_t in_len,
                void *out, size_t out_len)
{
    switch (type) {
    case COMPRESS_ZLIB:
        return decode_deflate(in, in_len, out, out_len);
    case COMPRESS_ZSTD:
#ifdef HAVE_ZSTD
        return decode_zstd(in, in_len, out, out_len);
#else
        break;
#endif
    }
    errno = ENOTSUP;
    return -1;
}

long
compress_encode(enum compress_type type, int level,
                const void *in, size_t in_len, void *out, size_t out_len)
{
    switch (type) {
    case COMPRESS_ZLIB:
        return encode_deflate(level, in, in_len, out, out_len);
    case COMPRESS_ZSTD:
#ifdef HAVE_ZSTD
        return encode_zstd(level, in, in_len, out, out_len);
#else
        break;
#endif
    }
    errno = ENOTSUP;
    return -1;
}
