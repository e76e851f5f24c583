/* SPDX-License-Identifier: BSD-3-Clause */
/* io-order-private.h: what io-order.c keeps of an image, and the rules of
 * io-order-rules.c on it.
 */
#ifndef IO_ORDER_PRIVATE_H
#define IO_ORDER_PRIVATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "io-order.h"

/* What a host cluster is, in any world that a cut may leave; masks. */
enum {
    ROLE_HEADER = 1,
    ROLE_REFTABLE = 2,
    ROLE_REFBLOCK = 4,
    ROLE_L1 = 8,
    ROLE_L2 = 16,
    ROLE_SNAPSHOTS = 32,   /* the snapshot table, or an L1 table in it */
    ROLE_DATA = 64,
    ROLE_COMPRESSED = 128,
    ROLE_RESERVED = 256,   /* place of a zero cluster: nobody sees it */

    ROLES_METADATA = ROLE_HEADER | ROLE_REFTABLE | ROLE_REFBLOCK | ROLE_L1
                     | ROLE_L2 | ROLE_SNAPSHOTS,
    /* A guest may see what it holds. */
    ROLES_SHOWN = ROLES_METADATA | ROLE_DATA | ROLE_COMPRESSED,
};

/* What the rules tell apart: a cluster, or with extended L2 entries a
 * subcluster, as each of these is shown by a bit of its own. */
struct unit {
    unsigned roles;
    unsigned durable_roles; /* of them: what the last barrier left, without
                             * what was written, or failed to be, since */
    unsigned nr_refs;       /* durable references by L1 and L2 entries */
    uint64_t hidden_since;  /* number of the operation since which nothing
                             * shows it; 0: always */
    uint8_t *covered;       /* a bit a byte: durably written since then */
    bool kept;              /* reserved for the owner that showed it before,
                             * which may have written it again before that
                             * was durable: all of it is the owner's */
};

enum op_kind { OP_WRITE, OP_ZERO, OP_PUNCH, OP_TRUNCATE };

/* An operation that is not known to be durable. */
struct op {
    struct op *next;
    enum op_kind kind;
    uint64_t off, nr_bytes;  /* truncate: off is the new size */
    unsigned char *data;     /* OP_WRITE */
    uint64_t begin, end;     /* end 0: has not returned */
    bool failed;
};

struct order {
    struct io io;
    struct io *below;
    struct order_report *report;
    pthread_mutex_t lock;
    uint64_t seq;            /* counts beginnings and ends of operations */
    struct op *pending, **pending_end;

    uint64_t capacity;       /* bytes of both worlds */
    unsigned char *durable;
    unsigned char *worst;    /* all pending operations, but refcounts as
                              * low as any of them, or the durable one */

    bool is_image;           /* durable has a header we understand */
    bool is_settled;         /* and it has no dirty bit */
    bool is_sound;           /* and had no corruption: the rules hold */
    unsigned version, cluster_bits, refcount_order;
    unsigned l2_entry_bytes; /* 16: extended */
    unsigned unit_bits;
    uint64_t cluster_size, nr_units;
    struct unit *units;
};

#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define COPIED      (UINT64_C(1) << 63)
#define COMPRESSED  (UINT64_C(1) << 62)
#define ZERO        UINT64_C(1)
#define DATA_FILE   UINT64_C(4) /* of incompatible features */

enum { SECTOR = 512 };

/* io-order-walk.c. A number in a world; what it does not reach to is zero. */
uint64_t order_number(const struct order *o, const unsigned char *world,
                      uint64_t off, unsigned nr_bytes);

struct order_entry {
    uint64_t word, bitmap; /* bitmap 0: not extended */
};
struct order_entry order_l2_entry(const struct order *o,
                                  const unsigned char *world, uint64_t table,
                                  uint64_t index);

typedef void role_fn(struct order *o, uint64_t u, unsigned role,
                     void *opaque);

/* Compressed data has [off, off + nr_bytes); a descriptor leaves open where
 * in its last sector it ends, so that is cut off.
 */
typedef void packed_fn(struct order *o, uint64_t off, uint64_t nr_bytes,
                       const struct op *op);

struct walk {
    struct order *o;
    const unsigned char *world;
    role_fn *fn;
    void *opaque;
    packed_fn *packed;      /* or NULL */
    const struct op *op;    /* for it */
};

/* Passes fn the roles of every unit, once for each reference. */
void order_walk(const struct walk *w);

/* io-order-rules.c; all with the lock held. */

/* Reads geometry and roles anew from the durable world. */
void order_rescan(struct order *o);

/* Checks op, about to be done, and enters it into worst and pending. */
void order_check(struct order *o, struct op *op);

/* Puts op into the durable world, and worst on a par with it there. Did it
 * change metadata? */
bool order_make_durable(struct order *o, const struct op *op);

/* Enters all that is pending into worst, again. */
void order_apply_pending(struct order *o);

#endif /* IO_ORDER_PRIVATE_H */
