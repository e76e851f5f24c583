/* SPDX-License-Identifier: BSD-3-Clause */
/* cmd-bench.c: how fast are requests? */
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "tool.h"
#include "verbs.h"

enum { MAX_DEPTH = 256, MAX_BUFFER = 1 << 30 };

static const struct tool_option options[] = {
    { 'c', "count", "N", "requests to make [75000]" },
    { 'd', "depth", "N", "requests in flight at once [64]" },
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    { KEY_FLUSH_INTERVAL, "flush-interval", "N", "with -w: flush after every "
      "N requests" },
    { 'i', "aio", "AIO", "threads, native or io_uring: accepted, but requests "
      "are made by threads" },
    { 'n', "native", NULL, "accepted, as -i native" },
    { KEY_NO_DRAIN, "no-drain", NULL, "do not wait for requests in flight "
      "before a flush" },
    { 'o', "offset", "OFFSET", "first guest offset [0]" },
    { KEY_PATTERN, "pattern", "BYTE", "with -w: what to write [0]" },
    { 's', "buffer-size", "BYTES", "size of a request [4k]" },
    { 'S', "step-size", "BYTES", "from one request to the next [its size]" },
    { 'w', "write", NULL, "write: the disk's content is lost" },
    OPTION_CACHE('t', "cache", "cache mode"),
    OPTION_ALLOW,
    OPTION_BACKING,
    OPTION_FORCE_SHARE,
    OPTION_QUIET,
    OPTION_END,
};

struct bench {
    struct qcow2_disk *disk;
    uint64_t size; /* of the disk */
    uint64_t count, offset, step, flush_interval;
    unsigned depth, pattern;
    size_t nr_bytes;
    bool write, no_drain, quiet;

    pthread_mutex_t lock;      /* of the three below */
    uint64_t next;             /* request to make */
    bool failed;
    struct qcow2_error err;    /* why */
    pthread_rwlock_t flushing; /* shared by requests in flight */
};

/* Takes the next request; false: there is none. */
static bool
take_request(struct bench *b, uint64_t *index)
{
    bool taken;

    pthread_mutex_lock(&b->lock);
    taken = !b->failed && b->next < b->count;
    if (taken)
        *index = b->next++;
    pthread_mutex_unlock(&b->lock);
    return taken;
}

static void
note_failure(struct bench *b, const struct qcow2_error *err)
{
    pthread_mutex_lock(&b->lock);
    if (!b->failed)
        b->err = *err;
    b->failed = true;
    pthread_mutex_unlock(&b->lock);
}

static int
make_request(struct bench *b, uint64_t index, void *buf,
             struct qcow2_error *err)
{
    uint64_t room = b->size - b->nr_bytes + 1;
    uint64_t guest_off = (b->offset + index % room * (b->step % room)) % room;

    if (b->write)
        return qcow2_pwrite(b->disk, buf, b->nr_bytes, guest_off, 0, err);
    return qcow2_pread(b->disk, buf, b->nr_bytes, guest_off, err);
}

static int
flush(struct bench *b, struct qcow2_error *err)
{
    int r;

    if (b->no_drain)
        return qcow2_flush(b->disk, err);
    pthread_rwlock_wrlock(&b->flushing);
    r = qcow2_flush(b->disk, err);
    pthread_rwlock_unlock(&b->flushing);
    return r;
}

static void *
worker(void *opaque)
{
    struct bench *b = opaque;
    void *buf = check_memory(malloc(b->nr_bytes));
    struct qcow2_error err;
    uint64_t index;

    memset(buf, b->pattern, b->nr_bytes);
    while (take_request(b, &index)) {
        int r;

        pthread_rwlock_rdlock(&b->flushing);
        r = make_request(b, index, buf, &err);
        pthread_rwlock_unlock(&b->flushing);
        if (r == 0 && b->flush_interval
            && (index + 1) % b->flush_interval == 0)
            r = flush(b, &err);
        if (r == -1)
            note_failure(b, &err);
    }
    free(buf);
    return NULL;
}

/* The calling thread is one of them. */
static void
run_workers(struct bench *b)
{
    pthread_t threads[MAX_DEPTH];
    unsigned nr = 0;

    while (nr + 1 < b->depth
           && pthread_create(&threads[nr], NULL, worker, b) == 0)
        nr++;
    worker(b);
    while (nr > 0)
        pthread_join(threads[--nr], NULL);
}

