/* SPDX-License-Identifier: BSD-3-Clause */
/* io-behind.h: has the kernel begin to write large data to the disk while
 * more of them come, so that a flush need not wait for all of them.
 */
#ifndef QCOW2_IO_BEHIND_H
#define QCOW2_IO_BEHIND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    /* Smaller writes may soon be written over: the kernel knows best when
     * it is their time. */
    IO_BEHIND_LARGE = 32768,
    /* What is begun at once: enough for a disk to be busy with. */
    IO_BEHIND_BEGIN = 16 * 1024 * 1024,
};

/* Of one file: the large writes since the kernel was last asked to begin. */
struct io_behind {
    pthread_mutex_t lock; /* a leaf; no I/O under it */
    uint64_t from, to;    /* host bytes around all of them */
    uint64_t nr_bytes;    /* in all of them */
};

void io_behind_init(struct io_behind *b);
void io_behind_destroy(struct io_behind *b);

/* nr_bytes were written at host_off. Is it time to begin? Then [*from, *to)
 * holds what was written large since the last time.
 */
bool io_behind_written(struct io_behind *b, uint64_t host_off,
                       uint64_t nr_bytes, uint64_t *from, uint64_t *to);

#endif /* QCOW2_IO_BEHIND_H */
