/* SPDX-License-Identifier: BSD-3-Clause */
/* path-policy.c: decides which files an image may name; see path-policy.h. */
#include "storage/path-policy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "storage/io-nbd.h"

/* Does QEMU take this name for something else than a path ("nbd:…",
 * "json:…")? A colon after a slash is part of a path.
 */
static bool
has_protocol(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

static bool
starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* --- Places ------------------------------------------------------------- */

static enum policy_kind
kind_of(const struct stat *st)
{
    return S_ISBLK(st->st_mode) ? POLICY_DEVICE : POLICY_FILE;
}

/* The place of what a walk found. */
static void
place_found(const struct path_walk *w, struct policy_place *place)
{
    *place = (struct policy_place){ .kind = kind_of(&w->st) };
    place->start = dir_get(w->start);
    /* Found by a descriptor: its name is not what was walked along. */
    if (w->jumped)
        place->start = (dir_put(place->start), dir_get(w->dir));
    if (place->kind == POLICY_FILE)
        place->home = dir_get(w->dir);
    if (place->kind == POLICY_FILE && !place->home)
        place->kind = POLICY_UNNAMED;
}

int
policy_place_of(const char *path, struct policy_place *place,
              struct qcow2_error *err)
{
    struct path_walk w;
    int r;

    *place = (struct policy_place){ .kind = POLICY_REMOTE };
    if (io_nbd_is_uri(path))
        return 0;
    r = path_walk_to_dir(&w, NULL, path, true);
    if (r == 0 && path_walk_last(&w) == 0) {
        place_found(&w, place);
    } else if (r == 0) {
        place->kind = POLICY_FILE;
        place->start = dir_get(w.start);
        place->home = dir_get(w.missing_dir ? w.missing_dir : w.start);
    } else {
        error_set_errno(err, errno, "'%s'", ESCAPED(path));
    }
    path_walk_end(&w);
    return r;
}

void
policy_place_of_fd(int fd, struct policy_place *place)
{
    struct dir *dir = path_dir_of_fd(fd);
    struct stat st;

    *place = (struct policy_place){ .kind = POLICY_UNNAMED, .start = dir };
    if (!dir || fstat(fd, &st) == -1)
        return;
    place->kind = kind_of(&st);
    if (place->kind == POLICY_FILE)
        place->home = dir_get(dir);
}

void
policy_place_copy(struct policy_place *to, const struct policy_place *from)
{
    *to = *from;
    dir_get(to->start);
    dir_get(to->home);
}

struct policy_place
policy_place_shared(const struct policy_place *place)
{
    struct policy_place shared = *place;

    if (shared.kind == POLICY_FILE) {
        shared.kind = POLICY_SHARED;
        shared.home = NULL;
    }
    return shared;
}

void
policy_place_free(struct policy_place *place)
{
    dir_put(place->start);
    dir_put(place->home);
    *place = (struct policy_place){ .kind = POLICY_REMOTE };
}

/* --- Names -------------------------------------------------------------- */

static int
check_plain_path(const char *name, struct qcow2_error *err)
{
    char scheme[ESCAPE_SIZE];

    if (!has_protocol(name))
        return 0;
    escape_bytes(scheme, name, strcspn(name, ":"));
    return error_set(err, EPERM, "refused: only plain paths are opened, and "
                     "its name begins with '%s:'", scheme);
}

/* Fills *file for a URI. */
static int
take_uri(const char *uri, struct policy_file *file, struct qcow2_error *err)
{
    file->path = strdup(uri);
    return file->path ? 0 : error_nomem(err);
}

/* Could this part of a URI lead up again? Dots may hide as %2e. */
static bool
leads_up(const char *part)
{
    return strstr(part, "..") || strcasestr(part, "%2e");
}

/* Is uri the same as prefix, or something on the same server below it? */
static bool
uri_begins_with(const char *uri, const char *prefix)
{
    size_t len = strlen(prefix);

    return starts_with(uri, prefix)
           && (uri[len] == '\0' || uri[len] == '/' || uri[len] == '?'
               || prefix[len - 1] == '/')
           && !leads_up(uri + len)
           /* "?socket=/a" is not overruled by "&socket=/b". */
           && !(strchr(prefix, '?') && uri[len + strcspn(uri + len, "&;")]);
}

static int
check_uri(const char *uri, const struct policy_allow *allow,
          struct qcow2_error *err)
{
    for (size_t i = 0; allow && i < allow->nr; i++)
        if (io_nbd_is_uri(allow->names[i])
            && uri_begins_with(uri, allow->names[i]))
            return 0;
    error_set(err, EPERM, "refused: '%s' is not a local file", ESCAPED(uri));
    return error_hint_place(err, uri);
}

int
policy_allow_init(struct policy_allow *allow, const char *const *names,
                size_t nr, struct qcow2_error *err)
{
    *allow = (struct policy_allow){ .names = names, .nr = nr };
    for (size_t i = 0; i < nr; i++)
        if (has_protocol(names[i]) && !io_nbd_is_uri(names[i]))
            return error_set(err, ENOTSUP, "'%s' cannot be allowed: only "
                             "local directories and NBD URIs can",
                             ESCAPED(names[i]));
    return 0;
}

void
policy_allow_free(struct policy_allow *allow)
{
    for (size_t i = 0; allow->dirs && i < allow->nr; i++)
        dir_put(allow->dirs[i]);
    free(allow->dirs);
    *allow = (struct policy_allow){ .nr = 0 };
}

/* The directory (or file) that the i-th one of allow names, which is the
 * user's word; NULL, with *err set, if there is none. */
static struct dir *
allowed_dir(struct policy_allow *allow, size_t i, struct qcow2_error *err)
{
    int fd;

    if (!allow->dirs)
        allow->dirs = calloc(allow->nr, sizeof allow->dirs[0]);
    if (!allow->dirs) {
        error_nomem(err);
        return NULL;
    }
    if (!allow->dirs[i]) {
        fd = open(allow->names[i], O_PATH | O_CLOEXEC);
        allow->dirs[i] = dir_new(fd);
    }
    if (!allow->dirs[i])
        error_set_errno(err, errno, "the directory that is allowed, '%s'",
                        ESCAPED(allow->names[i]));
    return allow->dirs[i];
}

/* --- Finding files ------------------------------------------------------ */

/* Is what was found in dir or below it? 1: yes, 0: no. */
static int
is_below(const struct path_walk *w, const struct dir *dir,
         struct qcow2_error *err)
{
    int r = dir ? path_walk_is_below(w, dir) : 0;

    return r == -1 ? error_set_errno(err, errno, "'%s'", ESCAPED(w->name))
                   : r;
}

static int
is_allowed(const struct path_walk *w, const struct policy_place *from,
           struct policy_allow *allow, struct qcow2_error *err)
{
    int r = is_below(w, from->home, err);

    for (size_t i = 0; r == 0 && allow && i < allow->nr; i++) {
        struct dir *dir;

        if (io_nbd_is_uri(allow->names[i]))
            continue;
        dir = allowed_dir(allow, i, err);
        if (dir && dir->dev == w->st.st_dev && dir->ino == w->st.st_ino)
            r = 1; /* the file itself */
        else
            r = dir ? is_below(w, dir, err) : -1;
    }
    return r;
}

static const char *
why_refused(const struct policy_place *from)
{
    switch (from->kind) {
    case POLICY_FILE:
        return "lies outside the directory of the image";
    case POLICY_DEVICE:
        return "is named by an image on a block device, which has no "
               "directory of its own";
    case POLICY_SHARED:
        return "is to be written, and lies in a directory that images share";
    case POLICY_REMOTE:
    case POLICY_UNNAMED:
        break;
    }
    return "is named by an image that lies in no directory";
}

/* path: of the file that was found, which its directory would allow. */
static int
refuse(const struct policy_place *from, char *path, struct qcow2_error *err)
{
    CLEANUP_FREE char *home = from->home ? path_of_fd(from->home->fd) : NULL;
    char *slash = strrchr(path, '/');

    error_set(err, EPERM, "refused: '%s' %s%s%s%s", ESCAPED(path),
              why_refused(from), home ? ", '" : "", home ? ESCAPED(home) : "",
              home ? "'" : "");
    if (!slash)
        return -1;
    slash[slash == path] = '\0';
    return error_hint_place(err, path);
}

static int
check_kind(const struct stat *st, const char *path, struct qcow2_error *err)
{
    if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
        return 0;
    return error_set(err, EPERM, "'%s' is neither a regular file nor a block "
                     "device", ESCAPED(path));
}

/* Takes what a walk found. path is for messages. */
static int
take_found(struct path_walk *w, const char *path, struct policy_file *file,
           struct qcow2_error *err)
{
    struct qcow2_file_id id = qcow2_stat_get_id(&w->st);

    place_found(w, &file->place);
    file->dir = dir_get(w->dir);
    file->path = strdup(path);
    file->name = strdup(w->name);
    file->dev = id.dev;
    file->ino = id.ino;
    if (!file->path || !file->name) {
        policy_file_free(file);
        return error_nomem(err);
    }
    file->fd = w->fd;
    w->fd = -1;
    return 0;
}

/* name, with the directory that it starts at, where that is known. */
static char *
full_name(const struct dir *start, const char *name)
{
    CLEANUP_FREE char *dir = start ? path_of_fd(start->fd) : NULL;
    char *full;

    if (name[0] == '/' || !dir)
        return strdup(name);
    if (asprintf(&full, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, name)
        == -1)
        return NULL;
    return full;
}

/* Walks to what name leads to. */
static int
walk(struct path_walk *w, struct dir *start, const char *name,
     struct qcow2_error *err)
{
    CLEANUP_FREE char *full = NULL;

    if (path_walk_to_dir(w, start, name, false) == 0
        && path_walk_last(w) == 0)
        return 0;
    full = full_name(start, name);
    return error_set_errno(err, errno, "'%s'", ESCAPED(full ? full : name));
}

static int
check_start(const struct policy_place *from, const char *name,
            struct qcow2_error *err)
{
    if (name[0] == '/' || from->start)
        return 0;
    if (from->kind == POLICY_REMOTE)
        return error_set(err, EPERM, "names in an image that comes over NBD "
                         "are not relative to anything");
    return error_set(err, EPERM, "the file of the image has no name, so names "
                     "in it are not relative to anything");
}

/* allow_all: whatever it is. */
static int
resolve(const struct policy_place *from, const char *name,
        struct policy_allow *allow, bool allow_all, struct policy_file *file,
        struct qcow2_error *err)
{
    CLEANUP_FREE char *path = NULL;
    struct path_walk w;
    int r;

    if (check_start(from, name, err) == -1)
        return -1;
    r = walk(&w, from->start, name, err);
    if (r == 0) {
        path = path_of_fd(w.fd);
        if (!path)
            path = full_name(from->start, name);
        r = path ? check_kind(&w.st, path, err) : error_nomem(err);
    }
    if (r == 0 && !allow_all) {
        r = is_allowed(&w, from, allow, err);
        r = r == 1 ? 0 : r == 0 ? refuse(from, path, err) : -1;
    }
    if (r == 0)
        r = take_found(&w, path, file, err);
    path_walk_end(&w);
    return r;
}

int
policy_resolve(const struct policy_place *from, const char *name,
             struct policy_allow *allow, struct policy_file *file,
             struct qcow2_error *err)
{
    *file = (struct policy_file)POLICY_FILE_INIT;
    if (io_nbd_is_uri(name))
        return check_uri(name, allow, err) == -1 ? -1
                                                 : take_uri(name, file, err);
    if (check_plain_path(name, err) == -1)
        return -1;
    return resolve(from, name, allow, false, file, err);
}

int
policy_find_in(struct dir *dir, const char *name, struct policy_file *file,
             struct qcow2_error *err)
{
    const struct policy_place from = {
        .kind = POLICY_FILE, .start = dir, .home = dir,
    };

    *file = (struct policy_file)POLICY_FILE_INIT;
    return resolve(&from, name, NULL, false, file, err);
}

/* Can what the user named be a local file? */
static int
check_user_path(const char *path, struct qcow2_error *err)
{
    if (!path[0])
        return error_set(err, ENOENT, "the file name is empty");
    if (has_protocol(path) && starts_with(strchr(path, ':'), "://"))
        return error_set(err, ENOTSUP, "'%s': only local files and NBD URIs "
                         "are supported", ESCAPED(path));
    return 0;
}

int
policy_trust(const char *path, struct policy_file *file,
             struct qcow2_error *err)
{
    struct path_walk w;
    int r = 0;

    *file = (struct policy_file)POLICY_FILE_INIT;
    if (io_nbd_is_uri(path))
        return take_uri(path, file, err);
    if (check_user_path(path, err) == -1)
        return -1;
    if (path_walk_to_dir(&w, NULL, path, true) == -1
        || path_walk_last(&w) == -1)
        r = error_set_errno(err, errno, "%s: cannot open", ESCAPED(path));
    if (r == 0)
        r = take_found(&w, path, file, err);
    path_walk_end(&w);
    return r;
}

int
policy_trust_name(const struct policy_place *from, const char *name,
                struct policy_file *file, struct qcow2_error *err)
{
    *file = (struct policy_file)POLICY_FILE_INIT;
    if (io_nbd_is_uri(name))
        return take_uri(name, file, err);
    if (check_plain_path(name, err) == -1)
        return -1;
    return resolve(from, name, NULL, true, file, err);
}

bool
policy_is_remote(const struct policy_file *file)
{
    return file->fd == -1;
}

bool
policy_is_same(const struct policy_file *a, const struct policy_file *b)
{
    if (policy_is_remote(a) || policy_is_remote(b))
        return policy_is_remote(a) == policy_is_remote(b)
               && strcmp(a->path, b->path) == 0;
    return a->dev == b->dev && a->ino == b->ino;
}

void
policy_file_free(struct policy_file *file)
{
    if (file->path && file->fd != -1)
        close(file->fd);
    free(file->path);
    free(file->name);
    dir_put(file->dir);
    policy_place_free(&file->place);
    *file = (struct policy_file)POLICY_FILE_INIT;
}

/* --- Making files ------------------------------------------------------- */

/* There is no file at the end of the walk to path: a link that leads nowhere
 * is followed, as open(2) with O_CREAT does. */
static int
take_missing(struct path_walk *w, const char *path, struct policy_target *t,
             struct qcow2_error *err)
{
    char dir[ESCAPE_SIZE];

    if (!w->start && errno == ENOENT && strchr(path, '/')) {
        escape_bytes(dir, path, strrchr(path, '/') - path);
        return error_set(err, ENOENT, "%s: there is no directory '%s'",
                         ESCAPED(path), dir);
    }
    if (!w->missing_dir)
        return error_set_errno(err, errno, "%s: cannot open", ESCAPED(path));
    t->start = dir_get(w->start);
    t->dir = dir_get(w->missing_dir);
    strcpy(t->name, w->missing_name);
    return 0;
}

static int
find_target(struct dir *start, const char *path, struct policy_target *t,
            struct qcow2_error *err)
{
    struct path_walk w;
    int r;

    if (check_user_path(path, err) == -1)
        return -1;
    r = path_walk_to_dir(&w, start, path, true);
    if (r == 0)
        r = path_walk_last(&w);
    r = r == 0 ? take_found(&w, path, &t->file, err)
               : take_missing(&w, path, t, err);
    path_walk_end(&w);
    if (r == -1)
        policy_target_free(t);
    return r;
}

int
policy_target_find(const char *path, struct policy_target *t,
                 struct qcow2_error *err)
{
    *t = (struct policy_target)POLICY_TARGET_INIT;
    t->path = path;
    return io_nbd_is_uri(path) ? take_uri(path, &t->file, err)
                               : find_target(NULL, path, t, err);
}

int
policy_target_find_from(const struct policy_place *from, const char *path,
                        struct policy_target *t, struct qcow2_error *err)
{
    *t = (struct policy_target)POLICY_TARGET_INIT;
    t->path = path;
    if (io_nbd_is_uri(path) || (path[0] != '/' && !from->start))
        return error_set(err, EINVAL, "%s: it must be a local file, with an "
                         "absolute path if the image is not", ESCAPED(path));
    return find_target(from->start, path, t, err);
}

void
policy_target_place(const struct policy_target *t, struct policy_place *place)
{
    if (t->file.path) {
        policy_place_copy(place, &t->file.place);
        return;
    }
    *place = (struct policy_place){
        .kind = POLICY_FILE,
        .start = dir_get(t->start),
        .home = dir_get(t->dir),
    };
}

bool
policy_target_is_same(const struct policy_target *a,
                      const struct policy_target *b)
{
    if (a->file.path || b->file.path)
        return a->file.path && b->file.path
               && policy_is_same(&a->file, &b->file);
    return dir_is_same(a->dir, b->dir) && strcmp(a->name, b->name) == 0;
}

/* The kernel removes names, not files: what is exchanged at this moment is
 * removed in the directory that was named, and nowhere else. */
void
policy_target_remove(const struct policy_target *t)
{
    struct stat st;

    if (t->beside)
        policy_target_remove(t->beside);
    if (t->created
        && fstatat(t->dir->fd, t->name, &st, AT_SYMLINK_NOFOLLOW) == 0
        && st.st_dev == t->dev && st.st_ino == t->ino)
        unlinkat(t->dir->fd, t->name, 0);
}

void
policy_target_free(struct policy_target *t)
{
    if (t->beside)
        policy_target_free(t->beside);
    free(t->beside);
    dir_put(t->start);
    dir_put(t->dir);
    policy_file_free(&t->file);
    *t = (struct policy_target)POLICY_TARGET_INIT;
}
