/* SPDX-License-Identifier: BSD-3-Clause */
/* io-nbd.h: images that an NBD server exports. */
#ifndef QCOW2_IO_NBD_H
#define QCOW2_IO_NBD_H

#include "storage/io.h"

/* Is this name an NBD URI (nbd://, nbds://, nbd+unix://, …) rather than a
 * path? */
bool io_nbd_is_uri(const char *name);

/* Was it built in? */
bool io_nbd_supported(void);

/* Connects. The size of an export is fixed, and there are no locks: what
 * else the server lets write to it is between the user and the server.
 * timeout_ms as in struct qcow2_options. ETIMEDOUT if the server does not
 * answer.
 */
struct io *io_nbd_open_within(const char *uri, bool readonly,
                              unsigned timeout_ms, struct qcow2_error *err);

/* A timeout in milliseconds, or the default one for 0. */
uint64_t io_nbd_timeout(unsigned timeout_ms);

#endif /* QCOW2_IO_NBD_H */
