/* SPDX-License-Identifier: BSD-3-Clause */
/* undo-file.c: reads an undo file, which is not trusted; see undo-file.h. */
#include "undo-file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

const char undo_magic[8] = { 'Q', 'C', 'O', 'W', 'U', 'N', 'D', '2' };

/* A file of that size is of an image of more than 16 TiB. */
#define MAX_FILE_BYTES (UINT64_C(1) << 32)
/* No offset of a qcow2 file is larger. */
#define MAX_OFFSET (UINT64_C(1) << 56)
/* No image is smaller than its header. */
enum { MIN_IMAGE_BYTES = 72 };

static uint64_t
mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

uint64_t
undo_digest(uint64_t digest, uint64_t host_off, const void *bytes,
            size_t nr_bytes)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < nr_bytes; i += 8) {
        uint64_t word = 0;

        memcpy(&word, p + i, nr_bytes - i < 8 ? nr_bytes - i : 8);
        if (word != 0)
            digest = mix(mix(digest, host_off + i), word);
    }
    return digest;
}

/* Zeroes count here. */
static uint64_t
add_to_sum(uint64_t sum, const void *bytes, size_t nr_bytes)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < nr_bytes; i += 8) {
        uint64_t word = 0;

        memcpy(&word, p + i, nr_bytes - i < 8 ? nr_bytes - i : 8);
        sum = mix(sum, word);
    }
    return mix(sum, nr_bytes);
}

uint64_t
undo_sum(const struct record_head *head, const void *a, size_t nr_a,
         const void *b, size_t nr_b)
{
    uint64_t sum = add_to_sum(1, head, sizeof *head);

    return add_to_sum(add_to_sum(sum, a, nr_a), b, nr_b);
}

int
undo_complain(const char *path, const char *what)
{
    CLEANUP_FREE char *name = text_escape(path);

    report("%s: %s: %s", name, what, strerror(errno));
    return -1;
}

static int
refuse(const char *path, const char *what)
{
    CLEANUP_FREE char *name = text_escape(path);

    report("%s: %s", name, what);
    return -1;
}

/* All of a regular file; a pipe would keep us waiting. */
static int
read_whole(const char *path, unsigned char **bytes, size_t *nr_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    size_t done = 0;
    ssize_t n = 1;

    *bytes = NULL;
    if (fd == -1)
        return undo_complain(path, "cannot open");
    if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode)
        || (uint64_t)st.st_size > MAX_FILE_BYTES) {
        close(fd);
        return refuse(path, "is not a file that check --undo made");
    }
    *nr_bytes = st.st_size;
    *bytes = check_memory(malloc(*nr_bytes ? *nr_bytes : 1));
    while (done < *nr_bytes && n > 0) {
        n = read(fd, *bytes + done, *nr_bytes - done);
        if (n == -1 && errno == EINTR)
            n = 1;
        else if (n > 0)
            done += n;
    }
    close(fd);
    *nr_bytes = done;
    return n == -1 ? undo_complain(path, "cannot read") : 0;
}

/* The record at *pos; false: there is none that is whole. */
static bool
next_record(const unsigned char *bytes, size_t nr_bytes, size_t *pos,
            struct undo_entry *e)
{
    struct record_head raw;
    uint64_t payload = 0, sum;
    const unsigned char *p;

    if (nr_bytes - *pos < sizeof raw + sizeof sum)
        return false;
    memcpy(&raw, bytes + *pos, sizeof raw);
    e->head = (struct record_head){
        .kind = le64toh(raw.kind), .host_off = le64toh(raw.host_off),
        .nr_bytes = le64toh(raw.nr_bytes),
        .file_size = le64toh(raw.file_size),
    };
    if (e->head.kind == UNDO_WRITE) {
        if (e->head.nr_bytes > MAX_FILE_BYTES)
            return false;
        payload = 2 * e->head.nr_bytes;
    }
    if (nr_bytes - *pos - sizeof raw - sizeof sum < payload)
        return false;
    p = bytes + *pos + sizeof raw;
    memcpy(&sum, p + payload, sizeof sum);
    if (le64toh(sum) != undo_sum(&raw, p, payload / 2, p + payload / 2,
                                 payload / 2))
        return false;
    e->old_bytes = p;
    e->new_bytes = p + payload / 2;
    *pos += sizeof raw + payload + sizeof sum;
    return true;
}

