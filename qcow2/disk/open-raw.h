/* SPDX-License-Identifier: BSD-3-Clause */
/* open-raw.h: a raw file as a disk that is written. */
#ifndef QCOW2_OPEN_RAW_H
#define QCOW2_OPEN_RAW_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layer/source.h"
#include "qcow2.h"
#include "storage/io.h"

struct raw_disk {
    struct source *source;      /* a raw_new: owns the io */
    bool no_discard;
    /* The file counts as raw because it looks like nothing else, and a
     * guest must not change that: writes to its start are looked at, one
     * at a time. */
    bool guarded;
    pthread_mutex_t start_lock;

    /* Shared by requests, and held by their callers (open-requests.c);
     * exclusive while the size changes, and while holes are filled. */
    pthread_rwlock_t rwlock;

    /* One flush at a time: the system reports a lost write to one of
     * several callers only, and then the others must not succeed. */
    pthread_mutex_t flush_lock;

    struct write_observer *observers; /* changes while rwlock is held
                                       * exclusively */
};

/* As the functions of qcow2.h; the caller does not hold rwlock. Requests are in
 * raw_disk_ops. */
int raw_disk_resize(struct raw_disk *raw, uint64_t size, bool may_shrink,
                    struct qcow2_error *err);
int raw_disk_preallocate(struct raw_disk *raw, uint64_t nr_bytes,
                         uint64_t guest_off, enum qcow2_preallocation mode,
                         struct qcow2_error *err);

#endif /* QCOW2_OPEN_RAW_H */
