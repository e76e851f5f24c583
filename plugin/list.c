/* SPDX-License-Identifier: BSD-3-Clause */
/* list.c: the answer to a client that asks which exports there are.
 *
 * The time it takes and the memory are bounded whatever the images hold: of
 * each file only the header and the beginning of the snapshot table are read,
 * backing files are not looked at, and the number of names is limited.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plugin.h"

enum {
    MAX_NAMES = 10000, /* nbdkit accepts no more */
    MAX_NAME_BYTES = 4096, /* the protocol's limit of a string */
    MAX_SNAPSHOTS_AN_IMAGE = 1000,
    MAX_SNAPSHOTS = 10000, /* read for one list, of all images together */
};

struct list {
    struct nbdkit_exports *exports;
    size_t nr_names, nr_snapshots; /* so far */
};

/* The snapshots of an image, in the order of their names and of their ids. */
struct order {
    size_t nr;
    const struct qcow2_snapshot **by_name, **by_id;
};

static int
compare_names(const void *a, const void *b)
{
    return strcmp((*(const struct qcow2_snapshot *const *)a)->name,
                  (*(const struct qcow2_snapshot *const *)b)->name);
}

static int
compare_ids(const void *a, const void *b)
{
    return strcmp((*(const struct qcow2_snapshot *const *)a)->id,
                  (*(const struct qcow2_snapshot *const *)b)->id);
}

static bool
order_init(struct order *o, const struct qcow2_info *info)
{
    o->nr = info->nr_snapshots;
    o->by_name = calloc(o->nr + 1, sizeof *o->by_name);
    o->by_id = calloc(o->nr + 1, sizeof *o->by_id);
    if (!o->by_name || !o->by_id)
        return false;
    for (size_t i = 0; i < o->nr; i++)
        o->by_name[i] = o->by_id[i] = &info->snapshots[i];
    qsort(o->by_name, o->nr, sizeof *o->by_name, compare_names);
    qsort(o->by_id, o->nr, sizeof *o->by_id, compare_ids);
    return true;
}

static void
order_free(struct order *o)
{
    free(o->by_name);
    free(o->by_id);
}

/* How many snapshots have this name (id): 0, 1, or 2 for more. */
static unsigned
count(const struct order *o, bool ids, const char *word)
{
    const struct qcow2_snapshot key = { .name = word, .id = word };
    const struct qcow2_snapshot *k = &key, **all = ids ? o->by_id : o->by_name;
    int (*compare)(const void *, const void *) =
        ids ? compare_ids : compare_names;
    size_t low = 0, high = o->nr;
    unsigned nr = 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare(&all[middle], &k) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    while (nr < 2 && low + nr < o->nr && compare(&all[low + nr], &k) == 0)
        nr++;
    return nr;
}

/* The word by which a client gets exactly one snapshot, in two parts. */
struct word {
    const char *prefix, *text; /* text NULL: there is no such word */
};

/* A name or id alone, if it means one snapshot and has no prefix itself. */
static struct word
word_of(const struct order *o, const struct qcow2_snapshot *s)
{
    if (exports_is_printable(s->name) && count(o, false, s->name) == 1) {
        bool only = count(o, true, s->name) == (strcmp(s->id, s->name) == 0);

        return (struct word){ only && !exports_has_prefix(s->name)
                              ? "" : "name:", s->name };
    }
    if (exports_is_printable(s->id) && count(o, true, s->id) == 1)
        return (struct word){ count(o, false, s->id) == 0
                              && !exports_has_prefix(s->id)
                              ? "" : "id:", s->id };
    return (struct word){ "", NULL };
}

static void
add(struct list *l, const char *name, const char *description)
{
    if (l->nr_names < MAX_NAMES && strlen(name) <= MAX_NAME_BYTES
        && nbdkit_add_export(l->exports, name, description) == 0)
        l->nr_names++;
}

static void
add_snapshot(struct list *l, const char *file, const struct word *word,
             const struct qcow2_snapshot *s)
{
    char text[EXPORT_TEXT_SIZE];
    char *full;

    if (!word->text
        || asprintf(&full, "%s@%s%s", file, word->prefix, word->text) == -1)
        return;
    if (!config.dir || !exports_is_file(full))
        add(l, full, exports_describe_snapshot(text, s));
    free(full);
}

