/* SPDX-License-Identifier: BSD-3-Clause */
/* faults.h: the ways in which an operation on a file fails, each once and
 * from then on.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include "io-fault.h"

struct fault {
    const char *name;
    unsigned kinds, flags; /* io-fault.h */
    int errnum;
};

extern const struct fault faults[];
extern const unsigned nr_faults;

/* The nth operation fails in that way; nth 0: none does. */
void fault_arm_with(struct fault_plan *plan, const struct fault *fault,
                    uint64_t nth);

#endif /* FAULTS_H */
