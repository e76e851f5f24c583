/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-bitmap.c: persistent bitmaps: what changed of a disk. */
#include <inttypes.h>
#include <string.h>

#include "json.h"
#include "tool.h"
#include "verbs.h"

static const struct tool_option options[] = {
    { KEY_ADD, "add", NULL, "add the bitmap, which records changes from now "
      "on" },
    { KEY_REMOVE, "remove", NULL, "remove the bitmap" },
    { KEY_CLEAR, "clear", NULL, "forget what the bitmap has recorded" },
    { KEY_ENABLE, "enable", NULL, "have the bitmap record changes" },
    { KEY_DISABLE, "disable", NULL, "have the bitmap record nothing more" },
    { KEY_MERGE, "merge", "SOURCE", "add what the bitmap SOURCE has "
      "recorded" },
    { 'b', "source-file", "FILE", "SOURCE is a bitmap of FILE" },
    { 'F', "source-format", "FMT", "format of FILE" },
    { 'g', "granularity", "BYTES", "of a bitmap to be added: a power of two "
      "from 512 to 2G" },
    { KEY_DUMP, "dump", NULL, "print what the bitmap has recorded" },
    OPTION_OUTPUT,
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    OPTION_FORCE_SHARE,
    OPTION_END,
};

/* Of one run at most so many actions. */
enum { MAX_ACTIONS = 256 };

struct action {
    int key;
    const char *source; /* of KEY_MERGE */
};

struct request {
    struct disk_args disk, source;
    const char *path, *name, *source_path;
    bool has_source_format, dump, json;
    uint64_t granularity;
    struct action actions[MAX_ACTIONS];
    int nr_actions;
};

static const char *
action_name(int key)
{
    for (const struct tool_option *o = options; o->key; o++)
        if (o->key == key)
            return o->name;
    return "";
}

/* --- What the bitmap has ------------------------------------------------- */

static int
show_line(void *opaque, uint64_t guest_off, uint64_t nr_bytes, bool dirty)
{
    (void)opaque;
    if (dirty)
        printf("%#-16" PRIx64 "%#" PRIx64 "\n", guest_off, nr_bytes);
    return 0;
}

/* One by one: there can be too many to keep. */
static int
show_object(void *opaque, uint64_t guest_off, uint64_t nr_bytes, bool dirty)
{
    json_t *o = check_memory(json_object());
    bool *first = opaque;

    json_put(o, "start", json_bytes(guest_off));
    json_put(o, "length", json_bytes(nr_bytes));
    json_put(o, "dirty", json_boolean(dirty));
    printf("%s", *first ? "[" : ",\n");
    json_dumpf(o, stdout, 0);
    json_decref(o);
    *first = false;
    return 0;
}

static int
dump(const struct request *q)
{
    struct qcow2_disk *disk = disk_open(q->path, &q->disk, true);
    struct qcow2_error err;
    bool first = true;
    int r;

    if (!disk)
        return EXIT_FAILURE;
    if (!q->json)
        printf("%-16s%s\n", "Offset", "Length");
    r = qcow2_bitmap_dump(disk, q->name, q->json ? show_object : show_line,
                          &first, &err);
    if (q->json)
        printf(first ? "[]\n" : "]\n");
    return disk_close(disk, r == -1 ? report_error(&err) : EXIT_SUCCESS);
}

/* --- What is done to it -------------------------------------------------- */

static int
act(const struct request *q, const struct action *action,
    struct qcow2_disk *disk, struct qcow2_disk *source,
    struct qcow2_error *err)
{
    switch (action->key) {
    case KEY_ADD:
        return qcow2_bitmap_add(disk, q->name, q->granularity, false, err);
    case KEY_REMOVE:
        return qcow2_bitmap_remove(disk, q->name, err);
    case KEY_CLEAR:
        return qcow2_bitmap_clear(disk, q->name, err);
    case KEY_ENABLE:
    case KEY_DISABLE:
        return qcow2_bitmap_enable(disk, q->name, action->key == KEY_ENABLE,
                                   err);
    case KEY_MERGE:
        return qcow2_bitmap_merge(disk, q->name, source, action->source, err);
    }
    return 0;
}

/* In their order; those before one that fails stay done. */
static int
act_all(const struct request *q, struct qcow2_disk *disk,
        struct qcow2_disk *source)
{
    CLEANUP_FREE char *name = text_escape(q->name);

