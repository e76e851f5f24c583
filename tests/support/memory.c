/* SPDX-License-Identifier: BSD-3-Clause */
/* memory.c: see memory.h. The linker sends calls here (--wrap). */
#include "memory.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread uint64_t left; /* 0: not armed */
static __thread bool failed;
static uint64_t left_anywhere;          /* atomic; 0: not armed */
static bool failed_anywhere;            /* atomic */

void
memory_fail(uint64_t nth)
{
    left = nth;
    failed = false;
}

bool
memory_has_failed(void)
{
    return failed;
}

void
memory_fail_anywhere(uint64_t nth)
{
    __atomic_store_n(&failed_anywhere, false, __ATOMIC_SEQ_CST);
    __atomic_store_n(&left_anywhere, nth, __ATOMIC_SEQ_CST);
}

bool
memory_has_failed_anywhere(void)
{
    return __atomic_load_n(&failed_anywhere, __ATOMIC_SEQ_CST);
}

/* Is this the nth of all threads? */
static bool
must_fail_anywhere(void)
{
    uint64_t n = __atomic_load_n(&left_anywhere, __ATOMIC_SEQ_CST);

    while (n > 0)
        if (__atomic_compare_exchange_n(&left_anywhere, &n, n - 1, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            break;
    if (n == 1)
        __atomic_store_n(&failed_anywhere, true, __ATOMIC_SEQ_CST);
    return n == 1;
}

static bool
must_fail(void)
{
    if (must_fail_anywhere()) {
        errno = ENOMEM;
        return true;
    }
    if (left == 0 || --left > 0)
        return false;
    failed = true;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t nr, size_t size);
void *__wrap_calloc(size_t nr, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);
int __real_posix_memalign(void **p, size_t alignment, size_t size);
int __wrap_posix_memalign(void **p, size_t alignment, size_t size);
char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
char *__wrap_strndup(const char *s, size_t n);
int __wrap_asprintf(char **text, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* What _FORTIFY_SOURCE makes of asprintf. */
int __wrap___asprintf_chk(char **text, int flag, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void *
__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t nr, size_t size)
{
    return must_fail() ? NULL : __real_calloc(nr, size);
}

void *
__wrap_realloc(void *p, size_t size)
{
    return must_fail() ? NULL : __real_realloc(p, size);
}

int
__wrap_posix_memalign(void **p, size_t alignment, size_t size)
{
    return must_fail() ? ENOMEM : __real_posix_memalign(p, alignment, size);
}

char *
__wrap_strdup(const char *s)
{
    return must_fail() ? NULL : __real_strdup(s);
}

char *
__wrap_strndup(const char *s, size_t n)
{
    return must_fail() ? NULL : __real_strndup(s, n);
}

int
__wrap_asprintf(char **text, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (must_fail())
        return -1;
    va_start(ap, fmt);
    n = vasprintf(text, fmt, ap);
    va_end(ap);
    return n;
}

int
__wrap___asprintf_chk(char **text, int flag, const char *fmt, ...)
{
    va_list ap;
    int n;

    (void)flag;
    if (must_fail())
        return -1;
    va_start(ap, fmt);
    n = vasprintf(text, fmt, ap);
    va_end(ap);
    return n;
}
