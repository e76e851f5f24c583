/* SPDX-License-Identifier: BSD-3-Clause */
/* flush.c: the only place that orders writes to disk. What is taken in which
 * order, and why three stages suffice, is told in DESIGN.md, "The flush".
 */
#include "meta/flush.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "meta/alloc.h"
#include "meta/l1.h"
#include "meta/reftable.h"

enum {
    /* Dirty metadata, as a part of the cache, before they do. */
    DIRTY_PART = 4,
    /* Refcounts that flushes leave to a later one, likewise. */
    SKIPPED_PART = 8,
};

static const struct header_update set_dirty = {
    .parts = HEADER_SET_INCOMPATIBLE, .incompatible_set = INCOMPAT_DIRTY,
};
static const struct header_update clear_dirty = {
    .parts = HEADER_SET_INCOMPATIBLE, .incompatible_clear = INCOMPAT_DIRTY,
};

/* What one flush writes: all that changed before it began. */
struct take {
    struct freed_list frees;
    struct l1_change l1;
    struct dirty_batch l2;
    struct reftable_change reftable;
    struct dirty_batch refcounts;
    bool skips_refcounts; /* they stay in memory, behind the dirty bit */
    bool is_final;  /* the failure was none that may be tried again */
};

static void
give_back(struct image *img, struct take *t)
{
    reftable_give_back(img, &t->refcounts, &t->reftable);
    dirty_give_back(&img->l2_dirty, &t->l2);
    l1_give_back(&img->active, &t->l1);
    alloc_give_back_frees(img, &t->frees);
}

/* May this flush leave refcounts to a later one ("Lazy refcounts" in
 * DESIGN.md)? A new refblock is published with all that is in it, as ever. */
static bool
may_skip_refcounts(struct image *img)
{
    return img->hdr.compatible & COMPAT_LAZY_REFCOUNTS && !img->is_alone
           && dirty_bytes(&img->alloc.refcounts)
                  < cache_max_bytes(img->meta) / SKIPPED_PART
           && !reftable_is_dirty(img);
}

static int
take_refcounts(struct image *img, struct take *t, struct qcow2_error *err)
{
    t->skips_refcounts = may_skip_refcounts(img);
    if (t->skips_refcounts)
        return 0;
    return reftable_take(img, &t->refcounts, &t->reftable, err);
}

/* The order matters: see DESIGN.md. */
static int
take_all(struct image *img, struct take *t, struct qcow2_error *err)
{
    memset(t, 0, sizeof *t);
    alloc_take_frees(img, &t->frees);
    if (l1_take(&img->active, &t->l1, err) == -1
        || dirty_take(&img->l2_dirty, &t->l2, err) == -1
        || take_refcounts(img, t, err) == -1) {
        give_back(img, t);
        return -1;
    }
    return 0;
}

static void
take_end(struct take *t)
{
    dirty_batch_end(&t->refcounts);
    reftable_change_free(&t->reftable);
    dirty_batch_end(&t->l2);
    l1_change_free(&t->l1);
}

/* Writes slices, neighbours in one write. */
static int
write_slices(struct image *img, const struct dirty_batch *batch,
             struct qcow2_error *err)
{
    unsigned i = 0;

    while (i < batch->nr) {
        struct iovec iov[IO_MAX_IOV];
        uint64_t host_off = batch->copies[i].block->key, next = host_off;
        int n = 0;

        while (i < batch->nr && n < IO_MAX_IOV
               && batch->copies[i].block->key == next) {
            iov[n].iov_base = batch->copies[i].data;
            iov[n].iov_len = batch->copies[i].block->size;
            next += iov[n].iov_len;
            n++;
            i++;
        }
        if (io_pwritev(img->io, iov, n, host_off, err) == -1)
            return -1;
    }
    return 0;
}

/* Writes exactly the entries taken: a neighbour that changed meanwhile must
 * not ride along (I2). */
static int
write_l1(struct image *img, const struct l1_change *c,
         struct qcow2_error *err)
{
    uint32_t i = 0;

    while (i < c->nr) {
        uint32_t n = 1;

        while (i + n < c->nr && c->indexes[i + n] == c->indexes[i] + n)
            n++;
        if (io_pwrite(img->io, c->entries + i, n * sizeof *c->entries,
                      img->active.l1_off
                          + (uint64_t)c->indexes[i] * sizeof *c->entries,
                      err) == -1)
            return -1;
        i += n;
    }
    return 0;
}

