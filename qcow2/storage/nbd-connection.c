/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-connection.c: one connection to an NBD server; see nbd-connection.h.
 *
 * Of libnbd the calls are used that return at once, so that waiting is ours
 * to limit.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#ifdef HAVE_LIBNBD

#include "storage/nbd-connection.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/escape.h"

enum {
    MAX_BLOCK_BYTES = 64 << 10, /* the protocol's limit of the minimum */
    /* Bytes of one request, if the server does not allow fewer; and what it
     * must allow, as a large request would never end in smaller parts. */
    MAX_REQUEST_BYTES = 32 << 20,
    LEAST_REQUEST_BYTES = 4096,
};

/* Of requests that carry no data. */
#define MAX_LENGTH (UINT64_C(1) << 31)

uint64_t
nbd_clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * UINT64_C(1000) + t.tv_nsec / 1000000;
}

/* Waits for the server; false: the deadline has passed. */
static bool
wait_until(const struct nbd_address *a, struct nbd_handle *h,
           uint64_t deadline_ms, int *r)
{
    uint64_t now = nbd_clock_ms();

    if (now >= deadline_ms)
        return false;
    *r = a->lib.poll(h, min_u64(deadline_ms - now, INT_MAX));
    return true;
}

static int
too_late(const struct nbd_address *a, struct qcow2_error *err)
{
    return error_set(err, ETIMEDOUT, "%s: the server did not answer in time "
                     "(the limit is %g seconds)", a->name,
                     a->timeout_ms / 1000.0);
}

static int
shake_hands(const struct nbd_address *a, struct nbd_handle *h,
            struct qcow2_error *err)
{
    uint64_t deadline_ms = nbd_clock_ms() + a->timeout_ms;
    int r;

    if (a->lib.add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1
        || a->lib.aio_connect_uri(h, a->uri) == -1)
        return nbd_library_error(&a->lib, err, a->name);
    while (a->lib.aio_is_connecting(h) > 0) {
        if (!wait_until(a, h, deadline_ms, &r))
            return too_late(a, err);
        if (r == -1)
            return nbd_library_error(&a->lib, err, a->name);
    }
    if (a->lib.aio_is_ready(h) > 0)
        return 0;
    return error_set(err, EIO, "%s: the server closed the connection",
                     a->name);
}

/* The sizes that the server says, which may be anything. */
static int
read_sizes(const struct nbd_address *a, struct nbd_handle *h,
           struct nbd_export *export, struct qcow2_error *err)
{
    int64_t size = a->lib.get_size(h), block, most;

    if (size < 0) /* libnbd has no words for what it cannot represent */
        return error_set(err, EIO, "%s: the server says that the export has "
                         "a size of 2^63 bytes or more, which cannot be",
                         a->name);
    block = a->lib.get_block_size(h, LIBNBD_SIZE_MINIMUM);
    most = a->lib.get_block_size(h, LIBNBD_SIZE_MAXIMUM);
    if (block <= 0)
        block = 1; /* it does not say */
    if (most <= 0)
        most = MAX_REQUEST_BYTES;
    if (block > MAX_BLOCK_BYTES || !is_power_of_2(block)
        || !is_aligned(size, block))
        return error_set(err, EIO, "%s: the server says that %" PRId64 " bytes "
                         "are blocks of %" PRId64 " bytes, which cannot be",
                         a->name, size, block);
    if (most < block || most < (int64_t)min_u64(LEAST_REQUEST_BYTES, size))
        return error_set(err, EIO, "%s: the server allows only %" PRId64
                         " bytes a request, which is not supported", a->name,
                         most);
    export->size = size;
    export->block_size = block;
    export->max_request = round_down(min_u64(most, MAX_REQUEST_BYTES), block);
    return 0;
}

static int
read_export(const struct nbd_address *a, struct nbd_handle *h,
            struct nbd_export *export, struct qcow2_error *err)
{
    if (read_sizes(a, h, export, err) == -1)
        return -1;
    if (!a->readonly && a->lib.is_read_only(h) != 0)
        return error_set(err, EROFS, "%s: the export is read-only", a->name);
    export->can_flush = a->lib.can_flush(h) > 0;
    export->can_zero = a->lib.can_zero(h) > 0;
    export->can_fast_zero = export->can_zero && a->lib.can_fast_zero(h) > 0;
    export->can_extents = a->lib.can_meta_context(
                              h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    export->can_multi_conn = a->lib.can_multi_conn(h) > 0;
    return 0;
}

struct nbd_handle *
nbd_connect(const struct nbd_address *a, struct nbd_export *export,
            struct qcow2_error *err)
{
    struct nbd_handle *h = a->lib.create();

