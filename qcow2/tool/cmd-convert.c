/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-convert.c: copies disks into another image. */
#include <string.h>
#include <unistd.h>

#include "transfer.h"
#include "verbs.h"

static const struct tool_option options[] = {
    { 'f', "format", "FMT", "format of the sources: qcow2, qcow or raw" },
    OPTION_IMAGE_OPTS,
    { 'O', "target-format", "FMT", "format of the target: qcow2 or raw [raw]" },
    OPTION_IMAGE,
    { 'B', NULL, "FILE", "backing file of the target, which has the rest: "
      "only what the sources' own layers hold is copied" },
    { 'F', NULL, "FMT", "format of that backing file" },
    { 'l', "snapshot", "SNAPSHOT",
      "copy this internal snapshot: a name or id, or "
      "snapshot.id=ID,snapshot.name=NAME" },
    { 'c', "compress", NULL, "compress" },
    { 'C', "copy-range-offloading", NULL,
      "accepted: asks for copies by the file system, but "
      "all is read and written" },
    { 'S', "sparse-size", "BYTES",
      "shortest run of zeroes in data that becomes a "
      "hole [4k]; 0: zeroes take space, too" },
    { 'm', "parallel", "N", "threads, 1 to 64 [4; more with -c or over NBD]" },
    { 'W', "oob-writes", NULL, "write in any order: faster" },
    { 'n', "no-create", NULL, "the target is there: do not create it" },
    { KEY_TARGET_IMAGE_OPTS, "target-image-opts", NULL,
      "the target is named as with --image-opts (with -n)" },
    { KEY_TARGET_IS_ZERO, "target-is-zero", NULL,
      "it reads as zeroes (with -n)" },
    { KEY_BITMAPS, "bitmaps", NULL, "copy persistent bitmaps, too" },
    { KEY_SKIP_BROKEN_BITMAPS, "skip-broken-bitmaps", NULL,
      "leave out those that are marked as in use" },
    { KEY_SALVAGE, "salvage", NULL, "what cannot be read becomes zeroes" },
    { 'r', "rate-limit", "RATE", "bytes a second, at most" },
    OPTION_CACHE('t', "target-cache", "cache mode of the target"),
    OPTION_CACHE('T', "source-cache", "cache mode of the sources"),
    OPTION_NO_CLOBBER,
    OPTION_PROGRESS,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_FORCE_SHARE,
    OPTION_QUIET,
    { 'f', "source-format", "FMT", NULL },
    { KEY_IMAGE_OPTS, "source-image-opts", NULL, NULL },
    { 'o', "target-format-options", "NAME=VALUE,...", NULL },
    OPTION_END,
};

static void
take_sparse(struct transfer *c, const struct args *a)
{
    uint64_t nr_bytes = parse_bytes(a, "-S", a->value);

    if (nr_bytes % 512 || nr_bytes > 256 << 20)
        usage_error(a->verb, "-S must be a multiple of 512, at most 256M");
    c->convert.allocate_all = nr_bytes == 0;
    c->convert.sparse_bytes = nr_bytes;
    c->has_sparse = true;
}

static void
take(struct transfer *c, const struct args *a, int key)
{
    switch (key) {
    case 'O':
        c->image.format = parse_new_format(a, a->value);
        break;
    case 'o':
        image_args_take(&c->image, a, a->value);
        break;
    case 'B':
        c->image.create.backing = a->value;
        break;
    case 'F':
        c->image.create.backing_format = parse_format(a, a->value);
        break;
    case 'l':
        c->snapshot = a->value;
        break;
    case 'c':
        c->convert.compress = true;
        break;
    case 'C':
        c->offload = true;
        break;
    case 'S':
        take_sparse(c, a);
        break;
    case 'm':
        c->convert.nr_threads = parse_number(a, "-m", a->value, 1, 64);
        break;
    case 'W':
        c->convert.out_of_order = true;
        break;
    case 'n':
        c->convert.no_create = true;
        break;
    case KEY_TARGET_IMAGE_OPTS:
        c->target_opts = true;
        break;
    case KEY_TARGET_IS_ZERO:
        c->convert.target_is_zero = true;
        break;
    case KEY_BITMAPS:
        c->convert.bitmaps = true;
        break;
    case KEY_SKIP_BROKEN_BITMAPS:
        c->convert.skip_broken_bitmaps = true;
        break;
    case KEY_SALVAGE:
        c->convert.ignore_read_errors = true;
        break;
    case 'r':
        progress_limit_rate(parse_bytes(a, "-r", a->value));
        break;
    default:
        transfer_take(c, a, key);
    }
}

static void
check(const struct transfer *c, const struct args *a)
{
    const struct qcow2_convert_options *o = &c->convert;

    if (a->nr_operands < 2)
        usage_error(a->verb, "expects at least one source, and the target");
    if (o->target_is_zero && !o->no_create)
        usage_error(a->verb, "--target-is-zero goes with -n: a new target is "
                    "known to be zero");
    if (c->target_opts && !o->no_create)
        usage_error(a->verb, "--target-image-opts goes with -n: a target "
                    "named so is there already");
    if (o->no_create && c->image.nr_strings > 0)
        usage_error(a->verb, "-o is for a new target, and -n makes none");
    if (o->compress && c->image.format == QCOW2_FORMAT_RAW)
        usage_error(a->verb, "a raw target cannot be compressed: add -O "
                    "qcow2");
    if (c->offload && (o->compress || c->has_sparse))
        usage_error(a->verb, "-C goes without -c and -S: what the file system "
                    "copies is not looked at");
    if (a->nr_operands > 2 && c->disk.options.backing)
        usage_error(a->verb, "--source-backing is for a single source");
    if (a->nr_operands > 2 && c->image.create.backing)
        usage_error(a->verb, "several sources have no backing file in "
                    "common");
}

static void
check_bitmaps(const struct transfer *c, const struct args *a)
{
    const struct qcow2_convert_options *o = &c->convert;

    if (o->skip_broken_bitmaps && !o->bitmaps)
        usage_error(a->verb, "--skip-broken-bitmaps goes with --bitmaps");
    if (!o->bitmaps)
        return;
    if (c->image.format == QCOW2_FORMAT_RAW || o->create.version == 2
        || c->image.create.version == 2)
        usage_error(a->verb, "--bitmaps needs a target that can have some: "
                    "-O qcow2, of version 3");
    if (c->snapshot)
        usage_error(a->verb, "a snapshot has no bitmaps");
    if (a->nr_operands > 2)
        usage_error(a->verb, "bitmaps are copied from a single source only");
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct transfer c = TRANSFER_INIT;
    struct args a;
    int key, status;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1)
        take(&c, &a, key);
    check(&c, &a);
    check_bitmaps(&c, &a);
    image_args_check(&c.image, &a);
    c.sources = a.operands;
    c.nr_sources = a.nr_operands - 1;
    c.target = a.operands[c.nr_sources];
    status = transfer_run(&c, &a);
    transfer_free(&c);
    return status;
}

const struct verb verb_convert = {
    .name = "convert",
    .summary = "Copy a disk, or several behind each other, to a new image.",
    .operands = "[OPTION...] FILE... TARGET",
    .options = options,
    .notes = "Chains become one image, holes and zeroes are kept. An "
             "existing TARGET is replaced unless somebody uses it, and one "
             "that was not finished is removed.",
    .example = "qcow2-img convert -p -c -O qcow2 disk.raw disk.qcow2\n"
               "qcow2-img convert -l monday -O raw disk.qcow2 monday.raw",
    .run = run,
};
