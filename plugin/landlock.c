/* SPDX-License-Identifier: BSD-3-Clause */
/* landlock.c: file access by Landlock, with its system calls as they are.
 *
 * The numbers and structures are part of the kernel's stable interface. They
 * are repeated here because headers are older than kernels: what a kernel
 * understands is asked at run time.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox.h"

#if HAVE_DECL_SYS_LANDLOCK_CREATE_RULESET

enum {
    EXECUTE = 1 << 0,
    WRITE_FILE = 1 << 1,
    READ_FILE = 1 << 2,
    READ_DIR = 1 << 3,
    REMOVE_DIR = 1 << 4,
    REMOVE_FILE = 1 << 5,
    MAKE_REG = 1 << 8,
    ALL_OF_ABI_1 = (1 << 13) - 1,
    REFER = 1 << 13,    /* ABI 2 */
    TRUNCATE = 1 << 14, /* ABI 3 */
    OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE,
};

enum { GET_VERSION = 1, RULE_PATH_BENEATH = 1 };
enum { NET_BIND_AND_CONNECT = 3 };  /* ABI 4 */
enum { SCOPE_ABSTRACT_AND_SIGNAL = 3 }; /* ABI 6 */

struct ruleset_attr {
    uint64_t handled_fs, handled_net, scoped;
};

struct path_beneath_attr {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

/* 0: no Landlock here. */
static long
abi_version(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, GET_VERSION);

    return abi > 0 ? abi : 0;
}

static uint64_t
handled_fs(long abi)
{
    return ALL_OF_ABI_1 | (abi >= 2 ? REFER : 0) | (abi >= 3 ? TRUNCATE : 0);
}

bool
landlock_is_supported(void)
{
    return abi_version() > 0;
}

int
landlock_new(bool no_tcp)
{
    long abi = abi_version();
    struct ruleset_attr attr = {
        .handled_fs = handled_fs(abi),
        .handled_net = no_tcp ? NET_BIND_AND_CONNECT : 0,
        .scoped = SCOPE_ABSTRACT_AND_SIGNAL,
    };
    size_t size = (abi >= 6 ? 3 : abi >= 4 ? 2 : 1) * sizeof(uint64_t);

    return syscall(SYS_landlock_create_ruleset, &attr, size, 0);
}

static uint64_t
rights(unsigned access)
{
    return (access & SANDBOX_READ ? READ_FILE | READ_DIR : 0)
           | (access & SANDBOX_WRITE ? WRITE_FILE | TRUNCATE : 0)
           | (access & SANDBOX_CREATE ? MAKE_REG : 0)
           | (access & SANDBOX_REMOVE ? REMOVE_FILE : 0)
           | (access & SANDBOX_REMOVE_DIR ? REMOVE_DIR : 0);
}

int
landlock_allow_fd(int ruleset, int fd, unsigned access)
{
    struct path_beneath_attr attr = {
        .allowed = rights(access) & handled_fs(abi_version()),
        .parent_fd = fd,
    };
    struct stat st;
    int r = 0;

    if (fstat(fd, &st) == -1)
        return -1;
    if (!S_ISDIR(st.st_mode))
        attr.allowed &= OF_FILES; /* others make it EINVAL */
    if (attr.allowed)
        r = syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &attr,
                    0);
    /* EBADFD: a file without a path, as a memfd, which is never refused */
    return r == -1 && errno == EBADFD ? 0 : r;
}

int
landlock_allow(int ruleset, const char *path, unsigned access)
{
    int fd = open(path, O_PATH | O_CLOEXEC), r, saved;

    if (fd == -1)
        return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -1 : 0;
    r = landlock_allow_fd(ruleset, fd, access);
    saved = errno;
    close(fd);
    errno = saved;
    return r;
}

int
landlock_enter(int ruleset)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
        return -1;
    return syscall(SYS_landlock_restrict_self, ruleset, 0);
}

#else /* no Landlock */

bool
landlock_is_supported(void)
{
    return false;
}

int
landlock_new(bool no_tcp)
{
    (void)no_tcp;
    errno = ENOSYS;
    return -1;
}

int
landlock_allow(int ruleset, const char *path, unsigned access)
{
    (void)ruleset;
    (void)path;
    (void)access;
    errno = ENOSYS;
    return -1;
}

int
landlock_allow_fd(int ruleset, int fd, unsigned access)
{
    (void)ruleset;
    (void)fd;
    (void)access;
    errno = ENOSYS;
    return -1;
}

int
landlock_enter(int ruleset)
{
    (void)ruleset;
    errno = ENOSYS;
    return -1;
}
#endif
