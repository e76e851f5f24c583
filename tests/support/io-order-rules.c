/* SPDX-License-Identifier: BSD-3-Clause */
/* io-order-rules.c: what a write may change, given what is durable and what
 * is pending; the rules are told in io-order.h.
 *
 * Roles of units are collected from the durable world at every barrier
 * that made metadata durable, and only added to by writes in between: until
 * the next barrier any old reference may still come back.
 */
#include "io-order-private.h"

#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "base/checked.h"

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static void
violation(struct order *o, const struct op *op, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
violation(struct order *o, const struct op *op, const char *fmt, ...)
{
    static const char *const names[] = {
        "write", "zero", "punch", "truncate"
    };
    char text[512];
    va_list ap;
    int n = 0;

    if (op)
        n = snprintf(text, sizeof text, "%s 0x%" PRIx64 "+0x%" PRIx64 ": ",
                     names[op->kind], op->off, op->nr_bytes);
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof text - n, fmt, ap);
    va_end(ap);
    if (!o->report) {
        fprintf(stderr, "order: %s\n", text);
        abort();
    }
    if (o->report->nr_violations++ == 0)
        memcpy(o->report->first, text, sizeof text);
}

static bool
understand_header(struct order *o)
{
    uint64_t incompatible;

    o->version = order_number(o, o->durable, 4, 4);
    o->cluster_bits = order_number(o, o->durable, 20, 4);
    if (order_number(o, o->durable, 0, 4) != 0x514649fb
        || o->version < 2 || o->version > 3
        || o->cluster_bits < 9 || o->cluster_bits > 21)
        return false;
    incompatible = o->version == 2 ? 0 : order_number(o, o->durable, 72, 8);
    o->refcount_order = o->version == 2 ? 4
                                        : order_number(o, o->durable, 96, 4);
    o->cluster_size = UINT64_C(1) << o->cluster_bits;
    o->l2_entry_bytes = incompatible & 0x10 ? 16 : 8;
    o->unit_bits = o->cluster_bits - (incompatible & 0x10 ? 5 : 0);
    /* Dirty, corrupt, compression type, extended L2 entries. */
    return o->refcount_order <= 6 && (incompatible & ~UINT64_C(0x1b)) == 0
           && o->unit_bits >= 9;
}

static void
count_role(struct order *o, uint64_t c, unsigned role, void *opaque)
{
    struct unit *units = opaque;

    units[c].roles |= role;
    if (role & (ROLE_L2 | ROLE_DATA | ROLE_COMPRESSED | ROLE_RESERVED))
        units[c].nr_refs++;
    (void)o;
}

static void
add_role(struct order *o, uint64_t c, unsigned role, void *opaque)
{
    o->units[c].roles |= role;
    (void)opaque;
}

/* What was known of a unit, given its new roles. */
static void
carry_over(const struct order *o, struct unit *new,
           const struct unit *old)
{
    /* What a write that failed did not name after all is as it was. */
    bool was_shown = old->durable_roles & ROLES_SHOWN;
    bool is_reserved = new->roles & ROLE_RESERVED;

    if (new->roles & ROLES_SHOWN) {
        free(old->covered);
    } else if (was_shown
               || (old->durable_roles & ROLE_RESERVED && !is_reserved)) {
        new->hidden_since = o->seq;
        new->kept = is_reserved;
        free(old->covered);
    } else {
        new->hidden_since = old->hidden_since;
        new->kept = old->kept;
        new->covered = old->covered;
    }
}

static bool
is_dirty(const struct order *o, const unsigned char *world)
{
    return o->version >= 3 && order_number(o, world, 72, 8) & 1;
}

static bool
is_lazy(const struct order *o, const unsigned char *world)
{
    return o->version >= 3 && order_number(o, world, 80, 8) & 1;
}

