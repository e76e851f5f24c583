/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-session.c: keeps bitmaps right; see bitmap-session.h. */
#include "meta/bitmap-session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/escape.h"
#include "meta/bitmap-edit.h"

static bool
is_ours_to_claim(const struct bitmap *b, bool all)
{
    return !(b->entry.flags & BITMAP_IN_USE)
           && (all || b->entry.flags & BITMAP_AUTO);
}

/* Only flags change, each inside a sector, so that a torn write leaves some of
 * them set. The list's copy of the directory changes with them. */
static int
claim(struct image *img, struct bitmap_session *s, bool all,
      struct qcow2_error *err)
{
    uint64_t at = 0, first = UINT64_MAX, end = 0;

    for (uint32_t i = 0; i < s->list.nr; i++) {
        struct bitmap *b = &s->list.bitmaps[i];

        if (is_ours_to_claim(b, all)) {
            b->entry.flags |= BITMAP_IN_USE;
            b->claimed = true;
            bitmap_entry_put_flags(s->list.directory + at, b->entry.flags);
            first = min_u64(first, at);
            end = at + sizeof(struct disk_bitmap_entry);
        }
        at += bitmap_entry_bytes(&b->entry);
    }
    if (end == 0)
        return 0;
    return io_pwrite(img->io, s->list.directory + first, end - first,
                     img->hdr.bitmap_directory_offset + first, err);
}

static unsigned
finest_granularity(const struct bitmap_list *list)
{
    unsigned bits = MAX_BITMAP_GRANULARITY_BITS;

    for (uint32_t i = 0; i < list->nr; i++) {
        const struct bitmap_entry *e = &list->bitmaps[i].entry;

        if (e->flags & BITMAP_AUTO && !(e->flags & BITMAP_IN_USE))
            bits = min_u64(bits, e->granularity_bits);
    }
    return bits;
}

/* While bitmaps are kept their clusters are metadata like any other (I6). */
static int
protect(struct image *img, const struct bitmap_session *s,
        struct qcow2_error *err)
{
    for (size_t i = 0; i < s->clusters.nr; i++)
        if (cluster_set_add(&img->overlap, s->clusters.runs[i].cluster,
                            s->clusters.runs[i].nr, err) == -1)
            return -1;
    return 0;
}

/* The directory always is metadata. */
static void
unprotect(struct image *img, const struct bitmap_session *s)
{
    uint64_t directory = img->hdr.bitmap_directory_offset
                         >> img->cluster_bits;

    for (size_t i = 0; i < s->clusters.nr; i++)
        if (s->clusters.runs[i].cluster != directory)
            cluster_set_remove(&img->overlap, s->clusters.runs[i].cluster,
                               s->clusters.runs[i].nr);
}

int
bitmap_session_begin(struct image *img, struct bitmaps *clusters,
                     struct qcow2_error *err)
{
    struct bitmap_session *s = calloc(1, sizeof *s);

    if (!s)
        return error_nomem(err);
    if (bitmap_list_read(img, &s->list, err) == -1) {
        free(s);
        return err->errnum == EIO ? 1 : -1;
    }
    img->bitmaps = s;
    img->bitmap_clusters = &s->clusters;
    s->clusters = (struct freed_list){ .runs = clusters->runs,
                                       .nr = clusters->nr };
    if (bitmap_marks_init(&s->marks, img->hdr.size,
                          finest_granularity(&s->list), err) == 0
        && protect(img, s, err) == 0 && claim(img, s, false, err) == 0) {
        clusters->runs = NULL; /* taken over */
        return 0;
    }
    unprotect(img, s);
    s->clusters = (struct freed_list){ .runs = NULL };
    bitmap_session_free(img);
    return -1;
}

void
bitmap_session_mark(struct image *img, uint64_t guest_off, uint64_t nr_bytes)
{
    if (img->bitmaps)
        bitmap_marks_set(&img->bitmaps->marks, guest_off, nr_bytes);
}

int
bitmap_session_replace(struct image *img, uint64_t guest_off,
                       uint64_t nr_bytes, struct qcow2_error *err)
{
    struct bitmap_session *s = img->bitmaps;

    if (!s)
        return 0;
    if (bitmap_marks_grow(&s->marks, guest_off + nr_bytes, err) == -1
        || claim(img, s, true, err) == -1)
        return -1;
    if (io_flush(img->io, err) == -1) {
        image_fail(img);
        return -1;
    }
    bitmap_marks_set(&s->marks, guest_off, nr_bytes);
    return 0;
}

static bool
any_claimed(const struct bitmap_list *list)
{
    for (uint32_t i = 0; i < list->nr; i++)
        if (list->bitmaps[i].claimed)
            return true;
    return false;
}

/* A bitmap that the disk has outgrown is lost, and keeps no other from being
 * stored. */
static int
store_one(struct bitmap_session *s, struct bitmap_edit *e, struct bitmap *b,
          struct qcow2_error *err)
{
    struct image *img = e->txn->img;
    bool records = b->entry.flags & BITMAP_AUTO;
    char escaped[ESCAPE_SIZE];
    struct qcow2_error why;

    if (bitmap_edit_bits(e, b, records ? &s->marks.ranges : NULL, &why) == 0) {
        b->entry.flags &= ~(uint32_t)BITMAP_IN_USE;
    } else if (why.errnum == EINVAL) {
        image_warn(img, "%s; bitmap '%s' stays marked as in use, that is, as "
                   "wrong", why.text,
                   escape_bytes(escaped, b->entry.name, b->entry.name_size));
    } else {
        if (err)
            *err = why;
        return -1;
    }
    return 0;
}

static int
store(struct bitmap_session *s, struct bitmap_edit *e,
      struct qcow2_error *err)
{
    for (uint32_t i = 0; i < s->list.nr; i++)
        if (s->list.bitmaps[i].claimed
            && store_one(s, e, &s->list.bitmaps[i], err) == -1)
            return -1;
    return bitmap_edit_switch(e, err);
}

int
bitmap_session_store(struct txn *t, struct qcow2_error *err)
{
    struct image *img = t->img;
    struct bitmap_session *s = img->bitmaps;
    struct bitmap_edit e;
    int r = 0;

    if (!s)
        return 0;
    if (any_claimed(&s->list)) {
        bitmap_edit_begin(&e, t, &s->list);
        r = store(s, &e, err);
        bitmap_edit_end(&e);
    }
    bitmap_session_free(img);
    /* The next change begins another session. */
    __atomic_store_n(&img->begun, false, __ATOMIC_RELEASE);
    return r;
}

void
bitmap_session_close(struct image *img)
{
    struct qcow2_error err;
    struct txn t;
    int r;

    if (!img->bitmaps)
        return;
    r = txn_begin(&t, img, TXN_HEADER_ONLY | TXN_ANY_VIEW, &err);
    if (r == 0)
        r = txn_end(&t, bitmap_session_store(&t, &err), &err);
    if (r == -1)
        image_warn(img, "%s: its persistent bitmaps could not be stored, and "
                   "stay marked as in use, that is, as wrong: %s", img->name,
                   err.text);
}

void
bitmap_session_free(struct image *img)
{
    struct bitmap_session *s = img->bitmaps;

    if (!s)
        return;
    unprotect(img, s);
    free(s->clusters.runs);
    bitmap_marks_free(&s->marks);
    bitmap_list_free(&s->list);
    free(s);
    img->bitmaps = NULL;
    img->bitmap_clusters = NULL;
}
