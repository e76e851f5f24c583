/* SPDX-License-Identifier: BSD-3-Clause */
/* repair.c: makes right what a check found wrong. The steps keep I1 and I4
 * at every moment, as far as the image had them at all, with barriers
 * between: COPIED goes where the refcount will not be 1; refcounts rise; they
 * fall; COPIED comes where they are 1; the image is said to be in order. Cut
 * short anywhere it can be run again.
 */
#include "base/checked.h"
#include "check/check-private.h"
#include "meta/refcount.h"

/* Bytes [from, to) of a refblock that are not as on disk. */
struct changed {
    uint64_t from, to;
};

static int
write_changed(struct check *c, uint32_t idx, bool raise, struct changed *ch,
              struct qcow2_error *err)
{
    uint64_t from = ch->from, nr_bytes = ch->to - ch->from;

    ch->from = ch->to = 0;
    if (nr_bytes == 0)
        return 0;
    return repair_write(c, raise ? "raise refcounts" : "lower refcounts",
                        c->table + from, nr_bytes, c->reftable[idx] + from,
                        err);
}

/* Raises, or lowers, what is wrong in one refblock. */
static int
repair_refblock(struct check *c, uint32_t idx, bool raise,
                struct qcow2_error *err)
{
    unsigned order = c->hdr->refcount_order;
    uint64_t first = scale_up(idx, c->refblock_bits);
    uint64_t end = first + (UINT64_C(1) << c->refblock_bits), next = 0;
    struct changed ch = { 0, 0 };

    if (check_read(c, c->table, c->cluster_size, c->reftable[idx], NULL, err)
        == -1)
        return -1;
    for (uint64_t cluster = first;
         (cluster = check_skip_zeroes(c, first, cluster, &next)) < end;
         cluster++) {
        uint64_t i = cluster - first;
        uint64_t stored = refcount_get(c->table, order, i);
        uint64_t settled = check_settled(c, cluster);
        uint64_t from = (i << order) / 8;

        if (settled == stored)
            continue;
        if (raise != (settled > stored)) {
            /* The first pass has it so on disk; in a plan it has not. */
            if (!raise)
                refcount_set(c->table, order, i, settled);
            continue;
        }
        if (from > ch.to + REPAIR_GAP_BYTES
            && write_changed(c, idx, raise, &ch, err) == -1)
            return -1;
        if (ch.to == 0)
            ch.from = from;
        refcount_set(c->table, order, i, settled);
        ch.to = div_round_up((i + 1) << order, 8);
    }
    return write_changed(c, idx, raise, &ch, err);
}

static int
repair_refcounts(struct check *c, bool raise, struct qcow2_error *err)
{
    uint8_t wrong = raise ? BLOCK_RAISE : BLOCK_LOWER;

    for (uint32_t i = 0; i < c->reftable_entries; i++)
        if (c->blocks[i] & BLOCK_USABLE && c->blocks[i] & wrong
            && repair_refblock(c, i, raise, err) == -1)
            return -1;
    return repair_barrier(c, err);
}

/* Is there anything that repair cannot mend, and that writes could make
 * worse? */
static bool
any_lasting(const struct check *c)
{
    for (unsigned i = 0; i < NR_PROBLEMS; i++)
        if (i != PROBLEM_COMPRESSED_DAMAGED
            && (problem_kinds[i].remedy == REMEDY_NONE
                || problem_kinds[i].remedy == REMEDY_COPY)
            && c->nr[i] > 0)
            return true;
    return false;
}

