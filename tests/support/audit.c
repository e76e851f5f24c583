/* SPDX-License-Identifier: BSD-3-Clause */
/* audit.c: see audit.h. Numbers and masks are the specification's, spelled
 * out here a second time so that no mistake is shared with format.h.
 */
#include "audit.h"

#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define COPIED      (UINT64_C(1) << 63)
#define COMPRESSED  (UINT64_C(1) << 62)

/* What a host cluster is used for. Only L2 tables, data and compressed data
 * may be used more than once. */
enum use { FREE, HEADER, REFTABLE, REFBLOCK, L1, SNAPSHOTS, L2, DATA, PACKED };

static const char *const use_names[] = {
    "nothing", "the header", "the refcount table", "a refcount block",
    "an L1 table", "the snapshot table", "an L2 table", "data",
    "compressed data"
};

struct cluster {
    uint32_t nr_refs;
    enum use use;
    uint64_t guest_cluster; /* L2: L1 index; DATA: which one it holds */
};

struct image_bytes {
    const unsigned char *bytes;
    uint64_t nr_bytes;
    unsigned version, cluster_bits, refcount_order;
    bool is_extended; /* L2 entries of 128 bits */
    bool is_outside;  /* guest data are in a data file */
    uint64_t cluster_size;
    uint64_t reftable_off, reftable_entries;
    struct cluster *clusters;
    uint64_t nr_clusters; /* those of the file, and some past its end */
    struct audit *result;
};

