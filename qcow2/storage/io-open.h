/* SPDX-License-Identifier: BSD-3-Clause */
/* io-open.h: opens and makes what the path policy found, by the driver that
 * has it.
 */
#ifndef QCOW2_IO_OPEN_H
#define QCOW2_IO_OPEN_H

#include <stdbool.h>

#include "storage/io.h"
#include "storage/path-policy.h"

struct io_open_options {
    bool readonly;
    enum io_lock lock;          /* of what has locks */
    bool direct;                /* past the host's cache */
    struct qcow2_window window; /* of the file that is the image */
    unsigned nbd_timeout_ms;    /* as in struct qcow2_options */
    const struct io_driver *driver; /* asked before those of the engine; NULL:
                                 * there is none */
};

/* One way to store the bytes of files. */
struct io_driver {
    /* Does it open this file? */
    bool (*matches)(const struct policy_file *file);

    struct io *(*open)(const struct policy_file *file,
                       const struct io_open_options *o,
                       struct qcow2_error *err);

    /* Makes the file that is not there, for writing, with IO_LOCK_WRITE and
     * this mode but for the umask, and says in the target what it made. NULL:
     * its files are always there. */
    struct io *(*create)(struct policy_target *t, mode_t mode,
                         struct qcow2_error *err);
};

/* Does the mode go past the host's cache? */
static inline bool
io_cache_is_direct(enum qcow2_cache cache)
{
    return cache == QCOW2_CACHE_NONE || cache == QCOW2_CACHE_DIRECTSYNC;
}

/* With direct it is for any bytes all the same. */
struct io *io_open(const struct policy_file *file,
                   const struct io_open_options *o, struct qcow2_error *err);

/* The same of a file that is open already, which it takes over, also on
 * failure: what direct and window say. */
struct io *io_open_over(struct io *io, const struct io_open_options *o,
                        struct qcow2_error *err);

struct io_create_options {
    bool overwrite;             /* what is there, durably, once nobody else
                                 * uses it; else it is refused (EEXIST) */
    mode_t mode;
    const struct io_driver *driver; /* as in io_open_options */
};

/* Makes the file, or opens the one that is there and empties it; with
 * IO_LOCK_WRITE. A device or NBD export is always there, and keeps its size and
 * data.
 */
struct io *io_create(struct policy_target *t,
                     const struct io_create_options *o,
                     struct qcow2_error *err);

#endif /* QCOW2_IO_OPEN_H */
