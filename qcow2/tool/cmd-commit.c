/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-commit.c: an overlay's content into its backing file. */
#include "tool.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    { 'b', NULL, "BASE", "commit into this file of the chain, not into the "
      "image's own backing file; the image is not emptied then" },
    { 'd', NULL, NULL, "do not empty the image afterwards" },
    { 'r', NULL, "RATE", "bytes a second, at most" },
    OPTION_CACHE('t', "cache mode"),
    OPTION_PROGRESS,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_QUIET,
    OPTION_END,
};

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct qcow2_commit_options commit = { .keep = false };
    struct disk_args disk = DISK_ARGS_INIT;
    bool show = false, quiet = false;
    struct qcow2_error err;
    int key, status;
    struct args a;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == 'b')
            commit.base = a.value;
        else if (key == 'd')
            commit.keep = true;
        else if (key == 'r')
            progress_limit_rate(parse_bytes(&a, "-r", a.value));
        else if (key == 't')
            parse_cache(&a);
        else if (key == 'p')
            show = true;
        else if (key == 'q')
            quiet = true;
        else
            disk_args_take(&disk, &a, key);
    }
    args_need(&a, 1, "one image");
    status = job_finish(qcow2_commit(a.operands[0], &disk.options, &commit,
                                     &err), show, quiet, &err);
    disk_args_free(&disk);
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
             "If it was interrupted, do it again: it goes on, and FILE reads "
             "right all the time.",
    .example = "qcow2-img commit -p overlay.qcow2",
    .run = run,
};
