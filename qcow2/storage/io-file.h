/* SPDX-License-Identifier: BSD-3-Clause */
/* io-file.h: what the parts of the backend for files share: io-file.c opens,
 * reads and writes, io-file-zero.c makes zeroes and holes, io-file-direct.c
 * goes past the host's cache.
 */
#ifndef QCOW2_IO_FILE_H
#define QCOW2_IO_FILE_H

#include <pthread.h>
#include <stdatomic.h>

#include "storage/io-behind.h"
#include "storage/io.h"

enum {
    /* What direct I/O may want of a buffer's address; no system wants more
     * than its smallest page. */
    MAX_MEMORY_ALIGN = 4096,
};

struct file {
    struct io io;
    int fd;
    int node_fd;  /* another node of the device, for its locks; or -1 */
    bool is_block;
    bool is_shared; /* fd has its flags together with others' descriptors */
    uint32_t block; /* of direct I/O; 1: the host caches the file */
    struct io_behind behind;
    atomic_int behind_error; /* errno of a failure to write behind, or 0 */

    /* Where data were found last. To look for the end of them the kernel may
     * walk over as much, so one who asks for table after table should not have
     * it begin anew each time. */
    struct {
        pthread_mutex_t lock;
        uint64_t from, end;
        unsigned nr_changes; /* how often data may have become holes */
    } data;

    /* Learnt from the kernel's refusals, so as not to ask again. */
    atomic_bool no_zero_range;
    atomic_bool no_punch;
    atomic_bool no_allocate;
    atomic_bool no_seek_hole;
};

static inline struct file *
to_file(struct io *io)
{
    return (struct file *)io;
}

/* Sets *err by errno. */
int file_request_error(const struct file *f, const char *verb,
                       uint64_t nr_bytes, uint64_t host_off,
                       struct qcow2_error *err);

/* As in struct io_ops. */
int file_pwritev(struct io *io, const struct iovec *iov, int nr_iov,
                 uint64_t host_off, struct qcow2_error *err);
int file_get_size(struct io *io, uint64_t *size, struct qcow2_error *err);
int file_zero(struct io *io, uint64_t host_off, uint64_t nr_bytes,
              unsigned flags, struct qcow2_error *err);
int file_punch(struct io *io, uint64_t host_off, uint64_t nr_bytes,
               struct qcow2_error *err);

/* The file has a new hole, or is shorter. */
void file_forget_data(struct file *f);

int file_set_direct(struct io *io, struct io_blocks *blocks,
                    struct qcow2_error *err);

#endif /* QCOW2_IO_FILE_H */
