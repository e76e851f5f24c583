/* SPDX-License-Identifier: BSD-3-Clause */
/* io-mem.c: see io-mem.h. */
#include "io-mem.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "builder.h"
#include "tmpdir.h"

enum { BLOCK = 4096 }; /* what holes are made of */

/* A test that goes further than this has gone astray. */
#define MAX_SIZE (UINT64_C(1) << 30)

/* Bytes from size up to capacity are zero. */
struct mem {
    pthread_rwlock_t lock;
    unsigned nr_users;       /* atomic: backends, and who made it */
    bool is_device;
    unsigned char *bytes;
    uint64_t size, capacity; /* capacity: whole blocks */
    bool *is_data;           /* one a block: not in a hole */
    uint64_t room;           /* the most blocks of data */
};

struct mem_io {
    struct io io;
    struct mem *mem;
};

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static void
reserve(struct mem *m, uint64_t size)
{
    uint64_t capacity = round_up(max_u64(size, 1), BLOCK);

    if (capacity <= m->capacity)
        return;
    if (m->capacity > 0) /* grows: leave room for more */
        capacity = max_u64(capacity, round_up(m->capacity * 3 / 2, BLOCK));
    m->bytes = must_have(realloc(m->bytes, capacity));
    memset(m->bytes + m->capacity, 0, capacity - m->capacity);
    m->is_data = must_have(realloc(m->is_data, capacity / BLOCK));
    memset(m->is_data + m->capacity / BLOCK, 0,
           (capacity - m->capacity) / BLOCK);
    m->capacity = capacity;
}

/* The bytes that are about to be written. */
static void
mark_data(struct mem *m, uint64_t off, uint64_t nr_bytes)
{
    for (uint64_t b = off / BLOCK; b * BLOCK < off + nr_bytes; b++)
        m->is_data[b] = true;
}

static uint64_t
nr_data(const struct mem *m)
{
    uint64_t nr = 0;

    for (uint64_t b = 0; b < m->capacity / BLOCK; b++)
        nr += m->is_data[b];
    return nr;
}

/* Is there room for data in [off, off + nr_bytes), inside the capacity? */
static int
check_room(const struct mem *m, uint64_t off, uint64_t nr_bytes,
           struct qcow2_error *err)
{
    uint64_t more = 0;

    if (m->room == UINT64_MAX)
        return 0;
    for (uint64_t b = off / BLOCK; b * BLOCK < off + nr_bytes; b++)
        more += !m->is_data[b];
    if (more == 0 || nr_data(m) + more <= m->room)
        return 0;
    return error_set(err, ENOSPC, "memory: no room for %" PRIu64 " bytes at %"
                     PRIu64, nr_bytes, off);
}

uint64_t
mem_set_room(struct mem *m, uint64_t nr_bytes)
{
    WRLOCK_SCOPE(&m->lock);

    m->room = nr_bytes == UINT64_MAX ? UINT64_MAX : nr_bytes / BLOCK;
    return nr_data(m) * BLOCK;
}

static void
make_zero(struct mem *m, uint64_t off, uint64_t nr_bytes, bool hole)
{
    memset(m->bytes + off, 0, nr_bytes);
    if (!hole) {
        mark_data(m, off, nr_bytes);
        return;
    }
    for (uint64_t b = div_round_up(off, BLOCK);
         (b + 1) * BLOCK <= off + nr_bytes; b++)
        m->is_data[b] = false;
}

struct mem *
mem_new(const void *bytes, uint64_t nr_bytes)
{
    struct mem *m = must_have(calloc(1, sizeof *m));

    pthread_rwlock_init(&m->lock, NULL);
    m->nr_users = 1;
    m->room = UINT64_MAX;
    reserve(m, nr_bytes);
    m->size = nr_bytes;
    if (bytes && nr_bytes > 0) {
        memcpy(m->bytes, bytes, nr_bytes);
        mark_data(m, 0, nr_bytes);
    }
    return m;
}

struct mem *
mem_from_recipe(const char *recipe)
{
    struct builder *b = builder_new();
    const unsigned char *bytes;
    size_t nr_bytes;
    struct mem *m;

    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    m = mem_new(bytes, nr_bytes);
    builder_free(b);
    return m;
}

struct mem *
mem_new_device(uint64_t nr_bytes)
{
    struct mem *m = mem_new(NULL, nr_bytes);

    m->is_device = true;
    memset(m->bytes, 0xdb, nr_bytes);
    mark_data(m, 0, nr_bytes);
    return m;
}

struct mem *
mem_copy(struct mem *m)
{
    struct mem *copy;
    RDLOCK_SCOPE(&m->lock);

    copy = mem_new(m->bytes, m->size);
    copy->is_device = m->is_device;
    memcpy(copy->is_data, m->is_data, copy->capacity / BLOCK);
    return copy;
}

struct mem *
mem_like(const struct mem *m, const void *bytes, uint64_t nr_bytes)
{
    struct mem *like = mem_new(bytes, nr_bytes);

    like->is_device = m->is_device;
    return like;
}

struct mem *
mem_load(const char *path)
{
    size_t nr_bytes;
    unsigned char *bytes = tmpdir_read_file(path, &nr_bytes);
    struct mem *m = mem_new(bytes, nr_bytes);

    free(bytes);
    return m;
}

void
mem_save(struct mem *m, const char *path)
{
    RDLOCK_SCOPE(&m->lock);

    tmpdir_write_file(path, m->bytes, m->size);
}

