/* SPDX-License-Identifier: BSD-3-Clause */
/* builder-poke.c: changes single values of a finished image, by name. */
#include "builder-private.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct field {
    const char *name;
    unsigned off, nr_bytes;
} header_fields[] = {
    { "magic", 0, 4 }, { "version", 4, 4 },
    { "backing_file_offset", 8, 8 }, { "backing_file_size", 16, 4 },
    { "cluster_bits", 20, 4 }, { "size", 24, 8 }, { "crypt_method", 32, 4 },
    { "l1_size", 36, 4 }, { "l1_table_offset", 40, 8 },
    { "refcount_table_offset", 48, 8 }, { "refcount_table_clusters", 56, 4 },
    { "nb_snapshots", 60, 4 }, { "snapshots_offset", 64, 8 },
    { "incompatible_features", 72, 8 }, { "compatible_features", 80, 8 },
    { "autoclear_features", 88, 8 }, { "refcount_order", 96, 4 },
    { "header_length", 100, 4 }, { "compression_type", 104, 1 },
    { NULL, 0, 0 }
}, snapshot_fields[] = {
    { "l1_table_offset", 0, 8 }, { "l1_size", 8, 4 }, { "id_size", 12, 2 },
    { "name_size", 14, 2 }, { "vm_state_size", 32, 4 },
    { "extra_data_size", 36, 4 }, { "extra_vm_state_size", 40, 8 },
    { "extra_disk_size", 48, 8 },
    { NULL, 0, 0 }
};

struct place {
    uint64_t off;
    unsigned nr_bytes;
    bool is_refcount;
    uint64_t host_cluster;
};

static uint64_t value(const struct builder *b, const char **s);

static bool
skip(const char **s, const char *word)
{
    size_t len = strlen(word);

    if (strncmp(*s, word, len) != 0)
        return false;
    *s += len;
    return true;
}

static uint64_t
index_of(const struct builder *b, const char **s)
{
    uint64_t i;

    if (!skip(s, "["))
        builder_mistake("'[' is missing at '%s'", *s);
    i = value(b, s);
    if (!skip(s, "]"))
        builder_mistake("']' is missing at '%s'", *s);
    return i;
}

static uint64_t
field_of(const struct field *fields, const char **s, unsigned *nr_bytes)
{
    for (const struct field *f = fields; f->name; f++) {
        size_t len = strlen(f->name);

        if (strncmp(*s, f->name, len) == 0 &&
            !isalnum((unsigned char)(*s)[len]) && (*s)[len] != '_') {
            *s += len;
            *nr_bytes = f->nr_bytes;
            return f->off;
        }
    }
    builder_mistake("no field '%s'", *s);
}

static uint64_t
l2_table(const struct builder *b, uint64_t guest_cluster)
{
    uint64_t i = guest_cluster / builder_l2_entries(b);

    if (i >= b->active.nr_l1 || !b->active.l1[i])
        builder_mistake("no L2 table for cluster %llu",
                        (unsigned long long)guest_cluster);
    return b->active.l1[i]->host_off;
}

static uint64_t
l2_entry(const struct builder *b, uint64_t guest_cluster)
{
    return l2_table(b, guest_cluster) + guest_cluster % builder_l2_entries(b)
                                        * builder_l2_entry_bytes(b);
}

/* "@something": where it lies. */
static uint64_t
named_value(const struct builder *b, const char **s)
{
    const struct slot *slot;

    if (skip(s, "l1"))
        return b->active.l1_off;
    if (skip(s, "l2"))
        return l2_table(b, index_of(b, s));
    if (skip(s, "data")) {
        slot = builder_slot(b, &b->active, index_of(b, s));
        return slot ? slot->host_off : 0;
    }
    if (skip(s, "reftable"))
        return b->reftable_off;
    if (skip(s, "refblock"))
        return builder_get(b, b->reftable_off + 8 * index_of(b, s), 8);
    if (skip(s, "snapshots"))
        return b->snapshots_off;
    if (skip(s, "snapshot-l1"))
        return b->snapshots[index_of(b, s) % MAX_TEST_SNAPSHOTS].view.l1_off;
    if (skip(s, "end"))
        return b->nr_bytes;
    if (skip(s, "cluster"))
        return b->cluster_size;
    builder_mistake("no place '@%s'", *s);
}

