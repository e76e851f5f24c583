/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap-session.h: keeps the persistent bitmaps of an image right while it is
 * written.
 *
 * A session lasts from the first change (image_begin_write) until the bitmaps
 * are stored, at the latest when the image closes. Before the first change
 * those that record changes are claimed: marked as in use, durably. So
 * whatever ends the process, nobody takes them for right who does not have the
 * marks, which are in memory.
 */
#ifndef QCOW2_BITMAP_SESSION_H
#define QCOW2_BITMAP_SESSION_H

#include "meta/bitmap-marks.h"
#include "meta/bitmaps.h"
#include "meta/txn.h"

struct bitmap_session {
    struct bitmap_list list;
    struct bitmap_marks marks;
    struct freed_list clusters; /* that bitmaps occupy: metadata, meanwhile */
};

/* Begins a session of an image that has bitmaps, whose clusters were found and
 * are theirs alone; takes these over. Claims are written, and not durable yet.
 * 1: the bitmaps cannot be understood, which *err tells, and nothing was
 * changed. -1: it could not be done now.
 */
int bitmap_session_begin(struct image *img, struct bitmaps *clusters,
                         struct qcow2_error *err);

/* A part of the disk is about to change; nothing is to be done without a
 * session. Any number of threads, with rwlock held shared. */
void bitmap_session_mark(struct image *img, uint64_t guest_off,
                         uint64_t nr_bytes);

/* The same where the size may change, up to the end of the range, with rwlock
 * held exclusively: claims all bitmaps, durably, as the tables of all will
 * have to change.
 */
int bitmap_session_replace(struct image *img, uint64_t guest_off,
                           uint64_t nr_bytes, struct qcow2_error *err);

/* Ends the session: stores what is claimed, which is right from then on. On
 * failure that stays in use, that is, lost. Without a session it does nothing.
 */
int bitmap_session_store(struct txn *t, struct qcow2_error *err);

/* The same when the image closes, before flush_close. Warns of what is lost.
 */
void bitmap_session_close(struct image *img);

/* Ends it without storing anything. */
void bitmap_session_free(struct image *img);

#endif /* QCOW2_BITMAP_SESSION_H */
