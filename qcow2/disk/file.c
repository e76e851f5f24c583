/* SPDX-License-Identifier: BSD-3-Clause */
/* file.c: finds files by their names and holds them, for callers who decide
 * about a file before they open it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/error.h"
#include "disk/open.h"
#include "storage/path-policy.h"

static struct qcow2_file *
file_alloc(struct qcow2_error *err)
{
    struct qcow2_file *file = calloc(1, sizeof *file);

    if (!file)
        error_nomem(err);
    return file;
}

struct qcow2_file *
qcow2_find_file(const char *path, struct qcow2_error *err)
{
    struct qcow2_file *file = file_alloc(err);

    if (file && policy_trust(path, &file->file, err) == -1) {
        free(file);
        return NULL;
    }
    return file;
}

struct qcow2_file *
qcow2_find_file_in(int dir_fd, const char *name, struct qcow2_error *err)
{
    struct dir *dir = dir_new(openat(dir_fd, ".", O_PATH | O_DIRECTORY
                                                  | O_CLOEXEC));
    struct qcow2_file *file;

    if (!dir) {
        error_set_errno(err, errno, "cannot open the directory");
        return NULL;
    }
    file = file_alloc(err);
    if (file && policy_find_in(dir, name, &file->file, err) == -1) {
        free(file);
        file = NULL;
    }
    dir_put(dir);
    return file;
}

void
qcow2_file_free(struct qcow2_file *file)
{
    if (file)
        policy_file_free(&file->file);
    free(file);
}

struct qcow2_file_id
qcow2_file_get_id(const struct qcow2_file *file)
{
    return (struct qcow2_file_id){
        .dev = file->file.dev, .ino = file->file.ino,
        .name = file->file.name ? file->file.name : file->file.path,
    };
}