void
mem_free(struct mem *m)
{
    if (!m || __atomic_sub_fetch(&m->nr_users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    pthread_rwlock_destroy(&m->lock);
    free(m->bytes);
    free(m->is_data);
    free(m);
}

const unsigned char *
mem_bytes(struct mem *m, uint64_t *nr_bytes)
{
    *nr_bytes = m->size;
    return m->bytes;
}

/* The backend. */

static struct mem *
mem_of(struct io *io)
{
    return ((struct mem_io *)io)->mem;
}

static int
mem_preadv(struct io *io, const struct iovec *iov, int nr_iov,
           uint64_t host_off, struct qcow2_error *err)
{
    struct mem *m = mem_of(io);
    RDLOCK_SCOPE(&m->lock);

    (void)err;
    for (int i = 0; i < nr_iov; i++) {
        size_t n = iov[i].iov_len;
        size_t have = host_off < m->size ? min_u64(n, m->size - host_off)
                                         : 0;

        if (have > 0)
            memcpy(iov[i].iov_base, m->bytes + host_off, have);
        memset((char *)iov[i].iov_base + have, 0, n - have);
        host_off += n;
    }
    return 0;
}

/* Makes room for a change of [off, off + nr_bytes). */
static int
grow(struct mem *m, uint64_t off, uint64_t nr_bytes, struct qcow2_error *err)
{
    uint64_t end = off + nr_bytes;

    if (end <= m->size)
        return 0;
    if (m->is_device || end > MAX_SIZE)
        return error_set(err, ENOSPC, "memory: no room for %" PRIu64
                         " bytes at %" PRIu64, nr_bytes, off);
    reserve(m, end);
    m->size = end;
    return 0;
}

static int
mem_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
            uint64_t host_off, struct qcow2_error *err)
{
    struct mem *m = mem_of(io);
    uint64_t nr_bytes = 0;
    WRLOCK_SCOPE(&m->lock);

    for (int i = 0; i < nr_iov; i++)
        nr_bytes += iov[i].iov_len;
    if (grow(m, host_off, nr_bytes, err) < 0
        || check_room(m, host_off, nr_bytes, err) < 0)
        return -1;
    mark_data(m, host_off, nr_bytes);
    for (int i = 0; i < nr_iov; i++) {
        memcpy(m->bytes + host_off, iov[i].iov_base, iov[i].iov_len);
        host_off += iov[i].iov_len;
    }
    return 0;
}

static int
mem_flush(struct io *io, struct qcow2_error *err)
{
    (void)io, (void)err;
    return 0;
}

static int
mem_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes, unsigned flags,
         struct qcow2_error *err)
{
    struct mem *m = mem_of(io);
    WRLOCK_SCOPE(&m->lock);

    if (grow(m, host_off, nr_bytes, err) < 0
        || (!(flags & IO_ZERO_PUNCH)
            && check_room(m, host_off, nr_bytes, err) < 0))
        return -1;
    make_zero(m, host_off, nr_bytes, flags & IO_ZERO_PUNCH);
    return 0;
}

static int
mem_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
          struct qcow2_error *err)
{
    struct mem *m = mem_of(io);
    WRLOCK_SCOPE(&m->lock);

    (void)err;
    if (host_off < m->size)
        make_zero(m, host_off, min_u64(nr_bytes, m->size - host_off), true);
    return 0;
}

static int
mem_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct mem *m = mem_of(io);
    WRLOCK_SCOPE(&m->lock);

    if (m->is_device)
        return error_set(err, ENOTSUP, "memory: is a block device");
    if (size > m->size)
        return grow(m, m->size, size - m->size, err);
    make_zero(m, size, m->capacity - size, true);
    m->size = size;
    return 0;
}

static int
mem_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    struct mem *m = mem_of(io);
    RDLOCK_SCOPE(&m->lock);

    (void)err;
    *size = m->size;
    return 0;
}

static int
mem_get_allocated(struct io *io, uint64_t *nr_bytes, struct qcow2_error *err)
{
    struct mem *m = mem_of(io);
    RDLOCK_SCOPE(&m->lock);

    (void)err;
    *nr_bytes = 0;
    for (uint64_t b = 0; b < m->capacity / BLOCK; b++)
        *nr_bytes += m->is_data[b] ? BLOCK : 0;
    return 0;
}

static int
mem_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
           struct qcow2_error *err)
{
    struct mem *m = mem_of(io);
    uint64_t b = host_off / BLOCK, end;
    RDLOCK_SCOPE(&m->lock);

    (void)err;
    *is_hole = true;
    if (host_off >= m->size)
        return 0;
    *is_hole = !m->is_data[b];
    while (b * BLOCK < m->size && m->is_data[b] == !*is_hole)
        b++;
    end = b * BLOCK;
    if (end < m->size || !*is_hole) /* past the end all is hole */
        *len = min_u64(*len, min_u64(end, m->size) - host_off);
    return 0;
}

static void
mem_close(struct io *io)
{
    mem_free(mem_of(io));
    free(io->name);
    free(io);
}

static const struct io_ops mem_ops = {
    .close = mem_close,
    .preadv = mem_preadv,
    .pwritev = mem_pwritev,
    .flush = mem_flush,
    .zero = mem_zero,
    .punch = mem_punch,
    .truncate = mem_truncate,
    .get_size = mem_get_size,
    .get_allocated = mem_get_allocated,
    .extent = mem_extent,
};

struct io *
io_mem_open(struct mem *m, bool readonly)
{
    struct mem_io *mi = must_have(calloc(1, sizeof *mi));

    __atomic_add_fetch(&m->nr_users, 1, __ATOMIC_RELAXED);
    mi->mem = m;
    mi->io.ops = &mem_ops;
    mi->io.name = must_have(strdup("memory"));
    mi->io.readonly = readonly;
    mi->io.can_grow = mi->io.reads_zero_past_end = !m->is_device;
    return &mi->io;
}
