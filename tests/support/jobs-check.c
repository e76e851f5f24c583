/* SPDX-License-Identifier: BSD-3-Clause */
/* jobs-check.c: what must hold of files that were cut short; see jobs.h. */
#include <stdlib.h>

#include "audit.h"
#include "check/check.h"
#include "disk/open.h"
#include "expect.h"
#include "jobs.h"
#include "rng.h"
#include "snapshots.h"
#include "states.h"
#include "tmpdir.h"

/* What is written over all of the disk at the end. */
enum { LAST_CONTENT = 4711 };

static const unsigned char magic[4] = { 'Q', 'F', 'I', 0xfb };

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static struct qcow2_disk *
try_open(struct job_trial *t, struct mem *m, bool readonly, bool alone,
         struct qcow2_error *err)
{
    return job_open_io(t, io_mem_open(m, readonly), readonly, alone, err);
}

static struct qcow2_disk *
open_mem(struct job_trial *t, struct mem *m, bool readonly, bool alone)
{
    struct qcow2_error err;
    struct qcow2_disk *disk = try_open(t, m, readonly, alone, &err);

    EXPECT(disk, "open: %s", err.text);
    return disk;
}

static struct audit
audit_of(struct mem *m)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(m, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    return a;
}

static unsigned char *
read_all(struct qcow2_disk *disk, uint64_t size)
{
    unsigned char *got = must_have(calloc(1, size + 1));
    struct qcow2_error err;

    EXPECT_OK(qcow2_pread(disk, got, size, 0, &err), &err);
    return got;
}

static int
note_present(void *opaque, const struct qcow2_extent *e)
{
    bool *is_there = opaque;

    if (e->present)
        memset(is_there + e->guest_off, 1, e->nr_bytes);
    return 0;
}

/* What a snapshot shows; opened alone, where it has that itself. */
static void
expect_snapshot(struct qcow2_disk *s, const unsigned char *want,
                uint64_t size, bool alone)
{
    bool *is_there = must_have(calloc(size, sizeof *is_there));
    unsigned char *got = read_all(s, size);
    struct qcow2_error err;

    EXPECT_OK(qcow2_map(s, size, 0, note_present, is_there, &err), &err);
    for (uint64_t i = 0; i < size; i++)
        if (alone && !is_there[i])
            got[i] = want[i];
    expect_same("snapshot", got, want, size, 0);
    free(is_there);
    free(got);
}

/* The snapshots that the recipe has, on what stands below it. */
static void
expect_snapshots(struct qcow2_disk *disk, const struct builder *b,
                 const struct builder *below, bool alone)
{
    for (size_t i = 0; i < qcow2_get_nr_snapshots(disk); i++) {
        uint64_t size = builder_disk_size(b, i);
        unsigned char *want = must_have(calloc(1, size));
        struct qcow2_snapshot info;
        struct qcow2_disk *s;
        struct qcow2_error err;

        snapshot_get(disk, i, &info);
        s = qcow2_open_snapshot(disk, info.id, &err);
        EXPECT(s, "%s", err.text);
        if (below) {
            uint64_t n = builder_disk_size(below, -1);

            builder_overlay(below, -1, want, n < size ? n : size);
        }
        builder_overlay(b, i, want, size);
        expect_snapshot(s, want, size, alone);
        EXPECT_OK(qcow2_close(s, &err), &err);
        free(want);
    }
}

/* All can be written; two owners of a cluster would show. */
static void
use(struct qcow2_disk *disk, const struct builder *b,
    const struct builder *below, bool alone)
{
    uint64_t size = qcow2_get_size(disk);
    unsigned char *want = must_have(malloc(size + 1)), *got;
    struct qcow2_error err;

    pattern_fill(want, size, LAST_CONTENT, 0);
    EXPECT_OK(qcow2_pwrite(disk, want, size, 0, 0, &err), &err);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    got = read_all(disk, size);
    expect_same("rewritten disk", got, want, size, 0);
    if (b)
        expect_snapshots(disk, b, below, alone);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(got);
    free(want);
}

