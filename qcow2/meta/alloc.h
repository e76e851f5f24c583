/* SPDX-License-Identifier: BSD-3-Clause */
/* alloc.h: hands out host clusters and takes them back. */
#ifndef QCOW2_ALLOC_H
#define QCOW2_ALLOC_H

#include "cache/counters.h"
#include "meta/image.h"

/* What alloc_clusters gave. */
struct alloc_run {
    uint64_t host_off;
    uint64_t nr_clusters;
    bool reads_zero; /* never written before: unwritten parts read as 0 */
};

/* alloc_prepare makes the locks, so that alloc_destroy may follow; alloc_init
 * reads the reftable and finds where the used clusters end. Again after
 * tables were changed behind the engine (check.c).
 */
void alloc_prepare(struct image *img);
int alloc_init(struct image *img, struct qcow2_error *err);
void alloc_destroy(struct image *img);

/* One to `want` contiguous clusters with refcount 1 (in memory; durable
 * with the next flush). The caller makes a table point to them, or gives
 * them back with alloc_free. ENOSPC when the file cannot grow.
 */
int alloc_clusters(struct image *img, uint64_t want, struct alloc_run *run,
                   struct qcow2_error *err);

/* A place for nr_bytes of compressed data, less than a cluster: behind what
 * got one before, where that leaves room, so that clusters are shared. Each
 * cluster touched gets one more reference. (alloc-packed.c)
 */
int alloc_packed(struct image *img, uint32_t nr_bytes, uint64_t *host_off,
                 struct qcow2_error *err);

/* One reference to each cluster was dropped in memory. They rest in
 * quarantine until flush_run has made that durable (I3). Without memory to
 * remember them they leak, which a check finds; hence no error.
 */
void alloc_free(struct image *img, uint64_t host_off, uint64_t nr_clusters);

/* For operations that hold image.rwlock exclusively (so nobody else
 * allocates): contiguous clusters for a table of nr_bytes, entered into
 * overlap, refcounts 1; *host_off is 0 when nr_bytes is. And their end.
 */
int alloc_table(struct image *img, uint64_t nr_bytes, uint64_t *host_off,
                struct qcow2_error *err);
void alloc_free_metadata(struct image *img, uint64_t host_off,
                         uint64_t nr_bytes);

/* Likewise: one more reference to each cluster, and whether that fits the
 * width of refcounts (ENOTSUP if not) after those that `more` counts, to
 * which it is added.
 */
int alloc_raise(struct image *img, uint64_t host_off, uint64_t nr_clusters,
                struct qcow2_error *err);
int alloc_can_raise(struct image *img, uint64_t host_off,
                    uint64_t nr_clusters, struct counters *more,
                    struct qcow2_error *err);

/* Likewise: would that fit for whatever tree there is, without counting? The
 * answer costs a look at every refcount. */
int alloc_can_raise_all(struct image *img, bool *can,
                        struct qcow2_error *err);
uint64_t alloc_nr_refblocks(const struct image *img);

/* Whatever was allocated lies inside the file: it grows to a whole number of
 * clusters. For the flush, before a barrier. (alloc-end.c)
 */
void alloc_fill_last_cluster(struct image *img);

/* Cuts off the end of the file that no cluster in use reaches to; what was
 * freed there has ended its quarantine. any: also where that is little.
 * Requests may be under way. (alloc-end.c)
 */
int alloc_cut_file(struct image *img, bool any, struct qcow2_error *err);

/* Clusters up to end (an index) are in use now, or were written: they need not
 * read as zeroes any more. With alloc.lock, or the image alone.
 */
void alloc_mark_used(struct image *img, uint64_t end);
void alloc_mark_written(struct image *img, uint64_t end);

/* As alloc_free, for the cluster of an L2 table that was replaced. A reader
 * may still be on its way into it, without any lock on it, so it stays in
 * quarantine until alloc_release_tables, which takes that no request is
 * under way.
 */
void alloc_free_table(struct image *img, uint64_t host_off);
void alloc_release_tables(struct image *img);

/* Runs in quarantine. */
size_t alloc_nr_frees(struct image *img);

/* Are those so many, or of so many bytes, that a flush should end the
 * quarantine before more is freed or allocated?
 */
bool alloc_has_many_frees(struct image *img);

/* For flush.c. Takes the list of what is freed, or gives it back; ends the
 * quarantine of a list whose dropping is durable: punches, lowers refcounts,
 * makes the clusters available. */
void alloc_take_frees(struct image *img, struct freed_list *list);
void alloc_give_back_frees(struct image *img, struct freed_list *list);
int alloc_apply_frees(struct image *img, struct freed_list *list,
                      struct qcow2_error *err);

/* A table is made in the cluster at host_off, which alloc_clusters gave:
 * it reads as zeroes on disk, lies inside the file, its space is allocated,
 * and nothing of an earlier table there is cached.
 */
int alloc_zero_table(struct image *img, uint64_t host_off,
                     struct qcow2_error *err);

/* Forgets cached slices of whatever was in the cluster before. */
void alloc_forget_table(struct image *img, uint64_t host_off);

#endif /* QCOW2_ALLOC_H */
