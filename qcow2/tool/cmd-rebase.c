/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-rebase.c: another backing file, or none. */
#include "tool.h"
#include "name.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    { 'b', NULL, "FILE", "the new backing file, relative to the image's "
      "directory; '': none, all is copied into the image" },
    { 'F', NULL, "FMT", "format of the new backing file" },
    { 'u', "backing-unsafe", NULL,
      "change the name alone: right if both files have the "
      "same content; without -b: name none" },
    OPTION_SNAPSHOTS,
    OPTION_CACHE('t', "cache", "cache mode of the image"),
    OPTION_CACHE('T', "backing-cache", "cache mode of backing files"),
    { 'U', "force-share", NULL, "take no locks on backing files, for those "
      "that are in use; what is read may be inconsistent" },
    OPTION_PROGRESS,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_QUIET,
    OPTION_END,
};

struct request {
    const char *path;
    struct qcow2_rebase_options rebase;
    struct disk_args disk;
};

static struct qcow2_job *
begin(void *opaque, enum qcow2_left_to_backing snapshots,
      struct qcow2_error *err)
{
    struct request *q = opaque;

    q->rebase.snapshots = snapshots;
    return qcow2_rebase(q->path, &q->disk.options, &q->rebase, err);
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    enum qcow2_left_to_backing snapshots = QCOW2_SNAPSHOTS_REFUSE;
    struct request q = { .disk = DISK_ARGS_INIT };
    struct qcow2_rebase_options *rebase = &q.rebase;
    bool show = false, quiet = false;
    const char *backing = NULL;
    int key, status;
    struct args a;

    args_start(&a, verb, argc, argv);
    args_withdraw(KEY_BACKING); /* another one would be refused */
    while ((key = args_next(&a)) != -1) {
        if (key == 'b')
            backing = a.value;
        else if (key == 'F')
            rebase->backing_format = parse_format(&a, a.value);
        else if (key == 'u')
            rebase->header_only = true;
        else if (key == 'U')
            q.disk.options.no_lock_backing = true;
        else if (key == KEY_KEEP_SNAPSHOTS)
            snapshots = QCOW2_SNAPSHOTS_KEEP;
        else if (key == KEY_CHANGE_SNAPSHOTS)
            snapshots = QCOW2_SNAPSHOTS_CHANGE;
        else if (key == 't')
            q.disk.options.cache = parse_cache(&a);
        else if (key == 'T')
            q.disk.options.backing_cache = parse_cache(&a);
        else if (key == 'p')
            show = true;
        else if (key == 'q')
            quiet = true;
        else
            disk_args_take(&q.disk, &a, key);
    }
    args_need(&a, 1, "one image");
    args_withdraw('U'); /* it does not help where the image itself is used */
    if (!backing && !rebase->header_only)
        usage_error(verb, "say the new backing file: -b FILE, or -b '' for "
                    "none");
    if (!backing)
        backing = "";
    if (*backing)
        backing = name_path(&a, backing, &rebase->backing_format);
    if (*backing && rebase->backing_format == QCOW2_FORMAT_AUTO)
        usage_error(verb, "say the format of the new backing file: -F qcow2 "
                    "or -F raw");
    rebase->backing = *backing ? backing : NULL;
    q.path = disk_args_name(&q.disk, &a, a.operands[0]);
    disk_args_need_writable(&q.disk, &a, a.operands[0]);
    status = job_finish_overlay(begin, &q, snapshots, show, quiet);
    disk_args_free(&q.disk);
    return status;
}

const struct verb verb_rebase = {
    .name = "rebase",
    .summary = "Give an image another backing file, or none, so that it "
               "reads the same.",
    .operands = "[OPTION...] -b FILE -F FMT IMAGE\n"
                "[OPTION...] -b '' IMAGE",
    .options = options,
    .notes = "Where old and new backing file differ, the old content is "
             "copied into the image first. Where snapshots of the image would "
             "read differently, it is refused, unless one of the options "
             "allows it; -u asks for nothing.",
    .example = "qcow2-img rebase -b newbase.qcow2 -F qcow2 overlay.qcow2\n"
               "qcow2-img rebase -p -b '' overlay.qcow2",
    .run = run,
};
