/* SPDX-License-Identifier: BSD-3-Clause */
/* format.h: the bytes of a qcow2 file: structures, bits, and the limits put
 * on what a file may claim. Section names are the specification's.
 */
#ifndef QCOW2_FORMAT_H
#define QCOW2_FORMAT_H

#include "base/bytes.h"

/* "Header" */
struct disk_header {
    be32 magic;
    be32 version;
    be64 backing_file_offset;
    be32 backing_file_size;
    be32 cluster_bits;
    be64 size;
    be32 crypt_method;
    be32 l1_size;
    be64 l1_table_offset;
    be64 refcount_table_offset;
    be32 refcount_table_clusters;
    be32 nb_snapshots;
    be64 snapshots_offset;
    /* Version 3 only; in version 2 extensions start here. */
    be64 incompatible_features;
    be64 compatible_features;
    be64 autoclear_features;
    be32 refcount_order;
    be32 header_length;
    /* Present if header_length > 104. */
    uint8_t compression_type;
    uint8_t padding[7];
};

enum {
    QCOW2_MAGIC = 0x514649fb, /* "QFI\xfb" */
    HEADER_V2_LENGTH = 72,
    HEADER_V3_MIN_LENGTH = 104,
    HEADER_V3_LENGTH = 112,
};

/* Places of fields that are rewritten alone (I5): each lies, with all that
 * must change together, inside the first sector. */
enum {
    HEADER_AT_BACKING_FILE = 8,       /* offset and size: 12 bytes */
    HEADER_AT_SIZE = 24,
    HEADER_AT_L1 = 36,                /* l1_size, l1_table_offset: 12 */
    HEADER_AT_REFCOUNT_TABLE = 48,    /* offset, clusters: 12 */
    HEADER_AT_SNAPSHOTS = 60,         /* nb_snapshots, offset: 12 */
    HEADER_AT_INCOMPATIBLE = 72,
    HEADER_AT_COMPATIBLE = 80,
    HEADER_AT_AUTOCLEAR = 88,
};

/* crypt_method */
enum { CRYPT_NONE = 0, CRYPT_AES = 1, CRYPT_LUKS = 2 };

/* incompatible_features */
#define INCOMPAT_DIRTY         (UINT64_C(1) << 0)
#define INCOMPAT_CORRUPT       (UINT64_C(1) << 1)
#define INCOMPAT_DATA_FILE     (UINT64_C(1) << 2)
#define INCOMPAT_COMPRESSION   (UINT64_C(1) << 3)
#define INCOMPAT_EXTENDED_L2   (UINT64_C(1) << 4)

/* compatible_features */
#define COMPAT_LAZY_REFCOUNTS  (UINT64_C(1) << 0)

/* autoclear_features */
#define AUTOCLEAR_BITMAPS      (UINT64_C(1) << 0)
#define AUTOCLEAR_RAW_DATA     (UINT64_C(1) << 1)

/* "Header extensions": each an 8-byte head and data padded to 8. */
struct disk_extension {
    be32 type;
    be32 length;
};
enum {
    EXT_END = 0x00000000,
    EXT_BITMAPS = 0x23852875,
    EXT_DATA_FILE_NAME = 0x44415441,
    EXT_CRYPT_HEADER = 0x0537be77,
    EXT_FEATURE_NAMES = 0x6803f857,
};
#define EXT_BACKING_FORMAT UINT32_C(0xe2792aca)

/* "Feature name table" */
struct disk_feature_name {
    uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
    uint8_t bit;
    char name[46]; /* padded with zeroes, not necessarily terminated */
};

/* "Bitmaps extension" */
struct disk_bitmaps_extension {
    be32 nb_bitmaps;
    be32 reserved;
    be64 directory_size;
    be64 directory_offset;
};

/* "Bitmap directory": entries of 24 bytes plus extra data plus the name,
 * padded to 8. */
