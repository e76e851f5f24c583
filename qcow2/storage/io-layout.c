/* SPDX-License-Identifier: BSD-3-Clause */
/* io-layout.c: sets attributes of new files; see io-layout.h. */
#include "storage/io-layout.h"

#include <sys/ioctl.h>

#ifdef __linux__
#include <linux/fs.h>
#endif

void
io_layout_set_nocow(int fd)
{
#if defined(FS_IOC_SETFLAGS) && defined(FS_NOCOW_FL)
    int flags; /* whatever the type in the request's number says */

    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
#else
    (void)fd;
#endif
}

void
io_layout_set_extents(int fd, uint32_t nr_bytes)
{
#if defined(FS_IOC_FSSETXATTR) && defined(FS_XFLAG_EXTSIZE)
    struct fsxattr attributes;

    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0) {
        attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attributes.fsx_extsize = nr_bytes;
        ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
    }
#else
    (void)fd, (void)nr_bytes;
#endif
}
