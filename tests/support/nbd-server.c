/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-server.c: see nbd-server.h. Fixed newstyle, with simple replies. */
#include "nbd-server.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "expect.h"
#include "tmpdir.h"

enum {
    MAX_CONNECTIONS = 64,
    OPT_ABORT = 2, OPT_GO = 7,
    REP_ACK = 1, REP_INFO = 3, INFO_BLOCK_SIZE = 3,
    BLOCK = 4096, MAX_BYTES = 32 << 20,
    HAS_FLAGS = 1, SEND_FLUSH = 4, SEND_TRIM = 32, SEND_WRITE_ZEROES = 64,
    CAN_MULTI_CONN = 256, SEND_FAST_ZERO = 2048,
    FLAG_NO_HOLE = 2, FLAG_FAST_ZERO = 16,
    NO_COMMAND = NBD_NR_COMMANDS,
};

struct __attribute__((packed)) request {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t cookie, off;
    uint32_t nr_bytes;
};

struct connection {
    struct nbd_server *server;
    pthread_t thread;
    int fd;
};

struct nbd_server {
    struct io *io;
    unsigned can;           /* atomic */
    uint64_t claimed_size;  /* atomic; if claims_size, which is, too */
    bool claims_size;
    int listener;
    pthread_t acceptor;

    pthread_mutex_t lock;   /* of all below */
    pthread_cond_t changed;
    struct connection connections[MAX_CONNECTIONS];
    unsigned nr_connections;
    unsigned counts[NBD_NR_COMMANDS], nr_holes;
    unsigned hold, lose;    /* commands, or NO_COMMAND */
    bool held, let_go, to_answer;
};

static unsigned
what_it_can(const struct nbd_server *s)
{
    return __atomic_load_n(&s->can, __ATOMIC_SEQ_CST);
}

static bool
receive(int fd, void *buf, size_t nr_bytes)
{
    return nr_bytes == 0
           || recv(fd, buf, nr_bytes, MSG_WAITALL) == (ssize_t)nr_bytes;
}

static bool
answer(int fd, const void *buf, size_t nr_bytes)
{
    return send(fd, buf, nr_bytes, MSG_NOSIGNAL) == (ssize_t)nr_bytes;
}

static bool
answer_option(int fd, uint32_t option, uint32_t type, const void *data,
              uint32_t nr_bytes)
{
    const struct __attribute__((packed)) {
        uint64_t magic;
        uint32_t option, type, nr_bytes;
    } head = { htobe64(UINT64_C(0x3e889045565a9)), option, htobe32(type),
               htobe32(nr_bytes) };

    return answer(fd, &head, sizeof head)
           && (nr_bytes == 0 || answer(fd, data, nr_bytes));
}

static bool
answer_go(const struct connection *c, uint32_t option)
{
    unsigned can = what_it_can(c->server);
    struct __attribute__((packed)) {
        uint16_t type;
        uint64_t size;
        uint16_t flags;
    } export = { 0 };
    const struct __attribute__((packed)) {
        uint16_t type;
        uint32_t minimum, preferred, maximum;
    } blocks = { htobe16(INFO_BLOCK_SIZE), htobe32(BLOCK), htobe32(BLOCK),
                 htobe32(MAX_BYTES) };
    uint64_t size;

    if (io_get_size(c->server->io, &size, NULL) == -1)
        return false;
    if (__atomic_load_n(&c->server->claims_size, __ATOMIC_SEQ_CST))
        size = __atomic_load_n(&c->server->claimed_size, __ATOMIC_SEQ_CST);
    export.size = htobe64(size);
    export.flags = htobe16(
        HAS_FLAGS | SEND_TRIM
        | (can & NBD_SERVER_FLUSH ? SEND_FLUSH : 0)
        | (can & NBD_SERVER_MULTI_CONN ? CAN_MULTI_CONN : 0)
        | (can & NBD_SERVER_ZERO ? SEND_WRITE_ZEROES | SEND_FAST_ZERO : 0));
    return answer_option(c->fd, option, REP_INFO, &export, sizeof export)
           && (!(can & NBD_SERVER_BLOCKS)
               || answer_option(c->fd, option, REP_INFO, &blocks,
                                sizeof blocks))
           && answer_option(c->fd, option, REP_ACK, NULL, 0);
}

