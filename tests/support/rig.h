/* SPDX-License-Identifier: BSD-3-Clause */
/* rig.h: an image from a recipe, in memory, and a disk on it that is played
 * on; failures end the cmocka test.
 */
#ifndef RIG_H
#define RIG_H

#include "builder.h"
#include "io-fault.h"
#include "io-mem.h"
#include "play.h"
#include "qcow2.h"

struct rig {
    struct builder *image;
    unsigned char *below;        /* what the backing file shows */
    struct qcow2_options options;
    struct mem *mem;             /* the image's file */
    uint64_t device_bytes;       /* it is a block device; 0: a file */
    uint32_t block;              /* the file takes only whole blocks of so
                                  * many bytes; 0: any bytes */
    struct fault_plan plan;      /* counts what is done to it, and fails it */
    struct play play;
};

/* A backing file "base.raw" of that many bytes is made in the temporary
 * directory; 0: none. A data file is there, too, from rig_start on. */
void rig_init(struct rig *r, const char *recipe, uint64_t backing_bytes);
void rig_free(struct rig *r);

/* The file as the recipe says, and a model of it. */
void rig_start(struct rig *r);
void rig_end(struct rig *r);

/* What the header of an image says. */
unsigned rig_version(struct mem *image);

/* On io, and on what makes whole blocks of requests if rig.block says so. */
struct qcow2_disk *rig_open_disk(struct rig *r, struct io *io);
void rig_expect_snapshots(struct rig *r, struct qcow2_disk *disk);

/* rig_start, and opens the disk on the file. */
void rig_open(struct rig *r);

/* Closes the disk; nothing is damaged, leaked or lost. Then rig_end. */
void rig_close(struct rig *r);

/* One request, which succeeds. */
void rig_play(struct rig *r, enum op_kind kind, uint64_t off,
              uint64_t nr_bytes, unsigned flags);
void rig_flush(struct rig *r);

#endif /* RIG_H */
