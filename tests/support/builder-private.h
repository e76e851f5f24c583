/* SPDX-License-Identifier: BSD-3-Clause */
/* builder-private.h: between builder.c (what a recipe says),
 * builder-layout.c (the bytes it becomes) and builder-poke.c (what is
 * changed in them).
 */
#ifndef BUILDER_PRIVATE_H
#define BUILDER_PRIVATE_H

#include "builder.h"

enum slot_kind {
    SLOT_UNALLOCATED, SLOT_DATA, SLOT_ZERO, SLOT_ZERO_ALLOC, SLOT_COMPRESSED,
    SLOT_SUBCLUSTERS
};

struct slot {
    enum slot_kind kind;
    uint64_t host_off; /* COMPRESSED: of the first byte */
    bool has_place;    /* of its own; 0 may be one, in a data file */
    uint64_t seed;
    uint32_t packed_len;
    uint32_t allocated, zero; /* SUBCLUSTERS: a bit for each */
};

/* An L2 table, shared by nr_users views. */
struct table {
    unsigned nr_users;
    bool is_active;
    uint64_t host_off;
    struct slot slots[];
};

struct test_view {
    struct table **l1;
    uint32_t nr_l1;
    uint64_t l1_off;
    uint64_t size;
};

struct test_snapshot {
    struct test_view view;
    char id[64], name[64];
    uint32_t extra_len;
    uint64_t vm_state_clusters;
    uint64_t entry_off; /* in the snapshot table */
};

struct test_extension {
    uint32_t type, length;
    unsigned char data[512];
};

struct test_leak {
    uint64_t off, nr_bytes;
};

enum {
    MAX_TEST_SNAPSHOTS = 16, MAX_TEST_EXTENSIONS = 16, MAX_TEST_LEAKS = 16
};

struct builder {
    unsigned version, cluster_bits, refcount_order;
    uint32_t cluster_size;
    uint32_t min_l1_entries;
    char backing[1024], backing_format[64];
    uint64_t features[3]; /* incompatible, compatible, autoclear */
    bool zstd;
    uint32_t header_length;
    struct test_extension extensions[MAX_TEST_EXTENSIONS];
    unsigned nr_extensions;
    char data_file[64];   /* empty: data are in the image */
    unsigned char *data;  /* its bytes, in whole clusters */
    uint64_t nr_data_bytes;

    bool begun;           /* the geometry is fixed */
    bool laid_out;
    unsigned char *bytes;
    uint64_t nr_bytes, capacity;
    uint64_t packed_end;  /* compressed data may go on here; 0: nowhere */

    struct test_view active;
    struct test_snapshot snapshots[MAX_TEST_SNAPSHOTS];
    unsigned nr_snapshots;

    struct test_leak leaks[MAX_TEST_LEAKS];
    unsigned nr_leaks;

    uint64_t snapshots_off, snapshots_len;
    uint64_t reftable_off, reftable_clusters;
    char *pokes;          /* lines, kept for the end */
    size_t pokes_len;
};

_Noreturn void builder_mistake(const char *fmt, ...)
    __attribute__((format(printf, 1, 2)));

/* Of an L2 table; and the bytes of one. */
uint64_t builder_l2_entries(const struct builder *b);
unsigned builder_l2_entry_bytes(const struct builder *b);

/* New clusters at the end of the file, zeroed; the first's offset. */
uint64_t builder_alloc(struct builder *b, uint64_t nr_clusters);

void builder_put(struct builder *b, uint64_t off, unsigned nr_bytes,
                 uint64_t value);
uint64_t builder_get(const struct builder *b, uint64_t off,
                     unsigned nr_bytes);

/* The slot of a guest cluster, or NULL if there is no table for it. */
const struct slot *builder_slot(const struct builder *b,
                                const struct test_view *v,
                                uint64_t guest_cluster);

uint64_t builder_number(const char *s, const char **end);

void builder_layout(struct builder *b);
void builder_poke(struct builder *b, const char *line);
void builder_set_refcount(struct builder *b, uint64_t host_cluster,
                          uint64_t refcount);
uint64_t builder_get_refcount(const struct builder *b,
                              uint64_t host_cluster);

#endif /* BUILDER_PRIVATE_H */
