/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-compare.c: do two disks read the same? */
#include <inttypes.h>

#include "tool.h"
#include "verbs.h"

/* Exit statuses. */
enum { IDENTICAL = 0, DIFFERENT = 1, CANNOT_OPEN = 2, CANNOT_READ = 4 };

static const struct tool_option options[] = {
    { 'f', "format", "FMT", "format of the first image: qcow2, qcow or raw" },
    { 'F', "b-format", "FMT", "format of the second image" },
    OPTION_IMAGE_OPTS,
    { 's', "strict", NULL,
      "strict: sizes and allocation must be the same, too" },
    OPTION_CACHE('T', "cache", "cache mode"),
    OPTION_PROGRESS,
    OPTION_ALLOW,
    OPTION_FORCE_SHARE,
    OPTION_QUIET,
    { 'f', "a-format", "FMT", NULL },
    OPTION_END,
};

/* Did the comparison get past the end of the shorter disk? */
static bool
reached_end(const struct qcow2_compare_result *result,
            const struct qcow2_disk *a, const struct qcow2_disk *b)
{
    return result->difference == QCOW2_SAME
           || (result->guest_off >= qcow2_get_size(a)
               || result->guest_off >= qcow2_get_size(b));
}

static int
tell(const struct qcow2_compare_result *result, bool warn, bool quiet)
{
    if (warn && !quiet)
        printf("Warning: Image size mismatch!\n");
    switch (result->difference) {
    case QCOW2_SAME:
        if (!quiet)
            printf("Images are identical.\n");
        return IDENTICAL;
    case QCOW2_DIFFERENT_SIZE:
        if (!quiet)
            printf("Strict mode: Image size mismatch!\n");
        break;
    case QCOW2_DIFFERENT_ALLOCATION:
        if (!quiet)
            printf("Strict mode: Offset %" PRIu64 " block status "
                   "mismatch!\n", result->guest_off);
        break;
    case QCOW2_DIFFERENT_CONTENT:
        if (!quiet)
            printf("Content mismatch at offset %" PRIu64 "!\n",
                   result->guest_off);
        break;
    }
    return DIFFERENT;
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct disk_args args_a = DISK_ARGS_INIT, args_b;
    struct qcow2_disk *disk_a = NULL, *disk_b = NULL;
    enum qcow2_format format_b = QCOW2_FORMAT_AUTO;
    bool strict = false, show = false, quiet = false;
    struct qcow2_compare_result result;
    int key, status = CANNOT_OPEN;
    struct qcow2_error err;
    const char *path_b;
    struct args a;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == 'F')
            format_b = parse_format(&a, a.value);
        else if (key == 's')
            strict = true;
        else if (key == 'T')
            disk_args_set_cache(&args_a, parse_cache(&a));
        else if (key == 'p')
            show = true;
        else if (key == 'q')
            quiet = true;
        else
            disk_args_take(&args_a, &a, key);
    }
    args_need(&a, 2, "two images");
    args_b = args_a;
    args_b.options.format = format_b;
    path_b = disk_args_name(&args_b, &a, a.operands[1]);
    disk_a = disk_open(disk_args_name(&args_a, &a, a.operands[0]), &args_a,
                       true);
    if (disk_a)
        disk_b = disk_open(path_b, &args_b, true);
    if (disk_a && disk_b) {
        status = job_finish(qcow2_compare(disk_a, disk_b, strict, &result,
                                          &err), show, quiet, &err);
        status = status != EXIT_SUCCESS
                 ? CANNOT_READ
                 : tell(&result, result.sizes_differ && !strict
                                 && reached_end(&result, disk_a, disk_b),
                        quiet);
    }
    qcow2_close(disk_a, NULL);
    qcow2_close(disk_b, NULL);
    disk_args_free(&args_a);
    return status;
}

const struct verb verb_compare = {
    .name = "compare",
    .summary = "Tell whether two disks read the same.",
    .operands = "[OPTION...] FILE1 FILE2",
    .options = options,
    .notes = "The exit status is 0 if they do, 1 if they do not, 2 if one "
             "cannot be opened, and 4 if one cannot be read. Past its end "
             "the shorter one counts as zeroes.",
    .example = "qcow2-img compare disk.qcow2 disk.raw",
    .cannot_open = CANNOT_OPEN,
    .run = run,
};