    for (int i = 0; i < q->nr_actions; i++) {
        struct qcow2_error err;

        if (act(q, &q->actions[i], disk, source, &err) == 0)
            continue;
        report("Operation %s on bitmap %s failed: %s",
               action_name(q->actions[i].key), name, err.text);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

static int
change(const struct request *q)
{
    struct qcow2_disk *disk = disk_open(q->path, &q->disk, false);
    struct qcow2_disk *source = disk;
    int status = EXIT_FAILURE;

    if (disk && q->source_path)
        source = disk_open(q->source_path, &q->source, true);
    progress_catch_signals();
    if (source)
        status = act_all(q, disk, source);
    if (source && source != disk)
        status = disk_close(source, status);
    return disk ? disk_close(disk, status) : status;
}

/* --- The command line ---------------------------------------------------- */

static bool
has_action(const struct request *q, int key)
{
    for (int i = 0; i < q->nr_actions; i++)
        if (q->actions[i].key == key)
            return true;
    return false;
}

static void
check(const struct request *q, const struct args *a)
{
    if (q->nr_actions == 0 && !q->dump)
        usage_error(a->verb, "need at least one of --add, --remove, --clear, "
                    "--enable, --disable, --merge or --dump");
    if (q->dump && q->nr_actions > 0)
        usage_error(a->verb, "--dump changes nothing, so it goes with none of "
                    "the options that do");
    if (q->granularity && !has_action(q, KEY_ADD))
        usage_error(a->verb, "granularity only supported with --add");
    if (q->has_source_format && !q->source_path)
        usage_error(a->verb, "-F only supported with -b");
    if (q->source_path && !has_action(q, KEY_MERGE))
        usage_error(a->verb, "-b names the file of a bitmap to --merge");
    args_need(a, 2, "one image and the name of a bitmap");
    if (!q->dump)
        disk_args_need_locks(&q->disk, a, "changes need the locks");
}

static void
take_action(struct request *q, const struct args *a, int key)
{
    if (q->nr_actions == MAX_ACTIONS)
        usage_error(a->verb, "too many actions");
    q->actions[q->nr_actions++] = (struct action){ key, a->value };
}

static void
take(struct request *q, const struct args *a, int key)
{
    switch (key) {
    case KEY_OUTPUT:
        q->json = parse_output(a);
        break;
    case KEY_DUMP:
        q->dump = true;
        break;
    case 'b':
        q->source_path = a->value;
        break;
    case 'F':
        q->source.options.format = parse_format(a, a->value);
        q->has_source_format = true;
        break;
    case 'g':
        q->granularity = parse_bytes(a, "granularity", a->value);
        if (q->granularity == 0)
            usage_error(a->verb, "granularity must be a power of two from 512 "
                        "to 2G");
        break;
    default:
        if (!disk_args_take(&q->disk, a, key))
            take_action(q, a, key);
    }
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct request q = { .disk = DISK_ARGS_INIT, .source = DISK_ARGS_INIT };
    struct args a;
    int key, status;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1)
        take(&q, &a, key);
    check(&q, &a);
    q.path = disk_args_name(&q.disk, &a, a.operands[0]);
    q.name = a.operands[1];
    if (q.source_path)
        q.source_path = disk_args_name(&q.source, &a, q.source_path);
    /* What a disk reads as does not matter. */
    q.disk.options.backing_none = q.source.options.backing_none = true;
    status = q.dump ? dump(&q) : change(&q);
    disk_args_free(&q.source);
    disk_args_free(&q.disk);
    return status;
}

const struct verb verb_bitmap = {
    .name = "bitmap",
    .summary = "Add, remove, change and print persistent bitmaps, which "
               "record what changes of a disk.",
    .operands = "[OPTION...] ACTION... FILE BITMAP\n"
                "[OPTION...] --dump FILE BITMAP",
    .options = options,
    .notes = "An ACTION is --add, --remove, --clear, --enable, --disable or "
             "--merge. Several actions are done in their order. Backing files "
             "are not opened.",
    .example = "qcow2-img bitmap --add -g 64k disk.qcow2 since-monday\n"
               "qcow2-img bitmap --dump --output=json disk.qcow2 since-monday",
    .run = run,
};
