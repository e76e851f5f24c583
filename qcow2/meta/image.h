/* SPDX-License-Identifier: BSD-3-Clause */
/* image.h: one open qcow2 file, its views, and the order of its locks.
 *
 * Locks, in the order they are taken; nobody takes an upper one while
 * holding a lower one, and nobody drops a lock that a caller took:
 *
 *   1 image.rwlock   shared by every request that may change the image and
 *                    by readers of a writable image; exclusive for what
 *                    has the image alone (txn.h)
 *   2 image.begin    the first write's preparations (may do I/O)
 *   3 image.ranges   guest bytes: shared for read and in-place write,
 *                    exclusive when the mapping will change; held over the
 *                    data's I/O
 *   4 image.tables   L1 indexes: exclusive while an L2 table is made or
 *                    unshared; held over I/O
 *     alloc.packing  while compressed data gets a place; held over I/O
 *     alloc.grow     while refblocks are made; held over I/O
 *   5 alloc.lock     refcounts, reftable, cursors; never held over I/O
 *   6 block.lock     a metadata slice's content; never held over I/O
 *   7 view.l1_lock, alloc.frees_lock, dirty_set.lock, overlap.lock,
 *     cache shards   leaves: nothing is taken under them, no I/O
 *   8 a cache's chunk_lock: the one that is, under a shard
 *
 * image.feature_lock is a leaf with I/O under it, the writing of a header:
 * of a feature bit, at most twice in an image's life, which may come while
 * any of them is held, or by none, as readers of snapshots find damage too;
 * of a header without bitmaps, under begin; and of a transaction's switch.
 *
 * flush.lock (the ticket counter) is a leaf too; the flush itself runs with
 * none of the above but 1 shared, and takes alloc.grow, so requests may call
 * it while they hold 1 to 3.
 *
 * Those that share a number are taken in this order too. Nobody holds locks
 * of two images at a time. tests/support/lock-order.c asserts all of this.
 */
#ifndef QCOW2_IMAGE_H
#define QCOW2_IMAGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/checked.h"
#include "base/cluster-set.h"
#include "base/range.h"
#include "base/shared.h"
#include "cache/cache.h"
#include "cache/decompress-pool.h"
#include "cache/linear-slices.h"
#include "format/header.h"
#include "format/snaptab.h"
#include "layer/source.h"
#include "qcow2.h"
#include "storage/io.h"

struct image;

/* One guest's view of an image: the active disk, or an internal snapshot.
 * Only the active view is ever written.
 */
struct view {
    struct source src;          /* first: a view is a source */
    struct image *img;
    struct view *next;          /* in image.snapshot_views */
    unsigned version;           /* of its L2 entries. Readers of a snapshot
                                 * hold no lock that an amendment takes:
                                 * their view keeps the version that it was
                                 * opened with, whose entries it has */
    unsigned nr_users;          /* of a snapshot's; guarded by views_lock */
    uint64_t l1_memory;         /* bytes of l1 that are not zeroes, in whole
                                 * pieces */
    uint64_t vm_state_size;     /* of a snapshot */
    uint64_t l1_off;            /* host offset of the table */
    uint32_t l1_entries;
    uint64_t *l1;               /* CPU order; read and written atomically */
    struct linear_slices linear;

    /* Entries changed since the last flush took them. */
    pthread_mutex_t l1_lock;
    uint32_t *l1_dirty;         /* indexes, each once */
    uint32_t nr_l1_dirty;
    uint8_t *l1_is_dirty;       /* a bit an entry */
};

/* Host clusters that lost a reference, in quarantine until the table that
 * dropped it is durable (I3).
 */
struct freed_run {
    uint64_t cluster; /* host cluster index */
    uint64_t nr;
};
struct freed_list {
    struct freed_run *runs;
    size_t nr, capacity;
    uint64_t nr_clusters;
};

struct alloc {
    pthread_mutex_t packing;    /* who places compressed data; I/O under it */
    pthread_mutex_t grow;       /* whoever makes refblocks, or moves the
                                 * file's end; I/O under it */

