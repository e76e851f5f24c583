/* SPDX-License-Identifier: BSD-3-Clause */
/* repair-entries.c: puts entries of L1 and L2 tables right, in place. Each
 * lies in one sector, so a table that is half written holds old and new
 * entries, both of which are valid at that time.
 */
#include "base/checked.h"
#include "check/check-private.h"
#include "format/entry.h"

/* What is being done to a table. */
struct fix {
    bool is_l1;
    bool is_active;     /* COPIED means something */
    bool set_copied;    /* or clear it, and remove flaws */
    bool unshare;       /* or point entries to copies, and nothing else */
    bool relocate;      /* or L1 entries to copies of L2 tables */
};

static uint64_t
fix_copied(struct check *c, const struct fix *f, uint64_t entry,
           uint64_t host_off)
{
    uint64_t cluster = host_off >> c->cluster_bits;
    uint64_t settled = check_settled(c, cluster);
    bool alone = settled == 1;

    if (!f->is_active || host_off == 0 || host_off >= c->file_size)
        return entry;
    /* What is being moved away from is alone only at the end. */
    if (!f->set_copied && repair_unshare_cluster(c, cluster) != 0)
        return entry_with_copied(entry, false);
    if (!f->set_copied)
        return alone ? entry : entry_with_copied(entry, false);
    /* Mending leaks alone touches nothing but leaks. */
    if (alone && (c->options.repair == QCOW2_REPAIR_ALL
                  || settled != check_stored(c, cluster)))
        return entry_with_copied(entry, true);
    return entry;
}

static uint64_t
fix_l1_entry(struct check *c, const struct fix *f, uint64_t entry)
{
    struct l1_entry e = entry_decode_l1(entry, c->cluster_bits);

    if (e.flaws & ENTRY_RESERVED_BITS && !f->set_copied)
        entry &= ~L1_RESERVED_MASK;
    if (e.host_off == 0 && !f->set_copied)
        entry = entry_with_copied(entry, false);
    return fix_copied(c, f, entry, e.host_off);
}

/* COPIED comes later, with that of all others. */
static uint64_t
unshare_entry(struct check *c, uint64_t entry, const struct l2_entry *e)
{
    uint64_t cluster = e->host_off >> c->cluster_bits, copy;

    if (e->kind == MAP_COMPRESSED || e->host_off == 0
        || e->flaws & ENTRY_MISALIGNED)
        return entry;
    copy = repair_unshare_cluster(c, cluster);
    if (copy == 0)
        return entry;
    entry &= ~(L2_OFFSET_MASK | ENTRY_COPIED);
    return entry | scale_up(copy, c->cluster_bits);
}

/* The same without the bits that must be 0; e is what it says. */
static uint64_t
without_flaws(const struct check *c, uint64_t entry, const struct l2_entry *e)
{
    bool extended = header_has_extended_l2(c->hdr);

    if (e->flaws & ENTRY_MISALIGNED && !check_has_data(e))
        return extended ? 0 : L2_ZERO;
    if (e->flaws & ENTRY_RESERVED_BITS)
        entry &= ~(L2_RESERVED_MASK | (extended ? L2_ZERO : 0));
    return entry;
}

/* The first word of the entry that says e. */
static uint64_t
fix_l2_entry(struct check *c, const struct fix *f, uint64_t entry,
             const struct l2_entry *e)
{
    uint64_t fixed = entry;

    /* Of data outside of the image's file COPIED says that they are there. */
    if (c->outside && e->kind != MAP_COMPRESSED)
        return f->unshare || f->set_copied ? entry
                                           : without_flaws(c, entry, e);
    if (f->unshare)
        return unshare_entry(c, entry, e);
    if (e->kind == MAP_COMPRESSED)
        return f->set_copied ? entry : entry_with_copied(entry, false);
    if (!f->set_copied)
        fixed = without_flaws(c, entry, e);
    if (!(fixed & L2_OFFSET_MASK) && e->host_off)
        return fixed;
    return fix_copied(c, f, fixed, e->host_off);
}

/* COPIED comes later here, too. */
static uint64_t
relocate_entry(struct check *c, uint64_t entry)
{
    struct l1_entry e = entry_decode_l1(entry, c->cluster_bits);
    uint64_t copy = e.flaws & ENTRY_MISALIGNED ? 0
                    : repair_l2_cluster(c, e.host_off >> c->cluster_bits);

    if (e.host_off == 0 || copy == 0)
        return entry;
    entry &= ~(L1_OFFSET_MASK | ENTRY_COPIED);
    return entry | scale_up(copy, c->cluster_bits);
}

uint64_t
repair_snapshot_l1_entry(struct check *c, uint64_t entry)
{
    const struct fix f = { .is_l1 = true };

    entry = relocate_entry(c, fix_l1_entry(c, &f, entry));
    return entry_with_copied(entry, false);
}

static uint64_t
fix_word(struct check *c, const struct fix *f, uint64_t entry)
{
    if (f->relocate)
        return relocate_entry(c, entry);
    return f->unshare ? entry : fix_l1_entry(c, f, entry);
}

