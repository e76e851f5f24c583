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

/* As images declare the format of their backing file. */
const char *format_name(enum qcow2_format format);

/* false: another name; *format stays as it is. */
bool format_find(const char *name, enum qcow2_format *format);

#endif /* QCOW2_PROBE_H */
