/* SPDX-License-Identifier: BSD-3-Clause */
/* error.h: how the engine fills the caller's struct qcow2_error.
 *
 * Detect once with error_set, add context on the way up with error_prefix.
 * Functions that fail return -1 (or NULL); the error is set exactly then.
 * Corrupt images and I/O faults are EIO; EINVAL is only the caller's fault.
 */
#ifndef QCOW2_ERROR_H
#define QCOW2_ERROR_H

#include "qcow2.h"

/* Sets errnum and text, without hints. err may be NULL. Always returns -1. */
int error_set(struct qcow2_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As error_set, and appends ": " and the text of the system error errnum. */
int error_set_errno(struct qcow2_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts context and ": " before the text; keeps the rest. Returns -1. */
int error_prefix(struct qcow2_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Adds a mask of enum qcow2_hint to an error that is set. Returns -1. */
int error_hint(struct qcow2_error *err, unsigned hints);

/* Adds QCOW2_HINT_ALLOW for a directory or URI. Returns -1. */
int error_hint_place(struct qcow2_error *err, const char *place);

/* Does the error say that the storage is full: ENOSPC, or EDQUOT? */
bool error_is_no_space(const struct qcow2_error *err);

/* ENOMEM. Returns -1. */
int error_nomem(struct qcow2_error *err);

#endif /* QCOW2_ERROR_H */
