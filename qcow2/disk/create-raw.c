/* SPDX-License-Identifier: BSD-3-Clause */
/* create-raw.c: makes new raw files. */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "disk/open.h"
#include "qcow2.h"
#include "storage/io.h"

static int
preallocate(struct io *io, const char *path,
            enum qcow2_preallocation prealloc, struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_disk *disk;
    int r;

    options.format = QCOW2_FORMAT_RAW;
    disk = disk_open_io(io, path, &options, err);
    if (!disk)
        return -1;
    r = qcow2_preallocate(disk, qcow2_get_size(disk), 0, prealloc, err);
    if (qcow2_close(disk, r == 0 ? err : NULL) == -1)
        r = -1;
    return r;
}

/* Takes over io. */
static int
fill(struct io *io, const char *path, uint64_t size,
     enum qcow2_preallocation prealloc, struct qcow2_error *err)
{
    uint64_t has = size;
    int r = io->can_grow ? io_truncate(io, size, err)
                         : io_get_size(io, &has, err);

    if (r == 0 && has < size)
        r = error_set(err, ENOSPC, "%s: it has %" PRIu64 " bytes, of which "
                      "there must be %" PRIu64, io->name, has, size);
    if (r == 0 && prealloc != QCOW2_PREALLOC_OFF)
        return preallocate(io, path, prealloc, err);
    io_close(io);
    return r;
}

int
qcow2_create_raw(const char *path, uint64_t size,
                 enum qcow2_preallocation prealloc, bool overwrite,
                 struct qcow2_error *err)
{
    struct stat st;
    bool existed = lstat(path, &st) == 0;
    struct io *io;
    int r;

    if (prealloc == QCOW2_PREALLOC_METADATA)
        return error_set(err, EINVAL, "%s: cannot create: a raw file has no "
                         "metadata to preallocate", path);
    io = io_file_create(path, overwrite, err);
    if (!io)
        return -1;
    r = fill(io, path, size, prealloc, err);
    if (r == -1 && !existed)
        unlink(path);
    return r == -1 ? error_prefix(err, "cannot create") : 0;
}
