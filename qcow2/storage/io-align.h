/* SPDX-License-Identifier: BSD-3-Clause */
/* io-align.h: a backend for any bytes over one that takes whole blocks only:
 * an NBD server with a minimum block, a device, a file opened for direct I/O.
 *
 * Reads of parts of blocks read the blocks. Writes of parts merge them with
 * what is there while the blocks are held exclusively; writes and zeroing of
 * whole blocks hold them shared, or a merge could undo them with what it read
 * before. What the caller gives as whole blocks is passed on without a copy;
 * a list of buffers is one request below if the whole of it is.
 *
 * A block may hold what several parts of an image own: what a merge writes of
 * the others is what was written last, as nobody writes to the block
 * meanwhile, nor cuts the file inside of it. So to a power cut it is as if
 * their own last write had been made once more (DESIGN.md, "Direct I/O").
 */
#ifndef QCOW2_IO_ALIGN_H
#define QCOW2_IO_ALIGN_H

#include "storage/io.h"

enum { IO_ALIGN_MAX_BYTES = 65536 };

/* Takes over below, also on failure. align is a power of 2, at most
 * IO_ALIGN_MAX_BYTES; with 1 it is below that is returned. The size of the
 * file below is a multiple of it, or the file grows: then a write to its last
 * block makes it so, but for a moment only if keeps_size is set. What is too
 * short for a whole block cannot be punched, nor zeroed fast (ENOTSUP).
 */
struct io *io_align_new(struct io *below, uint32_t align,
                        struct qcow2_error *err);

/* Has below go past the host's cache, if it has one there, and puts this
 * backend over it if it needs that. Takes over below, also on failure. */
struct io *io_align_direct(struct io *below, struct qcow2_error *err);

#endif /* QCOW2_IO_ALIGN_H */
