/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-rebase.c: another backing file, or none. */
#include "tool.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    { 'b', NULL, "FILE", "the new backing file, relative to the image's "
      "directory; '': none, all is copied into the image" },
    { 'F', NULL, "FMT", "format of the new backing file" },
    { 'u', NULL, NULL, "change the name alone: right if both files have the "
      "same content" },
    OPTION_CACHE('t', "cache mode of the image"),
    OPTION_CACHE('T', "cache mode of backing files"),
    OPTION_PROGRESS,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_QUIET,
    OPTION_END,
};

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct qcow2_rebase_options rebase = { .header_only = false };
    struct disk_args disk = DISK_ARGS_INIT;
    bool show = false, quiet = false;
    const char *backing = NULL;
    struct qcow2_error err;
    int key, status;
    struct args a;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == 'b')
            backing = a.value;
        else if (key == 'F')
            rebase.backing_format = parse_format(&a, a.value);
        else if (key == 'u')
            rebase.header_only = true;
        else if (key == 't' || key == 'T')
            parse_cache(&a);
        else if (key == 'p')
            show = true;
        else if (key == 'q')
            quiet = true;
        else
            disk_args_take(&disk, &a, key);
    }
    args_need(&a, 1, "one image");
    if (!backing)
        usage_error(verb, "say the new backing file: -b FILE, or -b '' for "
                    "none");
    if (*backing && rebase.backing_format == QCOW2_FORMAT_AUTO)
        usage_error(verb, "say the format of the new backing file: -F qcow2 "
                    "or -F raw");
    if (!*backing && rebase.backing_format != QCOW2_FORMAT_AUTO)
        usage_error(verb, "a backing format is given, but no backing file");
    rebase.backing = *backing ? backing : NULL;
    status = job_finish(qcow2_rebase(a.operands[0], &disk.options, &rebase,
                                     &err), show, quiet, &err);
    disk_args_free(&disk);
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
             "copied into the image first.",
    .example = "qcow2-img rebase -b newbase.qcow2 -F qcow2 overlay.qcow2\n"
               "qcow2-img rebase -p -b '' overlay.qcow2",
    .run = run,
};
