/* SPDX-License-Identifier: BSD-3-Clause */
/* io.h: the contract between the engine and what stores an image's bytes.
 *
 * A backend (io-file.c here; memory, fault, crash and order backends in
 * tests/support) fills a struct io and its struct io_ops. Every function is
 * called from any number of threads at once. Offsets are host offsets in
 * bytes. All return 0, or -1 with *err set (errnum as the kernel gave it).
 *
 * Durability: flush makes every write, zero, punch and truncate that had
 * returned before it was called survive a power cut. Before that any subset
 * of them may survive, in any order, torn at 512 bytes. io_flush reaches the
 * backend only if something was changed since the last flush that succeeded
 * began, and once at first. After one that failed none is tried again: all
 * fail, and the cache below is dropped when the backend is closed.
 */
#ifndef QCOW2_IO_H
#define QCOW2_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/shared.h"
#include "qcow2.h"

struct io;

/* Flags of io_zero. */
enum {
    IO_ZERO_PUNCH = 1, /* space may be given back to the file system */
    IO_ZERO_FAST = 2,  /* fail with ENOTSUP rather than write zeroes */
};

/* What requests have to be multiples of: powers of 2. */
struct io_blocks {
    uint32_t file;   /* offsets and lengths in the file */
    uint32_t memory; /* addresses of buffers */
};

struct io_ops {
    /* Frees io, and lets go of locks. No error: what matters was flushed. */
    void (*close)(struct io *io);

    /* Reads all of iov. Bytes past the end of the file read as zeroes. */
    int (*preadv)(struct io *io, const struct iovec *iov, int nr_iov,
                  uint64_t host_off, struct qcow2_error *err);

    /* Writes all of iov, growing the file if need be. On failure any part
     * may have been written. At most IO_MAX_IOV elements.
     */
    int (*pwritev)(struct io *io, const struct iovec *iov, int nr_iov,
                   uint64_t host_off, struct qcow2_error *err);

    int (*flush)(struct io *io, struct qcow2_error *err);

    /* The range reads as zeroes afterwards. Grows the file if the range
     * ends beyond it. Falls back to writing unless IO_ZERO_FAST. Without
     * flags its space is allocated, as far as the file system can promise
     * that, so that a later write to it does not fail with ENOSPC.
     */
    int (*zero)(struct io *io, uint64_t host_off, uint64_t nr_bytes,
                unsigned flags, struct qcow2_error *err);

    /* Gives the range's space back; it reads as zeroes afterwards. Never
     * changes the size. ENOTSUP where the file cannot: nothing is changed.
     */
    int (*punch)(struct io *io, uint64_t host_off, uint64_t nr_bytes,
                 struct qcow2_error *err);

    int (*truncate)(struct io *io, uint64_t size, struct qcow2_error *err);

    /* Current size in bytes (of a block device: the device's). */
    int (*get_size)(struct io *io, uint64_t *size, struct qcow2_error *err);

    /* Space the file takes from its file system, in bytes. */
    int (*get_allocated)(struct io *io, uint64_t *nr_bytes,
                         struct qcow2_error *err);

    /* Is host_off in a hole of the file? *len (in: how far the caller
     * looks; out: at least 1) says how far the answer holds. May be NULL:
     * all is data.
     */
    int (*extent)(struct io *io, uint64_t host_off, uint64_t *len,
                  bool *is_hole, struct qcow2_error *err);

    /* Advice that the range will be read soon. May be NULL. */
    void (*prefetch)(struct io *io, uint64_t host_off, uint64_t nr_bytes);

    /* Drops what a cache below the backend holds of the file, so that reads
     * show what is stored: waits until nothing of it is being written, and
     * keeps only what is still to be written. May be NULL: there is none.
     */
    void (*drop_cache)(struct io *io);

    /* Advice on how the file system should store a file that has no data yet:
     * not copying it when it is written to, and in extents of so many bytes
     * (0: as it likes). May be NULL.
     */
    void (*advise_layout)(struct io *io, bool nocow, uint32_t extent_bytes);

    /* From now on what is read and written goes past the host's cache.
     * Requests have to be whole blocks then (io-align.h): *blocks says of
     * what size. ENOTSUP where the file system cannot do that. May be NULL:
     * this host caches nothing of it.
     */
    int (*set_direct)(struct io *io, struct io_blocks *blocks,
                      struct qcow2_error *err);
};

