/* SPDX-License-Identifier: BSD-3-Clause */
/* change.c: makes changes of guest bytes; see change.h. */
#include "request/change.h"

#include <assert.h>

#include "request/request.h"

static inline int
make_change(struct image *img, const struct guest_change *c,
            struct qcow2_error *err)
{
    if (__builtin_expect(c->kind == CHANGE_WRITE, 1))
        return write_data(img, c->buf, c->nr_bytes, c->guest_off, err);
    switch (c->kind) {
    case CHANGE_WRITE:
        break;
    case CHANGE_WRITE_COMPRESSED:
        return write_compressed(img, c->buf, c->packed_bytes, c->guest_off,
                                err);
    case CHANGE_ZERO:
        return zero_range(img, c->nr_bytes, c->guest_off, c->flags, err);
    case CHANGE_TRIM:
        return zero_trim(img, c->nr_bytes, c->guest_off, err);
    case CHANGE_REPLACE:
        break;
    }
    assert(!"made by the operation itself");
    return -1;
}

/* Those before `end`, which is NULL or refused. */
static void
finish_until(struct write_observer *first, const struct write_observer *end,
             const struct guest_change *c, int result)
{
    for (struct write_observer *o = first; o != end; o = o->next)
        if (o->done)
            o->done(o, c, result);
}

int
change_announce(struct write_observer *first, const struct guest_change *c,
                struct qcow2_error *err)
{
    for (struct write_observer *o = first; o; o = o->next)
        if (o->before && o->before(o, c, err) == -1) {
            finish_until(first, o, c, -1);
            return -1;
        }
    return 0;
}

void
change_finish(struct write_observer *first, const struct guest_change *c,
              int result)
{
    finish_until(first, NULL, c, result);
}

/* Apart, so that it costs nothing where there is no observer. */
__attribute__((noinline)) static int
make_observed(struct image *img, const struct guest_change *c,
              struct qcow2_error *err)
{
    struct write_observer *first = img->observers;
    int r;

    if (change_announce(first, c, err) == -1)
        return -1;
    r = make_change(img, c, err);
    change_finish(first, c, r);
    return r;
}

int
change_guest(struct image *img, const struct guest_change *c,
             struct qcow2_error *err)
{
    if (img->observers)
        return make_observed(img, c, err);
    return make_change(img, c, err);
}