/* How many words an entry of the table has. */
static unsigned
entry_words(const struct check *c, const struct fix *f)
{
    return f->is_l1 ? 1 : check_l2_words(c);
}

/* Mends the entry whose first word is table[i]; was it different? */
static bool
fix_entry(struct check *c, const struct fix *f, be64 *table, size_t i)
{
    const struct l2_slice s = check_slice(c, table);
    uint64_t old = be64_get(table[i]), new;
    struct l2_entry e;
    bool changed = false;

    if (f->is_l1) {
        new = fix_word(c, f, old);
    } else {
        e = l2_get(&s, i / check_l2_words(c), 0);
        new = fix_l2_entry(c, f, old, &e);
        changed = e.flaws & ENTRY_COMPRESSED_BITMAP && !f->set_copied
                  && !f->unshare;
        if (changed)
            table[i + 1] = be64_make(0);
    }
    table[i] = be64_make(new);
    return changed || new != old;
}

void
repair_moved_l2_table(struct check *c, be64 *table)
{
    const struct fix correct = { .is_l1 = false }, unshare = {
        .unshare = true,
    };
    const struct l2_slice s = check_slice(c, table);

    for (size_t i = 0; i < c->cluster_size / sizeof *table;
         i += check_l2_words(c)) {
        fix_entry(c, &correct, table, i);
        fix_entry(c, &unshare, table, i);
        if (!c->outside)
            l2_set_copied(&s, i / check_l2_words(c), false);
    }
}

/* What the table holds when this pass comes to it: a plan has not written
 * what is done before. */
static void
plan_earlier_passes(struct check *c, const struct fix *f, be64 *table,
                    size_t nr)
{
    struct fix clear = *f, unshare = *f;

    clear.set_copied = clear.unshare = clear.relocate = false;
    unshare.set_copied = false;
    unshare.unshare = true;
    for (size_t i = 0; i < nr; i += entry_words(c, f)) {
        fix_entry(c, &clear, table, i);
        if (f->set_copied && f->is_l1)
            table[i] = be64_make(relocate_entry(c, be64_get(table[i])));
        else if (f->set_copied)
            fix_entry(c, &unshare, table, i);
    }
}

/* Entries [from, to) of the table in c->table, which begins at start. */
static int
write_entries(struct check *c, const struct fix *f, uint64_t start,
              uint64_t from, uint64_t to, struct qcow2_error *err)
{
    const char *why = f->set_copied ? "set COPIED"
                      : f->unshare ? "point L2 entries to copies"
                      : f->relocate ? "point L1 entries to copies" : f->is_l1
                      ? "correct L1 entries" : "correct L2 entries";

    if (from >= to)
        return 0;
    return repair_write(c, why, c->table + from * 8, (to - from) * 8,
                        start + from * 8, err);
}

/* Reads a part of a table as it is when this pass comes to it. */
static int
read_table(struct check *c, const struct fix *f, uint64_t start,
           uint64_t end, bool *is_hole, struct qcow2_error *err)
{
    be64 *table = (be64 *)c->table;
    bool planned = (f->set_copied || f->unshare || f->relocate)
                   && c->options.plan
                   && c->options.repair == QCOW2_REPAIR_ALL;
    uint64_t origin = planned && !f->is_l1
                      ? repair_l2_origin(c, start >> c->cluster_bits) : 0;

    if (check_read(c, table, end - start,
                   origin ? scale_up(origin, c->cluster_bits) : start,
                   is_hole, err) == -1)
        return -1;
    if (origin)
        repair_moved_l2_table(c, table);
    else if (planned)
        plan_earlier_passes(c, f, table, (end - start) / sizeof *table);
    return 0;
}

/* Mends [start, end), which lies in one cluster. */
static int
fix_cluster(struct check *c, const struct fix *f, uint64_t start,
            uint64_t end, struct qcow2_error *err)
{
    uint64_t cluster = start >> c->cluster_bits;
    uint64_t owners = f->is_l1 ? 1 : counters_get(&c->l2, cluster);
    be64 *table = (be64 *)c->table;
    uint64_t from = 0, to = 0; /* changed and not written */
    unsigned step = entry_words(c, f);
    uint64_t others = counters_get(&c->refs, cluster);
    bool is_hole;

    if (f->relocate) /* data have switched, and are counted still */
        others -= counters_get(&c->moved, cluster);
    /* Not in a cluster that is not only a table. */
    if (others > owners)
        return 0;
    if (read_table(c, f, start, end, &is_hole, err) == -1)
        return -1;
    if (is_hole)
        return 0;
    for (uint64_t i = 0; i < (end - start) / sizeof *table; i += step) {
        if (!fix_entry(c, f, table, i))
            continue;
        if (to == 0 || i > to + REPAIR_GAP_BYTES / sizeof *table) {
            if (write_entries(c, f, start, from, to, err) == -1)
                return -1;
            from = i;
        }
        to = i + step;
    }
    return write_entries(c, f, start, from, to, err);
}

