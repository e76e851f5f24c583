/* SPDX-License-Identifier: BSD-3-Clause */
/* io-file.c: images in regular files and on block devices.
 *
 * Requests are independent system calls: no state is shared between threads
 * but what the file turned out not to be able to do, and how much was written.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/fs.h>
#endif

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "storage/io-device.h"
#include "storage/io-file.h"
#include "storage/io-layout.h"
#include "storage/io-lock.h"

/* Reading and writing. */

int
file_request_error(const struct file *f, const char *verb, uint64_t nr_bytes,
                   uint64_t host_off, struct qcow2_error *err)
{
    return error_set_errno(err, errno,
                           "%s: cannot %s %" PRIu64 " bytes at host offset "
                           "%" PRIu64, f->io.name, verb, nr_bytes, host_off);
}

/* What is left of a request of which the kernel did a part. */
struct rest {
    struct iovec iov[IO_MAX_IOV];
    int first, nr;
    uint64_t host_off, nr_bytes;
};

static void
rest_init(struct rest *r, const struct iovec *iov, int nr_iov,
          uint64_t host_off)
{
    memcpy(r->iov, iov, nr_iov * sizeof iov[0]);
    r->first = 0;
    r->nr = nr_iov;
    r->host_off = host_off;
    r->nr_bytes = 0;
    for (int i = 0; i < nr_iov; i++)
        r->nr_bytes += iov[i].iov_len;
}

static void
rest_advance(struct rest *r, size_t done)
{
    r->host_off += done;
    r->nr_bytes -= done;
    while (done > 0) {
        struct iovec *v = &r->iov[r->first];

        if (done < v->iov_len) {
            v->iov_base = (char *)v->iov_base + done;
            v->iov_len -= done;
            return;
        }
        done -= v->iov_len;
        r->first++;
        r->nr--;
    }
}

static void
rest_fill_zero(const struct rest *r)
{
    for (int i = r->first; i < r->first + r->nr; i++)
        memset(r->iov[i].iov_base, 0, r->iov[i].iov_len);
}

/* Direct I/O ended inside a block: the file ends there, or did so then. */
static int
end_inside_block(struct file *f, struct rest *r, bool *again,
                 struct qcow2_error *err)
{
    uint64_t size;

    if (file_get_size(&f->io, &size, err) == -1)
        return -1;
    *again = r->host_off < size;
    if (!*again) {
        rest_fill_zero(r);
        r->nr_bytes = 0;
    }
    return 0;
}

