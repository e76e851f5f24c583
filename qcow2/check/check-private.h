/* SPDX-License-Identifier: BSD-3-Clause */
/* check-private.h: one check, and perhaps repair, of an image; shared by
 * check*.c and repair*.c.
 *
 * A check works on the file itself, not on a struct image: it must not trust
 * tables that the engine serves from, and nobody else uses the image. Its
 * steps:
 *
 *   check_count      finds all references to host clusters
 *   check_compare    compares them with the refcounts
 *   check_copied     looks at the COPIED flags of the active tables
 *   repair_run       makes what is wrong right, as far as `repair` says
 *
 * Time is bounded by the size of the file: each table is read once however
 * many others point to it, and its references count as often as that.
 */
#ifndef QCOW2_CHECK_PRIVATE_H
#define QCOW2_CHECK_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/counters.h"
#include "check/problem.h"
#include "format/entry.h"
#include "format/header.h"
#include "format/snaptab.h"
#include "meta/l2-slice.h"
#include "storage/io.h"

/* A table, or a part of one. */
struct span {
    uint64_t start, end;    /* host bytes */
};

/* What is known of the refblock of a reftable entry. */
enum {
    BLOCK_COUNTED = 1,      /* it lies in the file: its cluster is in use */
    BLOCK_USABLE = 2,       /* and is used by nothing else */
    BLOCK_RAISE = 4,        /* some of its refcounts are too low */
    BLOCK_LOWER = 8,        /* or too high */
};

struct check {
    struct io *io;
    struct header *hdr;
    struct snapshot_table *snaptab;
    unsigned flaws;             /* of the header: 1 << enum header_part */
    bool mend_snapshots;        /* some entries are to be dropped or mended */
    struct qcow2_check_options options;

    unsigned cluster_bits;
    uint64_t cluster_size;
    uint64_t file_size;
    uint64_t refcount_max;
    unsigned refblock_bits;     /* log2 of refcounts in a refblock */

    uint64_t *reftable;
    uint32_t reftable_entries;
    uint8_t *blocks;            /* BLOCK_… of each reftable entry */

    struct span *l1;            /* the active one, then the snapshots' */
    size_t nr_l1;

    struct counters refs;         /* references to each cluster */
    struct counters stored;       /* its refcount plus 1, if it differs */
    struct counters l2;           /* how often a cluster is an L2 table */
    struct counters l2_active;    /* of the active disk */
    bool outside;                 /* data are in a file of their own: no
                                   * entry refers to a cluster by them */
    struct counters l2_index;     /* then: 1 more than the first L1 entry that
                                   * points to an L2 table */
    struct counters shared;     /* metadata that something else uses, too */
    struct counters moved;      /* of these, how many references from L2
                                 * entries go to a copy */
    struct counters copies;     /* the cluster of the copy, once there is one */
    bool *l1_moves;             /* of l1: it gets another place; or NULL */
    struct counters l2_moves;   /* L2 tables: the cluster of the copy; 1 while
                                 * that is not known yet */
    struct counters l2_origins; /* of the copies: the cluster of the table */
    uint64_t *new_reftable;     /* of refcounts just rebuilt, or NULL */
    unsigned char *table;       /* buffer of cluster_size */
    struct decompressor *decompressor; /* of check-data.c, or NULL */

    /* Some entry made no sense: what it should have pointed to seems to be
     * free and is not, so nothing is freed. */
    bool lost;
    uint64_t first_past_end;    /* where the first such place is that lies
                                 * past the end of the file; UINT64_MAX */
    bool rebuild;               /* the refcounts have no place */

    struct finding last;        /* not told yet: more may join it */
    uint64_t nr[NR_PROBLEMS];
    uint64_t nr_true_when_lowered; /* COPIED flags, once refcounts are */
    bool quiet;                 /* problems are only counted */
    bool any_damage;            /* that no crash can do to an image */
    struct finding first_damage;
    uint64_t done, total;       /* tables */

    struct span *bitmap_tables; /* of check_count_bitmaps */
    size_t nr_bitmap_tables;