struct io {
    const struct io_ops *ops;
    char *name;        /* for messages; owned by the backend */
    bool readonly;     /* writes fail with EROFS before they reach ops */
    bool can_grow;     /* false: block device, writes end at its end */
    bool reads_zero_past_end; /* what was never written reads as zeroes:
                               * true of files, not of block devices */
    bool is_local;     /* a file or device of this host: it costs no network
                        * to reach it */
    uint64_t dev, ino; /* as in struct qcow2_file_id */
    struct qcow2_window window; /* the part of that file, if it is one */
    bool lost;         /* atomic, see io_is_lost */
    const struct io *below; /* the backend that this one is made of, if it
                             * is */
    mode_t mode;       /* of a regular file: who may read and write it;
                        * else 0 */
    uint64_t device;   /* number of a block device, whatever its node; or 0 */
    uint64_t born;     /* birth time in ns since the epoch; 0: unknown */
    bool keeps_size;     /* a write to a part of its last block does not make
                          * it longer (io-align.h) */
    bool end_is_guessed; /* what is near its end may belong to others
                          * (io-window.h) */
    bool no_barriers;    /* flushes do nothing: what becomes of the file in a
                          * power cut does not matter */
    bool keeps_no_locks; /* none was taken, as its file system has none */

    /* io.c: a flush with nothing to do is none. Atomic. */
    shared_u64 nr_changes; /* requests that changed the file and returned */
    shared_u64 nr_durable; /* of them, and 1 more: what others did before */

    /* A flush failed; it stays so. Atomic. */
    bool flush_failed;
    struct failure *failure; /* failures.h: where to record that; or NULL */
};

/* What messages say of a file of which a flush has failed. */
#define IO_FLUSH_FAILED                                                \
    "an earlier flush failed, so part of what was written may not be " \
    "on the disk: this process writes no more to it; check the "       \
    "storage, then restart the process"

enum { IO_MAX_IOV = 16 };

int io_preadv(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err);
int io_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
               uint64_t host_off, struct qcow2_error *err);
int io_pread(struct io *io, void *buf, size_t nr_bytes,
             uint64_t host_off, struct qcow2_error *err);
int io_pwrite(struct io *io, const void *buf, size_t nr_bytes,
              uint64_t host_off, struct qcow2_error *err);
int io_flush(struct io *io, struct qcow2_error *err);
int io_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            unsigned flags, struct qcow2_error *err);
int io_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
             struct qcow2_error *err);
int io_truncate(struct io *io, uint64_t size, struct qcow2_error *err);
int io_get_size(struct io *io, uint64_t *size, struct qcow2_error *err);
int io_get_allocated(struct io *io, uint64_t *nr_bytes,
                     struct qcow2_error *err);
int io_extent(struct io *io, uint64_t host_off, uint64_t *len,
              bool *is_hole, struct qcow2_error *err);
void io_prefetch(struct io *io, uint64_t host_off, uint64_t nr_bytes);
void io_drop_cache(struct io *io);
void io_advise_layout(struct io *io, bool nocow, uint32_t extent_bytes);
bool io_flush_has_failed(const struct io *io);

/* Does every request fail until the file is opened anew, as the server that
 * has it is lost? */
bool io_is_lost(const struct io *io);
void io_close(struct io *io); /* NULL is fine */

/* How a file is shared with other processes, on the same bytes as QEMU:
 * open file description locks, taken before the first read.
 */
enum io_lock {
    IO_LOCK_NONE,  /* take none, look at none */
    IO_LOCK_READ,  /* nobody may write while we read */
    IO_LOCK_WRITE, /* one writer, no readers that mind */
};

/* Opens a regular file or block device. Where fd is not -1 it is used (a
 * duplicate of it; the caller keeps its own) and path is only for messages.
 * EBUSY when locked by somebody else; the text names the holder if known. A
 * block device that is opened for writing by its name and with a lock is also
 * claimed (O_EXCL): by whatever node, a mount, or another claim, it can be had
 * once.
 */
struct io *io_file_open(const char *path, int fd, bool readonly,
                        enum io_lock lock, struct qcow2_error *err);

/* The same for the file that held_fd (O_PATH) holds, which has this name in
 * dir_fd, or none (-1). name is for messages.
 */
struct io *io_file_open_held(const char *path, int held_fd, int dir_fd,
                             const char *name, bool readonly,
                             enum io_lock lock, struct qcow2_error *err);

/* The same for a file that was just created: takes over fd, which is open for
 * reading and writing, also on failure. */
struct io *io_file_take(const char *path, int fd, enum io_lock lock,
                        struct qcow2_error *err);

#endif /* QCOW2_IO_H */
