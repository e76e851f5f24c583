/* SPDX-License-Identifier: BSD-3-Clause */
/* io-nbd.c: images that an NBD server exports; see io-nbd.h. Requests are
 * whole blocks of the server's here (io-align.h); nbd-client.h sends them.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/io-nbd.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/escape.h"
#include "storage/io-align.h"
#include "storage/nbd-client.h"

/* The schemes that libnbd knows. */
static const char *const schemes[] = {
    "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://",
    "nbds+vsock://", "nbd+ssh://",
};

bool
io_nbd_is_uri(const char *name)
{
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
        if (strncmp(name, schemes[i], strlen(schemes[i])) == 0)
            return true;
    return false;
}

uint64_t
io_nbd_timeout(unsigned timeout_ms)
{
    return timeout_ms ? timeout_ms : NBD_DEFAULT_TIMEOUT_MS;
}

#ifndef HAVE_LIBNBD

bool
io_nbd_supported(void)
{
    return false;
}

struct io *
io_nbd_open_within(const char *uri, bool readonly, unsigned timeout_ms,
                   struct qcow2_error *err)
{
    (void)readonly;
    (void)timeout_ms;
    error_set(err, ENOTSUP, "%s: NBD is not built in (libnbd was not there)",
              ESCAPED(uri));
    return NULL;
}

#else /* HAVE_LIBNBD */

#include <inttypes.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"

enum {
    MAX_KEPT_EXTENTS = 64,
    MAX_STATUS_BYTES = 1 << 30,
};

/* What the server said of a range, kept for the next question. */
struct kept_extent {
    uint64_t end;
    bool is_hole;
};

struct nbd {
    struct io io;
    struct nbd_client *client;
    const struct nbd_export *export;

    pthread_mutex_t lock;   /* of all below */
    uint64_t kept_start;    /* read-only exports: the last answer */
    struct kept_extent kept[MAX_KEPT_EXTENTS];
    unsigned nr_kept;
};

static struct nbd *
to_nbd(struct io *io)
{
    return (struct nbd *)io;
}

bool
io_nbd_supported(void)
{
    return true;
}

static void
nbd_io_close(struct io *io)
{
    struct nbd *n = to_nbd(io);

    nbd_client_free(n->client);
    pthread_mutex_destroy(&n->lock);
    free(n->io.name);
    free(n);
}

/* Sends a request; notes if it was the last. */
static int
do_request(struct nbd *n, const struct nbd_request *q,
           struct qcow2_error *err)
{
    int r = q->nr_bytes || q->verb == NBD_FLUSH
            ? nbd_client_do(n->client, q, err) : 0;

    if (r == -1 && nbd_client_is_lost(n->client))
        __atomic_store_n(&n->io.lost, true, __ATOMIC_RELAXED);
    return r;
}

/* Reads up to the end of the export; all behind it is zero. */
static int
read_buffer(struct nbd *n, unsigned char *buf, uint64_t nr_bytes,
            uint64_t off, struct qcow2_error *err)
{
    uint64_t size = n->export->size;
    uint64_t inside = off < size ? min_u64(nr_bytes, size - off) : 0;
    const struct nbd_request q = {
        .verb = NBD_READ, .off = off, .nr_bytes = inside, .buf = buf,
    };

    memset(buf + inside, 0, nr_bytes - inside);
    return do_request(n, &q, err);
}

static int
write_buffer(struct nbd *n, const void *buf, uint64_t nr_bytes, uint64_t off,
             struct qcow2_error *err)
{
    const struct nbd_request q = {
        .verb = NBD_WRITE, .off = off, .nr_bytes = nr_bytes,
        .buf = (void *)buf,
    };

    if (!range_inside(off, nr_bytes, n->export->size))
        return error_set(err, ENOSPC, "%s: the export ends at %" PRIu64
                         " bytes", n->io.name, n->export->size);
    return do_request(n, &q, err);
}

