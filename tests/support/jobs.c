/* SPDX-License-Identifier: BSD-3-Clause */
/* jobs.c: see jobs.h. */
#include "jobs.h"

#include <stdlib.h>

#include "check/check.h"
#include "disk/create.h"
#include "disk/open.h"
#include "expect.h"
#include "format/first-read.h"
#include "job/commit.h"
#include "job/convert.h"
#include "job/rebase.h"
#include "tmpdir.h"

enum {
    NEW_BYTES = 41472,    /* of a disk that is created */
    DEVICE_BYTES = 65536,
};

const struct job_scene job_scenes[] = {
    { "create", JOB_CREATE, NULL, NULL, NULL },
    { "create over an image", JOB_CREATE,
      "cluster 1K; size 41000; data 0-9 1; snapshot 1 s", NULL, NULL },
    { "create on a device", JOB_CREATE_ON_DEVICE, NULL, NULL, NULL },
    { "create on a device with an image", JOB_CREATE_ON_DEVICE,
      "cluster 512; size 41000; data 0-9 1; snapshot 1 s", NULL, NULL },
    { "convert to a new image", JOB_CONVERT,
      "cluster 512; refcount-bits 64; size 41000", NULL,
      "cluster 1K; size 41000; data 0-12 1; zero 15; compressed 20-22 2" },
    { "convert over data and a snapshot", JOB_CONVERT,
      "cluster 512; refcount-bits 64; size 41000; data 0-30 5;"
      "snapshot 1 s; data 3-9 6; compressed 40-42 7; gap 3", NULL,
      "cluster 512; size 30000; data 0-9 1; zero 15; data 25-28 3" },
    { "convert, compressed", JOB_COMPRESS,
      "cluster 512; refcount-bits 64; size 41000", NULL,
      "cluster 512; size 41000; data 0-40 1" },
    { "convert, compressed, over data and a snapshot", JOB_COMPRESS,
      "cluster 1K; size 41000; data 0-10 5; compressed 11-14 4;"
      "snapshot 1 s; data 3-9 6; gap 3", NULL,
      "cluster 1K; size 41000; data 2-12 1; data 20-30 3" },
    { "commit", JOB_COMMIT,
      "cluster 512; refcount-bits 64; size 41000; backing below qcow2;"
      "data 2-4 5; zero 5-6; compressed 8-9 6; data 70-72 7; snapshot 1 s;"
      "data 2 8; zero 70; unallocated 9",
      "cluster 512; refcount-bits 64; size 41000; data 0-9 1; zero 12-13;"
      "compressed 20-22 2; snapshot 1 s; data 3 4", NULL },
    { "commit to a shorter base of version 2", JOB_COMMIT,
      "cluster 1K; size 41000; backing below qcow2; data 2-4 5; zero 7;"
      "data 39-40 7",
      "version 2; cluster 512; size 20000; data 0-9 1", NULL },
    { "commit with subclusters", JOB_COMMIT,
      "cluster 16K; extended-l2; refcount-bits 64; size 41000;"
      "backing below qcow2; subclusters 0 uddzu 5; compressed 1 6;"
      "snapshot 1 s; subclusters 2 duz 8; subclusters 0 uuudz 9",
      "cluster 16K; extended-l2; size 41000; subclusters 0 ddzzudu 1;"
      "data 1 2; snapshot 1 s; subclusters 0 zdu 3", NULL },
    { "rebase", JOB_REBASE,
      "cluster 1K; size 41000; backing below qcow2; data 2-4 5; zero 5;"
      "compressed 8-9 6; snapshot 1 s; data 3 8",
      "cluster 512; size 41000; data 0-9 1; data 20-50 2",
      "cluster 512; size 30000; data 0-8 1; data 15-30 4" },
    { "rebase to nothing", JOB_REBASE,
      "cluster 1K; refcount-bits 64; size 41000; backing below qcow2;"
      "data 2-4 5; zero 5",
      "cluster 512; size 41000; data 0-9 1; data 40-60 2", NULL },
    { "rebase with subclusters", JOB_REBASE,
      "cluster 16K; extended-l2; size 41000; backing below qcow2;"
      "subclusters 0 dduzudu 5; zero 1; snapshot 1 s; subclusters 0 udu 8;"
      "subclusters 2 uz",
      "cluster 512; size 41000; data 0-9 1; data 20-50 2",
      "cluster 512; size 30000; data 0-8 1; data 15-30 4" },
    { "rebase in version 2", JOB_REBASE,
      "version 2; cluster 512; size 30000; backing below qcow2; data 2-4 5",
      "cluster 512; size 41000; data 0-9 1",
      "cluster 512; size 41000; data 0-8 1; data 15-20 4" },
    { "rebase, header only", JOB_REBASE_HEADER,
      "cluster 1K; size 41000; backing below qcow2;"
      "extension 0x12345678 kept; data 2-4 5; zero 5",
      "cluster 512; size 41000; data 0-9 1",
      "cluster 1K; size 41000; data 0-4 1" },
    { "repair", JOB_REPAIR,
      "cluster 512; refcount-bits 64; size 41000; data 0-9 1; leak 3;"
      "snapshot 1 s; data 3 4; data 70-75 2;"
      "poke refcount[@data[1]/C] = 0;"
      "poke refcount[@data[70]/C] = 5;"
      "poke l2[0] | 0x8000000000000000; poke l2[70] & 0x7fffffffffffffff",
      NULL, NULL },
    { "repair by new refcounts", JOB_REPAIR,
      "cluster 512; refcount-bits 16; size 41000; data 0-30 1; leak 3;"
      "poke reftable[0] = 0", NULL, NULL },
    { "repair with subclusters", JOB_REPAIR,
      "cluster 16K; extended-l2; refcount-bits 64; size 41000; data 0 1;"
      "subclusters 1 dzu 2; compressed 2 3; leak 2; snapshot 1 s;"
      "subclusters 0 zdu 4; poke refcount[@data[1]/C] = 0;"
      "poke l2[1] | 0x8000000000000000;"
      "poke l2[0] & 0x7fffffffffffffff", NULL, NULL },
    { "open with refcounts not written", JOB_OPEN_DIRTY,
      "cluster 512; refcount-bits 64; size 41000; compatible 0;"
      "incompatible 0; data 0-9 1; data 70-75 2; compressed 20-23 3;"
      "poke refcount[@data[4]/C] = 0;"
      "poke refcount[@data[5]/C] = 0;"
      "poke refcount[@data[70]/C] = 0", NULL, NULL },
    { "open after a cut snapshot", JOB_OPEN_DIRTY,
      "cluster 512; refcount-bits 16; size 41000; incompatible 0;"
      "data 0-9 1; snapshot 1 s; data 3 4; data 70-75 2; leak 5;"
      "poke refcount[@data[4]/C] = 3;"
      "poke refcount[@data[70]/C] = 2;"
      "poke l2[71] & 0x7fffffffffffffff", NULL, NULL },
};
const unsigned nr_job_scenes = sizeof job_scenes / sizeof job_scenes[0];

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static struct builder *
build(const char *recipe)
{
    struct builder *b = builder_new();

    builder_add(b, "%s", recipe);
    return b;
}

