/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-snapshot.c: internal snapshots: by letters as qemu-img has them, or by
 * words.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "show.h"
#include "state-file.h"
#include "tool.h"
#include "verbs.h"

static const struct tool_option options[] = {
    { 'l', "list", NULL, "list all snapshots" },
    { 'c', "create", "NAME", "create a snapshot" },
    { 'a', "apply", "NAME", "apply a snapshot: the disk becomes what it was" },
    { 'd', "delete", "NAME", "delete a snapshot" },
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    { KEY_OUTPUT, "output", "human|json", "how to print the list" },
    { 'U', "force-share", NULL, "list without locks, for images that are in "
      "use" },
    OPTION_QUIET,
    OPTION_END,
};

enum action {
    NO_ACTION,
    LIST,
    CREATE,
    APPLY,
    DELETE,
    SAVE_STATE,
    LOAD_STATE,
};

static const struct {
    const char *word;
    char letter; /* 0: none */
    enum action action;
    int nr_operands;
    const char *expects;
} actions[] = {
    { "list", 'l', LIST, 1, "one image" },
    { "create", 'c', CREATE, 2, "a name and one image" },
    { "apply", 'a', APPLY, 2, "a name or id and one image" },
    { "delete", 'd', DELETE, 2, "a name and one image" },
    { "save-state", 0, SAVE_STATE, 3, "a name, a file of VM state and one "
      "image" },
    { "load-state", 0, LOAD_STATE, 3, "a name or id, a file for the VM state "
      "and one image" },
};
enum { NR_ACTIONS = sizeof actions / sizeof actions[0] };

struct request {
    enum action action;
    const char *name, *state, *path;
    bool json;
    struct disk_args disk;
    struct qcow2_file *file; /* at path, if there is a file of VM state */
};

static int
list(const struct request *q)
{
    struct qcow2_info_options o = {
        .format = q->disk.options.format,
        .no_lock = q->disk.options.no_lock,
        .window = q->disk.options.window,
        .failures = failures,
    };
    struct qcow2_error err;
    struct qcow2_info *info = qcow2_get_info(q->path, &o, &err);
    int status = EXIT_SUCCESS;

    if (!info)
        return report_error(&err);
    if (info->nr_snapshots == 0 && info->refusal.errnum == EIO)
        status = report_error(&info->refusal);
    else if (q->json)
        json_print(show_snapshots_json(info->snapshots, info->nr_snapshots));
    else
        show_snapshots(info->snapshots, info->nr_snapshots);
    qcow2_info_free(info);
    return status;
}

/* The vm_state callback: EINTR ends it. */
static long
read_state(void *opaque, void *buf, size_t nr_bytes)
{
    const int *fd = opaque;

    if (progress_interrupted()) {
        errno = EINTR;
        return -1;
    }
    return read(*fd, buf, nr_bytes);
}

/* Only ids tell snapshots of one name apart. */
static void
warn_of_second(struct qcow2_disk *disk, const char *name)
{
    CLEANUP_FREE char *shown = text_escape(name);
    struct qcow2_snapshot_list list;

    if (qcow2_get_snapshots(disk, &list, NULL) == -1)
        return;
    for (size_t i = 0; i < list.nr; i++) {
        if (strcmp(list.snapshots[i].name, name) == 0) {
            CLEANUP_FREE char *id = text_escape(list.snapshots[i].id);

            report_warning("there is a snapshot with the name '%s' already; "
                           "snapshot.id=%s means that one", shown, id);
            break;
        }
    }
    qcow2_snapshot_list_free(&list);
}

/* Deletes by a name, unless the word says that it is an id: a number that no
 * snapshot has as its name was meant for another image. */
static int
delete(struct qcow2_disk *disk, const char *word, struct qcow2_error *err)
{
    bool plain = strncmp(word, "snapshot.id=", 12) != 0
                 && strncmp(word, "snapshot.name=", 14) != 0;
    CLEANUP_FREE char *name = NULL;

    if (plain && asprintf(&name, "snapshot.name=%s", word) == -1)
        check_memory(NULL);
    return qcow2_snapshot_delete(disk, plain ? name : word, err);
}

static int
create(struct qcow2_disk *disk, const char *name, const int *state_fd,
       struct qcow2_error *err)
{
    struct qcow2_snapshot_create_options o = {
        .vm_state = state_fd ? read_state : NULL,
        .opaque = (void *)state_fd,
    };
    struct timespec now;

    warn_of_second(disk, name);
    clock_gettime(CLOCK_REALTIME, &now);
    o.date_sec = now.tv_sec;
    o.date_nsec = now.tv_nsec;
    return qcow2_snapshot_create(disk, name, &o, err);
}

