/* SPDX-License-Identifier: BSD-3-Clause */
/* repair-write.c: the writes of a repair: announced to the caller first, made
 * once what the caller keeps of them is durable.
 *
 * Where a durable record of each write costs a barrier, a small image with
 * many defects would need half a million of them. So writes are held back and
 * made together. They keep their order, and none of them crosses a barrier.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "check/check-private.h"

enum { MAX_PENDING_WRITES = 4096, MAX_PENDING_BYTES = 4 << 20 };

struct pending_write {
    uint64_t host_off;
    size_t nr_bytes;
    void *bytes;
};

struct pending {
    struct pending_write writes[MAX_PENDING_WRITES];
    size_t nr, nr_bytes;
    uint64_t end;               /* the file will reach here */
};

static int
cancelled(const struct check *c, struct qcow2_error *err)
{
    return error_set(err, ECANCELED, "%s: the repair was ended before it was "
                     "done; it can be run again", c->io->name);
}

/* Puts what is held back over what the file has: both will be undone, one
 * after the other. */
static void
overlay_pending(const struct pending *p, unsigned char *buf, size_t nr_bytes,
                uint64_t host_off)
{
    for (size_t i = 0; p && i < p->nr; i++) {
        const struct pending_write *w = &p->writes[i];
        uint64_t from = max_u64(host_off, w->host_off);
        uint64_t to = min_u64(host_off + nr_bytes,
                              w->host_off + w->nr_bytes);

        if (from < to)
            memcpy(buf + (from - host_off),
                   (const char *)w->bytes + (from - w->host_off), to - from);
    }
}

/* Announces what will be written, and what it will be written over. */
static int
announce(struct check *c, const char *why, const void *buf, size_t nr_bytes,
         uint64_t host_off, struct qcow2_error *err)
{
    CLEANUP_FREE void *old_bytes = malloc(nr_bytes);
    struct qcow2_repair_write w = {
        .host_off = host_off,
        .nr_bytes = nr_bytes,
        .old_bytes = old_bytes,
        .new_bytes = buf,
        .why = why,
    };

    if (!old_bytes)
        return error_nomem(err);
    if (io_get_size(c->io, &w.file_size, err) == -1
        || io_pread(c->io, old_bytes, nr_bytes, host_off, err) == -1)
        return -1;
    overlay_pending(c->pending, old_bytes, nr_bytes, host_off);
    if (c->pending)
        w.file_size = max_u64(w.file_size, c->pending->end);
    return c->options.write(c->options.opaque, &w) != 0 ? cancelled(c, err)
                                                        : 0;
}

void
repair_drop_pending(struct check *c)
{
    for (size_t i = 0; c->pending && i < c->pending->nr; i++)
        free(c->pending->writes[i].bytes);
    free(c->pending);
    c->pending = NULL;
}

/* Makes the writes that were held back. */
static int
write_pending(struct check *c, struct qcow2_error *err)
{
    struct pending *p = c->pending;
    int r = 0;

    if (!p)
        return 0;
    if (c->options.settle(c->options.opaque) != 0)
        r = cancelled(c, err);
    for (size_t i = 0; i < p->nr && r == 0; i++)
        r = io_pwrite(c->io, p->writes[i].bytes, p->writes[i].nr_bytes,
                      p->writes[i].host_off, err);
    repair_drop_pending(c);
    return r;
}

static int
hold_back(struct check *c, const void *buf, size_t nr_bytes,
          uint64_t host_off, struct qcow2_error *err)
{
    struct pending *p = c->pending;
    struct pending_write *w;

    if (!p)
        p = c->pending = calloc(1, sizeof *p);
    if (!p)
        return error_nomem(err);
    w = &p->writes[p->nr];
    w->host_off = host_off;
    w->nr_bytes = nr_bytes;
    w->bytes = malloc(nr_bytes);
    if (!w->bytes)
        return error_nomem(err);
    memcpy(w->bytes, buf, nr_bytes);
    p->nr++;
    p->nr_bytes += nr_bytes;
    p->end = max_u64(p->end, host_off + nr_bytes);
    if (p->nr < MAX_PENDING_WRITES && p->nr_bytes < MAX_PENDING_BYTES)
        return 0;
    return write_pending(c, err);
}

int
repair_write(struct check *c, const char *why, const void *buf,
             size_t nr_bytes, uint64_t host_off, struct qcow2_error *err)
{
    const struct qcow2_check_options *o = &c->options;

    if (o->progress && o->progress(o->opaque, c->done, c->total) != 0)
        return cancelled(c, err);
    if (o->write && announce(c, why, buf, nr_bytes, host_off, err) == -1)
        return -1;
    if (o->plan)
        return 0;
    c->wrote = true;
    if (o->settle)
        return hold_back(c, buf, nr_bytes, host_off, err);
    return io_pwrite(c->io, buf, nr_bytes, host_off, err);
}

int
repair_barrier(struct check *c, struct qcow2_error *err)
{
    if (!c->wrote)
        return 0;
    c->wrote = false;
    if (write_pending(c, err) == -1)
        return -1;
    return io_flush(c->io, err);
}