/* COPIED on what nobody shares, with a refcount above 1: the next open mends
 * that, if the dirty bit is set, and version 2 has no such bit. With lazy
 * refcounts it mends those that are too low as well: but then the bit must be
 * durable before, and not be on its way out. */
static unsigned
nr_tolerated(const struct order *o, const unsigned char *world,
             const struct audit *a)
{
    unsigned nr = 0;

    if (o->version == 2 || is_dirty(o, o->durable) || is_dirty(o, world))
        nr += a->nr_miscopied;
    if (is_dirty(o, o->durable) && is_dirty(o, world) && is_lazy(o, world))
        nr += a->nr_uncounted;
    return nr;
}

static bool
is_consistent(const struct order *o)
{
    struct audit a;

    audit_image(o->durable, o->capacity, &a);
    return a.nr_corruptions == nr_tolerated(o, o->durable, &a);
}

/* Damage that was there is not the writers': the rules hold for an image
 * that is consistent when it is opened, or when its dirty bit goes. */
static void
judge(struct order *o)
{
    bool was_settled = o->is_settled;

    o->is_settled = o->is_image && !is_dirty(o, o->durable);
    if (o->is_settled && !was_settled && !o->is_sound)
        o->is_sound = is_consistent(o);
}

void
order_rescan(struct order *o)
{
    struct walk w = { .o = o, .world = o->durable, .fn = count_role };
    struct unit *old = o->units;
    uint64_t nr_old = o->nr_units;

    o->is_image = understand_header(o);
    judge(o);
    o->nr_units = o->is_image ? o->capacity >> o->unit_bits : 0;
    o->units = must_have(calloc(o->nr_units + 1, sizeof *old));
    w.opaque = o->units;
    if (o->is_image)
        order_walk(&w);
    for (uint64_t c = 0; c < o->nr_units; c++)
        o->units[c].durable_roles = o->units[c].roles;
    for (uint64_t c = 0; c < nr_old; c++) {
        if (c < o->nr_units)
            carry_over(o, &o->units[c], &old[c]);
        else
            free(old[c].covered);
    }
    free(old);
    if (o->is_image && o->pending) {
        w = (struct walk){ .o = o, .world = o->worst, .fn = add_role };
        order_walk(&w);
    }
}

/* Operations on worlds. */

static void
apply_op(const struct order *o, unsigned char *world, const struct op *op)
{
    switch (op->kind) {
    case OP_WRITE:
        memcpy(world + op->off, op->data, op->nr_bytes);
        break;
    case OP_ZERO:
    case OP_PUNCH:
        memset(world + op->off, 0, op->nr_bytes);
        break;
    case OP_TRUNCATE:
        memset(world + op->off, 0, o->capacity - op->off);
        break;
    }
}

/* The index-th refcount in a refcount block; big-endian above 8 bits, from
 * the low bits of a byte up below.
 */
static uint64_t
get_refcount(const struct order *o, const unsigned char *block,
             uint64_t index)
{
    unsigned width = 1U << o->refcount_order;
    uint64_t n = 0;

    if (width < 8)
        return block[index * width / 8] >> index * width % 8
               & ((1U << width) - 1);
    for (unsigned i = 0; i < width / 8; i++)
        n = n << 8 | block[index * (width / 8) + i];
    return n;
}

static void
set_refcount(const struct order *o, unsigned char *block, uint64_t index,
             uint64_t n)
{
    unsigned width = 1U << o->refcount_order;

    if (width < 8) {
        unsigned shift = index * width % 8;
        unsigned char *p = &block[index * width / 8];

        *p = (*p & ~(((1U << width) - 1) << shift)) | n << shift;
        return;
    }
    for (unsigned i = width / 8; i-- > 0; n >>= 8)
        block[index * (width / 8) + i] = n;
}

static uint64_t
unit_size(const struct order *o)
{
    return UINT64_C(1) << o->unit_bits;
}

/* Refcounts of the unit c that op writes, as they were in worst before
 * (in `before`), become the smaller of the two.
 */