static int
file_preadv(struct io *io, const struct iovec *iov, int nr_iov,
            uint64_t host_off, struct qcow2_error *err)
{
    struct file *f = to_file(io);
    struct rest r;

    rest_init(&r, iov, nr_iov, host_off);
    while (r.nr_bytes > 0) {
        ssize_t n = preadv(f->fd, r.iov + r.first, r.nr, r.host_off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_request_error(f, "read", r.nr_bytes, r.host_off,
                                      err);
        if (n == 0) {
            rest_fill_zero(&r);
            return 0;
        }
        rest_advance(&r, n);
        if (r.nr_bytes > 0 && !is_aligned(r.host_off, f->block)) {
            bool again;

            if (end_inside_block(f, &r, &again, err) == -1)
                return -1;
            if (again)
                rest_init(&r, iov, nr_iov, host_off);
        }
    }
    return 0;
}

/* Not every file system lets the next fdatasync return what goes wrong here:
 * the pages may have been dropped, and this has been the only report of it. So
 * the flush fails with it. Other errors say that nothing was tried. */
static void
write_behind(struct file *f, uint64_t host_off, uint64_t nr_bytes)
{
    uint64_t from, to;

    if (f->block > 1) /* it is on its way already */
        return;
    if (!io_behind_written(&f->behind, host_off, nr_bytes, &from, &to))
        return;
#ifdef SYNC_FILE_RANGE_WRITE
    if (sync_file_range(f->fd, from, to - from, SYNC_FILE_RANGE_WRITE) == -1
        && (errno == EIO || errno == ENOSPC || errno == EDQUOT))
        atomic_store(&f->behind_error, errno);
#endif
}

int
file_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
             uint64_t host_off, struct qcow2_error *err)
{
    struct file *f = to_file(io);
    struct rest r;

    rest_init(&r, iov, nr_iov, host_off);
    while (r.nr_bytes > 0) {
        ssize_t n = pwritev(f->fd, r.iov + r.first, r.nr, r.host_off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO;
        if (n <= 0)
            return file_request_error(f, "write", r.nr_bytes, r.host_off,
                                      err);
        write_behind(f, r.host_off, n);
        rest_advance(&r, n);
    }
    return 0;
}

/* Once it failed, the pages it could not write may count as clean: asking
 * again could claim success. EINTR says that it was not tried.
 */
static int
file_flush(struct io *io, struct qcow2_error *err)
{
    struct file *f = to_file(io);
    int behind = atomic_load(&f->behind_error), r;

    do {
#if defined(F_FULLFSYNC)
        r = fcntl(f->fd, F_FULLFSYNC);
#else
        r = fdatasync(f->fd);
#endif
    } while (r < 0 && errno == EINTR);
    if (r < 0 || behind)
        return error_set_errno(err, r < 0 ? errno : behind,
                               "%s: cannot flush", io->name);
    return 0;
}

int
file_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    struct file *f = to_file(io);
    struct stat st;

    if (f->is_block) {
#ifdef BLKGETSIZE64
        if (ioctl(f->fd, BLKGETSIZE64, size) == 0)
            return 0;
#else
        off_t end = lseek(f->fd, 0, SEEK_END);

        if (end >= 0) {
            *size = end;
            return 0;
        }
#endif
    } else if (fstat(f->fd, &st) == 0) {
        *size = st.st_size;
        return 0;
    }
    return error_set_errno(err, errno, "%s: cannot find out its size",
                           io->name);
}

/* The size, and where data are. */

static int
file_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct file *f = to_file(io);
    int r;

    if (f->is_block)
        return error_set(err, ENOTSUP,
                         "%s: the size of a block device cannot be changed",
                         io->name);
    do
        r = ftruncate(f->fd, size);
    while (r < 0 && errno == EINTR);
    file_forget_data(f);
    if (r < 0)
        return error_set_errno(err, errno,
                               "%s: cannot set the size to %" PRIu64,
                               io->name, size);
    return 0;
}

static int
file_get_allocated(struct io *io, uint64_t *nr_bytes,
                   struct qcow2_error *err)
{
    struct file *f = to_file(io);
    struct stat st;

    if (f->is_block)
        return file_get_size(io, nr_bytes, err);
    if (fstat(f->fd, &st) < 0)
        return error_set_errno(err, errno,
                               "%s: cannot find out its allocated size",
                               io->name);
    *nr_bytes = (uint64_t)st.st_blocks * 512;
    return 0;
}

void
file_forget_data(struct file *f)
{
    LOCK_SCOPE(&f->data.lock);

    f->data.from = f->data.end = 0;
    f->data.nr_changes++;
}

/* Does host_off lie in data that were found before? Others than this process
 * may have made holes there meanwhile: they are data that read as zeroes. */
static bool
is_known_data(struct file *f, uint64_t host_off, uint64_t *len,
              unsigned *nr_changes)
{
    LOCK_SCOPE(&f->data.lock);

    *nr_changes = f->data.nr_changes;
    if (host_off < f->data.from || host_off >= f->data.end)
        return false;
    *len = min_u64(*len, f->data.end - host_off);
    return true;
}

static void
learn_data(struct file *f, uint64_t from, uint64_t end, unsigned nr_changes)
{
    LOCK_SCOPE(&f->data.lock);

    if (nr_changes != f->data.nr_changes)
        return;
    f->data.from = from;
    f->data.end = end;
}

/* An answer of "data" is right for every file, so nothing here can fail. */
static int
file_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
            struct qcow2_error *err)
{
    struct file *f = to_file(io);
    unsigned nr_changes;
    off_t start, end;

