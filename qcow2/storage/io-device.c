/* SPDX-License-Identifier: BSD-3-Clause */
/* io-device.c: finds out which block device a node leads to; see io-device.h.
 */
#include "storage/io-device.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "qcow2.h"

struct qcow2_file_id
qcow2_stat_get_id(const struct stat *st)
{
    struct qcow2_file_id id = { .dev = st->st_dev, .ino = st->st_ino };

    /* No file system has an inode of that number. */
    if (S_ISBLK(st->st_mode))
        id = (struct qcow2_file_id){ .dev = st->st_rdev, .ino = UINT64_MAX };
    return id;
}

/* The kernel's name of a device, below /dev. */
static bool
find_name(const struct stat *st, char *path, size_t size)
{
    char line[256];
    bool found = false;
    FILE *fp;

    snprintf(path, size, "/sys/dev/block/%u:%u/uevent", major(st->st_rdev),
             minor(st->st_rdev));
    fp = fopen(path, "re");
    if (!fp)
        return false;
    while (!found && fgets(line, sizeof line, fp)) {
        line[strcspn(line, "\n")] = '\0';
        found = strncmp(line, "DEVNAME=", 8) == 0;
    }
    fclose(fp);
    if (found)
        snprintf(path, size, "/dev/%s", line + 8);
    return found;
}

/* -1: there is no such node, or it is of another device. */
static int
open_node(const char *path, const struct stat *st)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat node;

    if (fd >= 0 && fstat(fd, &node) == 0 && S_ISBLK(node.st_mode)
        && node.st_rdev == st->st_rdev
        && (node.st_dev != st->st_dev || node.st_ino != st->st_ino))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int
io_device_open_node(const struct stat *st)
{
    char path[300];
    int fd;

    snprintf(path, sizeof path, "/dev/block/%u:%u", major(st->st_rdev),
             minor(st->st_rdev));
    fd = open_node(path, st);
    if (fd == -1 && find_name(st, path, sizeof path))
        fd = open_node(path, st);
    return fd;
}
