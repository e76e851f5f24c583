/* SPDX-License-Identifier: BSD-3-Clause */
/* transfer.h: what convert and dd do. */
#ifndef TRANSFER_H
#define TRANSFER_H

#include "image-args.h"
#include "name.h"

struct transfer {
    char **sources;          /* as on the command line */
    size_t nr_sources;
    const char *target;      /* as on the command line */
    bool target_opts;        /* by --target-image-opts */
    const char *snapshot;    /* of the sources; NULL: the disks */
    bool progress, quiet;
    bool offload, has_sparse; /* -C, -S */
    enum qcow2_cache target_cache;
    struct name_settings target_settings; /* with -n */
    struct disk_args disk;   /* how to open sources */
    struct image_args image; /* the target */
    struct qcow2_convert_options convert; /* the rest of it */
    char *backing;           /* path of the target's backing file, or NULL */
};
#define TRANSFER_INIT { .disk = DISK_ARGS_INIT,                             \
                    .image = { .format = QCOW2_FORMAT_RAW,              \
                               .create = { .overwrite = true } } }

/* Options that both have. */
void transfer_take(struct transfer *c, const struct args *a, int key);
int transfer_run(struct transfer *c, const struct args *a);
void transfer_free(struct transfer *c);

#endif /* TRANSFER_H */
