/* SPDX-License-Identifier: BSD-3-Clause */
/* path-walk.h: resolves a path by descriptors, one part at a time, so that
 * what is decided about a file and what is opened are the same file.
 *
 * No part of a path is looked up twice, and no directory by its name once it
 * is open: who exchanges files, directories or links meanwhile decides at
 * most which of them is found, never that one is checked and another opened.
 */
#ifndef QCOW2_PATH_WALK_H
#define QCOW2_PATH_WALK_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* In every file, or they would not agree on struct stat (configure.ac). */
_Static_assert(sizeof(off_t) == 8, "files have 64-bit offsets");

enum {
    /* Directories below each other. Each costs a descriptor while a path is
     * walked, of which processes commonly have 1,024. */
    MAX_PATH_DEPTH = 256,
    /* As the kernel's, path_resolution(7). */
    MAX_LINKS_FOLLOWED = 40,
};

/* A directory, open with O_PATH. Shared: the last user closes it. */
struct dir {
    unsigned nr_users;  /* atomic */
    int fd;
    uint64_t dev, ino;
};

/* Takes over fd, also on failure; NULL with errno set. */
struct dir *dir_new(int fd);
struct dir *dir_get(struct dir *d); /* NULL is fine in all three */
void dir_put(struct dir *d);
bool dir_is_same(const struct dir *a, const struct dir *b);

struct path_walk {
    bool trusted;       /* links of /proc lead to what is open there */
    struct dir *from;   /* borrowed: where a relative path starts */

    struct dir *start;  /* where the last part of the path was looked up */
    char last[NAME_MAX + 1];

    /* Where path_walk_last, which failed with ENOENT, would have found the
     * file: a file made there is found by the path. NULL: no file can be. */
    struct dir *missing_dir;
    char missing_name[NAME_MAX + 1];

    /* What path_walk_last found; it is no symbolic link. */
    int fd;             /* O_PATH; -1: nothing */
    struct stat st;
    struct dir *dir;    /* where it is; NULL: it has no name any more */
    char name[NAME_MAX + 1]; /* in dir */
    bool jumped;        /* by a link of /proc: no path led here */

    /* The directories that led here, each found in the one before. */
    unsigned depth;
    struct dir *stack[MAX_PATH_DEPTH];
    unsigned nr_links;
};

/* Walks to the directory that path names its last part in: start and last
 * are filled. from may be NULL (the current directory). -1 with errno set.
 * path_walk_end is due in any case.
 */
int path_walk_to_dir(struct path_walk *w, struct dir *from, const char *path,
                     bool trusted);

/* Then to the file itself, following links. */
int path_walk_last(struct path_walk *w);

/* Was what was found reached through d, or is it below it? 1: yes, 0: no,
 * -1 with errno set. */
int path_walk_is_below(const struct path_walk *w, const struct dir *d);

void path_walk_end(struct path_walk *w);

/* The directory that the file open on fd has its name in; NULL if it has
 * none, or one that does not lead to it. */
struct dir *path_dir_of_fd(int fd);

/* What the kernel calls an open file or directory, for messages. To be freed;
 * NULL where the system does not say. */
char *path_of_fd(int fd);

#endif /* QCOW2_PATH_WALK_H */
