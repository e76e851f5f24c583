/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-check.c: checks and repairs images. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "qcow2.h"
#include "json.h"
#include "tool.h"
#include "undo.h"
#include "verbs.h"

/* A hostile image can have any number of problems. */
enum { MAX_IN_JSON = 10000 };

/* Exit statuses. */
enum { CLEAN = 0, NOT_DONE = 1, CORRUPT = 2, LEAKS = 3, UNSUPPORTED = 63 };

static const struct tool_option options[] = {
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    OPTION_OUTPUT,
    { KEY_DATA, "data", NULL, "decompress all compressed clusters, too" },
    { 'r', "repair", "leaks|all", "repair: only what leaks, or all that is "
      "found; without it nothing is written" },
    { KEY_PLAN, "plan", NULL, "with -r: show each write, and do none" },
    { KEY_UNDO, "undo", "UNDO", "with -r: keep what is overwritten in this "
      "new file" },
    { KEY_RESTORE, "restore", "UNDO", "put back what --undo kept, if nothing "
      "was changed since" },
    OPTION_CACHE('T', "cache", "cache mode"),
    OPTION_PROGRESS,
    OPTION_FORCE_SHARE,
    OPTION_QUIET,
    OPTION_END,
};

struct request {
    const char *named, *path, *undo_path, *restore_path;
    bool json, progress, quiet;
    struct qcow2_check_options check;
    struct disk_args disk;

    struct undo *undo;
    bool rechecking;
    json_t *problems, *writes;
    uint64_t nr_left_out; /* of problems */
    uint64_t nr_writes_left_out;
};

static const char *
severity_word(enum qcow2_severity severity)
{
    switch (severity) {
    case QCOW2_CORRUPTION:
        return "ERROR";
    case QCOW2_LEAK:
        return "LEAK";
    case QCOW2_INFO:
        return "NOTE";
    }
    return "";
}

static void
show_problem(const struct qcow2_problem *p, bool left)
{
    CLEANUP_FREE char *text = text_without_controls(p->text);

    fprintf(stderr, "%s%s %s: %s", left ? "left: " : "",
            severity_word(p->severity), p->code, text);
    if (p->remedy)
        fprintf(stderr, "; repair: %s", p->remedy);
    fputc('\n', stderr);
}

static void
on_problem(void *opaque, const struct qcow2_problem *p)
{
    struct request *q = opaque;
    json_t *o;

    if (!q->json) {
        if (!q->quiet)
            show_problem(p, q->rechecking);
        return;
    }
    if (json_array_size(q->problems) == MAX_IN_JSON) {
        q->nr_left_out++;
        return;
    }
    o = check_memory(json_object());
    json_put(o, "code", json_string(p->code));
    json_put(o, "severity", json_string(severity_word(p->severity)));
    json_put(o, "text", json_name(p->text));
    json_put(o, "remedy", json_name(p->remedy));
    json_put(o, "offset", json_bytes(p->host_off));
    json_put(o, "clusters", json_bytes(p->nr_clusters));
    json_put(o, "left-after-repair", json_boolean(q->rechecking));
    json_put(q->problems, NULL, o);
}

static void
on_recheck(void *opaque)
{
    struct request *q = opaque;

    q->rechecking = true;
}

static int
on_settle(void *opaque)
{
    struct request *q = opaque;

    return undo_settle(q->undo);
}

static int
on_metadata(void *opaque, uint64_t host_off, uint64_t nr_bytes,
            const void *bytes)
{
    struct request *q = opaque;

    undo_metadata(q->undo, host_off, nr_bytes, bytes);
    return 0;
}

static int
on_write(void *opaque, const struct qcow2_repair_write *w)
{
    struct request *q = opaque;

    if (q->undo && !q->check.plan)
        return undo_record(q->undo, w);
    if (q->check.plan && q->json) {
        json_t *o;

        if (json_array_size(q->writes) == MAX_IN_JSON) {
            q->nr_writes_left_out++;
            return 0;
        }
        o = check_memory(json_object());
        json_put(o, "offset", json_bytes(w->host_off));
        json_put(o, "length", json_bytes(w->nr_bytes));
        json_put(o, "why", json_name(w->why));
        json_put(q->writes, NULL, o);
    } else if (q->check.plan && !q->quiet) {
        printf("would write %zu bytes at host offset %" PRIu64 ": %s\n",
               w->nr_bytes, w->host_off, w->why);
    }
    return 0;
}

