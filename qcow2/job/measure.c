/* SPDX-License-Identifier: BSD-3-Clause */
/* measure.c: how large a new image will be. The figures are those of
 * qemu-img measure, which storage managers allocate by: metadata is always
 * that of a fully allocated image.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/format.h"
#include "qcow2.h"

enum { DEFAULT_CLUSTER_BYTES = 65536, DEFAULT_REFCOUNT_BITS = 16 };

struct measure {
    struct qcow2_disk *source; /* or NULL */
    uint64_t cluster_size;
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

/* Refblocks and reftable count themselves. */
static uint64_t
refcount_clusters(const struct measure *m, uint64_t nr_clusters)
{
    uint64_t per_block = m->cluster_size * 8 / m->refcount_bits;
    uint64_t per_table = m->cluster_size / sizeof(be64);
    uint64_t all = nr_clusters, before, blocks, tables;

    do {
        before = all;
        blocks = div_round_up(all, per_block);
        tables = div_round_up(blocks, per_table);
        all = nr_clusters + blocks + tables;
    } while (all != before);
    return blocks + tables;
}

static uint64_t
fully_allocated(const struct measure *m)
{
    uint64_t entries = m->cluster_size / sizeof(be64);
    uint64_t data = m->size / m->cluster_size;
    uint64_t l2 = div_round_up(data, entries);
    uint64_t l1 = div_round_up(l2, entries);
    uint64_t all = 1 + l1 + l2 + data;

    return (all + refcount_clusters(m, all)) * m->cluster_size;
}

static int
check_geometry(const struct measure *m, uint64_t size,
               struct qcow2_error *err)
{
    uint64_t entries = m->cluster_size / sizeof(be64);

    if (!is_power_of_2(m->cluster_size)
        || m->cluster_size < 1u << MIN_CLUSTER_BITS
        || m->cluster_size > 1u << MAX_CLUSTER_BITS)
        return error_set(err, EINVAL, "clusters of %" PRIu64 " bytes: must "
                         "be a power of two from %u to %u", m->cluster_size,
                         1u << MIN_CLUSTER_BITS, 1u << MAX_CLUSTER_BITS);
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

    m->cluster_size = c->cluster_size ? c->cluster_size
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
             && qcow2_map(m->source, size, 0, count_extent, m, err) == -1)
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
    uint64_t size = source ? qcow2_get_size(source) : options->create.size;

    if (size > INT64_MAX - (1 << MAX_CLUSTER_BITS))
        return error_set(err, EINVAL, "a size of %" PRIu64 " bytes is more "
                         "than any image can have", size);
    if (options->format != QCOW2_FORMAT_RAW)
        return measure_qcow2(&m, size, options, result, err);
    result->required = result->fully_allocated = round_up(size, 512);
    return 0;
}
