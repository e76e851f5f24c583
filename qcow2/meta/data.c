/* SPDX-License-Identifier: BSD-3-Clause */
/* data.c: gives guest data a place, and takes it back; see data.h. */
#include "meta/data.h"

int
data_place(struct image *img, uint64_t guest_off, uint64_t want,
           struct alloc_run *run, struct qcow2_error *err)
{
    struct store *s = img->data;
    int r = s->counted ? alloc_clusters(img, want, run, err)
                       : s->ops->place(s, guest_off, want, run, err);

    /* Parts of clusters that are not written must be whole blocks. */
    if (r == 0 && (!s->fresh_is_zero || s->align > 1))
        run->reads_zero = false;
    return r;
}

void
data_release(struct image *img, uint64_t guest_off, uint64_t host_off,
             uint64_t nr_clusters)
{
    if (img->data->counted)
        alloc_free(img, host_off, nr_clusters);
    else
        img->data->ops->release(img->data, guest_off, host_off, nr_clusters);
}

void
data_use_store(struct image *img, struct store *s)
{
    img->data = s;
    img->active.src.data = s;
}

int
data_check_outside(struct image *img, uint64_t guest_off, uint64_t host_off,
                   uint64_t nr_bytes, struct qcow2_error *err)
{
    struct qcow2_error why;

    if (img->data->ops->check(img->data, guest_off, host_off, nr_bytes, &why)
        == 0)
        return 0;
    return image_damaged(img, err, "%s", why.text);
}
