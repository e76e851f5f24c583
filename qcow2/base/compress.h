/* SPDX-License-Identifier: BSD-3-Clause */
/* compress.h: one cluster, compressed or decompressed, buffer to buffer.
 *
 * The only place that knows zlib, libdeflate, ISA-L and zstd. Knows nothing
 * of images.
 */
#ifndef QCOW2_COMPRESS_H
#define QCOW2_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>

/* Values are those of the header's compression_type field. */
enum compress_type {
    COMPRESS_ZLIB = 0, /* raw deflate, window 4 KiB when written */
    COMPRESS_ZSTD = 1,
};

/* Was support for this type built in? False for unknown types too. */
bool compress_supported(unsigned type);

/* "zlib", "zstd", or "unknown". */
const char *compress_name(unsigned type);

/* What the libraries need beside the buffers, kept from one call to the
 * next. For one thread at a time. new fails for want of memory only.
 */
struct compress_context;
struct compress_context *compress_context_new(void);
void compress_context_free(struct compress_context *c); /* NULL is fine */

/* Decompresses in[0, in_len) until out[0, out_len) is full. Bytes of input
 * after that are ignored (a descriptor counts whole sectors). Returns 0, or
 * -1 with errno: EIO if the input is damaged or ends early, ENOTSUP if the
 * type is not supported, ENOMEM. Memory used is bounded by a constant; so is
 * the time for each byte of output: input that is longer than what cannot be
 * compressed needs is damaged, and in part deflate of very many blocks.
 */
int compress_decode(struct compress_context *c, enum compress_type type,
                    const void *in, size_t in_len, void *out,
                    size_t out_len);

/* The same where only the first nr_wanted bytes are of interest: the rest of
 * out may hold anything then, and damage may go unnoticed behind them. Much
 * faster for deflate, if they are few.
 */
int compress_decode_start(struct compress_context *c,
                          enum compress_type type, const void *in,
                          size_t in_len, void *out, size_t out_len,
                          size_t nr_wanted);

/* Is compress_decode_start faster? */
bool compress_can_stop_early(enum compress_type type, size_t out_len,
                             size_t nr_wanted);

/* Compresses in[0, in_len) into out[0, out_len). Returns the compressed
 * length, 0 if it does not fit out_len (store it uncompressed then), or -1
 * on failure (errno ENOMEM or ENOTSUP). level 0 is the default: for deflate,
 * ISA-L where it is there.
 */
long compress_encode(struct compress_context *c, enum compress_type type,
                     int level, const void *in, size_t in_len, void *out,
                     size_t out_len);

#endif /* QCOW2_COMPRESS_H */
