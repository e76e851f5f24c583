/* SPDX-License-Identifier: BSD-3-Clause */
/* sandbox.h: what the process gives up before it serves.
 *
 * sandbox.c decides which files and system calls are needed; landlock.c and
 * seccomp.c ask the kernel to refuse the rest. Both restrict the calling
 * thread and all that it starts, for good.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>

/* Kinds of access to a directory and all below it, or to a file. */
enum sandbox_access {
    SANDBOX_READ = 1 << 0,       /* read files, list directories */
    SANDBOX_WRITE = 1 << 1,      /* write and truncate files */
    SANDBOX_CREATE = 1 << 2,     /* make regular files */
    SANDBOX_REMOVE = 1 << 3,     /* remove files */
    SANDBOX_REMOVE_DIR = 1 << 4, /* remove directories */
};

/* Does the running kernel have it, and this build? */
bool landlock_is_supported(void);
bool seccomp_is_supported(void);

/* Starts a set of rules under which no file can be opened or made, no program
 * started, no signal sent to other processes; with no_tcp no TCP port can be
 * connected to or bound either, where the kernel can refuse that. Returns a
 * descriptor, or -1 with errno.
 */
int landlock_new(bool no_tcp);

/* Adds a mask of enum sandbox_access for path. A path that does not exist or
 * cannot be reached is left out. Returns 0, or -1 with errno.
 */
int landlock_allow(int ruleset, const char *path, unsigned access);

/* The same for the file or directory that fd has open. */
int landlock_allow_fd(int ruleset, int fd, unsigned access);

/* Puts the rules into force. Returns 0, or -1 with errno. */
int landlock_enter(int ruleset);

/* Refuses system calls that a server never makes (see seccomp.c), and with
 * no_network every new socket but Unix ones. Covers threads that run already.
 * Returns 0, or -1 with errno.
 */
int seccomp_enter(bool no_network);

#endif /* SANDBOX_H */