    struct qcow2_check_result result;
    uint64_t end;               /* one past the last cluster in use */
    bool wrote;                 /* since the last barrier */
    struct pending *pending;    /* writes announced and not made; NULL */
};

/* check.c */
int check_begin(struct check *c, struct io *io, struct header *hdr,
                struct snapshot_table *snaptab,
                const struct qcow2_check_options *options,
                struct qcow2_error *err);
void check_end(struct check *c);
int check_run(struct check *c, struct qcow2_error *err);

/* Notes, and tells, that something is wrong. */
void check_report(struct check *c, enum problem problem, uint64_t at,
                  uint64_t a, uint64_t b);

/* The same with words that problem's sentence has a place for; they must last
 * as long as the check. */
void check_report_text(struct check *c, enum problem problem, uint64_t at,
                       uint64_t a, const char *text);

/* check-header.c: reports what is wrong with header and snapshot table, and
 * leaves in them what can be used. */
void check_header(struct check *c, const struct header_flaws *flaws);
void check_snapshots(struct check *c, uint32_t nr_lost, const char *why);

/* How much of [host_off, host_off + nr_bytes) is a hole of the file, or past
 * its end, from its start on; 0: it begins with data. */
int check_hole(struct check *c, uint64_t host_off, uint64_t nr_bytes,
               uint64_t *hole, struct qcow2_error *err);

/* Reads a table, or a part of one. *is_hole (may be NULL): it lies in a hole
 * of the file, so that there is nothing but zeroes in buf. */
int check_read(struct check *c, void *buf, size_t nr_bytes,
               uint64_t host_off, bool *is_hole, struct qcow2_error *err);

/* One more table is done. */
int check_step(struct check *c, struct qcow2_error *err);

/* The refcount on disk, as far as it is known. */
uint64_t check_stored(struct check *c, uint64_t cluster);

/* The same of nr > 0 clusters: how many from the first on have that one. */
uint64_t check_stored_run(struct check *c, uint64_t cluster, uint64_t nr,
                          uint64_t *stored);

/* The refcount that the repair under way leaves. */
uint64_t check_settled(struct check *c, uint64_t cluster);
uint64_t check_settled_run(struct check *c, uint64_t cluster, uint64_t nr,
                           uint64_t *settled);

/* check-walk.c */
int check_count(struct check *c, struct qcow2_error *err);

/* When the old refcounts are no references any more: counts anew, and tells
 * nobody, what nothing can be done about. */
int check_recount_lasting(struct check *c, struct qcow2_error *err);

/* Does the range end in the file? Its last cluster may be incomplete. */
bool check_inside(const struct check *c, uint64_t host_off,
                  uint64_t nr_bytes);

/* Reports an entry whose range does not. */
void check_report_past_end(struct check *c, enum problem problem,
                           uint64_t at, uint64_t host_off, uint64_t b);

/* Counts `weight` references to all clusters that the range touches. */
int check_refer(struct check *c, uint64_t host_off, uint64_t nr_bytes,
                uint64_t weight, struct qcow2_error *err);

/* Calls fn for stretches [start, end) that lie in `weight` of the spans. */
typedef int check_sweep_fn(struct check *c, uint64_t start, uint64_t end,
                           uint64_t weight, struct qcow2_error *err);
int check_sweep(struct check *c, const struct span *spans, size_t nr,
                check_sweep_fn *fn, struct qcow2_error *err);

/* Counts a reference of each span to its clusters. */
int check_refer_spans(struct check *c, const struct span *spans, size_t nr,
                      struct qcow2_error *err);

/* Calls fn for each entry of 8 bytes that is not 0 in [start, end). */
typedef int check_entry_fn(struct check *c, uint64_t entry, uint64_t at,
                           uint64_t weight, struct qcow2_error *err);
int check_entries(struct check *c, uint64_t start, uint64_t end,
                  uint64_t weight, check_entry_fn *fn,
                  struct qcow2_error *err);

/* The same in pieces of nr entries, but for what is a hole. */
typedef int check_piece_fn(struct check *c, const be64 *piece, uint64_t nr,
                           uint64_t at, void *opaque,
                           struct qcow2_error *err);
