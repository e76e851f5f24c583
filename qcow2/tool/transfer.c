/* SPDX-License-Identifier: BSD-3-Clause */
/* transfer.c: opens the sources, and copies them; see transfer.h. */
#include "transfer.h"

void
transfer_take(struct transfer *c, const struct args *a, int key)
{
    switch (key) {
    case 't':
    case 'T':
        parse_cache(a);
        break;
    case KEY_NO_CLOBBER:
        c->image.create.overwrite = false;
        break;
    case 'p':
        c->progress = true;
        break;
    case 'q':
        c->quiet = true;
        break;
    default:
        disk_args_take(&c->disk, a, key);
    }
}

static int
copy(struct transfer *c, struct qcow2_disk **sources)
{
    struct qcow2_convert_options *o = &c->convert;
    struct qcow2_options open = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;

    open.allow = c->disk.options.allow;
    open.nr_allow = c->disk.options.nr_allow;
    open.failures = failures;
    o->open = &open;
    o->format = c->image.format;
    o->create = c->image.create;
    o->create.allow = open.allow;
    o->create.nr_allow = open.nr_allow;
    o->prealloc = c->image.prealloc;
    o->has_backing = c->image.create.backing;
    return job_finish(qcow2_convert(sources, c->nr_sources, c->target, o,
                                    &err),
                      c->progress, c->quiet, &err);
}

int
transfer_run(struct transfer *c)
{
    struct qcow2_disk **sources = check_memory(calloc(c->nr_sources,
                                                      sizeof *sources));
    int status = EXIT_SUCCESS;
    size_t nr = 0;

    while (nr < c->nr_sources && status == EXIT_SUCCESS) {
        sources[nr] = disk_open_view(c->sources[nr], &c->disk, c->snapshot);
        if (sources[nr])
            nr++;
        else
            status = EXIT_FAILURE;
    }
    if (status == EXIT_SUCCESS)
        status = copy(c, sources);
    while (nr > 0)
        qcow2_close(sources[--nr], NULL);
    free(sources);
    return status;
}

void
transfer_free(struct transfer *c)
{
    image_args_free(&c->image);
    disk_args_free(&c->disk);
}
