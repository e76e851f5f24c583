/* SPDX-License-Identifier: BSD-3-Clause */
/* snaptab.c: reads the snapshot table; see snaptab.h. */
#include "format/snaptab.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/escape.h"

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
};

/* nr_bytes (at most WINDOW_BYTES) of the table from pos on; NULL on
 * failure. Valid until the next call.
 */
static const unsigned char *
window_get(struct window *w, uint64_t pos, uint64_t nr_bytes,
           struct qcow2_error *err)
{
    if (!range_inside(pos, nr_bytes, w->table_limit)) {
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

/* NULL if there is no memory, or a zero byte among them. */
static char *
copy_text(const unsigned char *bytes, size_t nr_bytes,
          struct qcow2_error *err)
{
    char *text;

    if (memchr(bytes, '\0', nr_bytes)) {
        error_set(err, EIO, "its id or name has a zero byte in it");
        return NULL;
    }
    text = strndup((const char *)bytes, nr_bytes);
    if (!text)
        error_nomem(err);
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

static int
check_l1(const struct header *h, uint64_t file_size, const struct snapshot *s,
         struct qcow2_error *err)
{
    uint64_t cluster_size = UINT64_C(1) << h->cluster_bits;
    uint64_t needed = geometry_l1_entries(&h->geo, s->disk_size);

    if (s->l1_size > MAX_L1_BYTES / 8)
        return error_set(err, EIO, "its L1 table has %" PRIu32 " entries, "
                         "more than the limit of %d", s->l1_size,
                         MAX_L1_BYTES / 8);
    if (s->l1_size < needed)
        return error_set(err, EIO, "its L1 table has %" PRIu32 " entries, "
                         "too few for its size of %" PRIu64 " bytes",
                         s->l1_size, s->disk_size);
    if (s->l1_size == 0)
        return 0;
    if (s->l1_offset == 0 || !is_aligned(s->l1_offset, cluster_size)
        || s->l1_offset >= MAX_HOST_OFFSET
        || !range_inside(s->l1_offset, s->l1_size * sizeof(be64),
                         round_up(file_size, cluster_size)))
        return error_set(err, EIO, "its L1 table at offset 0x%" PRIx64 " is "
                         "not at the start of a cluster, or not inside the "
                         "file", s->l1_offset);
    return 0;
}

void
snaptab_free_entry(struct snapshot *s)
{
    free(s->id);
    free(s->name);
    free(s->extra);
}

/* Decodes the entry at *pos, of which d is the start, and moves *pos past
 * it. On failure the caller frees what is in *s.
 */
static int
decode_entry(struct window *w, const struct header *h, uint64_t *pos,
             const struct disk_snapshot *d, struct snapshot *s,
             struct qcow2_error *err)
{
    size_t id_len = be16_get(d->id_size), name_len = be16_get(d->name_size);
    const unsigned char *p;
    uint64_t length;

    s->extra_len = be32_get(d->extra_data_size);
    if (s->extra_len > MAX_SNAPSHOT_EXTRA_BYTES)
        return error_set(err, EIO, "its extra data has %" PRIu32 " bytes, "
                         "more than the limit of %d", s->extra_len,
                         MAX_SNAPSHOT_EXTRA_BYTES);
    length = sizeof *d + s->extra_len + id_len + name_len;
    p = window_get(w, *pos, length, err);
    if (!p)
        return -1;
    *pos += round_up(length, 8);
    p += sizeof *d;
    s->l1_offset = be64_get(d->l1_table_offset);
    s->l1_size = be32_get(d->l1_size);
    s->date_sec = be32_get(d->date_sec);
    s->date_nsec = be32_get(d->date_nsec);
    s->vm_clock_nsec = be64_get(d->vm_clock_nsec);
    s->vm_state_size = be32_get(d->vm_state_size);
    s->extra = malloc(s->extra_len ? s->extra_len : 1);
    if (!s->extra)
        return error_nomem(err);
    memcpy(s->extra, p, s->extra_len);
    p += s->extra_len;
    decode_extra(h, s);
    s->id = copy_text(p, id_len, err);
    s->name = s->id ? copy_text(p + id_len, name_len, err) : NULL;
    return s->name ? 0 : -1;
}

static int
read_entry(struct window *w, const struct header *h, uint64_t file_size,
           uint64_t *pos, struct snapshot *s, struct qcow2_error *err)
{
    struct disk_snapshot d;
    const unsigned char *p = window_get(w, *pos, sizeof d, err);

    if (!p)
        return -1;
    memcpy(&d, p, sizeof d);
    if (decode_entry(w, h, pos, &d, s, err) == -1)
        return -1;
    if (check_l1(h, file_size, s, err) == -1)
        return error_prefix(err, "'%s'", ESCAPED(s->name));
    return 0;
}

int
snaptab_read(struct io *io, const struct header *h, struct snapshot_table *t,
             struct qcow2_error *err)
{
    struct window w = { .io = io, .table_offset = h->snapshots_offset };
    uint64_t file_size, pos = 0;
    int r = 0;

    memset(t, 0, sizeof *t);
    if (h->nr_snapshots == 0)
        return 0;
    if (io_get_size(io, &file_size, err) == -1)
        return -1;
    w.table_limit = min_u64(MAX_SNAPSHOT_TABLE_BYTES,
                            round_up(file_size, UINT64_C(1) << h->cluster_bits)
                            - h->snapshots_offset);
    w.buf = malloc(WINDOW_BYTES);
    t->snapshots = calloc(h->nr_snapshots, sizeof *t->snapshots);
    if (!w.buf || !t->snapshots)
        r = error_nomem(err);
    while (r == 0 && t->nr < h->nr_snapshots) {
        uint32_t i = t->nr++;

        r = read_entry(&w, h, file_size, &pos, &t->snapshots[i], err);
        if (r == -1)
            error_prefix(err, "%s: snapshot %" PRIu32, io->name, i + 1);
    }
    free(w.buf);
    t->nr_bytes = pos;
    if (r == -1)
        snaptab_free(t);
    return r;
}

void
snaptab_free(struct snapshot_table *t)
{
    for (uint32_t i = 0; i < t->nr; i++)
        snaptab_free_entry(&t->snapshots[i]);
    free(t->snapshots);
    memset(t, 0, sizeof *t);
}

/* The only one whose id (or name) is `what`; -1 with *nr saying how many
 * there are if it is not one.
 */
static long
find_only(const struct snapshot_table *t, bool by_id, const char *what,
          uint32_t *nr)
{
    long found = -1;

    *nr = 0;
    for (uint32_t i = 0; i < t->nr; i++) {
        const struct snapshot *s = &t->snapshots[i];

        if (strcmp(by_id ? s->id : s->name, what) == 0) {
            found = i;
            ++*nr;
        }
    }
    return *nr == 1 ? found : -1;
}

long
snaptab_find(const struct snapshot_table *t, const char *name_or_id,
             struct qcow2_error *err)
{
    uint32_t nr_names, nr_ids;
    long i;

    i = find_only(t, false, name_or_id, &nr_names);
    if (i >= 0)
        return i;
    if (nr_names > 1)
        return error_set(err, EINVAL, "%" PRIu32 " snapshots have the name "
                         "'%s': say the id of the one you mean", nr_names,
                         ESCAPED(name_or_id));
    i = find_only(t, true, name_or_id, &nr_ids);
    if (i >= 0)
        return i;
    if (nr_ids > 1)
        return error_set(err, EINVAL, "%" PRIu32 " snapshots have the id "
                         "'%s', which is damage", nr_ids,
                         ESCAPED(name_or_id));
    return error_set(err, ENOENT, "there is no snapshot with the name or id "
                     "'%s'", ESCAPED(name_or_id));
}
