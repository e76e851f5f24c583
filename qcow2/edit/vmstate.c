/* SPDX-License-Identifier: BSD-3-Clause */
/* vmstate.c: stores and reads saved states of virtual machines. */
#include "edit/vmstate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/open-disk.h"
#include "meta/alloc.h"
#include "meta/flush.h"
#include "meta/l2-slice.h"
#include "meta/map.h"
#include "meta/table.h"
#include "meta/tree.h"

enum { STATE_BUFFER_BYTES = 1 << 20 };

static int
remember(struct vmstate *vs, uint64_t cluster, uint64_t nr,
         struct qcow2_error *err)
{
    struct freed_list *l = &vs->clusters;

    if (l->nr == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct freed_run *runs = realloc(l->runs, capacity * sizeof *runs);

        if (!runs)
            return error_nomem(err);
        l->runs = runs;
        l->capacity = capacity;
    }
    l->runs[l->nr++] = (struct freed_run){ cluster, nr };
    return 0;
}

static int
take_clusters(struct image *img, struct vmstate *vs, uint64_t want,
              struct alloc_run *run, struct qcow2_error *err)
{
    if (flush_make_room(img, err) == -1
        || alloc_clusters(img, want, run, err) == -1)
        return -1;
    if (remember(vs, run->host_off >> img->cluster_bits, run->nr_clusters,
                 err) == -1) {
        alloc_free(img, run->host_off, run->nr_clusters);
        return -1;
    }
    return 0;
}

/* Writes a complete L2 table and appends its L1 entry. */
static int
end_table(struct image *img, struct vmstate *vs, const be64 *table,
          struct qcow2_error *err)
{
    struct alloc_run run;

    if (vs->nr == MAX_L1_BYTES / 8)
        return error_set(err, ENOSPC, "the VM state is too large for "
                         "clusters of %" PRIu32 " bytes", img->cluster_size);
    if (vs->nr == vs->capacity) {
        uint32_t capacity = 2 * vs->capacity + 8;
        uint64_t *l1 = realloc(vs->l1, capacity * sizeof *l1);

        if (!l1)
            return error_nomem(err);
        vs->l1 = l1;
        vs->capacity = capacity;
    }
    if (take_clusters(img, vs, 1, &run, err) == -1)
        return -1;
    table_forget(img, run.host_off);
    if (io_pwrite(img->io, table, img->cluster_size, run.host_off, err) == -1)
        return -1;
    vs->l1[vs->nr++] = run.host_off;
    return 0;
}

/* Reads until the buffer is full or the state ends. */
static long
read_state(const struct qcow2_snapshot_create_options *options,
           unsigned char *buf, size_t size, struct qcow2_error *err)
{
    size_t n = 0;

    while (n < size) {
        long r;

        errno = EIO;
        r = options->vm_state(options->opaque, buf + n, size - n);
        if (r < 0)
            return error_set_errno(err, errno, "reading the VM state");
        if (r == 0)
            break;
        n += r;
    }
    return n;
}

/* The state's clusters as they are mapped by L2 tables, one at a time. */
struct mapper {
    struct image *img;
    struct vmstate *vs;
    be64 *table;
    struct l2_slice entries; /* of it */
    uint32_t nr; /* of them in use */
};

static int
map_run(struct mapper *m, const struct alloc_run *run,
        struct qcow2_error *err)
{
    struct image *img = m->img;

    for (uint64_t i = 0; i < run->nr_clusters; i++) {
        struct l2_entry e = l2_data(run->host_off + (i << img->cluster_bits));

        e.copied = false;
        l2_set(&m->entries, m->nr++, &e);
        if (m->nr == UINT32_C(1) << img->geo.l2_bits) {
            if (end_table(img, m->vs, m->table, err) == -1)
                return -1;
            memset(m->table, 0, img->cluster_size);
            m->nr = 0;
        }
    }
    return 0;
}

/* Where the next cluster is, behind those that have entries. */
static uint64_t
guest_end(const struct mapper *m)
{
    const struct image *img = m->img;

    return ((uint64_t)m->vs->nr << geometry_l1_reach_bits(&img->geo))
           + ((uint64_t)m->nr << img->cluster_bits);
}

/* Stores nr_clusters of buf. */
static int
store_buffer(struct mapper *m, const unsigned char *buf,
             uint64_t nr_clusters, struct qcow2_error *err)
{
    struct image *img = m->img;

    while (nr_clusters > 0) {
        struct alloc_run run;
        uint64_t nr_bytes;

        if (take_clusters(img, m->vs, nr_clusters, &run, err) == -1)
            return -1;
        nr_bytes = run.nr_clusters << img->cluster_bits;
        if (store_write(img->data, buf, nr_bytes, guest_end(m), run.host_off,
                        err) == -1
            || map_run(m, &run, err) == -1)
            return -1;
        buf += nr_bytes;
        nr_clusters -= run.nr_clusters;
    }
    return 0;
}