/* A file's disk, or the snapshot served in its place, and its snapshots. */
static void
add_image(struct list *l, const char *name, const char *snapshot,
          const struct qcow2_info *info)
{
    const struct qcow2_snapshot_list all = {
        info->nr_snapshots, (struct qcow2_snapshot *)info->snapshots
    };
    char text[EXPORT_TEXT_SIZE];
    const char *description = NULL;
    struct order o;
    long i;

    if (!snapshot)
        description = exports_describe_disk(text, info->format,
                                            info->virtual_size);
    else if ((i = qcow2_find_snapshot(&all, snapshot, NULL)) >= 0)
        description = exports_describe_snapshot(text, &all.snapshots[i]);
    if (order_init(&o, info)) {
        add(l, name, description);
        for (i = 0; (size_t)i < all.nr; i++) {
            const struct word word = word_of(&o, &all.snapshots[i]);

            add_snapshot(l, name, &word, &all.snapshots[i]);
        }
    }
    order_free(&o);
}

/* Lists an image without disturbing its users: takes no locks and writes
 * nothing. An image that cannot be opened is left out: it must not hide the
 * others.
 */
static void
list_image(struct list *l, const char *name, const struct export *export)
{
    size_t nr_left = MAX_SNAPSHOTS - l->nr_snapshots;
    struct qcow2_info_options options = {
        .format = export->format,
        .no_lock = true,
        .no_bitmaps = true,
        .limit_snapshots = true,
        .max_snapshots = nr_left < MAX_SNAPSHOTS_AN_IMAGE
                         ? nr_left : MAX_SNAPSHOTS_AN_IMAGE,
        .use_fd = config.fd >= 0,
        .fd = config.fd,
        .file = export->file,
        .window = config.window,
        .nbd_timeout_ms = config.nbd_timeout_ms,
    };
    struct qcow2_error err;
    struct qcow2_info *info = qcow2_get_info(export->path, &options, &err);
    const char *why = !info                        ? err.text
                      : info->refusal.errnum != 0  ? info->refusal.text
                      : info->format == QCOW2_FORMAT_RAW && !config.dir
                                                   ? "it is raw"
                                                   : NULL;

    if (why) {
        nbdkit_debug("not listed: %s", why);
    } else {
        l->nr_snapshots += info->nr_snapshots;
        add_image(l, name, export->snapshot, info);
    }
    qcow2_info_free(info);
}

/* The names in a directory. */
struct entries {
    char **names;
    size_t nr;
};

static void
entries_free(struct entries *e)
{
    for (size_t i = 0; i < e->nr; i++)
        free(e->names[i]);
    free(e->names);
}

static bool
entries_add(struct entries *e, const char *name)
{
    char *copy;

    if ((e->nr & (e->nr - 1)) == 0) { /* 0 or a power of 2: it is full */
        char **more = realloc(e->names,
                              (e->nr ? 2 * e->nr : 1) * sizeof *more);

        if (!more)
            return false;
        e->names = more;
    }
    copy = strdup(name);
    if (copy)
        e->names[e->nr++] = copy;
    return copy != NULL;
}

static int
compare_entries(const void *a, const void *b)
{
    return strcoll(*(char *const *)a, *(char *const *)b);
}

/* Not by scandirat, which not every C library has. */
static int
entries_read(struct entries *e)
{
    int fd = openat(config.dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd == -1 ? NULL : fdopendir(fd);
    const struct dirent *next;
    int saved;

    if (!dir) {
        saved = errno;
        if (fd != -1)
            close(fd);
        errno = saved;
        return -1;
    }
    errno = 0;
    while ((next = readdir(dir)) && entries_add(e, next->d_name))
        errno = 0;
    saved = errno;
    closedir(dir);
    if (e->nr)
        qsort(e->names, e->nr, sizeof *e->names, compare_entries);
    errno = saved;
    return saved ? -1 : 0;
}

static int
list_dir(struct list *l)
{
    struct entries all = { NULL, 0 };
    int r = entries_read(&all);

    if (r == -1)
        nbdkit_error("%s: cannot list the directory: %m", config.dir);
    for (size_t i = 0; r == 0 && i < all.nr; i++) {
        const char *name = all.names[i];
        struct export export = { .path = NULL };

        if (l->nr_names < MAX_NAMES && exports_is_printable(name)
            && exports_find_file(name, strlen(name), &export))
            list_image(l, name, &export);
        exports_free(&export);
    }
    entries_free(&all);
    return r;
}

int
exports_list(int readonly, int is_tls, struct nbdkit_exports *exports)
{
    struct list l = { .exports = exports };
    struct export export;

    (void)readonly;
    (void)is_tls;
    if (config.dir)
        return list_dir(&l);
    if (exports_find("", &export) == -1)
        return -1;
    list_image(&l, "", &export);
    exports_free(&export);
    return 0;
}