static int
fix_l1(struct check *c, const struct fix *f, uint64_t start, uint64_t end,
       struct qcow2_error *err)
{
    for (uint64_t next; start < end; start = next) {
        next = min_u64(end, round_down(start, c->cluster_size)
                            + c->cluster_size);
        if (fix_cluster(c, f, start, next, err) == -1)
            return -1;
    }
    return 0;
}

static int
fix_snapshot_l1(struct check *c, uint64_t start, uint64_t end,
                uint64_t weight, struct qcow2_error *err)
{
    const struct fix f = { .is_l1 = true };

    (void)weight;
    return fix_l1(c, &f, start, end, err);
}

static int
fix_l2_tables(struct check *c, bool set_copied, struct qcow2_error *err)
{
    for (uint64_t i = 0; counters_next(&c->l2, &i, UINT64_MAX); i++) {
        const struct fix f = {
            .is_active = counters_get(&c->l2_active, i) > 0,
            .set_copied = set_copied,
        };
        uint64_t at = scale_up(i, c->cluster_bits);

        if (set_copied && !f.is_active)
            continue;
        if (fix_cluster(c, &f, at, at + c->cluster_size, err) == -1)
            return -1;
    }
    return 0;
}

static bool
anything_to_fix(const struct check *c, bool set_copied)
{
    if (c->rebuild)
        return true;
    if (set_copied) /* an entry to what had another refcount may lack it */
        return c->nr[PROBLEM_COPIED_CLEAR] || c->nr[PROBLEM_REFCOUNT_HIGH]
               || c->nr[PROBLEM_REFCOUNT_LOW];
    return c->nr[PROBLEM_COPIED_SET] || c->nr[PROBLEM_COPIED_COMPRESSED]
           || c->nr[PROBLEM_L1_RESERVED] || c->nr[PROBLEM_L2_RESERVED]
           || c->nr[PROBLEM_L2_ZERO_FLAG]
           || c->nr[PROBLEM_SUBCLUSTERS_COMPRESSED]
           || c->nr[PROBLEM_L1_COPIED_NOTHING]
           || c->nr[PROBLEM_L2_ZERO_MISALIGNED]
           || c->nr[PROBLEM_REFCOUNT_LOW];
}

int
repair_entries(struct check *c, bool set_copied, struct qcow2_error *err)
{
    const struct fix active = {
        .is_l1 = true, .is_active = true, .set_copied = set_copied,
    };

    if (!anything_to_fix(c, set_copied))
        return 0;
    if (fix_l1(c, &active, c->l1[0].start, c->l1[0].end, err) == -1)
        return -1;
    if (!set_copied
        && c->nr[PROBLEM_L1_RESERVED] + c->nr[PROBLEM_L1_COPIED_NOTHING] > 0
        && check_sweep(c, c->l1 + 1, c->nr_l1 - 1, fix_snapshot_l1, err)
           == -1)
        return -1;
    return fix_l2_tables(c, set_copied, err);
}

int
repair_entries_unshare(struct check *c, struct qcow2_error *err)
{
    const struct fix f = { .unshare = true };

    for (uint64_t i = 0; counters_next(&c->l2, &i, UINT64_MAX); i++) {
        uint64_t at = scale_up(i, c->cluster_bits);

        if (fix_cluster(c, &f, at, at + c->cluster_size, err) == -1)
            return -1;
    }
    return 0;
}

/* Corrects the part of an L1 table that lies in clusters moved away from. */
static int
fix_unshared_l1(struct check *c, const struct span *l1, bool is_active,
                struct qcow2_error *err)
{
    const struct fix f = { .is_l1 = true, .is_active = is_active };

    for (uint64_t i = 0; counters_next(&c->moved, &i, UINT64_MAX); i++) {
        uint64_t at = scale_up(i, c->cluster_bits);
        uint64_t start = max_u64(at, l1->start);
        uint64_t end = min_u64(at + c->cluster_size, l1->end);

        if (start < end && fix_cluster(c, &f, start, end, err) == -1)
            return -1;
    }
    return 0;
}

int
repair_entries_unshared(struct check *c, struct qcow2_error *err)
{
    if (fix_unshared_l1(c, &c->l1[0], true, err) == -1)
        return -1;
    for (uint64_t i = 0; counters_next(&c->moved, &i, UINT64_MAX); i++) {
        const struct fix f = {
            .is_active = counters_get(&c->l2_active, i) > 0,
        };
        uint64_t at = scale_up(i, c->cluster_bits);

        if (counters_get(&c->l2, i) > 0
            && fix_cluster(c, &f, at, at + c->cluster_size, err) == -1)
            return -1;
    }
    return 0;
}

static int
relocate_in_l1(struct check *c, uint64_t start, uint64_t end,
               uint64_t weight, struct qcow2_error *err)
{
    const struct fix f = {
        .is_l1 = true, .is_active = start == c->l1[0].start, .relocate = true,
    };

    (void)weight;
    return fix_l1(c, &f, start, end, err);
}

int
repair_entries_relocate(struct check *c, struct qcow2_error *err)
{
    return repair_l2_any(c) ? repair_l2_sweep_l1(c, relocate_in_l1, err) : 0;
}
