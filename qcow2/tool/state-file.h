/* SPDX-License-Identifier: BSD-3-Clause */
/* state-file.h: writes the VM state of a snapshot to a file. */
#ifndef STATE_FILE_H
#define STATE_FILE_H

#include <stdint.h>

#include "qcow2.h"

/* Writes all nr_bytes of VM state of an open snapshot to fd, at its position.
 * What reads as zeroes becomes holes where fd can have them. max_data: bytes
 * of stored data that the image can have at most; more are refused. Reports
 * what fails, and returns EXIT_SUCCESS or EXIT_FAILURE.
 */
int state_file_write(struct qcow2_disk *snapshot, uint64_t nr_bytes,
                     uint64_t max_data, int fd);

#endif /* STATE_FILE_H */
