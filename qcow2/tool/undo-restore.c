/* SPDX-License-Identifier: BSD-3-Clause */
/* undo-restore.c: puts back what a repair overwrote, if nothing but the
 * repair changed the image since.
 *
 * Each sector that the repair wrote must hold what one of its writes found or
 * left there: a repair, or an earlier restore, may have been cut short. What
 * the image would be once it is restored must have all the metadata that it
 * had before the repair, and nothing may lie past its old end but what the
 * repair wrote. All of that is found out before the first write. Data that
 * the guest wrote in place in the meantime stay.
 */
#include "undo.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"
#include "undo-file.h"

enum { SECTOR = 512, PIECE_SECTORS = 128 };

/* Where one write touches one sector. */
struct touch {
    uint64_t sector;
    size_t write;
};

/* A sector that the repair wrote, as it was before. */
struct sector {
    uint64_t sector;
    unsigned char bytes[SECTOR];
};

struct restore {
    const struct undo_file *undo;
    struct qcow2_disk *disk;
    const struct qcow2_file *file; /* that disk is of */
    const char *path;
    uint64_t size;              /* now */
    struct sector *sectors;     /* ascending */
    size_t nr_sectors;
    size_t nr_passed;           /* sectors that are metadata now */
};

static int
refuse(struct qcow2_error *err, const char *what, uint64_t host_off)
{
    return set_error(err, EBUSY, "%s, at host offset %" PRIu64 ": nothing was "
                     "put back", what, host_off);
}

static const char changed[] = "the image was changed since the repair";
static const char damaged[] = "the undo file is damaged, or of another image";

static int
compare_touches(const void *a, const void *b)
{
    const struct touch *x = a, *y = b;

    if (x->sector != y->sector)
        return x->sector < y->sector ? -1 : 1;
    return x->write < y->write ? -1 : x->write > y->write;
}

static struct touch *
find_touches(const struct undo_file *f, size_t *nr)
{
    struct touch *touches = NULL;
    size_t n = 0;

    for (size_t i = 0; i < f->nr_writes; i++) {
        const struct record_head *h = &f->writes[i].head;
        uint64_t first = h->host_off / SECTOR;
        uint64_t last = (h->host_off + h->nr_bytes - 1) / SECTOR;

        for (uint64_t s = first; s <= last; s++) {
            if ((n & (n - 1)) == 0) /* 0 or a power of 2: it is full */
                touches = check_memory(realloc(touches, (n ? n * 2 : 1)
                                                        * sizeof *touches));
            touches[n++] = (struct touch){ s, i };
        }
    }
    qsort(touches, n, sizeof *touches, compare_touches);
    *nr = n;
    return touches;
}

/* The part of a write in a sector: bytes [*from, *to) of the sector. Returns
 * where it begins in the write. */
static size_t
part_of(const struct undo_entry *w, uint64_t sector, size_t *from, size_t *to)
{
    uint64_t start = sector * SECTOR, end = start + SECTOR;
    uint64_t w_end = w->head.host_off + w->head.nr_bytes;

    *from = w->head.host_off > start ? w->head.host_off - start : 0;
    *to = (w_end < end ? w_end : end) - start;
    return start + *from - w->head.host_off;
}

/* Works out what the sector was, from what it is: 0, or why not. */
static const char *
go_back(const struct undo_file *f, const struct touch *t, size_t nr,
        const unsigned char *now, unsigned char *before)
{
    unsigned char state[SECTOR];
    bool met;
    size_t from, to;

    memcpy(before, now, SECTOR);
    for (size_t i = nr; i-- > 0; ) {
        const struct undo_entry *w = &f->writes[t[i].write];
        size_t at = part_of(w, t[i].sector, &from, &to);

        memcpy(before + from, w->old_bytes + at, to - from);
    }
    memcpy(state, before, SECTOR);
    met = memcmp(state, now, SECTOR) == 0;
    for (size_t i = 0; i < nr; i++) {
        const struct undo_entry *w = &f->writes[t[i].write];
        size_t at = part_of(w, t[i].sector, &from, &to);

        if (memcmp(state + from, w->old_bytes + at, to - from) != 0)
            return damaged;
        memcpy(state + from, w->new_bytes + at, to - from);
        met |= memcmp(state, now, SECTOR) == 0;
    }
    return met ? NULL : changed;
}

/* What the file has of [off, off + nr_bytes); zeroes behind its end. */
static int
read_now(const struct restore *r, void *buf, size_t nr_bytes, uint64_t off,
         struct qcow2_error *err)
{
    size_t n = off >= r->size ? 0
               : r->size - off < nr_bytes ? r->size - off : nr_bytes;

