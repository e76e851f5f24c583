/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-resize.c: another virtual size. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    { KEY_SHRINK, "shrink", NULL,
      "allow a smaller size; what lies beyond is lost" },
    { KEY_PREALLOCATION, "preallocation", "MODE",
      "of the new part: off, metadata, falloc or full" },
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_QUIET,
    OPTION_END,
};

struct request {
    const char *path, *size;
    bool shrink, quiet;
    enum qcow2_preallocation prealloc;
    struct disk_args disk;
};

/* "+1G" and "-1G" are relative to what it is now. False: there is no such
 * size.
 */
static bool
find_size(const char *text, uint64_t now, uint64_t *size)
{
    bool more = text[0] == '+', less = text[0] == '-';

    if (!text_to_bytes(text + (more || less), size))
        return false;
    if (less && *size > now)
        return false;
    if (more && *size > UINT64_MAX - now)
        return false;
    *size = more ? now + *size : less ? now - *size : *size;
    return true;
}

/* Why a disk of `now` bytes cannot get `size`; NULL: nothing speaks against
 * it. */
static const char *
objection(const struct request *q, uint64_t now, uint64_t size)
{
    if (size >= now)
        return NULL;
    if (!q->shrink)
        return "is less than now; what lies beyond would be lost; --shrink "
               "allows it";
    if (q->prealloc != QCOW2_PREALLOC_OFF)
        return "is less than now; --preallocation is for disks that grow";
    return NULL;
}

static int
resize(struct qcow2_disk *disk, const struct request *q,
       struct qcow2_error *err)
{
    CLEANUP_FREE char *path = text_escape(q->path);
    uint64_t now = qcow2_get_size(disk), size;
    const char *why;

    if (!find_size(q->size, now, &size)) {
        CLEANUP_FREE char *text = text_escape(q->size);

        return set_error(err, EINVAL, "%s: '%s' leads to no size: it is %s "
                         "now", path, text, EXACT_SIZE_TEXT(now));
    }
    /* Other programs round it down. */
    if (qcow2_get_format(disk) == QCOW2_FORMAT_QCOW2
        && size <= UINT64_MAX - 511)
        size = (size + 511) / 512 * 512;
    if (size == 0)
        return set_error(err, EINVAL, "%s: the size must be positive: 0 would "
                         "empty the disk", path);
    why = objection(q, now, size);
    if (why)
        return set_error(err, EINVAL, "%s: the disk has %" PRIu64 " bytes; %s "
                         "%s", path, now, EXACT_SIZE_TEXT(size), why);
    if (qcow2_resize(disk, size, q->shrink, err) == -1)
        return -1;
    if (size <= now
        || qcow2_preallocate(disk, size - now, now, q->prealloc, err) == 0)
        return 0;
    /* All or nothing; the first failure is the one to report. */
    qcow2_resize(disk, now, true, NULL);
    return -1;
}

static int
run_request(const struct request *q)
{
    struct qcow2_disk *disk = disk_open(q->path, &q->disk, false);
    struct qcow2_error err;
    int status;

    if (!disk)
        return EXIT_FAILURE;
    progress_catch_signals();
    status = resize(disk, q, &err) == 0 ? EXIT_SUCCESS : report_error(&err);
    status = disk_close(disk, status);
    if (status == EXIT_SUCCESS && !q->quiet)
        printf("Image resized.\n");
    return status;
}

/* Takes a size that looks like an option out of the arguments; NULL if there
 * is none. No option is a digit. */
static char *
take_negative_size(int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        char *size = argv[i];

        if (size[0] != '-' || size[1] < '0' || size[1] > '9')
            continue;
        memmove(argv + i, argv + i + 1, (*argc - i) * sizeof *argv);
        --*argc;
        return size;
    }
    return NULL;
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct request q = { .disk = DISK_ARGS_INIT };
    struct args a;
    int key, status;

    q.size = take_negative_size(&argc, argv);
    args_start(&a, verb, argc, argv);
    args_withdraw(KEY_BACKING); /* another one would be refused */
    while ((key = args_next(&a)) != -1) {
        if (key == KEY_SHRINK)
            q.shrink = true;
        else if (key == KEY_PREALLOCATION)
            q.prealloc = parse_prealloc(&a, a.value);
        else if (key == 'q')
            q.quiet = true;
        else
            disk_args_take(&q.disk, &a, key);
    }
    if (a.nr_operands != (q.size ? 1 : 2))
        usage_error(verb, "expects one image and a size");
    if (!q.size)
        q.size = a.operands[1];
    parse_bytes(&a, "the size", q.size + (*q.size == '+' || *q.size == '-'));
    q.path = disk_args_name(&q.disk, &a, a.operands[0]);
    status = run_request(&q);
    disk_args_free(&q.disk);
    return status;
}

const struct verb verb_resize = {
    .name = "resize",
    .summary = "Change the virtual size.",
    .operands = "[OPTION...] FILE [+|-]SIZE",
    .options = options,
    .notes = "The new part reads as zeroes. Snapshots keep their own size.",
    .example = "qcow2-img resize disk.qcow2 +10G",
    .run = run,
};
