/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-commit.c: an overlay's content into its backing file. */
#include "tool.h"
#include "name.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    { 'b', "base", "BASE", "commit into this file of the chain, not into the "
      "image's own backing file; implies -d" },
    { 'd', "drop", NULL, "do not empty the image afterwards" },
    { 'r', "rate-limit", "RATE", "bytes a second, at most" },
    OPTION_CACHE('t', "cache", "cache mode"),
    OPTION_SNAPSHOTS,
    OPTION_PROGRESS,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_QUIET,
    OPTION_END,
};

struct request {
    const char *path;
    struct qcow2_commit_options commit;
    struct disk_args disk;
};

static struct qcow2_job *
begin(void *opaque, enum qcow2_left_to_backing snapshots,
      struct qcow2_error *err)
{
    struct request *q = opaque;

    q->commit.snapshots = snapshots;
    return qcow2_commit(q->path, &q->disk.options, &q->commit, err);
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    enum qcow2_left_to_backing snapshots = QCOW2_SNAPSHOTS_REFUSE;
    struct request q = { .disk = DISK_ARGS_INIT };
    bool show = false, quiet = false;
    int key, status;
    struct args a;

    args_start(&a, verb, argc, argv);
    args_withdraw(KEY_BACKING); /* another one would be refused */
    while ((key = args_next(&a)) != -1) {
        if (key == 'b')
            q.commit.base = name_path(&a, a.value, NULL);
        if (key == 'b' || key == 'd')
            q.commit.keep = true;
        else if (key == KEY_KEEP_SNAPSHOTS)
            snapshots = QCOW2_SNAPSHOTS_KEEP;
        else if (key == KEY_CHANGE_SNAPSHOTS)
            snapshots = QCOW2_SNAPSHOTS_CHANGE;
        else if (key == 'r')
            progress_limit_rate(parse_bytes(&a, "-r", a.value));
        else if (key == 't')
            disk_args_set_cache(&q.disk, parse_cache(&a));
        else if (key == 'p')
            show = true;
        else if (key == 'q')
            quiet = true;
        else
            disk_args_take(&q.disk, &a, key);
    }
    args_need(&a, 1, "one image");
    q.path = disk_args_name(&q.disk, &a, a.operands[0]);
    disk_args_need_writable(&q.disk, &a, a.operands[0]);
    status = job_finish_overlay(begin, &q, snapshots, show, quiet);
    disk_args_free(&q.disk);
    if (status == EXIT_SUCCESS && !quiet)
        printf("Image committed.\n");
    return status;
}

const struct verb verb_commit = {
    .name = "commit",
    .summary = "Write what an overlay holds into its backing file, and empty "
               "the overlay.",
    .operands = "[OPTION...] FILE",
    .options = options,
    .notes = "The backing file grows if it is shorter. Other overlays on it, "
             "and layers between FILE and BASE, read differently afterwards. "
             "Where snapshots of FILE would, too, it is refused, unless one "
             "of the options allows it. "
             "If it was interrupted, do it again: it goes on, and FILE reads "
             "right all the time.",
    .example = "qcow2-img commit -p overlay.qcow2",
    .run = run,
};