/* Of the options only the one that all clients send. */
static bool
greet(const struct connection *c)
{
    const struct __attribute__((packed)) {
        uint64_t magic, option_magic;
        uint16_t flags;
    } hello = { htobe64(UINT64_C(0x4e42444d41474943)),
                htobe64(UINT64_C(0x49484156454f5054)), htobe16(3) };
    struct __attribute__((packed)) {
        uint64_t magic;
        uint32_t option, nr_bytes;
    } head;
    unsigned char ignored[4096];
    uint32_t flags;

    if (!answer(c->fd, &hello, sizeof hello)
        || !receive(c->fd, &flags, sizeof flags))
        return false;
    while (receive(c->fd, &head, sizeof head)
           && be32toh(head.nr_bytes) <= sizeof ignored
           && receive(c->fd, ignored, be32toh(head.nr_bytes))
           && be32toh(head.option) != OPT_ABORT) {
        if (be32toh(head.option) == OPT_GO)
            return answer_go(c, head.option);
        if (!answer_option(c->fd, head.option, UINT32_C(0x80000001), NULL, 0))
            return false;
    }
    return false;
}

static int
do_request(struct nbd_server *s, const struct request *q, void *buf,
           struct qcow2_error *err)
{
    uint64_t nr_bytes = be32toh(q->nr_bytes), off = be64toh(q->off);
    unsigned flags = be16toh(q->flags);
    uint64_t size;

    if (what_it_can(s) & NBD_SERVER_BLOCKS && (nr_bytes | off) % BLOCK) {
        err->errnum = EINVAL;
        return -1;
    }
    if (__atomic_load_n(&s->claims_size, __ATOMIC_SEQ_CST)
        && (io_get_size(s->io, &size, err) == -1
            || (be16toh(q->type) != NBD_FLUSH
                && !range_inside(off, nr_bytes, size)))) {
        err->errnum = EINVAL;
        return -1;
    }
    switch (be16toh(q->type)) {
    case NBD_READ:
        return io_pread(s->io, buf, nr_bytes, off, err);
    case NBD_WRITE:
        return io_pwrite(s->io, buf, nr_bytes, off, err);
    case NBD_FLUSH:
        return io_flush(s->io, err);
    case NBD_WRITE_ZEROES:
        return io_zero(s->io, off, nr_bytes,
                       (flags & FLAG_NO_HOLE ? 0 : IO_ZERO_PUNCH)
                       | (flags & FLAG_FAST_ZERO ? IO_ZERO_FAST : 0), err);
    }
    err->errnum = EINVAL;
    return -1;
}

/* Counts it, and holds it back if that is wanted. Is its connection to be
 * lost? */
static bool
arrived(struct nbd_server *s, const struct request *q)
{
    unsigned type = be16toh(q->type);
    bool lost = false;

    LOCK_SCOPE(&s->lock);
    if (type < NBD_NR_COMMANDS)
        s->counts[type]++;
    s->nr_holes += type == NBD_WRITE_ZEROES
                   && !(be16toh(q->flags) & FLAG_NO_HOLE);
    if (s->lose == type) {
        s->lose = NO_COMMAND;
        lost = true;
    }
    if (s->hold == type) {
        s->hold = NO_COMMAND;
        s->held = lost = true;
        pthread_cond_broadcast(&s->changed);
        while (!s->let_go)
            pthread_cond_wait(&s->changed, &s->lock);
        lost = !s->to_answer;
    }
    return lost;
}

static bool
serve_request(struct connection *c, const struct request *q, void *buf)
{
    struct nbd_server *s = c->server;
    bool reads = be16toh(q->type) == NBD_READ;
    size_t nr_bytes = be32toh(q->nr_bytes);
    struct qcow2_error err = { .errnum = 0 };
    struct __attribute__((packed)) {
        uint32_t magic, error;
        uint64_t cookie;
    } reply = { htobe32(0x67446698), 0, q->cookie };
    bool lost;

    if (be16toh(q->type) == NBD_WRITE && !receive(c->fd, buf, nr_bytes))
        return false;
    lost = arrived(s, q);
    if (lost && !reads)
        return false;
    if (do_request(s, q, buf, &err) == -1)
        reply.error = htobe32(err.errnum);
    return answer(c->fd, &reply, sizeof reply)
           && (reply.error || !reads
               || answer(c->fd, buf, lost ? nr_bytes / 2 : nr_bytes))
           && !lost;
}