static void
lower_refcounts(struct order *o, uint64_t c, const unsigned char *before)
{
    unsigned char *block = o->worst + (c << o->unit_bits);

    uint64_t per_word = 64 >> o->refcount_order;

    for (uint64_t i = 0; i < unit_size(o) / 8 * per_word; i++) {
        uint64_t was;

        if (i % per_word == 0
            && memcmp(before + i / per_word * 8, block + i / per_word * 8, 8)
                   == 0) {
            i += per_word - 1;
            continue;
        }
        was = get_refcount(o, before, i);
        if (was < get_refcount(o, block, i))
            set_refcount(o, block, i, was);
    }
}

struct span {
    uint64_t first, end; /* units */
};

static struct span
span_of(const struct order *o, const struct op *op)
{
    struct span s;

    s.first = op->off >> o->unit_bits;
    s.end = op->kind == OP_TRUNCATE
            ? o->nr_units
            : min_u64(o->nr_units,
                      div_round_up(op->off + op->nr_bytes, unit_size(o)));
    return s;
}

static void
apply_to_worst(struct order *o, const struct op *op)
{
    unsigned char *before = NULL;
    struct span s = { 0, 0 };
    uint64_t start;

    if (o->is_image)
        s = span_of(o, op);
    start = s.first << o->unit_bits;
    for (uint64_t c = s.first; c < s.end && !before; c++) {
        if (!(o->units[c].roles & ROLE_REFBLOCK))
            continue;
        before = must_have(malloc((s.end - s.first) << o->unit_bits));
        memcpy(before, o->worst + start,
               (s.end - s.first) << o->unit_bits);
    }
    apply_op(o, o->worst, op);
    for (uint64_t c = s.first; c < s.end && before; c++)
        if (o->units[c].roles & ROLE_REFBLOCK)
            lower_refcounts(o, c, before + ((c << o->unit_bits) - start));
    free(before);
}

void
order_apply_pending(struct order *o)
{
    for (struct op *op = o->pending; op; op = op->next)
        apply_to_worst(o, op);
}

/* Enters a durable write to a unit that nothing shows. */
static void
cover(struct order *o, uint64_t c, const struct op *op)
{
    struct unit *cl = &o->units[c];
    uint64_t start = c << o->unit_bits;
    uint64_t from = max_u64(op->off, start) - start;
    uint64_t end = min_u64(op->off + op->nr_bytes - start, unit_size(o));

    if (op->begin <= cl->hidden_since)
        return;
    if (op->kind == OP_PUNCH && end - from == unit_size(o)) {
        /* As good as new: what follows belongs to the next owner. */
        free(cl->covered);
        cl->covered = NULL;
        cl->hidden_since = op->begin;
        return;
    }
    if (!cl->covered)
        cl->covered = must_have(calloc(1, unit_size(o) / 8));
    for (uint64_t b = from; b < end; b++)
        cl->covered[b / 8] |= 1 << b % 8;
}

bool
order_make_durable(struct order *o, const struct op *op)
{
    uint64_t nr_bytes = op->kind == OP_TRUNCATE ? o->capacity - op->off
                                                : op->nr_bytes;
    bool metadata = false;
    struct span s;

    apply_op(o, o->durable, op);
    memcpy(o->worst + op->off, o->durable + op->off, nr_bytes);
    if (!o->is_image)
        return false;
    s = span_of(o, op);
    for (uint64_t c = s.first; c < s.end; c++) {
        metadata |= (o->units[c].roles & ROLES_METADATA) != 0;
        /* What an entry that is not durable, or failed, would show is still
         * hidden: its owner may write it in place meanwhile. */
        if (op->kind != OP_TRUNCATE
            && !(o->units[c].durable_roles & ROLES_SHOWN))
            cover(o, c, op);
    }
    return metadata;
}

/* Rules on what begins to be shown. */