static int
barrier(struct image *img, struct take *t, struct qcow2_error *err)
{
    if (io_flush(img->io, err) == 0)
        return 0;
    t->is_final = true;
    return -1;
}

/* Publishes new refblocks, which are complete on disk by now, and moves the
 * table when it was outgrown (I5). */
static int
write_reftable(struct image *img, struct take *t, struct qcow2_error *err)
{
    const struct reftable_change *c = &t->reftable;
    const struct header_update moved = {
        .parts = HEADER_SET_REFTABLE,
        .reftable_offset = c->moved_offset,
        .reftable_clusters = c->moved_clusters,
    };
    uint64_t old_off = img->hdr.reftable_offset;
    uint64_t old_clusters = img->hdr.reftable_clusters;

    if (c->nr == 0)
        return 0;
    if (!c->moved_offset)
        return barrier(img, t, err) == -1
                       || io_pwrite(img->io, c->entries,
                                    c->nr * sizeof *c->entries,
                                    old_off
                                        + c->first * sizeof *c->entries,
                                    err) == -1
                   ? -1 : 0;
    if (io_pwrite(img->io, c->entries, c->nr * sizeof *c->entries,
                  c->moved_offset, err) == -1
        || barrier(img, t, err) == -1)
        return -1;
    if (header_write_fields(img->io, &img->hdr, &moved, err) == -1) {
        /* Which table the header names is unknown. */
        t->is_final = true;
        return -1;
    }
    /* For the next flush: this one has yet to make the move durable. */
    cluster_set_remove(&img->overlap, old_off >> img->cluster_bits,
                       old_clusters);
    alloc_free(img, old_off, old_clusters);
    return 0;
}

/* Sets the dirty bit where refcounts are skipped. Stage A's barrier makes it
 * durable before any entry that needs one of them is written (I1). */
static int
mark_skipped(struct image *img, const struct take *t, struct qcow2_error *err)
{
    LOCK_SCOPE(&img->feature_lock);

    if (!t->skips_refcounts || img->hdr.incompatible & INCOMPAT_DIRTY
        || (dirty_bytes(&img->alloc.refcounts) == 0 && t->frees.nr == 0))
        return 0;
    /* Where this lacks space it may be tried again, unlike what else changes
     * in a header: as far as anybody can tell the bit is not set. */
    return header_write_fields(img->io, &img->hdr, &set_dirty, err);
}

/* What is published must not be given back: a table that has moved would move
 * to where it is, and be freed there. */
static void
end_stage_a(struct take *t)
{
    dirty_batch_end(&t->refcounts);
    reftable_change_free(&t->reftable);
}

/* Stages A and B. */
static int
write_stages(struct image *img, struct take *t, struct qcow2_error *err)
{
    if (t->refcounts.nr > 0 || t->l2.nr > 0)
        alloc_fill_last_cluster(img);
    if (t->skips_refcounts && t->l2.nr > 0)
        alloc_write_ahead(img);
    /* All data of the entries taken were written before. */
    if (store_flush(img->data, img->io, err) == -1) {
        t->is_final = true;
        return -1;
    }
    if (mark_skipped(img, t, err) == -1)
        return -1;
    if (write_slices(img, &t->refcounts, err) == -1
        || write_reftable(img, t, err) == -1
        || barrier(img, t, err) == -1)
        return -1;
    end_stage_a(t);
    if (t->l2.nr == 0 && t->l1.nr == 0)
        return 0;
    if (write_slices(img, &t->l2, err) == -1
        || write_l1(img, &t->l1, err) == -1
        || barrier(img, t, err) == -1)
        return -1;
    return 0;
}

/* The lowered refcounts need no barrier: until they are durable the clusters
 * look leaked, no more. */
static int
write_lowered(struct image *img, struct qcow2_error *err)
{
    struct dirty_batch lowered;
    int r;

    pthread_mutex_lock(&img->alloc.lock);
    r = dirty_take(&img->alloc.refcounts, &lowered, err);
    pthread_mutex_unlock(&img->alloc.lock);
    if (r == -1)
        return -1;
    r = write_slices(img, &lowered, err);
    if (r == -1 && !error_is_no_space(err))
        image_fail(img);
    if (r == -1) {
        LOCK_SCOPE(&img->alloc.lock);
        dirty_give_back(&img->alloc.refcounts, &lowered);
        return -1;
    }
    dirty_batch_end(&lowered);
    return 0;
}

