/* SPDX-License-Identifier: BSD-3-Clause */
/* powercut.h: a disk on a crash log (or on a backend that fails), and what
 * must hold of every state that a power cut (or a failure) may leave of it:
 *
 *   - the audit finds no corruption, at most leaks, and no new ones once the
 *     disk is closed;
 *   - the engine opens the image for writing, without being asked to repair;
 *   - each sector is as the last flush left it, or as a later request did;
 *   - the snapshots hold what they held;
 *   - all of the disk can be written, which changes no snapshot (it would if
 *     clusters had two owners), and closed without further leaks, which a
 *     repair ends (of a part of the states).
 *
 * Some states are used and cut once more, and it holds of what that leaves.
 */
#ifndef POWERCUT_H
#define POWERCUT_H

#include "io-crash.h"
#include "rig.h"
#include "scenes.h"

struct powercut {
    struct rig rig;
    struct crash_log *log;      /* NULL: moments are merely counted */
    uint64_t moment;
    uint64_t closed;            /* the moment when the disk was */
    unsigned nr_old_leaks;      /* of the scene */

    /* Over all workloads. */
    uint64_t nr_states, nr_workloads, nr_leaky;
    uint64_t nr_uncounted;      /* states whose refcounts are too low */
    unsigned max_unsynced, max_leaks;
};

/* The scene's backing file is written to the temporary directory. */
void powercut_init(struct powercut *pc, const struct scene *scene);
void powercut_free(struct powercut *pc);

/* Opens the disk on a new log, by way of rig.plan; pc->rig.play plays on it.
 */
void powercut_begin(struct powercut *pc);

/* Closes the disk, then tries every state; fails the cmocka test. */
void powercut_end(struct powercut *pc, const struct crash_options *options);

/* The same for failures: opens the disk on rig.mem by way of rig.plan; says
 * what m must hold after a cut at that moment. */
void powercut_begin_faulty(struct powercut *pc);
void powercut_check(struct powercut *pc, struct mem *m, uint64_t moment);

/* One line on what was tried. */
void powercut_report(const struct powercut *pc, const char *name);

#endif /* POWERCUT_H */