static void
corruption(struct image_bytes *im, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void
corruption(struct image_bytes *im, const char *fmt, ...)
{
    va_list ap;

    if (im->result->nr_corruptions++ > 0)
        return;
    va_start(ap, fmt);
    vsnprintf(im->result->first, sizeof im->result->first, fmt, ap);
    va_end(ap);
}

/* A big-endian number; what lies past the end of the file reads as 0. */
static uint64_t
number_at(const struct image_bytes *im, uint64_t off, unsigned nr_bytes)
{
    uint64_t n = 0;

    if (nr_bytes == 8 && im->nr_bytes >= 8 && off <= im->nr_bytes - 8) {
        memcpy(&n, im->bytes + off, 8);
        return be64toh(n);
    }
    for (unsigned i = 0; i < nr_bytes; i++)
        n = n << 8 | (off + i < im->nr_bytes ? im->bytes[off + i] : 0);
    return n;
}

static uint64_t
refcount_at(const struct image_bytes *im, uint64_t host_cluster)
{
    uint64_t per_block = (im->cluster_size * 8) >> im->refcount_order;
    uint64_t block, off, bit;
    unsigned width = 1U << im->refcount_order;

    if (host_cluster / per_block >= im->reftable_entries)
        return 0;
    block = number_at(im, im->reftable_off + host_cluster / per_block * 8, 8);
    block &= ~UINT64_C(0x1ff);
    if (block == 0)
        return 0;
    bit = host_cluster % per_block * width;
    off = block + bit / 8;
    if (width >= 8)
        return number_at(im, off, width / 8);
    return number_at(im, off, 1) >> (bit % 8) & ((1U << width) - 1);
}

/* Something refers to the clusters that [off, off + nr_bytes) touches. */
static void
refer(struct image_bytes *im, enum use use, uint64_t guest_cluster,
      uint64_t off, uint64_t nr_bytes)
{
    uint64_t first = off >> im->cluster_bits;
    uint64_t last = (off + nr_bytes - 1) >> im->cluster_bits;

    if (use != PACKED && off % im->cluster_size != 0) {
        corruption(im, "%s at 0x%" PRIx64 " is not aligned",
                   use_names[use], off);
        return;
    }
    if (last >= im->nr_clusters || nr_bytes > UINT32_MAX) {
        corruption(im, "%s at 0x%" PRIx64 " lies outside the file",
                   use_names[use], off);
        return;
    }
    for (uint64_t c = first; c <= last; c++) {
        struct cluster *cl = &im->clusters[c];

        if (cl->use != FREE && (cl->use != use || use < L2))
            corruption(im, "cluster 0x%" PRIx64 " is %s and %s", c,
                       use_names[cl->use], use_names[use]);
        else if (cl->use == use && use != PACKED &&
                 cl->guest_cluster != guest_cluster)
            corruption(im, "cluster 0x%" PRIx64 " is %s of 0x%" PRIx64
                       " and of 0x%" PRIx64, c, use_names[use],
                       cl->guest_cluster, guest_cluster);
        cl->use = use;
        cl->guest_cluster = guest_cluster;
        cl->nr_refs++;
    }
}

static uint32_t
nr_references(const struct image_bytes *im, uint64_t off)
{
    uint64_t c = off >> im->cluster_bits;

    return c < im->nr_clusters ? im->clusters[c].nr_refs : 0;
}

static void
check_copied(struct image_bytes *im, bool active, uint64_t entry,
             uint64_t off)
{
    uint64_t refcount = refcount_at(im, off >> im->cluster_bits);

    if (!active)
        return;
    if ((entry & COPIED) && refcount != 1) {
        corruption(im, "COPIED is set on 0x%" PRIx64 ", refcount %" PRIu64,
                   off, refcount);
        if (nr_references(im, off) == 1 && refcount > 1)
            im->result->nr_miscopied++;
        else if (nr_references(im, off) == 1)
            im->result->nr_uncounted++;
    }
    if (!(entry & COPIED) && refcount == 1)
        im->result->nr_uncopied++;
}

/* What the second word of an extended entry may not say: bit i, subcluster i
 * is allocated; bit 32 + i, it reads as zeroes. */
static void
check_bitmap(struct image_bytes *im, uint64_t guest_cluster, uint64_t entry,
             uint64_t bitmap)
{
    uint32_t allocated = bitmap, zero = bitmap >> 32;
    const char *what = NULL;

    if ((entry & COMPRESSED) && bitmap != 0)
        what = "has a bitmap, and is compressed";
    else if (allocated & zero)
        what = "has a subcluster that is allocated and zero";
    else if (!(entry & COMPRESSED) && allocated && !(entry & OFFSET_MASK)
             && !(im->is_outside && (entry & COPIED)))
        what = "has allocated subclusters, and no offset";
    if (what)
        corruption(im, "L2 entry 0x%" PRIx64 " of cluster 0x%" PRIx64 " %s",
                   entry, guest_cluster, what);
}

/* In a data file each cluster is at its guest offset, and COPIED says that one
 * is at offset 0. */
static void
check_outside(struct image_bytes *im, bool active, bool count,
              uint64_t guest_cluster, uint64_t entry)
{
    uint64_t off = entry & OFFSET_MASK;

    if (off == 0 && !(entry & COPIED))
        return;
    if (off != guest_cluster << im->cluster_bits)
        corruption(im, "L2 entry 0x%" PRIx64 " of cluster 0x%" PRIx64
                   " leads elsewhere", entry, guest_cluster);
    im->result->nr_data += active && count;
}

static void
walk_l2_entry(struct image_bytes *im, bool active, bool count,
              uint64_t guest_cluster, uint64_t entry)
{
    uint64_t off = entry & OFFSET_MASK;

    if (entry & COMPRESSED) {
        unsigned bits = 62 - (im->cluster_bits - 8);
        uint64_t at = entry & ((UINT64_C(1) << bits) - 1);
        uint64_t sectors = (entry & ~COMPRESSED & ~COPIED) >> bits;

        if (entry & COPIED)
            corruption(im, "COPIED is set on compressed data");
        if (count)
            refer(im, PACKED, 0, at, (sectors + 1) * 512 - at % 512);
        return;
    }
    if ((entry & UINT64_C(0x3f000000000001fe)) ||
        ((entry & 1) && (im->version == 2 || im->is_extended)))
        corruption(im, "L2 entry 0x%" PRIx64 " of cluster 0x%" PRIx64
                   " has reserved bits", entry, guest_cluster);
    if (im->is_outside) {
        check_outside(im, active, count, guest_cluster, entry);
        return;
    }
    if (off == 0) {
        if (entry & COPIED)
            corruption(im, "L2 entry 0x%" PRIx64 " without an offset", entry);
        return;
    }
    if (count) {
        refer(im, DATA, guest_cluster, off, im->cluster_size);
        im->result->nr_data += active;
    } else {
        check_copied(im, active, entry, off);
    }
}

static void
walk_l2(struct image_bytes *im, bool active, bool count, uint64_t l1_index,
        uint64_t l2_off)
{
    unsigned entry_bytes = im->is_extended ? 16 : 8;
    uint64_t nr = im->cluster_size / entry_bytes;

    for (uint64_t i = 0; i < nr; i++) {
        uint64_t at = l2_off + i * entry_bytes, bitmap;
        uint64_t entry = number_at(im, at, 8);

        if (im->is_extended && (bitmap = number_at(im, at + 8, 8)) != 0)
            check_bitmap(im, l1_index * nr + i, entry, bitmap);
        if (entry != 0)
            walk_l2_entry(im, active, count, l1_index * nr + i, entry);
    }
}

/* Twice for each table: first counting references, then checking COPIED. */
static void
walk_l1(struct image_bytes *im, bool active, bool count, uint64_t l1_off,
        uint64_t l1_entries)
{
    if (l1_entries > (32 << 20) / 8) {
        corruption(im, "L1 table of %" PRIu64 " entries", l1_entries);
        return;
    }
    if (count && l1_entries > 0) {
        refer(im, L1, 0, l1_off, l1_entries * 8);
        if (l1_off + l1_entries * 8 > im->nr_bytes)
            corruption(im, "L1 table past the end of the file");
    }
    for (uint64_t i = 0; i < l1_entries; i++) {
        uint64_t l1e = number_at(im, l1_off + i * 8, 8);
        uint64_t l2_off = l1e & OFFSET_MASK;

        if (l1e & UINT64_C(0x7f000000000001ff))
            corruption(im, "L1 entry 0x%" PRIx64 " has reserved bits", l1e);
        if (l2_off == 0)
            continue;
        if (count)
            refer(im, L2, i, l2_off, im->cluster_size);
        else
            check_copied(im, active, l1e, l2_off);
        if (l2_off % im->cluster_size == 0)
            walk_l2(im, active, count, i, l2_off);
    }
}

static void
walk_snapshots(struct image_bytes *im)
{
    uint64_t nr = number_at(im, 60, 4), table = number_at(im, 64, 8);
    uint64_t off = table;

    for (uint64_t i = 0; i < nr; i++) {
        uint64_t name_bytes = number_at(im, off + 12, 2) +
                              number_at(im, off + 14, 2);

        if (off + 40 > im->nr_bytes) {
            corruption(im, "snapshot table past the end of the file");
            return;
        }
        walk_l1(im, false, true, number_at(im, off, 8),
                number_at(im, off + 8, 4));
        off += 40 + number_at(im, off + 36, 4) + name_bytes;
        off = (off + 7) & ~UINT64_C(7);
    }
    if (nr > 0)
        refer(im, SNAPSHOTS, 0, table, off - table);
}

static void
walk_reftable(struct image_bytes *im)
{
    if (im->reftable_entries == 0) {
        corruption(im, "no refcount table");
        return;
    }
    refer(im, REFTABLE, 0, im->reftable_off, im->reftable_entries * 8);
    for (uint64_t i = 0; i < im->reftable_entries; i++) {
        uint64_t entry = number_at(im, im->reftable_off + i * 8, 8);

        if (entry & 0x1ff)
            corruption(im, "refcount table entry %" PRIu64
                       " has reserved bits", i);
        if (entry == 0)
            continue;
        refer(im, REFBLOCK, 0, entry, im->cluster_size);
        if (entry >= im->nr_bytes)
            corruption(im, "refcount block past the end of the file");
    }
}

static bool
sixty_four_are_zero(const struct image_bytes *im, uint64_t block,
                    uint64_t index)
{
    uint64_t off = block + ((index << im->refcount_order) / 8);

    for (unsigned i = 0; i < 1U << im->refcount_order; i++) {
        if (number_at(im, off + i * 8, 8) != 0)
            return false;
    }
    return true;
}

static void
compare_refcounts(struct image_bytes *im)
{
    uint64_t per_block = (im->cluster_size * 8) >> im->refcount_order;

    for (uint64_t c = 0; c < im->nr_clusters; c++) {
        uint64_t refcount = refcount_at(im, c);
        struct cluster *cl = &im->clusters[c];

        im->result->nr_uncounted += refcount < cl->nr_refs;
        if (refcount < cl->nr_refs)
            corruption(im, "cluster 0x%" PRIx64 " (%s) has refcount %" PRIu64
                       " and %u references", c, use_names[cl->use], refcount,
                       cl->nr_refs);
        im->result->nr_leaks += refcount > cl->nr_refs;
    }

    /* Past what can have references every refcount is a leak. Blocks are
     * mostly zeroes there: 64 refcounts at a time. */
    for (uint64_t c = im->nr_clusters;
         c < im->reftable_entries * per_block; c++) {
        uint64_t block = number_at(im, im->reftable_off + c / per_block * 8,
                                   8);

        if (block == 0)
            c += per_block - c % per_block - 1;
        else if (c % 64 == 0 && sixty_four_are_zero(im, block, c % per_block))
            c += 63;
        else
            im->result->nr_leaks += refcount_at(im, c) != 0;
    }
}

static bool
read_header(struct image_bytes *im)
{
    uint64_t incompatible;

    im->version = number_at(im, 4, 4);
    im->cluster_bits = number_at(im, 20, 4);
    if (number_at(im, 0, 4) != 0x514649fb ||
        im->version < 2 || im->version > 3 ||
        im->cluster_bits < 9 || im->cluster_bits > 21) {
        corruption(im, "not a qcow2 header");
        return false;
    }
    im->cluster_size = UINT64_C(1) << im->cluster_bits;
    im->refcount_order = im->version == 2 ? 4 : number_at(im, 96, 4);
    im->reftable_off = number_at(im, 48, 8);
    im->reftable_entries = number_at(im, 56, 4) * (im->cluster_size / 8);
    if (im->refcount_order > 6 || im->reftable_entries > (8 << 20) / 8) {
        corruption(im, "refcount geometry out of range");
        return false;
    }
    incompatible = im->version == 2 ? 0 : number_at(im, 72, 8);
    im->is_extended = incompatible & 16;
    im->is_outside = incompatible & 4;
    if (im->is_extended && im->cluster_bits < 14)
        corruption(im, "subclusters of less than a sector");
    im->result->dirty = incompatible & 1;
    im->result->corrupt = incompatible & 2;
    im->result->lazy = im->version > 2 && number_at(im, 80, 8) & 1;
    return true;
}

void
audit_image(const unsigned char *bytes, uint64_t nr_bytes, struct audit *a)
{
    struct image_bytes im = {
        .bytes = bytes, .nr_bytes = nr_bytes, .result = a
    };

    memset(a, 0, sizeof *a);
    if (!read_header(&im))
        return;

    /* A table or cluster may have been given a place past the end of the
     * file, where it reads as zeroes. */
    im.nr_clusters = (nr_bytes + im.cluster_size - 1) / im.cluster_size + 64;
    im.clusters = calloc(im.nr_clusters, sizeof *im.clusters);
    if (!im.clusters)
        abort();
    refer(&im, HEADER, 0, 0, im.cluster_size);
    walk_reftable(&im);
    walk_l1(&im, true, true, number_at(&im, 40, 8), number_at(&im, 36, 4));
    walk_snapshots(&im);
    walk_l1(&im, true, false, number_at(&im, 40, 8), number_at(&im, 36, 4));
    compare_refcounts(&im);
    free(im.clusters);
}

unsigned
audit_nr_mendable(const struct audit *a)
{
    return a->nr_miscopied + (a->dirty && a->lazy ? a->nr_uncounted : 0);
}

bool
audit_is_clean(const struct audit *a)
{
    return a->nr_corruptions == 0 && a->nr_uncopied == 0 &&
           a->nr_leaks == 0 && !a->dirty && !a->corrupt;
}