/* Is the file of VM state the image itself? Writing to it would destroy the
 * image, and reading it would not end as long as there is space. */
static bool
is_image(const struct request *q, const struct stat *st)
{
    struct qcow2_file_id image = qcow2_file_get_id(q->file);
    struct qcow2_file_id state = qcow2_stat_get_id(st);

    return image.dev == state.dev && image.ino == state.ino;
}

/* Opens the file; "-" is a standard stream. A new one is for its owner alone:
 * it holds the memory of a guest. One that is to be written is emptied. */
static int
open_state(const struct request *q, int flags, int standard)
{
    CLEANUP_FREE char *name = text_escape(q->state);
    struct stat st;
    int fd = strcmp(q->state, "-") == 0
             ? dup(standard) : open(q->state, flags | O_CLOEXEC, 0600);

    if (fd == -1) {
        report("%s: cannot open: %s", name, strerror(errno));
        return -1;
    }
    if (fstat(fd, &st) == -1) {
        report("%s: %s", name, strerror(errno));
    } else if (is_image(q, &st)) {
        report("%s: the file of VM state cannot be the image itself", name);
    } else if (standard == STDOUT_FILENO && S_ISREG(st.st_mode)
               && strcmp(q->state, "-") != 0 && ftruncate(fd, 0) == -1) {
        report("%s: cannot empty: %s", name, strerror(errno));
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

/* The backing file has no part in this: it need not be there. */
static struct qcow2_disk *
open_alone(const struct request *q, bool readonly)
{
    struct disk_args alone = q->disk;

    alone.options.backing = NULL;
    alone.options.backing_none = true;
    alone.options.file = q->file;
    return disk_open(q->path, &alone, readonly);
}

static int
change(const struct request *q)
{
    int state_fd = -1, status = EXIT_SUCCESS, r = 0;
    struct qcow2_disk *disk;
    struct qcow2_error err;

    if (q->action == SAVE_STATE) {
        state_fd = open_state(q, O_RDONLY, STDIN_FILENO);
        if (state_fd == -1)
            return EXIT_FAILURE;
    }
    disk = open_alone(q, false);
    progress_catch_signals();
    if (disk) {
        if (q->action == APPLY)
            r = qcow2_snapshot_apply(disk, q->name, &err);
        else if (q->action == DELETE)
            r = delete(disk, q->name, &err);
        else
            r = create(disk, q->name, state_fd == -1 ? NULL : &state_fd,
                       &err);
        if (r == -1)
            report_error(&err);
        status = disk_close(disk, r == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    if (state_fd != -1)
        close(state_fd);
    return disk ? status : EXIT_FAILURE;
}

/* Its VM state's size; 0 if there is none. */
static uint64_t
find_state_size(struct qcow2_disk *disk, const char *name)
{
    struct qcow2_snapshot_list list;
    uint64_t nr_bytes = 0;
    long index;

    if (qcow2_get_snapshots(disk, &list, NULL) == -1)
        return 0;
    index = qcow2_find_snapshot(&list, name, NULL);
    if (index >= 0)
        nr_bytes = list.snapshots[index].vm_state_size;
    qcow2_snapshot_list_free(&list);
    return nr_bytes;
}

/* What is stored of a state is in the image's file, each cluster once. */
static int
write_state(struct qcow2_disk *disk, struct qcow2_disk *snapshot,
            uint64_t nr_bytes, int fd)
{
    struct qcow2_layer layer;
    struct qcow2_error err;

    if (qcow2_get_layer(disk, 0, &layer, &err) == -1)
        return report_error(&err);
    return state_file_write(snapshot, nr_bytes, layer.file_size, fd);
}

/* Opens the file, which empties it, only once there is something to load. */
static int
load_from(const struct request *q, struct qcow2_disk *disk,
          struct qcow2_disk *snapshot)
{
    uint64_t nr_bytes = find_state_size(disk, q->name), n;
    struct qcow2_error err;
    int fd, status;
    bool zero;

    if (nr_bytes == 0) {
        CLEANUP_FREE char *name = text_escape(q->name);

        report("snapshot '%s' has no VM state", name);
        return EXIT_FAILURE;
    }
    if (qcow2_map_vm_state(snapshot, 0, &n, &zero, &err) == -1)
        return report_error(&err);
    fd = open_state(q, O_WRONLY | O_CREAT, STDOUT_FILENO);
    if (fd == -1)
        return EXIT_FAILURE;
    status = write_state(disk, snapshot, nr_bytes, fd);
    if (close(fd) == -1 && status == EXIT_SUCCESS) {
        report("cannot write the VM state: %s", strerror(errno));
        status = EXIT_FAILURE;
    }
    return status;
}

static int
load_state(const struct request *q)
{
    struct qcow2_disk *disk = open_alone(q, true), *snapshot;
    int status = EXIT_FAILURE;
    struct qcow2_error err;

    if (!disk)
        return EXIT_FAILURE;
    snapshot = qcow2_open_snapshot(disk, q->name, &err);
    if (!snapshot)
        report_error(&err);
    else
        status = load_from(q, disk, snapshot);
    qcow2_close(snapshot, NULL);
    return disk_close(disk, status);
}

/* Which action the words or letters ask for, and its operands. */
static void
settle(struct request *q, const struct args *a)
{
    int nr = a->nr_operands, i;

    for (i = 0; nr > 0 && i < NR_ACTIONS; i++)
        if (strcmp(a->operands[0], actions[i].word) == 0)
            break;
    /* A file alone is listed. */
    if (q->action == NO_ACTION && nr == 1 && i == NR_ACTIONS)
        q->action = LIST;
    if (q->action != NO_ACTION) {
        args_need(a, 1, "one image");
        q->path = disk_args_name(&q->disk, a, a->operands[0]);
        return;
    }
    if (nr == 0 || i == NR_ACTIONS)
        usage_error(a->verb, "say what to do: -l, -c, -a or -d, or a word");
    if (nr - 1 != actions[i].nr_operands)
        usage_error(a->verb, "%s expects %s", actions[i].word,
                    actions[i].expects);
    q->action = actions[i].action;
    q->path = disk_args_name(&q->disk, a, a->operands[nr - 1]);
    if (nr > 2)
        q->name = a->operands[1];
    if (nr > 3)
        q->state = a->operands[2];
}

static bool
is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

/* A name that is a file, and an image that is none, were exchanged. */
static void
check_order(const struct request *q, const struct args *a)
{
    CLEANUP_FREE char *name = NULL, *path = NULL;

    if (!q->name || q->disk.image_opts || strstr(q->path, "://")
        || is_there(q->path) || !is_there(q->name))
        return;
    name = text_escape(q->path);
    path = text_escape(q->name);
    usage_error(a->verb, "the name comes first, then the image: write '%s %s'",
                name, path);
}

static void
take_letter(struct request *q, const struct args *a, int key)
{
    for (int i = 0; i < NR_ACTIONS; i++)
        if (actions[i].letter == key) {
            if (q->action != NO_ACTION)
                usage_error(a->verb, "only one of -l, -c, -a and -d can be "
                            "done at once");
            q->action = actions[i].action;
            q->name = a->value;
        }
}

static int
act(const struct request *q)
{
    switch (q->action) {
    case NO_ACTION:
        break;
    case LIST:
        return list(q);
    case CREATE:
    case APPLY:
    case DELETE:
    case SAVE_STATE:
        return change(q);
    case LOAD_STATE:
        return load_state(q);
    }
    return EXIT_FAILURE;
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct request q = { .disk = DISK_ARGS_INIT };
    struct qcow2_error err;
    struct args a;
    int key, status;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1) {
        if (key == KEY_OUTPUT)
            q.json = parse_output(&a);
        else if (!disk_args_take(&q.disk, &a, key))
            take_letter(&q, &a, key);
    }
    settle(&q, &a);
    check_order(&q, &a);
    if (q.action != LIST && q.action != LOAD_STATE)
        disk_args_need_locks(&q.disk, &a, "changes need the locks");
    if (q.state) {
        q.file = qcow2_find_file(q.path, &err);
        if (!q.file)
            return report_error(&err);
    }
    status = act(&q);
    qcow2_file_free(q.file);
    return status;
}

const struct verb verb_snapshot = {
    .name = "snapshot",
    .summary = "List, create, apply and delete internal snapshots; store VM "
               "state with one, or get it back.",
    .operands = "[OPTION...] [-l] FILE\n"
                "[OPTION...] -c|-a|-d NAME FILE\n"
                "[OPTION...] list FILE\n"
                "[OPTION...] create|apply|delete NAME FILE\n"
                "[OPTION...] save-state|load-state NAME STATE FILE",
    .options = options,
    .notes = "NAME can also be an id, except of a new snapshot and one to be "
             "deleted; snapshot.id=ID and snapshot.name=NAME say which. "
             "save-state "
             "makes a snapshot that has the content of the file STATE as VM "
             "state (a QEMU migration stream, say), and load-state puts it "
             "into such a file; - is the standard input or output. Backing "
             "files are not opened.",
    .example = "qcow2-img snapshot -c before-upgrade disk.qcow2\n"
               "qcow2-img snapshot list disk.qcow2",
    .run = run,
};
