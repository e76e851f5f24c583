/* SPDX-License-Identifier: BSD-3-Clause */
/* io-file-direct.c: has a file, or block device, read and written past the
 * host's cache, and finds out what requests must be multiples of then.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/fs.h>
#endif

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "storage/io-align.h"
#include "storage/io-file.h"

enum {
    SECTOR_BYTES = 512,
    /* Where nobody says more: no disk has larger sectors. */
    LARGEST_SECTOR_BYTES = 4096,
};

/* As the kernel has it for this file: false where it is too old to say. 0 is
 * for a file that cannot be read directly. */
static bool
ask_kernel(const struct file *f, struct io_blocks *blocks)
{
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0
        && stx.stx_mask & STATX_DIOALIGN) {
        blocks->file = stx.stx_dio_offset_align;
        blocks->memory = stx.stx_dio_mem_align;
        return true;
    }
#endif
    (void)f;
    (void)blocks;
    return false;
}

static bool
ask_device(const struct file *f, struct io_blocks *blocks)
{
#ifdef BLKSSZGET
    int bytes;

    if (f->is_block && ioctl(f->fd, BLKSSZGET, &bytes) == 0 && bytes > 0) {
        *blocks = (struct io_blocks){ bytes, MAX_MEMORY_ALIGN };
        return true;
    }
#endif
    (void)f;
    (void)blocks;
    return false;
}

/* A sector can be read if that is enough. An empty file shows nothing. */
static bool
try_to_read(const struct file *f, struct io_blocks *blocks,
            struct qcow2_error *err)
{
    CLEANUP_FREE void *buf = NULL;
    ssize_t n;

    if (posix_memalign(&buf, MAX_MEMORY_ALIGN, SECTOR_BYTES) != 0) {
        error_nomem(err);
        return false;
    }
    do
        n = pread(f->fd, buf, SECTOR_BYTES, 0);
    while (n == -1 && errno == EINTR);
    *blocks = (struct io_blocks){
        n > 0 ? SECTOR_BYTES : LARGEST_SECTOR_BYTES, MAX_MEMORY_ALIGN
    };
    return true;
}

static int
refuse(const struct file *f, struct qcow2_error *err)
{
    return error_set(err, ENOTSUP, "%s: its file system does not support "
                     "direct I/O (O_DIRECT)", f->io.name);
}

static bool
is_usable(const struct io_blocks *b)
{
    return is_power_of_2(b->file) && b->file <= IO_ALIGN_MAX_BYTES
           && is_power_of_2(b->memory) && b->memory <= MAX_MEMORY_ALIGN;
}

int
file_set_direct(struct io *io, struct io_blocks *blocks,
                struct qcow2_error *err)
{
    struct file *f = to_file(io);
#ifdef O_DIRECT
    int flags = fcntl(f->fd, F_GETFL);

    /* The flag would become that of every process that has the file by the
     * same description, whose requests it would make fail. */
    if (f->is_shared)
        return error_set(err, ENOTSUP, "%s: direct I/O (O_DIRECT) needs "
                         "/proc to open the file anew", io->name);
    if (flags == -1 || fcntl(f->fd, F_SETFL, flags | O_DIRECT) == -1)
        return refuse(f, err);
    if (!ask_kernel(f, blocks) && !ask_device(f, blocks)
        && !try_to_read(f, blocks, err))
        return -1;
    if (!is_usable(blocks))
        return refuse(f, err);
    /* Devices with smaller sectors than this are none. */
    blocks->file = max_u64(blocks->file, SECTOR_BYTES);
    f->block = blocks->file;
    return 0;
#else
    (void)blocks;
    return refuse(f, err);
#endif
}
