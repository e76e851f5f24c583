/* SPDX-License-Identifier: BSD-3-Clause */
/* open-data.h: finds and opens the data file of an image. */
#ifndef QCOW2_OPEN_DATA_H
#define QCOW2_OPEN_DATA_H

#include "meta/image.h"
#include "qcow2.h"
#include "storage/path-policy.h"

/* How the files of a disk are shared. */
enum io_lock disk_lock_of(const struct qcow2_options *options);

/* How an image was opened, as far as its data file is concerned, which is
 * opened in the same way.
 */
struct data_opening {
    const struct policy_place *place; /* of the image */
    struct policy_allow *allow;
    const struct qcow2_options *options;
    const char *name;   /* in place of the one that the image has, or NULL */
    bool trusted;       /* the user chose the name */
    bool readonly;
    bool direct;        /* past the page cache */
    enum io_lock lock;
};

/* Opens the data file that the image names, if it has one, and makes it the
 * store of its guest data. The path policy decides on the name, relative to the
 * image's place; it must be a regular file or block device, and not shorter
 * than the disk.
 */
int data_open(struct image *img, const struct data_opening *how,
              struct qcow2_error *err);

/* An image that others opened: may it use its data file for this opening, too?
 */
int data_check_allowed(struct image *img, const struct data_opening *how,
                       struct qcow2_error *err);

/* data_open for the image at path, which options opened. place: NULL: where
 * path is. */
int data_open_disk(struct image *img, const char *path,
                   const struct policy_place *place,
                   const struct qcow2_options *options,
                   struct qcow2_error *err);

/* Fails if a file is there twice: as an image or raw disk and as a data file,
 * or as the data file of two images.
 */
int data_check_chain(const struct source_chain *chain,
                     struct qcow2_error *err);

#endif /* QCOW2_OPEN_DATA_H */
