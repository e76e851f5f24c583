/* SPDX-License-Identifier: BSD-3-Clause */
/* gate.c: decides which files an image may name; see gate.h. */
#include "storage/gate.h"

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

/* Is path the directory dir or below it? Both are resolved. */
static bool
is_below(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    if (strcmp(dir, "/") == 0)
        return true;
    return strncmp(path, dir, len) == 0
           && (path[len] == '/' || path[len] == '\0');
}

static char *
join(const char *dir, const char *name, struct qcow2_error *err)
{
    char *path;

    if (asprintf(&path, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, name)
        == -1) {
        error_nomem(err);
        return NULL;
    }
    return path;
}

/* The directory that path lies in, resolved. */
static char *
resolve_dir(const char *path, struct qcow2_error *err)
{
    const char *slash = strrchr(path, '/');
    CLEANUP_FREE char *dir = NULL;
    char *real;

    if (io_nbd_is_uri(path)) {
        error_set(err, EPERM, "names in an image that comes over NBD are "
                  "not relative to anything");
        return NULL;
    }
    if (!slash)
        dir = strdup(".");
    else
        dir = strndup(path, slash == path ? 1 : slash - path);
    if (!dir) {
        error_nomem(err);
        return NULL;
    }
    real = realpath(dir, NULL);
    if (!real)
        error_set_errno(err, errno, "'%s'", ESCAPED(dir));
    return real;
}

/* The directory where names in the image at path start. */
static char *
resolve_image_dir(const char *path, struct qcow2_error *err)
{
    CLEANUP_FREE char *real = NULL;

    /* A descriptor's own name says nothing: take the name of its file. */
    if (starts_with(path, "/dev/fd/") || starts_with(path, "/proc/")) {
        real = realpath(path, NULL);
        if (!real) {
            error_set_errno(err, errno, "'%s'", ESCAPED(path));
            return NULL;
        }
        path = real;
    }
    return resolve_dir(path, err);
}

/* Fills *file for a path; follows links to find out what it is. */
static int
resolve(const char *path, struct gate_file *file, struct qcow2_error *err)
{
    const char *slash = strrchr(path, '/');
    CLEANUP_FREE char *dir = NULL;
    struct stat st;

    memset(file, 0, sizeof *file);
    file->real = realpath(path, NULL);
    if (!file->real || stat(file->real, &st) == -1) {
        error_set_errno(err, errno, "'%s'", ESCAPED(path));
        goto fail;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        error_set(err, EPERM, "'%s' is neither a regular file nor a block "
                  "device", ESCAPED(file->real));
        goto fail;
    }
    dir = resolve_dir(path, err);
    if (!dir)
        goto fail;
    file->path = join(dir, slash ? slash + 1 : path, err);
    if (!file->path)
        goto fail;
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    return 0;

fail:
    gate_file_free(file);
    return -1;
}

static int
check_plain_path(const char *name, struct qcow2_error *err)
{
    char scheme[ESCAPE_SIZE];

    if (!has_protocol(name))
        return 0;
    escape_bytes(scheme, name, strcspn(name, ":"));
    return error_set(err, EPERM, "refused: only plain paths are opened, and "
                     "its name begins with '%s:'; backing=FILE names a local "
                     "file instead", scheme);
}

