/* SPDX-License-Identifier: BSD-3-Clause */
/* session-whole.c: operations on the whole image, and what it holds as far as
 * the model knows; see session.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "bounds.h"
#include "rng.h"
#include "session.h"
#include "snapshots.h"

enum {
    MAX_MODEL_BYTES = 2 << 20, /* of the disk, and of each snapshot */
    MAX_READ_BYTES = 1 << 20,
    VM_STATE_BYTES = 3000,
};

static struct flat
copy_of(const struct flat *f)
{
    struct flat copy = { malloc(f->size + 1), f->size };

    if (f->size > 0)
        memcpy(copy.bytes, f->bytes, f->size);
    return copy;
}

/* False: it cannot be read, or is too large. */
static bool
learn(struct qcow2_disk *disk, struct flat *f)
{
    f->size = qcow2_get_size(disk);
    if (f->size > MAX_MODEL_BYTES)
        return false;
    f->bytes = malloc(f->size + 1);
    return qcow2_pread(disk, f->bytes, f->size, 0, NULL) == 0;
}

/* Ids are unique in images that make sense. */
static struct qcow2_disk *
open_saved(struct session *s, unsigned i, struct qcow2_error *err)
{
    struct qcow2_snapshot info;

    snapshot_get(s->disk, i, &info);
    return qcow2_open_snapshot(s->disk, info.name, err);
}

void
session_learn(struct session *s)
{
    size_t nr = qcow2_get_nr_snapshots(s->disk);

    if (!s->sound)
        return;
    s->sound = nr < MAX_SAVED && learn(s->disk, &s->now);
    while (s->sound && s->nr_saved < nr) {
        unsigned i = s->nr_saved++;
        struct qcow2_disk *disk = open_saved(s, i, NULL);

        s->sound = disk && learn(disk, &s->saved[i]);
        qcow2_close(disk, NULL);
    }
}

static void
compare(struct qcow2_disk *disk, const struct flat *f, const char *what,
        unsigned i)
{
    unsigned char *buf = malloc(f->size + 1);
    struct qcow2_error err;

    MUST(qcow2_get_size(disk) == f->size, "%s %u: size", what, i);
    MUST(qcow2_pread(disk, buf, f->size, 0, &err) == 0, "%s %u: %s", what, i,
         err.text);
    for (uint64_t off = 0; memcmp(buf, f->bytes, f->size) != 0; off++)
        MUST(buf[off] == f->bytes[off], "%s %u differs at %" PRIu64, what, i,
             off);
    free(buf);
}

void
session_compare(struct session *s)
{
    compare(s->disk, &s->now, "disk", 0);
    MUST(qcow2_get_nr_snapshots(s->disk) == s->nr_saved, "snapshots");
    for (unsigned i = 0; i < s->nr_saved; i++) {
        struct qcow2_disk *disk = open_saved(s, i, NULL);

        if (disk) /* else others have its name */
            compare(disk, &s->saved[i], "snapshot", i);
        qcow2_close(disk, NULL);
    }
}

static long
give_vm_state(void *opaque, void *buf, size_t nr_bytes)
{
    size_t *left = opaque, n = min_u64(*left, nr_bytes);

    memset(buf, 0x5a, n);
    *left -= n;
    return n;
}

static void
do_create(struct session *s, const struct command *op,
          struct qcow2_error *err)
{
    size_t left = VM_STATE_BYTES;
    struct qcow2_snapshot_create_options o = { .date_sec = op->c };
    char name[32];

    if (s->nr_saved == MAX_SAVED)
        return;
    if (op->a & A_FUA) {
        o.vm_state = give_vm_state;
        o.opaque = &left;
    }
    snprintf(name, sizeof name, "new %u", op->b % 8);
    if (qcow2_snapshot_create(s->disk, name, &o, err) == -1)
        session_failed(s, "snapshot create", err);
    else if (s->sound)
        s->saved[s->nr_saved++] = copy_of(&s->now);
}

static void
do_apply_or_delete(struct session *s, bool apply, const struct command *op,
                   struct qcow2_error *err)
{
    size_t nr = qcow2_get_nr_snapshots(s->disk), i = op->a >> 6;
    struct qcow2_snapshot info;
    char *name;
    int r;