static void
announce(const struct bench *b)
{
    printf("Sending %" PRIu64 " %s requests, %zu bytes each, %u in parallel "
           "(starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
           b->count, b->write ? "write" : "read", b->nr_bytes, b->depth,
           b->offset, b->step);
    if (b->flush_interval)
        printf("Sending flush every %" PRIu64 " requests\n",
               b->flush_interval);
    fflush(stdout);
}

static int
bench(struct bench *b)
{
    struct timespec start, end;

    b->size = qcow2_get_size(b->disk);
    if (b->size < b->nr_bytes || b->offset > b->size - b->nr_bytes) {
        report("the disk has only %s: the first request does not fit",
               EXACT_SIZE_TEXT(b->size));
        return EXIT_FAILURE;
    }
    pthread_mutex_init(&b->lock, NULL);
    pthread_rwlock_init(&b->flushing, NULL);
    if (!b->quiet)
        announce(b);
    clock_gettime(CLOCK_MONOTONIC, &start);
    run_workers(b);
    clock_gettime(CLOCK_MONOTONIC, &end);
    pthread_rwlock_destroy(&b->flushing);
    pthread_mutex_destroy(&b->lock);
    if (b->failed)
        return report_error(&b->err);
    if (!b->quiet)
        printf("Run completed in %.3f seconds.\n",
               end.tv_sec - start.tv_sec
               + (end.tv_nsec - start.tv_nsec) / 1e9);
    return EXIT_SUCCESS;
}

/* There is one way to make requests; what others name must exist. */
static void
check_aio(const struct args *a)
{
    static const char *const names[] = { "threads", "native", "io_uring" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(a->value, names[i]) == 0)
            return;
    usage_error(a->verb, "-i must be threads, native or io_uring");
}

static void
take(struct bench *b, const struct args *a, int key)
{
    uint64_t nr_bytes;

    switch (key) {
    case 'c':
        b->count = parse_number(a, "-c", a->value, 0, UINT32_MAX);
        break;
    case 'd':
        b->depth = parse_number(a, "-d", a->value, 0, MAX_DEPTH);
        if (b->depth == 0)
            usage_error(a->verb, "-d must be at least 1");
        break;
    case KEY_FLUSH_INTERVAL:
        b->flush_interval = parse_number(a, "--flush-interval", a->value, 0,
                                         UINT32_MAX);
        break;
    case 'i':
        check_aio(a);
        break;
    case KEY_NO_DRAIN:
        b->no_drain = true;
        break;
    case 'o':
        b->offset = parse_bytes(a, "-o", a->value);
        break;
    case KEY_PATTERN:
        b->pattern = parse_number(a, "--pattern", a->value, 0, 255);
        break;
    case 's':
        nr_bytes = parse_bytes(a, "-s", a->value);
        if (nr_bytes == 0 || nr_bytes > MAX_BUFFER)
            usage_error(a->verb, "-s must be from 1 to 1G");
        b->nr_bytes = nr_bytes;
        break;
    case 'S':
        b->step = parse_bytes(a, "-S", a->value);
        break;
    case 'w':
        b->write = true;
        break;
    case 'q':
        b->quiet = true;
        break;
    }
}

static int
run(const struct verb *verb, int argc, char **argv)
{
    struct bench b = { .count = 75000, .depth = 64, .nr_bytes = 4096 };
    struct disk_args disk = DISK_ARGS_INIT;
    int key, status = EXIT_FAILURE;
    const char *path;
    struct args a;

    args_start(&a, verb, argc, argv);
    while ((key = args_next(&a)) != -1)
        if (key == 't')
            disk_args_set_cache(&disk, parse_cache(&a));
        else if (!disk_args_take(&disk, &a, key))
            take(&b, &a, key);
    args_need(&a, 1, "one image");
    if (b.flush_interval && !b.write)
        usage_error(verb, "--flush-interval goes with -w");
    if (b.write)
        disk_args_need_locks(&disk, &a, "writes need the locks");
    if (b.step == 0)
        b.step = b.nr_bytes;
    path = disk_args_name(&disk, &a, a.operands[0]);
    b.disk = disk_open(path, &disk, !b.write);
    if (b.disk)
        status = disk_close(b.disk, bench(&b));
    disk_args_free(&disk);
    return status;
}

const struct verb verb_bench = {
    .name = "bench",
    .summary = "Measure how fast requests are.",
    .operands = "[OPTION...] FILE",
    .options = options,
    .notes = "Offsets go round at the disk's end.",
    .example = "qcow2-img bench -w -c 10000 -s 64k scratch.qcow2",
    .run = run,
};