/* A check finds the used image in order, or mends what leaked. */
static void
expect_settled(struct mem *m, const struct audit *before)
{
    struct qcow2_check_options options = { .repair = QCOW2_REPAIR_ALL };
    struct qcow2_check_result result;
    struct audit a = audit_of(m);
    struct qcow2_error err;
    struct io *io;

    EXPECT(a.nr_corruptions + a.nr_uncopied == 0 && !a.dirty,
           "used: %u corruptions (%s), %u without COPIED", a.nr_corruptions,
           a.first, a.nr_uncopied);
    EXPECT(a.nr_leaks <= before->nr_leaks, "used: %u leaks became %u",
           before->nr_leaks, a.nr_leaks);
    io = io_mem_open(m, false);
    EXPECT_OK(check_io(io, &options, &result, &err), &err);
    io_close(io);
    EXPECT(result.corruptions + result.leaks == 0
           && result.corruptions_fixed == 0, "repair leaves something");
    a = audit_of(m);
    EXPECT(audit_is_clean(&a), "repaired: %s, %u leaks", a.first,
           a.nr_leaks);
}

static bool
is_zero(const unsigned char *p, uint64_t n)
{
    while (n > 0 && p[n - 1] == 0)
        n--;
    return n == 0;
}

/* Nothing of what was in the file before shows in parts of clusters. */
static void
check_new_image(struct job_trial *t, struct mem *m)
{
    struct audit before = states_expect_sound(m);
    struct qcow2_disk *disk = open_mem(t, m, false, true);
    unsigned char *got = read_all(disk, t->size);
    struct qcow2_error err;

    EXPECT(qcow2_get_size(disk) == t->size, "%llu bytes",
           (unsigned long long)qcow2_get_size(disk));
    EXPECT(is_zero(got, t->size), "it is not empty");
    free(got);
    for (uint64_t off = 700; off < t->size; off += 5000)
        EXPECT_OK(qcow2_pwrite(disk, "x", 1, off, 0, &err), &err);
    EXPECT_OK(qcow2_flush(disk, &err), &err);
    got = read_all(disk, t->size);
    for (uint64_t off = 700; off < t->size; off += 5000)
        got[off] -= 'x';
    EXPECT(is_zero(got, t->size), "old bytes show around new ones");
    free(got);
    use(disk, NULL, NULL, false);
    expect_settled(m, &before);
}

static void
check_create(struct job_trial *t, struct mem *m, bool done)
{
    uint64_t nr_bytes, nr_old;
    const unsigned char *bytes = mem_bytes(m, &nr_bytes);
    const unsigned char *old = mem_bytes(t->files[0], &nr_old);
    struct qcow2_disk *disk;
    struct qcow2_error err;

    if (nr_bytes == nr_old && memcmp(bytes, old, nr_old) == 0) {
        EXPECT(!done, "nothing was done");
        return;
    }
    if (nr_bytes >= 4 && memcmp(bytes, magic, 4) == 0) {
        check_new_image(t, m);
        return;
    }
    EXPECT(!done, "no image");
    disk = try_open(t, m, true, true, &err);
    EXPECT(!disk, "half an image was opened");
}

/* Each sector is as before or as after. */
static void
expect_old_or_new(const struct job_trial *t, const unsigned char *got,
                  bool done)
{
    for (uint64_t off = 0; off < t->size; off += 512) {
        size_t n = t->size - off < 512 ? t->size - off : 512;
        bool new = memcmp(got + off, t->after + off, n) == 0;

        EXPECT(new || (!done && memcmp(got + off, t->before + off, n) == 0),
               "the sector at 0x%llx reads wrong", (unsigned long long)off);
    }
}

static bool
is_rebase(const struct job_trial *t)
{
    return t->scene->kind == JOB_REBASE
           || t->scene->kind == JOB_REBASE_HEADER;
}

static bool
names(struct mem *m, const char *name)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(m, &nr_bytes);
    size_t off = bytes[14] << 8 | bytes[15], len = bytes[19];

    return len == strlen(name) && off + len <= nr_bytes
           && memcmp(bytes + off, name, len) == 0;
}

/* Which backing file it is on. */
static const struct builder *
backing_of(const struct job_trial *t, struct mem *m, bool done)
{
    bool is_old = names(m, "below");
    bool is_new = names(m, t->other ? "other" : "");

    if (!is_rebase(t))
        return NULL;
    EXPECT(is_old != is_new && (is_new || !done), "the header names neither "
           "the old nor the new backing file");
    return is_old ? t->below : t->other;
}

