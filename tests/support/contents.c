/* SPDX-License-Identifier: BSD-3-Clause */
/* contents.c: see contents.h. */
#include "contents.h"

#include <stdlib.h>

#include "expect.h"
#include "snapshots.h"

enum { MAX_SAVED = 12 };

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static void *
copy_of(const void *bytes, uint64_t nr_bytes)
{
    void *p = must_have(calloc(1, nr_bytes + 1));

    if (bytes)
        memcpy(p, bytes, nr_bytes);
    return p;
}

static uint64_t
smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void
contents_init(struct contents *c, const void *content, uint64_t size)
{
    memset(c, 0, sizeof *c);
    c->disk = copy_of(content, size);
    c->size = size;
}

static void
saved_free(struct saved *s)
{
    free(s->disk);
    free(s->vm_state);
}

void
contents_free(struct contents *c)
{
    for (unsigned i = 0; i < c->nr; i++)
        saved_free(&c->saved[i]);
    free(c->saved);
    free(c->disk);
    memset(c, 0, sizeof *c);
}

/* One more at the end, with copies of what it points to. */
static void
add_saved(struct contents *c, const struct saved *s)
{
    struct saved *new;

    c->saved = must_have(realloc(c->saved, (c->nr + 1) * sizeof *c->saved));
    new = &c->saved[c->nr++];
    *new = *s;
    new->disk = copy_of(s->disk, s->size);
    new->vm_state = copy_of(s->vm_state, s->vm_state_size);
}

void
contents_copy(struct contents *to, const struct contents *from)
{
    contents_init(to, from->disk, from->size);
    for (unsigned i = 0; i < from->nr; i++)
        add_saved(to, &from->saved[i]);
}

static void
expect_built(const unsigned char *got, uint64_t size, const struct builder *b,
             int snapshot, const void *below, uint64_t nr_below)
{
    unsigned char *want = copy_of(NULL, size);

    EXPECT(size == builder_disk_size(b, snapshot), "size of %d", snapshot);
    if (below)
        memcpy(want, below, smaller(size, nr_below));
    builder_overlay(b, snapshot, want, size);
    expect_same("what was built", got, want, size, 0);
    free(want);
}

void
contents_expect_built(const struct contents *c, const struct builder *b,
                      const void *below, uint64_t nr_below)
{
    expect_built(c->disk, c->size, b, -1, below, nr_below);
    for (unsigned i = 0; i < c->nr; i++)
        expect_built(c->saved[i].disk, c->saved[i].size, b, i, below,
                     nr_below);
}

static void
read_saved(struct contents *c, struct qcow2_disk *disk, size_t i)
{
    struct qcow2_snapshot info;
    struct qcow2_disk *snapshot;
    struct qcow2_error err;
    struct saved s = { .size = 0 };

    snapshot_get(disk, i, &info);
    snprintf(s.id, sizeof s.id, "%s", info.id);
    snprintf(s.name, sizeof s.name, "%s", info.name);
    s.size = info.disk_size;
    s.vm_state_size = info.vm_state_size;
    s.disk = copy_of(NULL, s.size);
    s.vm_state = copy_of(NULL, s.vm_state_size);
    snapshot = qcow2_open_snapshot(disk, info.id, &err);
    EXPECT(snapshot, "snapshot %s: %s", info.id, err.text);
    EXPECT(qcow2_get_size(snapshot) == s.size, "snapshot %s: size", info.id);
    EXPECT_OK(qcow2_pread(snapshot, s.disk, s.size, 0, &err), &err);
    EXPECT_OK(qcow2_read_vm_state(snapshot, s.vm_state, s.vm_state_size, 0,
                                  &err), &err);
    EXPECT_OK(qcow2_close(snapshot, &err), &err);
    add_saved(c, &s);
    saved_free(&s);
}

void
contents_read(struct contents *c, struct qcow2_disk *disk)
{
    struct qcow2_error err;

    contents_init(c, NULL, qcow2_get_size(disk));
    EXPECT_OK(qcow2_pread(disk, c->disk, c->size, 0, &err), &err);
    for (size_t i = 0; i < qcow2_get_nr_snapshots(disk); i++)
        read_saved(c, disk, i);
}

/* Where the first difference is; nr_bytes if there is none. */
static uint64_t
first_difference(const unsigned char *a, const unsigned char *b,
                 uint64_t nr_bytes)
{
    uint64_t i = 0;

    if (memcmp(a, b, nr_bytes) == 0)
        return nr_bytes;
    while (a[i] == b[i])
        i++;
    return i;
}

