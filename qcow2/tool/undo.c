/* SPDX-License-Identifier: BSD-3-Clause */
/* undo.c: keeps and puts back what a repair overwrites; see undo.h.
 *
 * The file is a magic and one record for each write: struct record_head, the
 * old bytes, the new bytes, a checksum over all of it. Every record is made
 * durable before its write is done, so one that is cut short, or was never
 * written in full, is of a write that was not done.
 */
#include "undo.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

static const char magic[8] = { 'Q', 'C', 'O', 'W', 'U', 'N', 'D', 'O' };

enum { SECTOR = 512, MAX_RECORD = 64 << 20 };

/* Numbers are little-endian. */
struct record_head {
    uint64_t host_off, nr_bytes, file_size;
};

struct undo {
    const char *path;
    int fd;
    bool used;
};

/* One record read back. */
struct record {
    struct record_head head;  /* in our byte order */
    unsigned char *old_bytes, *new_bytes; /* in one block */
};

static uint64_t
add_to_sum(uint64_t sum, const void *bytes, size_t nr_bytes)
{
    const unsigned char *p = bytes;

    while (nr_bytes-- > 0)
        sum = (sum ^ *p++) * UINT64_C(0x100000001b3); /* FNV-1a */
    return sum;
}

static int
complain(const char *path, const char *what)
{
    CLEANUP_FREE char *name = text_escape(path);

    report("%s: %s: %s", name, what, strerror(errno));
    return -1;
}

static int
put(int fd, const void *bytes, size_t nr_bytes)
{
    const char *p = bytes;

    while (nr_bytes > 0) {
        ssize_t n = write(fd, p, nr_bytes);

        if (n == -1 && errno != EINTR)
            return -1;
        if (n > 0) {
            p += n;
            nr_bytes -= n;
        }
    }
    return 0;
}

/* 0: the file ends before. */
static int
get(int fd, void *bytes, size_t nr_bytes)
{
    char *p = bytes;

    while (nr_bytes > 0) {
        ssize_t n = read(fd, p, nr_bytes);

        if (n == 0)
            return 0;
        if (n == -1 && errno != EINTR)
            return -1;
        if (n > 0) {
            p += n;
            nr_bytes -= n;
        }
    }
    return 1;
}

struct undo *
undo_create(const char *path)
{
    struct undo *u = check_memory(calloc(1, sizeof *u));

    u->path = path;
    u->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (u->fd == -1 || put(u->fd, magic, sizeof magic) == -1) {
        complain(path, "cannot create");
        if (u->fd != -1) {
            close(u->fd);
            unlink(path);
        }
        free(u);
        return NULL;
    }
    return u;
}

int
undo_record(struct undo *u, const struct qcow2_repair_write *w)
{
    struct record_head head = {
        htole64(w->host_off), htole64(w->nr_bytes), htole64(w->file_size),
    };
    uint64_t sum = add_to_sum(0, &head, sizeof head);

    if (w->nr_bytes > MAX_RECORD) {
        errno = EFBIG;
        return complain(u->path, "cannot keep so much");
    }
    sum = add_to_sum(sum, w->old_bytes, w->nr_bytes);
    sum = htole64(add_to_sum(sum, w->new_bytes, w->nr_bytes));
    if (put(u->fd, &head, sizeof head) == -1
        || put(u->fd, w->old_bytes, w->nr_bytes) == -1
        || put(u->fd, w->new_bytes, w->nr_bytes) == -1
        || put(u->fd, &sum, sizeof sum) == -1
        || fsync(u->fd) == -1)
        return complain(u->path, "cannot write");
    u->used = true;
    return 0;
}

int
undo_close(struct undo *u)
{
    int r = close(u->fd);

    if (r == -1)
        complain(u->path, "cannot write");
    if (!u->used)
        unlink(u->path);
    free(u);
    return r;
}

/* 1: *r is the next record, to be freed by its old_bytes. 0: there is no
 * more.
 */
static int
read_record(int fd, struct record *r)
{
    struct record_head *h = &r->head;
    uint64_t sum, stored;
    int got = get(fd, h, sizeof *h);

    r->old_bytes = NULL;
    if (got != 1)
        return got;
    sum = add_to_sum(0, h, sizeof *h);
    h->host_off = le64toh(h->host_off);
    h->nr_bytes = le64toh(h->nr_bytes);
    h->file_size = le64toh(h->file_size);
    if (h->nr_bytes == 0 || h->nr_bytes > MAX_RECORD)
        return 0;
    r->old_bytes = check_memory(malloc(2 * h->nr_bytes));
    r->new_bytes = r->old_bytes + h->nr_bytes;
    got = get(fd, r->old_bytes, 2 * h->nr_bytes);
    if (got == 1)
        got = get(fd, &stored, sizeof stored);
    if (got == 1
        && le64toh(stored) != add_to_sum(sum, r->old_bytes, 2 * h->nr_bytes))
        got = 0;
    if (got != 1)
        free(r->old_bytes);
    return got;
}

/* Where a record is in the file, and what it is about. */
struct place {
    off_t at;
    struct record_head head;
};

