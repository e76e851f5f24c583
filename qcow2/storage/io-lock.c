/* SPDX-License-Identifier: BSD-3-Clause */
/* io-lock.c: QEMU's protocol of file locks; see io-lock.h.
 *
 * A byte locked shared says what its holder does (LOCK_USES + i) or does
 * not let others do (LOCK_DENIES + i), where i is one of QEMU's permissions.
 * Nobody ever locks exclusively, so taking a byte does not fail for programs
 * that keep to this: each takes all its bytes first, and then looks whether
 * somebody else's contradict. Of two at once, at least one sees the other.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/io-lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

enum { LOCK_USES = 100, LOCK_DENIES = 200 };
enum {
    PERM_CONSISTENT_READ = 0,
    PERM_WRITE = 1,
    PERM_WRITE_UNCHANGED = 2,
    PERM_RESIZE = 3,
    NR_PERMS,
};

/* Their names in the messages of QEMU, which programs search. */
static const char *const perm_names[NR_PERMS] = {
    [PERM_CONSISTENT_READ] = "consistent read",
    [PERM_WRITE] = "write",
    [PERM_WRITE_UNCHANGED] = "write unchanged",
    [PERM_RESIZE] = "resize",
};

struct lock_set {
    unsigned uses, denies; /* masks of 1 << permission */
};

static struct lock_set
lock_set_of(enum io_lock lock)
{
    const unsigned change = 1 << PERM_WRITE | 1 << PERM_RESIZE;
    struct lock_set set = { 0, 0 };

    switch (lock) {
    case IO_LOCK_NONE:
        break;
    case IO_LOCK_READ:
        set.uses = 1 << PERM_CONSISTENT_READ;
        set.denies = change;
        break;
    case IO_LOCK_WRITE:
        set.uses = 1 << PERM_CONSISTENT_READ | change;
        set.denies = change;
        break;
    }
    return set;
}

#ifdef F_OFD_SETLK
static int
ofd_lock(int fd, int cmd, short type, off_t byte, struct flock *fl)
{
    int r;

    memset(fl, 0, sizeof *fl); /* l_pid must be 0 */
    fl->l_type = type;
    fl->l_whence = SEEK_SET;
    fl->l_start = byte;
    fl->l_len = 1;
    do
        r = fcntl(fd, cmd, fl);
    while (r < 0 && errno == EINTR);
    return r;
}

/* Does file descriptor `name` of process pid hold a lock on the byte?
 * The kernel lists the locks of a descriptor in its fdinfo.
 */
static bool
fd_holds_lock(const char *pid, const char *name, off_t byte)
{
    char path[64], line[256];
    bool found = false;
    FILE *fp;

    snprintf(path, sizeof path, "/proc/%.20s/fdinfo/%.20s", pid, name);
    fp = fopen(path, "re");
    if (!fp)
        return false;
    while (!found && fgets(line, sizeof line, fp)) {
        long long start, end;
        char last[32];

        if (sscanf(line, "lock: %*s %*s %*s %*s %*s %*s %lld %31s",
                   &start, last) != 2)
            continue;
        end = strcmp(last, "EOF") == 0 ? INT64_MAX : atoll(last);
        found = start <= byte && byte <= end;
    }
    fclose(fp);
    return found;
}

/* Does process pid hold a lock on that byte of the file? Looks at no more
 * than *budget descriptors.
 */
static bool
process_holds_lock(const char *pid, const struct stat *file, off_t byte,
                   unsigned *budget)
{
    char path[64];
    struct dirent *e;
    bool found = false;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
    dir = opendir(path);
    if (!dir)
        return false;
    while (!found && *budget > 0 && (e = readdir(dir))) {
        struct stat st;

        if (e->d_name[0] == '.')
            continue;
        --*budget;
        found = fstatat(dirfd(dir), e->d_name, &st, 0) == 0
                && st.st_dev == file->st_dev && st.st_ino == file->st_ino
                && fd_holds_lock(pid, e->d_name, byte);
    }
    closedir(dir);
    return found;
}

static void
describe_process(const char *pid, char *buf, size_t size)
{
    char path[64], comm[32] = "";
    FILE *fp;

    if (atol(pid) == (long)getpid()) {
        snprintf(buf, size, "this process");
        return;
    }
    snprintf(path, sizeof path, "/proc/%.20s/comm", pid);
    fp = fopen(path, "re");
    if (fp) {
        if (!fgets(comm, sizeof comm, fp))
            comm[0] = '\0';
        fclose(fp);
    }
    comm[strcspn(comm, "\n")] = '\0';
    /* A process chooses its name freely; a terminal may see ours. */
    for (char *p = comm; *p; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
    snprintf(buf, size, "%s (pid %.20s)", comm[0] ? comm : "a process", pid);
}

/* Describe the holder of the byte's lock. For this kind of lock the kernel does
 * not report it, so look through the processes we may look into.
 */
static void
describe_holder(int fd, off_t byte, char *buf, size_t size)
{
    unsigned budget = 100000; /* descriptors: under a second */
    struct dirent *e;
    struct stat st;
    DIR *proc;

    snprintf(buf, size, "another process");
    if (fstat(fd, &st) < 0)
        return;
    proc = opendir("/proc");
    if (!proc)
        return;
    while (budget > 0 && (e = readdir(proc))) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9'
            || !process_holds_lock(e->d_name, &st, byte, &budget))
            continue;
        describe_process(e->d_name, buf, size);
        break;
    }
    closedir(proc);
}

