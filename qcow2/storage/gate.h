/* SPDX-License-Identifier: BSD-3-Clause */
/* gate.h: the gate that every file name from an image must pass. */
#ifndef QCOW2_GATE_H
#define QCOW2_GATE_H

#include <stdint.h>

#include "qcow2.h"
#include "storage/io.h"

/* A file that may be opened. */
struct gate_file {
    char *path;         /* its directory resolved, but not its last part:
                         * where names in the file itself start, as in QEMU;
                         * or an NBD URI */
    char *real;         /* resolved in full; NULL: it is a URI */
    uint64_t dev, ino;  /* 0: it is a URI */
};

/* What stands behind a name found in the image at image_path: relative to
 * the directory that path is in, and allowed if it is a regular file or
 * block device inside that directory or below one of allow, or an NBD URI
 * that begins with one of allow. EPERM otherwise, saying which option would
 * allow it.
 */
int gate_resolve(const char *image_path, const char *name,
                 const char *const *allow, size_t nr_allow,
                 struct gate_file *file, struct qcow2_error *err);

/* The same for what the user named, which is allowed: relative to the
 * current directory, or as names in the image at image_path are. */
int gate_trust(const char *path, struct gate_file *file,
               struct qcow2_error *err);
int gate_trust_name(const char *image_path, const char *name,
                    struct gate_file *file, struct qcow2_error *err);

/* Opens the file, read-only or for writing; EPERM if it is no longer the
 * one resolved. */
struct io *gate_open(const struct gate_file *file, enum io_lock lock,
                     struct qcow2_error *err);
struct io *gate_open_writable(const struct gate_file *file,
                              enum io_lock lock, struct qcow2_error *err);

void gate_file_free(struct gate_file *file);

/* Refuses what no allow= can be. */
int gate_check_allow(const char *const *allow, size_t nr_allow,
                     struct qcow2_error *err);

#endif /* QCOW2_GATE_H */
