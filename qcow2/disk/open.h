/* SPDX-License-Identifier: BSD-3-Clause */
/* open.h: opens disks from files and open backends. */
#ifndef QCOW2_OPEN_H
#define QCOW2_OPEN_H

#include "disk/chain.h"
#include "layer/source.h"
#include "meta/image.h"
#include "qcow2.h"

/* As qcow2_open, on a backend that is open already: tests give memory,
 * fault, crash and order backends. path is where relative backing names
 * start and what messages say. Takes over io, also on failure.
 */
struct qcow2_disk *disk_open_io(struct io *io, const char *path,
                                const struct qcow2_options *options,
                                struct qcow2_error *err);

/* The same, with a chain that ends above `stop`: what the layers above it
 * do not hold reads as zeroes, and must not be written. stop may be NULL.
 */
struct qcow2_disk *disk_open_above(struct io *io, const char *path,
                                   const struct qcow2_options *options,
                                   struct chain_stop *stop,
                                   struct qcow2_error *err);

/* The same, of an image in this place (path is for messages only); NULL:
 * where path is. */
struct qcow2_disk *disk_open_at(struct io *io, const char *path,
                                const struct policy_place *place,
                                const struct qcow2_options *options,
                                struct chain_stop *stop,
                                struct qcow2_error *err);

/* Opens the file, locked as options say. */
struct qcow2_disk *disk_open_file(const struct policy_file *file,
                                  const struct qcow2_options *options,
                                  struct chain_stop *stop,
                                  struct qcow2_error *err);

/* The same, for what options->fd or options->file or path name. */
struct qcow2_disk *disk_open_path(const char *path,
                                  const struct qcow2_options *options,
                                  struct chain_stop *stop,
                                  struct qcow2_error *err);

/* The image of a qcow2 disk; NULL for a raw one. */
struct image *disk_image(struct qcow2_disk *disk);

#endif /* QCOW2_OPEN_H */
