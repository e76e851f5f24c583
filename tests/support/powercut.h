/* SPDX-License-Identifier: BSD-3-Clause */
/* powercut.h: a disk on a crash log, and what must hold of every state that
 * a power cut may leave of it:
 *
 *   - the audit finds no corruption, at most leaks;
 *   - the engine opens the image for writing, without being asked to repair;
 *   - each sector is as the last flush left it, or as a later request did;
 *   - the snapshots hold what they held;
 *   - all of the disk can be written, which changes no snapshot (it would if
 *     clusters had two owners), and closed without further leaks.
 */
#ifndef POWERCUT_H
#define POWERCUT_H

#include "builder.h"
#include "io-crash.h"
#include "play.h"
#include "qcow2.h"

struct powercut {
    struct builder *image;      /* what it begins with; the caller's */
    const char *backing;        /* of the image, a raw file; or NULL */
    unsigned char *below;       /* what the backing file shows */
    struct qcow2_pool *pool;

    struct crash_log *log;
    struct play play;

    /* Over all workloads. */
    uint64_t nr_states, nr_workloads, nr_leaky;
    unsigned max_unsynced, max_leaks;
    uint64_t qemu_every;        /* ask qemu-img about each so manieth state */
    uint64_t seed;
};

/* The backing file (nr_bytes of seed's content; 0: none) is written to the
 * temporary directory. */
void powercut_init(struct powercut *pc, struct builder *image,
                   uint64_t backing_bytes);
void powercut_free(struct powercut *pc);

/* Opens the disk on a new log; pc->play plays on it. */
void powercut_begin(struct powercut *pc);

/* Closes the disk, then tries every state; fails the cmocka test. */
void powercut_end(struct powercut *pc, const struct crash_options *options);

/* One line on what was tried. */
void powercut_report(const struct powercut *pc, const char *name);

#endif /* POWERCUT_H */
