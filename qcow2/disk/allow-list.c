/* SPDX-License-Identifier: BSD-3-Clause */
/* allow-list.c: directories and NBD URIs that are allowed for good. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "format/format.h"
#include "qcow2.h"
#include "storage/io-nbd.h"

static int
append(struct qcow2_allow_list *list, char *name, struct qcow2_error *err)
{
    const char **more;

    if (list->nr == MAX_ALLOW_LIST)
        return error_set(err, EINVAL, "more than %d directories and URIs are "
                         "allowed", MAX_ALLOW_LIST);
    more = realloc(list->names, (list->nr + 1) * sizeof *more);
    if (!more)
        return error_nomem(err);
    list->names = more;
    list->names[list->nr++] = name;
    return 0;
}

/* A directory that does not exist (yet) has no files. */
static int
add(struct qcow2_allow_list *list, const char *s, size_t len,
    struct qcow2_error *err)
{
    char *name = strndup(s, len);
    bool is_uri = name && io_nbd_is_uri(name);
    struct stat st;
    int r = 0;

    if (!name)
        return error_nomem(err);
    if (!is_uri && name[0] != '/')
        r = error_set(err, EINVAL, "'%s' is neither an absolute path nor an "
                      "NBD URI", ESCAPED(name));
    else if (is_uri || (stat(name, &st) == 0 && S_ISDIR(st.st_mode)))
        r = append(list, name, err);
    if (list->nr == 0 || list->names[list->nr - 1] != name)
        free(name);
    return r;
}

/* As add, for one of several: keeps the error of the first that fails. */
static void
add_one(struct qcow2_allow_list *list, const char *s, size_t len, int *r,
        struct qcow2_error *err)
{
    if (len > 0 && add(list, s, len, *r == 0 ? err : NULL) == -1)
        *r = -1;
}

/* Colons are part of URIs, and of names of directories: what separates is
 * one before an absolute path or an NBD URI, or at the end. */
static bool
is_separator(const char *s)
{
    return s[0] == '\0'
           || (s[0] == ':'
               && (s[1] == '\0' || (s[1] == '/' && s[2] != '/')
                   || io_nbd_is_uri(s + 1)));
}

int
qcow2_allow_list_add(struct qcow2_allow_list *list, const char *text,
                     struct qcow2_error *err)
{
    size_t len;
    int r = 0;

    for (;; text += len) {
        text += strspn(text, ":");
        if (!*text)
            return r;
        for (len = 0; !is_separator(text + len); len++)
            ;
        add_one(list, text, len, &r, err);
    }
}

/* One a line; '#' begins a comment line. */
static int
add_lines(struct qcow2_allow_list *list, const char *text,
          struct qcow2_error *err)
{
    int r = 0;

    while (*text) {
        size_t len = strcspn(text, "\n");
        const char *next = text + len + (text[len] == '\n');
        size_t indent = strspn(text, " \t\r");

        while (len > indent && strchr(" \t\r", text[len - 1]))
            len--;
        if (len > indent && text[indent] != '#')
            add_one(list, text + indent, len - indent, &r, err);
        text = next;
    }
    return r;
}

/* Also an ACL by which others may write shows as the group's right. */
static int
check_owner(int fd, const char *what, struct qcow2_error *err)
{
    struct stat st;

    if (fstat(fd, &st) == -1)
        return error_set_errno(err, errno, "%s", what);
    if (st.st_uid != 0 || st.st_mode & (S_IWGRP | S_IWOTH))
        return error_set(err, EPERM, "%s can be written by others than root",
                         what);
    return 0;
}

/* The text of a file, which must be a regular one. To be freed. */
static char *
read_all(int fd, struct qcow2_error *err)
{
    char *text = calloc(1, MAX_ALLOW_FILE_BYTES + 1);
    size_t len = 0;
    struct stat st;
    ssize_t n = 0;

    if (!text) {
        error_nomem(err);
        return NULL;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        while ((n = read(fd, text + len, MAX_ALLOW_FILE_BYTES + 1 - len)) > 0)
            len += n;
    else
        errno = EINVAL, n = -1;
    if (n == -1)
        error_set_errno(err, errno, "it cannot be read");
    else if (len > MAX_ALLOW_FILE_BYTES || memchr(text, '\0', len))
        error_set(err, EINVAL, "it is no list of at most %d bytes of text",
                  MAX_ALLOW_FILE_BYTES);
    else
        return text;
    free(text);
    return NULL;
}

/* dir_fd: of the directory that name, a file, is in. */
static int
read_in(struct qcow2_allow_list *list, int dir_fd, const char *name,
        struct qcow2_error *err)
{
    CLEANUP_FREE char *text = NULL;
    int r, fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK
                                     | O_NOCTTY | O_CLOEXEC);

    if (fd == -1 && errno == ENOENT)
        return 0;
    if (fd == -1)
        return error_set_errno(err, errno, "it cannot be opened");
    r = check_owner(dir_fd, "its directory", err);
    if (r == 0)
        r = check_owner(fd, "it", err);
    if (r == 0)
        text = read_all(fd, err);
    close(fd);
    return text ? add_lines(list, text, err) : -1;
}

int
qcow2_allow_list_read(struct qcow2_allow_list *list, const char *path,
                      struct qcow2_error *err)
{
    const char *name = strrchr(path, '/');
    CLEANUP_FREE char *dir = NULL;
    int r, fd;

    if (!name || !name[1])
        return error_set(err, EINVAL, "%s: no absolute path", ESCAPED(path));
    dir = strndup(path, name - path + 1);
    if (!dir)
        return error_nomem(err);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd == -1 && errno == ENOENT)
        return 0;
    r = fd == -1 ? error_set_errno(err, errno, "it cannot be opened")
                 : read_in(list, fd, name + 1, err);
    if (fd != -1)
        close(fd);
    return r == 0 ? 0 : error_prefix(err, "%s", ESCAPED(path));
}

void
qcow2_allow_list_free(struct qcow2_allow_list *list)
{
    for (size_t i = 0; i < list->nr; i++)
        free((char *)list->names[i]);
    free(list->names);
    *list = (struct qcow2_allow_list){ .nr = 0 };
}