static struct mem *
mem_of(struct builder *b)
{
    size_t nr_bytes;
    const unsigned char *bytes = builder_bytes(b, &nr_bytes);

    return mem_new(bytes, nr_bytes);
}

static bool
creates(const struct job_trial *t)
{
    return t->scene->kind == JOB_CREATE
           || t->scene->kind == JOB_CREATE_ON_DEVICE;
}

/* What it is created over: junk, with an image in front or without. */
static struct mem *
device(const unsigned char *bytes, size_t nr_bytes)
{
    struct mem *m = mem_new_device(DEVICE_BYTES);
    struct io *io = io_mem_open(m, false);

    EXPECT(io_pwrite(io, bytes, nr_bytes, 0, NULL) == 0, "device");
    io_close(io);
    return m;
}

static void
begin_create(struct job_trial *t)
{
    const unsigned char *bytes = NULL;
    size_t nr_bytes = 0;

    if (t->image)
        bytes = builder_bytes(t->image, &nr_bytes);
    t->size = NEW_BYTES;
    t->files[0] = t->scene->kind == JOB_CREATE_ON_DEVICE
                  ? device(bytes, nr_bytes)
                  : mem_new(bytes, nr_bytes);
}

static void
begin_commit(struct job_trial *t)
{
    unsigned char *inverse = must_have(calloc(1, t->size));

    t->nr_files = 2;
    t->files[1] = mem_of(t->below);
    t->base_size = builder_disk_size(t->below, -1);
    t->held = must_have(calloc(1, t->size));
    t->own = must_have(calloc(t->size, sizeof *t->own));
    builder_overlay(t->below, -1, t->held, t->base_size);
    for (uint64_t i = 0; i < t->size; i++)
        inverse[i] = ~t->held[i];
    builder_overlay(t->image, -1, inverse, t->size);
    for (uint64_t i = 0; i < t->size; i++)
        t->own[i] = inverse[i] == t->before[i];
    free(inverse);
}