static void *
serve(void *arg)
{
    struct connection *c = arg;
    struct request q;
    char ignored[256];

    if (what_it_can(c->server) & NBD_SERVER_SILENT) {
        while (recv(c->fd, ignored, sizeof ignored, 0) > 0)
            ;
        return NULL;
    }
    if (greet(c))
        while (receive(c->fd, &q, sizeof q)
               && be16toh(q.type) != NBD_DISC) {
            void *buf = malloc((size_t)be32toh(q.nr_bytes) + 1);
            bool more = buf && serve_request(c, &q, buf);

            free(buf);
            if (!more)
                break;
        }
    shutdown(c->fd, SHUT_RDWR);
    return NULL;
}

static void *
accept_all(void *arg)
{
    struct nbd_server *s = arg;
    int fd;

    while ((fd = accept(s->listener, NULL, NULL)) >= 0) {
        LOCK_SCOPE(&s->lock);
        struct connection *c = &s->connections[s->nr_connections];

        if (s->nr_connections == MAX_CONNECTIONS)
            abort();
        *c = (struct connection){ .server = s, .fd = fd };
        if (pthread_create(&c->thread, NULL, serve, c) != 0)
            abort();
        s->nr_connections++;
        pthread_cond_broadcast(&s->changed);
    }
    return NULL;
}

struct nbd_server *
nbd_server_start(struct io *io, unsigned can)
{
    struct nbd_server *s = calloc(1, sizeof *s);
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (!s)
        abort();
    s->io = io;
    s->can = can;
    s->hold = s->lose = NO_COMMAND;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    snprintf(address.sun_path, sizeof address.sun_path, "%s",
             tmpdir_path("socket"));
    unlink(address.sun_path);
    s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT(s->listener >= 0
           && bind(s->listener, (struct sockaddr *)&address, sizeof address)
              == 0
           && listen(s->listener, MAX_CONNECTIONS) == 0
           && pthread_create(&s->acceptor, NULL, accept_all, s) == 0,
           "%s: %s", address.sun_path, strerror(errno));
    return s;
}

void
nbd_server_stop(struct nbd_server *s)
{
    if (!s)
        return;
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->acceptor, NULL);
    close(s->listener);
    nbd_server_lose_held(s);
    for (unsigned i = 0; i < s->nr_connections; i++) {
        shutdown(s->connections[i].fd, SHUT_RDWR);
        pthread_join(s->connections[i].thread, NULL);
        close(s->connections[i].fd);
    }
    io_close(s->io);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const char *
nbd_server_uri(void)
{
    static char uri[1200];

    snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s",
             tmpdir_path("socket"));
    return uri;
}

unsigned
nbd_server_count(struct nbd_server *s, enum nbd_command command)
{
    LOCK_SCOPE(&s->lock);

    return s->counts[command];
}

unsigned
nbd_server_connections(struct nbd_server *s)
{
    LOCK_SCOPE(&s->lock);

    return s->nr_connections;
}

unsigned
nbd_server_holes(struct nbd_server *s)
{
    LOCK_SCOPE(&s->lock);

    return s->nr_holes;
}

void
nbd_server_hold(struct nbd_server *s, enum nbd_command command)
{
    LOCK_SCOPE(&s->lock);

    s->hold = command;
    s->held = s->let_go = s->to_answer = false;
}

void
nbd_server_wait_held(struct nbd_server *s)
{
    LOCK_SCOPE(&s->lock);

    while (!s->held)
        pthread_cond_wait(&s->changed, &s->lock);
}

void
nbd_server_lose_held(struct nbd_server *s)
{
    LOCK_SCOPE(&s->lock);

    s->let_go = true;
    pthread_cond_broadcast(&s->changed);
}

void
nbd_server_answer_held(struct nbd_server *s)
{
    LOCK_SCOPE(&s->lock);

    s->let_go = s->to_answer = true;
    pthread_cond_broadcast(&s->changed);
}

void
nbd_server_claim_size(struct nbd_server *s, uint64_t size)
{
    __atomic_store_n(&s->claimed_size, size, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->claims_size, true, __ATOMIC_SEQ_CST);
}

void
nbd_server_fall_silent(struct nbd_server *s)
{
    __atomic_or_fetch(&s->can, NBD_SERVER_SILENT, __ATOMIC_SEQ_CST);
}

void
nbd_server_wait_connections(struct nbd_server *s, unsigned nr)
{
    LOCK_SCOPE(&s->lock);

    while (s->nr_connections < nr)
        pthread_cond_wait(&s->changed, &s->lock);
}

void
nbd_server_lose_next(struct nbd_server *s, enum nbd_command command)
{
    LOCK_SCOPE(&s->lock);

    s->lose = command;
}