static int
nbd_io_preadv(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    for (int i = 0; i < nr_iov; i++) {
        if (read_buffer(to_nbd(io), iov[i].iov_base, iov[i].iov_len,
                        host_off, err) == -1)
            return -1;
        host_off += iov[i].iov_len;
    }
    return 0;
}

static int
nbd_io_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
               uint64_t host_off, struct qcow2_error *err)
{
    for (int i = 0; i < nr_iov; i++) {
        if (write_buffer(to_nbd(io), iov[i].iov_base, iov[i].iov_len,
                         host_off, err) == -1)
            return -1;
        host_off += iov[i].iov_len;
    }
    return 0;
}

static int
nbd_io_flush(struct io *io, struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);
    const struct nbd_request q = { .verb = NBD_FLUSH };

    if (!n->export->can_flush)
        return 0;
    if (do_request(n, &q, err) == 0)
        return 0;
    if (err)
        err->errnum = EIO;
    return -1;
}

/* Has the server zero them. */
static int
send_zero(struct nbd *n, uint64_t off, uint64_t nr_bytes, unsigned flags,
          struct qcow2_error *err)
{
    const struct nbd_request q = {
        .verb = NBD_ZERO, .off = off, .nr_bytes = nr_bytes, .flags = flags,
    };

    return do_request(n, &q, err);
}

static int
write_zeroes(struct nbd *n, uint64_t off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    static const unsigned char zeroes[IO_ALIGN_MAX_BYTES];

    while (nr_bytes > 0) {
        uint64_t len = min_u64(nr_bytes, sizeof zeroes);

        if (write_buffer(n, zeroes, len, off, err) == -1)
            return -1;
        off += len;
        nr_bytes -= len;
    }
    return 0;
}

static int
nbd_io_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
            unsigned flags, struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);
    bool fast = flags & IO_ZERO_FAST;
    unsigned nbd_flags = flags & IO_ZERO_PUNCH ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;

    if (!range_inside(host_off, nr_bytes, n->export->size))
        return error_set(err, ENOSPC, "%s: the export ends at %" PRIu64
                         " bytes", n->io.name, n->export->size);
    if (fast && !n->export->can_fast_zero)
        return error_set(err, ENOTSUP, "%s: the server may be slow to zero",
                         n->io.name);
    if (!n->export->can_zero)
        return write_zeroes(n, host_off, nr_bytes, err);
    if (fast)
        nbd_flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
    return send_zero(n, host_off, nr_bytes, nbd_flags, err);
}

/* A trim need not read as zeroes; zeroing may trim. */
static int
nbd_io_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);

    if (!n->export->can_zero
        || !range_inside(host_off, nr_bytes, n->export->size))
        return error_set(err, ENOTSUP, "%s: cannot trim", n->io.name);
    return send_zero(n, host_off, nr_bytes, 0, err);
}

static int
nbd_io_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);

    if (size == n->export->size)
        return 0;
    return error_set(err, size > n->export->size ? ENOSPC : ENOTSUP,
                     "%s: the size of an NBD export cannot be changed",
                     n->io.name);
}

static int
nbd_io_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    (void)err;
    *size = to_nbd(io)->export->size;
    return 0;
}

static int
nbd_io_get_allocated(struct io *io, uint64_t *nr_bytes,
                     struct qcow2_error *err)
{
    (void)nr_bytes;
    return error_set(err, ENOTSUP, "%s: an NBD server does not tell what "
                     "space it uses", io->name);
}

/* One answer of the server on where data are. */
struct answer {
    struct kept_extent extents[MAX_KEPT_EXTENTS];
    unsigned nr;
    uint64_t end, limit;
};

/* Lengths may be 0, or reach beyond what was asked for. */
static void
take_extents(void *opaque, uint64_t off, const uint32_t *entries, size_t nr)
{
    struct answer *a = opaque;

    a->end = off;
    for (size_t i = 0; i < nr && a->nr < MAX_KEPT_EXTENTS
                       && a->end < a->limit; i++) {
        a->end = min_u64(a->limit, a->end + entries[2 * i]);
        a->extents[a->nr].end = a->end;
        /* What need not be zero is no hole to us. */
        a->extents[a->nr].is_hole = entries[2 * i + 1] & LIBNBD_STATE_ZERO;
        a->nr++;
    }
}

