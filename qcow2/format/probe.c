/* SPDX-License-Identifier: BSD-3-Clause */
/* probe.c: tells disk formats by the first bytes of a file. */
#include <string.h>

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
