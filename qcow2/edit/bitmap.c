/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap.c: adds, removes, changes and reads persistent bitmaps.
 *
 * Each operation ends the session that keeps bitmaps right, if there is one,
 * by storing what is marked; then what it changes is switched to at once
 * (bitmap-edit.h). The next change of the disk begins another session.
 */
#include "edit/bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "disk/open-disk.h"
#include "meta/bitmap-edit.h"
#include "meta/bitmap-session.h"

struct operation {
    struct image *img;
    struct txn txn;
    struct bitmap_list list;
    struct bitmap_edit edit;
};

static struct image *
image_of(struct qcow2_disk *disk, struct qcow2_error *err)
{
    struct image *img = disk->file->image;

    if (!img)
        error_set(err, ENOTSUP, "only qcow2 images have persistent bitmaps");
    else if (disk->snapshot)
        error_set(err, ENOTSUP, "%s: a snapshot has no bitmaps", img->name);
    else if (img->hdr.version < 3)
        error_set(err, ENOTSUP, "%s: images of version 2 have no bitmaps",
                  img->name);
    else
        return img;
    return NULL;
}

/* What is replaced is freed, so it must be what the bitmaps say it is. */
static int
check_clusters(struct image *img, struct qcow2_error *err)
{
    struct bitmaps clusters;
    int r = 0;

    if (img->hdr.bitmap_directory_size == 0)
        return 0;
    bitmaps_find(img, &clusters);
    if (clusters.doubt) {
        error_set(err, EIO, "%s: its bitmaps are damaged: %s", img->name,
                  clusters.doubt);
        r = error_hint(err, QCOW2_HINT_CHECK);
    }
    bitmaps_end(&clusters);
    return r;
}

/* Holds the image alone on success. */
static int
begin(struct operation *op, struct qcow2_disk *disk, struct qcow2_error *err)
{
    struct image *img = image_of(disk, err);

    *op = (struct operation){ .img = img };
    if (!img)
        return -1;
    if (disk->readonly)
        return error_set(err, EROFS, "%s: it is open read-only", img->name);
    if (txn_begin(&op->txn, img, TXN_HEADER_ONLY | TXN_ANY_VIEW, err) == -1)
        return -1;
    img->written = true;
    if (bitmap_session_store(&op->txn, err) == -1
        || check_clusters(img, err) == -1
        || bitmap_list_read(img, &op->list, err) == -1)
        return txn_end(&op->txn, -1, err);
    bitmap_edit_begin(&op->edit, &op->txn, &op->list);
    bitmap_observe(&disk->file->bitmaps, img);
    /* Where there were no bitmaps the next change has to claim them. */
    __atomic_store_n(&img->begun, false, __ATOMIC_RELEASE);
    return 0;
}

static int
end(struct operation *op, int r, struct qcow2_error *err)
{
    if (r == 0)
        r = bitmap_edit_switch(&op->edit, err);
    bitmap_edit_end(&op->edit);
    bitmap_list_free(&op->list);
    return txn_end(&op->txn, r, err);
}

static int
check_in_use(const struct image *img, const char *name,
             const struct bitmap *b, struct qcow2_error *err)
{
    if (!(b->entry.flags & BITMAP_IN_USE) || b->claimed)
        return 0;
    return error_set(err, EBUSY, "%s: bitmap '%s' is marked as in use: it was "
                     "not stored by the program that wrote the disk, so it is "
                     "wrong and can only be removed", img->name,
                     ESCAPED(name));
}

/* NULL: there is none. */
static struct bitmap *
find(struct image *img, struct bitmap_list *list, const char *name,
     struct qcow2_error *err)
{
    long i = bitmap_list_find(list, name);

    if (i >= 0)
        return &list->bitmaps[i];
    error_set(err, ENOENT, "%s: there is no bitmap '%s'", img->name,
              ESCAPED(name));
    return NULL;
}

/* NULL: nor can it be used. */
static struct bitmap *
find_usable(struct image *img, struct bitmap_list *list, const char *name,
            struct qcow2_error *err)
{
    struct bitmap *b = find(img, list, name, err);

    return b && check_in_use(img, name, b, err) == 0 ? b : NULL;
}

static int
check_new(const struct operation *op, const char *name, uint64_t granularity,
          struct qcow2_error *err)
{
    if (name[0] == '\0' || strlen(name) > MAX_BITMAP_NAME_BYTES)
        return error_set(err, EINVAL, "a bitmap's name has 1 to %d bytes",
                         (int)MAX_BITMAP_NAME_BYTES);
    if (!is_power_of_2(granularity)
        || granularity < UINT64_C(1) << MIN_BITMAP_GRANULARITY_BITS
        || granularity > UINT64_C(1) << MAX_BITMAP_GRANULARITY_BITS)
        return error_set(err, EINVAL, "the granularity of a bitmap is a power "
                         "of two from 512 bytes to 2 GiB");
    if (bitmap_list_find(&op->list, name) >= 0)
        return error_set(err, EEXIST, "%s: there is a bitmap '%s' already",
                         op->img->name, ESCAPED(name));
    return 0;
}

