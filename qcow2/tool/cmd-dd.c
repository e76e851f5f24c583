/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-dd.c: copies a part of a disk. */
#include <string.h>

#include "transfer.h"
#include "verbs.h"

static const struct tool_option options[] = {
    { 'f', "format", "FMT", "format of the source: qcow2, qcow or raw" },
    OPTION_IMAGE_OPTS,
    { 'O', NULL, "FMT", "format of the target: qcow2 or raw [raw]" },
    OPTION_NO_CLOBBER,
    OPTION_PROGRESS,
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_FORCE_SHARE,
    OPTION_QUIET,
    OPTION_END,
};

struct blocks {
    uint64_t size, count, skip;
    bool has_count;
};

/* Takes "name=value"; false: the name is another one. */
static bool
take_value(const char *operand, const char *name, const char **value)
{
    size_t len = strlen(name);

    if (strncmp(operand, name, len) != 0 || operand[len] != '=')
        return false;
    *value = operand + len + 1;
    return true;
}

static void
take_operand(struct transfer *c, struct blocks *b, const struct args *a,
             char **operand)
{
    const char *value;

    if (take_value(*operand, "if", &value)) {
        *operand += strlen("if=");
        c->sources = operand;
        c->nr_sources = 1;
    } else if (take_value(*operand, "of", &value)) {
        c->target = value;
    } else if (take_value(*operand, "bs", &value)) {
        b->size = parse_bytes(a, "bs", value);
    } else if (take_value(*operand, "count", &value)) {
        b->count = parse_bytes(a, "count", value);
        b->has_count = true;
    } else if (take_value(*operand, "skip", &value)) {
        b->skip = parse_bytes(a, "skip", value);
    } else {
        CLEANUP_FREE char *text = text_escape(*operand);

        usage_error(a->verb, "'%s' is none of if=, of=, bs=, count= and "
                    "skip=", text);
    }
}

static void
settle(struct transfer *c, const struct blocks *b, const struct args *a)
{
    struct qcow2_convert_options *o = &c->convert;

    if (c->nr_sources == 0 || !c->target)
        usage_error(a->verb, "expects if=FILE and of=FILE");
    if (b->size == 0)
        usage_error(a->verb, "bs must not be 0");
    if (__builtin_mul_overflow(b->skip, b->size, &o->skip_bytes)
        || __builtin_mul_overflow(b->count, b->size, &o->nr_bytes))
        usage_error(a->verb, "skip or count leads too far");
    o->has_nr_bytes = b->has_count;
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct blocks blocks = { .size = 512 };
    struct transfer c = TRANSFER_INIT;
    struct args a;
    int key, status;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == 'O')
            c.image.format = parse_new_format(&a, a.value);
        else
            transfer_take(&c, &a, key);
    }
    for (int i = 0; i < a.nr_operands; i++)
        take_operand(&c, &blocks, &a, &a.operands[i]);
    settle(&c, &blocks, &a);
    status = transfer_run(&c, &a);
    transfer_free(&c);
    return status;
}

const struct verb verb_dd = {
    .name = "dd",
    .summary = "Copy a part of a disk to a new image.",
    .operands = "[OPTION...] if=FILE of=FILE [bs=BYTES] [count=N] [skip=N]",
    .options = options,
    .notes = "count and skip are in blocks of bs bytes [512]. An existing "
             "target is replaced.",
    .example = "qcow2-img dd -O qcow2 if=disk.raw of=start.qcow2 bs=1M "
               "count=100",
    .run = run,
};
