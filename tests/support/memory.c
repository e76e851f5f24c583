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

static bool
must_fail(void)
{
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