static bool
touches(const struct order *o, const struct op *op, uint64_t c)
{
    struct span s = span_of(o, op);

    return op->kind != OP_TRUNCATE && s.first <= c && c < s.end
           && op->begin > o->units[c].hidden_since;
}

/* The first byte of c that would show what was there before; -1: none. */
static int64_t
stale_byte(const struct order *o, uint64_t c)
{
    const unsigned char *bytes = o->durable + (c << o->unit_bits);
    const uint8_t *covered = o->units[c].covered;

    for (uint64_t b = 0; b < unit_size(o); b++)
        if (bytes[b] != 0 && !(covered && covered[b / 8] >> b % 8 & 1))
            return b;
    return -1;
}

/* Unit c, which nothing showed, gets a role in a possible world. */
static void
check_shown(struct order *o, uint64_t c, unsigned role, void *opaque)
{
    const struct op *op = opaque;
    struct unit *cl = &o->units[c];
    bool was_shown = cl->roles & ROLES_SHOWN;
    bool pending = false;
    int64_t stale;

    cl->roles |= role;
    if (was_shown || cl->kept || !(role & ROLES_SHOWN)
        || role & ROLE_COMPRESSED) /* has its own rule */
        return;
    for (const struct op *p = o->pending; p && !pending; p = p->next)
        pending = p != op && touches(o, p, c);

    /* Data written in place may be pending, but not all that was ever
     * written. An L2 table is valid in any state since it was made, so
     * changes may be pending. All else is complete before it is named. */
    if (pending && !(role & ROLE_L2) && !(role & ROLE_DATA && cl->covered))
        violation(o, op, "I2: cluster 0x%" PRIx64 " becomes reachable, but "
                  "its content is not durable", c);
    stale = stale_byte(o, c);
    if (stale >= 0)
        violation(o, op, "I2, I3: cluster 0x%" PRIx64 " becomes reachable "
                  "with an old byte at 0x%" PRIx64 ", not written since it "
                  "was free", c, (uint64_t)stale);
}

/* Compressed data is written once, before it is named; its neighbours in the
 * same cluster may be pending. */
static void
check_packed(struct order *o, uint64_t off, uint64_t nr_bytes,
             const struct op *op)
{
    for (const struct op *p = o->pending; p; p = p->next)
        if (p != op && p->kind != OP_TRUNCATE && p->off < off + nr_bytes
            && off < p->off + p->nr_bytes)
            violation(o, op, "I2: compressed data at 0x%" PRIx64 " becomes "
                      "reachable, but is not durable", off);
}

static bool
is_same(struct order_entry a, struct order_entry b)
{
    return (a.word & ~COPIED) == (b.word & ~COPIED) && a.bitmap == b.bitmap;
}

/* An L1 entry changes: does the new L2 table durably hold what it has from
 * the old one? */
static void
check_l2_copy(struct order *o, const struct op *op, uint64_t entry_off)
{
    uint64_t old = order_number(o, o->durable, entry_off, 8) & OFFSET_MASK;
    uint64_t new = order_number(o, o->worst, entry_off, 8) & OFFSET_MASK;

    if (old == 0 || new == 0 || old == new)
        return;
    for (uint64_t i = 0; i < o->cluster_size / o->l2_entry_bytes; i++) {
        struct order_entry was = order_l2_entry(o, o->durable, old, i);
        struct order_entry will = order_l2_entry(o, o->worst, new, i);
        struct order_entry is = order_l2_entry(o, o->durable, new, i);

        if ((was.word || was.bitmap) && is_same(will, was)
            && !is_same(is, was)) {
            violation(o, op, "I2: the copy at 0x%" PRIx64 " of the L2 table "
                      "at 0x%" PRIx64 " is not durable", new, old);
            return;
        }
    }
}

/* Rules on what is written over. */

