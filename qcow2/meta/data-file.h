/* SPDX-License-Identifier: BSD-3-Clause */
/* data-file.h: the store of an image whose guest data are in a file beside it,
 * each byte at its guest offset (incompatible feature bit 2).
 *
 * There are no refcounts for it, so a place is nobody else's, and is written
 * again whatever was there before: what a power cut may leave in it are bytes
 * that the guest wrote or gave up there, but for clusters that no durable table
 * points to. So nothing needs to be in quarantine. Nothing is ever written past
 * the end of the disk: the file may be a device that ends there, or be read as
 * a raw image.
 */
#ifndef QCOW2_DATA_FILE_H
#define QCOW2_DATA_FILE_H

#include "layer/store.h"
#include "meta/image.h"

/* Makes the file the store of an image that was just opened. Takes over io,
 * also on failure (ENOMEM).
 */
int data_file_use(struct image *img, struct io *io, struct qcow2_error *err);

/* Does img have one? */
bool data_file_is_used(const struct image *img);

/* In a transaction, before the disk becomes larger: makes the file so long,
 * and what is new of it read as zeroes. ENOSPC where it cannot grow. What was
 * written is durable with the next flush.
 */
int data_file_grow(struct image *img, uint64_t size, struct qcow2_error *err);

/* The disk ends at size, durably, or has gone back to it: nothing is written
 * past that, and the file is cut off there. That this fails does no harm.
 */
void data_file_cut(struct image *img, uint64_t size);

#endif /* QCOW2_DATA_FILE_H */