int check_pieces(struct check *c, uint64_t start, uint64_t end,
                 check_piece_fn *fn, void *opaque, struct qcow2_error *err);

/* A piece of L2 tables: its entries as values, how many there are in nr
 * words, and whether one has nothing in it. */
static inline struct l2_slice
check_slice(const struct check *c, const be64 *words)
{
    return l2_slice_in_memory((be64 *)words, &c->hdr->geo, c->hdr->version);
}

static inline unsigned
check_l2_words(const struct check *c)
{
    return 1u << (c->hdr->geo.l2_entry_bits - 3);
}

static inline uint64_t
check_l2_entries(const struct check *c, uint64_t nr_words)
{
    return nr_words / check_l2_words(c);
}

/* Where entry idx lies, of a piece that begins at host offset `at`. */
static inline uint64_t
check_entry_place(const struct check *c, uint64_t at, uint64_t idx)
{
    return at + scale_up(idx, c->hdr->geo.l2_entry_bits);
}

static inline bool
check_is_empty(const struct l2_slice *s, uint64_t idx)
{
    if (l2_is_extended(s))
        return (l2_load_word(s, 2 * idx) | l2_load_word(s, 2 * idx + 1)) == 0;
    return l2_load_word(s, idx) == 0;
}

/* Does the place of an entry hold data that a guest sees? If not, it can be
 * taken away, and all reads as before. */
static inline bool
check_has_data(const struct l2_entry *e)
{
    return e->kind == MAP_COMPRESSED || e->alloc_mask != 0;
}

/* Is the place of an entry host offset 0, of a data file? */
static inline bool
check_is_at_0(const struct check *c, const struct l2_entry *e)
{
    return c->outside && e->copied && e->host_off == 0
           && (e->kind == MAP_UNALLOCATED
               || (e->kind != MAP_COMPRESSED
                   && header_has_extended_l2(c->hdr)));
}

/* Entry idx, and how many of nr > 0 from there on have data, no flaws and the
 * same flag, in a row, all inside the file; 1 if the first has not. */
uint64_t check_row(const struct check *c, const struct l2_slice *s,
                   uint64_t idx, uint64_t nr, struct l2_entry *e);

/* check-metadata.c: passes all metadata that was found to
 * options.metadata. */
int check_pass_metadata(struct check *c, struct qcow2_error *err);

/* check-data.c: reports the entry at `at` if its compressed data, which lie
 * inside the file, cannot be decompressed. */
int check_compressed(struct check *c, const struct l2_entry *e, uint64_t at,
                     struct qcow2_error *err);
void check_free_decompressor(struct check *c);

/* check-bitmaps.c */
int check_count_bitmaps(struct check *c, struct qcow2_error *err);

/* check-refcounts.c */
int check_load_reftable(struct check *c, struct qcow2_error *err);
int check_count_refblocks(struct check *c, struct qcow2_error *err);
int check_compare(struct check *c, struct qcow2_error *err);

/* The first cluster from i on that has a refcount or references, or one
 * shortly before it. c->table holds the refblock of the clusters from `first`
 * on; *next is 0 at first, and kept between calls. Most of a large refblock
 * says nothing: without this an image of a few KiB that claims many such
 * would keep a check busy for minutes.
 */
uint64_t check_skip_zeroes(struct check *c, uint64_t first, uint64_t i,
                           uint64_t *next);

/* check-copied.c */
int check_copied(struct check *c, struct qcow2_error *err);

/* repair.c */
int repair_run(struct check *c, struct qcow2_error *err);

/* repair-write.c: every write of a repair. It may be held back until the
 * next barrier, and a plan only announces it, so nothing written is read back
 * before. Changes in a table that are less than REPAIR_GAP_BYTES apart are
 * one write. */
enum { REPAIR_GAP_BYTES = 512 };
int repair_write(struct check *c, const char *why, const void *buf,
                 size_t nr_bytes, uint64_t host_off,
                 struct qcow2_error *err);
int repair_barrier(struct check *c, struct qcow2_error *err);
void repair_drop_pending(struct check *c);