    if (nr == 0)
        return;
    i = op->a & A_BEHIND ? nr - 1 - i % nr : i % nr;
    snapshot_get(s->disk, i, &info);
    name = strdup(info.name); /* valid only until they change */
    r = apply ? qcow2_snapshot_apply(s->disk, name, err)
              : qcow2_snapshot_delete(s->disk, name, err);
    free(name);
    if (r == -1) {
        session_failed(s, apply ? "apply" : "delete", err);
    } else if (s->sound && apply) {
        free(s->now.bytes);
        s->now = copy_of(&s->saved[i]);
    } else if (s->sound) {
        free(s->saved[i].bytes);
        s->nr_saved--;
        memmove(&s->saved[i], &s->saved[i + 1],
                (s->nr_saved - i) * sizeof s->saved[0]);
    }
}

static void
do_resize(struct session *s, const struct command *op,
          struct qcow2_error *err)
{
    uint64_t old = qcow2_get_size(s->disk);
    uint64_t size = op->c % ((op->a & A_LARGE ? 16 : 2)
                             * min_u64(old, UINT64_C(1) << 40) + 100000);

    if (s->sound && size > MAX_MODEL_BYTES)
        size = MAX_MODEL_BYTES;
    if (qcow2_resize(s->disk, size, op->a & A_MAY_TRIM, err) == -1) {
        session_failed(s, "resize", err);
        return;
    }
    if (!s->sound)
        return;
    s->now.bytes = realloc(s->now.bytes, size + 1);
    if (size > s->now.size)
        memset(s->now.bytes + s->now.size, 0, size - s->now.size);
    s->now.size = size;
}

static void
do_preallocate(struct session *s, const struct command *op,
               struct qcow2_error *err)
{
    uint64_t size = qcow2_get_size(s->disk);
    uint64_t off = size ? op->c % size : 0;
    uint64_t nr_bytes = min_u64(op->b * UINT64_C(16), size - off);

    if (qcow2_preallocate(s->disk, nr_bytes, off,
                          op->a % (QCOW2_PREALLOC_FULL + 1), err) == -1)
        session_failed(s, "preallocate", err);
}

static void
do_amend(struct session *s, const struct command *op, struct qcow2_error *err)
{
    const struct qcow2_amend_options o = {
        .version = op->a & 3,
        .refcount_bits = op->b & 8 ? 1u << (op->b & 7) : 0,
        .lazy_refcounts = op->b >> 4 & 3,
    };

    if (qcow2_amend(s->disk, &o, err) == -1)
        session_failed(s, "amend", err);
}

void
session_do_whole(struct session *s, enum operation kind,
                 const struct command *op)
{
    struct qcow2_error err;

    if (kind == DO_CREATE)
        do_create(s, op, &err);
    else if (kind == DO_APPLY || kind == DO_DELETE)
        do_apply_or_delete(s, kind == DO_APPLY, op, &err);
    else if (kind == DO_RESIZE)
        do_resize(s, op, &err);
    else if (kind == DO_PREALLOCATE)
        do_preallocate(s, op, &err);
    else
        do_amend(s, op, &err);
}

static void
read_some(struct qcow2_disk *disk)
{
    uint64_t size = qcow2_get_size(disk);
    size_t nr_bytes = min_u64(size, MAX_READ_BYTES);
    unsigned char *buf = malloc(nr_bytes + 1);

    qcow2_pread(disk, buf, nr_bytes, 0, NULL);
    qcow2_pread(disk, buf, nr_bytes, size - nr_bytes, NULL);
    free(buf);
}

/* A snapshot as a disk of its own, with its VM state. */
void
session_look(struct session *s, unsigned i)
{
    size_t nr = qcow2_get_nr_snapshots(s->disk);
    struct qcow2_snapshot info;
    struct qcow2_disk *disk;
    unsigned char *buf;
    size_t n;

    if (nr == 0)
        return;
    snapshot_get(s->disk, i % nr, &info);
    n = min_u64(info.vm_state_size, MAX_READ_BYTES);
    disk = open_saved(s, i % nr, NULL);
    if (!disk)
        return;
    read_some(disk);
    buf = malloc(n + 1);
    qcow2_read_vm_state(disk, buf, n, 0, NULL);
    qcow2_read_vm_state(disk, buf, n, info.vm_state_size - n, NULL);
    free(buf);
    qcow2_close(disk, NULL);
}

void
session_read_all(struct session *s)
{
    size_t nr = qcow2_get_nr_snapshots(s->disk);

    read_some(s->disk);
    session_map(s);
    for (size_t i = 0; i < nr && i < 4; i++)
        session_look(s, i);
}
