/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot.c: creates, applies and deletes internal snapshots.
 *
 * Each is ordered so that a power cut at any point leaves what was before or
 * what is after, with leaks at most, and refcounts never too low (I1):
 * references are counted before the header's switch makes them, and given up
 * after it. COPIED flags are cleared before the switch that makes them wrong
 * (I4). In between a checker may see refcounts and flags disagree, so the
 * dirty bit is set (version 3); no guest byte depends on the repair.
 */
#include "edit/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"
#include "disk/open-disk.h"
#include "edit/vmstate.h"
#include "format/entry.h"
#include "format/header.h"
#include "meta/alloc.h"
#include "meta/flush.h"
#include "meta/overlap.h"
#include "meta/tree.h"
#include "request/change.h"

enum { MAX_NAME_BYTES = 255 };

/* What a snapshot leaves to the backing file stays there, whichever that is. */
enum { SNAPSHOT_FLAGS = TXN_TABLES | TXN_DIRTY | TXN_ANY_VIEW };

int
snapshot_write_l1(struct image *img, const uint64_t *l1, uint32_t nr,
                  bool shared, uint64_t *host_off, struct qcow2_error *err)
{
    uint64_t nr_bytes = (uint64_t)nr * sizeof(be64);
    uint64_t padded = round_up(nr_bytes, img->cluster_size);
    CLEANUP_FREE be64 *table = calloc(1, padded ? padded : 1);

    if (!table)
        return error_nomem(err);
    for (uint32_t i = 0; i < nr; i++)
        table[i] = be64_make(shared ? entry_with_copied(l1[i], false)
                                    : l1[i]);
    if (alloc_table(img, nr_bytes, host_off, err) == -1)
        return -1;
    if (io_pwrite(img->io, table, padded, *host_off, err) == -1) {
        alloc_free_metadata(img, *host_off, nr_bytes);
        return -1;
    }
    return 0;
}

int
snapshot_switch_disk(struct txn *t, const struct snapshot_disk *to,
                     struct qcow2_error *err)
{
    const struct header_update u = {
        .parts = HEADER_SET_DISK,
        .size = to->size,
        .l1_size = to->l1_size,
        .l1_offset = to->l1_off,
    };

    return txn_switch(t, &u, err);
}

/* A snapshot table on its way into the file. */
struct new_table {
    struct snapshot_table t;
    uint64_t host_off;
};

/* Writes the table, in whole clusters, where nothing points to it yet. */
static int
write_table(struct image *img, struct new_table *nt, struct qcow2_error *err)
{
    CLEANUP_FREE unsigned char *buf = NULL;
    uint64_t nr_bytes, padded;
    unsigned char *whole;

    if (snaptab_encode(&nt->t, &buf, &nr_bytes, err) == -1)
        return error_prefix(err, "%s", img->name);
    if (nr_bytes == 0)
        return 0;
    padded = round_up(nr_bytes, img->cluster_size);
    whole = realloc(buf, padded);
    if (!whole)
        return error_nomem(err);
    buf = whole;
    memset(buf + nr_bytes, 0, padded - nr_bytes);
    if (alloc_table(img, nr_bytes, &nt->host_off, err) == -1)
        return -1;
    nt->t.nr_bytes = nr_bytes;
    return io_pwrite(img->io, buf, padded, nt->host_off, err);
}

/* Makes nt the image's table; its entries' strings come over. */
static int
switch_table(struct txn *t, struct new_table *nt, struct qcow2_error *err)
{
    struct image *img = t->img;
    uint64_t old_off = img->hdr.snapshots_offset;
    const struct header_update u = {
        .parts = HEADER_SET_SNAPSHOTS,
        .nr_snapshots = nt->t.nr,
        .snapshots_offset = nt->host_off,
    };

    if (txn_switch(t, &u, err) == -1)
        return -1;
    alloc_free_metadata(img, old_off, img->snaptab.nr_bytes);
    free(img->snaptab.snapshots);
    img->snaptab = nt->t;
    return 0;
}

/* Gives up a table that the header does not point to. */
static void
discard_table(struct image *img, struct new_table *nt)
{
    alloc_free_metadata(img, nt->host_off, nt->t.nr_bytes);
    free(nt->t.snapshots);
}

static int
replace_table(struct txn *t, struct new_table *nt, struct qcow2_error *err)
{
    if (write_table(t->img, nt, err) == -1
        || switch_table(t, nt, err) == -1) {
        discard_table(t->img, nt);
        return -1;
    }
    return 0;
}

static bool
has_id(const struct snapshot_table *t, const char *id)
{
    for (uint32_t i = 0; i < t->nr; i++)
        if (strcmp(t->snapshots[i].id, id) == 0)
            return true;
    return false;
}