/* repair-entries.c: clears COPIED where the refcount will not be 1, and puts
 * entries right; or sets COPIED where the refcount is 1 now. */
int repair_entries(struct check *c, bool set_copied,
                   struct qcow2_error *err);

/* repair-unshare.c: guest data in a cluster that is metadata, too, get a copy
 * of their own: as far as the entries lie in tables that are only tables.
 *
 *   plan       counts the entries, before anything is written
 *   reserve    places copies from a cluster on, and counts what they will be
 *              referred to; the originals stay counted
 *   write      makes them
 *   switch     once new refcounts are durable: has entries point to copies
 *   cluster    where the copy of a cluster is; 0: there is none
 */
int repair_unshare_plan(struct check *c, struct qcow2_error *err);
int repair_unshare_reserve(struct check *c, uint64_t first,
                           struct qcow2_error *err);
int repair_unshare_write(struct check *c, struct qcow2_error *err);
uint64_t repair_unshare_cluster(struct check *c, uint64_t cluster);
uint64_t repair_unshare_nr(struct check *c);

/* repair-entries.c: points entries to copies. Then, once the originals are
 * only metadata, corrects entries in these. */
int repair_entries_unshare(struct check *c, struct qcow2_error *err);
int repair_entries_unshared(struct check *c, struct qcow2_error *err);

/* What becomes of an entry of a snapshot's L1 table. */
uint64_t repair_snapshot_l1_entry(struct check *c, uint64_t entry);

/* repair-l1.c: copies of L1 tables for snapshots that share theirs. plan, after
 * repair_unshare_plan, decides which, and takes their references from the old
 * places. write makes them from cluster *first on, which it moves past them,
 * and has the snapshot table, which is yet to be written, point to them.
 */
int repair_l1_plan(struct check *c, struct qcow2_error *err);
int repair_l1_write(struct check *c, uint64_t *first,
                    struct qcow2_error *err);

/* repair-l2.c: copies of L2 tables that share their cluster with what cannot
 * move. plan, after repair_l1_plan, decides which; reserve places them from
 * cluster *first on, which it moves past them; write makes them; forget, once
 * L1 entries point to them, takes the references of these from the old
 * places. cluster: where the copy of a table is, 0: there is none; origin: of
 * which table a cluster is the copy, or 0. sweep_l1: calls fn for all L1
 * tables that stay where they are.
 */
int repair_l2_plan(struct check *c, struct qcow2_error *err);
int repair_l2_reserve(struct check *c, uint64_t *first,
                      struct qcow2_error *err);
int repair_l2_write(struct check *c, struct qcow2_error *err);
int repair_l2_forget(struct check *c, struct qcow2_error *err);
uint64_t repair_l2_cluster(struct check *c, uint64_t table);
uint64_t repair_l2_origin(struct check *c, uint64_t cluster);
bool repair_l2_any(struct check *c);
int repair_l2_sweep_l1(struct check *c, check_sweep_fn *fn,
                       struct qcow2_error *err);

/* What a table's copy holds in place of what the table has. */
void repair_moved_l2_table(struct check *c, be64 *table);

/* repair-entries.c: points L1 entries to copies of L2 tables. */
int repair_entries_relocate(struct check *c, struct qcow2_error *err);

/* repair-unshare.c: counts the entries of an L2 table that go to copies. */
int repair_unshare_count(struct check *c, uint64_t table,
                         struct qcow2_error *err);

/* repair-rebuild.c: writes a refcount, among those just rebuilt, as it is
 * now. */
int repair_rebuild_write_refcount(struct check *c, uint64_t cluster,
                                  struct qcow2_error *err);

/* repair-rebuild.c: first, the old refcount table and refblocks count as
 * references no more. Then, writes a new table with new refblocks behind the
 * end of the file, and switches the header to it. */
int repair_drop_refcounts(struct check *c, struct qcow2_error *err);
int repair_rebuild(struct check *c, struct qcow2_error *err);

/* Takes the references that moved to copies from the refcounts just rebuilt.
 */
int repair_rebuild_lower(struct check *c, struct qcow2_error *err);

#endif /* QCOW2_CHECK_PRIVATE_H */
