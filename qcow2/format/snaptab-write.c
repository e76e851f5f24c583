/* SPDX-License-Identifier: BSD-3-Clause */
/* snaptab-write.c: builds a snapshot table; see snaptab.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/snaptab.h"

static size_t
extra_length(const struct snapshot *s)
{
    return max_u64(s->extra_len, sizeof(struct disk_snapshot_extra));
}

static size_t
entry_length(const struct snapshot *s)
{
    return round_up(sizeof(struct disk_snapshot) + extra_length(s)
                        + strlen(s->id) + strlen(s->name), 8);
}

static void
encode_entry(const struct snapshot *s, unsigned char *p)
{
    size_t id_len = strlen(s->id), name_len = strlen(s->name);
    struct disk_snapshot d = {
        .l1_table_offset = be64_make(s->l1_offset),
        .l1_size = be32_make(s->l1_size),
        .id_size = be16_make(id_len),
        .name_size = be16_make(name_len),
        .date_sec = be32_make(s->date_sec),
        .date_nsec = be32_make(s->date_nsec),
        .vm_clock_nsec = be64_make(s->vm_clock_nsec),
        /* What does not fit is in the extra data alone. */
        .vm_state_size = be32_make(s->vm_state_size > UINT32_MAX
                                       ? 0 : s->vm_state_size),
        .extra_data_size = be32_make(extra_length(s)),
    };
    struct disk_snapshot_extra x = {
        .vm_state_size = be64_make(s->vm_state_size),
        .disk_size = be64_make(s->disk_size),
        .icount = be64_make(s->icount),
    };

    memcpy(p, &d, sizeof d);
    p += sizeof d;
    if (s->extra_len)
        memcpy(p, s->extra, s->extra_len);
    memcpy(p, &x, sizeof x);
    p += extra_length(s);
    memcpy(p, s->id, id_len);
    memcpy(p + id_len, s->name, name_len);
}

int
snaptab_encode(const struct snapshot_table *t, unsigned char **buf,
               uint64_t *nr_bytes, struct qcow2_error *err)
{
    unsigned char *p;

    *buf = NULL;
    *nr_bytes = 0;
    for (uint32_t i = 0; i < t->nr; i++)
        *nr_bytes += entry_length(&t->snapshots[i]);
    if (t->nr > MAX_SNAPSHOTS || *nr_bytes > MAX_SNAPSHOT_TABLE_BYTES)
        return error_set(err, ENOSPC, "the snapshot table has reached its "
                         "limit of %d snapshots or %d bytes: delete some "
                         "snapshots", MAX_SNAPSHOTS,
                         MAX_SNAPSHOT_TABLE_BYTES);
    p = *buf = calloc(1, *nr_bytes ? *nr_bytes : 1);
    if (!p)
        return error_nomem(err);
    for (uint32_t i = 0; i < t->nr; i++) {
        encode_entry(&t->snapshots[i], p);
        p += entry_length(&t->snapshots[i]);
    }
    return 0;
}