/* One past the highest id that is a number, as text. */
static char *
next_id(const struct snapshot_table *t)
{
    unsigned long highest = 0;
    char *id = NULL;

    for (uint32_t i = 0; i < t->nr; i++) {
        unsigned long n = strtoul(t->snapshots[i].id, NULL, 10);

        if (n > highest && n < UINT32_MAX)
            highest = n;
    }
    do {
        free(id);
        if (asprintf(&id, "%lu", ++highest) < 0)
            return NULL;
    } while (has_id(t, id)); /* it is if ids are absurdly high */
    return id;
}

/* A table of the same snapshots, to be changed and put in its place. */
static int
same_table(const struct image *img, struct new_table *nt,
           struct qcow2_error *err)
{
    size_t nr_bytes = img->snaptab.nr * sizeof *nt->t.snapshots;

    *nt = (struct new_table){ .t.nr = img->snaptab.nr };
    nt->t.snapshots = malloc(nr_bytes);
    if (!nt->t.snapshots)
        return error_nomem(err);
    memcpy(nt->t.snapshots, img->snaptab.snapshots, nr_bytes);
    return 0;
}

int
snapshot_move_l1(struct txn *t, uint32_t i, uint64_t l1_off,
                 struct qcow2_error *err)
{
    struct new_table nt;

    if (same_table(t->img, &nt, err) == -1)
        return -1;
    nt.t.snapshots[i].l1_offset = l1_off;
    return replace_table(t, &nt, err);
}

int
snapshot_keep_sizes(struct txn *t, struct qcow2_error *err)
{
    const struct image *img = t->img;
    struct new_table nt;
    bool all = true;

    for (uint32_t i = 0; i < img->snaptab.nr; i++)
        all = all && img->snaptab.snapshots[i].has_disk_size;
    if (all)
        return 0;
    if (same_table(img, &nt, err) == -1)
        return -1;
    for (uint32_t i = 0; i < nt.t.nr; i++)
        nt.t.snapshots[i].has_disk_size = true;
    return replace_table(t, &nt, err);
}

/* What a snapshot being created consists of, until it is in the table. */
struct creation {
    struct snapshot s;
    struct vmstate vs; /* its L1 table, VM state included */
    struct new_table nt;
};

static void
creation_undo(struct image *img, struct creation *c)
{
    vmstate_discard(img, &c->vs);
    alloc_free_metadata(img, c->s.l1_offset,
                        (uint64_t)c->s.l1_size * sizeof(be64));
    alloc_free_metadata(img, c->nt.host_off, c->nt.t.nr_bytes);
}

static int
prepare_entry(struct image *img, struct creation *c, const char *name,
              const struct qcow2_snapshot_create_options *o,
              struct qcow2_error *err)
{
    struct snapshot *s = &c->s;

    s->id = next_id(&img->snaptab);
    s->name = strdup(name);
    s->date_sec = o->date_sec;
    s->date_nsec = o->date_nsec;
    s->vm_clock_nsec = o->vm_clock_nsec;
    s->disk_size = img->hdr.size;
    s->has_disk_size = true;
    s->icount = UINT64_MAX;
    c->nt.t.nr = img->snaptab.nr + 1;
    c->nt.t.snapshots = malloc(c->nt.t.nr * sizeof *s);
    if (!s->id || !s->name || !c->nt.t.snapshots)
        return error_nomem(err);
    for (uint32_t i = 0; i < img->snaptab.nr; i++)
        c->nt.t.snapshots[i] = img->snaptab.snapshots[i];
    return 0;
}

/* How many entries of an L1 table a snapshot of the disk, or a disk of a
 * snapshot, takes over: those that map the disk. What lies behind the disk
 * and is no VM state with a size is taken along, as QEMU does: nothing says
 * that it is not wanted. */
static uint32_t
entries_kept(const struct image *img, const uint64_t *l1, uint32_t nr,
             uint64_t disk_size, bool has_vm_state)
{
    uint32_t least = tree_l1_entries(img, disk_size);

    if (has_vm_state)
        return least;
    while (nr > least && l1[nr - 1] == 0)
        nr--;
    return max_u64(nr, least);
}

/* Everything that does not touch what is there: L1 table, VM state, table
 * of snapshots, in new clusters. */
