/* SPDX-License-Identifier: BSD-3-Clause */
/* probe.c: tells disk formats by the first bytes of a file, and by name. */
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

static const struct {
    enum qcow2_format format;
    const char *name;
} names[] = {
    { QCOW2_FORMAT_QCOW2, "qcow2" },
    { QCOW2_FORMAT_RAW, "raw" },
    { QCOW2_FORMAT_QCOW, "qcow" },
};
enum { NR_NAMES = sizeof names / sizeof names[0] };

const char *
qcow2_format_name(enum qcow2_format format)
{
    for (size_t i = 0; i < NR_NAMES; i++)
        if (names[i].format == format)
            return names[i].name;
    return "auto";
}

bool
qcow2_format_find(const char *name, enum qcow2_format *format)
{
    for (size_t i = 0; i < NR_NAMES; i++)
        if (strcmp(name, names[i].name) == 0) {
            *format = names[i].format;
            return true;
        }
    return false;
}

int
probe_format(struct io *io, bool probe_raw, enum qcow2_format *format,
             struct qcow2_error *err)
{
    const char *looks_like;

    if (*format != QCOW2_FORMAT_AUTO)
        return 0;
    if (probe_io(io, &looks_like, err) == -1)
        return -1;
    *format = !looks_like && probe_raw ? QCOW2_FORMAT_RAW
                                       : QCOW2_FORMAT_QCOW2;
    if (looks_like)
        qcow2_format_find(looks_like, format);
    return 0;
}