static uint64_t
value(const struct builder *b, const char **s)
{
    uint64_t sum = 0;
    char op = '+';

    for (;;) {
        uint64_t n;

        *s += strspn(*s, " ");
        n = skip(s, "@") ? named_value(b, s) : builder_number(*s, s);
        if (skip(s, "/C"))
            n /= b->cluster_size;
        sum = op == '+' ? sum + n : sum - n;
        *s += strspn(*s, " ");
        if (**s != '+' && **s != '-')
            return sum;
        op = *(*s)++;
    }
}

static struct place
place_of(const struct builder *b, const char **s)
{
    struct place p = { .nr_bytes = 8 };
    uint64_t i;

    if (skip(s, "header.")) {
        p.off = field_of(header_fields, s, &p.nr_bytes);
    } else if (skip(s, "l1")) {
        p.off = b->active.l1_off + 8 * index_of(b, s);
    } else if (skip(s, "l2")) {
        p.off = l2_entry(b, index_of(b, s));
    } else if (skip(s, "bitmap")) {
        p.off = l2_entry(b, index_of(b, s)) + 8;
    } else if (skip(s, "reftable")) {
        p.off = b->reftable_off + 8 * index_of(b, s);
    } else if (skip(s, "refcount")) {
        p.is_refcount = true;
        p.host_cluster = index_of(b, s);
    } else if (skip(s, "snapshot")) {
        i = index_of(b, s);
        if (i >= b->nr_snapshots || !skip(s, "."))
            builder_mistake("no snapshot field at '%s'", *s);
        p.off = b->snapshots[i].entry_off +
                field_of(snapshot_fields, s, &p.nr_bytes);
    } else if (skip(s, "u")) {
        p.nr_bytes = builder_number(*s, s) / 8;
        p.off = index_of(b, s);
    } else {
        builder_mistake("no place '%s'", *s);
    }
    return p;
}

static void
poke(struct builder *b, const char *s)
{
    struct place p = place_of(b, &s);
    uint64_t old = p.is_refcount ? builder_get_refcount(b, p.host_cluster)
                                 : builder_get(b, p.off, p.nr_bytes);
    uint64_t n;
    char op;

    s += strspn(s, " ");
    op = *s ? *s++ : '\0';
    n = value(b, &s);
    switch (op) {
    case '=': break;
    case '|': n = old | n; break;
    case '&': n = old & n; break;
    case '^': n = old ^ n; break;
    case '+': n = old + n; break;
    default: builder_mistake("poke: '=' is missing before '%s'", s);
    }
    if (p.is_refcount)
        builder_set_refcount(b, p.host_cluster, n);
    else
        builder_put(b, p.off, p.nr_bytes, n);
}

void
builder_poke(struct builder *b, const char *line)
{
    const char *s = line;
    uint64_t n;

    if (skip(&s, "poke ")) {
        poke(b, s + strspn(s, " "));
    } else if (skip(&s, "truncate ")) {
        n = value(b, &s);
        if (n > b->nr_bytes)
            builder_mistake("truncate makes files shorter");
        b->nr_bytes = n;
    } else if (skip(&s, "append ")) {
        n = value(b, &s);
        b->bytes = realloc(b->bytes, b->nr_bytes + n);
        if (!b->bytes)
            builder_mistake("out of memory");
        memset(b->bytes + b->nr_bytes, 0x5a, n);
        b->nr_bytes += n;
        b->capacity = b->nr_bytes;
    }
}
