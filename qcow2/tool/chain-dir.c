/* SPDX-License-Identifier: BSD-3-Clause */
/* chain-dir.c: the images of a directory as a forest; see chain-dir.h. */
#include "chain-dir.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "json.h"
#include "tool.h"

/* A qcow2 image, or a file that one of them stands on. */
struct node {
    char *name;                /* in the directory */
    struct qcow2_info *info;   /* NULL: cannot be read */
    struct qcow2_error err;    /* why */
    struct stat st;
    struct node *below;        /* what it stands on, if that is here */
    bool is_base, shown;
};

struct forest {
    const char *dir;
    bool no_lock;
    struct node *nodes;
    size_t nr;
};

static char *
path_of(const struct forest *f, const char *name)
{
    size_t len = strlen(f->dir) + strlen(name) + 2;
    char *path = check_memory(malloc(len));

    snprintf(path, len, "%s/%s", f->dir, name);
    return path;
}

static void
add_file(struct forest *f, const char *name)
{
    CLEANUP_FREE char *path = path_of(f, name);
    struct qcow2_info_options o = {
        .no_lock = f->no_lock, .failures = failures,
    };
    struct node *n;
    struct stat st;

    if (stat(path, &st) == -1 || !S_ISREG(st.st_mode))
        return;
    f->nodes = check_memory(realloc(f->nodes, (f->nr + 1)
                                              * sizeof *f->nodes));
    n = &f->nodes[f->nr++];
    *n = (struct node){ .name = check_memory(strdup(name)), .st = st };
    n->info = qcow2_get_info(path, &o, &n->err);
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct node *)a)->name,
                  ((const struct node *)b)->name);
}

static int
read_dir(struct forest *f)
{
    DIR *dir = opendir(f->dir);
    struct dirent *e;

    if (!dir) {
        CLEANUP_FREE char *name = text_escape(f->dir);

        report("%s: cannot read: %s", name, strerror(errno));
        return -1;
    }
    while ((e = readdir(dir)))
        if (e->d_name[0] != '.')
            add_file(f, e->d_name);
    closedir(dir);
    if (f->nr > 0)
        qsort(f->nodes, f->nr, sizeof *f->nodes, by_name);
    return 0;
}

/* Names that lead out of the directory are not looked up. */
static void
link_nodes(struct forest *f)
{
    for (size_t i = 0; i < f->nr; i++) {
        struct node *n = &f->nodes[i];
        struct stat st;

        if (!n->info || !n->info->backing_file || n->info->backing_outside
            || stat(n->info->full_backing_file, &st) == -1)
            continue;
        for (size_t j = 0; j < f->nr; j++)
            if (f->nodes[j].st.st_dev == st.st_dev
                && f->nodes[j].st.st_ino == st.st_ino) {
                n->below = &f->nodes[j];
                n->below->is_base = true;
            }
    }
}

/* Other raw files may be anything. */
static bool
is_image(const struct node *n)
{
    return n->is_base || !n->info || n->info->format == QCOW2_FORMAT_QCOW2;
}

static void
show_node(struct node *n, unsigned level)
{
    CLEANUP_FREE char *name = text_escape(n->name);
    const struct qcow2_info *info = n->info;

    n->shown = true;
    printf("%*s%s%s", level > 0 ? (int)(3 * level - 3) : 0, "",
           level > 0 ? "`- " : "", name);
    if (!info) {
        printf(": %s\n", n->err.text);
        return;
    }
    printf(": %s, virtual size %s",
           info->format == QCOW2_FORMAT_QCOW2 ? "qcow2" : "raw",
           EXACT_SIZE_TEXT(info->virtual_size));
    printf(", on disk %s", EXACT_SIZE_TEXT(info->allocated_size));
    if (info->backing_file && !n->below) {
        CLEANUP_FREE char *backing = text_escape(info->backing_file);

        printf(", stands on %s, which is not here", backing);
    }
    putchar('\n');
}

static void
show_tree(struct forest *f, struct node *n, unsigned level)
{
    show_node(n, level);
    for (size_t i = 0; i < f->nr; i++)
        if (f->nodes[i].below == n)
            show_tree(f, &f->nodes[i], level + 1);
}

static void
show_forest(struct forest *f)
{
    for (size_t i = 0; i < f->nr; i++)
        if (is_image(&f->nodes[i]) && !f->nodes[i].below)
            show_tree(f, &f->nodes[i], 0);
    for (size_t i = 0; i < f->nr; i++)
        if (is_image(&f->nodes[i]) && !f->nodes[i].shown) {
            printf("in a loop: ");
            show_node(&f->nodes[i], 0);
        }
}

static json_t *
node_json(const struct forest *f, const struct node *n)
{
    json_t *o = check_memory(json_object());
    json_t *overlays = check_memory(json_array());

    json_put(o, "filename", json_name(n->name));
    if (!n->info) {
        json_put(o, "error", json_name(n->err.text));
    } else {
        json_put(o, "format",
                 json_string(n->info->format == QCOW2_FORMAT_QCOW2 ? "qcow2"
                                                                   : "raw"));
        json_put(o, "virtual-size", json_bytes(n->info->virtual_size));
        json_put(o, "actual-size", json_bytes(n->info->allocated_size));
        if (n->info->backing_file)
            json_put(o, "backing-filename",
                     json_name(n->info->backing_file));
        json_put(o, "backing-is-here", json_boolean(n->below));
    }
    for (size_t i = 0; i < f->nr; i++)
        if (f->nodes[i].below == n)
            json_put(overlays, NULL, json_name(f->nodes[i].name));
    json_put(o, "overlays", overlays);
    return o;
}

static void
show_json(const struct forest *f)
{
    json_t *array = check_memory(json_array());

    for (size_t i = 0; i < f->nr; i++)
        if (is_image(&f->nodes[i]))
            json_put(array, NULL, node_json(f, &f->nodes[i]));
    json_print(array);
}

int
chain_dir_show(const char *dir, bool no_lock, bool json)
{
    struct forest f = { .dir = dir, .no_lock = no_lock };
    int r = read_dir(&f);

    if (r == 0) {
        link_nodes(&f);
        if (json)
            show_json(&f);
        else
            show_forest(&f);
    }
    while (f.nr > 0) {
        struct node *n = &f.nodes[--f.nr];

        qcow2_info_free(n->info);
        free(n->name);
    }
    free(f.nodes);
    return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
