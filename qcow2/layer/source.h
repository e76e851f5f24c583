/* SPDX-License-Identifier: BSD-3-Clause */
/* source.h: one layer of a disk as it is read from above, the one value
 * that says where bytes are, and the backing chain made of layers.
 */
#ifndef QCOW2_SOURCE_H
#define QCOW2_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/entry.h"
#include "layer/store.h"
#include "qcow2.h"
#include "storage/io.h"

struct source;

/* A run of guest bytes of one kind, contiguous on the host if it has a place
 * there. Everybody above map.c speaks this instead of L2 entries.
 */
struct mapping {
    enum map_kind kind;
    uint64_t nr_bytes;       /* how far it holds, from the offset asked */
    struct source *source;   /* the layer it is in */

    /* MAP_DATA; MAP_ZERO with has_host (a preallocated cluster), and
     * MAP_UNALLOCATED with it (a subcluster): place of the first byte asked
     * for. MAP_COMPRESSED: of the compressed data. */
    uint64_t host_off;
    bool has_host;
    bool copied;             /* ours alone: may be written in place (I4);
                              * of layer 0 only */

    uint32_t compressed_len; /* MAP_COMPRESSED: at most, may end past EOF */
    uint32_t skip;           /* MAP_COMPRESSED: where in the decompressed
                              * cluster the first byte asked for is */
};

/* What is to be read of a compressed cluster of a source. */
struct compressed_part {
    uint64_t guest_off;      /* of the cluster */
    uint64_t host_off;       /* as in its mapping, */
    uint32_t compressed_len;
    uint32_t skip;
    size_t nr_bytes;         /* at most to the cluster's end */
    void *buf;
};

/* All of a MAP_COMPRESSED mapping that a lookup of guest_off gave. */
static inline struct compressed_part
compressed_part_of(const struct mapping *m, uint64_t guest_off, void *buf)
{
    return (struct compressed_part){
        .guest_off = guest_off - m->skip,
        .host_off = m->host_off,
        .compressed_len = m->compressed_len,
        .skip = m->skip,
        .nr_bytes = m->nr_bytes,
        .buf = buf,
    };
}

/* What a layer says is below it. The strings are the layer's. */
struct backing_name {
    const char *file;   /* NULL: nothing is */
    const char *format; /* as declared; NULL: it is not */
    bool can_declare;   /* there is a place for it */
};

struct source_ops {
    /* Maps guest_off (< size), looking nr_bytes far, both inside size. */
    int (*lookup)(struct source *s, uint64_t guest_off, uint64_t nr_bytes,
                  struct mapping *m, struct qcow2_error *err);

    /* Reads parts of compressed clusters that lookup gave, in ascending
     * order. NULL: has none. */
    int (*read_compressed)(struct source *s,
                           const struct compressed_part *parts, unsigned nr,
                           struct qcow2_error *err);

    /* Lookups from `from` on up to `to` will come: reads at once what they
     * need, and tells how far that goes. NULL: nothing is to be read. */
    uint64_t (*preload)(struct source *s, uint64_t from, uint64_t to);

    /* What lookups in [from, to) left in a cache is not needed again soon.
     * NULL: nothing is left. */
    void (*forget)(struct source *s, uint64_t from, uint64_t to);

    /* What is below it. NULL: the format has no backing files. */
    struct backing_name (*backing)(const struct source *s);

    /* Closes a layer that is not the disk itself, with its file. */
    void (*free)(struct source *s);

    /* Holes of the file are holes of the layer (raw). */
    bool has_file_holes;

    enum qcow2_format format; /* of the layer; QCOW2: it is a struct view */
};

/* Embedded in struct view (qcow2) and struct raw. */
struct source {
    const struct source_ops *ops;
    struct io *io;       /* the layer's file */
    struct store *data;  /* has what is MAP_DATA */
    uint64_t size; /* guest bytes; past them a layer above reads zeroes */
    unsigned unit_bits;  /* log2 of the bytes that its tables tell apart;
                          * 0: it has none */
};

static inline struct backing_name
source_backing(const struct source *s)
{
    return s->ops->backing ? s->ops->backing(s)
                           : (struct backing_name){ .file = NULL };
}

/* The file with the bytes of a mapping of this kind, which its host offset is
 * in.
 */
static inline struct io *
source_file(const struct source *s, bool is_compressed)
{
    return is_compressed ? s->io : s->data->io;
}

/* Is the file one that the layer consists of? ino 0 is none. */
static inline bool
source_has_file(const struct source *s, uint64_t dev, uint64_t ino)
{
    return ino != 0 && ((s->io->dev == dev && s->io->ino == ino)
                        || (s->data->io->dev == dev
                            && s->data->io->ino == ino));
}

/* A chain of layers; layer 0 is the disk itself. It is a value: it does not
 * change once it is made, and a disk whose chain changes gets another one.
 * Requests borrow the disk's chain for as long as they hold its request lock,
 * which a change takes exclusively, so reading counts nothing. All others hold
 * a reference.
 */
struct source_chain {
    unsigned nr_layers;
    struct source **layers;    /* used by the chain, unless they are only
                                * borrowed from its maker */
    struct resolver *resolver; /* of deep chains; NULL: walk */
    unsigned nr_refs;          /* atomic */

    /* Ends the use of the layers, and frees the struct alone. */
    void (*free)(struct source_chain *chain);
};

/* Maps guest bytes through the chain from layer `first` on. The result is
 * never MAP_UNALLOCATED in the end: what no layer has is MAP_ZERO with
 * source NULL. *depth (may be NULL) is the layer that decided. nr_bytes must
 * not be 0; offsets past the size of layer `first` are MAP_ZERO.
 */
int source_chain_lookup(const struct source_chain *chain, unsigned first,
                        uint64_t guest_off, uint64_t nr_bytes,
                        struct mapping *m, unsigned *depth,
                        struct qcow2_error *err);

/* The same without the resolver. */
int source_chain_walk(const struct source_chain *chain, unsigned first,
                      uint64_t guest_off, uint64_t nr_bytes,
                      struct mapping *m, unsigned *depth,
                      struct qcow2_error *err);

/* Does [from, to) read as zeroes from layer `first` on, as far as tables tell?
 */
int source_chain_is_zero(const struct source_chain *chain, unsigned first,
                         uint64_t from, uint64_t to, bool *zero,
                         struct qcow2_error *err);

/* A chain of one layer, with one reference. The layer is the caller's. */
struct source_chain *source_chain_new(struct source *top,
                                      struct qcow2_error *err);

/* One reference more, and one less: the last one frees the chain, which may
 * close files, so no lock is held. NULL is fine for put. Any thread.
 */
struct source_chain *source_chain_get(struct source_chain *chain);
void source_chain_put(struct source_chain *chain);

/* A raw file as a layer. raw_new takes over io (also on failure). */
struct source *raw_new(struct io *io, struct qcow2_error *err);
void raw_free(struct source *s); /* closes io */

#endif /* QCOW2_SOURCE_H */
