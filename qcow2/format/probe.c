/* SPDX-License-Identifier: BSD-3-Clause */
/* probe.c: tells disk formats by the first bytes of a file. */
#include "format/probe.h"

#include <string.h>

#include "base/checked.h"
#include "format/format.h"
#include "qcow2.h"

/* Where a format has its magic. */
struct magic {
    const char *format;
    size_t offset;
    size_t length;
    const char *bytes;
};

#define MAGIC(format, offset, bytes) \
    { format, offset, sizeof bytes - 1, bytes }

static const struct magic magics[] = {
    MAGIC("qed", 0, "QED\0"),
    MAGIC("vmdk", 0, "KDMV"),
    MAGIC("vmdk", 0, "COWD"),
    MAGIC("vmdk", 0, "# Disk DescriptorFile"),
    MAGIC("vhdx", 0, "vhdxfile"),
    MAGIC("vpc", 0, "conectix"),
    MAGIC("vdi", 64, "\x7f\x10\xda\xbe"),
    MAGIC("luks", 0, "LUKS\xba\xbe"),
    MAGIC("parallels", 0, "WithoutFreeSpace"),
    MAGIC("parallels", 0, "WithouFreSpacExt"),
    MAGIC("bochs", 0, "Bochs Virtual HD Image"),
    MAGIC("cloop", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    MAGIC("dmg", 0, "koly\0\0\0\4"),
};

/* Versions of qcow share their magic. */
static const char *
probe_qcow(const unsigned char *start, size_t nr_bytes)
{
    be32 magic, version = be32_make(0);

    if (nr_bytes < sizeof magic)
        return NULL;
    memcpy(&magic, start, sizeof magic);
    if (be32_get(magic) != QCOW2_MAGIC)
        return NULL;
    if (nr_bytes >= sizeof magic + sizeof version)
        memcpy(&version, start + sizeof magic, sizeof version);
    return be32_get(version) == 1 ? "qcow" : "qcow2";
}

const char *
qcow2_probe(const void *start, size_t nr_bytes)
{
    const unsigned char *bytes = start;

    for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++) {
        const struct magic *m = &magics[i];

        if (m->offset + m->length <= nr_bytes
            && memcmp(bytes + m->offset, m->bytes, m->length) == 0)
            return m->format;
    }
    return probe_qcow(bytes, nr_bytes);
}

int
probe_io(struct io *io, const char **format, struct qcow2_error *err)
{
    unsigned char start[PROBE_BYTES];
    uint64_t size;

    if (io_get_size(io, &size, err) == -1
        || io_pread(io, start, sizeof start, 0, err) == -1)
        return -1;
    *format = qcow2_probe(start, min_u64(size, sizeof start));
    return 0;
}

const char *
format_name(enum qcow2_format format)
{
    return format == QCOW2_FORMAT_RAW ? "raw" : "qcow2";
}

bool
format_find(const char *name, enum qcow2_format *format)
{
    static const enum qcow2_format known[] = { QCOW2_FORMAT_QCOW2,
                                               QCOW2_FORMAT_RAW };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, format_name(known[i])) == 0) {
            *format = known[i];
            return true;
        }
    return false;
}