/* Its bits are `from`, or none. */
static int
add(struct operation *op, const char *name, uint64_t granularity,
    bool disabled, struct dirty_ranges *from, struct qcow2_error *err)
{
    struct bitmap *b;

    if (granularity == 0)
        granularity = min_u64(max_u64(op->img->cluster_size, 4096), 65536);
    if (check_new(op, name, granularity, err) == -1)
        return -1;
    b = bitmap_list_add(&op->list, name, err);
    if (!b)
        return -1;
    b->entry.granularity_bits = __builtin_ctzll(granularity);
    b->entry.flags = disabled ? 0 : BITMAP_AUTO;
    return bitmap_edit_bits(&op->edit, b, from, err);
}

int
qcow2_bitmap_add(struct qcow2_disk *disk, const char *name,
                 uint64_t granularity, bool disabled,
                 struct qcow2_error *err)
{
    struct operation op;

    if (begin(&op, disk, err) == -1)
        return -1;
    return end(&op, add(&op, name, granularity, disabled, NULL, err),
               err);
}

int
qcow2_bitmap_remove(struct qcow2_disk *disk, const char *name,
                    struct qcow2_error *err)
{
    struct operation op;
    struct bitmap *b;
    int r = -1;

    if (begin(&op, disk, err) == -1)
        return -1;
    b = find(op.img, &op.list, name, err);
    if (b)
        r = bitmap_edit_drop_bits(&op.edit, b, err);
    if (r == 0)
        bitmap_list_remove(&op.list, b - op.list.bitmaps);
    return end(&op, r, err);
}

int
qcow2_bitmap_clear(struct qcow2_disk *disk, const char *name,
                   struct qcow2_error *err)
{
    struct operation op;
    struct bitmap *b;
    int r = -1;

    if (begin(&op, disk, err) == -1)
        return -1;
    b = find_usable(op.img, &op.list, name, err);
    if (b && bitmap_edit_drop_bits(&op.edit, b, err) == 0)
        r = bitmap_edit_bits(&op.edit, b, NULL, err);
    return end(&op, r, err);
}

int
qcow2_bitmap_enable(struct qcow2_disk *disk, const char *name, bool enable,
                    struct qcow2_error *err)
{
    struct operation op;
    struct bitmap *b;

    if (begin(&op, disk, err) == -1)
        return -1;
    b = find_usable(op.img, &op.list, name, err);
    if (b && enable)
        b->entry.flags |= BITMAP_AUTO;
    else if (b)
        b->entry.flags &= ~(uint32_t)BITMAP_AUTO;
    return end(&op, b ? 0 : -1, err);
}

static int
mark_all(struct bitmap_marks *marks, struct dirty_ranges *from, uint64_t size,
         struct qcow2_error *err)
{
    uint64_t at = 0, n;

    for (;; at += n) {
        if (from->next(from, &at, size, &n, err) == -1)
            return -1;
        if (n == 0)
            return 0;
        bitmap_marks_set(marks, at, n);
    }
}

/* What the bitmap says for now, with what a session has marked for it. The
 * caller holds rwlock, and frees the marks. */
static int
collect_bitmap(struct image *img, const struct bitmap *b,
               struct bitmap_marks *marks, struct qcow2_error *err)
{
    struct bitmap_reader reader;
    int r;

    if (bitmap_marks_init(marks, img->hdr.size, b->entry.granularity_bits,
                          err) == -1)
        return -1;
    if (bitmap_reader_init(&reader, img, &b->entry, err) == -1) {
        bitmap_marks_free(marks);
        return -1;
    }
    r = mark_all(marks, &reader.ranges, img->hdr.size, err);
    bitmap_reader_free(&reader);
    if (r == 0 && b->claimed && b->entry.flags & BITMAP_AUTO)
        r = mark_all(marks, &img->bitmaps->marks.ranges, img->hdr.size, err);
    if (r == -1)
        bitmap_marks_free(marks);
    return r;
}

static int
collect(struct image *img, const char *name, struct bitmap_marks *marks,
        struct qcow2_error *err)
{
    struct bitmap_list list;
    struct bitmap *b;
    int r = -1;

    if (img->bitmaps) {
        b = find_usable(img, &img->bitmaps->list, name, err);
        return b ? collect_bitmap(img, b, marks, err) : -1;
    }
    if (bitmap_list_read(img, &list, err) == -1)
        return -1;
    b = find_usable(img, &list, name, err);
    if (b)
        r = collect_bitmap(img, b, marks, err);
    bitmap_list_free(&list);
    return r;
}

/* Nobody holds locks of two images: what the source has is collected first.
 * The first write, which claims bitmaps in steps, shares rwlock. */
static int
collect_of(struct qcow2_disk *disk, const char *name,
           struct bitmap_marks *marks, uint64_t *size,
           struct qcow2_error *err)
{
    struct image *img = image_of(disk, err);

    if (!img)
        return -1;
    RDLOCK_SCOPE(&img->rwlock);
    LOCK_SCOPE(&img->begin);
    *size = img->hdr.size;
    return collect(img, name, marks, err);
}