struct disk_bitmap_entry {
    be64 table_offset;
    be32 table_size; /* entries */
    be32 flags;
    uint8_t type;
    uint8_t granularity_bits;
    be16 name_size;
    be32 extra_data_size;
};

/* "Bitmap table" */
#define BITMAP_OFFSET_MASK   UINT64_C(0x00fffffffffffe00)
#define BITMAP_RESERVED_MASK UINT64_C(0xff000000000001fe)
#define BITMAP_ALL_ONES      UINT64_C(1)
enum {
    BITMAP_IN_USE = 1 << 0,           /* it may be wrong */
    BITMAP_AUTO = 1 << 1,             /* it records changes */
    BITMAP_EXTRA_COMPATIBLE = 1 << 2, /* extra data need not be known */
    BITMAP_FLAGS = 7,                 /* all that are known */
    BITMAP_DIRTY_TRACKING = 1,        /* the one type that is known */
};

/* Version 1, of which nothing but QEMU's own reader (block/qcow.c) tells. An L1
 * entry is a host offset, or 0; an L2 entry, too, unless the cluster is
 * compressed: then the bits below 63 - cluster_bits are where it is, and those
 * above how many bytes it has. */
struct disk_qcow1_header {
    be32 magic;
    be32 version;
    be64 backing_file_offset;
    be32 backing_file_size;
    be32 mtime; /* of the backing file; nobody uses it */
    be64 size;
    uint8_t cluster_bits;
    uint8_t l2_bits;
    uint8_t padding[2];
    be32 crypt_method;
    be64 l1_table_offset;
};
enum { QCOW1_HEADER_LENGTH = 48 };
#define QCOW1_COMPRESSED (UINT64_C(1) << 63)

/* "Snapshots": entries padded to 8; extra data, id and name follow. */
struct disk_snapshot {
    be64 l1_table_offset;
    be32 l1_size;
    be16 id_size;
    be16 name_size;
    be32 date_sec;
    be32 date_nsec;
    be64 vm_clock_nsec;
    be32 vm_state_size;
    be32 extra_data_size;
};
struct disk_snapshot_extra {
    be64 vm_state_size;
    be64 disk_size;
    be64 icount;
};

/* "L1 table", "L2 table": entries are 64 bits, big-endian. */
#define L1_OFFSET_MASK    UINT64_C(0x00fffffffffffe00)
#define L1_RESERVED_MASK  UINT64_C(0x7f000000000001ff)
#define L2_OFFSET_MASK    UINT64_C(0x00fffffffffffe00)
#define L2_RESERVED_MASK  UINT64_C(0x3f000000000001fe)
#define ENTRY_COPIED      (UINT64_C(1) << 63)
#define L2_COMPRESSED     (UINT64_C(1) << 62)
#define L2_ZERO           (UINT64_C(1) << 0)

/* "Refcount table" */
#define REFTABLE_OFFSET_MASK   UINT64_C(0xfffffffffffffe00)
#define REFTABLE_RESERVED_MASK UINT64_C(0x00000000000001ff)