static void
put_count(json_t *o, const char *key, uint64_t n)
{
    if (n > 0)
        json_put(o, key, json_bytes(n));
}

static void
show_json(struct request *q, const struct qcow2_check_result *r)
{
    json_t *o = check_memory(json_object());

    json_put(o, "filename", json_name(q->named));
    json_put(o, "format", json_string("qcow2"));
    json_put(o, "check-errors", json_integer(0));
    json_put(o, "image-end-offset", json_bytes(r->image_end_offset));
    put_count(o, "corruptions", r->corruptions);
    put_count(o, "leaks", r->leaks);
    put_count(o, "corruptions-fixed", r->corruptions_fixed);
    put_count(o, "leaks-fixed", r->leaks_fixed);
    put_count(o, "total-clusters", r->total_clusters);
    put_count(o, "allocated-clusters", r->allocated_clusters);
    put_count(o, "fragmented-clusters", r->fragmented_clusters);
    put_count(o, "compressed-clusters", r->compressed_clusters);
    json_put(o, "problems", q->problems);
    put_count(o, "problems-left-out", q->nr_left_out);
    if (q->check.plan) {
        json_put(o, "plan", q->writes);
        put_count(o, "plan-left-out", q->nr_writes_left_out);
    } else {
        json_decref(q->writes);
    }
    json_print(o);
}

static void
show_text(const struct qcow2_check_result *r)
{
    if (r->leaks_fixed || r->corruptions_fixed)
        printf("Repaired: %" PRIu64 " corruptions, %" PRIu64 " leaked "
               "clusters.\n", r->corruptions_fixed, r->leaks_fixed);
    if (!r->corruptions && !r->leaks)
        printf("No errors were found on the image.\n");
    if (r->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be damaged, or will be when the image is written.\n",
               r->corruptions);
    if (r->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "They take space, but do no harm.\n", r->leaks);
    if (r->total_clusters && r->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% "
               "fragmented, %0.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               r->allocated_clusters * 100.0 / r->total_clusters,
               r->fragmented_clusters * 100.0 / r->allocated_clusters,
               r->compressed_clusters * 100.0 / r->allocated_clusters);
    if (r->image_end_offset)
        printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
}

/* The format that the file has, or is said to have. */
static int
check_format(const struct request *q)
{
    struct qcow2_info_options o = {
        .format = q->disk.options.format,
        .no_lock = q->disk.options.no_lock,
        .file = q->check.file,
        .window = q->disk.options.window,
        .failures = failures,
    };
    struct qcow2_error err;
    struct qcow2_info *info;
    enum qcow2_format format;

    if (o.format == QCOW2_FORMAT_QCOW2)
        return CLEAN;
    info = qcow2_get_info(q->path, &o, &err);
    if (!info)
        return CLEAN; /* the check says what is wrong */
    format = info->format;
    qcow2_info_free(info);
    if (format == QCOW2_FORMAT_QCOW2)
        return CLEAN;
    report(format == QCOW2_FORMAT_RAW
           ? "there is nothing to check in a raw image"
           : "This image format does not support checks");
    return UNSUPPORTED;
}

static int
check(struct request *q)
{
    struct qcow2_check_result result = { .leaks = 0 };
    struct qcow2_error err;
    int r;

    q->problems = check_memory(json_array());
    q->writes = check_memory(json_array());
    q->check.problem = on_problem;
    q->check.recheck = on_recheck;
    q->check.failures = failures;
    q->check.write = on_write;
    if (q->undo) {
        q->check.settle = on_settle;
        q->check.metadata = on_metadata;
    }
    q->check.progress = progress_show;
    q->check.opaque = q;
    q->check.no_lock = q->disk.options.no_lock;
    q->check.window = q->disk.options.window;
    q->check.cache = q->disk.options.cache;
    progress_begin(q->progress, q->quiet || q->json);
    r = qcow2_check(q->path, &q->check, &result, &err);
    progress_end();
    if (r == -1) {
        json_decref(q->problems);
        json_decref(q->writes);
        report_error(&err);
        return err.errnum == ENOTSUP ? UNSUPPORTED : NOT_DONE;
    }
    if (q->json && !q->quiet) {
        show_json(q, &result);
    } else {
        json_decref(q->problems);
        json_decref(q->writes);
        if (!q->quiet)
            show_text(&result);
    }
    return result.corruptions ? CORRUPT : result.leaks ? LEAKS : CLEAN;
}

