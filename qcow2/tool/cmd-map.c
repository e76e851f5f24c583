/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-map.c: which file has what part of a disk. */
#include <inttypes.h>

#include "json.h"
#include "tool.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    OPTION_OUTPUT,
    { 's', "start-offset", "OFFSET", "begin at this guest offset" },
    { 'l', "max-length", "BYTES", "show no more than this" },
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_FORCE_SHARE,
    OPTION_END,
};

struct map_walk {
    char **names; /* of the layers */
    uint64_t image_off; /* of the top layer's data in their file */
    bool first;
    bool failed;
};

/* In the file, not in the part of it that the image may be. */
static uint64_t
file_offset(const struct map_walk *w, const struct qcow2_extent *e)
{
    return e->host_off + (e->depth == 0 ? w->image_off : 0);
}

static int
show_line(void *opaque, const struct qcow2_extent *e)
{
    struct map_walk *w = opaque;
    CLEANUP_FREE char *name = NULL;

    if (!e->present || e->zero)
        return 0;
    if (!e->has_host_off) {
        report("the image has compressed clusters, which this form cannot "
               "show; use --output=json");
        w->failed = true;
        return 1;
    }
    name = text_escape(w->names[e->depth]);
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n",
           e->guest_off, e->nr_bytes, file_offset(w, e), name);
    return 0;
}

/* One by one: there can be too many to keep. */
static int
show_object(void *opaque, const struct qcow2_extent *e)
{
    struct map_walk *w = opaque;
    json_t *o = check_memory(json_object());

    json_put(o, "start", json_bytes(e->guest_off));
    json_put(o, "length", json_bytes(e->nr_bytes));
    json_put(o, "depth", json_integer(e->depth));
    json_put(o, "present", json_boolean(e->present));
    json_put(o, "zero", json_boolean(e->zero));
    json_put(o, "data", json_boolean(e->present && !e->zero));
    json_put(o, "compressed", json_boolean(e->compressed));
    if (e->has_host_off)
        json_put(o, "offset", json_bytes(file_offset(w, e)));
    printf("%s", w->first ? "[" : ",\n");
    json_dumpf(o, stdout, 0);
    json_decref(o);
    w->first = false;
    return 0;
}

/* Data are in the data file of a layer, if it has one. */
static void
name_data_files(struct qcow2_disk *disk, char **names)
{
    for (unsigned i = 0; i < qcow2_get_nr_layers(disk); i++) {
        struct qcow2_layer layer;
        char *name;

        if (qcow2_get_layer(disk, i, &layer, NULL) == -1
            || !layer.data_file[0])
            continue;
        name = disk_join_name(names[i], layer.data_file);
        free(names[i]);
        names[i] = name;
    }
}

/* Where the part of a file begins that the image is; data in a data file are
 * not in it. */
static uint64_t
image_offset(struct qcow2_disk *disk, const struct disk_args *disk_args)
{
    struct qcow2_layer top;

    return qcow2_get_layer(disk, 0, &top, NULL) == 0 && top.data_file[0]
           ? 0 : disk_args->options.window.offset;
}

static int
show_map(struct qcow2_disk *disk, const char *path,
         const struct disk_args *disk_args, bool json, uint64_t start,
         uint64_t max_length)
{
    struct map_walk w = {
        .first = true, .image_off = image_offset(disk, disk_args),
    };
    uint64_t size = qcow2_get_size(disk);
    struct qcow2_error err;
    int r;

    if (start > size)
        start = size;
    if (max_length > size - start)
        max_length = size - start;
    if (!json) {
        w.names = disk_layer_names(disk, path, disk_args);
        name_data_files(disk, w.names);
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to",
               "File");
    }
    r = qcow2_map(disk, max_length, start, json ? show_object : show_line,
                  &w, &err);
    if (json)
        printf(w.first ? "[]\n" : "]\n");
    disk_layer_names_free(disk, w.names);
    if (r == -1)
        return report_error(&err);
    return w.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct disk_args disk_args = DISK_ARGS_INIT;
    uint64_t start = 0, max_length = UINT64_MAX;
    int key, status = EXIT_FAILURE;
    struct qcow2_disk *disk;
    const char *path;
    bool json = false;
    struct args a;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == KEY_OUTPUT)
            json = parse_output(&a);
        else if (key == 's')
            start = parse_bytes(&a, "--start-offset", a.value);
        else if (key == 'l')
            max_length = parse_bytes(&a, "--max-length", a.value);
        else
            disk_args_take(&disk_args, &a, key);
    }
    args_need(&a, 1, "one image");
    path = disk_args_name(&disk_args, &a, a.operands[0]);
    disk = disk_open(path, &disk_args, true);
    if (disk)
        status = disk_close(disk, show_map(disk, path, &disk_args,
                                           json, start, max_length));
    disk_args_free(&disk_args);
    return status;
}

const struct verb verb_map = {
    .name = "map",
    .summary = "Show which file of a chain has which part of the disk, and "
               "what reads as zeroes.",
    .operands = "[OPTION...] FILE",
    .options = options,
    .example = "qcow2-img map --output=json overlay.qcow2",
    .run = run,
};
