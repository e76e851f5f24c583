/* SPDX-License-Identifier: BSD-3-Clause */
/* io-device.h: a block device is one file, whichever of its nodes is opened.
 */
#ifndef QCOW2_IO_DEVICE_H
#define QCOW2_IO_DEVICE_H

struct stat;

/* Opens, for its locks alone, the node that the system itself has for a block
 * device (udev's, or the kernel's name of it in /dev), as locks belong to a
 * node. -1: *st is of that node, or it cannot be opened.
 */
int io_device_open_node(const struct stat *st);

#endif /* QCOW2_IO_DEVICE_H */
