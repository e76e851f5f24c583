/* SPDX-License-Identifier: BSD-3-Clause */
/* io-window.h: a backend that is a part of what another one has, as an image
 * in an archive, or behind a partition table. Nothing outside of the part is
 * read or written, and the part keeps its size: what would make it longer has
 * no space (ENOSPC).
 */
#ifndef QCOW2_IO_WINDOW_H
#define QCOW2_IO_WINDOW_H

#include "storage/io.h"

/* Takes over below, also on failure. A window of zeroes is all of below, which
 * is returned. EINVAL if below ends before the window does. */
struct io *io_window_new(struct io *below, const struct qcow2_window *window,
                         struct qcow2_error *err);

/* May a qcow2 image in it be written? EROFS if its end is only guessed: it
 * would take what lies behind it for free space of its own. */
int io_window_check_end(const struct io *io, struct qcow2_error *err);

#endif /* QCOW2_IO_WINDOW_H */
