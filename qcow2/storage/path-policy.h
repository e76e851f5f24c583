/* SPDX-License-Identifier: BSD-3-Clause */
/* path-policy.h: decides which files may be opened by a name from an image. */
#ifndef QCOW2_PATH_POLICY_H
#define QCOW2_PATH_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qcow2.h"
#include "storage/io.h"
#include "storage/path-walk.h"

/* What kind of thing an image lies in: it decides what it may name. */
enum policy_kind {
    POLICY_REMOTE,   /* a server: nothing but by allow=, no relative names */
    POLICY_UNNAMED,  /* a file without a name (any more): the same */
    POLICY_DEVICE,   /* a block device, which no directory of images holds:
                      * nothing but by allow= */
    POLICY_FILE,     /* a file: what is in its directory or below */
    POLICY_SHARED,   /* a file, in a directory with other people's: nothing but
                      * by allow= */
};

/* Where the names in an image start and what they may lead to. They start
 * where the image was found by its name, as in QEMU, but may lead no further
 * than the directory of the file itself: a link to an image gives it nothing
 * that it does not have where it is.
 */
struct policy_place {
    enum policy_kind kind;
    struct dir *start;  /* of relative names; NULL: there are none */
    struct dir *home;   /* POLICY_FILE: the directory that the file is in */
};

/* The place of the image at path, where there may be no file yet; or of the
 * file open on fd. To be freed. */
int policy_place_of(const char *path, struct policy_place *place,
                  struct qcow2_error *err);
void policy_place_of_fd(int fd, struct policy_place *place);
void policy_place_copy(struct policy_place *to,
                       const struct policy_place *from);

/* The same place, POLICY_SHARED if it is a POLICY_FILE; it borrows from it, and
 * is not to be freed. */
struct policy_place policy_place_shared(const struct policy_place *place);
void policy_place_free(struct policy_place *place);

/* Directories and URIs that images may name files below, besides their own,
 * and single files. They are opened when they are first needed, and once.
 */
struct policy_allow {
    const char *const *names;
    size_t nr;
    struct dir **dirs;  /* NULL, or nr of them, each NULL if not yet open */
};

/* Refuses what no allow= can be. names must live as long as *allow. */
int policy_allow_init(struct policy_allow *allow, const char *const *names,
                    size_t nr, struct qcow2_error *err);
void policy_allow_free(struct policy_allow *allow);

/* A file that may be opened, and that alone: it is held, so that nobody can
 * put another one in its place. */
struct policy_file {
    char *path;         /* for messages; or an NBD URI; NULL: no file */
    int fd;             /* O_PATH; -1: it is a URI */
    struct dir *dir;    /* where it is; NULL: it has no name */
    char *name;         /* in dir */
    struct policy_place place;
    uint64_t dev, ino;  /* as in struct qcow2_file_id */
};
#define POLICY_FILE_INIT { .fd = -1 }

/* The same as callers have it (disk/file.c). */
struct qcow2_file {
    struct policy_file file;
};

/* Finds the file of a name in the image at `from`: allowed if it is a
 * regular file or block device in the image's directory or below, or below
 * one of allow, or an NBD URI that begins with one of allow. EPERM
 * otherwise, saying which option would allow it. Links are followed before
 * that is decided. allow may be NULL.
 */
int policy_resolve(const struct policy_place *from, const char *name,
                 struct policy_allow *allow, struct policy_file *file,
                 struct qcow2_error *err);

/* The same for what the user named, which is allowed: relative to the
 * current directory, or as names in the image at `from` are. */
int policy_trust(const char *path, struct policy_file *file,
               struct qcow2_error *err);
int policy_trust_name(const struct policy_place *from, const char *name,
                    struct policy_file *file, struct qcow2_error *err);

/* The file that name leads to from dir, if that is in dir or below. */
int policy_find_in(struct dir *dir, const char *name, struct policy_file *file,
                 struct qcow2_error *err);

/* Is it what a server has, and not a local file? io_open (io-open.h) opens
 * either. */
bool policy_is_remote(const struct policy_file *file);

/* Are both the same file, or named by the same URI? */
bool policy_is_same(const struct policy_file *a, const struct policy_file *b);

void policy_file_free(struct policy_file *file);

/* A file that is to be made, or made anew, at a path of the user's. */
struct policy_target {
    const char *path;       /* as the user named it */
    struct dir *start;      /* where the path has its last part, perhaps a
                             * link to a file that is not there */
    struct dir *dir;        /* where it is made if there is none */
    char name[NAME_MAX + 1];
    struct policy_file file;  /* what is there, which may be an NBD export;
                               * path NULL: nothing */
    bool created;           /* by io_create: may be removed again */
    uint64_t dev, ino;      /* what it made */
    struct policy_target *beside; /* what belongs to it, and is removed and
                             * freed with it; or NULL */
};
#define POLICY_TARGET_INIT { .file = POLICY_FILE_INIT }

/* Finds out what is at path, which must live as long as *t. */
int policy_target_find(const char *path, struct policy_target *t,
                     struct qcow2_error *err);

/* The same, where relative paths start as names in an image at `from` do. A
 * local file. */
int policy_target_find_from(const struct policy_place *from, const char *path,
                            struct policy_target *t, struct qcow2_error *err);

/* Where the file made is. To be freed. */
void policy_target_place(const struct policy_target *t,
                         struct policy_place *place);

/* Are both the same file, or will they be? */
bool policy_target_is_same(const struct policy_target *a,
                           const struct policy_target *b);

/* Removes what io_create created, if it is still there. */
void policy_target_remove(const struct policy_target *t);
void policy_target_free(struct policy_target *t);

#endif /* QCOW2_PATH_POLICY_H */
