/* SPDX-License-Identifier: BSD-3-Clause */
/* open-snapshots.c: the list of an image's snapshots, as a copy. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/open-disk.h"
#include "format/snapshot-word.h"

size_t
qcow2_get_nr_snapshots(const struct qcow2_disk *disk)
{
    RDLOCK_SCOPE_IF(disk_image_lock(disk));

    return disk->file->image ? disk->file->image->snaptab.nr : 0;
}

static int
copy_one(const struct snapshot *s, struct qcow2_snapshot *out)
{
    *out = (struct qcow2_snapshot){
        .id = strdup(s->id),
        .name = strdup(s->name),
        .disk_size = s->disk_size,
        .vm_state_size = s->vm_state_size,
        .date_sec = s->date_sec,
        .date_nsec = s->date_nsec,
        .vm_clock_nsec = s->vm_clock_nsec,
        .icount = s->icount,
    };
    return out->id && out->name ? 0 : -1;
}

int
qcow2_get_snapshots(const struct qcow2_disk *disk,
                    struct qcow2_snapshot_list *out, struct qcow2_error *err)
{
    const struct snapshot_table *t;
    RDLOCK_SCOPE_IF(disk_image_lock(disk));

    *out = (struct qcow2_snapshot_list){ .nr = 0 };
    if (!disk->file->image)
        return 0;
    t = &disk->file->image->snaptab;
    out->snapshots = calloc(t->nr ? t->nr : 1, sizeof *out->snapshots);
    if (!out->snapshots)
        return error_nomem(err);
    while (out->nr < t->nr) {
        struct qcow2_snapshot *to = &out->snapshots[out->nr];

        if (copy_one(&t->snapshots[out->nr++], to) == -1) {
            qcow2_snapshot_list_free(out);
            return error_nomem(err);
        }
    }
    return 0;
}

static struct snapshot_label
label_of(const void *list, size_t i)
{
    const struct qcow2_snapshot_list *l = list;

    return (struct snapshot_label){ l->snapshots[i].id,
                                    l->snapshots[i].name };
}

long
qcow2_find_snapshot(const struct qcow2_snapshot_list *list, const char *word,
                    struct qcow2_error *err)
{
    return snapshot_word_find(word, list, list->nr, label_of, err);
}

void
qcow2_snapshot_list_free(struct qcow2_snapshot_list *list)
{
    for (size_t i = 0; i < list->nr; i++) {
        free((char *)list->snapshots[i].id);
        free((char *)list->snapshots[i].name);
    }
    free(list->snapshots);
    *list = (struct qcow2_snapshot_list){ .nr = 0 };
}
