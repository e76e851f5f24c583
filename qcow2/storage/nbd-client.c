/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-client.c: the connections to an export; see nbd-client.h. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_LIBNBD

#include "storage/nbd-client.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "storage/nbd-connection.h"

/* The limit in time holds for so many bytes, of requests with and without
 * data, and is that much longer for requests that change the export.
 */
#define BYTES_A_TIMEOUT (UINT64_C(4) << 20)
#define LENGTH_A_TIMEOUT (UINT64_C(1) << 31)
enum { TIMEOUTS_A_CHANGE = 10, GOODBYE_MS = 1000 };

struct connection {
    enum { UNUSED, BUSY, IDLE } state;
    struct nbd_handle *h;   /* NULL while it is being made */
    unsigned generation;
};

struct nbd_client {
    struct nbd_address address;
    struct nbd_export export;

    pthread_mutex_t lock;   /* of all below; never held over I/O */
    pthread_cond_t idle, first_idle;
    unsigned nr_flushing;   /* waiting for the first connection */
    struct connection connections[NBD_MAX_CONNECTIONS];
    unsigned nr_used, max;  /* connections that are not UNUSED */

    /* Read-only exports: when a connection breaks, the idle ones that were
     * made before are likely to be broken, too, and dropped with it. */
    unsigned generation;

    uint64_t nr_failures;   /* attempts that left no connection at all */
    bool lost;
    struct qcow2_error why; /* of the last failure, or the loss */
};

const struct nbd_export *
nbd_client_export(const struct nbd_client *c)
{
    return &c->export;
}

bool
nbd_client_is_lost(struct nbd_client *c)
{
    LOCK_SCOPE(&c->lock);

    return c->lost;
}

static unsigned
max_connections(const struct nbd_client *c)
{
    return c->export.can_multi_conn ? NBD_MAX_CONNECTIONS : 1;
}

static int
fail_as_before(const struct nbd_client *c, struct qcow2_error *err)
{
    if (err)
        *err = c->why;
    return c->lost ? error_prefix(err, "lost before") : -1;
}

/* The export is lost: wake all requests that wait for it. */
static void
set_lost(struct nbd_client *c, const struct qcow2_error *why)
{
    if (!c->lost)
        c->why = *why;
    c->lost = true;
    pthread_cond_broadcast(&c->idle);
    pthread_cond_broadcast(&c->first_idle);
}

/* Is the export still what it was? */
static int
check_same(const struct nbd_client *c, const struct nbd_export *now,
           struct qcow2_error *err)
{
    const struct nbd_export *was = &c->export;

    if (now->size == was->size && now->block_size <= was->block_size
        && now->max_request >= was->max_request)
        return 0;
    return error_set(err, EIO, "%s: the server has another export now: of %"
                     PRIu64 " bytes, where it had %" PRIu64,
                     c->address.name, now->size, was->size);
}

/* A connection for a request, or -1. */
static int
find_idle(const struct nbd_client *c)
{
    bool keep_first = c->max > 1 && c->nr_flushing > 0;

    for (unsigned i = keep_first; i < NBD_MAX_CONNECTIONS; i++)
        if (c->connections[i].state == IDLE)
            return i;
    return -1;
}

/* A place for another connection, or -1. */
static int
find_place(const struct nbd_client *c)
{
    for (unsigned i = 0; i < NBD_MAX_CONNECTIONS && c->nr_used < c->max; i++)
        if (c->connections[i].state == UNUSED)
            return i;
    return -1;
}

static void
give_up_place(struct nbd_client *c, int i)
{
    c->connections[i].state = UNUSED;
    c->connections[i].h = NULL;
    c->nr_used--;
}

/* No connection could be made for place i. Where there are others, there
 * shall be no more of them; else those who wait fail alike, as each would
 * have to wait for a server that does not answer.
 */