static int
write_creation(struct image *img, struct creation *c,
               const struct qcow2_snapshot_create_options *o, uint32_t nr,
               struct qcow2_error *err)
{
    c->vs.l1 = malloc((nr ? nr : 1) * sizeof *c->vs.l1);
    if (!c->vs.l1)
        return error_nomem(err);
    memcpy(c->vs.l1, img->active.l1, nr * sizeof *c->vs.l1);
    c->vs.nr = c->vs.capacity = nr;
    if (o->vm_state && vmstate_store(img, &c->vs, o, err) == -1)
        return -1;
    if (snapshot_write_l1(img, c->vs.l1, c->vs.nr, true, &c->s.l1_offset, err)
        == -1)
        return -1;
    c->s.l1_size = c->vs.nr;
    c->s.vm_state_size = c->vs.nr_bytes;
    c->nt.t.snapshots[img->snaptab.nr] = c->s;
    return write_table(img, &c->nt, err);
}

static int
create(struct txn *t, struct creation *c, const char *name,
       const struct qcow2_snapshot_create_options *o,
       struct qcow2_error *err)
{
    struct image *img = t->img;
    uint32_t nr = entries_kept(img, img->active.l1, img->active.l1_entries,
                               img->hdr.size, o->vm_state != NULL);

    if (tree_can_raise(img, img->active.l1, nr, err) == -1
        || prepare_entry(img, c, name, o, err) == -1
        || write_creation(img, c, o, nr, err) == -1) {
        creation_undo(img, c);
        return -1;
    }
    t->unsettled = true; /* references are counted from here on */
    return tree_share(img, c->vs.l1, nr, err) == -1
                   || tree_clear_l1_flags(img, nr, err) == -1
                   || switch_table(t, &c->nt, err) == -1
               ? -1 : 0;
}

static int
check_counted(const struct image *img, struct qcow2_error *err)
{
    if (img->data->counted)
        return 0;
    return error_set(err, ENOTSUP, "%s: guest data in a file of their own "
                     "have no reference counts, so there can be no internal "
                     "snapshots", img->name);
}

int
qcow2_snapshot_create(struct qcow2_disk *disk, const char *name,
                      const struct qcow2_snapshot_create_options *options,
                      struct qcow2_error *err)
{
    struct creation c = { .nt.host_off = 0 };
    struct image *img;
    struct txn t;
    int r;

    if (name[0] == '\0' || strlen(name) > MAX_NAME_BYTES)
        return error_set(err, EINVAL, "a snapshot's name has 1 to %d bytes",
                         (int)MAX_NAME_BYTES);
    img = disk_image_to_edit(disk, err);
    if (!img || check_counted(img, err) == -1
        || txn_begin(&t, img, SNAPSHOT_FLAGS, err) == -1)
        return -1;
    r = create(&t, &c, name, options, err);
    if (r == -1) {
        free(c.s.id);
        free(c.s.name);
        free(c.nt.t.snapshots);
    }
    r = txn_end(&t, r, err);
    vmstate_free(&c.vs);
    return r;
}

static long
find(struct image *img, const char *name, struct qcow2_error *err)
{
    long i = snaptab_find(&img->snaptab, name, err);

    return i < 0 ? error_prefix(err, "%s", img->name) : i;
}

/* The L1 table of a snapshot, in CPU order, at least `least` entries long.
 */
static uint64_t *
load_l1(struct image *img, const struct snapshot *s, uint32_t least,
        struct qcow2_error *err)
{
    uint32_t nr = max_u64(s->l1_size, least);
    uint64_t *l1 = calloc(nr ? nr : 1, sizeof *l1);

    if (!l1) {
        error_nomem(err);
        return NULL;
    }
    if (io_pread(img->io, l1, (uint64_t)s->l1_size * sizeof *l1, s->l1_offset,
                 err) == -1) {
        free(l1);
        return NULL;
    }
    for (uint32_t i = 0; i < s->l1_size; i++)
        l1[i] = be64toh(l1[i]);
    if (tree_check_alone(img, l1, s->l1_size, err) == -1) {
        free(l1);
        return NULL;
    }
    return l1;
}

/* Gives up what the active disk was: its old table and all it refers to. */
static int
drop_old_disk(struct image *img, const uint64_t *l1, uint32_t nr,
              uint64_t l1_off, struct qcow2_error *err)
{
    if (tree_free(img, l1, 0, nr, err) == -1)
        return -1;
    alloc_free(img, l1_off, div_round_up((uint64_t)nr * sizeof(be64),
                                         img->cluster_size));
    return 0;
}

/* VM state stays with the snapshot: the disk gets what maps the disk, and what
 * lies behind it only where that is not said to be VM state. */
