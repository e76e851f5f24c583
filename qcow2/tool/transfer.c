/* SPDX-License-Identifier: BSD-3-Clause */
/* transfer.c: opens the sources, and copies them; see transfer.h. */
#include <string.h>
#include <unistd.h>

#include "transfer.h"


void
transfer_take(struct transfer *c, const struct args *a, int key)
{
    switch (key) {
    case 't':
        c->target_cache = parse_cache(a);
        break;
    case 'T':
        disk_args_set_cache(&c->disk, parse_cache(a));
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
copy(struct transfer *c, const char *target, struct qcow2_disk **sources)
{
    struct qcow2_convert_options *o = &c->convert;
    struct qcow2_options open = QCOW2_OPTIONS_INIT;
    struct qcow2_error err;

    open.allow = c->disk.options.allow;
    open.nr_allow = c->disk.options.nr_allow;
    open.cache = c->target_cache;
    name_apply(&c->target_settings, &open);
    open.failures = failures;
    open.warn = report_engine_warning;
    o->open = &open;
    o->format = c->image.format;
    o->create = c->image.create;
    o->create.allow = open.allow;
    o->create.nr_allow = open.nr_allow;
    o->create.failures = failures;
    o->prealloc = c->image.prealloc;
    o->has_backing = c->image.create.backing;
    return job_finish(qcow2_convert(sources, c->nr_sources, target, o,
                                    &err),
                      c->progress, c->quiet, &err);
}

/* A source as its name says; what --source-backing says is for all of them. */
struct source {
    const char *path;
    struct disk_args args;
};

static struct source *
name_sources(const struct transfer *c, const struct args *a)
{
    struct source *s = check_memory(calloc(c->nr_sources, sizeof *s));

    for (size_t i = 0; i < c->nr_sources; i++) {
        s[i].args = c->disk;
        s[i].path = disk_args_name(&s[i].args, a, c->sources[i]);
    }
    return s;
}

static const char *
name_target(struct transfer *c, const struct args *a)
{
    struct name n;

    if (!c->target_opts && !c->convert.no_create)
        return name_path(a, c->target, &c->image.format);
    n = name_parse(a, c->target, c->target_opts);
    if (n.backing || n.backing_none)
        name_error(a, c->target, "'backing' has no meaning here");
    if (n.settings.read_only == NAME_ON)
        name_error(a, c->target, "'read-only' is on, but it is to be "
                   "written");
    if (!c->target_opts)
        name_settle_format(a, c->target, n.format, &c->image.format);
    else
        c->image.format = n.format;
    c->target_settings = n.settings;
    return n.path;
}

/* The sources may stand on the backing file that the user chose for the
 * target: it needs no leave there either. */
static void
allow_backing(struct transfer *c, const char *target)
{
    const char *name = c->image.create.backing;

    if (!name)
        return;
    c->backing = disk_join_name(target, name);
    if (strstr(name, "://") || access(c->backing, F_OK) == 0)
        disk_args_allow(&c->disk, c->backing);
}

int
transfer_run(struct transfer *c, const struct args *a)
{
    const char *target = name_target(c, a);
    struct qcow2_disk **sources = check_memory(calloc(c->nr_sources,
                                                      sizeof *sources));
    int status = EXIT_SUCCESS;
    struct source *named;
    size_t nr = 0;

    allow_backing(c, target);
    named = name_sources(c, a);
    while (nr < c->nr_sources && status == EXIT_SUCCESS) {
        sources[nr] = disk_open_view(named[nr].path, &named[nr].args,
                                     c->snapshot);
        if (sources[nr])
            nr++;
        else
            status = EXIT_FAILURE;
    }
    args_withdraw('U'); /* the target is always locked, */
    args_withdraw(KEY_BACKING); /* and stands on what it names */
    if (status == EXIT_SUCCESS)
        status = copy(c, target, sources);
    while (nr > 0)
        qcow2_close(sources[--nr], NULL);
    free(sources);
    free(named);
    return status;
}

void
transfer_free(struct transfer *c)
{
    free(c->backing);
    image_args_free(&c->image);
    disk_args_free(&c->disk);
}