static void
connect_failed(struct nbd_client *c, int i, const struct qcow2_error *why)
{
    give_up_place(c, i);
    if (c->nr_used > 0) {
        c->max = c->nr_used;
        return;
    }
    c->max = max_connections(c);
    c->nr_failures++;
    c->why = *why;
    pthread_cond_broadcast(&c->idle);
}

/* Makes a connection for place i. The lock is released meanwhile. -1: there
 * is none.
 */
static int
connect_place(struct nbd_client *c, int i)
{
    unsigned generation = c->generation;
    struct qcow2_error why;
    struct nbd_export now;
    struct nbd_handle *h;
    bool same = true;

    c->connections[i].state = BUSY;
    c->nr_used++;
    pthread_mutex_unlock(&c->lock);
    h = nbd_connect(&c->address, &now, &why);
    if (h && check_same(c, &now, &why) == -1) {
        same = false;
        nbd_abandon(&c->address, h);
        h = NULL;
    }
    pthread_mutex_lock(&c->lock);
    if (h) {
        c->connections[i].h = h;
        c->connections[i].generation = generation;
        return i;
    }
    if (!same && c->address.readonly)
        set_lost(c, &why);
    connect_failed(c, i, &why);
    return -1;
}

/* A connection for one request; makes another while it may. */
static int
take(struct nbd_client *c, struct qcow2_error *err)
{
    uint64_t seen;
    int i;

    LOCK_SCOPE(&c->lock);
    seen = c->nr_failures;
    for (;;) {
        if (c->lost || c->nr_failures != seen)
            return fail_as_before(c, err);
        i = find_idle(c);
        if (i >= 0) {
            c->connections[i].state = BUSY;
            return i;
        }
        i = find_place(c);
        if (i >= 0)
            i = connect_place(c, i);
        else
            pthread_cond_wait(&c->idle, &c->lock);
        if (i >= 0)
            return i;
    }
}

/* The connection that was made first, for a flush: a server with several
 * connections flushes for all of them. If it was started anew, what it had in
 * memory is lost: a later connection would not know, but the first one is
 * lost with it (I8).
 */
static int
take_first(struct nbd_client *c, struct qcow2_error *err)
{
    LOCK_SCOPE(&c->lock);

    c->nr_flushing++;
    while (!c->lost && c->connections[0].state == BUSY)
        pthread_cond_wait(&c->first_idle, &c->lock);
    c->nr_flushing--;
    if (c->lost)
        return fail_as_before(c, err);
    c->connections[0].state = BUSY;
    return 0;
}

static void
put(struct nbd_client *c, int i)
{
    LOCK_SCOPE(&c->lock);

    c->connections[i].state = IDLE;
    c->connections[i].generation = c->generation; /* it works */
    pthread_cond_signal(i == 0 && c->nr_flushing > 0 ? &c->first_idle
                                                     : &c->idle);
}

/* Takes out the idle connections; returns how many. */
static unsigned
take_out_idle(struct nbd_client *c, struct nbd_handle **handles)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < NBD_MAX_CONNECTIONS; i++)
        if (c->connections[i].state == IDLE) {
            handles[nr++] = c->connections[i].h;
            give_up_place(c, i);
        }
    return nr;
}

/* Connection i is of no use any more; if it broke, neither are others. */
static void
drop(struct nbd_client *c, int i, bool broke, const struct qcow2_error *why)
{
    struct nbd_handle *handles[NBD_MAX_CONNECTIONS];
    unsigned nr = 0;

    nbd_abandon(&c->address, c->connections[i].h);
    pthread_mutex_lock(&c->lock);
    if (!c->address.readonly) {
        set_lost(c, why);
    } else if (broke && c->connections[i].generation == c->generation) {
        c->generation++;
        nr = take_out_idle(c, handles);
    }
    give_up_place(c, i);
    pthread_cond_broadcast(&c->idle);
    pthread_mutex_unlock(&c->lock);
    while (nr > 0)
        nbd_abandon(&c->address, handles[--nr]);
}