    (void)err;
    *is_hole = false;
#if defined(SEEK_DATA) && defined(SEEK_HOLE)
    if (atomic_load_explicit(&f->no_seek_hole, memory_order_relaxed)
        || is_known_data(f, host_off, len, &nr_changes))
        return 0;
    start = lseek(f->fd, host_off, SEEK_DATA);
    if (start < 0) {
        *is_hole = errno == ENXIO; /* no data up to the end */
        if (errno == EINVAL || errno == EOPNOTSUPP)
            atomic_store_explicit(&f->no_seek_hole, true,
                                  memory_order_relaxed);
        return 0;
    }
    if ((uint64_t)start > host_off) {
        *is_hole = true;
        *len = min_u64(*len, start - host_off);
        return 0;
    }
    end = lseek(f->fd, host_off, SEEK_HOLE);
    if (end > start) {
        learn_data(f, start, end, nr_changes);
        *len = min_u64(*len, end - start);
    }
#else
    (void)f, (void)start, (void)end, (void)len, (void)host_off;
    (void)nr_changes;
#endif
    return 0;
}

static void
file_prefetch(struct io *io, uint64_t host_off, uint64_t nr_bytes)
{
#ifdef POSIX_FADV_WILLNEED
    if (to_file(io)->block > 1) /* nothing would read it from the cache */
        return;
    posix_fadvise(to_file(io)->fd, host_off, nr_bytes, POSIX_FADV_WILLNEED);
#else
    (void)io, (void)host_off, (void)nr_bytes;
#endif
}

/* Pages that are dirty or on their way to the disk are not dropped, so wait
 * for them first. What cannot be written then counts as clean, and is dropped
 * as well.
 */
static void
file_drop_cache(struct io *io)
{
#ifdef SYNC_FILE_RANGE_WRITE
    sync_file_range(to_file(io)->fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE
                                           | SYNC_FILE_RANGE_WRITE
                                           | SYNC_FILE_RANGE_WAIT_AFTER);
#endif
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(to_file(io)->fd, 0, 0, POSIX_FADV_DONTNEED);
#else
    (void)io;
#endif
}

static void
file_advise_layout(struct io *io, bool nocow, uint32_t extent_bytes)
{
    if (nocow)
        io_layout_set_nocow(to_file(io)->fd);
    if (extent_bytes > 0)
        io_layout_set_extents(to_file(io)->fd, extent_bytes);
}

static void file_close(struct io *io);

static const struct io_ops file_ops = {
    .close = file_close,
    .preadv = file_preadv,
    .pwritev = file_pwritev,
    .flush = file_flush,
    .zero = file_zero,
    .punch = file_punch,
    .truncate = file_truncate,
    .get_size = file_get_size,
    .get_allocated = file_get_allocated,
    .extent = file_extent,
    .prefetch = file_prefetch,
    .drop_cache = file_drop_cache,
    .advise_layout = file_advise_layout,
    .set_direct = file_set_direct,
};

/* Opening. */

static void
file_close(struct io *io)
{
    struct file *f = to_file(io);

    if (f->fd >= 0)
        close(f->fd); /* and with it its locks */
    if (f->node_fd >= 0)
        close(f->node_fd);
    io_behind_destroy(&f->behind);
    pthread_mutex_destroy(&f->data.lock);
    free(io->name);
    free(f);
}

static struct file *
file_new(const char *path, bool readonly, struct qcow2_error *err)
{
    struct file *f = calloc(1, sizeof *f);

    if (f) {
        f->fd = f->node_fd = -1;
        f->block = 1;
        io_behind_init(&f->behind);
        pthread_mutex_init(&f->data.lock, NULL);
        f->io.ops = &file_ops;
        f->io.readonly = readonly;
        f->io.name = strdup(ESCAPED(path)); /* it may come from an image */
    }
    if (!f || !f->io.name) {
        if (f) {
            io_behind_destroy(&f->behind);
            pthread_mutex_destroy(&f->data.lock);
        }
        free(f);
        error_nomem(err);
        return NULL;
    }
    return f;
}

