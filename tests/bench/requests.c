/* SPDX-License-Identifier: BSD-3-Clause */
/* requests.c: makes 4 KiB requests to a disk, for instructions.sh to count
 * what they cost.
 */
#include "qcow2.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUEST_BYTES = 4096 };

static void
stop(const char *what)
{
    fprintf(stderr, "requests: %s\n", what);
    exit(1);
}

/* Every multiple of `step` once before any comes again. */
static uint64_t
nth_offset(uint64_t n, uint64_t size, uint64_t step)
{
    return n * 7919 % (size / step) * step;
}

int
main(int argc, char **argv)
{
    static unsigned char buf[REQUEST_BYTES];
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    bool writes;
    uint64_t count, size, step = REQUEST_BYTES;

#ifndef __OPTIMIZE__
    fprintf(stderr, "requests: built without optimization\n");
    return 77;
#endif
    if (argc != 4)
        stop("usage: requests IMAGE read|write|first-write COUNT");
    writes = strcmp(argv[2], "read") != 0;
    count = strtoull(argv[3], NULL, 10);
    options.readonly = !writes;
    disk = qcow2_open(argv[1], &options, &err);
    if (!disk)
        stop(err.text);
    size = qcow2_get_size(disk);
    if (strcmp(argv[2], "first-write") == 0)
        step = qcow2_get_cluster_size(disk);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t guest_off = nth_offset(i, size, step);
        int r = writes ? qcow2_pwrite(disk, buf, sizeof buf, guest_off, 0,
                                      &err)
                       : qcow2_pread(disk, buf, sizeof buf, guest_off, &err);

        if (r == -1)
            stop(err.text);
    }
    if (qcow2_close(disk, &err) == -1)
        stop(err.text);
    return 0;
}