    if (!h) {
        nbd_library_error(&a->lib, err, a->name);
        return NULL;
    }
    if (shake_hands(a, h, err) == 0 && read_export(a, h, export, err) == 0)
        return h;
    nbd_abandon(a, h);
    return NULL;
}

void
nbd_disconnect(const struct nbd_address *a, struct nbd_handle *h,
               uint64_t deadline_ms)
{
    int r = a->lib.aio_disconnect(h, 0);

    while (r != -1 && a->lib.aio_is_closed(h) == 0
           && a->lib.aio_is_dead(h) == 0
           && wait_until(a, h, deadline_ms, &r))
        ;
    nbd_abandon(a, h);
}

void
nbd_abandon(const struct nbd_address *a, struct nbd_handle *h)
{
    a->lib.kill_subprocess(h, 0); /* of nbd+ssh, which is waited for */
    a->lib.close(h);
}

static const char *
verb_name(enum nbd_verb verb)
{
    switch (verb) {
    case NBD_READ:
        return "read";
    case NBD_WRITE:
        return "write";
    case NBD_FLUSH:
        return "flush";
    case NBD_ZERO:
        return "zero";
    case NBD_STATUS:
        return "ask about";
    }
    return "";
}

/* From libnbd's errno to those that we use. */
static int
errno_of_request(int e)
{
    switch (e) {
    case ENOSPC:
    case ENOMEM:
    case EPERM:
    case EROFS:
    case ENOTSUP:
        return e;
    default:
        return EIO;
    }
}

/* A part of a request. */
struct part {
    const struct nbd_request *q;
    uint64_t off, nr_bytes;
    bool answered;
};

static int
take_status(void *opaque, const char *context, uint64_t off,
            uint32_t *entries, size_t nr_entries, int *error)
{
    struct part *p = opaque;

    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 && !p->answered
        && off == p->off) {
        p->answered = true;
        p->q->status(p->q->opaque, off, entries, nr_entries / 2);
    }
    return 0;
}

/* Returns libnbd's number of the command, or -1. */
static int64_t
begin_part(const struct nbd_address *a, struct nbd_handle *h, struct part *p)
{
    const struct nbd_request *q = p->q;
    unsigned char *buf = q->buf ? (unsigned char *)q->buf + (p->off - q->off)
                                : NULL;
    nbd_extent_callback status = { take_status, p, NULL };

    switch (q->verb) {
    case NBD_READ:
        return a->lib.aio_pread(h, buf, p->nr_bytes, p->off,
                                NBD_NULL_COMPLETION, q->flags);
    case NBD_WRITE:
        return a->lib.aio_pwrite(h, buf, p->nr_bytes, p->off,
                                 NBD_NULL_COMPLETION, q->flags);
    case NBD_FLUSH:
        return a->lib.aio_flush(h, NBD_NULL_COMPLETION, q->flags);
    case NBD_ZERO:
        return a->lib.aio_zero(h, p->nr_bytes, p->off, NBD_NULL_COMPLETION,
                               q->flags);
    case NBD_STATUS:
        return a->lib.aio_block_status(h, p->nr_bytes, p->off, status,
                                       NBD_NULL_COMPLETION, q->flags);
    }
    return -1;
}

/* A part failed by what libnbd has just said. */
static enum nbd_outcome
fail_part(const struct nbd_address *a, struct nbd_handle *h,
          const struct part *p, struct qcow2_error *err)
{
    struct qcow2_error why;

    nbd_library_error(&a->lib, &why, a->name);
    error_set(err, errno_of_request(why.errnum), "cannot %s %" PRIu64
              " bytes at offset %" PRIu64 ": %s", verb_name(p->q->verb),
              p->nr_bytes, p->off, why.text);
    return a->lib.aio_is_ready(h) > 0 ? NBD_REFUSED : NBD_LOST;
}

static enum nbd_outcome
run_part(const struct nbd_address *a, struct nbd_handle *h, struct part *p,
         uint64_t deadline_ms, struct qcow2_error *err)
{
    int64_t command = begin_part(a, h, p);
    int done = 0, r;

    if (command == -1)
        return fail_part(a, h, p, err);
    while ((done = a->lib.aio_command_completed(h, command)) == 0) {
        if (!wait_until(a, h, deadline_ms, &r)) {
            too_late(a, err);
            return NBD_LATE;
        }
        if (r == -1) {
            fail_part(a, h, p, err);
            return NBD_LOST;
        }
    }
    return done == -1 ? fail_part(a, h, p, err) : NBD_DONE;
}

enum nbd_outcome
nbd_run(const struct nbd_address *a, struct nbd_handle *h,
        const struct nbd_export *export, const struct nbd_request *q,
        uint64_t deadline_ms, struct qcow2_error *err)
{
    bool has_data = q->verb == NBD_READ || q->verb == NBD_WRITE;
    uint64_t most = has_data ? export->max_request : MAX_LENGTH;
    uint64_t done = 0;
    enum nbd_outcome outcome;

    do {
        struct part p = {
            .q = q, .off = q->off + done,
            .nr_bytes = min_u64(q->nr_bytes - done, most),
        };

        outcome = run_part(a, h, &p, deadline_ms, err);
        done += p.nr_bytes;
    } while (outcome == NBD_DONE && done < q->nr_bytes);
    return outcome;
}

#endif /* HAVE_LIBNBD */
