/* SPDX-License-Identifier: BSD-3-Clause */
/* image-begin.c: prepares an image for its first change; see image.h. */
#include <errno.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "meta/bitmap-session.h"
#include "meta/image.h"

/* What bitmaps are to become. */
struct fate {
    struct bitmaps clusters;
    bool any, kept;
    struct qcow2_error why;     /* they cannot be kept */
};

/* One write, of the header's first sector at most (I5). */
static int
write_autoclear(struct image *img, const struct fate *f,
                struct qcow2_error *err)
{
    const struct header_update u = {
        .parts = HEADER_SET_AUTOCLEAR,
        .autoclear = (f->kept ? AUTOCLEAR_BITMAPS : 0)
                     | header_kept_autoclear(&img->hdr),
    };
    int r = 0;

    if (f->any && !f->kept) {
        LOCK_SCOPE(&img->feature_lock);

        r = header_drop_bitmaps(img->io, &img->hdr, err);
    } else if (img->hdr.autoclear != u.autoclear) {
        r = header_write_fields(img->io, &img->hdr, &u, err);
    }
    return r == 0 ? 0 : error_prefix(err, "%s: clearing autoclear features",
                                     img->name);
}

/* Claims bitmaps, if they can be kept right, or finds out what can be freed.
 */
static int
decide(struct image *img, struct fate *f, struct qcow2_error *err)
{
    int r = 1;

    bitmaps_find(img, &f->clusters);
    if (f->clusters.doubt)
        error_set(&f->why, EIO, "%s", f->clusters.doubt);
    else
        r = bitmap_session_begin(img, &f->clusters, &f->why);
    f->kept = r == 0;
    if (r == -1 && err)
        *err = f->why;
    if (r == 1)
        bitmaps_search(img, &f->clusters);
    return r == -1 ? -1 : 0;
}

/* Makes durable what has to be before the first change. */
static int
settle(struct image *img, const struct fate *f, struct qcow2_error *err)
{
    int r = write_autoclear(img, f, err);

    if (r == 0)
        r = io_flush(img->io, err);
    if (r == -1 && io_flush_has_failed(img->io))
        image_fail(img);
    return r;
}

/* Clears, durably, what only programs that maintain it may leave set. */
static int
clear_autoclear(struct image *img, struct qcow2_error *err)
{
    struct fate f = { .any = img->hdr.autoclear & AUTOCLEAR_BITMAPS };
    int r = 0;

    if (img->hdr.version < 3 || img->hdr.autoclear == 0)
        return 0;
    if (f.any)
        r = decide(img, &f, err);
    if (r == 0)
        r = settle(img, &f, err);
    if (r == 0 && f.any && !f.kept)
        bitmaps_remove(img, &f.clusters, f.why.text);
    if (r == -1)
        bitmap_session_free(img);
    bitmaps_end(&f.clusters);
    return r;
}

int
image_begin_write(struct image *img, struct qcow2_error *err)
{
    if (image_check_state(img, err) == -1)
        return -1;
    if (__atomic_load_n(&img->begun, __ATOMIC_ACQUIRE))
        return 0;

    LOCK_SCOPE(&img->begin);
    if (!img->begun) {
        if (clear_autoclear(img, err) == -1)
            return -1;
        img->written = true;
        __atomic_store_n(&img->begun, true, __ATOMIC_RELEASE);
    }
    return 0;
}