/* Stage C. */
static int
end_quarantine(struct image *img, struct take *t, struct qcow2_error *err)
{
    if (t->frees.nr == 0)
        return 0;
    if (alloc_apply_frees(img, &t->frees, err) == -1) {
        image_fail(img);
        return -1;
    }
    if (!t->skips_refcounts && write_lowered(img, err) == -1)
        return -1;
    /* A service to the host: what cannot be cut off is free all the same. */
    alloc_cut_file(img, false, NULL);
    return 0;
}

/* Nothing of what was taken is lost in memory when stages A and B fail, so
 * that reads go on (I8). Where a write lacked space, so do writes and flushes:
 * what it left on disk is what a power cut may leave at any time, and a later
 * flush does all of it anew, from what is in memory then. err is not NULL.
 */
static int
flush_once(struct image *img, struct qcow2_error *err)
{
    struct take t;

    if (take_all(img, &t, err) == -1)
        return -1;
    IMAGE_DEBUG(img, QCOW2_DEBUG_FLUSH,
                "flush: %u refcount slices, %u reftable entries, %u L2 "
                "slices, %u L1 entries, %zu frees",
                t.refcounts.nr, t.reftable.nr, t.l2.nr, t.l1.nr, t.frees.nr);
    if (write_stages(img, &t, err) == -1) {
        if (t.is_final || !error_is_no_space(err))
            image_fail(img);
        give_back(img, &t);
        return error_prefix(err, "%s: flush", img->name);
    }
    take_end(&t);
    return end_quarantine(img, &t, err);
}

static int
check_not_failed(struct image *img, struct qcow2_error *err)
{
    if (__atomic_load_n(&img->state, __ATOMIC_ACQUIRE) == IMAGE_FAILED)
        return image_check_state(img, err);
    return 0;
}

/* Runs one flush; f->lock is held before and after. */
static void
run_flush(struct image *img)
{
    struct flush *f = &img->flush;
    struct qcow2_error error;
    int r;

    f->running = true;
    f->started++;
    pthread_mutex_unlock(&f->lock);
    r = check_not_failed(img, &error);
    if (r == 0)
        r = flush_once(img, &error);
    pthread_mutex_lock(&f->lock);
    f->running = false;
    f->finished = f->started;
    f->failed = r == -1;
    if (f->failed)
        f->error = error;
    /* All who waited for this one, and one that runs the next. */
    pthread_cond_broadcast(&f->done[f->finished % 2]);
    pthread_cond_signal(&f->done[(f->finished + 1) % 2]);
}

int
flush_run(struct image *img, struct qcow2_error *err)
{
    struct flush *f = &img->flush;
    LOCK_SCOPE(&f->lock);
    /* The first flush to begin after now covers what was done before. */
    uint64_t mine = f->started + 1;

    while (f->finished < mine) {
        if (f->running)
            pthread_cond_wait(&f->done[mine % 2], &f->lock);
        else
            run_flush(img);
    }
    /* A later flush that succeeded wrote all that mine did not. */
    if (f->failed) {
        if (err)
            *err = f->error;
        return -1;
    }
    return 0;
}

int
flush_make_room(struct image *img, struct qcow2_error *err)
{
    uint64_t dirty = dirty_bytes(&img->l2_dirty)
                     + dirty_bytes(&img->alloc.refcounts);

    if (dirty < cache_max_bytes(img->meta) / DIRTY_PART
        && !alloc_has_many_frees(img))
        return 0;
    return flush_run(img, err);
}

bool
flush_for_space(struct image *img, const struct qcow2_error *err)
{
    struct flush *f = &img->flush;
    bool running;

    if (!error_is_no_space(err))
        return false;
    pthread_mutex_lock(&f->lock);
    running = f->running;
    pthread_mutex_unlock(&f->lock);
    /* Others may have made the flush since the request failed. */
    return (!running && alloc_nr_frees(img) == 0)
           || flush_run(img, NULL) == 0;
}

