/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-library.h: libnbd, loaded when the first NBD export is opened. With all
 * that it needs it takes longer to load than most images to open.
 */
#ifndef QCOW2_NBD_LIBRARY_H
#define QCOW2_NBD_LIBRARY_H

#include <libnbd.h>

#include "qcow2.h"

/* The functions of libnbd that are used. */
#define NBD_FUNCTIONS(F) \
    F(add_meta_context) F(aio_block_status) F(aio_command_completed) \
    F(aio_connect_uri) F(aio_disconnect) F(aio_flush) F(aio_is_closed) \
    F(aio_is_connecting) F(aio_is_dead) F(aio_is_ready) F(aio_pread) \
    F(aio_pwrite) F(aio_zero) F(can_fast_zero) F(can_flush) \
    F(can_meta_context) F(can_multi_conn) F(can_zero) F(close) F(create) \
    F(get_block_size) F(get_errno) F(get_error) F(get_size) \
    F(is_read_only) F(kill_subprocess) F(poll)

struct nbd_library {
    void *handle;
#define NBD_DECLARE(name) __typeof__(nbd_##name) *name;
    NBD_FUNCTIONS(NBD_DECLARE)
#undef NBD_DECLARE
};

/* ENOTSUP if it is not installed. */
int nbd_library_load(struct nbd_library *lib, struct qcow2_error *err);

/* Also after a load that failed, or was not tried on a struct of zeroes. It
 * stays in memory: threads may have state of its libraries.
 */
void nbd_library_unload(struct nbd_library *lib);

/* Sets err to why the last function that this thread called failed, after
 * `context` and ": ". What the server sent is escaped. Returns -1. To be
 * called at once: every other function forgets the reason.
 */
int nbd_library_error(const struct nbd_library *lib, struct qcow2_error *err,
                      const char *context);

#endif /* QCOW2_NBD_LIBRARY_H */
