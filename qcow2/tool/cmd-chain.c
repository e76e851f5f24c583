/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-chain.c: the chain below an image, and the overlays on it. */
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "chain-dir.h"
#include "json.h"
#include "tool.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    OPTION_OUTPUT,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_FORCE_SHARE,
    OPTION_END,
};

/* One layer with its figures. */
struct row {
    struct qcow2_layer layer;
    struct qcow2_layer_usage usage;
    const char *name;
};

/* Committing moves `added` bytes down and frees the rest, but for what
 * internal snapshots hold.
 */
static uint64_t
freed_by_commit(const struct row *r)
{
    uint64_t allocated = r->layer.allocated, added = r->usage.added;

    return allocated > added ? allocated - added : 0;
}

static json_t *
row_json(const struct row *r, bool is_base)
{
    json_t *o = check_memory(json_object());

    json_put(o, "filename", json_name(r->name));
    json_put(o, "format", json_string(qcow2_format_name(r->layer.format)));
    json_put(o, "virtual-size", json_bytes(r->layer.size));
    json_put(o, "actual-size", json_bytes(r->layer.allocated));
    json_put(o, "own", json_bytes(r->usage.own));
    json_put(o, "visible", json_bytes(r->usage.visible));
    json_put(o, "snapshots", json_integer(r->layer.nr_snapshots));
    if (!is_base)
        json_put(o, "freed-by-commit", json_bytes(freed_by_commit(r)));
    json_put(o, "freed-by-delete", json_bytes(r->layer.allocated));
    return o;
}

static void
show_row(const struct row *r, unsigned level, bool is_base)
{
    CLEANUP_FREE char *name = text_escape(r->name);
    int indent = 3 * (level < TEXT_MAX_INDENT ? level : TEXT_MAX_INDENT);

    text_indent(level);
    puts(name);
    printf("%*s    %s, virtual size %s\n", indent, "",
           qcow2_format_name(r->layer.format),
           EXACT_SIZE_TEXT(r->layer.size));
    printf("%*s    on disk: %s\n", indent, "",
           EXACT_SIZE_TEXT(r->layer.allocated));
    printf("%*s    owns: %s", indent, "", EXACT_SIZE_TEXT(r->usage.own));
    if (r->usage.visible < r->usage.own)
        printf(", of it hidden by layers above: %s",
               EXACT_SIZE_TEXT(r->usage.own - r->usage.visible));
    putchar('\n');
    if (r->layer.nr_snapshots)
        printf("%*s    internal snapshots: %zu\n", indent, "",
               r->layer.nr_snapshots);
    if (!is_base)
        printf("%*s    freed by committing it: %s %s\n", indent, "",
               r->layer.nr_snapshots ? "at most" : "about",
               EXACT_SIZE_TEXT(freed_by_commit(r)));
    printf("%*s    freed by deleting it: %s\n", indent, "",
           EXACT_SIZE_TEXT(r->layer.allocated));
}

/* The base first, as the root of the tree. */
static int
show_layers(struct qcow2_disk *disk, char **names, bool json)
{
    unsigned nr = qcow2_get_nr_layers(disk);
    json_t *array = json ? check_memory(json_array()) : NULL;
    struct qcow2_error err;

    for (unsigned level = 0; level < nr; level++) {
        unsigned depth = nr - 1 - level;
        struct row row = { .name = names[depth] };

        if (qcow2_get_layer(disk, depth, &row.layer, &err) == -1
            || qcow2_get_layer_usage(disk, depth, &row.usage, &err) == -1) {
            json_decref(array);
            return report_error(&err);
        }
        if (json)
            json_put(array, NULL, row_json(&row, level == 0));
        else
            show_row(&row, level, level == 0);
    }
    if (json)
        json_print(array);
    return EXIT_SUCCESS;
}

static int
show_chain(const char *path, const struct disk_args *args, bool json)
{
    struct qcow2_disk *disk = disk_open(path, args, true);
    char **names;
    int status;

    if (!disk)
        return EXIT_FAILURE;
    names = disk_layer_names(disk, path, args);
    status = show_layers(disk, names, json);
    disk_layer_names_free(disk, names);
    return disk_close(disk, status);
}

static bool
is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct disk_args disk = DISK_ARGS_INIT;
    bool json = false;
    int key, status;
    struct args a;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == KEY_OUTPUT)
            json = parse_output(&a);
        else
            disk_args_take(&disk, &a, key);
    }
    args_need(&a, 1, "one image, or a directory");
    status = is_directory(a.operands[0])
             ? chain_dir_show(a.operands[0], disk.options.no_lock, json)
             : show_chain(disk_args_name(&disk, &a, a.operands[0]), &disk,
                          json);
    disk_args_free(&disk);
    return status;
}

const struct verb verb_chain = {
    .name = "chain",
    .summary = "Show what an image stands on: each layer, what it owns and "
               "what it would free; or, of a directory, what needs what.",
    .operands = "[OPTION...] FILE\n[OPTION...] DIRECTORY",
    .options = options,
    .notes = "Layers are listed from the base up. What a layer owns is its "
             "data and zeroes, in bytes of the disk. Deleting a layer loses "
             "what it owns and breaks those above. Of a directory, images "
             "are read but nothing that they name.",
    .example = "qcow2-img chain overlay.qcow2\n"
               "qcow2-img chain /var/lib/images",
    .run = run,
};
