/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-info.c: what images say of themselves. */
#include "json.h"
#include "show.h"
#include "tool.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    OPTION_OUTPUT,
    { KEY_BACKING_CHAIN, "backing-chain", NULL,
      "the backing files, too; without it no other file is opened" },
    { KEY_VERDICT, "verdict", NULL,
      "more about features and snapshots, and what matters to those who must "
      "decide whether to accept an image" },
    OPTION_ALLOW,
    OPTION_FORCE_SHARE,
    OPTION_END,
};

static void
show_all(const struct qcow2_info *info, bool json, bool chain, bool verdict)
{
    json_t *array = json && chain ? check_memory(json_array()) : NULL;

    if (json && !chain)
        json_print(show_info_json(info));
    for (const struct qcow2_info *i = info; i && (chain || !json);
         i = i->backing) {
        if (json) {
            json_put(array, NULL, show_info_json(i));
        } else {
            if (i != info)
                putchar('\n');
            show_info(i, verdict);
        }
    }
    if (array)
        json_print(array);
}

/* Half a chain would look like a whole one. */
static int
check_chain(const struct qcow2_info *info)
{
    for (; info; info = info->backing)
        if (info->backing_error.errnum)
            return report_error(&info->backing_error);
    return EXIT_SUCCESS;
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct disk_args disk = DISK_ARGS_INIT;
    struct qcow2_info_options o;
    struct qcow2_info *info;
    struct qcow2_error err;
    bool json = false, chain = false, verdict = false;
    const char *path;
    struct args a;
    int key, status;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == KEY_OUTPUT)
            json = parse_output(&a);
        else if (key == KEY_BACKING_CHAIN)
            chain = true;
        else if (key == KEY_VERDICT)
            verdict = true;
        else
            disk_args_take(&disk, &a, key);
    }
    args_need(&a, 1, "one image");
    path = disk_args_name(&disk, &a, a.operands[0]);
    if (chain && (disk.options.backing || disk.options.backing_none))
        usage_error(verb, "--backing-chain shows the chain that the image "
                    "names: 'backing' has no meaning here");
    o = (struct qcow2_info_options){
        .format = disk.options.format, .no_lock = disk.options.no_lock,
        .window = disk.options.window,
        .chain = chain, .allow = disk.options.allow,
        .nr_allow = disk.options.nr_allow, .failures = failures,
    };
    info = qcow2_get_info(path, &o, &err);
    disk_args_free(&disk);
    if (!info)
        return report_error(&err);
    status = check_chain(info);
    if (status == EXIT_SUCCESS)
        show_all(info, json, chain, verdict);
    qcow2_info_free(info);
    return status;
}

const struct verb verb_info = {
    .name = "info",
    .summary = "Show what an image says of itself: format, sizes, backing "
               "file, snapshots, features.",
    .operands = "[OPTION...] FILE",
    .options = options,
    .notes = "Images that cannot be opened for their content (encrypted "
             "ones, say) are shown, too. JSON always has the verdict.",
    .example = "qcow2-img info --output=json --backing-chain overlay.qcow2",
    .run = run,
};
