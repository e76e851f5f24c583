/* SPDX-License-Identifier: BSD-3-Clause */
/* compress.c: deflate and zstd, buffer to buffer; see compress.h.
 *
 * What libraries need beside the buffers is made when it is first used, and
 * kept: zstd asks the CPU for its features each time, which takes virtual
 * machines some 20 microseconds.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "base/compress.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
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

    /* Blocks of deflate that zlib decodes: so many, and one for each so many
     * bytes of input. Blocks that hold nothing cost their tables. */
    MIN_BLOCKS = 4096,
    BLOCK_BYTES = 64,
};

struct compress_context {
    z_stream deflate;           /* writes at deflate_level */
    bool has_deflate;
    int deflate_level;
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_decompressor *inflate;
#endif
#ifdef HAVE_ISAL
    struct isal *isal;
#endif
#ifdef HAVE_ZSTD
    ZSTD_DCtx *zstd_decoder;
    ZSTD_CCtx *zstd_encoder;
#endif
};

#ifdef HAVE_ISAL
struct isal {
    struct isal_zstream stream;
    unsigned char level_space[ISAL_DEF_LVL3_DEFAULT];
    unsigned char *check;       /* space for check_bytes */
    size_t check_bytes;
};
#endif

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

struct compress_context *
compress_context_new(void)
{
    return calloc(1, sizeof(struct compress_context));
}

void
compress_context_free(struct compress_context *c)
{
    if (!c)
        return;
    if (c->has_deflate)
        deflateEnd(&c->deflate);
#ifdef HAVE_LIBDEFLATE
    libdeflate_free_decompressor(c->inflate);
#endif
#ifdef HAVE_ISAL
    if (c->isal)
        free(c->isal->check);
    free(c->isal);
#endif
#ifdef HAVE_ZSTD
    ZSTD_freeDCtx(c->zstd_decoder);
    ZSTD_freeCCtx(c->zstd_encoder);
#endif
    free(c);
}

#ifdef HAVE_LIBDEFLATE
static bool
prepare_inflate(struct compress_context *c)
{
    if (!c->inflate)
        c->inflate = libdeflate_alloc_decompressor();
    return c->inflate != NULL;
}

/* Fast, but fails on streams that do not end exactly where out does. Those
 * that end before are `final`: nothing else would make more of them. */
static bool
decode_libdeflate(struct compress_context *c, const void *in, size_t in_len,
                  void *out, size_t out_len, bool *final)
{
    size_t used;

    *final = false;
    if (!prepare_inflate(c))
        return false;
    /* Without a place for the output's length it must be out_len. */
    switch (libdeflate_deflate_decompress_ex(c->inflate, in, in_len, out,
                                             out_len, &used, NULL)) {
    case LIBDEFLATE_SUCCESS:
        return true;
    case LIBDEFLATE_SHORT_OUTPUT:
        *final = true;
        return false;
    case LIBDEFLATE_BAD_DATA:
    case LIBDEFLATE_INSUFFICIENT_SPACE:
        break;
    }
    return false;
}

/* libdeflate gives up when a match, a literal or a stored block does not fit
 * what is left of out, and does not say how far it got. Bytes a good way
 * behind those wanted tell: they changed if it came that far. It writes at
 * most 299 bytes ahead of what is sure, and a match has at most 258. Where
 * it stopped at a stored block, they may not have changed.
 */
enum { AHEAD_BYTES = 512, MARK_BYTES = 16, MAX_MATCH_BYTES = 258 };

static const unsigned char unlikely_mark[MARK_BYTES] = {
    0x9c, 0x17, 0xe8, 0x5b, 0x03, 0xfd, 0x62, 0xa1,
    0x4e, 0xb7, 0x28, 0xd3, 0x71, 0x86, 0xca, 0x3f,
};

static size_t
room_for_start(size_t nr_wanted)
{
    return nr_wanted + AHEAD_BYTES + MARK_BYTES + MAX_MATCH_BYTES;
}

/* False: it is not known what out holds. */
static bool
decode_libdeflate_start(struct compress_context *c, const void *in,
                        size_t in_len, unsigned char *out, size_t nr_wanted)
{
    unsigned char *mark = out + nr_wanted + AHEAD_BYTES;
    size_t used, got;

    if (!prepare_inflate(c))
        return false;
    memcpy(mark, unlikely_mark, MARK_BYTES);
    switch (libdeflate_deflate_decompress_ex(c->inflate, in, in_len, out,
                                             room_for_start(nr_wanted),
                                             &used, &got)) {
    case LIBDEFLATE_SUCCESS:
        return got >= nr_wanted;
    case LIBDEFLATE_INSUFFICIENT_SPACE:
        return memcmp(mark, unlikely_mark, MARK_BYTES) != 0;
    case LIBDEFLATE_BAD_DATA:
    case LIBDEFLATE_SHORT_OUTPUT:
        break;
    }
    return false;
}
#endif

