/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-measure.c: how large will an image be? */
#include <inttypes.h>
#include <string.h>

#include "image-args.h"
#include "json.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    { 'O', "target-format", "FMT",
      "format of the new image: qcow2 or raw [raw]" },
    OPTION_IMAGE,
    { KEY_SIZE, "size", "BYTES", "an empty image of this size, not the "
      "content of FILE" },
    { 'l', "snapshot", "SNAPSHOT", "the content of this internal snapshot" },
    OPTION_OUTPUT,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_FORCE_SHARE,
    { 'f', "source-format", "FMT", NULL },
    { KEY_IMAGE_OPTS, "source-image-opts", NULL, NULL },
    { 'o', "target-format-options", "NAME=VALUE,...", NULL },
    OPTION_END,
};

/* The figures to print. */
struct sizes {
    struct qcow2_measure image;
    bool has_bitmaps;
    uint64_t bitmaps;
};

static uint64_t
round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* The space for the source's bitmaps, if they are copied, too. */
static void
measure_bitmaps(const struct qcow2_info *info,
                const struct image_args *image, struct sizes *sizes)
{
    enum { ENTRY_BYTES = 24 }; /* of the bitmap directory, and the name */
    uint32_t unit = image->create.cluster_size ? image->create.cluster_size
                                               : 65536;
    uint64_t directory = 0;

    sizes->has_bitmaps = info->version >= 3 && image->create.version != 2
                         && image->format == QCOW2_FORMAT_QCOW2;
    if (!sizes->has_bitmaps)
        return;
    for (size_t i = 0; i < info->nr_bitmaps; i++) {
        const struct qcow2_info_bitmap *b = &info->bitmaps[i];
        uint64_t nr_bits = info->virtual_size / b->granularity
                           + (info->virtual_size % b->granularity != 0);
        uint64_t nr_bytes = round_up(round_up(nr_bits, 8) / 8, unit);

        if (b->in_use)
            continue;
        sizes->bitmaps += nr_bytes + round_up(nr_bytes / unit * 8, unit);
        directory += round_up(ENTRY_BYTES + strlen(b->name), 8);
    }
    sizes->bitmaps += round_up(directory, unit);
}

static void
show(const struct sizes *sizes, bool json)
{
    json_t *object;

    if (!json) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64
               "\n", sizes->image.required, sizes->image.fully_allocated);
        if (sizes->has_bitmaps)
            printf("bitmaps size: %" PRIu64 "\n", sizes->bitmaps);
        return;
    }
    object = check_memory(json_object());
    json_put(object, "required", json_bytes(sizes->image.required));
    json_put(object, "fully-allocated",
             json_bytes(sizes->image.fully_allocated));
    if (sizes->has_bitmaps)
        json_put(object, "bitmaps", json_bytes(sizes->bitmaps));
    json_print(object);
}

static int
measure(struct qcow2_disk *source, const struct image_args *image,
        struct sizes *sizes)
{
    struct qcow2_measure_options o = {
        .format = image->format, .create = image->create,
        .prealloc = image->prealloc,
    };
    struct qcow2_error err;

    if (qcow2_measure(source, &o, &sizes->image, &err) == -1)
        return report_error(&err);
    return EXIT_SUCCESS;
}

static int
measure_found(const char *path, const struct disk_args *disk_args,
              const char *snapshot, const struct image_args *image,
              struct sizes *sizes)
{
    struct qcow2_disk *disk = disk_open_view(path, disk_args, snapshot);
    struct qcow2_info_options o = {
        .format = disk_args->options.format,
        .no_lock = disk_args->options.no_lock,
        .file = disk_args->options.file,
        .window = disk_args->options.window,
        .failures = failures,
    };
    struct qcow2_info *info;
    struct qcow2_error err;
    int status;

    if (!disk)
        return EXIT_FAILURE;
    status = measure(disk, image, sizes);
    if (status == EXIT_SUCCESS) {
        info = qcow2_get_info(path, &o, &err);
        if (info)
            measure_bitmaps(info, image, sizes);
        else
            status = report_error(&err);
        qcow2_info_free(info);
    }
    return disk_close(disk, status);
}

/* The file is found once: disk and bitmaps are of one image. */
static int
measure_file(const char *path, const struct disk_args *disk_args,
             const char *snapshot, const struct image_args *image,
             struct sizes *sizes)
{
    struct disk_args found = *disk_args;
    struct qcow2_error err;
    struct qcow2_file *file = qcow2_find_file(path, &err);
    int status;

    if (!file)
        return report_error(&err);
    found.options.file = file;
    status = measure_found(path, &found, snapshot, image, sizes);
    qcow2_file_free(file);
    return status;
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct image_args image = { .format = QCOW2_FORMAT_RAW };
    struct disk_args disk = DISK_ARGS_INIT;
    const char *snapshot = NULL;
    struct sizes sizes = { .has_bitmaps = false };
    bool json = false, empty = false;
    int key, status;
    struct args a;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == 'O') {
            image.format = parse_new_format(&a, a.value);
        } else if (key == 'o') {
            image_args_take(&image, &a, a.value);
        } else if (key == KEY_SIZE) {
            image.create.size = parse_bytes(&a, "--size", a.value);
            image.has_size = empty = true;
        } else if (key == 'l') {
            snapshot = a.value;
        } else if (key == KEY_OUTPUT) {
            json = parse_output(&a);
        } else {
            disk_args_take(&disk, &a, key);
        }
    }
    image_args_check(&image, &a);
    if (a.nr_operands > 1 || (a.nr_operands == 1 && empty)
        || (a.nr_operands == 0 && !image.has_size))
        usage_error(verb, "expects either one image or --size");
    if (a.nr_operands == 0 && snapshot)
        usage_error(verb, "a snapshot is of an image: -l goes without "
                    "--size");
    status = a.nr_operands == 0
             ? measure(NULL, &image, &sizes)
             : measure_file(disk_args_name(&disk, &a, a.operands[0]), &disk,
                            snapshot, &image, &sizes);
    if (status == EXIT_SUCCESS)
        show(&sizes, json);
    image_args_free(&image);
    disk_args_free(&disk);
    return status;
}

const struct verb verb_measure = {
    .name = "measure",
    .summary = "Tell how large a file a new image will be.",
    .operands = "[OPTION...] FILE\n[OPTION...] --size=BYTES",
    .options = options,
    .notes = "The required size is for the content as it is, the fully "
             "allocated size for a disk that was written all over.",
    .example = "qcow2-img measure -O qcow2 disk.raw",
    .run = run,
};