static int
check_kind(const char *name, const struct stat *st, struct qcow2_error *err)
{
    const char *kind = "not a regular file";

    if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
        return 0;
    if (S_ISDIR(st->st_mode))
        kind = "a directory";
    else if (S_ISFIFO(st->st_mode))
        kind = "a pipe";
    else if (S_ISSOCK(st->st_mode))
        kind = "a socket";
    else if (S_ISCHR(st->st_mode))
        kind = "a character device";
    return error_set(err, EINVAL,
                     "%s: is %s; an image is a regular file or a block "
                     "device", name, kind);
}

/* errno says why the file was not opened. */
static int
open_error(const struct file *f, bool is_block, struct qcow2_error *err)
{
    int errnum = errno;

    if (is_block && errnum == EBUSY)
        return error_set(err, EBUSY, "%s: cannot open for writing: the block "
                         "device is mounted, or in use by something else "
                         "that writes to it", f->io.name);
    if (!f->io.readonly
        && (errnum == EACCES || errnum == EPERM || errnum == EROFS
            || errnum == ETXTBSY)) {
        error_set_errno(err, errnum, "%s: cannot open for writing",
                        f->io.name);
        return error_hint(err, QCOW2_HINT_READONLY);
    }
    return error_set_errno(err, errnum, "%s: cannot open%s", f->io.name,
                           errnum == EMFILE ? " (ulimit -n raises the limit)"
                                            : "");
}

static int
access_mode(const struct file *f)
{
    /* O_NONBLOCK: a pipe must not keep us before we can refuse it. */
    return (f->io.readonly ? O_RDONLY : O_RDWR)
           | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

/* A duplicate shares its locks, flags and position with the caller's
 * descriptor and with every process that inherited it: our locks would
 * neither hold those off nor end with our close. So open the file anew
 * through /proc where that works.
 */
static int
open_descriptor(struct file *f, int fd, struct qcow2_error *err)
{
    int mode = fcntl(fd, F_GETFL);

    if (mode < 0)
        return error_set_errno(err, errno, "%s: file descriptor %d",
                               f->io.name, fd);
    if ((mode & O_ACCMODE) == O_WRONLY)
        return error_set(err, EACCES,
                         "%s: file descriptor %d is open for writing only; "
                         "open it for reading too", f->io.name, fd);
    if ((mode & O_ACCMODE) == O_RDONLY && !f->io.readonly) {
        error_set(err, EACCES, "%s: file descriptor %d is open for reading "
                  "only", f->io.name, fd);
        return error_hint(err, QCOW2_HINT_READONLY);
    }
#ifdef __linux__
    char path[32];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    f->fd = open(path, access_mode(f));
    if (f->fd >= 0)
        return 0;
#endif
    if (mode & O_APPEND && !f->io.readonly)
        return error_set(err, EINVAL,
                         "%s: file descriptor %d is open for appending, "
                         "where writes do not go where they should",
                         f->io.name, fd);
    f->is_shared = true;
    f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (f->fd < 0)
        return error_set_errno(err, errno, "%s: file descriptor %d",
                               f->io.name, fd);
    return 0;
}

/* 0 where the file system or the kernel does not keep it. */
static uint64_t
birth_time(int fd)
{
#ifdef STATX_BTIME
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) == 0
        && stx.stx_mask & STATX_BTIME)
        return stx.stx_btime.tv_sec * UINT64_C(1000000000)
               + stx.stx_btime.tv_nsec;
#else
    (void)fd;
#endif
    return 0;
}

/* Locks belong to a node. Those of a device are taken on its own node as well,
 * by every program, or this one, that opens it by another. */
static int
lock_node(struct file *f, const struct stat *st, enum io_lock lock,
          struct qcow2_error *err)
{
    if (!f->is_block || lock == IO_LOCK_NONE)
        return 0;
    f->node_fd = io_device_open_node(st);
    return f->node_fd == -1 ? 0
           : io_lock_take(f->node_fd, f->io.name, lock, err);
}

