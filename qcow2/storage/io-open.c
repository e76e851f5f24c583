/* SPDX-License-Identifier: BSD-3-Clause */
/* io-open.c: the drivers of the engine; see io-open.h. */
#include "storage/io-open.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/escape.h"
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

static struct io *
create_local(struct policy_target *t, mode_t mode, struct qcow2_error *err)
{
    struct stat st;
    struct io *io;
    int fd = openat(t->dir->fd, t->name,
                    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);

    if (fd == -1) {
        error_set_errno(err, errno, "%s: cannot create", ESCAPED(t->path));
        return NULL;
    }
    if (fstat(fd, &st) == 0) {
        t->created = true;
        t->dev = st.st_dev;
        t->ino = st.st_ino;
    }
    io = io_file_take(t->path, fd, IO_LOCK_WRITE, err);
    if (io)
        return io;
    /* EBUSY: somebody uses it already. */
    if (err && err->errnum != EBUSY)
        policy_target_remove(t);
    t->created = false;
    return NULL;
}

/* The first that matches opens the file. */
static const struct io_driver drivers[] = {
    { policy_is_remote, open_export, NULL },
    { matches_any, open_local, create_local },
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

/* NBD exports are there already. */
static const struct io_driver *
find_maker(const struct io_driver *d)
{
    if (d && d->create)
        return d;
    for (d = drivers; !d->create; d++)
        ;
    return d;
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

/* What the file holds is dropped only once nobody else uses it; for good, so
 * that no power cut shows it with what is written next. */
static struct io *
empty_file(struct policy_target *t, const struct io_driver *driver,
           struct qcow2_error *err)
{
    const struct io_open_options o = {
        .lock = IO_LOCK_WRITE, .driver = driver,
    };
    struct io *io = io_open(&t->file, &o, err);

    if (io && io->can_grow
        && (io_truncate(io, 0, err) == -1 || io_flush(io, err) == -1)) {
        io_close(io);
        return NULL;
    }
    return io;
}

struct io *
io_create(struct policy_target *t, const struct io_create_options *o,
          struct qcow2_error *err)
{
    if (!t->file.path)
        return find_maker(o->driver)->create(t, o->mode, err);
    if (o->overwrite)
        return empty_file(t, o->driver, err);
    error_set_errno(err, EEXIST, "%s: cannot create", ESCAPED(t->path));
    return NULL;
}