static int
run_on_file(struct request *q)
{
    int status = check_format(q);

    if (status != CLEAN)
        return status;
    if (q->undo_path) {
        q->undo = undo_create(q->undo_path);
        if (!q->undo)
            return NOT_DONE;
    }
    status = check(q);
    if (q->undo && undo_close(q->undo, status != NOT_DONE) == -1)
        status = NOT_DONE;
    return status;
}

/* The file is found once: the format that was settled is that of the file
 * that is repaired. */
static int
run_request(struct request *q)
{
    struct qcow2_error err;
    struct qcow2_file *file = qcow2_find_file(q->path, &err);
    int status;

    if (!file) {
        report_error(&err);
        return NOT_DONE;
    }
    q->check.file = file;
    status = run_on_file(q);
    qcow2_file_free(file);
    return status;
}

static void
take(struct request *q, const struct args *a, int key)
{
    switch (key) {
    case KEY_OUTPUT:
        q->json = parse_output(a);
        break;
    case 'r':
        if (strcmp(a->value, "leaks") == 0)
            q->check.repair = QCOW2_REPAIR_LEAKS;
        else if (strcmp(a->value, "all") == 0)
            q->check.repair = QCOW2_REPAIR_ALL;
        else
            usage_error(a->verb, "-r must be leaks or all");
        break;
    case KEY_DATA:
        q->check.data = true;
        break;
    case KEY_PLAN:
        q->check.plan = true;
        break;
    case KEY_UNDO:
        q->undo_path = a->value;
        break;
    case KEY_RESTORE:
        q->restore_path = a->value;
        break;
    case 'T':
        disk_args_set_cache(&q->disk, parse_cache(a));
        break;
    case 'p':
        q->progress = true;
        break;
    case 'q':
        q->quiet = true;
        break;
    default:
        disk_args_take(&q->disk, a, key);
    }
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct request q = { .disk = DISK_ARGS_INIT };
    bool repair;
    struct args a;
    int key;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1)
        take(&q, &a, key);
    args_need(&a, 1, "one image");
    q.named = a.operands[0];
    q.path = disk_args_name(&q.disk, &a, q.named);
    repair = q.check.repair != QCOW2_REPAIR_NONE;
    if ((q.check.plan || q.undo_path) && !repair)
        usage_error(verb, "--plan and --undo go with -r");
    if (q.check.plan && q.undo_path)
        usage_error(verb, "--plan writes nothing that --undo could keep");
    if ((repair && !q.check.plan) || q.restore_path) {
        disk_args_need_locks(&q.disk, &a, "a repair needs the locks");
        disk_args_need_writable(&q.disk, &a, q.named);
    }
    if ((q.undo_path || q.restore_path)
        && (q.disk.options.window.offset || q.disk.options.window.size))
        usage_error(verb, "--undo and --restore are for images that have a "
                    "file of their own");
    if (q.restore_path && repair)
        usage_error(verb, "either repair or restore");
    return q.restore_path ? undo_restore(q.restore_path, q.path)
                          : run_request(&q);
}

const struct verb verb_check = {
    .name = "check",
    .summary = "Check an image, and repair it if told to.",
    .operands = "[OPTION...] FILE",
    .options = options,
    .notes = "The exit status is 0 if the image is clean (now), 1 if the "
             "check could not be done, 2 if there is damage, 3 if there are "
             "only leaked clusters, and 63 if the format cannot be checked.",
    .example = "qcow2-img check disk.qcow2\n"
               "qcow2-img check -r all --undo=disk.undo disk.qcow2",
    .run = run,
};
