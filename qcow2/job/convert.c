/* SPDX-License-Identifier: BSD-3-Clause */
/* convert.c: copies disks to another image. */
#include "job/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "job/job.h"

/* Writing to one file, the kernel does one at a time: more threads than this
 * are in each other's way. Compressing wants all CPUs, and latency many. */
enum { DEFAULT_THREADS = 4, MAX_DEFAULT_THREADS = 16 };

enum phase {
    PHASE_PREALLOCATE,
    PHASE_COPY,
    PHASE_PREALLOCATE_AGAIN, /* what copying gave back */
    PHASE_END,
};

struct convert {
    struct qcow2_job job; /* first */
    struct convert_source source;
    struct convert_target target;
    struct copy copy;
    enum phase phase;
};

static int
plan(void *opaque, uint64_t off, uint64_t nr_bytes, enum copy_kind *kind,
     uint64_t *len, struct qcow2_error *err)
{
    struct convert *c = opaque;

    if (convert_source_plan(&c->source, off, nr_bytes, kind, len, err) == -1)
        return -1;
    if (*kind == COPY_ZERO && c->target.allocate_all)
        *kind = COPY_DATA;
    else if (*kind == COPY_ZERO && c->target.reads_zero)
        *kind = COPY_SKIP;
    return 0;
}

static int
read_chunk(void *opaque, struct copy_chunk *chunk, struct qcow2_error *err)
{
    struct convert *c = opaque;

    if (convert_source_read(&c->source, chunk->buf, chunk->nr_bytes,
                            chunk->guest_off, err) == -1)
        return -1;
    return convert_target_prepare(&c->target, chunk, err);
}

static int
write_chunk(void *opaque, struct copy_chunk *chunk, struct qcow2_error *err)
{
    return convert_target_write(&((struct convert *)opaque)->target, chunk,
                                err);
}

static const struct copy_ops copy_ops = {
    .plan = plan,
    .read = read_chunk,
    .write = write_chunk,
};

static int
run_phase(struct convert *c, struct qcow2_error *err)
{
    switch (c->phase) {
    case PHASE_PREALLOCATE:
    case PHASE_PREALLOCATE_AGAIN:
        return convert_target_preallocate(&c->target, err);
    case PHASE_COPY:
        return copy_step(&c->copy, err);
    case PHASE_END:
        return convert_target_close(&c->target, true, err);
    }
    __builtin_unreachable();
}

static int
convert_step(struct qcow2_job *job, struct qcow2_error *err)
{
    struct convert *c = (struct convert *)job;
    int r = run_phase(c, err);

    job->total = c->copy.nr_data;
    job->done = c->copy.nr_done;
    if (r != 0)
        return r;
    if (c->phase == PHASE_COPY)
        convert_target_restart_preallocation(&c->target);
    return c->phase++ == PHASE_END ? 0 : 1;
}

static void
convert_free(struct qcow2_job *job)
{
    struct convert *c = (struct convert *)job;

    convert_target_close(&c->target, false, NULL);
    convert_source_free(&c->source);
    copy_end(&c->copy);
    free(c);
}

static const struct job_ops job_ops = {
    .step = convert_step,
    .free = convert_free,
};

static unsigned
default_threads(const struct convert *c)
{
    long nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (convert_source_is_remote(&c->source))
        return MAX_DEFAULT_THREADS;
    if (!c->target.compress || nr_cpus < DEFAULT_THREADS)
        return DEFAULT_THREADS;
    return min_u64(nr_cpus, MAX_DEFAULT_THREADS);
}

static void
set_up_copy(struct convert *c, const struct qcow2_convert_options *o)
{
    c->copy.ops = &copy_ops;
    c->copy.opaque = c;
    c->copy.end = c->source.size;
    c->copy.align = convert_target_align(&c->target);
    c->copy.nr_threads = min_u64(o->nr_threads ? o->nr_threads
                                               : default_threads(c),
                                 COPY_MAX_THREADS);
    c->copy.out_of_order = o->out_of_order;
    c->copy.one_writer = convert_target_is_file(&c->target);
    c->copy.needs_space = o->compress;
}

static struct convert *
new_convert(struct qcow2_error *err)
{
    struct convert *c = calloc(1, sizeof *c);

    if (c)
        c->job.ops = &job_ops;
    else
        error_nomem(err);
    return c;
}

struct qcow2_job *
convert_new(struct qcow2_disk *const *sources, size_t nr_sources,
            struct qcow2_disk *target,
            const struct qcow2_convert_options *options,
            struct qcow2_error *err)
{
    struct convert *c = new_convert(err);

    if (!c) {
        qcow2_close(target, NULL);
        return NULL;
    }
    c->target.disk = target;
    if (convert_source_init(&c->source, sources, nr_sources, options, err)
        == -1
        || convert_target_take(&c->target, target, "target", &c->source,
                               options, err) == -1) {
        convert_free(&c->job);
        return NULL;
    }
    set_up_copy(c, options);
    return &c->job;
}

struct qcow2_job *
qcow2_convert(struct qcow2_disk *const *sources, size_t nr_sources,
              const char *target,
              const struct qcow2_convert_options *options,
              struct qcow2_error *err)
{
    struct convert *c = new_convert(err);

    if (!c)
        return NULL;
    if (convert_source_init(&c->source, sources, nr_sources, options, err)
        == -1
        || convert_target_open(&c->target, target, &c->source, options, err)
           == -1) {
        convert_free(&c->job);
        return NULL;
    }
    set_up_copy(c, options);
    return &c->job;
}
