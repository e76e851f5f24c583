/* SPDX-License-Identifier: BSD-3-Clause */
/* form.c: gives an image another header; see form.h. */
#include "edit/form.h"

#include "base/cleanup.h"
#include "meta/flush.h"

static int
prepare(struct image *img, const struct header_form *form,
        struct header_sector *sector, struct qcow2_error *err)
{
    LOCK_SCOPE(&img->feature_lock);

    return header_prepare(img->io, &img->hdr, form, sector, err);
}

static int
change(struct image *img, const void *what, struct qcow2_error *err)
{
    LOCK_SCOPE(&img->feature_lock);

    return header_switch(img->io, &img->hdr, what, err);
}

int
form_switch(struct image *img, const struct header_form *form,
            struct qcow2_error *err)
{
    struct header_sector sector;

    if (prepare(img, form, &sector, err) == -1
        || flush_switch(img, change, &sector, err) == -1)
        return -1;
    img->active.version = img->hdr.version;
    return 0;
}
