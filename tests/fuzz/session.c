/* SPDX-License-Identifier: BSD-3-Clause */
/* session.c: begins and ends sessions; see session.h. */
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "audit.h"
#include "base/checked.h"
#include "bounds.h"
#include "check/check.h"
#include "disk/open-disk.h"
#include "disk/open.h"
#include "rng.h"

enum { BACKING_BYTES = 20000, MAX_AUDIT_BYTES = 4 << 20 };

const char *
session_backing(void)
{
    static char path[64];
    char bytes[BACKING_BYTES];
    int fd;

    if (path[0])
        return path;
    fd = memfd_create("backing", 0);
    pattern_fill(bytes, sizeof bytes, 77, 0);
    if (fd == -1 || write(fd, bytes, sizeof bytes) != sizeof bytes)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

/* A data file of zeroes for the image, as long as its disk says it is. */
static const char *
session_data(const struct sparse *file)
{
    static char path[64];
    static int fd = -1;

    if (fd == -1)
        fd = memfd_create("data", 0);
    if (fd == -1 || ftruncate(fd, 0) == -1)
        abort();
    /* What is too long for the system is for the engine to refuse. */
    if (ftruncate(fd, sparse_get(file, 24, 8)) == -1)
        return NULL;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static bool
has_data_file(const struct sparse *file)
{
    return sparse_get(file, 4, 4) > 2 && sparse_get(file, 72, 8) & 4;
}

/* The first problem, in words. */
struct problems {
    unsigned nr;
    bool leaks_are_none;
    char first[256];
};

static void
note_problem(void *opaque, const struct qcow2_problem *p)
{
    struct problems *found = opaque;

    if (p->severity == QCOW2_LEAK && found->leaks_are_none)
        return;
    if (found->nr++ == 0)
        snprintf(found->first, sizeof found->first, "%s", p->text);
}

/* NULL: the engine finds nothing wrong. Else valid until the next call. */
static const char *
find_problem(struct sparse *file, bool leaks_are_none)
{
    static struct problems found;
    const struct qcow2_check_options options = {
        .problem = note_problem, .opaque = &found,
    };
    struct io *io = sparse_open(file, true);
    struct qcow2_check_result result;
    struct qcow2_error err;
    int r;

    memset(&found, 0, sizeof found);
    found.leaks_are_none = leaks_are_none;
    r = check_io(io, &options, &result, &err);
    io_close(io);
    if (r == -1)
        snprintf(found.first, sizeof found.first, "%.250s", err.text);
    return r == -1 || found.nr > 0 ? found.first : NULL;
}

/* Bitmaps become invalid when an image is written, and their clusters leak. */
static bool
has_bitmaps(const struct sparse *file)
{
    return sparse_get(file, 4, 4) > 2 && sparse_get(file, 88, 8) & 1;
}

/* The tests' own checker, which knows no bitmaps, must agree. But it also
 * minds what we never write and what harms nobody: compressed data in a
 * cluster that is data as well, as long as the references are counted, and
 * COPIED of nothing. Then false, as what is written may be as odd. */
static bool
audit_agrees(const struct sparse *file)
{
    uint64_t size = sparse_size(file);
    unsigned char *bytes;
    struct audit a;

    if (size > MAX_AUDIT_BYTES)
        return true;
    bytes = malloc(size + 1);
    sparse_read(file, 0, bytes, size);
    audit_image(bytes, size, &a);
    free(bytes);
    MUST(a.nr_corruptions == 0 || strstr(a.first, "compressed data")
         || strstr(a.first, "without an offset"),
         "the audit finds what the check does not: %s", a.first);
    return a.nr_corruptions == 0;
}

static struct qcow2_disk *
open_disk(struct session *s, struct qcow2_error *err)
{
    return disk_open_io(sparse_open(s->file, s->options.readonly),
                        "/nonexistent/fuzzed", &s->options, err);
}

void
session_begin(struct session *s, struct sparse *file, bool readonly)
{
    static const struct qcow2_options init = QCOW2_OPTIONS_INIT;

    memset(s, 0, sizeof *s);
    s->file = file;
    s->options = init;
    s->options.format = QCOW2_FORMAT_QCOW2;
    s->options.readonly = readonly;
    s->options.no_lock = true;
    s->options.backing_none = sparse_get(file, 8, 8) == 0;
    if (!s->options.backing_none) {
        s->options.backing = session_backing();
        s->options.backing_format = QCOW2_FORMAT_RAW;
    }
    if (has_data_file(file))
        s->options.data_file = session_data(file);
    s->has_bitmaps = has_bitmaps(file);
    s->sound = !readonly && !find_problem(file, false);
    s->sound = s->sound && audit_agrees(file);
    s->disk = open_disk(s, NULL);
    if (s->disk) {
        s->disk->file->image->overridden = false; /* there is no other one */
        session_learn(s);
    } else {
        s->sound = false;
    }
}

void
session_failed(struct session *s, const char *what,
               const struct qcow2_error *err)
{
    /* ENOSPC: a sparse file may be as long as the format allows. */
    if (s->sound && !sparse_was_full(s->file))
        MUST(err->errnum == ENOTSUP || err->errnum == EINVAL
             || err->errnum == ENOSPC, "%s: %s", what, err->text);
    if (sparse_was_full(s->file))
        s->sound = false;
}

static void
reopen(struct session *s)
{
    struct qcow2_error err = { 0 };

    if (qcow2_close(s->disk, &err) == -1)
        session_failed(s, "close", &err);
    s->disk = open_disk(s, &err);
    if (s->sound) {
        MUST(s->disk, "opened anew: %s", err.text);
        session_compare(s);
    }
}

void
session_run(struct session *s, const struct command *ops, unsigned nr)
{
    for (unsigned i = 0; i < nr && s->disk; i++) {
        if ((ops[i].kind & 0x7f) % NR_OPERATIONS == DO_REOPEN)
            reopen(s);
        else
            session_do(s, &ops[i]);
    }
}

static void
free_model(struct session *s)
{
    free(s->now.bytes);
    for (unsigned i = 0; i < s->nr_saved; i++)
        free(s->saved[i].bytes);
}

void
session_end(struct session *s)
{
    const char *problem;

    if (s->disk && s->sound)
        session_compare(s);
    if (s->disk && !s->options.readonly)
        reopen(s);
    qcow2_close(s->disk, NULL);
    if (s->sound) {
        problem = find_problem(s->file, s->has_bitmaps);
        MUST(!problem, "it was sound: %s", problem);
        MUST(audit_agrees(s->file), "data and compressed data share");
    }
    free_model(s);
    bounds_of_work(sparse_counts(s->file));
}