/* Everything between having a descriptor and reading the first byte. */
static int
file_set_up(struct file *f, enum io_lock lock, struct qcow2_error *err)
{
    struct qcow2_file_id id;
    struct stat st;
    int r;

    if (fstat(f->fd, &st) < 0)
        return error_set_errno(err, errno, "%s", f->io.name);
    if (check_kind(f->io.name, &st, err) < 0)
        return -1;
    id = qcow2_stat_get_id(&st);
    f->is_block = S_ISBLK(st.st_mode);
    f->io.can_grow = f->io.reads_zero_past_end = !f->is_block;
    f->io.is_local = true;
    f->io.dev = id.dev;
    f->io.ino = id.ino;
    f->io.mode = f->is_block ? 0 : st.st_mode & 0666;
    f->io.device = f->is_block ? st.st_rdev : 0;
    f->io.born = birth_time(f->fd);
    r = io_lock_take(f->fd, f->io.name, lock, err);
    f->io.keeps_no_locks = r == 1;
    return r == -1 || lock_node(f, &st, lock, err) == -1 ? -1 : 0;
}

/* A device may have several nodes, each with locks of its own; the kernel's
 * claim is on the device. Only a writer claims, so that readers can share. A
 * descriptor that was passed to us is claimed by its owner, if at all. */
static int
claim_flag(const struct file *f, bool is_block, enum io_lock lock)
{
    return is_block && !f->io.readonly && lock == IO_LOCK_WRITE ? O_EXCL : 0;
}

/* Opens what held_fd holds; by its name only where there is no /proc, and
 * then it must be the same still. */
static int
open_held(struct file *f, int held_fd, int dir_fd, const char *name,
          enum io_lock lock, struct qcow2_error *err)
{
    struct stat held, st;
    char path[32];
    bool is_block;
    int flags;

    if (fstat(held_fd, &held) < 0)
        return error_set_errno(err, errno, "%s", f->io.name);
    if (check_kind(f->io.name, &held, err) < 0)
        return -1;
    is_block = S_ISBLK(held.st_mode);
    flags = access_mode(f) | claim_flag(f, is_block, lock);
    snprintf(path, sizeof path, "/proc/self/fd/%d", held_fd);
    f->fd = open(path, flags);
    if (f->fd < 0 && errno == ENOENT && dir_fd >= 0)
        f->fd = openat(dir_fd, name, flags | O_NOFOLLOW);
    if (f->fd < 0)
        return open_error(f, is_block, err);
    if (fstat(f->fd, &st) < 0)
        return error_set_errno(err, errno, "%s", f->io.name);
    if (st.st_dev != held.st_dev || st.st_ino != held.st_ino)
        return error_set(err, EPERM, "refused: '%s' was replaced while it "
                         "was being opened", f->io.name);
    return 0;
}

struct io *
io_file_open_held(const char *path, int held_fd, int dir_fd,
                  const char *name, bool readonly, enum io_lock lock,
                  struct qcow2_error *err)
{
    struct file *f = file_new(path, readonly, err);

    if (!f)
        return NULL;
    if (open_held(f, held_fd, dir_fd, name, lock, err) < 0
        || file_set_up(f, lock, err) < 0) {
        io_close(&f->io);
        return NULL;
    }
    return &f->io;
}

struct io *
io_file_open(const char *path, int fd, bool readonly, enum io_lock lock,
             struct qcow2_error *err)
{
    struct file *f;
    struct io *io;
    int held;

    if (fd < 0) {
        held = open(path, O_PATH | O_CLOEXEC);
        if (held < 0) {
            error_set_errno(err, errno, "%s: cannot open", ESCAPED(path));
            return NULL;
        }
        io = io_file_open_held(path, held, AT_FDCWD, path, readonly, lock,
                               err);
        close(held);
        return io;
    }
    f = file_new(path, readonly, err);
    if (!f)
        return NULL;
    if (open_descriptor(f, fd, err) < 0
        || file_set_up(f, lock, err) < 0) {
        io_close(&f->io);
        return NULL;
    }
    return &f->io;
}

struct io *
io_file_take(const char *path, int fd, enum io_lock lock,
             struct qcow2_error *err)
{
    struct file *f = file_new(path, false, err);

    if (!f) {
        close(fd);
        return NULL;
    }
    f->fd = fd;
    if (file_set_up(f, lock, err) < 0) {
        io_close(&f->io);
        return NULL;
    }
    return &f->io;
}
