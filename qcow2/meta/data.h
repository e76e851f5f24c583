/* SPDX-License-Identifier: BSD-3-Clause */
/* data.h: where the guest data of an image may lie: img->data, with what
 * alloc.h and overlap.h have for a store in the image's own file.
 */
#ifndef QCOW2_DATA_H
#define QCOW2_DATA_H

#include "format/entry.h"
#include "meta/alloc.h"
#include "meta/image.h"
#include "meta/overlap.h"

/* Gives one to `want` guest clusters from guest_off on a contiguous place. The
 * caller, who holds their range exclusively, makes a table point to it, or
 * releases it.
 */
int data_place(struct image *img, uint64_t guest_off, uint64_t want,
               struct alloc_run *run, struct qcow2_error *err);

/* Makes img->data a store of another kind, which img takes over: right after
 * it was opened, before anything is read or written.
 */
void data_use_store(struct image *img, struct store *s);

/* In memory no table points to this place any more (I3). */
void data_release(struct image *img, uint64_t guest_off, uint64_t host_off,
                  uint64_t nr_clusters);

/* Does an entry give its cluster the place at host offset 0? COPIED says so;
 * such an entry of a store that has no place there has none.
 */
static inline bool
data_is_at_0(const struct image *img, const struct l2_entry *e)
{
    return e->copied && e->host_off == 0 && img->data->place_0
           && (e->kind == MAP_UNALLOCATED
               || (e->kind != MAP_COMPRESSED
                   && geometry_has_subclusters(&img->geo)));
}

/* What is wrong with an entry, so that it says nothing. */
static inline unsigned
data_entry_flaws(const struct image *img, const struct l2_entry *e)
{
    unsigned flaws = e->flaws & ~ENTRY_COPIED_COMPRESSED;

    return data_is_at_0(img, e) ? flaws & ~ENTRY_ALLOCATED_NOWHERE : flaws;
}

/* The rest of data_check_place: of places that no refcount counts. */
int data_check_outside(struct image *img, uint64_t guest_off,
                       uint64_t host_off, uint64_t nr_bytes,
                       struct qcow2_error *err);

/* May a table say that guest data have this place? EIO, and image_damaged,
 * otherwise.
 */
static inline int
data_check_place(struct image *img, uint64_t guest_off, uint64_t host_off,
                 uint64_t nr_bytes, struct qcow2_error *err)
{
    if (img->data->counted)
        return image_check_inside(img, host_off, nr_bytes, err);
    return data_check_outside(img, guest_off, host_off, nr_bytes, err);
}

/* May guest data be written there (I6)? EIO, and image_damaged, otherwise. */
static inline int
data_check_write(struct image *img, uint64_t host_off, uint64_t nr_bytes,
                 struct qcow2_error *err)
{
    return img->data->counted ? overlap_check(img, host_off, nr_bytes, err)
                              : 0;
}

#endif /* QCOW2_DATA_H */
