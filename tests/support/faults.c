/* SPDX-License-Identifier: BSD-3-Clause */
/* faults.c: see faults.h. */
#include "faults.h"

#include <errno.h>

const struct fault faults[] = {
    { "a write fails", FAULT_CHANGE, FAULT_ONCE, EIO },
    { "writes fail", FAULT_CHANGE, FAULT_FOR_GOOD, EIO },
    { "no space for a write", FAULT_CHANGE, FAULT_ONCE, ENOSPC },
    { "no space", FAULT_CHANGE, FAULT_FOR_GOOD, ENOSPC },
    { "a write is short, then fails", FAULT_CHANGE, FAULT_TORN, EIO },
    { "writes are short, then fail", FAULT_CHANGE,
      FAULT_FOR_GOOD | FAULT_TORN, EIO },
    { "a write is short for want of space", FAULT_CHANGE, FAULT_TORN,
      ENOSPC },
    { "writes are short for want of space", FAULT_CHANGE,
      FAULT_FOR_GOOD | FAULT_TORN, ENOSPC },
    { "a flush fails", FAULT_FLUSH, FAULT_ONCE, EIO },
    { "flushes fail", FAULT_FLUSH, FAULT_FOR_GOOD, EIO },
    { "no space in a flush", FAULT_FLUSH, FAULT_ONCE, ENOSPC },
    { "no space in flushes", FAULT_FLUSH, FAULT_FOR_GOOD, ENOSPC },
    { "a read fails", FAULT_READ, FAULT_ONCE, EIO },
    { "reads fail", FAULT_READ, FAULT_FOR_GOOD, EIO },
    { "anything fails", FAULT_ALL, FAULT_ONCE, EIO },
    { "everything fails", FAULT_ALL, FAULT_FOR_GOOD, EIO },
};
const unsigned nr_faults = sizeof faults / sizeof faults[0];

void
fault_arm_with(struct fault_plan *plan, const struct fault *fault,
               uint64_t nth)
{
    fault_arm(plan, fault->kinds, nth, fault->errnum, fault->flags);
}