static void
begin_convert(struct job_trial *t)
{
    memset(t->after, 0, builder_disk_size(t->other, -1));
    builder_overlay(t->other, -1, t->after,
                    builder_disk_size(t->other, -1));
}

void
job_begin(struct job_trial *t, const struct job_scene *scene)
{
    memset(t, 0, sizeof *t);
    t->scene = scene;
    t->pool = must_have(qcow2_pool_new(0, NULL));
    t->nr_files = 1;
    t->image = scene->file ? build(scene->file) : NULL;
    t->below = scene->below ? build(scene->below) : NULL;
    t->other = scene->other ? build(scene->other) : NULL;
    if (t->below)
        builder_write(t->below, tmpdir_path("below"));
    if (t->other)
        builder_write(t->other, tmpdir_path("other"));
    if (creates(t)) {
        begin_create(t);
        return;
    }
    t->files[0] = mem_of(t->image);
    t->size = builder_disk_size(t->image, -1);
    t->before = must_have(calloc(1, t->size));
    t->after = must_have(malloc(t->size));
    if (t->below) {
        uint64_t n = builder_disk_size(t->below, -1);

        builder_overlay(t->below, -1, t->before, n < t->size ? n : t->size);
    }
    builder_overlay(t->image, -1, t->before, t->size);
    memcpy(t->after, t->before, t->size);
    if (scene->kind == JOB_COMMIT)
        begin_commit(t);
    if (scene->kind == JOB_CONVERT || scene->kind == JOB_COMPRESS)
        begin_convert(t);
}

void
job_end(struct job_trial *t)
{
    for (unsigned i = 0; i < t->nr_files; i++)
        mem_free(t->files[i]);
    builder_free(t->image);
    builder_free(t->below);
    builder_free(t->other);
    qcow2_pool_free(t->pool);
    free(t->before);
    free(t->after);
    free(t->held);
    free(t->own);
}

struct qcow2_disk *
job_open_io(struct job_trial *t, struct io *io, bool readonly, bool alone,
            struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;

    options.format = QCOW2_FORMAT_QCOW2;
    options.readonly = readonly;
    options.backing_none = alone;
    options.pool = t->pool;
    options.failures = t->failures;
    return disk_open_io(io, tmpdir_path("image"), &options, err);
}

static int
run_create(struct io *io, struct qcow2_error *err)
{
    const struct qcow2_create_options options = {
        .size = NEW_BYTES, .cluster_size = 512, .refcount_bits = 64,
    };
    int r = create_io(io, &options, err);

    io_close(io);
    return r;
}

