/* SPDX-License-Identifier: BSD-3-Clause */
/* txn.c: begins and ends operations that have an image alone; see txn.h. */
#include "meta/txn.h"

#include <errno.h>

#include "base/error.h"
#include "meta/flush.h"
#include "meta/tree.h"

/* What keeps the operation from beginning. */
static int
check(const struct txn *t, struct qcow2_error *err)
{
    struct image *img = t->img;

    if (!(t->flags & TXN_ANY_VIEW) && image_check_own_view(img, err) == -1)
        return -1;
    if (t->flags & TXN_TABLES
        && tree_check_alone(img, img->active.l1, img->active.l1_entries, err)
           == -1)
        return -1;
    return image_check_state(img, err);
}

/* Has everything on disk. */
static int
settle(const struct txn *t, struct qcow2_error *err)
{
    struct image *img = t->img;

    if (t->flags & TXN_PAST_IMAGE)
        return img->written ? flush_all(img, err) : 0;
    if (!(t->flags & TXN_HEADER_ONLY) && image_begin_write(img, err) == -1)
        return -1;
    return t->flags & TXN_DIRTY ? flush_begin(img, err)
                                : flush_all(img, err);
}

static void
release(struct image *img)
{
    img->is_alone = false;
    pthread_rwlock_unlock(&img->rwlock);
}

int
txn_begin(struct txn *t, struct image *img, unsigned flags,
          struct qcow2_error *err)
{
    *t = (struct txn){ .img = img, .flags = flags };
    if (img->readonly)
        return error_set(err, EROFS, "%s: it is open read-only", img->name);
    pthread_rwlock_wrlock(&img->rwlock);
    img->is_alone = true;
    if (check(t, err) == -1 || settle(t, err) == -1) {
        release(img);
        return -1;
    }
    return 0;
}

int
txn_switch(struct txn *t, const struct header_update *u,
           struct qcow2_error *err)
{
    return flush_switch(t->img, u, err);
}

struct source_chain *
txn_replace_chain(struct txn *t, struct source_chain *chain, bool own)
{
    struct source_chain *old = t->img->chain;

    t->img->chain = chain;
    t->img->overridden = !own;
    return old;
}

/* Leaves nothing dirty, and the dirty bit only where it is needed. */
static int
finish(struct txn *t, bool unsettled, struct qcow2_error *err)
{
    struct image *img = t->img;

    if (unsettled && image_incompatible(img) & INCOMPAT_DIRTY)
        img->unsettled = true; /* later ones must not clear it */
    if (flush_all(img, err) == -1)
        return -1;
    if (t->flags & TXN_DIRTY && !unsettled
        && flush_dirty_bit(img, false, err) == -1)
        return -1;
    return 0;
}

int
txn_end(struct txn *t, int r, struct qcow2_error *err)
{
    struct image *img = t->img;
    struct qcow2_error *e = r == -1 ? NULL : err;

    if (t->flags & TXN_PAST_IMAGE)
        r = r == -1 ? -1 : image_reload(img, err);
    else if (finish(t, r == -1 && t->unsettled, e) == -1)
        r = -1;
    else
        linear_forget(&img->active.linear); /* flags changed */
    release(img);
    return r;
}
