/* SPDX-License-Identifier: BSD-3-Clause */
/* model.h: what a disk must read as: now, and after a power cut.
 *
 * For power cuts the model remembers every content each 512-byte sector was
 * given, and when: a cut at some moment may show the content that the last
 * flush answered before it covered, or any that was sent later. Moments are
 * the caller's numbers (places in the log of a crash backend).
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SECTOR = 512 };

struct sector_version {
    uint64_t sent, answered; /* moments; answered UINT64_MAX: not yet */
    bool durable;            /* answered with FUA */
    bool partial;            /* did not give all of the sector */
    unsigned char bytes[SECTOR];
};

struct sector_history {
    struct sector_version *versions; /* the first: before all requests */
    unsigned nr, capacity;
};

struct model_flush {
    uint64_t sent, answered;
};

struct model {
    uint64_t size;
    unsigned char *disk; /* as it reads now */

    bool remembers;
    struct sector_history *sectors;
    struct model_flush *flushes;
    unsigned nr_flushes, flushes_capacity;
};

/* The disk is copied. */
void model_init(struct model *m, const void *disk, uint64_t size);
void model_free(struct model *m);

/* From now on contents are remembered. */
void model_remember(struct model *m);

/* A request gives [off, off + nr_bytes) the content buf; NULL: zeroes.
 * Without remembering the moments are ignored. */
void model_write(struct model *m, const void *buf, uint64_t nr_bytes,
                 uint64_t off, uint64_t sent);
void model_answered(struct model *m, uint64_t nr_bytes, uint64_t off,
                    uint64_t answered, bool durable);
void model_flushed(struct model *m, uint64_t sent, uint64_t answered);

/* May a cut at this moment show this content of the disk? Otherwise the
 * first sector that is not legal is told.
 */
bool model_legal(const struct model *m, const void *disk, uint64_t moment,
                 uint64_t *bad_sector);

#endif /* MODEL_H */