static int
apply(struct txn *t, const struct snapshot *s, struct qcow2_error *err)
{
    struct image *img = t->img;
    struct snapshot_disk to = { .size = s->disk_size };
    struct view *v = &img->active;
    uint64_t *l1, *old, old_off = v->l1_off;
    uint32_t old_nr = v->l1_entries;
    int r;

    l1 = load_l1(img, s, tree_l1_entries(img, s->disk_size), err);
    if (l1)
        to.l1_size = entries_kept(img, l1, max_u64(s->l1_size,
                                                   tree_l1_entries(
                                                       img, s->disk_size)),
                                  s->disk_size, s->vm_state_size > 0);
    old = malloc((old_nr ? old_nr : 1) * sizeof *old);
    if (!l1 || !old
        || tree_can_raise(img, l1, to.l1_size, err) == -1
        || snapshot_write_l1(img, l1, to.l1_size, true, &to.l1_off, err)
           == -1) {
        if (l1 && !old)
            error_nomem(err);
        free(l1);
        free(old);
        return -1;
    }
    memcpy(old, v->l1, old_nr * sizeof *old);
    t->unsettled = true;
    if (tree_share(img, l1, to.l1_size, err) == -1
        || snapshot_switch_disk(t, &to, err) == -1) {
        free(l1);
        free(old);
        return -1;
    }
    r = image_replace_active(img, l1, to.l1_size, to.l1_off, to.size, err);
    if (r == 0)
        r = drop_old_disk(img, old, old_nr, old_off, err);
    else
        image_fail(img); /* memory still shows the old disk */
    free(old);
    return r;
}

/* Before bitmaps are removed for nothing. */
static int
check_exists(struct image *img, const char *word, struct qcow2_error *err)
{
    RDLOCK_SCOPE(&img->rwlock);

    return find(img, word, err) < 0 ? -1 : 0;
}

static int
apply_observed(struct txn *t, const struct snapshot *s,
               struct qcow2_error *err)
{
    struct image *img = t->img;
    const struct guest_change c = {
        .kind = CHANGE_REPLACE,
        .nr_bytes = max_u64(img->hdr.size, s->disk_size),
    };
    int r;

    if (change_announce(img->observers, &c, err) == -1)
        return -1;
    r = apply(t, s, err);
    change_finish(img->observers, &c, r);
    return r;
}

int
qcow2_snapshot_apply(struct qcow2_disk *disk, const char *word,
                     struct qcow2_error *err)
{
    struct image *img = disk_image_to_edit(disk, err);
    struct txn t;
    long i;
    int r = -1;

    if (!img || check_exists(img, word, err) == -1
        || txn_begin(&t, img, SNAPSHOT_FLAGS, err) == -1)
        return -1;
    i = find(img, word, err);
    if (i >= 0
        && (img->snaptab.snapshots[i].disk_size == img->hdr.size
            || snapshot_keep_sizes(&t, err) == 0))
        r = apply_observed(&t, &img->snaptab.snapshots[i], err);
    return txn_end(&t, r, err);
}

/* Takes snapshot i out of the table, then gives up what it refers to. */
static int
delete(struct txn *t, uint32_t i, struct qcow2_error *err)
{
    struct image *img = t->img;
    struct snapshot s = img->snaptab.snapshots[i];
    struct new_table nt = { .t.nr = img->snaptab.nr - 1 };
    CLEANUP_FREE uint64_t *l1 = load_l1(img, &s, 0, err);
    size_t before = i * sizeof s, after = (nt.t.nr - i) * sizeof s;

    if (!l1)
        return -1;
    nt.t.snapshots = malloc(before + after ? before + after : 1);
    if (!nt.t.snapshots)
        return error_nomem(err);
    memcpy(nt.t.snapshots, img->snaptab.snapshots, before);
    memcpy(nt.t.snapshots + i, img->snaptab.snapshots + i + 1, after);
    if (replace_table(t, &nt, err) == -1)
        return -1;
    t->unsettled = true;
    snaptab_free_entry(&s);
    if (tree_free(img, l1, 0, s.l1_size, err) == -1)
        return -1;
    alloc_free(img, s.l1_offset, div_round_up((uint64_t)s.l1_size
                                                  * sizeof(be64),
                                              img->cluster_size));
    if (overlap_fill(img, err) == -1 || flush_all(img, err) == -1
        || tree_set_copied(img, 0, img->active.l1_entries, err) == -1)
        return -1;
    return 0;
}

int
qcow2_snapshot_delete(struct qcow2_disk *disk, const char *word,
                      struct qcow2_error *err)
{
    struct image *img = disk_image_to_edit(disk, err);
    struct txn t;
    long i;
    int r = -1;

    if (!img || check_exists(img, word, err) == -1
        || txn_begin(&t, img, SNAPSHOT_FLAGS, err) == -1)
        return -1;
    i = find(img, word, err);
    if (i >= 0 && image_snapshot_in_use(img, i))
        error_set(err, EBUSY, "%s: the snapshot '%s' is being read",
                  img->name, ESCAPED(img->snaptab.snapshots[i].name));
    else if (i >= 0)
        r = delete(&t, i, err);
    return txn_end(&t, r, err);
}
