/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-liar.c: see nbd-liar.h. Fixed newstyle, simple and structured replies.
 */
#include "nbd-liar.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "expect.h"
#include "rng.h"
#include "tmpdir.h"

enum {
    OPT_ABORT = 2, OPT_GO = 7, OPT_STRUCTURED = 8, OPT_SET_CONTEXT = 10,
    REP_ACK = 1, REP_INFO = 3, REP_CONTEXT = 4,
    INFO_BLOCK_SIZE = 3,
    CMD_READ = 0, CMD_WRITE = 1, CMD_DISC = 2, CMD_STATUS = 7,
    CHUNK_NONE = 0, CHUNK_DATA = 1, CHUNK_STATUS = 5, CHUNK_DONE = 1,
    MAX_BYTES = 32 << 20, CONTEXT_ID = 5,
    /* has flags, flush, trim, write zeroes, several connections, fast */
    EXPORT_FLAGS = 1 | 4 | 32 | 64 | 256 | 2048,
};
#define OPTION_MAGIC UINT64_C(0x3e889045565a9)
#define REP_UNSUPPORTED UINT32_C(0x80000001)
#define SIMPLE_MAGIC UINT32_C(0x67446698)
#define CHUNK_MAGIC UINT32_C(0x668e33ef)

struct liar {
    int listener;
    pthread_t acceptor;

    pthread_mutex_t lock;   /* of all below */
    pthread_cond_t ended;
    unsigned nr_open;
    uint64_t seed, nr_lies, nr_connections;
    bool moved, resized;
    unsigned nr_wrong;
};

struct connection {
    struct liar *liar;
    int fd;
    struct rng rng;
    unsigned percent;       /* of what could be a lie */
    bool structured;
};

struct __attribute__((packed)) request {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t cookie, off;
    uint32_t nr_bytes;
};

static bool
lies(struct connection *c)
{
    bool lie = rng_percent(&c->rng, c->percent);

    if (lie) {
        LOCK_SCOPE(&c->liar->lock);
        c->liar->nr_lies++;
    }
    return lie;
}

static void
set(struct connection *c, bool *what)
{
    LOCK_SCOPE(&c->liar->lock);

    *what = true;
}

/* Another number, perhaps. */
static uint64_t
number(struct connection *c, uint64_t truth)
{
    static const uint64_t extremes[] = {
        0, 1, 2, 511, 4096, 65535, 65536, 1 << 20, INT32_MAX, UINT32_MAX,
        UINT64_C(1) << 32, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX,
    };

    if (!lies(c))
        return truth;
    switch (rng_below(&c->rng, 4)) {
    case 0:
        return truth ^ UINT64_C(1) << rng_below(&c->rng, 64);
    case 1:
        return truth + rng_below(&c->rng, 17) - 8;
    default:
        return extremes[rng_below(&c->rng,
                                  sizeof extremes / sizeof extremes[0])];
    }
}

static bool
receive(struct connection *c, void *buf, size_t nr_bytes)
{
    return nr_bytes == 0
           || recv(c->fd, buf, nr_bytes, MSG_WAITALL) == (ssize_t)nr_bytes;
}

