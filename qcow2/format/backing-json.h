/* SPDX-License-Identifier: BSD-3-Clause */
/* backing-json.h: the one kind of "json:" backing name that is a path. */
#ifndef QCOW2_BACKING_JSON_H
#define QCOW2_BACKING_JSON_H

#include <stdbool.h>

#include "format/format.h"
#include "qcow2.h"

/* QEMU at times stores a plain path as
 *     json:{"driver":"qcow2","file":{"driver":"file","filename":"PATH"}}
 * or with "file.driver" and "file.filename" in place of "file", and with raw
 * in place of qcow2. Is name (of at most MAX_BACKING_NAME_BYTES) that and
 * nothing more? Then path is what it says, to be judged like any other, and
 * *format what it declares. Keys come in any order, each once.
 */
bool backing_json_parse(const char *name,
                        char path[MAX_BACKING_NAME_BYTES + 1],
                        enum qcow2_format *format);

#endif /* QCOW2_BACKING_JSON_H */