static void
release_locks(int fd, struct lock_set set)
{
    struct flock fl;

    for (unsigned i = 0; i < NR_PERMS; i++) {
        if (set.uses & 1 << i)
            ofd_lock(fd, F_OFD_SETLK, F_UNLCK, LOCK_USES + i, &fl);
        if (set.denies & 1 << i)
            ofd_lock(fd, F_OFD_SETLK, F_UNLCK, LOCK_DENIES + i, &fl);
    }
}

/* 1: somebody else holds the byte. */
static int
is_held(int fd, off_t byte)
{
    struct flock fl;

    if (ofd_lock(fd, F_OFD_GETLK, F_WRLCK, byte, &fl) < 0)
        return -1;
    return fl.l_type != F_UNLCK;
}

/* 1: *byte, of somebody else, contradicts what we hold. */
static int
find_conflict(int fd, struct lock_set set, off_t *byte)
{
    int r = 0;

    for (unsigned i = 0; i < NR_PERMS && r == 0; i++) {
        if (set.uses & 1 << i)
            r = is_held(fd, *byte = LOCK_DENIES + i);
        if (r == 0 && set.denies & 1 << i)
            r = is_held(fd, *byte = LOCK_USES + i);
    }
    return r;
}

/* Takes all bytes of the set. *byte is the one that could not be had. */
static int
take_bytes(int fd, struct lock_set set, off_t *byte)
{
    struct flock fl;

    for (unsigned i = 0; i < NR_PERMS; i++) {
        *byte = LOCK_USES + i;
        if (set.uses & 1 << i
            && ofd_lock(fd, F_OFD_SETLK, F_RDLCK, *byte, &fl) < 0)
            return -1;
        *byte = LOCK_DENIES + i;
        if (set.denies & 1 << i
            && ofd_lock(fd, F_OFD_SETLK, F_RDLCK, *byte, &fl) < 0)
            return -1;
    }
    return 0;
}

/* In QEMU's phrases up to the question mark. denied: it is what we do that
 * the holder does not allow; else what the holder does we do not.
 */
static int
busy_error(int fd, const char *name, off_t byte, bool denied,
           struct qcow2_error *err)
{
    unsigned perm = byte - (byte >= LOCK_DENIES ? LOCK_DENIES : LOCK_USES);
    char holder[64];

    describe_holder(fd, byte, holder, sizeof holder);
    return error_set(err, EBUSY,
                     "%s: Failed to get %s\"%s\" lock. Is another process "
                     "using the image? It is open%s in %s; close it there "
                     "first", name, denied ? "" : "shared ",
                     perm_names[perm], denied ? "" : " for writing", holder);
}

/* Does fcntl fail because there are no such locks? Asked by looking at a
 * lock, which needs none of what taking one can run out of.
 */
static bool
keeps_no_locks(int fd)
{
    if (is_held(fd, LOCK_USES) >= 0)
        return false;
    switch (errno) {
    case ENOLCK:     /* NFS without its lock server */
    case ENOSYS:     /* FUSE, Lustre */
    case EOPNOTSUPP:
    case EINVAL:     /* a kernel without this kind of lock */
        return true;
    }
    return false;
}

int
io_lock_take(int fd, const char *name, enum io_lock lock,
             struct qcow2_error *err)
{
    struct lock_set set = lock_set_of(lock);
    bool denied = true;
    off_t byte;
    int r;

    if (lock == IO_LOCK_NONE)
        return 0;
    if (keeps_no_locks(fd))
        return 1;
    r = take_bytes(fd, set, &byte);
    if (r == 0) {
        r = find_conflict(fd, set, &byte);
        denied = byte >= LOCK_DENIES;
    } else if (errno == EAGAIN || errno == EACCES) {
        r = 1; /* an exclusive lock of somebody outside the protocol */
    }
    if (r == 0)
        return 0;
    if (r < 0) {
        error_set_errno(err, errno, "%s: cannot lock the file", name);
        return error_hint(err, QCOW2_HINT_NO_LOCK);
    }
    release_locks(fd, set);
    return busy_error(fd, name, byte, denied, err);
}
#else /* no locks that belong to an open file */
int
io_lock_take(int fd, const char *name, enum io_lock lock,
             struct qcow2_error *err)
{
    (void)fd;
    (void)name;
    (void)err;
    return lock != IO_LOCK_NONE;
}
#endif