/* Limits on what a file may claim; I7. */
enum {
    MIN_CLUSTER_BITS = 9,
    MAX_CLUSTER_BITS = 21,
    /* With extended L2 entries: a subcluster has a sector at least. */
    MIN_EXTENDED_L2_CLUSTER_BITS = MIN_CLUSTER_BITS + 5,
    MAX_REFCOUNT_ORDER = 6,
    /* Of version 1; QEMU's own. MIN_CLUSTER_BITS and MAX_L1_BYTES are limits
     * there as well: 8 TiB in the clusters that QEMU makes. */
    QCOW1_MAX_CLUSTER_BITS = 16,
    QCOW1_MIN_L2_BITS = 6,
    QCOW1_MAX_L2_BITS = 13,
    /* QEMU's own; an L1 of this size maps 2 EiB of 2 MiB clusters. */
    MAX_L1_BYTES = 32 << 20,
    /* QEMU's own; enough for 16 TiB of host file even in its dearest
     * geometry of 64 KiB clusters and 64-bit refcounts. */
    MAX_REFTABLE_BYTES = 8 << 20,
    /* QEMU's own; every snapshot costs an L1 table besides. */
    MAX_SNAPSHOTS = 65536,
    MAX_SNAPSHOT_TABLE_BYTES = 64 << 20,
    MAX_SNAPSHOT_EXTRA_BYTES = 1024,
    /* Of the L1 tables of all snapshots of an image that are open at a time,
     * zeroes aside: two of the largest. Clients open what they like, and
     * tables may share all of their bytes. */
    MAX_OPEN_SNAPSHOT_L1_BYTES = 64 << 20,
    /* Of their L1 tables together, in an image that is written: who writes
     * remembers each, and a sparse file could have any number of them. */
    MAX_SNAPSHOT_L1_CLUSTERS = 4 << 20,
    /* QEMU's own. */
    MAX_BITMAPS = 65535,
    MAX_BITMAP_DIRECTORY_BYTES = 64 << 20,
    MAX_BITMAP_BYTES = 512 << 20,
    MAX_BITMAP_NAME_BYTES = 1023,
    MIN_BITMAP_GRANULARITY_BITS = 9,
    MAX_BITMAP_GRANULARITY_BITS = 31,
    /* What is remembered of changes until it is stored: a bit for each 64 KiB
     * of 32 TiB. Larger disks, and finer bitmaps, are marked in larger
     * pieces, which is too much and never too little. */
    MAX_BITMAP_MARKS_BYTES = 64 << 20,
    /* Of their tables together, in clusters, for the same reason. */
    MAX_BITMAP_TABLE_CLUSTERS = 4 << 20,
    /* Clusters of bitmaps, tables, and directory that are freed before the
     * first write; more stay allocated, for a check to find. A writer waits
     * for it, and each may cost 16 bytes. Enough for a bitmap of 1 TiB with a
     * bit for each 512 bytes, in clusters of 512 bytes. */
    MAX_FREED_BITMAP_CLUSTERS = 1 << 20,
    /* Of L2 tables that a repair gives another place, as theirs is shared: a
     * small file may claim any number of them. */
    MAX_MOVED_TABLE_BYTES = 256 << 20,
    /* Of L1 and L2 tables that are read to see that nothing else refers to
     * these: those of 2 TiB in clusters of 64 KiB. A writer waits for it. */
    MAX_SEARCHED_BYTES = 256 << 20,
    MAX_BACKING_NAME_BYTES = 1023, /* the specification's */
    MAX_DATA_FILE_NAME_BYTES = 4095, /* no longer path leads to a file */
    /* Layers below the disk: 1,000 are promised. Each costs a file
     * descriptor, and processes commonly have a few thousand. */
    MAX_CHAIN_DEPTH = 4096,
    /* Directories and URIs that are allowed for good. A file outside all of
     * them is looked for in each, which costs a descriptor. */
    MAX_ALLOW_LIST = 256,
    MAX_ALLOW_FILE_BYTES = 64 << 10, /* so many paths of usual length, and
                                      * comments on them */
};

/* Freed clusters that wait for a flush, before requests make one themselves:
 * what a client that never flushes can make the file longer by. In runs, for
 * the memory they take (1 MiB); in bytes, a part of the file, but not so
 * little that small disks flush all the time, nor so much that it matters to
 * the host of a large one.
 */
enum {
    MAX_QUARANTINE_RUNS = 65536,
    MIN_QUARANTINE_BYTES = 16 << 20,
    QUARANTINE_PART = 8,
};
#define MAX_QUARANTINE_BYTES (UINT64_C(16) << 30)

/* Offsets are 56 bits wide in tables. */
#define MAX_HOST_OFFSET (UINT64_C(1) << 56)

#endif /* QCOW2_FORMAT_H */
