/* SPDX-License-Identifier: BSD-3-Clause */
/* compress.h: one cluster, compressed or decompressed, buffer to buffer.
 *
 * The only place that knows zlib, libdeflate and zstd. Knows nothing of
 * images; all functions are safe for any number of threads.
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

/* Decompresses in[0, in_len) until out[0, out_len) is full. Bytes of input
 * after that are ignored (a descriptor counts whole sectors). Returns 0, or
 * -1 with errno: EIO if the input is damaged or ends early, ENOTSUP if the
 * type is not supported, ENOMEM. Memory used is bounded by a constant.
 */
int compress_decode(enum compress_type type, const void *in, size_t in_len,
                    void *out, size_t out_len);

/* Compresses in[0, in_len) into out[0, out_len). Returns the compressed
 * length, 0 if it does not fit out_len (store it uncompressed then), or -1
 * on failure (errno ENOMEM or ENOTSUP). level 0 is the library's default.
 */
long compress_encode(enum compress_type type, int level,
                     const void *in, size_t in_len,
                     void *out, size_t out_len);

#endif /* QCOW2_COMPRESS_H */
