/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-observer.c: marks changes in bitmaps; see bitmap-observer.h. */
#include "disk/bitmap-observer.h"

#include "meta/bitmap-session.h"

/* Marked before the change, so also what is changed by a request that fails in
 * its middle. Nobody stores the marks before the request has ended. */
static int
mark(struct write_observer *observer, const struct guest_change *c,
     struct qcow2_error *err)
{
    struct image *img = ((struct bitmap_observer *)observer)->img;

    if (c->kind == CHANGE_REPLACE)
        return bitmap_session_replace(img, c->guest_off, c->nr_bytes, err);
    bitmap_session_mark(img, c->guest_off, c->nr_bytes);
    return 0;
}

void
bitmap_observe(struct bitmap_observer *o, struct image *img)
{
    if (o->img)
        return;
    o->img = img;
    o->observer.before = mark;
    o->observer.next = img->observers;
    img->observers = &o->observer;
}
