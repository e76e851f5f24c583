/* SPDX-License-Identifier: BSD-3-Clause */
/* rwlock.h: makes the locks that requests share and operations take alone. */
#ifndef QCOW2_RWLOCK_H
#define QCOW2_RWLOCK_H

#include <pthread.h>

/* An exclusive operation must not starve behind endless requests; no request
 * takes the lock twice. */
static inline void
rwlock_init_prefer_writers(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;

    pthread_rwlockattr_init(&attr);
#ifdef __GLIBC__
    pthread_rwlockattr_setkind_np(
        &attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

#endif /* QCOW2_RWLOCK_H */
