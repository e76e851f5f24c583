/* SPDX-License-Identifier: BSD-3-Clause */
/* create.h: creates an image, in a file that is open already. */
#ifndef QCOW2_CREATE_H
#define QCOW2_CREATE_H

#include "qcow2.h"
#include "storage/io.h"
#include "storage/path-policy.h"

enum {
    /* Of new files that hold nothing yet, but for the umask. */
    CREATE_MODE = 0644,
};

/* Writes an empty image of options->size, and backing as it is said, over
 * whatever io holds. Cut short anywhere it leaves what was there, no image
 * at all, or all of the new one.
 */
int create_io(struct io *io, const struct qcow2_create_options *options,
              struct qcow2_error *err);

/* Makes the image that qcow2_create would, or the raw file, at the target and
 * returns it, open and locked; options->prealloc is not used. A new file gets
 * this mode, but for the umask. On failure nothing is left behind that was not
 * there before.
 */
struct io *create_target(struct policy_target *target,
                         const struct qcow2_create_options *options,
                         mode_t mode, struct qcow2_error *err);
struct io *create_raw_target(struct policy_target *target,
                             const struct qcow2_create_options *options,
                             mode_t mode, struct qcow2_error *err);

/* Gives a new raw file its size. */
int create_set_size(struct io *io, uint64_t size, struct qcow2_error *err);

/* Preallocates all of the new disk in io, which it takes over. */
int create_preallocate(struct io *io, const struct policy_target *target,
                       enum qcow2_format format,
                       enum qcow2_preallocation prealloc,
                       struct qcow2_error *err);

#endif /* QCOW2_CREATE_H */