static uint64_t
time_limit(const struct nbd_client *c, const struct nbd_request *q)
{
    uint64_t limit = c->address.timeout_ms;

    switch (q->verb) {
    case NBD_READ:
        return limit + limit * (q->nr_bytes / BYTES_A_TIMEOUT);
    case NBD_WRITE:
        limit *= TIMEOUTS_A_CHANGE;
        return limit + limit * (q->nr_bytes / BYTES_A_TIMEOUT);
    case NBD_STATUS:
        return limit;
    case NBD_FLUSH:
    case NBD_ZERO:
        limit *= TIMEOUTS_A_CHANGE;
        return limit + limit * (q->nr_bytes / LENGTH_A_TIMEOUT);
    }
    return limit;
}

/* Tries a request once. */
static enum nbd_outcome
try(struct nbd_client *c, const struct nbd_request *q,
    struct qcow2_error *err)
{
    int i = q->verb == NBD_FLUSH ? take_first(c, err) : take(c, err);
    enum nbd_outcome outcome;

    if (i == -1) {
        err->errnum = EIO;
        return NBD_REFUSED;
    }
    outcome = nbd_run(&c->address, c->connections[i].h, &c->export, q,
                      nbd_clock_ms() + time_limit(c, q), err);
    switch (outcome) {
    case NBD_DONE:
    case NBD_REFUSED:
        put(c, i);
        break;
    case NBD_LOST:
    case NBD_LATE:
        err->errnum = EIO;
        drop(c, i, outcome == NBD_LOST, err);
        break;
    }
    return outcome;
}

int
nbd_client_do(struct nbd_client *c, const struct nbd_request *q,
              struct qcow2_error *err)
{
    struct qcow2_error why;
    enum nbd_outcome outcome = try(c, q, &why);

    if (outcome == NBD_LOST && c->address.readonly)
        outcome = try(c, q, &why);
    if (outcome == NBD_DONE)
        return 0;
    if (err)
        *err = why;
    return -1;
}

static int
client_init(struct nbd_client *c, struct qcow2_error *err)
{
    struct nbd_address *a = &c->address;

    if (!a->uri || !a->name)
        return error_nomem(err);
    if (nbd_library_load(&a->lib, err) == -1)
        return error_prefix(err, "%s", a->name);
    c->connections[0].h = nbd_connect(a, &c->export, err);
    if (!c->connections[0].h)
        return -1;
    c->connections[0].state = IDLE;
    c->nr_used = 1;
    c->max = max_connections(c);
    return 0;
}

struct nbd_client *
nbd_client_new(const char *uri, const char *name, bool readonly,
               unsigned timeout_ms, struct qcow2_error *err)
{
    struct nbd_client *c = calloc(1, sizeof *c);

    if (!c) {
        error_nomem(err);
        return NULL;
    }
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->idle, NULL);
    pthread_cond_init(&c->first_idle, NULL);
    c->address.uri = strdup(uri);
    c->address.name = strdup(name);
    c->address.readonly = readonly;
    c->address.timeout_ms = timeout_ms;
    if (client_init(c, err) == 0)
        return c;
    nbd_client_free(c);
    return NULL;
}

void
nbd_client_free(struct nbd_client *c)
{
    uint64_t deadline_ms;

    if (!c)
        return;
    deadline_ms = nbd_clock_ms() + min_u64(c->address.timeout_ms, GOODBYE_MS);
    for (unsigned i = 0; i < NBD_MAX_CONNECTIONS; i++)
        if (c->connections[i].h)
            nbd_disconnect(&c->address, c->connections[i].h, deadline_ms);
    pthread_cond_destroy(&c->first_idle);
    pthread_cond_destroy(&c->idle);
    pthread_mutex_destroy(&c->lock);
    nbd_library_unload(&c->address.lib);
    free(c->address.uri);
    free(c->address.name);
    free(c);
}

#endif /* HAVE_LIBNBD */