static bool
put(struct connection *c, const void *buf, size_t nr_bytes)
{
    const char *p = buf;

    while (nr_bytes > 0) {
        ssize_t n = send(c->fd, p, nr_bytes, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        p += n;
        nr_bytes -= n;
    }
    return true;
}

static void
say_nothing(struct connection *c)
{
    char ignored[4096];

    while (recv(c->fd, ignored, sizeof ignored, 0) > 0)
        ;
}

/* Sends all of it; or breaks off, falls silent, or takes its time. */
static bool
answer(struct connection *c, const void *buf, size_t nr_bytes)
{
    size_t part;

    if (nr_bytes == 0 || !rng_percent(&c->rng, c->percent / 4)
        || !lies(c))
        return put(c, buf, nr_bytes);
    part = rng_below(&c->rng, nr_bytes + 1);
    switch (rng_below(&c->rng, 3)) {
    case 0:
        put(c, buf, part);
        return false;
    case 1:
        if (put(c, buf, part))
            say_nothing(c);
        return false;
    default:
        for (size_t i = 0; i < nr_bytes && i < 500; i++) {
            if (!put(c, (const char *)buf + i, 1))
                return false;
            usleep(300);
        }
        return false;
    }
}

static bool
answer_option(struct connection *c, uint32_t option, uint32_t type,
              const void *data, uint32_t nr_bytes)
{
    const struct __attribute__((packed)) {
        uint64_t magic;
        uint32_t option, type, nr_bytes;
    } head = { htobe64(number(c, OPTION_MAGIC)), htobe32(number(c, option)),
               htobe32(number(c, type)), htobe32(number(c, nr_bytes)) };

    return answer(c, &head, sizeof head) && answer(c, data, nr_bytes);
}

static bool
answer_go(struct connection *c, uint32_t option)
{
    uint64_t size = number(c, LIAR_SIZE);
    const struct __attribute__((packed)) {
        uint16_t type;
        uint64_t size;
        uint16_t flags;
    } export = { htobe16(number(c, 0)), htobe64(size),
                 htobe16(number(c, EXPORT_FLAGS)) };
    const struct __attribute__((packed)) {
        uint16_t type;
        uint32_t minimum, preferred, maximum;
    } blocks = { htobe16(number(c, INFO_BLOCK_SIZE)),
                 htobe32(number(c, rng_percent(&c->rng, 50) ? 1 : 4096)),
                 htobe32(number(c, 4096)), htobe32(number(c, MAX_BYTES)) };

    if (size != LIAR_SIZE || be16toh(export.type) != 0)
        set(c, &c->liar->resized);
    return (lies(c) || answer_option(c, option, REP_INFO, &export,
                                     sizeof export))
           && (rng_percent(&c->rng, 50)
               || answer_option(c, option, REP_INFO, &blocks, sizeof blocks))
           && answer_option(c, option, REP_ACK, NULL, 0);
}

static bool
answer_context(struct connection *c, uint32_t option)
{
    static const char name[] = "base:allocation";
    unsigned nr = number(c, 1) % 4;
    struct __attribute__((packed)) {
        uint32_t id;
        char name[sizeof name - 1];
    } context;

    for (unsigned i = 0; i < nr; i++) {
        context.id = htobe32(number(c, CONTEXT_ID));
        memcpy(context.name, name, sizeof context.name);
        context.name[0] = number(c, context.name[0]);
        if (!answer_option(c, option, REP_CONTEXT, &context, sizeof context))
            return false;
    }
    return answer_option(c, option, REP_ACK, NULL, 0);
}

/* true: the client may send requests. */
static bool
greet(struct connection *c)
{
    const struct __attribute__((packed)) {
        uint64_t magic, option_magic;
        uint16_t flags;
    } hello = { htobe64(number(c, UINT64_C(0x4e42444d41474943))),
                htobe64(number(c, UINT64_C(0x49484156454f5054))),
                htobe16(number(c, 3)) };
    struct __attribute__((packed)) {
        uint64_t magic;
        uint32_t option, nr_bytes;
    } head;
    unsigned char ignored[8192];
    uint32_t flags, option;
    bool more = true;

    if (!answer(c, &hello, sizeof hello)
        || !receive(c, &flags, sizeof flags))
        return false;
    while (more && receive(c, &head, sizeof head)
           && be32toh(head.nr_bytes) <= sizeof ignored
           && receive(c, ignored, be32toh(head.nr_bytes))) {
        option = be32toh(head.option);
        switch (option) {
        case OPT_ABORT:
            return false;
        case OPT_GO:
            return answer_go(c, option);
        case OPT_STRUCTURED:
            c->structured = true;
            more = answer_option(c, option, REP_ACK, NULL, 0);
            break;
        case OPT_SET_CONTEXT:
            more = answer_context(c, option);
            break;
        default:
            more = answer_option(c, option, REP_UNSUPPORTED, NULL, 0);
        }
    }
    return false;
}

static bool
answer_simply(struct connection *c, const struct request *q, const void *data,
              size_t nr_bytes)
{
    const struct __attribute__((packed)) {
        uint32_t magic, error;
        uint64_t cookie;
    } reply = { htobe32(number(c, SIMPLE_MAGIC)), htobe32(number(c, 0)),
                number(c, q->cookie) };

    return answer(c, &reply, sizeof reply)
           && (reply.error || answer(c, data, nr_bytes));
}

/* One chunk: its head, `more` as the beginning of the payload, and data. */
static bool
answer_chunk(struct connection *c, const struct request *q, uint16_t flags,
             uint16_t type, const void *more, size_t nr_more,
             const void *data, size_t nr_data)
{
    uint32_t length = nr_more + nr_data;
    const struct __attribute__((packed)) {
        uint32_t magic;
        uint16_t flags, type;
        uint64_t cookie;
        uint32_t length;
    } head = { htobe32(number(c, CHUNK_MAGIC)), htobe16(number(c, flags)),
               htobe16(number(c, type)), number(c, q->cookie),
               htobe32(number(c, length)) };

    if (be16toh(head.type) != type || be32toh(head.length) != length)
        set(c, &c->liar->moved);
    return answer(c, &head, sizeof head) && answer(c, more, nr_more)
           && answer(c, data, nr_data);
}

/* In up to four chunks, some of them perhaps twice or not at all. */
static bool
answer_read(struct connection *c, const struct request *q,
            const unsigned char *data, uint64_t nr_bytes)
{
    uint64_t off = be64toh(q->off), done = 0;

    while (done < nr_bytes) {
        uint64_t n = 1 + rng_below(&c->rng, nr_bytes - done);
        uint64_t at = number(c, off + done), at_be = htobe64(at);
        bool last;

        if (nr_bytes - done - n < nr_bytes / 4)
            n = nr_bytes - done;
        last = done + n == nr_bytes;
        if (at != off + done)
            set(c, &c->liar->moved);
        if (!lies(c)
            && !answer_chunk(c, q, 0, CHUNK_DATA, &at_be, sizeof at_be,
                             data + done, n))
            return false;
        if (!lies(c) || last)
            done += n;
    }
    return answer_chunk(c, q, CHUNK_DONE, CHUNK_NONE, NULL, 0, NULL, 0);
}

/* All is data, in extents of any length. */
static bool
answer_status(struct connection *c, const struct request *q)
{
    uint32_t payload[1 + 2 * 8];
    unsigned nr = 1 + rng_below(&c->rng, 8);

    payload[0] = htobe32(number(c, CONTEXT_ID));
    for (unsigned i = 0; i < nr; i++) {
        payload[1 + 2 * i] = htobe32(number(c, be32toh(q->nr_bytes) / nr + 1));
        payload[2 + 2 * i] = 0;
    }
    return answer_chunk(c, q, CHUNK_DONE, CHUNK_STATUS, payload,
                        4 + 8 * nr - (lies(c) ? 4 : 0), NULL, 0);
}

static void
check_write(struct connection *c, const unsigned char *got, uint64_t off,
            size_t nr_bytes)
{
    unsigned char *want = malloc(nr_bytes + 1);

    if (!want)
        abort();
    pattern_fill(want, nr_bytes, LIAR_PATTERN, off);
    LOCK_SCOPE(&c->liar->lock);
    c->liar->nr_wrong += memcmp(got, want, nr_bytes) != 0;
    free(want);
}

static bool
serve_request(struct connection *c, const struct request *q,
              unsigned char *buf)
{
    uint64_t nr_bytes = be32toh(q->nr_bytes);

    switch (be16toh(q->type)) {
    case CMD_WRITE:
        if (!receive(c, buf, nr_bytes))
            return false;
        check_write(c, buf, be64toh(q->off), nr_bytes);
        break;
    case CMD_READ:
        pattern_fill(buf, nr_bytes, LIAR_PATTERN, be64toh(q->off));
        return c->structured && !lies(c)
               ? answer_read(c, q, buf, nr_bytes)
               : answer_simply(c, q, buf, nr_bytes);
    case CMD_STATUS:
        return answer_status(c, q);
    default:
        break;
    }
    return c->structured && rng_percent(&c->rng, 50)
           ? answer_chunk(c, q, CHUNK_DONE, CHUNK_NONE, NULL, 0, NULL, 0)
           : answer_simply(c, q, NULL, 0);
}

static void
serve_requests(struct connection *c)
{
    struct request q;
    bool more = true;

    while (more && receive(c, &q, sizeof q) && be16toh(q.type) != CMD_DISC) {
        unsigned char *buf = be32toh(q.nr_bytes) <= MAX_BYTES
                                     || be16toh(q.type) > CMD_WRITE
                             ? malloc(MAX_BYTES + 1) : NULL;

        more = buf && serve_request(c, &q, buf);
        free(buf);
    }
}

static void *
serve(void *arg)
{
    struct connection *c = arg;

    if (greet(c))
        serve_requests(c);
    close(c->fd);
    pthread_mutex_lock(&c->liar->lock);
    c->liar->nr_open--;
    pthread_cond_broadcast(&c->liar->ended);
    pthread_mutex_unlock(&c->liar->lock);
    free(c);
    return NULL;
}

static void *
accept_all(void *arg)
{
    static const unsigned percents[] = { 0, 1, 1, 3, 10, 30 };
    struct liar *l = arg;
    pthread_t thread;
    int fd;

    while ((fd = accept(l->listener, NULL, NULL)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);

        LOCK_SCOPE(&l->lock);
        if (!c)
            abort();
        c->liar = l;
        c->fd = fd;
        rng_init(&c->rng, l->seed, ++l->nr_connections);
        c->percent = percents[rng_below(&c->rng, 6)];
        l->nr_open++;
        if (pthread_create(&thread, NULL, serve, c) != 0)
            abort();
        pthread_detach(thread);
    }
    return NULL;
}

struct liar *
liar_start(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct liar *l = calloc(1, sizeof *l);

    if (!l)
        abort();
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->ended, NULL);
    snprintf(address.sun_path, sizeof address.sun_path, "%s",
             tmpdir_path("liar"));
    unlink(address.sun_path);
    l->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT(l->listener >= 0
           && bind(l->listener, (struct sockaddr *)&address, sizeof address)
              == 0
           && listen(l->listener, 64) == 0
           && pthread_create(&l->acceptor, NULL, accept_all, l) == 0,
           "%s: %s", address.sun_path, strerror(errno));
    return l;
}