static const char *
saved_differ(const struct saved *got, const struct saved *want)
{
    static char text[320];
    uint64_t at;

    if (strcmp(got->id, want->id) != 0 || strcmp(got->name, want->name) != 0
        || got->size != want->size
        || got->vm_state_size != want->vm_state_size) {
        snprintf(text, sizeof text, "snapshot %s '%s' of %llu bytes with "
                 "state of %llu, expected %s '%s' of %llu with %llu",
                 got->id, got->name, (unsigned long long)got->size,
                 (unsigned long long)got->vm_state_size, want->id,
                 want->name, (unsigned long long)want->size,
                 (unsigned long long)want->vm_state_size);
        return text;
    }
    at = first_difference(got->disk, want->disk, want->size);
    if (at < want->size) {
        snprintf(text, sizeof text, "snapshot '%s' at 0x%llx", want->name,
                 (unsigned long long)at);
        return text;
    }
    at = first_difference(got->vm_state, want->vm_state,
                          want->vm_state_size);
    if (at < want->vm_state_size) {
        snprintf(text, sizeof text, "VM state of '%s' at 0x%llx", want->name,
                 (unsigned long long)at);
        return text;
    }
    return NULL;
}

const char *
contents_differ_in_saved(const struct contents *got,
                         const struct contents *want)
{
    static char text[100];

    if (got->size != want->size || got->nr != want->nr) {
        snprintf(text, sizeof text, "%llu bytes and %u snapshots, expected "
                 "%llu and %u", (unsigned long long)got->size, got->nr,
                 (unsigned long long)want->size, want->nr);
        return text;
    }
    for (unsigned i = 0; i < want->nr; i++) {
        const char *why = saved_differ(&got->saved[i], &want->saved[i]);

        if (why)
            return why;
    }
    return NULL;
}

const char *
contents_differ(const struct contents *got, const struct contents *want)
{
    static char text[100];
    const char *why = contents_differ_in_saved(got, want);
    uint64_t at;

    if (why)
        return why;
    at = first_difference(got->disk, want->disk, want->size);
    if (at == want->size)
        return NULL;
    snprintf(text, sizeof text, "the disk at 0x%llx", (unsigned long long)at);
    return text;
}

void
contents_expect(struct qcow2_disk *disk, const struct contents *want)
{
    struct contents got;
    const char *why;

    contents_read(&got, disk);
    why = contents_differ(&got, want);
    EXPECT(!why, "%s", why);
    contents_free(&got);
}

const char *
whole_text(const struct whole_op *op)
{
    static char text[128];

    switch (op->kind) {
    case WHOLE_CREATE:
        snprintf(text, sizeof text, "create snapshot s%u, state of %llu",
                 op->number, (unsigned long long)op->vm_state_size);
        break;
    case WHOLE_APPLY:
        snprintf(text, sizeof text, "apply snapshot [%u]", op->i);
        break;
    case WHOLE_DELETE:
        snprintf(text, sizeof text, "delete snapshot [%u]", op->i);
        break;
    case WHOLE_RESIZE:
        snprintf(text, sizeof text, "resize to %llu",
                 (unsigned long long)op->size);
        break;
    case WHOLE_PREALLOCATE:
        snprintf(text, sizeof text, "preallocate %llu+%llu, mode %d",
                 (unsigned long long)op->off,
                 (unsigned long long)op->nr_bytes, (int)op->mode);
        break;
    case WHOLE_AMEND:
        snprintf(text, sizeof text, "amend to version %u, refcounts of %u",
                 op->amend.version, op->amend.refcount_bits);
        break;
    }
    return text;
}

static uint64_t
vm_state_seed(const struct whole_op *op)
{
    return 1000000 + op->number;
}

static void
model_create(struct contents *c, const struct whole_op *op)
{
    struct saved s = {
        .disk = c->disk,
        .size = c->size,
        .vm_state_size = op->vm_state_size,
    };
    unsigned highest = 0;

    for (unsigned i = 0; i < c->nr; i++)
        if ((unsigned)atoi(c->saved[i].id) > highest)
            highest = atoi(c->saved[i].id);
    snprintf(s.id, sizeof s.id, "%u", highest + 1);
    snprintf(s.name, sizeof s.name, "s%u", op->number);
    s.vm_state = copy_of(NULL, s.vm_state_size);
    pattern_fill(s.vm_state, s.vm_state_size, vm_state_seed(op), 0);
    add_saved(c, &s);
    free(s.vm_state);
}

