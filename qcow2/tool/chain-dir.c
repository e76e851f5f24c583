/* SPDX-License-Identifier: BSD-3-Clause */
/* chain-dir.c: the images of a directory as a forest; see chain-dir.h. */
#include "chain-dir.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "json.h"
#include "tool.h"

/* A qcow2 image, or a file that backs one of them. What is known of it
 * besides is given up at once: a directory may have any number of images,
 * with any number of snapshots. */
struct node {
    char *name;                /* in the directory */
    bool readable;
    char *error;               /* why it is not */
    enum qcow2_format format;
    uint64_t virtual_size, allocated_size;
    char *backing;             /* as stored; NULL: none */
    struct stat st, backing_st; /* st_ino 0: not known */
    struct node *below;        /* its backing file, if that is here */
    struct node *above, *next; /* the first of those that stand on it, and
                                * the next that stands on the same */
    bool is_base, shown;
};

struct forest {
    const char *dir;
    int dir_fd;                /* while it is read */
    bool no_lock;
    struct node *nodes;        /* by name */
    struct node **by_file;     /* by st_dev and st_ino */
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
keep_id(struct stat *st, const struct qcow2_file *file)
{
    struct qcow2_file_id id = qcow2_file_get_id(file);

    st->st_dev = id.dev;
    st->st_ino = id.ino;
}

/* Names that lead out of the directory are not looked up. */
static void
keep_info(const struct forest *f, struct node *n,
          const struct qcow2_info *info)
{
    struct qcow2_file *below;

    n->readable = true;
    n->format = info->format;
    n->virtual_size = info->virtual_size;
    n->allocated_size = info->allocated_size;
    if (!info->backing_file)
        return;
    n->backing = check_memory(strdup(info->backing_file));
    if (info->backing_outside)
        return;
    below = qcow2_find_file_in(f->dir_fd, info->backing_file, NULL);
    if (below)
        keep_id(&n->backing_st, below);
    qcow2_file_free(below);
}

/* What is shown is the file that was found, and links that lead out of the
 * directory are not followed. */
static void
add_file(struct forest *f, const char *name)
{
    CLEANUP_FREE char *path = path_of(f, name);
    struct qcow2_info_options o = {
        .no_lock = f->no_lock, .failures = failures,
    };
    struct qcow2_error err;
    struct qcow2_info *info = NULL;
    struct qcow2_file *file;
    struct node *n;
    struct stat st;

    if (fstatat(f->dir_fd, name, &st, 0) == -1 || !S_ISREG(st.st_mode))
        return;
    if ((f->nr & (f->nr - 1)) == 0)
        f->nodes = check_memory(realloc(f->nodes, (2 * f->nr + 1)
                                                  * sizeof *f->nodes));
    n = &f->nodes[f->nr++];
    *n = (struct node){ .name = check_memory(strdup(name)) };
    o.file = file = qcow2_find_file_in(f->dir_fd, name, &err);
    if (file) {
        keep_id(&n->st, file);
        info = qcow2_get_info(path, &o, &err);
    }
    qcow2_file_free(file);
    if (info)
        keep_info(f, n, info);
    else
        n->error = text_without_controls(err.text);
    qcow2_info_free(info);
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
    f->dir_fd = dirfd(dir);
    while ((e = readdir(dir)))
        if (e->d_name[0] != '.')
            add_file(f, e->d_name);
    closedir(dir);
    if (f->nr > 0)
        qsort(f->nodes, f->nr, sizeof *f->nodes, by_name);
    return 0;
}

static int
compare_files(const struct stat *a, const struct stat *b)
{
    if (a->st_dev != b->st_dev)
        return a->st_dev < b->st_dev ? -1 : 1;
    return a->st_ino < b->st_ino ? -1 : a->st_ino > b->st_ino;
}

/* Among links to the same file, the first name counts. */
static int
by_file(const void *a, const void *b)
{
    const struct node *m = *(struct node *const *)a;
    const struct node *n = *(struct node *const *)b;
    int r = compare_files(&m->st, &n->st);

    return r ? r : m < n ? -1 : m > n;
}

/* NULL: the file is not in the directory. */
static struct node *
find_file(const struct forest *f, const struct stat *st)
{
    size_t from = 0, to = f->nr;

    while (from < to) {
        size_t mid = from + (to - from) / 2;

        if (compare_files(&f->by_file[mid]->st, st) < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return from < f->nr && compare_files(&f->by_file[from]->st, st) == 0
               ? f->by_file[from] : NULL;
}

static void
link_nodes(struct forest *f)
{
    f->by_file = check_memory(calloc(f->nr + 1, sizeof *f->by_file));
    for (size_t i = 0; i < f->nr; i++)
        f->by_file[i] = &f->nodes[i];
    qsort(f->by_file, f->nr, sizeof *f->by_file, by_file);
    /* From the last on, so that those above are in the order of names. */
    for (size_t i = f->nr; i-- > 0;) {
        struct node *n = &f->nodes[i];

        if (!n->backing || n->backing_st.st_ino == 0)
            continue;
        n->below = find_file(f, &n->backing_st);
        if (n->below) {
            n->below->is_base = true;
            n->next = n->below->above;
            n->below->above = n;
        }
    }
}

/* Other raw files may be anything. */
static bool
is_image(const struct node *n)
{
    return n->is_base || !n->readable || n->format != QCOW2_FORMAT_RAW;
}

static void
show_node(struct node *n, unsigned level)
{
    CLEANUP_FREE char *name = text_escape(n->name);

    n->shown = true;
    text_indent(level);
    fputs(name, stdout);
    if (!n->readable) {
        printf(": %s\n", n->error);
        return;
    }
    printf(": %s, virtual size %s",
           qcow2_format_name(n->format),
           EXACT_SIZE_TEXT(n->virtual_size));
    printf(", on disk %s", EXACT_SIZE_TEXT(n->allocated_size));
    if (n->backing && !n->below) {
        CLEANUP_FREE char *backing = text_escape(n->backing);

        printf(", stands on %s, which is not here", backing);
    }
    putchar('\n');
}

/* A tree may be as deep as the directory has files: no recursion. */
static void
show_tree(struct node *root)
{
    struct node *n = root;
    unsigned level = 0;

    show_node(n, 0);
    for (;;) {
        if (n->above) {
            n = n->above;
            level++;
        } else {
            while (n != root && !n->next) {
                n = n->below;
                level--;
            }
            if (n == root)
                return;
            n = n->next;
        }
        show_node(n, level);
    }
}

static void
show_forest(struct forest *f)
{
    for (size_t i = 0; i < f->nr; i++)
        if (is_image(&f->nodes[i]) && !f->nodes[i].below)
            show_tree(&f->nodes[i]);
    for (size_t i = 0; i < f->nr; i++)
        if (is_image(&f->nodes[i]) && !f->nodes[i].shown) {
            printf("in a loop: ");
            show_node(&f->nodes[i], 0);
        }
}

static json_t *
node_json(const struct node *n)
{
    json_t *o = check_memory(json_object());
    json_t *overlays = check_memory(json_array());

    json_put(o, "filename", json_name(n->name));
    if (!n->readable) {
        json_put(o, "error", json_name(n->error));
    } else {
        json_put(o, "format", json_string(qcow2_format_name(n->format)));
        json_put(o, "virtual-size", json_bytes(n->virtual_size));
        json_put(o, "actual-size", json_bytes(n->allocated_size));
        if (n->backing)
            json_put(o, "backing-filename", json_name(n->backing));
        json_put(o, "backing-is-here", json_boolean(n->below));
    }
    for (const struct node *a = n->above; a; a = a->next)
        json_put(overlays, NULL, json_name(a->name));
    json_put(o, "overlays", overlays);
    return o;
}

static void
show_json(const struct forest *f)
{
    json_t *array = check_memory(json_array());

    for (size_t i = 0; i < f->nr; i++)
        if (is_image(&f->nodes[i]))
            json_put(array, NULL, node_json(&f->nodes[i]));
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

        free(n->name);
        free(n->error);
        free(n->backing);
    }
    free(f.nodes);
    free(f.by_file);
    return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