/* Fills *file for a URI. */
static int
resolve_uri(const char *uri, struct gate_file *file, struct qcow2_error *err)
{
    memset(file, 0, sizeof *file);
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
check_uri(const char *uri, const char *const *allow, size_t nr_allow,
          struct qcow2_error *err)
{
    for (size_t i = 0; i < nr_allow; i++)
        if (io_nbd_is_uri(allow[i]) && uri_begins_with(uri, allow[i]))
            return 0;
    return error_set(err, EPERM, "refused: '%s' is not a local file; "
                     "allow=URI allows what begins with a URI, backing=FILE "
                     "names another file", ESCAPED(uri));
}

/* 1: yes, 0: no. dir may be NULL. */
static int
is_allowed(const char *real, const char *dir, const char *const *allow,
           size_t nr_allow, struct qcow2_error *err)
{
    if (dir && is_below(real, dir))
        return 1;
    for (size_t i = 0; i < nr_allow; i++) {
        CLEANUP_FREE char *allowed = NULL;

        if (io_nbd_is_uri(allow[i]))
            continue;
        allowed = realpath(allow[i], NULL);
        if (!allowed)
            return error_set_errno(err, errno, "allow=%s", allow[i]);
        if (is_below(real, allowed))
            return 1;
    }
    return 0;
}

int
gate_resolve(const char *image_path, const char *name,
             const char *const *allow, size_t nr_allow,
             struct gate_file *file, struct qcow2_error *err)
{
    CLEANUP_FREE char *dir = NULL;
    CLEANUP_FREE char *joined = NULL;
    int r;

    memset(file, 0, sizeof *file);
    if (gate_check_allow(allow, nr_allow, err) == -1)
        return -1;
    if (io_nbd_is_uri(name))
        return check_uri(name, allow, nr_allow, err) == -1
                       || resolve_uri(name, file, err) == -1 ? -1 : 0;
    if (check_plain_path(name, err) == -1)
        return -1;
    dir = resolve_image_dir(image_path, err);
    /* An image without a name (a deleted file's descriptor) has none. */
    if (!dir && name[0] != '/')
        return -1;
    if (name[0] != '/') {
        joined = join(dir, name, err);
        if (!joined)
            return -1;
        name = joined;
    }
    if (resolve(name, file, err) == -1)
        return -1;
    r = is_allowed(file->real, dir, allow, nr_allow, err);
    if (r == 1)
        return 0;
    if (r == 0)
        error_set(err, EPERM, "refused: '%s' lies outside the directory of "
                  "the image, '%s'; allow=DIR allows a directory, "
                  "backing=FILE the file", ESCAPED(file->real),
                  ESCAPED(dir ? dir : "(none)"));
    gate_file_free(file);
    return -1;
}

int
gate_trust(const char *path, struct gate_file *file, struct qcow2_error *err)
{
    memset(file, 0, sizeof *file);
    if (io_nbd_is_uri(path))
        return resolve_uri(path, file, err);
    if (strstr(path, "://"))
        return error_set(err, ENOTSUP, "'%s': only local files and NBD URIs "
                         "are supported", path);
    return resolve(path, file, err);
}

int
gate_trust_name(const char *image_path, const char *name,
                struct gate_file *file, struct qcow2_error *err)
{
    const char *const allow[] = { "/", name };

    return gate_resolve(image_path, name, allow,
                        io_nbd_is_uri(name) ? 2 : 1, file, err);
}

static struct io *
open_resolved(const struct gate_file *file, bool readonly, enum io_lock lock,
              struct qcow2_error *err)
{
    struct io *io = NULL;
    struct stat st;
    int fd;

    if (!file->real)
        return io_nbd_open(file->path, readonly, err);
    /* Between the decision and now somebody may have put something else
     * there: a link to elsewhere, or a pipe that would block us. */
    fd = open(file->real, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC
                          | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd == -1) {
        error_set_errno(err, errno, "'%s'%s", ESCAPED(file->real),
                        errno == EMFILE ? " (ulimit -n raises the limit)"
                                        : "");
        return NULL;
    }
    if (fstat(fd, &st) == -1)
        error_set_errno(err, errno, "'%s'", ESCAPED(file->real));
    else if (st.st_dev != file->dev || st.st_ino != file->ino)
        error_set(err, EPERM, "refused: '%s' was replaced while it was being "
                  "opened", ESCAPED(file->real));
    else
        io = io_file_open(ESCAPED(file->real), fd, readonly, lock, err);
    close(fd);
    return io;
}

struct io *
gate_open(const struct gate_file *file, enum io_lock lock,
          struct qcow2_error *err)
{
    return open_resolved(file, true, lock, err);
}

struct io *
gate_open_writable(const struct gate_file *file, enum io_lock lock,
                   struct qcow2_error *err)
{
    return open_resolved(file, false, lock, err);
}

void
gate_file_free(struct gate_file *file)
{
    free(file->path);
    free(file->real);
    memset(file, 0, sizeof *file);
}

int
gate_check_allow(const char *const *allow, size_t nr_allow,
                 struct qcow2_error *err)
{
    for (size_t i = 0; i < nr_allow; i++)
        if (has_protocol(allow[i]) && !io_nbd_is_uri(allow[i]))
            return error_set(err, ENOTSUP, "allow=%s: only local "
                             "directories and NBD URIs are supported",
                             allow[i]);
    return 0;
}
