/* SPDX-License-Identifier: BSD-3-Clause */
/* sparse.c: see sparse.h. */
#include "sparse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

enum { PAGE = 4096, MAX_PAGES = 8192 };

/* As long as files can be on common file systems. */
#define MAX_SIZE (UINT64_C(1) << 62)

struct page {
    uint64_t index;
    unsigned char *bytes;
};

struct sparse {
    struct page *pages; /* in the order of their index */
    size_t nr, room;
    uint64_t size;
    bool was_full;
    struct sparse_counts counts;
};

struct sparse_io {
    struct io io;
    struct sparse *file;
};

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

struct sparse *
sparse_new(void)
{
    return must_have(calloc(1, sizeof(struct sparse)));
}

void
sparse_free(struct sparse *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->nr; i++)
        free(s->pages[i].bytes);
    free(s->pages);
    free(s);
}

/* The first page whose index is not below. */
static size_t
find(const struct sparse *s, uint64_t index)
{
    size_t low = 0, high = s->nr;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (s->pages[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* NULL: the file is full. */
static unsigned char *
page_for(struct sparse *s, uint64_t index)
{
    size_t i = find(s, index);

    if (i < s->nr && s->pages[i].index == index)
        return s->pages[i].bytes;
    if (s->nr == MAX_PAGES) {
        s->was_full = true;
        return NULL;
    }
    if (s->nr == s->room) {
        s->room = s->room ? s->room * 2 : 32;
        s->pages = must_have(realloc(s->pages, s->room * sizeof *s->pages));
    }
    memmove(&s->pages[i + 1], &s->pages[i],
            (s->nr++ - i) * sizeof *s->pages);
    s->pages[i] = (struct page){ index, must_have(calloc(1, PAGE)) };
    return s->pages[i].bytes;
}

static bool
put(struct sparse *s, uint64_t off, const void *bytes, size_t nr_bytes)
{
    const unsigned char *p = bytes;

    while (nr_bytes > 0) {
        size_t n = min_u64(PAGE - off % PAGE, nr_bytes);
        unsigned char *page = off < MAX_SIZE ? page_for(s, off / PAGE) : NULL;

        if (!page)
            return false;
        memcpy(page + off % PAGE, p, n);
        p += n;
        off += n;
        nr_bytes -= n;
        s->size = max_u64(s->size, off);
    }
    return true;
}

static void
clear(struct sparse *s, uint64_t start, uint64_t end)
{
    size_t from = find(s, start / PAGE), to = from;

    for (size_t i = from; i < s->nr; i++) {
        struct page p = s->pages[i];
        uint64_t first = max_u64(start, p.index * PAGE);
        uint64_t last = min_u64(end, (p.index + 1) * PAGE);

        if (first < last)
            memset(p.bytes + first % PAGE, 0, last - first);
        if (first < last && last - first == PAGE)
            free(p.bytes);
        else
            s->pages[to++] = p;
    }
    s->nr = to;
}

struct sparse *
sparse_copy(const struct sparse *s)
{
    struct sparse *copy = sparse_new();

    for (size_t i = 0; i < s->nr; i++)
        put(copy, s->pages[i].index * PAGE, s->pages[i].bytes, PAGE);
    copy->size = s->size;
    return copy;
}

bool
sparse_same(const struct sparse *a, const struct sparse *b)
{
    static const unsigned char zeroes[PAGE];
    size_t i = 0, j = 0;

    if (a->size != b->size)
        return false;
    while (i < a->nr || j < b->nr) {
        uint64_t at_a = i < a->nr ? a->pages[i].index : UINT64_MAX;
        uint64_t at_b = j < b->nr ? b->pages[j].index : UINT64_MAX;
        const unsigned char *in_a = at_a <= at_b ? a->pages[i++].bytes
                                                 : zeroes;
        const unsigned char *in_b = at_b <= at_a ? b->pages[j++].bytes
                                                 : zeroes;

        if (memcmp(in_a, in_b, PAGE) != 0)
            return false;
    }
    return true;
}

void
sparse_write(struct sparse *s, uint64_t off, const void *bytes,
             size_t nr_bytes)
{
    if (range_inside(off, nr_bytes, MAX_SIZE))
        put(s, off, bytes, nr_bytes);
}

void
sparse_read(const struct sparse *s, uint64_t off, void *bytes,
            size_t nr_bytes)
{
    unsigned char *p = bytes;

    memset(p, 0, nr_bytes);
    if (!range_inside(off, nr_bytes, MAX_SIZE))
        return;
    for (size_t i = find(s, off / PAGE);
         i < s->nr && s->pages[i].index * PAGE < off + nr_bytes; i++) {
        uint64_t at = s->pages[i].index * PAGE;
        uint64_t first = max_u64(off, at);
        uint64_t last = min_u64(off + nr_bytes, at + PAGE);

        memcpy(p + (first - off), s->pages[i].bytes + (first - at),
               last - first);
    }
}

void
sparse_truncate(struct sparse *s, uint64_t size)
{
    s->size = min_u64(size, MAX_SIZE);
    clear(s, s->size, UINT64_MAX);
}

uint64_t
sparse_size(const struct sparse *s)
{
    return s->size;
}

uint64_t
sparse_get(const struct sparse *s, uint64_t off, unsigned nr_bytes)
{
    unsigned char bytes[8];
    uint64_t n = 0;

    sparse_read(s, off, bytes, nr_bytes);
    for (unsigned i = 0; i < nr_bytes; i++)
        n = n << 8 | bytes[i];
    return n;
}

void
sparse_put(struct sparse *s, uint64_t off, unsigned nr_bytes, uint64_t value)
{
    unsigned char bytes[8];

    for (unsigned i = 0; i < nr_bytes; i++)
        bytes[i] = value >> (8 * (nr_bytes - 1 - i));
    sparse_write(s, off, bytes, nr_bytes);
}

void
sparse_each(const struct sparse *s, sparse_page_fn *fn, void *opaque)
{
    for (size_t i = 0; i < s->nr; i++) {
        uint64_t off = s->pages[i].index * PAGE;

        fn(opaque, off, s->pages[i].bytes, min_u64(PAGE, s->size - off));
    }
}

struct sparse_counts *
sparse_counts(struct sparse *s)
{
    return &s->counts;
}

bool
sparse_was_full(const struct sparse *s)
{
    return s->was_full;
}

/* The backend. */

static struct sparse *
file_of(struct io *io)
{
    return ((struct sparse_io *)io)->file;
}

static int
back_preadv(struct io *io, const struct iovec *iov, int nr_iov,
            uint64_t host_off, struct qcow2_error *err)
{
    struct sparse *s = file_of(io);

    (void)err;
    s->counts.nr_reads++;
    for (int i = 0; i < nr_iov; i++) {
        sparse_read(s, host_off, iov[i].iov_base, iov[i].iov_len);
        s->counts.nr_read_bytes += iov[i].iov_len;
        host_off += iov[i].iov_len;
    }
    return 0;
}

static int
full(struct sparse *s, uint64_t host_off, struct qcow2_error *err)
{
    s->was_full = true;
    return error_set(err, ENOSPC, "memory: no room at %" PRIu64, host_off);
}

static int
back_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
             uint64_t host_off, struct qcow2_error *err)
{
    struct sparse *s = file_of(io);

    s->counts.nr_changes++;
    for (int i = 0; i < nr_iov; i++) {
        if (!put(s, host_off, iov[i].iov_base, iov[i].iov_len))
            return full(s, host_off, err);
        host_off += iov[i].iov_len;
    }
    return 0;
}

static int
back_flush(struct io *io, struct qcow2_error *err)
{
    (void)err;
    file_of(io)->counts.nr_flushes++;
    return 0;
}

static int
back_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes, unsigned flags,
          struct qcow2_error *err)
{
    struct sparse *s = file_of(io);

    (void)flags;
    s->counts.nr_changes++;
    if (!range_inside(host_off, nr_bytes, MAX_SIZE))
        return full(s, host_off, err);
    clear(s, host_off, host_off + nr_bytes);
    s->size = max_u64(s->size, host_off + nr_bytes);
    return 0;
}

static int
back_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
           struct qcow2_error *err)
{
    struct sparse *s = file_of(io);