/* When no corruption is left, the image is closed properly and whole. */
static int
clear_features(struct check *c, struct qcow2_error *err)
{
    uint64_t features = c->hdr->incompatible
                        & ~(INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
    bool whole = c->options.repair == QCOW2_REPAIR_ALL
                 ? !any_lasting(c)
                 : c->result.corruptions == c->nr_true_when_lowered;
    be64 field = be64_make(features);

    if (!whole || features == c->hdr->incompatible)
        return 0;
    if (repair_write(c, "clear dirty and corrupt bit", &field, sizeof field,
                     HEADER_AT_INCOMPATIBLE, err) == -1)
        return -1;
    c->hdr->incompatible = features;
    return repair_barrier(c, err);
}

/* Without the extension no program warns of bitmaps that are gone. The others
 * move up, if all of them lie in the first sector (I5); else it stays, and
 * refers to nothing. */
static int
drop_extension(struct check *c, struct qcow2_error *err)
{
    unsigned char buf[HEADER_SECTOR_BYTES] = { 0 };
    struct header *h = c->hdr;
    uint64_t start = h->header_length, at = 0;
    unsigned nr = 0;

    if (c->flaws & 1u << HEADER_EXTENSIONS
        || h->extensions_end > sizeof buf || h->extensions_end <= start)
        return 0;
    for (unsigned i = 0; i < h->nr_extensions; i++) {
        const struct header_extension *e = &h->extensions[i];
        const struct disk_extension head = { be32_make(e->type),
                                             be32_make(e->length) };

        if (e->type == EXT_BITMAPS)
            continue;
        memcpy(buf + at, &head, sizeof head);
        memcpy(buf + at + sizeof head, e->data, e->length);
        at += sizeof head + round_up(e->length, 8);
        h->extensions[nr++] = *e;
    }
    if (nr == h->nr_extensions)
        return 0;
    h->nr_extensions = nr;
    return repair_write(c, "drop the bitmaps' header extension", buf,
                        h->extensions_end - start, start, err) == -1
           ? -1 : repair_barrier(c, err);
}

/* Bitmaps that make no sense are nobody's. Done before their clusters are
 * given back. */
static int
drop_bitmaps(struct check *c, struct qcow2_error *err)
{
    uint64_t autoclear = c->hdr->autoclear & ~AUTOCLEAR_BITMAPS;
    be64 field = be64_make(autoclear);

    if (c->nr[PROBLEM_BITMAPS_UNUSABLE] == 0)
        return 0;
    if (repair_write(c, "clear the bitmaps' feature bit", &field,
                     sizeof field, HEADER_AT_AUTOCLEAR, err) == -1)
        return -1;
    c->hdr->autoclear = autoclear;
    return repair_barrier(c, err) == -1 ? -1 : drop_extension(c, err);
}

/* Entries move to copies, which the new refcounts know of. Then the originals
 * are only metadata: they get the refcounts, and the flags, of that. */
static int
move_to_copies(struct check *c, struct qcow2_error *err)
{
    if (repair_unshare_nr(c) == 0 && !repair_l2_any(c))
        return 0;
    if (repair_entries_unshare(c, err) == -1
        || repair_barrier(c, err) == -1
        || repair_entries_relocate(c, err) == -1
        || repair_barrier(c, err) == -1
        || repair_l2_forget(c, err) == -1
        || repair_rebuild_lower(c, err) == -1
        || check_recount_lasting(c, err) == -1
        || repair_entries_unshared(c, err) == -1)
        return -1;
    return repair_barrier(c, err);
}

static int
repair_all(struct check *c, struct qcow2_error *err)
{
    if (drop_bitmaps(c, err) == -1
        || repair_unshare_plan(c, err) == -1
        || repair_l1_plan(c, err) == -1
        || repair_l2_plan(c, err) == -1)
        return -1;
    if (c->rebuild
        && (repair_drop_refcounts(c, err) == -1
            || check_recount_lasting(c, err) == -1))
        return -1;
    if (repair_entries(c, false, err) == -1
        || repair_barrier(c, err) == -1)
        return -1;
    if (c->rebuild)
        return repair_rebuild(c, err) == -1
               || move_to_copies(c, err) == -1
               || check_recount_lasting(c, err) == -1 ? -1 : 0;
    if (repair_refcounts(c, true, err) == -1)
        return -1;
    return repair_refcounts(c, false, err);
}

int
repair_run(struct check *c, struct qcow2_error *err)
{
    int r = 0;

    /* Without its L1 table all data of the disk would look free. */
    if (c->flaws & 1u << HEADER_L1)
        return 0;
    /* What was counted may be in the page cache alone, if the process that
     * wrote it was killed: no refcount may fall for it before it is durable
     * (I3). */
    if (c->options.repair != QCOW2_REPAIR_NONE && !c->options.plan
        && io_flush(c->io, err) == -1)
        return -1;
    switch (c->options.repair) {
    case QCOW2_REPAIR_NONE:
        return 0;
    case QCOW2_REPAIR_LEAKS:
        r = repair_refcounts(c, false, err);
        break;
    case QCOW2_REPAIR_ALL:
        r = repair_all(c, err);
        break;
    }
    if (r == -1 || repair_entries(c, true, err) == -1
        || repair_barrier(c, err) == -1)
        return -1;
    return clear_features(c, err);
}
