/* SPDX-License-Identifier: BSD-3-Clause */
/* probe.h: tells formats by the first bytes of a file, and by their names. */
#ifndef QCOW2_PROBE_H
#define QCOW2_PROBE_H

#include <stdbool.h>

#include "qcow2.h"
#include "storage/io.h"

/* What qcow2_probe looks at, at most. */
enum { PROBE_BYTES = 512 };

/* What the file looks like, as qcow2_probe; *format is NULL for nothing. */
int probe_io(struct io *io, const char **format, struct qcow2_error *err);

/* Settles a format that is AUTO. What looks like nothing is raw if probe_raw,
 * else qcow2, as is what looks like a format that is not supported: whose code
 * refuses it, and says what it is.
 */
int probe_format(struct io *io, bool probe_raw, enum qcow2_format *format,
                 struct qcow2_error *err);

#endif /* QCOW2_PROBE_H */
