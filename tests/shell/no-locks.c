/* SPDX-License-Identifier: BSD-3-Clause */
/* no-locks.c: a library to be preloaded, with which locks fail with ENOLCK:
 * all calls if LOCKS_FAIL is "all", those that take one if it is "set".
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef int fcntl_fn(int fd, int cmd, ...);

static int
call(const char *symbol, int fd, int cmd, void *arg)
{
    const char *which = getenv("LOCKS_FAIL");
    fcntl_fn *next = (fcntl_fn *)dlsym(RTLD_NEXT, symbol);

    if (which && *which
        && (cmd == F_OFD_SETLK
            || (cmd == F_OFD_GETLK && strcmp(which, "all") == 0))) {
        errno = ENOLCK;
        return -1;
    }
    return next(fd, cmd, arg);
}

#define REPLACE(name)                          \
    int name(int fd, int cmd, ...);            \
    int name(int fd, int cmd, ...)             \
    {                                          \
        va_list ap;                            \
        void *arg;                             \
                                               \
        va_start(ap, cmd);                     \
        arg = va_arg(ap, void *);              \
        va_end(ap);                            \
        return call(#name, fd, cmd, arg);      \
    }

REPLACE(fcntl)
#undef fcntl64
REPLACE(fcntl64)
