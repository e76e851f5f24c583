/* SPDX-License-Identifier: BSD-3-Clause */
/* states.h: counts the crash states that a test program tries, and asks the
 * other implementation about a part of them.
 */
#ifndef STATES_H
#define STATES_H

#include <stdbool.h>

#include "audit.h"
#include "io-crash.h"

/* CRASH_LONG=1: many more workloads, and more states of each. */
bool states_are_many(void);

/* The states of one log: crash_log_enumerate says so itself. */
void states_tried(const struct crash_stats *stats);

/* Has qemu-img check judge every CRASH_QEMU_EVERYth state (400; with
 * CRASH_LONG 200) it is called for: no corruption, at worst leaks. Where the
 * dirty bit is set that must hold after its repair; in version 2, which has
 * no such bit, COPIED flags may be wrong. */
void states_ask_qemu(struct mem *state, bool dirty, bool flags_may_be_wrong);

/* No corruption, at worst leaks; COPIED flags are wrong only where the dirty
 * bit is set, or in version 2. Asks qemu-img, too. */
struct audit states_expect_sound(struct mem *state);

/* One line, whose figures `make crash-states` adds up. */
void states_print(void);

#endif /* STATES_H */
