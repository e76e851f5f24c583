/* SPDX-License-Identifier: BSD-3-Clause */
/* snaptab.c: reads the snapshot table; see snaptab.h. */
#include "format/snaptab.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/escape.h"
#include "format/snapshot-word.h"

/* The part of the table that is in memory. An entry's length is known only
 * after its start was read, so the table is read through a window.
 */
enum {
    WINDOW_BYTES = 256 << 10,
    MAX_ENTRY_BYTES = sizeof(struct disk_snapshot)
                      + MAX_SNAPSHOT_EXTRA_BYTES + 2 * UINT16_MAX + 7,
};
_Static_assert(MAX_ENTRY_BYTES <= WINDOW_BYTES, "an entry fits the window");

struct window {
    struct io *io;
    uint64_t table_offset;      /* of the table in the file */
    uint64_t table_limit;       /* bytes it can have at most */
    uint64_t start, len;        /* what is in buf, from table_offset on */
    unsigned char *buf;
    bool is_cut;                /* it ends before what was wanted */
};

/* nr_bytes (at most WINDOW_BYTES) of the table from pos on; NULL on
 * failure. Valid until the next call.
 */
static const unsigned char *
window_get(struct window *w, uint64_t pos, uint64_t nr_bytes,
           struct qcow2_error *err)
{
    if (!range_inside(pos, nr_bytes, w->table_limit)) {
        w->is_cut = true;
        error_set(err, EIO, "the snapshot table does not end inside the file "
                  "and the limit of %d bytes", MAX_SNAPSHOT_TABLE_BYTES);
        return NULL;
    }
    if (pos < w->start || pos + nr_bytes > w->start + w->len) {
        w->start = pos;
        w->len = min_u64(WINDOW_BYTES, w->table_limit - pos);
        if (io_pread(w->io, w->buf, w->len, w->table_offset + pos, err)
            == -1) {
            w->len = 0;
            return NULL;
        }
    }
    return w->buf + (pos - w->start);
}

