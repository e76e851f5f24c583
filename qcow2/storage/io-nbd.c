/* SPDX-License-Identifier: BSD-3-Clause */
/* io-nbd.c: images that an NBD server exports; see io-nbd.h.
 *
 * A connection does one request at a time. Where the server allows several,
 * threads get one each, up to MAX_CONNECTIONS; others wait.
 *
 * libnbd is loaded with the first such image: with all that it needs it takes
 * longer to load than most images to open.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/io-nbd.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/escape.h"

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

#ifndef HAVE_LIBNBD

bool
io_nbd_supported(void)
{
    return false;
}

struct io *
io_nbd_open(const char *uri, bool readonly, struct qcow2_error *err)
{
    (void)readonly;
    error_set(err, ENOTSUP, "%s: NBD is not built in (libnbd was not there)",
              ESCAPED(uri));
    return NULL;
}

#else /* HAVE_LIBNBD */

#include <dlfcn.h>
#include <inttypes.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"

enum {
    MAX_CONNECTIONS = 8,
    /* Bytes of one request, if the server does not say less. */
    MAX_REQUEST_BYTES = 32 << 20,
    MAX_KEPT_EXTENTS = 64,
};

/* Of zero and block status requests, which carry no data. */
#define MAX_LENGTH (UINT64_C(1) << 31)

/* What the server said of a range, kept for the next question. */
struct kept_extent {
    uint64_t end;
    bool is_hole;
};

/* Of libnbd, what is used. */
#define FUNCTIONS(F) \
    F(add_meta_context) F(block_status) F(can_fast_zero) F(can_flush) \
    F(can_meta_context) F(can_multi_conn) F(can_zero) F(close) \
    F(connect_uri) F(create) F(flush) F(get_block_size) F(get_errno) \
    F(get_error) F(get_size) F(is_read_only) F(pread) F(pwrite) \
    F(shutdown) F(zero)

struct library {
    void *handle;
#define DECLARE(name) __typeof__(nbd_##name) *name;
    FUNCTIONS(DECLARE)
#undef DECLARE
};

struct nbd {
    struct io io;
    struct library lib;
    char *uri;
    uint64_t size;
    uint32_t block_size;    /* requests must be multiples of it */
    uint32_t max_request;
    bool can_flush, can_zero, can_fast_zero, can_extents;

    pthread_mutex_t lock;   /* of all below */
    pthread_cond_t idle, first_idle;
    unsigned nr_flushing;   /* waiting for the first connection */
    struct nbd_handle *handles[MAX_CONNECTIONS];
    bool busy[MAX_CONNECTIONS];
    unsigned nr_handles, max_handles;
    uint64_t kept_start;    /* read-only exports: the last answer */
    struct kept_extent kept[MAX_KEPT_EXTENTS];
    unsigned nr_kept;

