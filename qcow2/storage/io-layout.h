/* SPDX-License-Identifier: BSD-3-Clause */
/* io-layout.h: attributes of a file that say how its file system stores it.
 *
 * They are for new files, without data, and are advice: most file systems have
 * none of them, and then nothing is done.
 */
#ifndef QCOW2_IO_LAYOUT_H
#define QCOW2_IO_LAYOUT_H

#include <stdint.h>

/* Blocks that are written again stay where they are (Btrfs). */
void io_layout_set_nocow(int fd);

/* Space is allocated in extents of so many bytes (XFS). */
void io_layout_set_extents(int fd, uint32_t nr_bytes);

#endif /* QCOW2_IO_LAYOUT_H */