static void
append(struct undo_entry **entries, size_t *nr, const struct undo_entry *e)
{
    if ((*nr & (*nr - 1)) == 0) /* 0 or a power of 2: it is full */
        *entries = check_memory(realloc(*entries, (*nr ? *nr * 2 : 1)
                                                  * sizeof **entries));
    (*entries)[(*nr)++] = *e;
}

static bool
add_metadata(struct undo_file *f, const struct undo_entry *e)
{
    const struct record_head *h = &e->head;
    const struct record_head *last = f->nr_metadata
        ? &f->metadata[f->nr_metadata - 1].head : NULL;
    uint64_t from = last ? last->host_off + last->nr_bytes : 0;

    if (f->nr_writes > 0 || h->nr_bytes == 0 || h->host_off < from
        || h->host_off > f->size_before || h->host_off % 8 != 0
        || h->nr_bytes > f->size_before - h->host_off
        || (!last && h->host_off != 0))
        return false;
    append(&f->metadata, &f->nr_metadata, e);
    return true;
}

static bool
add_write(struct undo_file *f, const struct undo_entry *e)
{
    const struct record_head *h = &e->head;
    uint64_t end;

    if (f->nr_metadata == 0 || h->nr_bytes == 0 || h->host_off >= MAX_OFFSET
        || h->nr_bytes > MAX_OFFSET || h->file_size < f->size_before)
        return false;
    end = h->host_off + h->nr_bytes;
    if (end > f->size_after)
        f->size_after = end;
    append(&f->writes, &f->nr_writes, e);
    return true;
}

/* Is what the records say possible? What is not was not made by --undo. */
static bool
take_records(struct undo_file *f, size_t nr_bytes)
{
    size_t pos = sizeof undo_magic;
    struct undo_entry e;
    bool ended = false;

    if (!next_record(f->bytes, nr_bytes, &pos, &e)
        || e.head.kind != UNDO_BEGIN || e.head.file_size < MIN_IMAGE_BYTES
        || e.head.file_size > MAX_OFFSET)
        return false;
    f->size_before = f->size_after = e.head.file_size;
    while (!ended && next_record(f->bytes, nr_bytes, &pos, &e)) {
        switch (e.head.kind) {
        case UNDO_METADATA:
            if (!add_metadata(f, &e))
                return false;
            break;
        case UNDO_WRITE:
            if (!add_write(f, &e))
                return false;
            break;
        case UNDO_END:
            if (e.head.file_size != f->size_after
                || e.head.nr_bytes != f->nr_writes || pos != nr_bytes)
                return false;
            ended = true;
            break;
        default:
            return false;
        }
    }
    return true;
}

int
undo_file_read(const char *path, struct undo_file *f)
{
    size_t nr_bytes = 0;

    memset(f, 0, sizeof *f);
    if (read_whole(path, &f->bytes, &nr_bytes) == -1)
        return -1;
    if (nr_bytes < sizeof undo_magic
        || memcmp(f->bytes, undo_magic, sizeof undo_magic) != 0) {
        undo_file_free(f);
        return refuse(path, "is not a file that check --undo made");
    }
    if (!take_records(f, nr_bytes)) {
        undo_file_free(f);
        return refuse(path, "is damaged: nothing was put back");
    }
    return 0;
}

void
undo_file_free(struct undo_file *f)
{
    free(f->bytes);
    free(f->metadata);
    free(f->writes);
    memset(f, 0, sizeof *f);
}