    pthread_mutex_t merge;  /* of parts of blocks with what is there */
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

/* It stays loaded: threads may have state of its libraries. */
static int
load_library(struct library *lib, struct qcow2_error *err)
{
    lib->handle = dlopen(LIBNBD_SONAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
#define FIND(name) \
    lib->name = lib->handle ? dlsym(lib->handle, "nbd_" #name) : NULL; \
    if (!lib->name) \
        return error_set(err, ENOTSUP, "NBD needs libnbd: %s", dlerror());
    FUNCTIONS(FIND)
#undef FIND
    return 0;
}

/* From libnbd's errno to those that we use. */
static int
errno_of_request(const struct nbd *n)
{
    int e = n->lib.get_errno();

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

static int
request_error(const struct nbd *n, const char *verb, uint64_t nr_bytes,
              uint64_t off, struct qcow2_error *err)
{
    int e = errno_of_request(n);

    return error_set(err, e, "%s: cannot %s %" PRIu64 " bytes at offset %"
                     PRIu64 ": %s", n->io.name, verb, nr_bytes, off,
                     ESCAPED(n->lib.get_error()));
}

static struct nbd_handle *
connect_to(const struct nbd *n, struct qcow2_error *err)
{
    struct nbd_handle *h = n->lib.create();
    int e;

    if (h && n->lib.add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0
        && n->lib.connect_uri(h, n->uri) == 0)
        return h;
    e = n->lib.get_errno();
    error_set(err, e ? e : EIO, "%s: %s", n->io.name,
              ESCAPED(n->lib.get_error()));
    n->lib.close(h);
    return NULL;
}

/* A connection for one request; makes another while it may. */
static unsigned
take_connection(struct nbd *n)
{
    LOCK_SCOPE(&n->lock);

    for (;;) {
        struct nbd_handle *h;

        for (unsigned i = n->max_handles > 1 && n->nr_flushing > 0;
             i < n->nr_handles; i++)
            if (!n->busy[i]) {
                n->busy[i] = true;
                return i;
            }
        if (n->nr_handles == n->max_handles) {
            pthread_cond_wait(&n->idle, &n->lock);
            continue;
        }
        h = connect_to(n, NULL);
        if (h)
            n->handles[n->nr_handles++] = h;
        else
            n->max_handles = n->nr_handles;
    }
}

/* The connection that was made first, for a flush. */
static unsigned
take_first_connection(struct nbd *n)
{
    LOCK_SCOPE(&n->lock);

    n->nr_flushing++;
    while (n->busy[0])
        pthread_cond_wait(&n->first_idle, &n->lock);
    n->nr_flushing--;
    n->busy[0] = true;
    return 0;
}

static void
put_connection(struct nbd *n, unsigned i)
{
    LOCK_SCOPE(&n->lock);

    n->busy[i] = false;
    pthread_cond_signal(i == 0 && n->nr_flushing > 0 ? &n->first_idle
                                                     : &n->idle);
}

static void
nbd_io_close(struct io *io)
{
    struct nbd *n = to_nbd(io);

    for (unsigned i = 0; i < n->nr_handles; i++) {
        n->lib.shutdown(n->handles[i], 0);
        n->lib.close(n->handles[i]);
    }
    pthread_mutex_destroy(&n->merge);
    pthread_cond_destroy(&n->first_idle);
    pthread_cond_destroy(&n->idle);
    pthread_mutex_destroy(&n->lock);
    if (n->lib.handle)
        dlclose(n->lib.handle);
    free(n->io.name);
    free(n->uri);
    free(n);
}

/* Whole blocks inside the export, in requests that the server takes. */
static int
read_blocks(struct nbd *n, unsigned char *buf, uint64_t nr_bytes,
            uint64_t off, struct qcow2_error *err)
{
    unsigned c = take_connection(n);
    int r = 0;

    while (r == 0 && nr_bytes > 0) {
        uint64_t len = min_u64(nr_bytes, n->max_request);

        r = n->lib.pread(n->handles[c], buf, len, off, 0);
        if (r == -1)
            request_error(n, "read", len, off, err);
        buf += len;
        off += len;
        nr_bytes -= len;
    }
    put_connection(n, c);
    return r;
}

static int
write_blocks(struct nbd *n, const unsigned char *buf, uint64_t nr_bytes,
             uint64_t off, struct qcow2_error *err)
{
    unsigned c = take_connection(n);
    int r = 0;

    while (r == 0 && nr_bytes > 0) {
        uint64_t len = min_u64(nr_bytes, n->max_request);

        r = n->lib.pwrite(n->handles[c], buf, len, off, 0);
        if (r == -1)
            request_error(n, "write", len, off, err);
        buf += len;
        off += len;
        nr_bytes -= len;
    }
    put_connection(n, c);
    return r;
}

static bool
is_whole_blocks(const struct nbd *n, uint64_t nr_bytes, uint64_t off)
{
    return is_aligned(nr_bytes | off, n->block_size);
}

/* The blocks that [off, off + nr_bytes) lies in, read. */
static unsigned char *
read_around(struct nbd *n, uint64_t nr_bytes, uint64_t off, uint64_t *start,
            uint64_t *len, struct qcow2_error *err)
{
    unsigned char *space;

    *start = round_down(off, n->block_size);
    *len = round_up(off + nr_bytes, n->block_size) - *start;
    space = malloc(*len);
    if (!space) {
        error_nomem(err);
    } else if (read_blocks(n, space, *len, *start, err) == -1) {
        free(space);
        space = NULL;
    }
    return space;
}

static int
read_part(struct nbd *n, unsigned char *buf, uint64_t nr_bytes, uint64_t off,
          struct qcow2_error *err)
{
    uint64_t inside = off < n->size ? min_u64(nr_bytes, n->size - off) : 0;
    CLEANUP_FREE unsigned char *space = NULL;
    uint64_t start, len;

    memset(buf + inside, 0, nr_bytes - inside);
    if (inside == 0 || is_whole_blocks(n, inside, off))
        return read_blocks(n, buf, inside, off, err);
    space = read_around(n, inside, off, &start, &len, err);
    if (!space)
        return -1;
    memcpy(buf, space + (off - start), inside);
    return 0;
}

static int
write_part(struct nbd *n, const unsigned char *buf, uint64_t nr_bytes,
           uint64_t off, struct qcow2_error *err)
{
    CLEANUP_FREE unsigned char *space = NULL;
    uint64_t start, len;

    if (!range_inside(off, nr_bytes, n->size))
        return error_set(err, ENOSPC, "%s: the export ends at %" PRIu64
                         " bytes", n->io.name, n->size);
    if (is_whole_blocks(n, nr_bytes, off))
        return write_blocks(n, buf, nr_bytes, off, err);
    LOCK_SCOPE(&n->merge);
    space = read_around(n, nr_bytes, off, &start, &len, err);
    if (!space)
        return -1;
    memcpy(space + (off - start), buf, nr_bytes);
    return write_blocks(n, space, len, start, err);
}

static int
nbd_io_preadv(struct io *io, const struct iovec *iov, int nr_iov,
              uint64_t host_off, struct qcow2_error *err)
{
    for (int i = 0; i < nr_iov; i++) {
        if (read_part(to_nbd(io), iov[i].iov_base, iov[i].iov_len, host_off,
                      err) == -1)
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
        if (write_part(to_nbd(io), iov[i].iov_base, iov[i].iov_len, host_off,
                       err) == -1)
            return -1;
        host_off += iov[i].iov_len;
    }
    return 0;
}

/* A server with several connections flushes for all of them. If it was
 * started anew, what it had in memory is lost: a later connection would not
 * know, but the first one is lost with it (I8).
 */
static int
nbd_io_flush(struct io *io, struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);
    unsigned c;
    int r;

    if (!n->can_flush)
        return 0;
    c = take_first_connection(n);
    r = n->lib.flush(n->handles[c], 0);
    if (r == -1)
        error_set(err, EIO, "%s: cannot flush: %s", n->io.name,
                  ESCAPED(n->lib.get_error()));
    put_connection(n, c);
    return r;
}

/* Whole blocks, by the server. */
static int
zero_blocks(struct nbd *n, uint64_t off, uint64_t nr_bytes, unsigned flags,
            struct qcow2_error *err)
{
    unsigned c = take_connection(n);
    int r = 0;

    while (r == 0 && nr_bytes > 0) {
        uint64_t len = min_u64(nr_bytes, MAX_LENGTH);

        r = n->lib.zero(n->handles[c], len, off, flags);
        if (r == -1)
            request_error(n, "zero", len, off, err);
        off += len;
        nr_bytes -= len;
    }
    put_connection(n, c);
    return r;
}

static int
write_zeroes(struct nbd *n, uint64_t off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    static const unsigned char zeroes[65536];

    while (nr_bytes > 0) {
        uint64_t len = min_u64(nr_bytes, sizeof zeroes);

        if (write_part(n, zeroes, len, off, err) == -1)
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
    uint64_t from = round_up(host_off, n->block_size);
    uint64_t to = round_down(host_off + nr_bytes, n->block_size);

    if (!range_inside(host_off, nr_bytes, n->size))
        return error_set(err, ENOSPC, "%s: the export ends at %" PRIu64
                         " bytes", n->io.name, n->size);
    if (fast && (!n->can_fast_zero
                 || !is_whole_blocks(n, nr_bytes, host_off)))
        return error_set(err, ENOTSUP, "%s: the server may be slow to zero",
                         n->io.name);
    if (!n->can_zero || from >= to)
        return write_zeroes(n, host_off, nr_bytes, err);
    if (fast)
        nbd_flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
    if (zero_blocks(n, from, to - from, nbd_flags, err) == -1
        || write_zeroes(n, host_off, from - host_off, err) == -1)
        return -1;
    return write_zeroes(n, to, host_off + nr_bytes - to, err);
}

/* A trim need not read as zeroes; zeroing may trim. */
static int
nbd_io_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
             struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);

    if (!n->can_zero || !is_whole_blocks(n, nr_bytes, host_off)
        || !range_inside(host_off, nr_bytes, n->size))
        return error_set(err, ENOTSUP, "%s: cannot trim", n->io.name);
    return zero_blocks(n, host_off, nr_bytes, 0, err);
}

static int
nbd_io_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);