/* Does op change durable bytes in [off, off + nr_bytes)? */
static bool
changes(const struct order *o, const struct op *op, uint64_t off,
        uint64_t nr_bytes)
{
    uint64_t from = max_u64(off, op->off);
    uint64_t end = min_u64(off + nr_bytes, op->off + op->nr_bytes);

    if (op->kind == OP_WRITE)
        return from < end && memcmp(o->durable + from,
                                    op->data + (from - op->off),
                                    end - from) != 0;
    for (; from < end; from++)
        if (o->durable[from] != 0)
            return true;
    return false;
}

/* Does op do no more than set feature bits (dirty, corrupt)? That is safe in
 * any order, and done when a change of the header failed. */
static bool
only_marks(const struct order *o, const struct op *op)
{
    if (op->kind != OP_WRITE || op->off != 72 || op->nr_bytes != 8)
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (o->durable[72 + i] & ~op->data[i])
            return false;
    return true;
}

/* Where the header's extensions end in the durable world. */
static uint64_t
extensions_end(const struct order *o)
{
    uint64_t off = o->version == 2 ? 72 : order_number(o, o->durable, 100, 4);

    while (off < o->cluster_size && order_number(o, o->durable, off, 4) != 0)
        off += 8 + round_up(order_number(o, o->durable, off + 4, 4), 8);
    return off + 8;
}

/* What follows the first sector may be written as long as the header neither
 * has it nor names it: for the next header, once it is durable. */
static void
check_header(struct order *o, const struct op *op)
{
    uint64_t name = order_number(o, o->durable, 8, 8);
    uint64_t name_bytes = order_number(o, o->durable, 16, 4);
    uint64_t end = extensions_end(o);

    if (end > SECTOR && changes(o, op, SECTOR, end - SECTOR))
        violation(o, op, "I5: changes header extensions past the first "
                  "sector");
    if (name + name_bytes > SECTOR
        && changes(o, op, max_u64(name, SECTOR),
                   name + name_bytes - max_u64(name, SECTOR)))
        violation(o, op, "I5: changes the backing file's name past the first "
                  "sector");
    if (!changes(o, op, 0, SECTOR) || only_marks(o, op))
        return;
    for (const struct op *p = o->pending; p; p = p->next)
        if (p->kind != OP_TRUNCATE && p->off < o->cluster_size)
            violation(o, op, "I5: changes the header while an earlier "
                      "change is not durable");
}

static void
check_packed_kept(struct order *o, uint64_t off, uint64_t nr_bytes,
                  const struct op *op)
{
    if (changes(o, op, off, nr_bytes))
        violation(o, op, "I6: changes compressed data at 0x%" PRIx64, off);
}

static void
ignore_role(struct order *o, uint64_t c, unsigned role, void *opaque)
{
    (void)o, (void)c, (void)role, (void)opaque;
}

/* Writes into a cluster that has compressed data: is it beside it? */
static void
check_beside_packed(struct order *o, const struct op *op)
{
    struct walk w = { .o = o, .world = o->durable, .fn = ignore_role,
                      .packed = check_packed_kept, .op = op };

    order_walk(&w);
}

/* Whoever owns metadata writes it, not zeroes it; whole slices of L2 tables
 * and refcount blocks, whole entries of the others; and no data with it. A
 * write of anything else that looks alike is for the audit.
 */
static void
check_owner(struct order *o, const struct op *op, uint64_t c)
{
    unsigned roles = o->units[c].roles;
    uint64_t start = round_down(c << o->unit_bits, o->cluster_size);
    uint64_t unit = roles & ROLE_HEADER ? 1
                    : roles & (ROLE_L2 | ROLE_REFBLOCK)
                        ? min_u64(o->cluster_size, 4096) : 8;
    struct span s = span_of(o, op);

    if (op->kind == OP_ZERO)
        violation(o, op, "I6: zeroes metadata in cluster 0x%" PRIx64, c);
    if ((op->off > start && op->off % unit != 0)
        || (op->off + op->nr_bytes < start + o->cluster_size
            && (op->off + op->nr_bytes) % unit != 0))
        violation(o, op, "I6: changes parts of entries or slices");
    for (uint64_t i = s.first; i < s.end; i++)
        if (o->units[i].roles & (ROLE_DATA | ROLE_COMPRESSED))
            violation(o, op, "I6: metadata in cluster 0x%" PRIx64 ", and "
                      "data in 0x%" PRIx64, c, i);
}

