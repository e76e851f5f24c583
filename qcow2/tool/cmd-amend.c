/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-amend.c: how an existing image is stored. */
#include <errno.h>

#include "image-args.h"
#include "verbs.h"

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    { 'o', "options", "NAME=VALUE,...",
      "what to change: compat, refcount_bits, "
      "lazy_refcounts, data_file, data_file_raw=off, size" },
    OPTION_CACHE('t', "cache", "cache mode"),
    { KEY_FORCE, "force", NULL, "write zeroes even if they are many; "
      "let the disk become smaller" },
    OPTION_PROGRESS,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_QUIET,
    OPTION_END,
};

static void
check(const struct image_args *image, const struct args *a)
{
    const struct qcow2_create_options *c = &image->create;

    if (image->nr_strings == 0)
        usage_error(a->verb, "say what to change: -o NAME=VALUE");
    if (c->backing || c->backing_format)
        usage_error(a->verb, "the backing file is changed by rebase");
    if (c->cluster_size || image->has_compression || image->has_prealloc
        || image->has_encryption || image->has_nocow
        || image->has_extent_size_hint)
        usage_error(a->verb, "only compat, refcount_bits, lazy_refcounts, "
                    "data_file, data_file_raw and size can be changed; convert "
                    "makes an image with other options");
}

/* As qemu-img, which has no option for it here, the program makes a disk
 * smaller without. */
static int
resize(struct qcow2_disk *disk, uint64_t size, bool force,
       struct qcow2_error *err)
{
    uint64_t now = qcow2_get_size(disk);

    if (size == 0)
        return set_error(err, EINVAL, "the size must be positive: 0 would "
                         "empty the disk");
    /* Other programs round it down. */
    if (size <= UINT64_MAX - 511)
        size = (size + 511) / 512 * 512;
    if (qcow2_resize(disk, size, force || called_as_qemu_img(), err) == -1)
        return -1;
    return size <= now ? 0 : qcow2_preallocate(disk, size - now, now,
                                               QCOW2_PREALLOC_OFF, err);
}

/* Version 3 can have any size, with snapshots too: the size is changed while
 * the image is of that version. */
static int
amend_disk(struct qcow2_disk *disk, const struct image_args *image,
           const struct qcow2_amend_options *o, struct qcow2_error *err)
{
    if (image->has_size && o->version == 2
        && resize(disk, image->create.size, o->may_write_much, err) == -1)
        return -1;
    if (qcow2_amend(disk, o, err) == -1)
        return -1;
    return image->has_size && o->version != 2
           ? resize(disk, image->create.size, o->may_write_much, err) : 0;
}

static int
amend(const char *path, const struct disk_args *disk_args,
      const struct image_args *image, bool force)
{
    const struct qcow2_amend_options o = {
        .version = image->create.version,
        .refcount_bits = image->create.refcount_bits,
        .lazy_refcounts = !image->has_lazy_refcounts ? QCOW2_AMEND_KEEP
                          : image->create.lazy_refcounts ? QCOW2_AMEND_ON
                          : QCOW2_AMEND_OFF,
        .data_file = image->create.data_file,
        .data_file_raw = !image->has_data_file_raw ? QCOW2_AMEND_KEEP
                         : image->create.data_file_raw ? QCOW2_AMEND_ON
                         : QCOW2_AMEND_OFF,
        .may_write_much = force,
    };
    struct qcow2_disk *disk = disk_open(path, disk_args, false);
    int status = EXIT_SUCCESS;
    struct qcow2_error err;

    if (!disk)
        return EXIT_FAILURE;
    progress_catch_signals();
    if (amend_disk(disk, image, &o, &err) == -1)
        status = report_error(&err);
    return disk_close(disk, status);
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct image_args image = { .format = QCOW2_FORMAT_QCOW2 };
    struct disk_args disk = DISK_ARGS_INIT;
    bool show = false, quiet = false, force = false;
    const char *path;
    struct args a;
    int key, status;

    args_start(&a, verb, argc, argv);
    args_withdraw(KEY_BACKING); /* another one would be refused */
    while ((key = args_next(&a)) != -1) {
        if (key == 'o')
            image_args_take(&image, &a, a.value);
        else if (key == 't')
            disk.options.cache = parse_cache(&a);
        else if (key == KEY_FORCE)
            force = true;
        else if (key == 'p')
            show = true;
        else if (key == 'q')
            quiet = true;
        else
            disk_args_take(&disk, &a, key);
    }
    args_need(&a, 1, "one image");
    path = disk_args_name(&disk, &a, a.operands[0]);
    check(&image, &a);
    disk.options.data_file = image.create.data_file;
    progress_begin(show, quiet);
    status = amend(path, &disk, &image, force);
    if (status == EXIT_SUCCESS)
        progress_show(NULL, 1, 1);
    progress_end();
    image_args_free(&image);
    disk_args_free(&disk);
    return status;
}

const struct verb verb_amend = {
    .name = "amend",
    .summary = "Change how an image is stored: version, width of refcounts, "
               "lazy refcounts; or its size.",
    .operands = "[OPTION...] -o NAME=VALUE,... FILE",
    .options = options,
    .notes = "Content and snapshots stay, but for what lies beyond a smaller "
             "size.",
    .example = "qcow2-img amend -o compat=1.1,lazy_refcounts=on old.qcow2",
    .run = run,
};
