/* SPDX-License-Identifier: BSD-3-Clause */
/* compare.c: do two disks read the same? */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/open-disk.h"
#include "job/copy-job.h"

enum { NR_THREADS = 4, SECTOR_BYTES = 512 };

struct compare {
    struct copy_job j; /* first */
    struct qcow2_disk *disks[2];
    bool strict;
    struct qcow2_compare_result *result;
    uint64_t differs_at;  /* allocation (strict): what is before has still
                           * to be read */

    pthread_mutex_t lock; /* of content_at */
    uint64_t content_at;
};

/* Takes the first extent it is told. */
static int
take_extent(void *opaque, const struct qcow2_extent *e)
{
    *(struct qcow2_extent *)opaque = *e;
    return 1;
}

/* Past its end a disk is a hole. */
static int
get_extent(struct qcow2_disk *disk, uint64_t guest_off, uint64_t nr_bytes,
           struct qcow2_extent *e, struct qcow2_error *err)
{
    uint64_t size = qcow2_get_size(disk);

    if (guest_off < size)
        return qcow2_map(disk, min_u64(nr_bytes, size - guest_off),
                         guest_off, take_extent, e, err);
    *e = (struct qcow2_extent){ .nr_bytes = nr_bytes, .zero = true };
    return 0;
}

static bool
same_allocation(const struct qcow2_extent *a, const struct qcow2_extent *b)
{
    return a->present == b->present && a->zero == b->zero
           && a->compressed == b->compressed
           && a->has_host_off == b->has_host_off;
}

/* Parts of a file that begin, or end, at other places are two files here. */
static bool
is_same_file(const struct io *a, const struct io *b)
{
    return a->ino != 0 && a->ino == b->ino && a->dev == b->dev
           && a->window.offset == b->window.offset
           && a->window.size == b->window.size;
}

/* Are both the same bytes of one file, as with overlays of one base? */
static bool
same_place(const struct compare *c, const struct qcow2_extent e[2])
{
    struct source_chain *a, *b;
    bool same;

    if (!e[0].has_host_off || !e[1].has_host_off || e[0].zero || e[1].zero
        || e[0].host_off != e[1].host_off)
        return false;
    a = disk_get_chain(c->disks[0]);
    b = disk_get_chain(c->disks[1]);
    same = e[0].depth < a->nr_layers && e[1].depth < b->nr_layers
           && is_same_file(source_file(a->layers[e[0].depth],
                                       e[0].compressed),
                           source_file(b->layers[e[1].depth],
                                       e[1].compressed));
    source_chain_put(a);
    source_chain_put(b);
    return same;
}

static int
plan(void *opaque, uint64_t guest_off, uint64_t nr_bytes,
     enum copy_kind *kind, uint64_t *len, struct qcow2_error *err)
{
    struct compare *c = opaque;
    struct qcow2_extent e[2];

    *kind = COPY_SKIP;
    *len = nr_bytes;
    if (guest_off >= c->differs_at)
        return 0;
    for (unsigned i = 0; i < 2; i++) {
        if (get_extent(c->disks[i], guest_off, *len, &e[i], err) == -1)
            return -1;
        *len = min_u64(*len, e[i].nr_bytes);
    }
    if (c->strict && !same_allocation(&e[0], &e[1]))
        c->differs_at = guest_off;
    else if (!(e[0].zero && e[1].zero) && !same_place(c, e))
        *kind = COPY_DATA;
    return 0;
}

static int
read_disk(struct qcow2_disk *disk, unsigned char *buf,
          const struct copy_chunk *chunk, struct qcow2_error *err)
{
    uint64_t size = qcow2_get_size(disk), inside = 0;

    if (chunk->guest_off < size)
        inside = min_u64(chunk->nr_bytes, size - chunk->guest_off);
    memset(buf + inside, 0, chunk->nr_bytes - inside);
    return qcow2_pread(disk, buf, inside, min_u64(chunk->guest_off, size),
                       err);
}

static int
read_chunk(void *opaque, struct copy_chunk *chunk, struct qcow2_error *err)
{
    struct compare *c = opaque;
    uint64_t at = 0;

    if (read_disk(c->disks[0], chunk->buf, chunk, err) == -1
        || read_disk(c->disks[1], chunk->space, chunk, err) == -1)
        return -1;
    if (memcmp(chunk->buf, chunk->space, chunk->nr_bytes) == 0)
        return 0;
    while (chunk->buf[at] == chunk->space[at])
        at++;
    at = round_down(chunk->guest_off + at, SECTOR_BYTES);
    LOCK_SCOPE(&c->lock);
    c->content_at = min_u64(c->content_at, at);
    return 0;
}

static int
write_chunk(void *opaque, struct copy_chunk *chunk, struct qcow2_error *err)
{
    (void)opaque;
    (void)chunk;
    (void)err;
    return 0;
}

static int
found(struct compare *c, enum qcow2_difference difference,
      uint64_t guest_off)
{
    c->result->difference = difference;
    c->result->guest_off = guest_off;
    return 0;
}

static int
run_phase(struct copy_job *j, unsigned phase, struct qcow2_error *err)
{
    struct compare *c = (struct compare *)j;
    int r;

    (void)phase; /* the only one */
    *c->result = (struct qcow2_compare_result){
        .sizes_differ = qcow2_get_size(c->disks[0])
                        != qcow2_get_size(c->disks[1]),
    };
    if (c->strict && c->result->sizes_differ)
        return found(c, QCOW2_DIFFERENT_SIZE, 0);
    r = copy_step(&j->copy, err);
    if (r == -1)
        return -1;
    /* A step's chunks all lie before those of the next. */
    if (c->content_at != UINT64_MAX)
        return found(c, QCOW2_DIFFERENT_CONTENT, c->content_at);
    if (r == 0 && c->differs_at != UINT64_MAX)
        return found(c, QCOW2_DIFFERENT_ALLOCATION, c->differs_at);
    return r;
}

static void
compare_free(struct copy_job *j)
{
    pthread_mutex_destroy(&((struct compare *)j)->lock);
}

static const struct copy_job_ops compare_ops = {
    .nr_phases = 1,
    .run_phase = run_phase,
    .free = compare_free,
    .copy = { .plan = plan, .read = read_chunk, .write = write_chunk },
};

struct qcow2_job *
qcow2_compare(struct qcow2_disk *a, struct qcow2_disk *b, bool strict,
              struct qcow2_compare_result *result, struct qcow2_error *err)
{
    struct compare *c = calloc(1, sizeof *c);

    if (!c) {
        error_nomem(err);
        return NULL;
    }
    copy_job_init(&c->j, &compare_ops);
    c->disks[0] = a;
    c->disks[1] = b;
    c->strict = strict;
    c->result = result;
    c->differs_at = c->content_at = UINT64_MAX;
    pthread_mutex_init(&c->lock, NULL);
    c->j.copy.end = max_u64(qcow2_get_size(a), qcow2_get_size(b));
    c->j.copy.align = 1;
    c->j.copy.nr_threads = NR_THREADS;
    c->j.copy.out_of_order = true;
    c->j.copy.needs_space = true;
    return &c->j.job;
}