static void
set_disk(struct contents *c, const void *content, uint64_t nr_bytes,
         uint64_t size)
{
    unsigned char *disk = copy_of(NULL, size);

    memcpy(disk, content, smaller(nr_bytes, size));
    free(c->disk);
    c->disk = disk;
    c->size = size;
}

void
whole_model(struct contents *c, const struct whole_op *op)
{
    struct saved *s = &c->saved[op->i];

    switch (op->kind) {
    case WHOLE_CREATE:
        model_create(c, op);
        break;
    case WHOLE_APPLY:
        set_disk(c, s->disk, s->size, s->size);
        break;
    case WHOLE_DELETE:
        saved_free(s);
        memmove(s, s + 1, (c->nr - op->i - 1) * sizeof *s);
        c->nr--;
        break;
    case WHOLE_RESIZE:
        set_disk(c, c->disk, c->size, op->size);
        break;
    case WHOLE_PREALLOCATE:
    case WHOLE_AMEND:
        break;
    }
}

/* What vm_state reads. */
struct stream {
    uint64_t seed, off, end;
};

/* Comes in portions, as from a pipe. */
static long
read_stream(void *opaque, void *buf, size_t nr_bytes)
{
    struct stream *s = opaque;
    uint64_t n = smaller(smaller(nr_bytes, s->end - s->off), 10007);

    pattern_fill(buf, n, s->seed, s->off);
    s->off += n;
    return n;
}

static int
run_create(struct qcow2_disk *disk, const struct whole_op *op,
           struct qcow2_error *err)
{
    struct stream s = { .seed = vm_state_seed(op), .end = op->vm_state_size };
    struct qcow2_snapshot_create_options o = {
        .date_sec = 1700000000 + op->number,
        .date_nsec = op->number,
        .vm_clock_nsec = op->vm_state_size,
        .vm_state = op->vm_state_size ? read_stream : NULL,
        .opaque = &s,
    };
    char name[32];

    snprintf(name, sizeof name, "s%u", op->number);
    return qcow2_snapshot_create(disk, name, &o, err);
}

int
whole_run(struct qcow2_disk *disk, const struct contents *c,
          const struct whole_op *op, struct qcow2_error *err)
{
    switch (op->kind) {
    case WHOLE_CREATE:
        return run_create(disk, op, err);
    case WHOLE_APPLY:
        return qcow2_snapshot_apply(disk, c->saved[op->i].id, err);
    case WHOLE_DELETE:
        return qcow2_snapshot_delete(disk, c->saved[op->i].id, err);
    case WHOLE_RESIZE:
        return qcow2_resize(disk, op->size, true, err);
    case WHOLE_PREALLOCATE:
        return qcow2_preallocate(disk, op->nr_bytes, op->off, op->mode, err);
    case WHOLE_AMEND:
        return qcow2_amend(disk, &op->amend, err);
    }
    return -1;
}

static struct whole_op
random_create(struct rng *r, uint32_t cluster_size, unsigned number)
{
    struct whole_op op = { .kind = WHOLE_CREATE, .number = number };
    uint64_t table = (uint64_t)cluster_size * cluster_size / 8;

    /* At most so much that small clusters need several L2 tables. */
    if (rng_percent(r, 40))
        op.vm_state_size = 1 + rng_below(r, smaller(3 * table, 200000));
    return op;
}

struct whole_op
whole_random(const struct contents *c, struct rng *r, uint32_t cluster_size,
             uint64_t max_size, unsigned unit, unsigned number)
{
    unsigned dice = rng_below(r, 100);
    struct whole_op op = { .kind = WHOLE_RESIZE };

    if (c->nr > 0 && (dice < 20 || c->nr >= MAX_SAVED))
        op.kind = WHOLE_DELETE;
    else if (c->nr > 0 && dice < 40)
        op.kind = WHOLE_APPLY;
    else if (dice < 75)
        return random_create(r, cluster_size, number);
    else if (dice < 88)
        op.kind = WHOLE_PREALLOCATE;
    if (c->nr > 0)
        op.i = rng_below(r, c->nr);
    op.size = rng_below(r, max_size / unit + 1) * unit;
    op.off = rng_below(r, c->size + 1);
    op.nr_bytes = smaller(rng_below(r, 20 * (uint64_t)cluster_size),
                          c->size - op.off);
    op.mode = QCOW2_PREALLOC_METADATA + rng_below(r, 3);
    return op;
}