static void
check_image(struct job_trial *t, struct mem *m, bool done)
{
    bool repair = t->scene->kind == JOB_REPAIR
                  || t->scene->kind == JOB_OPEN_DIRTY;
    const struct builder *below = backing_of(t, m, done);
    struct audit before = repair && !done ? audit_of(m)
                                          : states_expect_sound(m);
    struct qcow2_disk *disk = open_mem(t, m, true, !is_rebase(t));
    unsigned char *got = read_all(disk, t->size);
    struct qcow2_check_options options = { .repair = QCOW2_REPAIR_ALL };
    struct qcow2_check_result result;
    struct qcow2_error err;
    struct io *io;

    EXPECT(qcow2_get_size(disk) == t->size, "size");
    expect_old_or_new(t, got, done);
    /* The rebase of a header alone is the user's word for it. */
    if (t->scene->kind == JOB_REBASE)
        below = t->below;
    expect_snapshots(disk, t->image, below, false);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(got);
    EXPECT(!repair || !done || audit_is_clean(&before), "not repaired: %s",
           before.first);
    if (t->scene->kind == JOB_REPAIR) {
        io = io_mem_open(m, false);
        EXPECT_OK(check_io(io, &options, &result, &err), &err);
        io_close(io);
        before = audit_of(m);
        EXPECT(audit_is_clean(&before), "repaired again: %s", before.first);
    }
    disk = open_mem(t, m, false, !is_rebase(t));
    if (t->scene->kind == JOB_OPEN_DIRTY) {
        struct audit a = audit_of(m);

        EXPECT(audit_is_clean(&a), "opened, but not repaired: %s", a.first);
    }
    use(disk, t->image, below, false);
    expect_settled(m, &before);
}

static void
check_base(struct job_trial *t, struct mem *m, bool done)
{
    struct audit before = states_expect_sound(m);
    struct qcow2_disk *disk = open_mem(t, m, false, true);
    uint64_t size = qcow2_get_size(disk);
    unsigned char *got;

    EXPECT((size == t->base_size && !done) || size == t->size, "%llu bytes",
           (unsigned long long)size);
    got = must_have(realloc(read_all(disk, size), t->size + size));
    if (size < t->size)
        memset(got + size, 0, t->size - size);
    for (uint64_t i = 0; i < t->size; i++)
        EXPECT(t->own[i] ? !done || got[i] == t->before[i]
                         : got[i] == t->held[i], "byte %llu of the base",
               (unsigned long long)i);
    free(got);
    expect_snapshots(disk, t->below, NULL, false);
    use(disk, t->below, NULL, false);
    expect_settled(m, &before);
}

static void
check_overlay(struct job_trial *t, struct mem *m, bool done)
{
    bool *is_there = must_have(calloc(t->size, sizeof *is_there));
    struct audit before = states_expect_sound(m);
    struct qcow2_disk *disk = open_mem(t, m, false, true);
    unsigned char *got = read_all(disk, t->size);
    struct qcow2_error err;

    EXPECT_OK(qcow2_map(disk, t->size, 0, note_present, is_there, &err),
              &err);
    for (uint64_t i = 0; i < t->size; i++)
        EXPECT(!is_there[i] || (!done && got[i] == t->before[i]),
               "byte %llu of the overlay", (unsigned long long)i);
    free(got);
    free(is_there);
    expect_snapshots(disk, t->image, t->below, true);
    use(disk, t->image, t->below, true);
    expect_settled(m, &before);
}

void
job_check(struct job_trial *t, unsigned file, struct mem *m, bool done)
{
    switch (t->scene->kind) {
    case JOB_CREATE:
    case JOB_CREATE_ON_DEVICE:
        check_create(t, m, done);
        break;
    case JOB_COMMIT:
        if (file == 0)
            check_overlay(t, m, done);
        else
            check_base(t, m, done);
        break;
    case JOB_CONVERT:
    case JOB_COMPRESS:
    case JOB_REBASE:
    case JOB_REBASE_HEADER:
    case JOB_REPAIR:
    case JOB_OPEN_DIRTY:
        check_image(t, m, done);
        break;
    }
}

void
job_check_together(struct job_trial *t, struct mem *const *files)
{
    struct qcow2_disk *disk;
    struct qcow2_error err;
    unsigned char *got;

    if (t->scene->kind != JOB_COMMIT)
        return;
    mem_save(files[1], tmpdir_path("below"));
    disk = open_mem(t, files[0], true, false);
    got = read_all(disk, t->size);
    expect_same("overlay on the base", got, t->before, t->size, 0);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(got);
    builder_write(t->below, tmpdir_path("below"));
}

void
job_check_files(struct job_trial *t, struct mem *const *files, bool done)
{
    job_check_together(t, files);
    for (unsigned i = 0; i < t->nr_files; i++) {
        struct mem *copy = mem_copy(files[i]);

        expect_step("file %u, %s", i, done ? "done" : "failed");
        job_check(t, i, copy, done);
        mem_free(copy);
    }
}
