/* SPDX-License-Identifier: BSD-3-Clause */
/* disk.c: opens disks as the command line says. */
#include <limits.h>
#include <string.h>

#include "name.h"
#include "tool.h"

void
disk_args_allow(struct disk_args *d, const char *place)
{
    struct qcow2_options *o = &d->options;
    const char **more = check_memory(calloc(o->nr_allow + 1, sizeof *more));

    for (size_t i = 0; i < o->nr_allow; i++)
        more[i] = o->allow[i];
    more[o->nr_allow++] = place;
    free(d->allow);
    o->allow = d->allow = more;
}

/* What --backing was here until qemu-img had another meaning for it. */
static void __attribute__((noreturn))
refuse_old_word(const struct args *a, const char *word, const char *what,
                char letter)
{
    if (!args_accept('F'))
        usage_error(a->verb, "--%s is written --source-%s: by --%s qemu-img "
                    "10.1 means %sthe backing file of a new image", word, word,
                    word, what);
    usage_error(a->verb, "--%s has two meanings: %sthe %s, as in qemu-img "
                "10.1, is written -%c here, and %sthe %s, as in earlier "
                "versions of this program, --source-%s", word, what,
                args_accept('B') ? "target's backing file"
                                 : "image's new backing file", letter, what,
                args_accept('B') ? "file that the source is read with"
                                 : "image's old one", word);
}

bool
disk_args_take(struct disk_args *d, const struct args *a, int key)
{
    struct qcow2_options *o = &d->options;

    switch (key) {
    case 'f':
        o->format = parse_format(a, a->value);
        return true;
    case 'U':
        o->no_lock = true;
        return true;
    case KEY_ALLOW:
        disk_args_allow(d, a->value);
        return true;
    case KEY_IMAGE_OPTS:
        d->image_opts = true;
        return true;
    case KEY_BACKING:
        o->backing_none = strcmp(a->value, "none") == 0;
        o->backing = o->backing_none
                     ? NULL : name_path(a, a->value, &o->backing_format);
        return true;
    case KEY_BACKING_FORMAT:
        o->backing_format = parse_format(a, a->value);
        return true;
    case KEY_OLD_BACKING:
        refuse_old_word(a, "backing", "", args_accept('B') ? 'B' : 'b');
    case KEY_OLD_BACKING_FORMAT:
        refuse_old_word(a, "backing-format", "the format of ", 'F');
    }
    return false;
}

const char *
disk_args_name(struct disk_args *d, const struct args *a, const char *text)
{
    struct name n = name_parse(a, text, d->image_opts);
    struct qcow2_options *o = &d->options;

    if (d->image_opts && o->format != QCOW2_FORMAT_AUTO)
        usage_error(a->verb, "with --image-opts the format is given by "
                    "driver=");
    name_settle_format(a, text, n.format, &o->format);
    name_apply(&n.settings, o);
    if (!n.backing && !n.backing_none)
        return n.path;
    if (o->backing || o->backing_none)
        name_error(a, text, "its 'backing' contradicts --source-backing");
    o->backing = n.backing;
    o->backing_none = n.backing_none;
    if (n.backing_format != QCOW2_FORMAT_AUTO)
        o->backing_format = n.backing_format;
    return n.path;
}

void
disk_args_set_cache(struct disk_args *d, enum qcow2_cache cache)
{
    d->options.cache = d->options.backing_cache = cache;
}

void
disk_args_need_locks(const struct disk_args *d, const struct args *a,
                     const char *why)
{
    if (d->options.no_lock)
        usage_error(a->verb, "-U is for reading: %s", why);
    args_withdraw('U');
}

void
disk_args_need_writable(const struct disk_args *d, const struct args *a,
                        const char *text)
{
    if (d->options.readonly)
        name_error(a, text, "'read-only' is on, but it is to be written");
}

void
disk_args_free(struct disk_args *d)
{
    free(d->allow);
}

struct qcow2_disk *
disk_open(const char *path, const struct disk_args *d, bool readonly)
{
    struct qcow2_options options = d->options;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    if (options.readonly && !readonly) {
        CLEANUP_FREE char *name = text_escape(path);

        report("%s: 'read-only' is on, but it is to be written", name);
        return NULL;
    }
    options.readonly = readonly;
    disk = qcow2_open(path, &options, &err);
    if (!disk) {
        report_error(&err);
        return NULL;
    }
    if (!readonly && options.format == QCOW2_FORMAT_AUTO
        && qcow2_get_format(disk) == QCOW2_FORMAT_RAW) {
        CLEANUP_FREE char *name = text_escape(path);

        report_warning("%s: its format was guessed to be raw, so writes that "
                       "would make it look like another format will fail; "
                       "-f raw says that it is", name);
    }
    return disk;
}

int
disk_close(struct qcow2_disk *disk, int status)
{
    struct qcow2_error err;

    if (qcow2_close(disk, &err) == 0)
        return status;
    return report_error(&err);
}

struct qcow2_disk *
disk_open_view(const char *path, const struct disk_args *d,
               const char *snapshot)
{
    struct qcow2_disk *disk = disk_open(path, d, true), *view;
    struct qcow2_error err;

    if (!disk || !snapshot)
        return disk;
    view = qcow2_open_snapshot(disk, snapshot, &err);
    if (!view)
        report_error(&err);
    qcow2_close(disk, NULL);
    return view;
}

char *
disk_join_name(const char *path, const char *name)
{
    return check_memory(qcow2_join_name(path, name));
}

/* Each layer may add a kilobyte to the name of the one above. What no system
 * call would take becomes the name that messages have. */
static void
shorten_name(struct qcow2_disk *disk, unsigned layer, char **name)
{
    struct qcow2_layer l;

    if (strlen(*name) < PATH_MAX)
        return;
    free(*name);
    *name = check_memory(strdup(
        qcow2_get_layer(disk, layer, &l, NULL) == 0 ? l.name : "?"));
}

char **
disk_layer_names(struct qcow2_disk *disk, const char *path,
                 const struct disk_args *d)
{
    unsigned nr = qcow2_get_nr_layers(disk);
    char **names = check_memory(calloc(nr, sizeof *names));

    names[0] = check_memory(strdup(path));
    for (unsigned i = 1; i < nr; i++) {
        struct qcow2_layer above;
        const char *name = "?";

        if (i == 1 && d->options.backing) {
            names[i] = check_memory(strdup(d->options.backing));
            continue;
        }
        if (qcow2_get_layer(disk, i - 1, &above, NULL) == 0
            && above.backing[0])
            name = above.backing;
        names[i] = disk_join_name(names[i - 1], name);
        shorten_name(disk, i, &names[i]);
    }
    return names;
}

void
disk_layer_names_free(struct qcow2_disk *disk, char **names)
{
    for (unsigned i = 0; names && i < qcow2_get_nr_layers(disk); i++)
        free(names[i]);
    free(names);
}