static bool
find_kept(struct nbd *n, uint64_t off, uint64_t *len, bool *is_hole)
{
    LOCK_SCOPE(&n->lock);

    for (unsigned i = 0; off >= n->kept_start && i < n->nr_kept; i++)
        if (off < n->kept[i].end) {
            *len = min_u64(*len, n->kept[i].end - off);
            *is_hole = n->kept[i].is_hole;
            return true;
        }
    return false;
}

static void
keep(struct nbd *n, uint64_t start, const struct answer *a)
{
    LOCK_SCOPE(&n->lock);

    n->kept_start = start;
    n->nr_kept = a->nr;
    memcpy(n->kept, a->extents, a->nr * sizeof a->extents[0]);
}

/* Asks the server where data are from start on. */
static int
ask(struct nbd *n, uint64_t start, uint64_t nr_bytes, struct answer *a,
    struct qcow2_error *err)
{
    const struct nbd_request q = {
        .verb = NBD_STATUS, .off = start, .nr_bytes = nr_bytes,
        .status = take_extents, .opaque = a,
    };
    struct qcow2_error why;

    if (do_request(n, &q, &why) == 0)
        return 0;
    a->nr = 0;
    if (why.errnum == ENOTSUP)
        return 0; /* another server now, which does not know */
    if (err)
        *err = why;
    return -1;
}

static int
nbd_io_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
              struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);
    uint64_t size = n->export->size, nr_bytes;
    struct answer a = { .nr = 0 };

    *is_hole = host_off >= size;
    if (*is_hole || !n->export->can_extents)
        return 0;
    if (io->readonly && find_kept(n, host_off, len, is_hole))
        return 0;
    nr_bytes = min_u64(size - host_off, MAX_STATUS_BYTES);
    if (!io->readonly)
        nr_bytes = min_u64(nr_bytes, *len);
    a.limit = host_off + nr_bytes;
    if (ask(n, host_off, nr_bytes, &a, err) == -1)
        return -1;
    if (a.nr == 0 || a.extents[0].end <= host_off)
        return 0; /* it does not know: data */
    if (io->readonly)
        keep(n, host_off, &a);
    *len = min_u64(*len, a.extents[0].end - host_off);
    *is_hole = a.extents[0].is_hole;
    return 0;
}

static const struct io_ops nbd_ops = {
    .close = nbd_io_close,
    .preadv = nbd_io_preadv,
    .pwritev = nbd_io_pwritev,
    .flush = nbd_io_flush,
    .zero = nbd_io_zero,
    .punch = nbd_io_punch,
    .truncate = nbd_io_truncate,
    .get_size = nbd_io_get_size,
    .get_allocated = nbd_io_get_allocated,
    .extent = nbd_io_extent,
};

struct io *
io_nbd_open_within(const char *uri, bool readonly, unsigned timeout_ms,
                   struct qcow2_error *err)
{
    struct nbd *n = calloc(1, sizeof *n);

    if (!n) {
        error_nomem(err);
        return NULL;
    }
    n->io.ops = &nbd_ops;
    n->io.readonly = readonly;
    n->io.name = strdup(ESCAPED(uri)); /* an image may have named it */
    pthread_mutex_init(&n->lock, NULL);
    if (!n->io.name)
        error_nomem(err);
    else
        n->client = nbd_client_new(uri, n->io.name, readonly,
                                   io_nbd_timeout(timeout_ms), err);
    if (!n->client) {
        nbd_io_close(&n->io);
        return NULL;
    }
    n->export = nbd_client_export(n->client);
    return io_align_new(&n->io, n->export->block_size, err);
}

#endif /* HAVE_LIBNBD */