    (void)err;
    s->counts.nr_changes++;
    if (range_inside(host_off, nr_bytes, MAX_SIZE))
        clear(s, host_off, host_off + nr_bytes);
    return 0;
}

static int
back_truncate(struct io *io, uint64_t size, struct qcow2_error *err)
{
    struct sparse *s = file_of(io);

    s->counts.nr_changes++;
    if (size > MAX_SIZE)
        return full(s, size, err);
    sparse_truncate(s, size);
    return 0;
}

static int
back_get_size(struct io *io, uint64_t *size, struct qcow2_error *err)
{
    (void)err;
    *size = file_of(io)->size;
    return 0;
}

static int
back_get_allocated(struct io *io, uint64_t *nr_bytes,
                   struct qcow2_error *err)
{
    (void)err;
    *nr_bytes = file_of(io)->nr * PAGE;
    return 0;
}

static int
back_extent(struct io *io, uint64_t host_off, uint64_t *len, bool *is_hole,
            struct qcow2_error *err)
{
    struct sparse *s = file_of(io);
    size_t i = find(s, host_off / PAGE);
    uint64_t end = UINT64_MAX;

    (void)err;
    s->counts.nr_reads++;
    *is_hole = i == s->nr || s->pages[i].index != host_off / PAGE;
    if (*is_hole && i < s->nr) {
        end = s->pages[i].index * PAGE;
    } else if (!*is_hole) {
        end = (host_off / PAGE + 1) * PAGE;
        while (++i < s->nr && s->pages[i].index * PAGE == end)
            end += PAGE;
        end = max_u64(min_u64(end, s->size), host_off + 1);
    }
    *len = min_u64(*len, end - host_off);
    return 0;
}

static void
back_close(struct io *io)
{
    free(io->name);
    free(io);
}

static const struct io_ops back_ops = {
    .close = back_close,
    .preadv = back_preadv,
    .pwritev = back_pwritev,
    .flush = back_flush,
    .zero = back_zero,
    .punch = back_punch,
    .truncate = back_truncate,
    .get_size = back_get_size,
    .get_allocated = back_get_allocated,
    .extent = back_extent,
};

struct io *
sparse_open(struct sparse *s, bool readonly)
{
    struct sparse_io *si = must_have(calloc(1, sizeof *si));

    si->file = s;
    si->io.ops = &back_ops;
    si->io.name = must_have(strdup("fuzzed"));
    si->io.readonly = readonly;
    si->io.can_grow = si->io.reads_zero_past_end = true;
    return &si->io;
}