    memset((char *)buf + n, 0, nr_bytes - n);
    return n ? qcow2_pread(r->disk, buf, n, off, err) : 0;
}

static int
find_sectors(struct restore *r, struct qcow2_error *err)
{
    size_t nr_touches;
    CLEANUP_FREE struct touch *t = find_touches(r->undo, &nr_touches);

    r->sectors = check_memory(malloc((nr_touches + 1) * sizeof *r->sectors));
    for (size_t i = 0, n; i < nr_touches; i += n) {
        struct sector *s = &r->sectors[r->nr_sectors++];
        unsigned char now[SECTOR];
        const char *why;

        s->sector = t[i].sector;
        for (n = 1; i + n < nr_touches && t[i + n].sector == s->sector; n++)
            ;
        if (read_now(r, now, SECTOR, s->sector * SECTOR, err) == -1)
            return -1;
        why = go_back(r->undo, t + i, n, now, s->bytes);
        if (why)
            return refuse(err, why, s->sector * SECTOR);
    }
    return 0;
}

/* The first of the sectors from `sector` on. */
static size_t
find_sector(const struct restore *r, uint64_t sector)
{
    size_t low = 0, high = r->nr_sectors;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (r->sectors[middle].sector < sector)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Puts what sectors were over a piece of the file. */
static void
overlay(const struct restore *r, unsigned char *buf, size_t nr_bytes,
        uint64_t off)
{
    for (size_t i = find_sector(r, off / SECTOR);
         i < r->nr_sectors && r->sectors[i].sector * SECTOR < off + nr_bytes;
         i++) {
        const struct sector *s = &r->sectors[i];
        uint64_t start = s->sector * SECTOR, end = start + SECTOR;
        uint64_t from = start > off ? start : off;
        uint64_t to = end < off + nr_bytes ? end : off + nr_bytes;

        memcpy(buf + (from - off), s->bytes + (from - start), to - from);
    }
}

/* The length of what follows at an offset, and whether it reads as zeroes. */
struct stretch {
    uint64_t nr_bytes;
    bool is_zero;
};

static int
note_extent(void *opaque, const struct qcow2_extent *e)
{
    struct stretch *s = opaque;

    s->nr_bytes = e->nr_bytes;
    s->is_zero = e->zero;
    return -1; /* the first is enough */
}

/* The next piece of [at, end) of the file, which begins with a sector: its
 * length, and whether it is zeroes that no write of ours touches. */
static int
next_piece(const struct restore *r, uint64_t at, uint64_t end,
           struct stretch *s, struct qcow2_error *err)
{
    size_t i = find_sector(r, at / SECTOR);
    uint64_t ours = i < r->nr_sectors ? r->sectors[i].sector * SECTOR
                                      : UINT64_MAX;

    *s = (struct stretch){ end - at, true };
    if (at < r->size
        && qcow2_map(r->disk, (end < r->size ? end : r->size) - at, at,
                     note_extent, s, err) == -1)
        return -1;
    if (s->is_zero && ours > at) {
        if (s->nr_bytes > ours - at)
            s->nr_bytes = ours - at;
        return 0;
    }
    s->is_zero = false;
    if (s->nr_bytes > PIECE_SECTORS * SECTOR)
        s->nr_bytes = PIECE_SECTORS * SECTOR;
    return 0;
}

/* Will a stretch of metadata be what it was? */
static int
check_metadata(const struct restore *r, const struct record_head *h,
               struct qcow2_error *err)
{
    unsigned char buf[PIECE_SECTORS * SECTOR];
    uint64_t end = h->host_off + h->nr_bytes, digest = 0;
    struct stretch s;

    for (uint64_t at = h->host_off; at < end; at += s.nr_bytes) {
        if (next_piece(r, at, end, &s, err) == -1)
            return -1;
        if (s.is_zero)
            continue;
        if (read_now(r, buf, s.nr_bytes, at, err) == -1)
            return -1;
        overlay(r, buf, s.nr_bytes, at);
        digest = undo_digest(digest, at, buf, s.nr_bytes);
    }
    if (digest != h->digest)
        return refuse(err, changed, h->host_off);
    return 0;
}

/* Nothing lies past the old end but what the repair wrote. */
static int
check_end(const struct restore *r, struct qcow2_error *err)
{
    uint64_t before = r->undo->size_before;
    unsigned char now[SECTOR];
    struct stretch s;

    if (r->size < before || r->size > r->undo->size_after)
        return refuse(err, changed, r->size);
    for (uint64_t at = before - before % SECTOR; at < r->size;
         at += s.nr_bytes) {
        size_t from = at < before ? before - at : 0, i;

        if (next_piece(r, at, r->size, &s, err) == -1)
            return -1;
        if (s.is_zero)
            continue;
        if (s.nr_bytes > SECTOR)
            s.nr_bytes = SECTOR;
        i = find_sector(r, at / SECTOR);
        if (i < r->nr_sectors && r->sectors[i].sector * SECTOR == at)
            continue;
        if (read_now(r, now, s.nr_bytes, at, err) == -1)
            return -1;
        for (; from < s.nr_bytes; from++)
            if (now[from] != 0)
                return refuse(err, changed, at + from);
    }
    return 0;
}

/* Sectors that were written and lie in a stretch are passed by; the next one
 * must not lie before the next stretch. */
static int
note_metadata(void *opaque, uint64_t host_off, uint64_t nr_bytes,
              const void *bytes)
{
    struct restore *r = opaque;
    uint64_t end = host_off + nr_bytes;

    (void)bytes;
    if (r->nr_passed < r->nr_sectors
        && r->sectors[r->nr_passed].sector * SECTOR < host_off)
        return -1;
    while (r->nr_passed < r->nr_sectors
           && r->sectors[r->nr_passed].sector * SECTOR < end)
        r->nr_passed++;
    return 0;
}

/* A repair writes metadata, and past the end of the file. An undo file that
 * wants more was not made by one. */
static int
check_what_is_written(struct restore *r, struct qcow2_error *err)
{
    const struct qcow2_check_options options = {
        .no_lock = true, /* r->disk has the lock */
        .file = r->file,
        .metadata = note_metadata,
        .opaque = r,
    };
    struct qcow2_check_result result;

    if (qcow2_check(r->path, &options, &result, err) == -1
        && err->errnum != ECANCELED)
        return -1;
    if (r->nr_passed < r->nr_sectors
        && r->sectors[r->nr_passed].sector * SECTOR < r->undo->size_before)
        return refuse(err, damaged,
                      r->sectors[r->nr_passed].sector * SECTOR);
    return 0;
}

static int
check_all(struct restore *r, struct qcow2_error *err)
{
    if (find_sectors(r, err) == -1 || check_end(r, err) == -1)
        return -1;
    for (size_t i = 0; i < r->undo->nr_metadata; i++)
        if (check_metadata(r, &r->undo->metadata[i].head, err) == -1)
            return -1;
    return check_what_is_written(r, err);
}

static int
put_back(const struct restore *r, struct qcow2_error *err)
{
    uint64_t before = r->undo->size_before;

    for (size_t i = 0; i < r->nr_sectors; i++) {
        uint64_t off = r->sectors[i].sector * SECTOR;
        size_t n = off >= before ? 0
                   : before - off < SECTOR ? before - off : SECTOR;

        if (n && qcow2_pwrite(r->disk, r->sectors[i].bytes, n, off, 0, err)
                 == -1)
            return -1;
    }
    if (r->size > before && qcow2_resize(r->disk, before, true, err) == -1)
        return -1;
    return qcow2_flush(r->disk, err);
}

static int
restore(const struct undo_file *undo, struct qcow2_disk *disk,
        const struct qcow2_file *file, const char *path,
        struct qcow2_error *err)
{
    struct restore r = {
        .undo = undo, .disk = disk, .file = file, .path = path,
        .size = qcow2_get_size(disk),
    };
    int ret = check_all(&r, err);

    if (ret == 0)
        ret = put_back(&r, err);
    free(r.sectors);
    return ret;
}

int
undo_restore(const char *path, const char *image)
{
    struct disk_args args = DISK_ARGS_INIT;
    int status = EXIT_FAILURE;
    struct qcow2_disk *disk;
    struct qcow2_file *file;
    struct undo_file undo;
    struct qcow2_error err;

    if (undo_file_read(path, &undo) == -1)
        return EXIT_FAILURE;
    /* Found once: what is judged is what is written. */
    file = qcow2_find_file(image, &err);
    if (!file)
        report_error(&err);
    args.options.format = QCOW2_FORMAT_RAW;
    args.options.file = file;
    disk = file ? disk_open(image, &args, false) : NULL;
    if (disk) {
        status = restore(&undo, disk, file, image, &err) == 0
                 ? EXIT_SUCCESS : report_error(&err);
        status = disk_close(disk, status);
    }
    qcow2_file_free(file);
    undo_file_free(&undo);
    return status;
}