static int
check_same_size(const struct image *img, uint64_t size,
                struct qcow2_error *err)
{
    if (size == img->hdr.size)
        return 0;
    return error_set(err, EINVAL, "%s: its disk has %" PRIu64 " bytes, and "
                     "that of the bitmap to be merged %" PRIu64, img->name,
                     img->hdr.size, size);
}

static int
merge(struct operation *op, const char *name, struct bitmap_marks *marks,
      uint64_t size, struct qcow2_error *err)
{
    struct bitmap *b = find_usable(op->img, &op->list, name, err);

    if (!b || check_same_size(op->img, size, err) == -1)
        return -1;
    return bitmap_edit_bits(&op->edit, b, &marks->ranges, err);
}

int
qcow2_bitmap_merge(struct qcow2_disk *disk, const char *name,
                   struct qcow2_disk *source, const char *source_name,
                   struct qcow2_error *err)
{
    struct bitmap_marks marks;
    struct operation op;
    uint64_t size;
    int r = -1;

    if (collect_of(source, source_name, &marks, &size, err) == -1)
        return -1;
    if (begin(&op, disk, err) == 0)
        r = end(&op, merge(&op, name, &marks, size, err), err);
    bitmap_marks_free(&marks);
    return r;
}

int
qcow2_bitmap_dump(struct qcow2_disk *disk, const char *name,
                  qcow2_bitmap_fn *fn, void *opaque, struct qcow2_error *err)
{
    struct bitmap_marks marks;
    uint64_t size, at = 0, from = 0, n = 0;
    int r = 0;

    if (collect_of(disk, name, &marks, &size, err) == -1)
        return -1;
    for (; r == 0 && at < size; at = from + n) {
        from = at;
        marks.ranges.next(&marks.ranges, &from, size, &n, NULL);
        if (n == 0)
            from = size;
        if (from > at)
            r = fn(opaque, at, from - at, false);
        if (r == 0 && n > 0)
            r = fn(opaque, from, n, true);
    }
    bitmap_marks_free(&marks);
    return r;
}

/* The list as it is now; the caller frees it. */
static int
read_list(struct image *img, struct bitmap_list *list,
          struct qcow2_error *err)
{
    RDLOCK_SCOPE(&img->rwlock);
    LOCK_SCOPE(&img->begin);

    return bitmap_list_read(img, list, err);
}

int
bitmap_check_copy(struct qcow2_disk *source, bool skip_broken,
                  struct qcow2_error *err)
{
    struct image *img = image_of(source, err);
    struct bitmap_list list;
    int r = 0;

    if (!img || read_list(img, &list, err) == -1)
        return -1;
    for (uint32_t i = 0; r == 0 && !skip_broken && i < list.nr; i++) {
        const struct bitmap_entry *e = &list.bitmaps[i].entry;
        char escaped[ESCAPE_SIZE];

        if (e->flags & BITMAP_IN_USE)
            r = error_set(err, EBUSY, "%s: bitmap '%s' is marked as in use, "
                          "so it is wrong and cannot be copied", img->name,
                          escape_bytes(escaped, e->name, e->name_size));
    }
    bitmap_list_free(&list);
    return r;
}

/* By one switch of the header: a bitmap that lacks what the source's has
 * recorded must not be there, neither for now nor after a failure. */
static int
add_copy(struct qcow2_disk *target, struct qcow2_disk *source,
         const struct bitmap_entry *e, const char *name,
         struct qcow2_error *err)
{
    struct bitmap_marks marks;
    struct operation op;
    uint64_t size;
    int r = -1;

    if (collect_of(source, name, &marks, &size, err) == -1)
        return -1;
    if (begin(&op, target, err) == 0) {
        if (check_same_size(op.img, size, err) == 0)
            r = add(&op, name, UINT64_C(1) << e->granularity_bits,
                    !(e->flags & BITMAP_AUTO), &marks.ranges, err);
        r = end(&op, r, err);
    }
    bitmap_marks_free(&marks);
    return r;
}

static int
copy(struct qcow2_disk *target, struct qcow2_disk *source,
     const struct bitmap_entry *e, struct qcow2_error *err)
{
    CLEANUP_FREE char *name = strndup(e->name, e->name_size);

    if (!name)
        return error_nomem(err);
    if (e->flags & BITMAP_IN_USE) {
        image_warn(source->file->image, "%s: bitmap '%s' is marked as in use, "
                   "so it is wrong and not copied",
                   source->file->image->name, ESCAPED(name));
        return 0;
    }
    return add_copy(target, source, e, name, err);
}

int
bitmap_copy(struct qcow2_disk *target, struct qcow2_disk *source, uint32_t i,
            struct qcow2_error *err)
{
    struct image *img = image_of(source, err);
    struct bitmap_list list;
    int r = 0;

    if (!img || read_list(img, &list, err) == -1)
        return -1;
    if (i < list.nr)
        r = copy(target, source, &list.bitmaps[i].entry, err) == -1 ? -1 : 1;
    bitmap_list_free(&list);
    return r;
}
