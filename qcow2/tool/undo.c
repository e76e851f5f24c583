/* SPDX-License-Identifier: BSD-3-Clause */
/* undo.c: keeps what a repair overwrites; see undo.h and undo-file.h. */
#include "undo.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"
#include "undo-file.h"

struct stretch {
    uint64_t host_off, nr_bytes, digest;
};

struct undo {
    const char *path, *name;    /* the latter in dir_fd */
    int dir_fd;
    bool named;                 /* the name is durable */
    FILE *file;
    bool failed;                /* reported */
    uint64_t nr_writes, size_after;
    struct stretch *metadata;   /* before the repair */
    size_t nr_metadata;
};

/* The directory stays open: the name in it must become durable, and may have
 * to be removed again. */
static int
open_dir(struct undo *u)
{
    const char *slash = strrchr(u->path, '/');
    CLEANUP_FREE char *dir = NULL;

    u->name = slash ? slash + 1 : u->path;
    dir = slash ? strndup(u->path, slash == u->path ? 1 : slash - u->path)
                : strdup(".");
    u->dir_fd = open(check_memory(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return u->dir_fd == -1 ? -1 : 0;
}

static int
make_file(struct undo *u)
{
    int fd = openat(u->dir_fd, u->name,
                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd == -1)
        return -1;
    u->file = fdopen(fd, "w");
    if (u->file && fwrite(undo_magic, sizeof undo_magic, 1, u->file) == 1)
        return 0;
    if (!u->file)
        close(fd);
    unlinkat(u->dir_fd, u->name, 0);
    return -1;
}

static void
undo_free(struct undo *u)
{
    if (u->dir_fd != -1)
        close(u->dir_fd);
    free(u->metadata);
    free(u);
}

struct undo *
undo_create(const char *path)
{
    struct undo *u = check_memory(calloc(1, sizeof *u));

    u->path = path;
    if (open_dir(u) == 0 && make_file(u) == 0)
        return u;
    undo_complain(path, "cannot create");
    if (u->file)
        fclose(u->file);
    undo_free(u);
    return NULL;
}

void
undo_metadata(struct undo *u, uint64_t host_off, uint64_t nr_bytes,
              const void *bytes)
{
    struct stretch *s = u->nr_metadata ? &u->metadata[u->nr_metadata - 1]
                                       : NULL;

    if (!s || s->host_off + s->nr_bytes != host_off) {
        size_t nr = u->nr_metadata++;

        if ((nr & (nr - 1)) == 0) /* 0 or a power of 2: it is full */
            u->metadata = check_memory(realloc(u->metadata,
                                               (nr ? nr * 2 : 1)
                                               * sizeof *u->metadata));
        s = &u->metadata[nr];
        *s = (struct stretch){ .host_off = host_off };
    }
    s->nr_bytes += nr_bytes;
    if (bytes)
        s->digest = undo_digest(s->digest, host_off, bytes, nr_bytes);
}

static int
put(struct undo *u, const struct record_head *h, const void *a, const void *b,
    size_t nr_bytes)
{
    struct record_head head = {
        .kind = htole64(h->kind), .host_off = htole64(h->host_off),
        .nr_bytes = htole64(h->nr_bytes), .file_size = htole64(h->file_size),
    };
    uint64_t sum = htole64(undo_sum(&head, a, nr_bytes, b, nr_bytes));

    if (u->failed)
        return -1;
    if (fwrite(&head, sizeof head, 1, u->file) == 1
        && fwrite(a, 1, nr_bytes, u->file) == nr_bytes
        && fwrite(b, 1, nr_bytes, u->file) == nr_bytes
        && fwrite(&sum, sizeof sum, 1, u->file) == 1)
        return 0;
    u->failed = true;
    return undo_complain(u->path, "cannot write");
}

/* What the image is before the first write. */
static int
put_state(struct undo *u, uint64_t file_size)
{
    struct record_head head = { .kind = UNDO_BEGIN, .file_size = file_size };

    if (put(u, &head, "", "", 0) == -1)
        return -1;
    for (size_t i = 0; i < u->nr_metadata; i++) {
        const struct stretch *s = &u->metadata[i];

        head = (struct record_head){
            .kind = UNDO_METADATA, .host_off = s->host_off,
            .nr_bytes = s->nr_bytes, .digest = s->digest,
        };
        if (put(u, &head, "", "", 0) == -1)
            return -1;
    }
    u->size_after = file_size;
    return 0;
}

int
undo_record(struct undo *u, const struct qcow2_repair_write *w)
{
    const struct record_head head = {
        .kind = UNDO_WRITE, .host_off = w->host_off,
        .nr_bytes = w->nr_bytes, .file_size = w->file_size,
    };

    if (u->nr_writes == 0 && put_state(u, w->file_size) == -1)
        return -1;
    u->nr_writes++;
    if (w->host_off + w->nr_bytes > u->size_after)
        u->size_after = w->host_off + w->nr_bytes;
    return put(u, &head, w->old_bytes, w->new_bytes, w->nr_bytes);
}

/* A file that nobody can find after a power cut undoes nothing. Some file
 * systems cannot flush a directory, and do not need to. */
static int
settle_name(struct undo *u)
{
    if (!u->named && fsync(u->dir_fd) == -1 && errno != EINVAL)
        return -1;
    u->named = true;
    return 0;
}

int
undo_settle(struct undo *u)
{
    if (u->failed)
        return -1;
    if (fflush(u->file) == 0 && fsync(fileno(u->file)) == 0
        && settle_name(u) == 0)
        return 0;
    u->failed = true;
    return undo_complain(u->path, "cannot write");
}

int
undo_close(struct undo *u, bool finished)
{
    const struct record_head end = {
        .kind = UNDO_END, .nr_bytes = u->nr_writes,
        .file_size = u->size_after,
    };
    int r = u->failed ? -1 : 0;

    if (r == 0 && u->nr_writes > 0 && finished) {
        r = put(u, &end, "", "", 0);
        if (r == 0)
            r = undo_settle(u);
    }
    if (fclose(u->file) == EOF && r == 0)
        r = undo_complain(u->path, "cannot write");
    if (u->nr_writes == 0)
        unlinkat(u->dir_fd, u->name, 0);
    undo_free(u);
    return r;
}