/* Number of records; -1: reported. */
static long
find_records(int fd, const char *path, struct place **places)
{
    char start[sizeof magic];
    struct record r;
    long nr = 0;
    int got;

    *places = NULL;
    got = get(fd, start, sizeof start);
    if (got == 0 || (got == 1 && memcmp(start, magic, sizeof magic) != 0)) {
        CLEANUP_FREE char *name = text_escape(path);

        report("%s: is not a file that check --undo made", name);
        return -1;
    }
    while (got == 1) {
        struct place place = { .at = lseek(fd, 0, SEEK_CUR) };

        got = read_record(fd, &r);
        if (got == 1) {
            free(r.old_bytes);
            place.head = r.head;
            *places = check_memory(realloc(*places,
                                           (nr + 1) * sizeof place));
            (*places)[nr++] = place;
        }
    }
    return got == -1 ? complain(path, "cannot read") : nr;
}

/* Did a later record overwrite a part of this? */
static bool
is_overwritten(const struct place *later, long nr_later, uint64_t host_off,
               size_t nr_bytes)
{
    for (long i = 0; i < nr_later; i++)
        if (host_off < later[i].head.host_off + later[i].head.nr_bytes
            && later[i].head.host_off < host_off + nr_bytes)
            return true;
    return false;
}

/* Each sector must hold what the repair found there or what it left there. */
static bool
is_as_left(const struct record *r, const unsigned char *now, size_t nr_bytes,
           const struct place *later, long nr_later)
{
    for (size_t at = 0; at < nr_bytes; at += SECTOR) {
        size_t n = nr_bytes - at < SECTOR ? nr_bytes - at : SECTOR;

        if (memcmp(now + at, r->new_bytes + at, n) != 0
            && memcmp(now + at, r->old_bytes + at, n) != 0
            && !is_overwritten(later, nr_later, r->head.host_off + at, n))
            return false;
    }
    return true;
}

/* One record: checks what is there, or puts back what was. What lies past
 * the end of the file goes away with it.
 */
static int
undo_one(struct qcow2_disk *file, const struct record *r, bool check,
         const struct place *later, long nr_later, struct qcow2_error *err)
{
    uint64_t size = qcow2_get_size(file), host_off = r->head.host_off;
    size_t nr_bytes = r->head.nr_bytes;
    CLEANUP_FREE unsigned char *now = NULL;

    if (host_off >= size)
        return 0;
    if (nr_bytes > size - host_off)
        nr_bytes = size - host_off;
    if (!check)
        return qcow2_pwrite(file, r->old_bytes, nr_bytes, host_off, 0, err);
    now = check_memory(malloc(nr_bytes));
    if (qcow2_pread(file, now, nr_bytes, host_off, err) == -1)
        return -1;
    if (is_as_left(r, now, nr_bytes, later, nr_later))
        return 0;
    err->errnum = EBUSY;
    snprintf(err->text, sizeof err->text, "the image was changed since the "
             "repair, at host offset %" PRIu64 ": nothing was put back",
             host_off);
    return -1;
}

/* All records, the last one first. */
static int
undo_all(int fd, const struct place *places, long nr,
         struct qcow2_disk *file, bool check, struct qcow2_error *err)
{
    int ret = 0;

    for (long i = nr - 1; ret == 0 && i >= 0; i--) {
        struct record r;

        if (lseek(fd, places[i].at, SEEK_SET) == -1
            || read_record(fd, &r) != 1) {
            err->errnum = EIO;
            snprintf(err->text, sizeof err->text,
                     "cannot read the undo file again");
            return -1;
        }
        ret = undo_one(file, &r, check, &places[i + 1], nr - 1 - i, err);
        free(r.old_bytes);
    }
    return ret;
}

static int
restore(int fd, const struct place *places, long nr, struct qcow2_disk *file,
        struct qcow2_error *err)
{
    if (undo_all(fd, places, nr, file, true, err) == -1
        || undo_all(fd, places, nr, file, false, err) == -1)
        return -1;
    if (nr > 0 && qcow2_get_size(file) > places[0].head.file_size
        && qcow2_resize(file, places[0].head.file_size, true, err) == -1)
        return -1;
    return qcow2_flush(file, err);
}

int
undo_restore(const char *path, const char *image)
{
    struct disk_args args = DISK_ARGS_INIT;
    int fd = open(path, O_RDONLY | O_CLOEXEC), status = EXIT_FAILURE;
    struct qcow2_disk *file;
    struct qcow2_error err;
    struct place *places;
    long nr;

    if (fd == -1) {
        complain(path, "cannot open");
        return EXIT_FAILURE;
    }
    nr = find_records(fd, path, &places);
    args.options.format = QCOW2_FORMAT_RAW;
    file = nr >= 0 ? disk_open(image, &args, false) : NULL;
    if (file) {
        status = restore(fd, places, nr, file, &err) == 0
                 ? EXIT_SUCCESS : report_error(&err);
        status = disk_close(file, status);
    }
    free(places);
    close(fd);
    return status;
}
