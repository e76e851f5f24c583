/* SPDX-License-Identifier: BSD-3-Clause */
/* failures.c: remembers files whose flush failed; see failures.h. */
#include "storage/failures.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"

struct qcow2_failures {
    pthread_mutex_t lock; /* a leaf; guards all below, and all records */
    struct failure *first;
    qcow2_unlocked_fn *report_unlocked; /* NULL: not wanted, or done */
    void *opaque;
};

/* Which file it is: by the numbers that struct io has, too. */
struct identity {
    uint64_t device, dev, ino, born;
};

struct failure {
    struct qcow2_failures *owner;
    struct failure *next;
    struct identity id;
    bool recorded; /* it is in the list, which owns it */
    bool is_open;  /* the handle whose flush failed */
};

struct qcow2_failures *
qcow2_failures_new(struct qcow2_error *err)
{
    struct qcow2_failures *f = calloc(1, sizeof *f);

    if (!f) {
        error_nomem(err);
        return NULL;
    }
    pthread_mutex_init(&f->lock, NULL);
    return f;
}

void
qcow2_failures_free(struct qcow2_failures *f)
{
    struct failure *record;

    if (!f)
        return;
    while ((record = f->first)) {
        f->first = record->next;
        free(record);
    }
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static struct identity
identity_of(const struct io *io)
{
    return (struct identity){ io->device, io->dev, io->ino, io->born };
}

/* A block device may have several nodes. A file that got the inode number of
 * one that was removed has another birth time. */
static bool
is_same(const struct identity *a, const struct identity *b)
{
    if (a->device || b->device)
        return a->device == b->device;
    return a->dev == b->dev && a->ino == b->ino && a->born == b->born;
}

/* Is there a record of the file? *is_open: of a handle not closed yet. */
static bool
find(struct qcow2_failures *f, const struct identity *id, bool *is_open)
{
    bool found = false;
    LOCK_SCOPE(&f->lock);

    *is_open = false;
    for (struct failure *record = f->first; record; record = record->next)
        if (is_same(&record->id, id)) {
            found = true;
            *is_open |= record->is_open;
        }
    return found;
}

/* Makes the record that a failing flush will need. */
static int
prepare(struct qcow2_failures *f, struct io *io, struct qcow2_error *err)
{
    struct failure *record = calloc(1, sizeof *record);

    if (!record)
        return error_nomem(err);
    record->owner = f;
    record->id = identity_of(io);
    record->is_open = true;
    io->failure = record;
    return 0;
}

void
qcow2_failures_report_unlocked(struct qcow2_failures *f,
                               qcow2_unlocked_fn *fn, void *opaque)
{
    LOCK_SCOPE(&f->lock);

    f->report_unlocked = fn;
    f->opaque = opaque;
}

void
failures_note_locks(struct qcow2_failures *f, const struct io *io)
{
    qcow2_unlocked_fn *fn;
    void *opaque;

    if (!f || !io->keeps_no_locks)
        return;
    pthread_mutex_lock(&f->lock);
    fn = f->report_unlocked;
    opaque = f->opaque;
    f->report_unlocked = NULL;
    pthread_mutex_unlock(&f->lock);
    if (fn)
        fn(opaque, io->name);
}

int
failures_watch(struct qcow2_failures *f, struct io *io,
               struct qcow2_error *err)
{
    struct identity id = identity_of(io);
    bool is_open;

    failures_note_locks(f, io);
    if (!f || (id.ino == 0 && id.device == 0))
        return 0;
    if (!find(f, &id, &is_open))
        return io->readonly ? 0 : prepare(f, io, err);
    if (!is_open)
        io_drop_cache(io);
    if (io->readonly)
        return 0;
    return error_set(err, EIO, "%s: " IO_FLUSH_FAILED, io->name);
}

void
failures_record(struct io *io)
{
    struct failure *record = io->failure;

    if (!record)
        return;
    LOCK_SCOPE(&record->owner->lock);
    if (record->recorded)
        return;
    record->recorded = true;
    record->next = record->owner->first;
    record->owner->first = record;
}

void
failures_closing(struct io *io)
{
    struct failure *record = io->failure;
    bool recorded;

    if (!record)
        return;
    io->failure = NULL;
    pthread_mutex_lock(&record->owner->lock);
    recorded = record->recorded;
    record->is_open = false;
    pthread_mutex_unlock(&record->owner->lock);
    if (!recorded)
        free(record);
}
