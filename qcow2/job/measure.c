/* SPDX-License-Identifier: BSD-3-Clause */
/* measure.c: how large a new image will be, at most. The figures are those
 * of qemu-img measure, which storage managers allocate by: metadata is always
 * that of a fully allocated image. Where the refcount table moves while such
 * an image grows, they are larger.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/format.h"
#include "format/refcount-growth.h"
#include "qcow2.h"

enum {
    DEFAULT_CLUSTER_BYTES = 65536,
    DEFAULT_EXTENDED_L2_CLUSTER_BYTES = 131072,
    DEFAULT_REFCOUNT_BITS = 16,
};

struct measure {
    struct qcow2_disk *source; /* or NULL */
    uint64_t cluster_size;
    bool extended_l2;
    unsigned refcount_bits;
    uint64_t size;             /* of the disk, in whole clusters */
    uint64_t data;             /* of those, bytes that hold data */
    uint64_t counted_to;       /* guest bytes counted already */
};

/* Clusters that hold any data count as a whole, once. */
static int
count_extent(void *opaque, const struct qcow2_extent *e)
{
    struct measure *m = opaque;
    uint64_t from = max_u64(round_down(e->guest_off, m->cluster_size),
                            m->counted_to);
    uint64_t to = round_up(e->guest_off + e->nr_bytes, m->cluster_size);

    if (e->zero || to <= from)
        return 0;
    m->data += to - from;
    m->counted_to = to;
    return 0;
}

/* Clusters of a new file in which nr clusters were allocated one after the
 * other. A refcount table that moves leaves its old place free, which may be
 * used again or not: those are counted. */
static uint64_t
grown_clusters(const struct geometry *geo, uint64_t l1_entries, uint64_t nr)
{
    uint64_t table_entries, counted_end, end;
    struct refcount_layout at;

    refcount_layout_plan(geo, l1_entries, &at);
    end = at.end;
    table_entries = (at.nr_reftable << geo->cluster_bits) / sizeof(be64);
    counted_end = at.nr_refblocks << geo->refblock_bits;
    while (nr > counted_end - end) {
        struct refcount_growth g = {
            .first = counted_end, .table_entries = table_entries,
        };

        nr -= counted_end - end;
        /* What cannot be made is measured all the same. */
        if (!refcount_growth_plan(geo, &g))
            g.table_clusters = 0;
        if (g.table_clusters)
            table_entries = ((uint64_t)g.table_clusters << geo->cluster_bits)
                            / sizeof(be64);
        end = refcount_growth_end(&g);
        counted_end += (uint64_t)g.nr_refblocks << geo->refblock_bits;
    }
    return end + nr;
}

static uint64_t
fully_allocated(const struct measure *m)
{
    struct geometry geo = geometry_make(__builtin_ctzll(m->cluster_size),
                                        __builtin_ctz(m->refcount_bits),
                                        m->extended_l2);
    uint64_t l1_entries = geometry_l1_entries(&geo, m->size);

    /* Each L1 entry has a table. */
    return grown_clusters(&geo, l1_entries,
                          m->size / m->cluster_size + l1_entries)
           * m->cluster_size;
}

static int
check_geometry(const struct measure *m, uint64_t size,
               struct qcow2_error *err)
{
    uint64_t entries = m->cluster_size
                       >> (m->extended_l2 ? EXTENDED_L2_ENTRY_BITS : 3);

    if (!is_power_of_2(m->cluster_size)
        || m->cluster_size < 1u << MIN_CLUSTER_BITS
        || m->cluster_size > 1u << MAX_CLUSTER_BITS)
        return error_set(err, EINVAL, "clusters of %" PRIu64 " bytes: must "
                         "be a power of two from %u to %u", m->cluster_size,
                         1u << MIN_CLUSTER_BITS, 1u << MAX_CLUSTER_BITS);
    if (m->extended_l2 && m->cluster_size < 1u << MIN_EXTENDED_L2_CLUSTER_BITS)
        return error_set(err, EINVAL, "clusters of %" PRIu64 " bytes: "
                         "extended L2 entries need at least %u",
                         m->cluster_size, 1u << MIN_EXTENDED_L2_CLUSTER_BITS);
    if (!is_power_of_2(m->refcount_bits)
        || m->refcount_bits > 1u << MAX_REFCOUNT_ORDER)
        return error_set(err, EINVAL, "refcounts of %u bits: must be a power "
                         "of two from 1 to %u", m->refcount_bits,
                         1u << MAX_REFCOUNT_ORDER);
    if (div_round_up(div_round_up(size, m->cluster_size), entries)
        > MAX_L1_BYTES / sizeof(be64))
        return error_set(err, EINVAL, "a size of %" PRIu64 " bytes is more "
                         "than clusters of %" PRIu64 " bytes can map; use "
                         "larger clusters", size, m->cluster_size);
    return 0;
}

static int
measure_qcow2(struct measure *m, uint64_t size,
              const struct qcow2_measure_options *o,
              struct qcow2_measure *result, struct qcow2_error *err)
{
    const struct qcow2_create_options *c = &o->create;

    m->extended_l2 = c->extended_l2;
    m->cluster_size = c->cluster_size ? c->cluster_size
                      : m->extended_l2 ? DEFAULT_EXTENDED_L2_CLUSTER_BYTES
                                       : DEFAULT_CLUSTER_BYTES;
    m->refcount_bits = c->refcount_bits ? c->refcount_bits
                                        : DEFAULT_REFCOUNT_BITS;
    if (check_geometry(m, size, err) == -1)
        return -1;
    m->size = round_up(size, m->cluster_size);
    /* How much of a backing file is shared nobody knows. */
    if (c->backing && m->source)
        m->data = m->size;
    else if (m->source
             && qcow2_map(m->source, qcow2_get_size(m->source), 0,
                          count_extent, m, err) == -1)
        return -1;
    if (o->prealloc == QCOW2_PREALLOC_FALLOC
        || o->prealloc == QCOW2_PREALLOC_FULL)
        m->data = m->size;
    result->fully_allocated = fully_allocated(m);
    result->required = result->fully_allocated - m->size + m->data;
    return 0;
}

int
qcow2_measure(struct qcow2_disk *source,
              const struct qcow2_measure_options *options,
              struct qcow2_measure *result, struct qcow2_error *err)
{
    struct measure m = { .source = source };
    uint64_t size = max_u64(source ? qcow2_get_size(source) : 0,
                            options->create.size);

    if (size > INT64_MAX - (1 << MAX_CLUSTER_BITS))
        return error_set(err, EINVAL, "a size of %" PRIu64 " bytes is more "
                         "than any image can have", size);
    if (options->format == QCOW2_FORMAT_QCOW)
        return error_set(err, ENOTSUP, "images of the format qcow (version 1) "
                         "are not made");
    if (options->format != QCOW2_FORMAT_RAW)
        return measure_qcow2(&m, size, options, result, err);
    result->required = result->fully_allocated = round_up(size, 512);
    return 0;
}