/* Notes what is wrong with an entry; the first thing counts. */
static int note_flaw(struct snapshot *s, bool usable, struct qcow2_error *err,
                     const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static int
note_flaw(struct snapshot *s, bool usable, struct qcow2_error *err,
          const char *fmt, ...)
{
    va_list ap;
    int r;

    s->usable &= usable;
    if (s->flaw)
        return 0;
    va_start(ap, fmt);
    r = vasprintf(&s->flaw, fmt, ap);
    va_end(ap);
    if (r == -1)
        s->flaw = NULL;
    return r == -1 ? error_nomem(err) : 0;
}

/* NULL if there is no memory. What follows a zero byte is cut off. */
static char *
copy_text(struct snapshot *s, const unsigned char *bytes, size_t nr_bytes,
          struct qcow2_error *err)
{
    char *text = strndup((const char *)bytes, nr_bytes);

    if (!text) {
        error_nomem(err);
        return NULL;
    }
    if (memchr(bytes, '\0', nr_bytes)
        && note_flaw(s, true, err, "its id or name has a zero byte in it")
           == -1) {
        free(text);
        return NULL;
    }
    return text;
}

/* The known fields of the extra data, as far as it reaches. */
static void
decode_extra(const struct header *h, struct snapshot *s)
{
    struct disk_snapshot_extra d = { .icount = be64_make(UINT64_MAX) };
    size_t known = min_u64(s->extra_len, sizeof d);

    /* A field is there in whole or not at all. */
    memcpy(&d, s->extra, round_down(known, sizeof(be64)));
    if (known >= offsetof(struct disk_snapshot_extra, disk_size))
        s->vm_state_size = be64_get(d.vm_state_size);
    s->has_disk_size = known >= offsetof(struct disk_snapshot_extra, icount);
    s->disk_size = s->has_disk_size ? be64_get(d.disk_size) : h->size;
    s->icount = be64_get(d.icount);
}

/* Where the table begins is not known, or nothing of it is there. */
static bool
l1_is_lost(const struct header *h, uint64_t file_size,
           const struct snapshot *s)
{
    return s->l1_size > MAX_L1_BYTES / 8 || s->l1_offset == 0
           || !is_aligned(s->l1_offset, UINT64_C(1) << h->cluster_bits)
           || s->l1_offset >= MAX_HOST_OFFSET || s->l1_offset >= file_size;
}

/* Leaves an L1 table and a size that can be used. */
static int
check_l1(const struct header *h, uint64_t file_size, struct snapshot *s,
         struct qcow2_error *err)
{
    uint64_t cluster_size = UINT64_C(1) << h->cluster_bits;
    uint64_t needed = geometry_l1_entries(&h->geo, s->disk_size);
    uint64_t end = round_up(file_size, cluster_size);
    int r = 0;

    if (s->l1_size > MAX_L1_BYTES / 8)
        r = note_flaw(s, false, err, "its L1 table has %" PRIu32 " entries, "
                      "more than the limit of %d", s->l1_size,
                      MAX_L1_BYTES / 8);
    else if (s->l1_size < needed)
        r = note_flaw(s, true, err, "its L1 table has %" PRIu32 " entries, "
                      "too few for its size of %" PRIu64 " bytes",
                      s->l1_size, s->disk_size);
    if (r == -1 || (s->l1_size == 0 && needed == 0))
        return r;
    if (l1_is_lost(h, file_size, s)
        || !range_inside(s->l1_offset, s->l1_size * sizeof(be64), end))
        r = note_flaw(s, !l1_is_lost(h, file_size, s), err, "its L1 table at "
                      "offset 0x%" PRIx64 " is not at the start of a "
                      "cluster, or not inside the file", s->l1_offset);
    if (!s->usable) {
        s->l1_offset = s->l1_size = 0;
        return r;
    }
    s->l1_size = min_u64(s->l1_size, (end - s->l1_offset) / sizeof(be64));
    if (s->l1_size < needed) {
        s->disk_size = scale_up(s->l1_size,
                                geometry_l1_reach_bits(&h->geo));
        s->has_disk_size = true;
    }
    return r;
}

void
snaptab_free_entry(struct snapshot *s)
{
    free(s->id);
    free(s->name);
    free(s->extra);
    free(s->flaw);
}

/* Extra data, as much as the limit allows. *p is behind the entry's start. */
static int
take_extra(const struct header *h, const unsigned char *p, uint32_t nr_bytes,
           struct snapshot *s, struct qcow2_error *err)
{
    s->extra_len = min_u64(nr_bytes, MAX_SNAPSHOT_EXTRA_BYTES);
    s->extra = malloc(s->extra_len ? s->extra_len : 1);
    if (!s->extra)
        return error_nomem(err);
    memcpy(s->extra, p, s->extra_len);
    decode_extra(h, s);
    if (nr_bytes <= MAX_SNAPSHOT_EXTRA_BYTES)
        return 0;
    return note_flaw(s, true, err, "its extra data has %" PRIu32 " bytes, "
                     "more than the limit of %d", nr_bytes,
                     MAX_SNAPSHOT_EXTRA_BYTES);
}

static int
take_names(const unsigned char *p, size_t id_len, size_t name_len,
           struct snapshot *s, struct qcow2_error *err)
{
    s->id = copy_text(s, p, id_len, err);
    s->name = s->id ? copy_text(s, p + id_len, name_len, err) : NULL;
    return s->name ? 0 : -1;
}

/* Decodes the entry at *pos, and moves *pos past it. On failure the caller
 * frees what is in *s.
 */
static int
read_entry(struct window *w, const struct header *h, uint64_t file_size,
           uint64_t *pos, struct snapshot *s, struct qcow2_error *err)
{
    struct disk_snapshot d;
    const unsigned char *p = window_get(w, *pos, sizeof d, err);
    size_t id_len, name_len;
    uint64_t extra_len, length;

    s->usable = true;
    if (!p)
        return -1;
    memcpy(&d, p, sizeof d);
    id_len = be16_get(d.id_size);
    name_len = be16_get(d.name_size);
    extra_len = be32_get(d.extra_data_size);
    s->l1_offset = be64_get(d.l1_table_offset);
    s->l1_size = be32_get(d.l1_size);
    s->date_sec = be32_get(d.date_sec);
    s->date_nsec = be32_get(d.date_nsec);
    s->vm_clock_nsec = be64_get(d.vm_clock_nsec);
    s->vm_state_size = be32_get(d.vm_state_size);
    p = window_get(w, *pos + sizeof d,
                   min_u64(extra_len, MAX_SNAPSHOT_EXTRA_BYTES), err);
    if (!p || take_extra(h, p, extra_len, s, err) == -1)
        return -1;
    p = window_get(w, *pos + sizeof d + extra_len, id_len + name_len, err);
    if (!p || take_names(p, id_len, name_len, s, err) == -1)
        return -1;
    length = sizeof d + extra_len + id_len + name_len;
    *pos += round_up(length, 8);
    return check_l1(h, file_size, s, err);
}

/* Where a table is read from. */
static int
open_window(struct io *io, const struct header *h, struct window *w,
            uint64_t *file_size, struct qcow2_error *err)
{
    memset(w, 0, sizeof *w);
    if (io_get_size(io, file_size, err) == -1)
        return -1;
    w->io = io;
    w->table_offset = h->snapshots_offset;
    w->table_limit = min_u64(MAX_SNAPSHOT_TABLE_BYTES,
                             round_up(*file_size,
                                      UINT64_C(1) << h->cluster_bits)
                             - h->snapshots_offset);
    w->buf = malloc(WINDOW_BYTES);
    return w->buf ? 0 : error_nomem(err);
}

/* A place that was never written: no snapshot has no id. */
static int
check_not_empty(struct snapshot *s, struct qcow2_error *err)
{
    if (s->id[0] != '\0' || s->l1_offset != 0 || s->l1_size != 0)
        return 0;
    return note_flaw(s, false, err, "there is nothing in its entry");
}

int
snaptab_read_loosely(struct io *io, const struct header *h,
                     struct snapshot_table *t, uint32_t *nr_lost,
                     struct qcow2_error *why, struct qcow2_error *err)
{
    uint64_t file_size, pos = 0;
    struct window w;
    int r = 0;

    memset(t, 0, sizeof *t);
    *nr_lost = 0;
    if (h->nr_snapshots == 0)
        return 0;
    t->snapshots = calloc(h->nr_snapshots, sizeof *t->snapshots);
    if (!t->snapshots)
        return error_nomem(err);
    r = open_window(io, h, &w, &file_size, err);
    while (r == 0 && t->nr < h->nr_snapshots && *nr_lost == 0) {
        struct snapshot *s = &t->snapshots[t->nr++];

        r = read_entry(&w, h, file_size, &pos, s, why);
        if (r == 0)
            r = s->flaw ? check_not_empty(s, why) : 0;
        if (r == -1 && w.is_cut) {
            error_prefix(why, "snapshot %" PRIu32, t->nr);
            snaptab_free_entry(s);
            memset(s, 0, sizeof *s);
            t->nr--;
            *nr_lost = h->nr_snapshots - t->nr;
            r = 0;
        } else if (r == -1 && err) {
            *err = *why;
            error_prefix(err, "%s: snapshot %" PRIu32, io->name, t->nr);
        }
    }
    free(w.buf);
    t->nr_bytes = pos;
    if (r == -1)
        snaptab_free(t);
    return r;
}

int
snaptab_read(struct io *io, const struct header *h, struct snapshot_table *t,
             struct qcow2_error *err)
{
    struct qcow2_error why;
    uint32_t nr_lost;

    if (snaptab_read_loosely(io, h, t, &nr_lost, &why, err) == -1)
        return -1;
    for (uint32_t i = 0; i < t->nr; i++) {
        const struct snapshot *s = &t->snapshots[i];

        if (!s->flaw)
            continue;
        error_set(err, EIO, "%s: snapshot %" PRIu32 ": '%s': %s", io->name,
                  i + 1, ESCAPED(s->name), s->flaw);
        snaptab_free(t);
        return -1;
    }
    if (nr_lost == 0)
        return 0;
    snaptab_free(t);
    if (err)
        *err = why;
    return error_prefix(err, "%s", io->name);
}

void
snaptab_free(struct snapshot_table *t)
{
    for (uint32_t i = 0; i < t->nr; i++)
        snaptab_free_entry(&t->snapshots[i]);
    free(t->snapshots);
    memset(t, 0, sizeof *t);
}

static struct snapshot_label
label_of(const void *list, size_t i)
{
    const struct snapshot_table *t = list;

    return (struct snapshot_label){ t->snapshots[i].id,
                                    t->snapshots[i].name };
}

long
snaptab_find(const struct snapshot_table *t, const char *word,
             struct qcow2_error *err)
{
    return snapshot_word_find(word, t, t->nr, label_of, err);
}
