/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-create.c: new images. */
#include <string.h>

#include "image-args.h"
#include "name.h"
#include "verbs.h"

static const struct tool_option options[] = {
    { 'f', "format", "FMT", "format of the new image: qcow2 or raw [raw]" },
    { 'b', "backing", "FILE", "backing file, relative to the new image's "
      "directory; the size is taken from it if none is given" },
    { 'F', "backing-format", "FMT", "format of the backing file" },
    { 'u', "backing-unsafe", NULL,
      "do not open the backing file: it need not be there" },
    OPTION_IMAGE,
    OPTION_NO_CLOBBER,
    OPTION_ALLOW,
    OPTION_QUIET,
    OPTION_END,
};

/* *size: as others print it, the size that was asked for, or else the one
 * that the image has by its backing file. */
static int
create(const char *path, const struct image_args *image, uint64_t *size,
       struct qcow2_error *err)
{
    struct qcow2_create_options c = image->create;

    *size = c.size;

    c.prealloc = image->prealloc;
    if (image->format == QCOW2_FORMAT_RAW)
        return qcow2_create_raw(path, &c, err);
    c.size_created = image->has_size ? NULL : size;
    return qcow2_create(path, &c, err);
}

static void
take_size(struct image_args *image, const struct args *a)
{
    if (a->nr_operands < 1 || a->nr_operands > 2)
        usage_error(a->verb, "expects one file name and perhaps a size");
    if (a->nr_operands == 2 && image->has_size)
        usage_error(a->verb, "the size is given twice");
    if (a->nr_operands == 2) {
        image->create.size = parse_bytes(a, "the size", a->operands[1]);
        image->has_size = true;
    }
    if (!image->has_size && !image->create.backing)
        usage_error(a->verb, "say the size");
    image->create.size_from_backing = !image->has_size;
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct image_args image = { .format = QCOW2_FORMAT_RAW,
                                .create = { .overwrite = true } };
    struct disk_args disk = DISK_ARGS_INIT;
    struct qcow2_error err;
    bool quiet = false;
    const char *path;
    struct args a;
    uint64_t size;
    int key, r;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == 'f')
            image.format = parse_new_format(&a, a.value);
        else if (key == 'b')
            image.create.backing = a.value;
        else if (key == 'F')
            image.create.backing_format = parse_format(&a, a.value);
        else if (key == 'u')
            image.create.backing_unchecked = true;
        else if (key == 'o')
            image_args_take(&image, &a, a.value);
        else if (key == KEY_NO_CLOBBER)
            image.create.overwrite = false;
        else if (key == 'q')
            quiet = true;
        else
            disk_args_take(&disk, &a, key);
    }
    take_size(&image, &a);
    image_args_check(&image, &a);
    path = name_path(&a, a.operands[0], &image.format);
    image.create.allow = disk.options.allow;
    image.create.nr_allow = disk.options.nr_allow;
    image.create.failures = failures;
    r = create(path, &image, &size, &err);
    if (r == 0 && !quiet)
        image_args_show(&image, path, size);
    disk_args_free(&disk);
    image_args_free(&image);
    return r == 0 ? EXIT_SUCCESS : report_error(&err);
}

const struct verb verb_create = {
    .name = "create",
    .summary = "Make a new image, perhaps an overlay on a backing file.",
    .operands = "[OPTION...] FILE [SIZE]",
    .options = options,
    .notes = "An existing FILE is replaced unless somebody uses it. SIZE may "
             "have a suffix (k, M, G, T, P, E) and is rounded up to 512 "
             "bytes.",
    .example = "qcow2-img create -f qcow2 disk.qcow2 20G\n"
               "qcow2-img create -f qcow2 -b disk.qcow2 -F qcow2 "
               "overlay.qcow2",
    .run = run,
};
