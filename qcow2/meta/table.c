/* SPDX-License-Identifier: BSD-3-Clause */
/* table.c: clusters that become tables; see table.h. */
#include "meta/table.h"

void
table_forget(struct image *img, uint64_t host_off)
{
    for (uint32_t i = 0; i < img->cluster_size; i += img->slice_size)
        cache_drop(img->meta, img, host_off + i);
}

int
table_zero(struct image *img, uint64_t host_off, struct qcow2_error *err)
{
    table_forget(img, host_off);
    /* The file must reach to its end, or checkers object, and the flush must
     * not be the first to find out that there is no space for it. */
    return io_zero(img->io, host_off, img->cluster_size, 0, err);
}