    if (size == n->size)
        return 0;
    return error_set(err, size > n->size ? ENOSPC : ENOTSUP, "%s: the size "
                     "of an NBD export cannot be changed", n->io.name);
}

static int
nbd_io_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    (void)err;
    *size = to_nbd(io)->size;
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

static int
take_extents(void *opaque, const char *context, uint64_t off,
             uint32_t *entries, size_t nr_entries, int *error)
{
    struct answer *a = opaque;

    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
        return 0;
    a->end = off;
    for (size_t i = 0; i + 1 < nr_entries && a->nr < MAX_KEPT_EXTENTS
                       && a->end < a->limit; i += 2) {
        a->end += entries[i];
        a->extents[a->nr].end = a->end;
        /* What need not be zero is no hole to us. */
        a->extents[a->nr].is_hole = entries[i + 1] & LIBNBD_STATE_ZERO;
        a->nr++;
    }
    return 0;
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

static int
nbd_io_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
              struct qcow2_error *err)
{
    struct nbd *n = to_nbd(io);
    uint64_t start = round_down(host_off, n->block_size), ask;
    struct answer a = { .limit = n->size };
    nbd_extent_callback callback = { take_extents, &a, NULL };
    unsigned c;
    int r;

    *is_hole = host_off >= n->size;
    if (*is_hole || !n->can_extents)
        return 0;
    if (io->readonly && find_kept(n, host_off, len, is_hole))
        return 0;
    ask = min_u64(n->size - start, MAX_LENGTH);
    if (!io->readonly)
        ask = min_u64(ask, round_up(host_off + *len, n->block_size) - start);
    c = take_connection(n);
    r = n->lib.block_status(n->handles[c], ask, start, callback, 0);
    put_connection(n, c);
    if (r == -1)
        return request_error(n, "ask about", ask, start, err);
    if (a.nr == 0 || a.extents[0].end <= host_off)
        return 0; /* it does not know: data */
    if (io->readonly)
        keep(n, start, &a);
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

/* What the server can do. */
static int
set_up(struct nbd *n, struct nbd_handle *h, struct qcow2_error *err)
{
    int64_t size = n->lib.get_size(h);
    int64_t block = n->lib.get_block_size(h, LIBNBD_SIZE_MINIMUM);
    int64_t most = n->lib.get_block_size(h, LIBNBD_SIZE_MAXIMUM);

    if (size < 0)
        return error_set(err, EIO, "%s: %s", n->io.name,
                         ESCAPED(n->lib.get_error()));
    if (!n->io.readonly && n->lib.is_read_only(h) != 0)
        return error_set(err, EROFS, "%s: the export is read-only",
                         n->io.name);
    n->size = size;
    n->block_size = block > 0 && is_power_of_2(block) ? block : 1;
    n->max_request = most > 0 ? min_u64(most, MAX_REQUEST_BYTES)
                              : MAX_REQUEST_BYTES;
    n->max_request = max_u64(round_down(n->max_request, n->block_size),
                             n->block_size);
    n->can_flush = n->lib.can_flush(h) > 0;
    n->can_zero = n->lib.can_zero(h) > 0;
    n->can_fast_zero = n->can_zero && n->lib.can_fast_zero(h) > 0;
    n->can_extents = n->lib.can_meta_context(
                         h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    n->max_handles = n->lib.can_multi_conn(h) > 0 ? MAX_CONNECTIONS : 1;
    return 0;
}

/* Connects for the first time. */
static int
begin(struct nbd *n, struct qcow2_error *err)
{
    struct nbd_handle *h;

    if (load_library(&n->lib, err) == -1)
        return error_prefix(err, "%s", n->io.name);
    h = connect_to(n, err);
    if (!h)
        return -1;
    n->handles[0] = h;
    n->nr_handles = 1;
    return set_up(n, h, err);
}

struct io *
io_nbd_open(const char *uri, bool readonly, struct qcow2_error *err)
{
    struct nbd *n = calloc(1, sizeof *n);

    if (!n) {
        error_nomem(err);
        return NULL;
    }
    n->io.ops = &nbd_ops;
    n->io.readonly = readonly;
    n->io.name = strdup(ESCAPED(uri)); /* an image may have named it */
    n->uri = strdup(uri);
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->idle, NULL);
    pthread_cond_init(&n->first_idle, NULL);
    pthread_mutex_init(&n->merge, NULL);
    if (!n->io.name || !n->uri)
        error_nomem(err);
    else if (begin(n, err) == 0)
        return &n->io;
    nbd_io_close(&n->io);
    return NULL;
}

#endif /* HAVE_LIBNBD */
