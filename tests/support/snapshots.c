/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshots.c: see snapshots.h. */
#include "snapshots.h"

#include <pthread.h>
#include <stdlib.h>

enum { NR_KEPT = 8 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct qcow2_snapshot_list kept[NR_KEPT];
static unsigned next;

void
snapshot_get(const struct qcow2_disk *disk, size_t i,
             struct qcow2_snapshot *out)
{
    struct qcow2_snapshot_list list;

    if (qcow2_get_snapshots(disk, &list, NULL) == -1 || i >= list.nr)
        abort();
    *out = list.snapshots[i];
    pthread_mutex_lock(&lock);
    qcow2_snapshot_list_free(&kept[next % NR_KEPT]);
    kept[next++ % NR_KEPT] = list;
    pthread_mutex_unlock(&lock);
}
