/* SPDX-License-Identifier: BSD-3-Clause */
/* format-driver.h: what opens a file, by the format it has. */
#ifndef QCOW2_FORMAT_DRIVER_H
#define QCOW2_FORMAT_DRIVER_H

#include "layer/source.h"
#include "qcow2.h"

struct chain_stop;
struct open_file;
struct policy_place;

/* What is known of a file that is to be opened as a disk. */
struct opening {
    const char *path;           /* for messages, and what is named in it */
    const struct policy_place *place; /* where it is; NULL: where path is */
    const struct qcow2_options *options;
    struct chain_stop *stop;    /* as for chain_open */
};

struct format_driver {
    enum qcow2_format format;

    /* Opens the disk itself, on its chain: sets ops, requests, and image, raw
     * or chain of the file. Takes over io, also on failure. After it free is
     * called, whatever it returned. */
    int (*open)(struct open_file *file, struct io *io,
                const struct opening *o, struct qcow2_error *err);
    void (*free)(struct open_file *file);

    /* Opens a read-only layer. Takes over io, also on failure. */
    struct source *(*open_layer)(struct qcow2_pool *pool, struct io *io,
                                 struct qcow2_error *err);
};

extern const struct format_driver image_driver, qcow1_driver, raw_driver;

/* The driver of a format, which is not AUTO. */
const struct format_driver *format_driver(enum qcow2_format format);

#endif /* QCOW2_FORMAT_DRIVER_H */
