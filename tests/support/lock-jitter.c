/* SPDX-License-Identifier: BSD-3-Clause */
/* lock-jitter.c: lets other threads run before a mutex is locked, as they do
 * now and then on a busy machine: what must not happen between two critical
 * sections then does happen. For programs that are linked with the flags of
 * the same name in Makefile.am: lock-order.c calls it, where it is there.
 */
#include "lock-order.h"

#include <sched.h>

/* Mostly not at all, now and then for long. The periods have no factor in
 * common with how many locks a request takes. */
void
lock_jitter(void)
{
    static __thread unsigned nr;
    unsigned n = ++nr;

    for (unsigned i = n % 61 == 0 ? 50 : n % 7 == 0; i > 0; i--)
        sched_yield();
}