/* No more input than what cannot be compressed takes, with some to spare:
 * a descriptor can name twice a cluster. */
static size_t
useful_bytes(size_t in_len, size_t out_len)
{
    size_t most = out_len + out_len / 4 + 1024;

    return in_len < most ? in_len : most;
}

static int
inflate_blocks(z_stream *s, size_t in_len)
{
    size_t nr = MIN_BLOCKS + in_len / BLOCK_BYTES;
    int r = Z_OK;

    while (r == Z_OK && s->avail_out > 0) {
        if (nr-- == 0)
            return Z_DATA_ERROR;
        r = inflate(s, Z_BLOCK);
    }
    /* Bits that it has taken in may hold another end of a block. */
    return r == Z_BUF_ERROR ? inflate(s, Z_FINISH) : r;
}

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
        r = inflate_blocks(&s, in_len);
        inflateEnd(&s);
    }
    if ((r == Z_OK || r == Z_STREAM_END || r == Z_BUF_ERROR)
        && s.avail_out == 0)
        return 0;
    errno = r == Z_MEM_ERROR ? ENOMEM : EIO;
    return -1;
}

static int
decode_deflate(struct compress_context *c, const void *in, size_t in_len,
               void *out, size_t out_len)
{
#ifdef HAVE_LIBDEFLATE
    bool final;

    if (decode_libdeflate(c, in, in_len, out, out_len, &final))
        return 0;
    if (final) {
        errno = EIO;
        return -1;
    }
    /* zlib says if it is damaged: libdeflate fails on more. It also takes
     * some streams that zlib does not, with codes that have no meaning. */
#else
    (void)c;
#endif
    return decode_zlib(in, in_len, out, out_len);
}

static int
decode_deflate_start(struct compress_context *c, const void *in,
                     size_t in_len, void *out, size_t nr_wanted)
{
#ifdef HAVE_LIBDEFLATE
    if (decode_libdeflate_start(c, in, in_len, out, nr_wanted))
        return 0;
#else
    (void)c;
#endif
    return decode_zlib(in, in_len, out, nr_wanted);
}

static int
prepare_deflate(struct compress_context *c, int level)
{
    int r;

    if (c->has_deflate && c->deflate_level == level)
        return deflateReset(&c->deflate);
    if (c->has_deflate)
        deflateEnd(&c->deflate);
    memset(&c->deflate, 0, sizeof c->deflate);
    r = deflateInit2(&c->deflate, level ? level : Z_DEFAULT_COMPRESSION,
                     Z_DEFLATED, -WRITE_WINDOW_BITS, ZLIB_MEM_LEVEL,
                     Z_DEFAULT_STRATEGY);
    c->has_deflate = r == Z_OK;
    c->deflate_level = level;
    return r;
}

static long
encode_zlib(struct compress_context *c, int level, const void *in,
            size_t in_len, void *out, size_t out_len)
{
    z_stream *s = &c->deflate;
    int r = prepare_deflate(c, level);

    if (r != Z_OK) {
        errno = r == Z_MEM_ERROR ? ENOMEM : ENOTSUP;
        return -1;
    }
    s->next_in = (Bytef *)in;
    s->avail_in = in_len;
    s->next_out = out;
    s->avail_out = out_len;
    return deflate(s, Z_FINISH) == Z_STREAM_END ? (long)s->total_out : 0;
}

#ifdef HAVE_ISAL
static bool
prepare_isal(struct compress_context *c, size_t in_len)
{
    struct isal *i = c->isal;

    if (!i)
        i = c->isal = calloc(1, sizeof *i);
    if (i && i->check_bytes < in_len) {
        free(i->check);
        i->check = malloc(in_len);
        i->check_bytes = i->check ? in_len : 0;
    }
    return i && i->check_bytes >= in_len;
}

/* Several times as fast as zlib, for some percent of size. Data are
 * compressed once and kept for long, so what it makes is read back: if that
 * is not what it was given, *usable is false.
 */