static bool
is_dirty(struct image *img)
{
    return dirty_bytes(&img->l2_dirty) > 0
           || dirty_bytes(&img->alloc.refcounts) > 0
           || alloc_nr_frees(img) > 0;
}

int
flush_all(struct image *img, struct qcow2_error *err)
{
    alloc_release_tables(img);
    do {
        bool freed = alloc_nr_frees(img) > 0;

        if (flush_run(img, err) == -1)
            return -1;
        /* Lowered refcounts were written without a barrier. */
        if (freed && !is_dirty(img))
            return flush_run(img, err);
    } while (is_dirty(img));
    return 0;
}

/* Refcounts are on disk now, so the bit that says otherwise goes. */
static int
end_skipping(struct image *img, struct qcow2_error *err)
{
    if (!(image_incompatible(img) & INCOMPAT_DIRTY)
        || image_check_state(img, NULL) == -1)
        return 0;
    return flush_dirty_bit(img, false, err);
}

int
flush_close(struct image *img, struct qcow2_error *err)
{
    if (img->readonly || !img->written)
        return 0;
    img->is_alone = true;
    if (flush_all(img, err) == -1) {
        image_fail(img); /* what cannot be flushed any more may leak */
        return -1;
    }
    if (end_skipping(img, err) == -1)
        return -1;
    alloc_cut_file(img, true, NULL);
    return 0;
}

static int
prepare_header(struct image *img, const struct header_update *u,
               struct header_sector *sector, struct qcow2_error *err)
{
    LOCK_SCOPE(&img->feature_lock);

    return header_prepare(img->io, &img->hdr, u, sector, err);
}

/* Readers of snapshots may find damage meanwhile: the corrupt bit stays. */
static int
write_header(struct image *img, const struct header_update *u,
             const struct header_sector *sector, struct qcow2_error *err)
{
    LOCK_SCOPE(&img->feature_lock);

    return header_switch(img->io, &img->hdr, u, sector, err);
}

static int
switch_header(struct image *img, const struct header_update *u,
              const struct header_sector *sector, struct qcow2_error *err)
{
    uint32_t before = img->hdr.version;

    if (write_header(img, u, sector, err) == -1
        || io_flush(img->io, err) == -1) {
        pthread_mutex_lock(&img->feature_lock);
        header_switch_failed(&img->hdr, before);
        pthread_mutex_unlock(&img->feature_lock);
        image_fail(img);
        /* Where no dirty bit could be set, the next process may take the
         * header in the cache for one that needs nothing. All but the header
         * is durable, so reads can do without the cache. */
        if (img->hdr.version < 3 && io_flush_has_failed(img->io))
            io_drop_cache(img->io);
        return error_prefix(err, "%s: header", img->name);
    }
    img->active.version = img->hdr.version;
    return 0;
}

int
flush_switch(struct image *img, const struct header_update *u,
             struct qcow2_error *err)
{
    struct header_sector sector;
    struct qcow2_error error;

    if (prepare_header(img, u, &sector, err) == -1)
        return -1;
    if (flush_run(img, &error) == 0)
        return switch_header(img, u, &sector, err);
    /* The operation ends in its middle: not as if nothing had happened. */
    if (error_is_no_space(&error))
        image_fail(img);
    if (err)
        *err = error;
    return -1;
}

int
flush_dirty_bit(struct image *img, bool set, struct qcow2_error *err)
{
    if (img->hdr.version < 3 || (!set && img->unsettled))
        return 0;
    return flush_switch(img, set ? &set_dirty : &clear_dirty, err);
}

/* One barrier is for both: an image that is marked too early is checked in
 * vain, no more. */
int
flush_begin(struct image *img, struct qcow2_error *err)
{
    alloc_release_tables(img);
    if ((is_dirty(img) || img->active.nr_l1_dirty > 0
         || img->hdr.version < 3) && flush_all(img, err) == -1)
        return -1;
    if (img->hdr.version < 3)
        return 0;
    if (check_not_failed(img, err) == -1)
        return -1;
    return switch_header(img, &set_dirty, NULL, err);
}

int
flush_flags(struct image *img, const be64 *table, uint64_t host_off,
            uint64_t nr_bytes, struct qcow2_error *err)
{
    if (io_pwrite(img->io, table, nr_bytes, host_off, err) == 0)
        return 0;
    image_fail(img);
    return error_prefix(err, "%s", img->name);
}