    pthread_mutex_t lock;       /* all below, and content of refcounts */
    uint64_t *reftable;         /* host offsets of refblocks, 0: none */
    uint32_t reftable_entries;
    uint32_t first_dirty;       /* entries changed since the last flush lie */
    uint32_t last_dirty;        /* in [first_dirty, last_dirty) */
    uint64_t moved_offset;      /* 0, or where the next flush writes the */
    uint32_t moved_clusters;    /* whole table, as it was outgrown */
    struct dirty_set refcounts; /* refblock slices */

    uint64_t cursor;            /* search for free clusters starts here */
    uint64_t end;               /* first host cluster past all in use */
    uint64_t flushed_end;       /* end when the last flush began; its alone */
    unsigned nr_small_flushes;  /* in a row; likewise (alloc_write_ahead) */
    bool end_is_fixed;          /* alloc-end.c is at work: take nothing from
                                 * end on, but wait for grow */
    uint64_t limit;             /* clusters that the file can have */
    uint64_t fresh_from;        /* clusters from here on were never written
                                 * and read as zeroes; UINT64_MAX: none */
    uint64_t packed_end;        /* host offset behind the compressed data
                                 * placed last, inside a cluster that has
                                 * room for more; 0: there is none */

    pthread_mutex_t frees_lock;
    struct freed_list frees;
    struct freed_list table_frees; /* alloc_free_table */
};

struct flush {
    pthread_mutex_t lock;
    pthread_cond_t done[2];     /* of even and odd tickets */
    bool running;
    uint64_t started, finished; /* tickets */
    bool failed;                /* the last one finished */
    struct qcow2_error error;   /* if it failed */
};

/* Why an image takes no more writes; kept in image.state. */
enum image_state {
    IMAGE_OK = 0,
    IMAGE_DAMAGED, /* an inconsistency was met: reads go on */
    IMAGE_FAILED,  /* a metadata write or a barrier failed (I8) */
};

struct image {
    struct io *io;
    struct store *data;         /* has guest data; is &own if io has them */
    struct store own;
    char *name;                 /* for messages */
    bool readonly;
    bool no_discard;
    struct header hdr;
    struct snapshot_table snaptab;

    /* Derived from hdr once; what is used most has a shorter name. */
    struct geometry geo;
    uint32_t cluster_size;
    unsigned cluster_bits;
    uint32_t subcluster_size;   /* a cluster, without extended L2 entries */
    uint32_t slice_size;        /* bytes of a cached slice */
    unsigned compression_type;  /* never changes, as hdr does */

    struct cache *meta;         /* slices; the pool's */
    struct decompress_pool *decompress; /* the pool's */

    pthread_rwlock_t rwlock;
    pthread_mutex_t feature_lock; /* of hdr.incompatible, hdr.version and
                                   * their place in the file */
    pthread_mutex_t begin;
    bool begun;                 /* atomic: the first write was prepared */
    bool written;               /* something was, since it was opened */
    struct bitmap_session *bitmaps; /* that are kept right, or NULL: changes
                                 * under begin before begun is set, or while
                                 * rwlock is held exclusively; and */
    const struct freed_list *bitmap_clusters; /* what these occupy */
    struct range_lock ranges;
    struct range_lock tables;

    struct view active;
    struct source_chain *chain; /* layer 0 is &active.src; changes under
                                 * rwlock held exclusively */
    bool overridden;            /* the chain is not on the backing file that
                                 * the header names; likewise */
    struct view *snapshot_views; /* guarded by views_lock, a leaf */
    uint64_t snapshot_memory;   /* their l1_memory; guarded by it, too */
    pthread_mutex_t views_lock;
    struct dirty_set l2_dirty;
    struct alloc alloc;
    struct flush flush;
    struct cluster_set overlap; /* metadata; see overlap.h */
    int state;                  /* atomic: enum image_state */
    bool is_alone;              /* an operation has the image alone, or it is
                                 * being closed: flushes skip no refcounts.
                                 * Changes while rwlock is held exclusively */
    bool unsettled;             /* an operation ended in its middle: the
                                 * dirty bit stays set */
    shared_u64 known_end;       /* atomic: the file reaches at least here,
                                 * up to a whole cluster */
    unsigned nr_cuts;           /* atomic: how often it became shorter */
    struct write_observer *observers; /* request/change.h; changes while
                                 * rwlock is held exclusively */

    qcow2_warn_fn *warn;
    void *warn_opaque;
    qcow2_debug_fn *debug;
    unsigned debug_topics;
    void *debug_opaque;
};