static long
encode_isal(struct compress_context *c, const void *in, size_t in_len,
            void *out, size_t out_len, bool *usable)
{
    struct isal_zstream *s;
    size_t n;

    *usable = false;
    if (!prepare_isal(c, in_len))
        return 0;
    s = &c->isal->stream;
    isal_deflate_init(s);
    s->end_of_stream = 1;
    s->flush = NO_FLUSH;
    s->gzip_flag = IGZIP_DEFLATE;
    s->hist_bits = WRITE_WINDOW_BITS;
    s->level = 3;
    s->level_buf = c->isal->level_space;
    s->level_buf_size = sizeof c->isal->level_space;
    s->next_in = (uint8_t *)in;
    s->avail_in = in_len;
    s->next_out = out;
    s->avail_out = out_len;
    if (isal_deflate(s) != COMP_OK)
        return 0;
    n = out_len - s->avail_out;
    if (s->internal_state.state != ZSTATE_END) {
        *usable = s->avail_out == 0; /* it does not fit */
        return 0;
    }
    *usable = decode_deflate(c, out, n, c->isal->check, in_len) == 0
              && memcmp(c->isal->check, in, in_len) == 0;
    return n;
}
#endif

static long
encode_deflate(struct compress_context *c, int level, const void *in,
               size_t in_len, void *out, size_t out_len)
{
    if (in_len > INT_MAX || out_len > INT_MAX) {
        errno = ENOTSUP;
        return -1;
    }
#ifdef HAVE_ISAL
    if (level == 0) {
        bool usable;
        long n = encode_isal(c, in, in_len, out, out_len, &usable);

        if (usable)
            return n;
    }
#endif
    return encode_zlib(c, level, in, in_len, out, out_len);
}

#ifdef HAVE_ZSTD
/* One frame after the other, each at once into its place: needs no window,
 * however large the one a frame claims.
 */
static int
decode_zstd(struct compress_context *c, const void *in, size_t in_len,
            void *out, size_t out_len)
{
    const char *src = in;
    char *dst = out;

    if (!c->zstd_decoder)
        c->zstd_decoder = ZSTD_createDCtx();
    if (!c->zstd_decoder) {
        errno = ENOMEM;
        return -1;
    }
    while (out_len > 0) {
        size_t frame = ZSTD_findFrameCompressedSize(src, in_len);
        size_t got;

        if (ZSTD_isError(frame))
            break;
        got = ZSTD_decompressDCtx(c->zstd_decoder, dst, out_len, src, frame);
        if (ZSTD_isError(got))
            break;
        src += frame;
        in_len -= frame;
        dst += got;
        out_len -= got;
    }
    if (out_len == 0)
        return 0;
    errno = EIO;
    return -1;
}

static long
encode_zstd(struct compress_context *c, int level, const void *in,
            size_t in_len, void *out, size_t out_len)
{
    size_t r;

    if (!c->zstd_encoder)
        c->zstd_encoder = ZSTD_createCCtx();
    if (!c->zstd_encoder) {
        errno = ENOMEM;
        return -1;
    }
    r = ZSTD_compressCCtx(c->zstd_encoder, out, out_len, in, in_len, level);
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
compress_decode(struct compress_context *c, enum compress_type type,
                const void *in, size_t in_len, void *out, size_t out_len)
{
    in_len = useful_bytes(in_len, out_len);
    switch (type) {
    case COMPRESS_ZLIB:
        return decode_deflate(c, in, in_len, out, out_len);
    case COMPRESS_ZSTD:
#ifdef HAVE_ZSTD
        return decode_zstd(c, in, in_len, out, out_len);
#else
        break;
#endif
    }
    errno = ENOTSUP;
    return -1;
}

bool
compress_can_stop_early(enum compress_type type, size_t out_len,
                        size_t nr_wanted)
{
#ifdef HAVE_LIBDEFLATE
    nr_wanted = room_for_start(nr_wanted);
#endif
    /* A block of zstd is as large as a cluster, and comes as a whole. */
    return type == COMPRESS_ZLIB && nr_wanted < out_len - out_len / 8;
}

int
compress_decode_start(struct compress_context *c, enum compress_type type,
                      const void *in, size_t in_len, void *out,
                      size_t out_len, size_t nr_wanted)
{
    if (compress_can_stop_early(type, out_len, nr_wanted))
        return decode_deflate_start(c, in, useful_bytes(in_len, out_len), out,
                                    nr_wanted);
    return compress_decode(c, type, in, in_len, out, out_len);
}

long
compress_encode(struct compress_context *c, enum compress_type type,
                int level, const void *in, size_t in_len, void *out,
                size_t out_len)
{
    switch (type) {
    case COMPRESS_ZLIB:
        return encode_deflate(c, level, in, in_len, out, out_len);
    case COMPRESS_ZSTD:
#ifdef HAVE_ZSTD
        return encode_zstd(c, level, in, in_len, out, out_len);
#else
        break;
#endif
    }
    errno = ENOTSUP;
    return -1;
}
