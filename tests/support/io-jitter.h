/* SPDX-License-Identifier: BSD-3-Clause */
/* io-jitter.h: a backend over another that lets other threads run before and
 * after every operation, as slow disks do: what must not happen meanwhile
 * then does happen.
 */
#ifndef IO_JITTER_H
#define IO_JITTER_H

#include "storage/io.h"

/* Takes over below. */
struct io *io_jitter_new(struct io *below);

#endif /* IO_JITTER_H */