static int
run_job(struct qcow2_job *job, struct qcow2_error *err)
{
    int r = job ? qcow2_job_run(job, NULL, NULL, err) : -1;

    qcow2_job_free(job);
    return r;
}

static struct qcow2_disk *
open_other(struct job_trial *t, struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;

    options.readonly = true;
    options.pool = t->pool;
    return qcow2_open(tmpdir_path("other"), &options, err);
}

static int
run_convert(struct job_trial *t, struct io *io, struct qcow2_error *err)
{
    const struct qcow2_convert_options options = {
        .no_create = true, .format = QCOW2_FORMAT_QCOW2,
        .compress = t->scene->kind == JOB_COMPRESS, .nr_threads = 3,
    };
    struct qcow2_disk *target = job_open_io(t, io, false, true, err);
    struct qcow2_disk *source;
    int r = -1;

    if (!target)
        return -1;
    source = open_other(t, err);
    if (source)
        r = run_job(convert_new(&source, 1, target, &options, err), err);
    else
        qcow2_close(target, NULL);
    qcow2_close(source, NULL);
    return r;
}

static int
run_commit(struct job_trial *t, struct io *const *io,
           struct qcow2_error *err)
{
    struct qcow2_disk *top = job_open_io(t, io[0], false, true, err), *base;

    if (!top) {
        io_close(io[1]);
        return -1;
    }
    /* It names the base, above which its chain ends. */
    disk_image(top)->overridden = false;
    base = job_open_io(t, io[1], false, true, err);
    if (!base) {
        qcow2_close(top, NULL);
        return -1;
    }
    return run_job(commit_new(top, base, true, QCOW2_SNAPSHOTS_KEEP,
                              err), err);
}

static int
run_rebase(struct job_trial *t, struct io *io, struct qcow2_error *err)
{
    const struct qcow2_rebase_options rebase = {
        .backing = t->other ? "other" : NULL,
        .backing_format = t->other ? QCOW2_FORMAT_QCOW2 : QCOW2_FORMAT_AUTO,
        .header_only = t->scene->kind == JOB_REBASE_HEADER,
        .snapshots = QCOW2_SNAPSHOTS_KEEP,
    };
    struct qcow2_disk *top = job_open_io(t, io, false, false, err);
    struct qcow2_disk *below = NULL;

    if (!top)
        return -1;
    if (t->other && !rebase.header_only) {
        below = open_other(t, err);
        if (!below) {
            qcow2_close(top, NULL);
            return -1;
        }
    }
    return run_job(rebase_new(top, below, &rebase, err), err);
}

static int
run_repair(struct job_trial *t, struct io *io, struct qcow2_error *err)
{
    const struct qcow2_check_options options = { .repair = QCOW2_REPAIR_ALL };
    struct qcow2_check_result result;
    int r = first_read_prepare(io, t->failures, false, err);

    if (r == 0)
        r = check_io(io, &options, &result, err);
    io_close(io);
    return r;
}

static int
run_open(struct job_trial *t, struct io *io, struct qcow2_error *err)
{
    struct qcow2_disk *disk = job_open_io(t, io, false, true, err);

    return disk ? qcow2_close(disk, err) : -1;
}

int
job_run(struct job_trial *t, struct io *const *io, struct qcow2_error *err)
{
    switch (t->scene->kind) {
    case JOB_CREATE:
    case JOB_CREATE_ON_DEVICE:
        return run_create(io[0], err);
    case JOB_CONVERT:
    case JOB_COMPRESS:
        return run_convert(t, io[0], err);
    case JOB_COMMIT:
        return run_commit(t, io, err);
    case JOB_REBASE:
    case JOB_REBASE_HEADER:
        return run_rebase(t, io[0], err);
    case JOB_REPAIR:
        return run_repair(t, io[0], err);
    case JOB_OPEN_DIRTY:
        return run_open(t, io[0], err);
    }
    return -1;
}
