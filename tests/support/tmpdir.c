/* SPDX-License-Identifier: BSD-3-Clause */
/* tmpdir.c: see tmpdir.h. */
#include "tmpdir.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/io-open.h"

static char dir_name[512];

static void
must(int ok, const char *what, const char *path)
{
    if (!ok) {
        fprintf(stderr, "tests: cannot %s ", what);
        perror(path);
        exit(99); /* automake's "hard error" */
    }
}

static void
remove_dir(void)
{
    tmpdir_clear();
    rmdir(dir_name);
}

const char *
tmpdir(void)
{
    if (!dir_name[0]) {
        const char *base = getenv("TMPDIR");

        snprintf(dir_name, sizeof dir_name, "%s/qcow2-test-XXXXXX",
                 base && *base ? base : "/tmp");
        must(mkdtemp(dir_name) != NULL, "make directory", dir_name);
        atexit(remove_dir);
    }
    return dir_name;
}

const char *
tmpdir_path(const char *name)
{
    static char paths[16][1024];
    static unsigned next;
    char *path = paths[next++ % 16];

    snprintf(path, sizeof paths[0], "%s/%s", tmpdir(), name);
    return path;
}

void
tmpdir_clear(void)
{
    DIR *d = opendir(tmpdir());
    struct dirent *e;

    while (d && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlink(tmpdir_path(e->d_name));
    }
    if (d)
        closedir(d);
}

void
tmpdir_write_file(const char *path, const void *bytes, size_t nr_bytes)
{
    FILE *f = fopen(path, "wb");

    must(f != NULL, "create", path);
    must(fwrite(bytes, 1, nr_bytes, f) == nr_bytes, "write", path);
    must(fclose(f) == 0, "write", path);
}

unsigned char *
tmpdir_read_file(const char *path, size_t *nr_bytes)
{
    FILE *f = fopen(path, "rb");
    unsigned char *bytes;
    long size = -1;

    must(f != NULL, "open", path);
    must(fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0, "size", path);
    rewind(f);
    bytes = malloc(size ? size : 1);
    must(bytes != NULL, "hold", path);
    must(fread(bytes, 1, size, f) == (size_t)size, "read", path);
    fclose(f);
    *nr_bytes = size;
    return bytes;
}

struct io *
tmpdir_create_io(const char *path, bool overwrite, struct qcow2_error *err)
{
    const struct io_create_options o = {
        .overwrite = overwrite, .mode = 0644,
    };
    struct policy_target target;
    struct io *io;

    if (policy_target_find(path, &target, err) == -1)
        return NULL;
    io = io_create(&target, &o, err);
    policy_target_free(&target);
    return io;
}
