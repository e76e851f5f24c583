/* SPDX-License-Identifier: BSD-3-Clause */
/* store.h: the contract between the data path and what holds guest data.
 *
 * A store keeps the bytes of guest clusters, each at a place: a host offset
 * in the store's file. Every call has the guest offset of the first byte as
 * well, as a place, or a key, may depend on it. Compressed clusters are in no
 * store: they are packed in the image's own file.
 *
 * The caller holds the guest range: shared or exclusively to read, write and
 * zero, exclusively to place and release. Functions return 0, or -1 with *err
 * set.
 */
#ifndef QCOW2_STORE_H
#define QCOW2_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/checked.h"
#include "storage/io.h"

struct alloc_run; /* meta/alloc.h */
struct store;

struct store_ops {
    /* Where not is_plain. Reads all of iov, which may begin and end anywhere;
     * writes all of iov; makes bytes read as zeroes in their place (only where
     * can_zero; flags as for io_zero). What is written and zeroed are whole
     * blocks of `align` bytes.
     */
    int (*read)(struct store *s, const struct iovec *iov, int nr_iov,
                uint64_t guest_off, uint64_t host_off,
                struct qcow2_error *err);
    int (*write)(struct store *s, const struct iovec *iov, int nr_iov,
                 uint64_t guest_off, uint64_t host_off,
                 struct qcow2_error *err);
    int (*zero)(struct store *s, uint64_t guest_off, uint64_t host_off,
                uint64_t nr_bytes, unsigned flags, struct qcow2_error *err);

    /* Where not counted. place gives one to `want` guest clusters a
     * contiguous place. release takes it back: in memory no table points
     * there any more, but on disk one may until the next flush, and what is
     * there must last as long. check: may a table say that guest bytes have
     * this place? If not, the table is damaged.
     */
    int (*place)(struct store *s, uint64_t guest_off, uint64_t want,
                 struct alloc_run *run, struct qcow2_error *err);
    void (*release)(struct store *s, uint64_t guest_off, uint64_t host_off,
                    uint64_t nr_clusters);
    int (*check)(struct store *s, uint64_t guest_off, uint64_t host_off,
                 uint64_t nr_bytes, struct qcow2_error *err);

    /* May be NULL: nothing is to be freed. */
    void (*close)(struct store *s);
};

/* Fields never change while the store is in use. */
struct store {
    const struct store_ops *ops; /* NULL: is_plain, and counted or read-only */
    struct io *io;      /* a flush makes it durable before tables point to
                         * what was written */
    uint32_t align;     /* bytes of a block: a power of 2, at most a cluster */
    bool is_plain;      /* guest bytes are the bytes of io at their place */
    bool counted;       /* places are host clusters of the image's own file:
                         * alloc.h gives them out and counts references */
    bool fresh_is_zero; /* bytes of a new place read as zeroes wherever those
                         * of its file do */
    bool can_zero;      /* else zeroes are metadata, or are written */
    bool zeroes_are_data; /* they are never metadata alone: whoever reads the
                         * store without tables must find them, too */
    bool place_0;       /* host offset 0 is a place like others */
};

/* A store that is all of a file: what a layer without tables has. */
struct store store_plain(struct io *io);

/* A store in an image's own file. */
struct store store_in_image(struct io *io);

int store_readv(struct store *s, const struct iovec *iov, int nr_iov,
                uint64_t guest_off, uint64_t host_off,
                struct qcow2_error *err);
int store_writev(struct store *s, const struct iovec *iov, int nr_iov,
                 uint64_t guest_off, uint64_t host_off,
                 struct qcow2_error *err);
int store_zero(struct store *s, uint64_t guest_off, uint64_t host_off,
               uint64_t nr_bytes, unsigned flags, struct qcow2_error *err);

/* Writes bytes that may begin and end anywhere, with what surrounds them in
 * their first and last block, which is read first. The caller holds these
 * blocks exclusively: whoever else wrote to them meanwhile would lose it.
 */
int store_merge(struct store *s, const void *buf, size_t nr_bytes,
                uint64_t guest_off, uint64_t host_off,
                struct qcow2_error *err);

/* Makes what was written durable, if it is not in the image's own file, of
 * which that is said elsewhere.
 */
int store_flush(struct store *s, const struct io *own,
                struct qcow2_error *err);
void store_close(struct store *s);

/* Are bytes at off, of guest or host, whole blocks? */
static inline bool
store_is_whole(const struct store *s, uint64_t off, uint64_t nr_bytes)
{
    return is_aligned(off | nr_bytes, s->align);
}

static inline int
store_read(struct store *s, void *buf, size_t nr_bytes, uint64_t guest_off,
           uint64_t host_off, struct qcow2_error *err)
{
    const struct iovec iov = { buf, nr_bytes };

    if (s->is_plain)
        return io_pread(s->io, buf, nr_bytes, host_off, err);
    return s->ops->read(s, &iov, 1, guest_off, host_off, err);
}

static inline int
store_write(struct store *s, const void *buf, size_t nr_bytes,
            uint64_t guest_off, uint64_t host_off, struct qcow2_error *err)
{
    const struct iovec iov = { (void *)buf, nr_bytes };

    if (s->is_plain)
        return io_pwrite(s->io, buf, nr_bytes, host_off, err);
    return s->ops->write(s, &iov, 1, guest_off, host_off, err);
}

#endif /* QCOW2_STORE_H */
