/* SPDX-License-Identifier: BSD-3-Clause */
/* watch.c: puts the backend that asserts the order of writes (io-order.h)
 * under every image that a test opens for writing, however it does: the
 * linker hands the engine this function for image_open (--wrap).
 */
#include "io-fault.h"
#include "io-order.h"
#include "meta/image.h"

struct image *__wrap_image_open(struct io *io, bool readonly,
                                struct cache *meta,
                                struct decompress_pool *decompress,
                                struct qcow2_error *err);
struct image *__real_image_open(struct io *io, bool readonly,
                                struct cache *meta,
                                struct decompress_pool *decompress,
                                struct qcow2_error *err);

/* All of a file is kept in memory, three times. */
enum { MAX_WATCHED_BYTES = 64 << 20 };

struct image *
__wrap_image_open(struct io *io, bool readonly, struct cache *meta,
                  struct decompress_pool *decompress, struct qcow2_error *err)
{
    uint64_t size;

    /* Without barriers there is no order. */
    if (!readonly && !io->readonly && !io->no_barriers && !io_order_is(io)
        && io_get_size(io_fault_below(io), &size, NULL) == 0
        && size <= MAX_WATCHED_BYTES)
        io = io_order_new(io, NULL);
    return __real_image_open(io, readonly, meta, decompress, err);
}
