/* SPDX-License-Identifier: BSD-3-Clause */
/* first-read.c: drops what the page cache holds of a file that was left after
 * a failed flush; see first-read.h.
 */
#include "format/first-read.h"

#include "format/format.h"
#include "storage/failures.h"

/* Nothing but these fields is believed, and nothing but time is lost if they
 * lie: which is why nothing is validated. */
static bool
is_marked(const struct disk_header *d, bool readonly)
{
    if (be32_get(d->magic) != QCOW2_MAGIC)
        return false;
    if (be32_get(d->version) < 3)
        return !readonly;
    return be64_get(d->incompatible_features) & INCOMPAT_DIRTY;
}

int
first_read_prepare(struct io *io, struct qcow2_failures *failures,
                   bool in_use, struct qcow2_error *err)
{
    struct disk_header d;

    if (failures_watch(failures, io, err) == -1)
        return -1;
    if (!io->ops->drop_cache || (in_use && io->readonly))
        return 0;
    /* Leave an error to whoever needs these bytes: a raw disk may not. */
    if (io_pread(io, &d, sizeof d, 0, NULL) == 0
        && is_marked(&d, io->readonly))
        io_drop_cache(io);
    return 0;
}
