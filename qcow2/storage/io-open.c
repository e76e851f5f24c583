/* SPDX-License-Identifier: BSD-3-Clause */
/* io-open.c: the drivers of the engine; see io-open.h. */
#include "storage/io-open.h"

#include "storage/io-align.h"
#include "storage/io-nbd.h"
#include "storage/io-window.h"

static struct io *
open_export(const struct policy_file *file, const struct io_open_options *o,
            struct qcow2_error *err)
{
    return io_nbd_open_within(file->path, o->readonly, o->nbd_timeout_ms, err);
}

static bool
matches_any(const struct policy_file *file)
{
    (void)file;
    return true;
}

static struct io *
open_local(const struct policy_file *file, const struct io_open_options *o,
           struct qcow2_error *err)
{
    return io_file_open_held(file->path, file->fd,
                             file->dir ? file->dir->fd : -1, file->name,
                             o->readonly, o->lock, err);
}

/* The first that matches opens the file. */
static const struct io_driver drivers[] = {
    { policy_is_remote, open_export },
    { matches_any, open_local },
};

/* The window lies on top: it may begin inside a block. */
struct io *
io_open_over(struct io *io, const struct io_open_options *o,
             struct qcow2_error *err)
{
    if (o->direct)
        io = io_align_direct(io, err);
    return io ? io_window_new(io, &o->window, err) : NULL;
}

struct io *
io_open(const struct policy_file *file, const struct io_open_options *o,
        struct qcow2_error *err)
{
    const struct io_driver *d = o->driver;
    struct io *io;

    if (!d || !d->matches(file))
        for (d = drivers; !d->matches(file); d++)
            ;
    io = d->open(file, o, err);
    return io ? io_open_over(io, o, err) : NULL;
}