/* Its clients have closed their connections. */
void
liar_stop(struct liar *l)
{
    shutdown(l->listener, SHUT_RDWR);
    pthread_join(l->acceptor, NULL);
    close(l->listener);
    pthread_mutex_lock(&l->lock);
    while (l->nr_open > 0)
        pthread_cond_wait(&l->ended, &l->lock);
    pthread_mutex_unlock(&l->lock);
    pthread_cond_destroy(&l->ended);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

const char *
liar_uri(void)
{
    static char uri[1200];

    snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s", tmpdir_path("liar"));
    return uri;
}

void
liar_begin(struct liar *l, uint64_t seed)
{
    LOCK_SCOPE(&l->lock);

    while (l->nr_open > 0) /* of the seed before */
        pthread_cond_wait(&l->ended, &l->lock);
    l->seed = seed;
    l->moved = l->resized = false;
    l->nr_wrong = 0;
}

bool
liar_moved_data(struct liar *l)
{
    LOCK_SCOPE(&l->lock);

    return l->moved;
}

bool
liar_changed_size(struct liar *l)
{
    LOCK_SCOPE(&l->lock);

    return l->resized;
}

unsigned
liar_wrong_writes(struct liar *l)
{
    LOCK_SCOPE(&l->lock);

    return l->nr_wrong;
}

uint64_t
liar_nr_lies(struct liar *l)
{
    LOCK_SCOPE(&l->lock);

    return l->nr_lies;
}

uint64_t
liar_nr_connections(struct liar *l)
{
    LOCK_SCOPE(&l->lock);

    return l->nr_connections;
}