int
vmstate_store(struct image *img, struct vmstate *vs,
              const struct qcow2_snapshot_create_options *options,
              struct qcow2_error *err)
{
    size_t size = max_u64(STATE_BUFFER_BYTES, img->cluster_size);
    CLEANUP_FREE unsigned char *buf = malloc(size);
    CLEANUP_FREE be64 *table = calloc(1, img->cluster_size);
    struct mapper m = {
        .img = img, .vs = vs, .table = table,
        .entries = l2_slice_in_memory(table, &img->geo, img->hdr.version),
    };
    long n;

    if (!buf || !table)
        return error_nomem(err);
    do {
        uint64_t padded;

        n = read_state(options, buf, size, err);
        if (n == -1)
            return -1;
        padded = round_up(n, img->cluster_size);
        memset(buf + n, 0, padded - n);
        if (store_buffer(&m, buf, padded >> img->cluster_bits, err) == -1)
            return -1;
        vs->nr_bytes += n;
    } while (n == (long)size);
    return m.nr > 0 ? end_table(img, vs, table, err) : 0;
}

void
vmstate_discard(struct image *img, struct vmstate *vs)
{
    for (size_t i = 0; i < vs->clusters.nr; i++)
        alloc_free(img, vs->clusters.runs[i].cluster << img->cluster_bits,
                   vs->clusters.runs[i].nr);
    vs->clusters.nr = 0;
}

void
vmstate_free(struct vmstate *vs)
{
    free(vs->clusters.runs);
    free(vs->l1);
}

/* One mapped run of the state, at off. */
static int
read_run(struct view *v, uint64_t guest_off, size_t nr_bytes, void *buf,
         size_t *done, struct qcow2_error *err)
{
    struct compressed_part part;
    struct mapping m;

    if (map_lookup(v, guest_off, nr_bytes, &m, err) == -1)
        return -1;
    *done = m.nr_bytes;
    switch (m.kind) {
    case MAP_UNALLOCATED:
    case MAP_ZERO:
        memset(buf, 0, m.nr_bytes);
        return 0;
    case MAP_DATA:
        return store_read(v->src.data, buf, m.nr_bytes, guest_off, m.host_off,
                          err);
    case MAP_COMPRESSED:
        part = compressed_part_of(&m, guest_off, buf);
        return v->src.ops->read_compressed(&v->src, &part, 1, err);
    }
    __builtin_unreachable();
}

/* Where the state begins in the view. Its size is a number in the snapshot
 * table, which the L1 table may have no room for (I7). */
static int
find_state(const struct view *v, uint64_t *start, struct qcow2_error *err)
{
    struct image *img = v->img;
    unsigned bits = geometry_l1_reach_bits(&img->geo);
    uint64_t first = tree_l1_entries(img, v->src.size);
    uint64_t room = v->l1_entries > first ? v->l1_entries - first : 0;

    *start = first << bits;
    if (v->vm_state_size > room << bits)
        return error_set(err, EIO, "%s: the snapshot claims %" PRIu64 " bytes "
                         "of VM state, but its L1 table has room for %" PRIu64,
                         img->name, v->vm_state_size, room << bits);
    return 0;
}

/* As find_state, for a range that a caller asks for. */
static int
find_range(const struct view *v, uint64_t off, uint64_t nr_bytes,
           uint64_t *guest_off, struct qcow2_error *err)
{
    if (!v || !range_inside(off, nr_bytes, v->vm_state_size))
        return error_set(err, EINVAL, "this range is not inside the VM state "
                         "of a snapshot");
    if (find_state(v, guest_off, err) == -1)
        return -1;
    *guest_off += off;
    return 0;
}

int
qcow2_map_vm_state(struct qcow2_disk *snapshot, uint64_t off,
                   uint64_t *nr_bytes, bool *zero, struct qcow2_error *err)
{
    struct view *v = snapshot->snapshot;
    uint64_t guest_off;
    struct mapping m;

    if (find_range(v, off, 1, &guest_off, err) == -1
        || map_lookup(v, guest_off, v->vm_state_size - off, &m, err) == -1)
        return -1;
    *nr_bytes = m.nr_bytes;
    *zero = m.kind == MAP_UNALLOCATED || m.kind == MAP_ZERO;
    return 0;
}

int
qcow2_read_vm_state(struct qcow2_disk *snapshot, void *buf, size_t nr_bytes,
                    uint64_t off, struct qcow2_error *err)
{
    struct view *v = snapshot->snapshot;
    uint64_t guest_off;

    if (find_range(v, off, nr_bytes, &guest_off, err) == -1)
        return -1;
    while (nr_bytes > 0) {
        size_t done;

        if (read_run(v, guest_off, nr_bytes, buf, &done, err) == -1)
            return -1;
        buf = (char *)buf + done;
        nr_bytes -= done;
        guest_off += done;
    }
    return 0;
}
