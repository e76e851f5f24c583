/* SPDX-License-Identifier: BSD-3-Clause */
/* cleanup.h: memory and locks that end with the scope they began in. */
#ifndef QCOW2_CLEANUP_H
#define QCOW2_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>

static inline void
cleanup_free(void *p)
{
    free(*(void **)p);
}
#define CLEANUP_FREE __attribute__((cleanup(cleanup_free)))

static inline void
cleanup_unlock(pthread_mutex_t **m)
{
    if (*m)
        pthread_mutex_unlock(*m);
}

static inline void
cleanup_rwunlock(pthread_rwlock_t **l)
{
    if (*l)
        pthread_rwlock_unlock(*l);
}

#define CLEANUP_PASTE2(a, b) a##b
#define CLEANUP_PASTE(a, b) CLEANUP_PASTE2(a, b)

/* Hold a mutex (a rwlock, shared or exclusive) until the scope ends. */
#define LOCK_SCOPE(m)                                                   \
    __attribute__((cleanup(cleanup_unlock), unused))                    \
    pthread_mutex_t *CLEANUP_PASTE(lock_scope_, __LINE__) = (m);        \
    pthread_mutex_lock(m)
#define RDLOCK_SCOPE(l)                                                 \
    __attribute__((cleanup(cleanup_rwunlock), unused))                  \
    pthread_rwlock_t *CLEANUP_PASTE(rdlock_scope_, __LINE__) = (l);     \
    pthread_rwlock_rdlock(l)
#define RDLOCK_SCOPE_IF(l) /* NULL: none */                             \
    __attribute__((cleanup(cleanup_rwunlock), unused))                  \
    pthread_rwlock_t *CLEANUP_PASTE(rdlock_scope_, __LINE__) = (l);     \
    if (CLEANUP_PASTE(rdlock_scope_, __LINE__))                         \
        pthread_rwlock_rdlock(CLEANUP_PASTE(rdlock_scope_, __LINE__))
#define WRLOCK_SCOPE(l)                                                 \
    __attribute__((cleanup(cleanup_rwunlock), unused))                  \
    pthread_rwlock_t *CLEANUP_PASTE(wrlock_scope_, __LINE__) = (l);     \
    pthread_rwlock_wrlock(l)

#endif /* QCOW2_CLEANUP_H */
