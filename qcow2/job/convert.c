/* SPDX-License-Identifier: BSD-3-Clause */
/* convert.c: copies disks to another image. */
#include "job/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "edit/bitmap.h"
#include "job/copy-job.h"

/* Writing to one file, the kernel does one at a time: more threads than this
 * are in each other's way. Compressing wants all CPUs, and latency many. */
enum { DEFAULT_THREADS = 4, MAX_DEFAULT_THREADS = 16 };

enum phase {
    PHASE_PREALLOCATE,
    PHASE_COPY,
    PHASE_PREALLOCATE_AGAIN, /* what copying gave back */
    PHASE_BITMAPS,
    PHASE_END,
    NR_PHASES,
};

struct convert {
    struct copy_job j; /* first */
    struct convert_source source;
    struct convert_target target;
    struct qcow2_disk *bitmaps; /* whose bitmaps are copied, or NULL */
    uint32_t nr_bitmaps;        /* copied so far */
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

static int
run_phase(struct copy_job *j, unsigned phase, struct qcow2_error *err)
{
    struct convert *c = (struct convert *)j;
    int r;

    switch ((enum phase)phase) {
    case PHASE_PREALLOCATE:
    case PHASE_PREALLOCATE_AGAIN:
        return convert_target_preallocate(&c->target, err);
    case PHASE_COPY:
        r = copy_step(&j->copy, err);
        if (r == 0)
            convert_target_restart_preallocation(&c->target);
        return r;
    case PHASE_BITMAPS:
        return c->bitmaps ? bitmap_copy(c->target.disk, c->bitmaps,
                                        c->nr_bitmaps++, err) : 0;
    case PHASE_END:
        return convert_target_close(&c->target, true, err);
    case NR_PHASES:
        break;
    }
    __builtin_unreachable();
}

static void
convert_free(struct copy_job *j)
{
    struct convert *c = (struct convert *)j;

    convert_target_close(&c->target, false, NULL);
    convert_source_free(&c->source);
}

static const struct copy_job_ops convert_ops = {
    .nr_phases = NR_PHASES,
    .run_phase = run_phase,
    .free = convert_free,
    .copy = { .plan = plan, .read = read_chunk, .write = write_chunk },
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
    c->j.copy.end = c->source.size;
    c->j.copy.align = convert_target_align(&c->target);
    c->j.copy.nr_threads = min_u64(o->nr_threads ? o->nr_threads
                                               : default_threads(c),
                                 COPY_MAX_THREADS);
    c->j.copy.out_of_order = o->out_of_order;
    c->j.copy.one_writer = convert_target_is_file(&c->target);
    c->j.copy.needs_space = o->compress;
}

/* Before the target is made. */
static int
set_up_bitmaps(struct convert *c, struct qcow2_disk *const *sources,
               size_t nr_sources, const struct qcow2_convert_options *o,
               struct qcow2_error *err)
{
    if (!o->bitmaps)
        return 0;
    if (nr_sources != 1)
        return error_set(err, EINVAL, "bitmaps are copied from a single "
                         "source only");
    c->bitmaps = sources[0];
    return bitmap_check_copy(sources[0], o->skip_broken_bitmaps, err);
}

static struct convert *
new_convert(struct qcow2_error *err)
{
    struct convert *c = calloc(1, sizeof *c);

    if (c)
        copy_job_init(&c->j, &convert_ops);
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
        || set_up_bitmaps(c, sources, nr_sources, options, err) == -1
        || convert_target_take(&c->target, target, "target", &c->source,
                               options, err) == -1) {
        qcow2_job_free(&c->j.job);
        return NULL;
    }
    set_up_copy(c, options);
    return &c->j.job;
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
        || set_up_bitmaps(c, sources, nr_sources, options, err) == -1
        || convert_target_open(&c->target, target, &c->source, options, err)
           == -1) {
        qcow2_job_free(&c->j.job);
        return NULL;
    }
    set_up_copy(c, options);
    return &c->j.job;
}
