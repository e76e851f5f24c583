/* SPDX-License-Identifier: BSD-3-Clause */
/* target-bitmaps.c: the bitmap directory, as check counts it and as info
 * tells of it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <stdio.h>
#include <unistd.h>

#include "bounds.h"
#include "check/check.h"
#include "input.h"
#include "qcow2.h"
#include "targets.h"

/* Far places exist in files too, but take time to make. */
#define MAX_FILE_BYTES (UINT64_C(1) << 40)

static void
put_page(void *opaque, uint64_t off, const void *bytes, size_t nr_bytes)
{
    const int *fd = opaque;

    if (pwrite(*fd, bytes, nr_bytes, off) != (ssize_t)nr_bytes)
        abort();
}

/* Info opens files by name. */
static const char *
as_file(const struct sparse *s)
{
    static char path[64];
    static int fd = -1;

    if (fd == -1)
        fd = memfd_create("fuzzed", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd == -1 || ftruncate(fd, 0) == -1
        || ftruncate(fd, sparse_size(s)) == -1)
        abort();
    sparse_each(s, put_page, &fd);
    return path;
}

static void
tell(const struct sparse *file)
{
    const struct qcow2_info_options options = { .no_lock = true };
    struct qcow2_info *info = qcow2_get_info(as_file(file), &options, NULL);
    size_t sum = 0;

    if (!info)
        return;
    for (size_t i = 0; i < info->nr_bitmaps; i++)
        sum += strlen(info->bitmaps[i].name)
               + (info->bitmaps[i].granularity > 0);
    for (size_t i = 0; i < info->nr_features; i++)
        sum += info->features[i].name ? strlen(info->features[i].name) : 1;
    for (size_t i = 0; i < info->nr_snapshots; i++)
        sum += strlen(info->snapshots[i].name);
    MUST(sum >= info->nr_bitmaps + info->nr_features,
         "a bitmap without granularity, or a feature without a name");
    qcow2_info_free(info);
}

void
target_bitmaps(const uint8_t *data, size_t nr_bytes)
{
    struct qcow2_check_options options = { .repair = QCOW2_REPAIR_NONE };
    struct qcow2_check_result result;
    struct input in;
    struct io *io;

    input_decode(&in, data, nr_bytes);
    if (sparse_size(in.file) <= MAX_FILE_BYTES)
        tell(in.file);
    io = sparse_open(in.file, false);
    check_io(io, &options, &result, NULL);
    options.repair = QCOW2_REPAIR_ALL;
    check_io(io, &options, &result, NULL);
    io_close(io);
    bounds_of_work(sparse_counts(in.file));
    input_free(&in);
}