/* Unit c is written over: may it be? */
static void
check_target(struct order *o, const struct op *op, uint64_t c)
{
    const struct unit *cl = &o->units[c];
    uint64_t start = c << o->unit_bits;
    bool changed = changes(o, op, start, unit_size(o));

    if (op->kind == OP_TRUNCATE && cl->roles)
        violation(o, op, "I3: cuts off cluster 0x%" PRIx64 ", which is in "
                  "use", c);
    if (op->kind == OP_PUNCH && cl->roles & ROLES_SHOWN)
        violation(o, op, "I3: cluster 0x%" PRIx64 " is in use", c);
    if (!changed)
        return;
    if (cl->roles & ROLE_HEADER)
        check_header(o, op);
    if (cl->roles & ROLE_SNAPSHOTS)
        violation(o, op, "I5: changes a snapshot's table in place");
    if (cl->roles & ROLE_COMPRESSED)
        check_beside_packed(o, op);
    if (cl->roles & (ROLE_L2 | ROLE_DATA) && cl->nr_refs > 1)
        violation(o, op, "I3: changes in place cluster 0x%" PRIx64 ", which "
                  "has %u references", c, cl->nr_refs);
    if (cl->roles & ROLES_METADATA)
        check_owner(o, op, c);
}

/* A world that a cut may leave, with op in it. */
static void
check_world(struct order *o, const struct op *op, const unsigned char *world,
            const char *which)
{
    struct walk w = { .o = o, .world = world, .fn = check_shown,
                      .opaque = (void *)op, .packed = check_packed,
                      .op = op };
    struct audit a;

    audit_image(world, o->capacity, &a);
    if (a.nr_corruptions > nr_tolerated(o, world, &a))
        violation(o, op, "I1, I4: if a cut leaves %s: %s", which, a.first);
    order_walk(&w);
}

/* op changes metadata, and is in worst. */
static void
check_metadata(struct order *o, const struct op *op)
{
    unsigned char *saved = must_have(malloc(op->nr_bytes));
    struct span s = span_of(o, op);

    for (uint64_t c = s.first; c < s.end; c++) {
        uint64_t off = max_u64(op->off, c << o->unit_bits);
        uint64_t end = min_u64(op->off + op->nr_bytes,
                               (c + 1) << o->unit_bits);

        if (o->units[c].roles & ROLE_L1)
            for (; off + 8 <= end; off += 8)
                check_l2_copy(o, op, off);
    }
    memcpy(saved, o->durable + op->off, op->nr_bytes);
    apply_op(o, o->durable, op);
    check_world(o, op, o->durable, "this write alone");
    memcpy(o->durable + op->off, saved, op->nr_bytes);
    free(saved);
    check_world(o, op, o->worst, "all but raised refcounts");
}

void
order_check(struct order *o, struct op *op)
{
    bool metadata = false;
    struct span s;

    if (o->is_sound) {
        s = span_of(o, op);
        for (uint64_t c = s.first; c < s.end; c++) {
            check_target(o, op, c);
            metadata |= o->units[c].roles & ROLES_METADATA
                        && changes(o, op, c << o->unit_bits,
                                   unit_size(o));
        }
    }
    *o->pending_end = op;
    o->pending_end = &op->next;
    apply_to_worst(o, op);
    if (metadata && op->kind != OP_TRUNCATE)
        check_metadata(o, op);
}