/* Reads header, snapshot table, L1 table and reftable, checks all of them (a
 * read-only one: what the active disk needs, and snapshots as far as they make
 * sense), and builds an image with a chain of one layer. Takes over io, also on
 * failure. Does not repair: who opens for writing looks at the dirty bit.
 */
struct image *image_open(struct io *io, bool readonly, struct cache *meta,
                         struct decompress_pool *decompress,
                         struct qcow2_error *err);

/* The same for a layer of a backing chain, read-only: without what only the
 * disk itself needs, the snapshot table and the content of header
 * extensions, which can be many times as large as the rest.
 */
struct image *image_open_layer(struct io *io, struct cache *meta,
                               struct decompress_pool *decompress,
                               struct qcow2_error *err);

/* Frees the image and closes io. Writes nothing: flush_close came before. */
void image_free(struct image *img);

/* Loads snapshot i as a view on img, or finds the one that is open already;
 * img must outlive it. ENOMEM if the L1 tables of all that are open would take
 * too much memory.
 */
struct view *image_open_snapshot(struct image *img, uint32_t i,
                                 struct qcow2_error *err);
void image_free_snapshot(struct view *v);

/* Is a view of snapshot i open? */
bool image_snapshot_in_use(struct image *img, uint32_t i);

/* Makes the active view show a table that is on disk already, and a size
 * (exclusive operations only; nothing of the old one is dirty). Takes over
 * l1, an array of l1_entries in CPU order. Fails for want of memory only.
 */
int image_replace_active(struct image *img, uint64_t *l1,
                         uint32_t l1_entries, uint64_t l1_off,
                         uint64_t size, struct qcow2_error *err);

/* Reads all metadata anew, after the file was changed past the image, whose
 * rwlock the caller holds exclusively. Nothing is dirty. On failure the image
 * can only be closed.
 */
int image_reload(struct image *img, struct qcow2_error *err);

/* Fails (EINVAL) if the image is not on the backing file that it names: what
 * an operation writes then depends on what the disk reads as for now, and
 * would stay.
 */
int image_check_own_view(const struct image *img, struct qcow2_error *err);

/* Before the first change of an image: clears autoclear bits of features
 * that we do not maintain, and claims its bitmaps (bitmap-session.h), durably,
 * or removes them, with a warning, if they cannot be kept right. Cheap once
 * done. Fails with EROFS or EIO when the image takes no writes.
 */
int image_begin_write(struct image *img, struct qcow2_error *err);

/* The incompatible features, which readers that find damage may add to. */
uint64_t image_incompatible(struct image *img);

/* Fails (EIO) unless state is IMAGE_OK. */
int image_check_state(struct image *img, struct qcow2_error *err);

/* An inconsistency was found: sets err to EIO with the text. A writable v3
 * image is marked corrupt on disk, once, and takes no more writes. Returns
 * -1.
 */
int image_damaged(struct image *img, struct qcow2_error *err,
                  const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The rest of image_check_inside: the file may have grown since its end was
 * last looked at.
 */
int image_check_grown(struct image *img, uint64_t host_off, uint64_t nr_bytes,
                      struct qcow2_error *err);

/* What a table points to must lie inside the file: a file that lost its end
 * must not read as zeroes there. Its last cluster may be cut short. EIO, and
 * image_damaged, otherwise.
 */
static inline int
image_check_inside(struct image *img, uint64_t host_off, uint64_t nr_bytes,
                   struct qcow2_error *err)
{
    uint64_t end = __atomic_load_n(&img->known_end, __ATOMIC_RELAXED);

    if (__builtin_expect(range_inside(host_off, nr_bytes, end), 1))
        return 0;
    return image_check_grown(img, host_off, nr_bytes, err);
}

/* The file was cut to end, or may have been. */
void image_file_was_cut(struct image *img, uint64_t end);

/* A metadata write or barrier failed (I8). */
void image_fail(struct image *img);

/* For the user to know, though nothing fails. */
void image_warn(struct image *img, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

void image_debug(struct image *img, unsigned topic, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#define IMAGE_DEBUG(img, topic, ...)                                    \
    do {                                                                \
        if (__builtin_expect((img)->debug_topics & (topic), 0))         \
            image_debug((img), (topic), __VA_ARGS__);                   \
    } while (0)

#endif /* QCOW2_IMAGE_H */
