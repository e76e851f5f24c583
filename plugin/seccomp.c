/* SPDX-License-Identifier: BSD-3-Clause */
/* seccomp.c: system calls that a server never makes, refused by libseccomp.
 *
 * It is a list of what is refused, not of what is allowed: in this process
 * run nbdkit, its filters, TLS, the C library and libnbd as well, and what
 * they need changes with their versions. Listed is what an intruder needs
 * next: programs, other processes, mounts, namespaces, privileges, and large
 * parts of the kernel that serving images does not use.
 */
#include <config.h>

#include <errno.h>
#include <stddef.h>

#include "sandbox.h"

#ifdef HAVE_LIBSECCOMP

#include <seccomp.h>
#include <sys/socket.h>

/* By name: where libseccomp or the machine does not know one, it is left
 * out. */
static const char *const refused[] = {
    /* other programs and processes */
    "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev",
    "process_madvise", "kcmp", "pidfd_open", "pidfd_getfd",
    "pidfd_send_signal", "migrate_pages", "move_pages",
    /* file systems and namespaces */
    "mount", "umount", "umount2", "mount_setattr", "move_mount", "open_tree",
    "fsopen", "fsconfig", "fsmount", "fspick", "pivot_root", "chroot",
    "unshare", "setns", "open_by_handle_at", "name_to_handle_at", "quotactl",
    "quotactl_fd", "fanotify_init", "swapon", "swapoff", "mknod", "mknodat",
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown",
    "fchownat", "chown32", "lchown32", "fchown32", "setxattr", "lsetxattr",
    "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "symlink",
    "symlinkat", "link", "linkat",
    /* privileges */
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid",
    "setgroups", "setfsuid", "setfsgid", "setuid32", "setgid32",
    "setreuid32", "setregid32", "setresuid32", "setresgid32", "setgroups32",
    "setfsuid32", "setfsgid32", "capset", "personality",
    /* keys, and parts of the kernel that are large or were often broken */
    "add_key", "request_key", "keyctl", "bpf", "perf_event_open",
    "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "lookup_dcookie", "modify_ldt", "vm86", "vm86old", "remap_file_pages",
    "uselib", "ustat", "sysfs", "_sysctl", "nfsservctl", "vmsplice",
    /* the machine */
    "init_module", "finit_module", "create_module", "delete_module",
    "kexec_load", "kexec_file_load", "reboot", "acct", "syslog", "vhangup",
    "sethostname", "setdomainname", "settimeofday", "stime", "clock_settime",
    "clock_settime64", "clock_adjtime", "clock_adjtime64", "adjtimex",
    "iopl", "ioperm", "ioprio_set",
};

/* Of clone's flags: the CLONE_NEW* ones, each a namespace. */
static const unsigned namespaces[] = {
    0x00020000, 0x02000000, 0x04000000, 0x08000000,
    0x10000000, 0x20000000, 0x40000000,
};

#ifdef __s390__
enum { CLONE_FLAGS = 1 };
#else
enum { CLONE_FLAGS = 0 };
#endif

bool
seccomp_is_supported(void)
{
    return seccomp_api_get() >= 2; /* 2: filters that cover all threads */
}

static int
refuse_listed(scmp_filter_ctx filter)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof refused / sizeof *refused; i++) {
        int nr = seccomp_syscall_resolve_name(refused[i]);

        if (nr != __NR_SCMP_ERROR)
            r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), nr, 0);
        /* not a call of this machine */
        r = r == -EDOM || r == -EOPNOTSUPP ? 0 : r;
    }
    return r;
}

/* A filter cannot see clone3's flags. ENOSYS makes libraries call clone. */
static int
refuse_namespaces(scmp_filter_ctx filter)
{
    int clone3 = seccomp_syscall_resolve_name("clone3"), r = 0;

    if (clone3 != __NR_SCMP_ERROR)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), clone3, 0);
    for (size_t i = 0; r == 0 && i < sizeof namespaces / sizeof *namespaces;
         i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                             SCMP_CMP(CLONE_FLAGS, SCMP_CMP_MASKED_EQ,
                                      namespaces[i], namespaces[i]));
    return r;
}

int
seccomp_enter(bool no_network)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int r;

    if (!filter) {
        errno = ENOMEM;
        return -1;
    }
    r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r == 0)
        r = refuse_listed(filter);
    if (r == 0)
        r = refuse_namespaces(filter);
    if (r == 0 && no_network)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket),
                             1, SCMP_A0(SCMP_CMP_NE, AF_UNIX));
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    errno = -r;
    return r == 0 ? 0 : -1;
}

#else /* no libseccomp */

bool
seccomp_is_supported(void)
{
    return false;
}

int
seccomp_enter(bool no_network)
{
    (void)no_network;
    errno = ENOSYS;
    return -1;
}
#endif
