/* SPDX-License-Identifier: BSD-3-Clause */
/* path-walk.c: resolves paths by descriptors; see path-walk.h. */
#include "storage/path-walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"

#define PROC_MAGIC 0x9fa0 /* statfs(2): PROC_SUPER_MAGIC */

/* A path of which parts have been taken; links put theirs in front. */
struct rest {
    char buf[PATH_MAX];
    char *at;
};

/* --- Directories -------------------------------------------------------- */

struct dir *
dir_new(int fd)
{
    struct dir *d;
    struct stat st;

    if (fd == -1)
        return NULL;
    d = fstat(fd, &st) == 0 ? calloc(1, sizeof *d) : NULL;
    if (!d) {
        close(fd);
        return NULL;
    }
    *d = (struct dir){
        .nr_users = 1, .fd = fd, .dev = st.st_dev, .ino = st.st_ino,
    };
    return d;
}

struct dir *
dir_get(struct dir *d)
{
    if (d)
        __atomic_add_fetch(&d->nr_users, 1, __ATOMIC_RELAXED);
    return d;
}

void
dir_put(struct dir *d)
{
    if (!d || __atomic_sub_fetch(&d->nr_users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    close(d->fd);
    free(d);
}

bool
dir_is_same(const struct dir *a, const struct dir *b)
{
    return a && b && a->dev == b->dev && a->ino == b->ino;
}

static struct dir *
dir_open(int at, const char *name)
{
    return dir_new(openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW
                                    | O_CLOEXEC));
}

/* --- The stack ---------------------------------------------------------- */

static struct dir *
top(const struct path_walk *w)
{
    return w->stack[w->depth - 1];
}

static void
clear_stack(struct path_walk *w)
{
    while (w->depth > 0)
        dir_put(w->stack[--w->depth]);
}

/* Takes over d, which may be NULL (with errno set). */
static int
push(struct path_walk *w, struct dir *d)
{
    if (!d)
        return -1;
    if (w->depth == MAX_PATH_DEPTH) {
        dir_put(d);
        errno = ENAMETOOLONG;
        return -1;
    }
    /* One descriptor for the images of one directory. */
    if (dir_is_same(d, w->from)) {
        dir_put(d);
        d = dir_get(w->from);
    }
    w->stack[w->depth++] = d;
    return 0;
}

static int
restart_at(struct path_walk *w, struct dir *d)
{
    clear_stack(w);
    return push(w, d);
}

/* ".." is the directory that led here: it cannot be moved elsewhere. */
static int
step_up(struct path_walk *w)
{
    struct dir *up;

    if (w->depth > 1) {
        dir_put(w->stack[--w->depth]);
        return 0;
    }
    up = dir_open(top(w)->fd, "..");
    return up ? restart_at(w, up) : -1;
}

/* --- Parts of a path ---------------------------------------------------- */

static int
too_long(void)
{
    errno = ENAMETOOLONG;
    return -1;
}

static int
rest_init(struct rest *r, const char *path)
{
    size_t len = strlen(path);

    if (len >= sizeof r->buf)
        return too_long();
    r->at = r->buf;
    memcpy(r->buf, path, len + 1);
    return 0;
}

/* Puts what a link says in front. */
static int
rest_prepend(struct rest *r, const char *target)
{
    char left[PATH_MAX];
    int len;

    strcpy(left, r->at);
    len = snprintf(r->buf, sizeof r->buf, "%s/%s", target, left);
    if (len < 0 || (size_t)len >= sizeof r->buf)
        return too_long();
    /* A slash at the end would say that it is a directory. */
    if (!left[0])
        r->buf[len - 1] = '\0';
    r->at = r->buf;
    return 0;
}

/* 1: name is the next part, and *last whether nothing follows; 0: none. */
static int
rest_next(struct rest *r, char name[NAME_MAX + 1], bool *last)
{
    size_t len;

    r->at += strspn(r->at, "/");
    len = strcspn(r->at, "/");
    if (len == 0)
        return 0;
    if (len > NAME_MAX)
        return too_long();
    memcpy(name, r->at, len);
    name[len] = '\0';
    r->at += len;
    *last = r->at[0] == '\0';
    return 1;
}

/* --- Links -------------------------------------------------------------- */

/* As the kernel has it (protected_symlinks): in a directory where all may
 * make links, only those of its owner and our own are followed.
 */
static int
check_link_owner(const struct path_walk *w, const struct stat *link)
{
    struct stat dir;

    if (fstat(top(w)->fd, &dir) == -1)
        return -1;
    if (!(dir.st_mode & S_ISVTX) || !(dir.st_mode & S_IWOTH)
        || link->st_uid == geteuid() || link->st_uid == dir.st_uid)
        return 0;
    errno = EACCES;
    return -1;
}

/* Takes the file on fd, which no path led to. */
static int
take_unnamed(struct path_walk *w, int fd, const struct stat *st)
{
    w->fd = fd;
    w->st = *st;
    w->dir = path_dir_of_fd(fd);
    w->jumped = true;
    return 0;
}

/* A link of /proc leads to what is open there, whatever it says. */
static int
jump(struct path_walk *w, const char *name, bool last)
{
    int fd = openat(top(w)->fd, name, O_PATH | O_CLOEXEC);
    struct stat st;

    if (fd == -1)
        return -1;
    if (fstat(fd, &st) == -1) {
        close(fd);
        return -1;
    }
    if (S_ISDIR(st.st_mode)) {
        struct dir *d = dir_new(fd);

        return d ? restart_at(w, d) : -1;
    }
    if (last)
        return take_unnamed(w, fd, &st);
    close(fd);
    errno = ENOTDIR;
    return -1;
}

static bool
is_of_proc(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_MAGIC;
}

/* Follows the link open on fd, found by this name in the top directory. */
static int
follow(struct path_walk *w, int fd, const char *name, const struct stat *st,
       struct rest *rest, bool last)
{
    char target[PATH_MAX];
    ssize_t len;

    if (++w->nr_links > MAX_LINKS_FOLLOWED) {
        errno = ELOOP;
        return -1;
    }
    if (last && check_link_owner(w, st) == -1)
        return -1;
    if (w->trusted && is_of_proc(fd))
        return jump(w, name, last);
    len = readlinkat(fd, "", target, sizeof target);
    if (len == -1)
        return -1;
    if (len == 0 || (size_t)len == sizeof target)
        return too_long();
    target[len] = '\0';
    if (rest_prepend(rest, target) == -1)
        return -1;
    return target[0] == '/' ? restart_at(w, dir_open(AT_FDCWD, "/")) : 0;
}

/* --- Walking ------------------------------------------------------------ */

/* Takes the file on fd, found by this name in the top directory. */
static int
take_file(struct path_walk *w, int fd, const struct stat *st,
          const char *name)
{
    w->fd = fd;
    w->st = *st;
    w->dir = dir_get(top(w));
    strcpy(w->name, name);
    return 0;
}

/* There is no file of this name in the top directory. */
static int
note_missing(struct path_walk *w, const char *name)
{
    if (errno != ENOENT)
        return -1;
    w->missing_dir = dir_get(top(w));
    strcpy(w->missing_name, name);
    return -1;
}

/* One part of the path: a directory, a link, or the file it ends with. */
static int
step(struct path_walk *w, const char *name, struct rest *rest, bool last)
{
    int fd = -1, r = -1;
    struct stat st;

    if (!last) {
        /* With O_DIRECTORY the kernel mounts what is mounted when needed. */
        fd = openat(top(w)->fd, name,
                    O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd != -1)
            return push(w, dir_new(fd));
        if (errno != ENOTDIR && errno != ELOOP)
            return -1;
    }
    fd = openat(top(w)->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1)
        return last ? note_missing(w, name) : -1;
    if (fstat(fd, &st) == 0) {
        if (S_ISLNK(st.st_mode))
            r = follow(w, fd, name, &st, rest, last);
        else if (last)
            return take_file(w, fd, &st, name);
        else
            errno = ENOTDIR;
    }
    close(fd);
    return r;
}

/* Walks along path; with find_file its last part may be a file. */
static int
run(struct path_walk *w, const char *path, bool find_file)
{
    char name[NAME_MAX + 1];
    struct rest rest;
    bool last;
    int r;

    if (rest_init(&rest, path) == -1)
        return -1;
    while ((r = rest_next(&rest, name, &last)) == 1) {
        if (strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0)
            r = step_up(w);
        else
            r = step(w, name, &rest, find_file && last);
        if (r == -1)
            return -1;
    }
    return r;
}

int
path_walk_to_dir(struct path_walk *w, struct dir *from, const char *path,
                 bool trusted)
{
    const char *slash = strrchr(path, '/');
    CLEANUP_FREE char *dir = strndup(path, slash ? slash + 1 - path : 0);
    const char *last = slash ? slash + 1 : path;
    struct dir *first;

    *w = (struct path_walk){ .fd = -1, .from = from, .trusted = trusted };
    if (!dir)
        return -1;
    if (!path[0]) {
        errno = ENOENT;
        return -1;
    }
    if (strlen(last) > NAME_MAX)
        return too_long();
    strcpy(w->last, last);
    if (path[0] == '/')
        first = dir_open(AT_FDCWD, "/");
    else
        first = from ? dir_get(from) : dir_open(AT_FDCWD, ".");
    if (push(w, first) == -1 || run(w, dir, false) == -1)
        return -1;
    w->start = dir_get(top(w));
    return 0;
}

int
path_walk_last(struct path_walk *w)
{
    if (run(w, w->last, true) == -1)
        return -1;
    if (w->fd != -1)
        return 0;
    /* ".", ".." or nothing: the path names a directory. */
    w->fd = fcntl(top(w)->fd, F_DUPFD_CLOEXEC, 0);
    if (w->fd == -1)
        return -1;
    w->dir = dir_get(top(w));
    return fstat(w->fd, &w->st);
}

/* Is d the directory `below` or above it, where that is now? */
static int
is_above(const struct dir *below, const struct dir *d)
{
    struct dir *at = dir_open(below->fd, ".");

    for (unsigned i = 0; at && i < PATH_MAX; i++) {
        struct dir *up;

        if (dir_is_same(at, d)) {
            dir_put(at);
            return 1;
        }
        up = dir_open(at->fd, "..");
        if (dir_is_same(at, up)) { /* the root */
            dir_put(at);
            dir_put(up);
            return 0;
        }
        dir_put(at);
        at = up;
    }
    dir_put(at);
    if (at)
        return too_long();
    /* Not to be searched by us, so it is none that we were to look below. */
    return errno == EACCES ? 0 : -1;
}

int
path_walk_is_below(const struct path_walk *w, const struct dir *d)
{
    for (unsigned i = 0; i < w->depth; i++)
        if (dir_is_same(w->stack[i], d))
            return 1;
    return w->depth > 0 ? is_above(w->stack[0], d) : 0;
}

void
path_walk_end(struct path_walk *w)
{
    int saved = errno;

    clear_stack(w);
    dir_put(w->start);
    dir_put(w->dir);
    dir_put(w->missing_dir);
    if (w->fd != -1)
        close(w->fd);
    w->start = w->dir = w->missing_dir = NULL;
    w->fd = -1;
    errno = saved;
}

/* --- Names of descriptors ----------------------------------------------- */

char *
path_of_fd(int fd)
{
    char name[32], path[PATH_MAX];
    ssize_t len;

    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    len = readlink(name, path, sizeof path - 1);
    if (len <= 0)
        return NULL;
    path[len] = '\0';
    return strdup(path);
}

struct dir *
path_dir_of_fd(int fd)
{
    CLEANUP_FREE char *path = path_of_fd(fd);
    struct dir *dir = NULL;
    struct path_walk w;
    struct stat st, named;

    if (!path || path[0] != '/' || fstat(fd, &st) == -1)
        return NULL;
    /* The name may have become another's, or never have been one. */
    if (path_walk_to_dir(&w, NULL, path, false) == 0
        && fstatat(w.start->fd, w.last, &named, AT_SYMLINK_NOFOLLOW) == 0
        && named.st_dev == st.st_dev && named.st_ino == st.st_ino)
        dir = dir_get(w.start);
    path_walk_end(&w);
    return dir;
}
