/* SPDX-License-Identifier: BSD-3-Clause */
/* convert-source.c: several disks read as one; see convert.h. */
#include "job/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "disk/open-disk.h"

/* Nothing smaller is given up where reading fails. */
enum { SECTOR_BYTES = 512 };

struct convert_part {
    struct qcow2_disk *disk;
    uint64_t start;     /* in the whole */
    uint64_t disk_size; /* past it, up to the next part, are zeroes */
};

int
convert_source_init(struct convert_source *s,
                    struct qcow2_disk *const *disks, size_t nr_disks,
                    const struct qcow2_convert_options *o,
                    struct qcow2_error *err)
{
    uint64_t end = 0;

    s->parts = calloc(nr_disks, sizeof *s->parts);
    if (!s->parts)
        return error_nomem(err);
    for (size_t i = 0; i < nr_disks; i++) {
        uint64_t start = round_up(end, 512);

        s->parts[i].disk = disks[i];
        s->parts[i].start = start;
        s->parts[i].disk_size = qcow2_get_size(disks[i]);
        if (add_overflows(start, s->parts[i].disk_size, &end)
            || end > INT64_MAX)
            return error_set(err, EINVAL, "the sources are more than a disk "
                             "can hold together");
    }
    s->nr_parts = nr_disks;
    s->skip = min_u64(o->skip_bytes, end);
    s->size = end - s->skip;
    if (o->has_nr_bytes)
        s->size = min_u64(s->size, o->nr_bytes);
    s->top_layers_only = o->no_create ? o->has_backing
                                      : o->create.backing != NULL;
    s->ignore_errors = o->ignore_read_errors;
    return 0;
}

void
convert_source_free(struct convert_source *s)
{
    free(s->parts);
    s->parts = NULL;
}

/* The part that the whole's byte `off` is in. */
static const struct convert_part *
find_part(const struct convert_source *s, uint64_t off, uint64_t *reach)
{
    size_t i = s->nr_parts - 1;

    while (s->parts[i].start > off)
        i--;
    *reach = i + 1 < s->nr_parts ? s->parts[i + 1].start - off
                                 : UINT64_MAX;
    return &s->parts[i];
}

/* Takes the first extent it is told. */
static int
take_extent(void *opaque, const struct qcow2_extent *e)
{
    *(struct qcow2_extent *)opaque = *e;
    return 1;
}

int
convert_source_plan(const struct convert_source *s, uint64_t off,
                    uint64_t nr_bytes, enum copy_kind *kind, uint64_t *len,
                    struct qcow2_error *err)
{
    const struct convert_part *p;
    struct qcow2_extent e;
    uint64_t reach, in_part;

    p = find_part(s, s->skip + off, &reach);
    in_part = s->skip + off - p->start;
    *kind = COPY_ZERO;
    *len = min_u64(nr_bytes, reach);
    if (in_part >= p->disk_size)
        return 0;
    *len = min_u64(*len, p->disk_size - in_part);
    if (qcow2_map(p->disk, *len, in_part, take_extent, &e, err) == -1)
        return s->ignore_errors ? (*kind = COPY_DATA, 0) : -1;
    *len = e.nr_bytes;
    if (s->top_layers_only && e.depth > 0)
        *kind = COPY_SKIP;
    else if (!e.zero)
        *kind = COPY_DATA;
    return 0;
}

/* Do tables fail, so that no part of the range, of one cluster at most, can
 * be read? (Below another layer there may be smaller clusters.) */
static bool
is_unmapped(struct qcow2_disk *disk, size_t nr_bytes, uint64_t off)
{
    struct qcow2_extent e;

    return qcow2_get_nr_layers(disk) == 1
           && nr_bytes <= qcow2_get_cluster_size(disk)
           && qcow2_map(disk, 1, off, take_extent, &e, NULL) == -1
           && qcow2_map(disk, 1, off + nr_bytes - 1, take_extent, &e, NULL)
              == -1;
}

/* Reads what can be read of a range that cannot be read as a whole: its
 * halves, and theirs, down to the sectors that fail, which become zeroes.
 */
static void
salvage(struct qcow2_disk *disk, unsigned char *buf, size_t nr_bytes,
        uint64_t off)
{
    uint64_t end = off + nr_bytes;
    uint64_t middle = round_down(off + nr_bytes / 2, SECTOR_BYTES);

    if (middle <= off)
        middle = round_down(off, SECTOR_BYTES) + SECTOR_BYTES;
    if (middle >= end || is_unmapped(disk, nr_bytes, off)) {
        memset(buf, 0, nr_bytes);
        return;
    }
    if (qcow2_pread(disk, buf, middle - off, off, NULL) == -1)
        salvage(disk, buf, middle - off, off);
    buf += middle - off;
    if (qcow2_pread(disk, buf, end - middle, middle, NULL) == -1)
        salvage(disk, buf, end - middle, middle);
}

static int
read_part(const struct convert_source *s, const struct convert_part *p,
          unsigned char *buf, size_t nr_bytes, uint64_t in_part,
          struct qcow2_error *err)
{
    size_t inside = in_part >= p->disk_size
                    ? 0 : min_u64(nr_bytes, p->disk_size - in_part);

    memset(buf + inside, 0, nr_bytes - inside);
    if (qcow2_pread(p->disk, buf, inside, in_part, err) == 0)
        return 0;
    if (!s->ignore_errors)
        return -1;
    salvage(p->disk, buf, inside, in_part);
    return 0;
}

int
convert_source_read(const struct convert_source *s, void *buf,
                    size_t nr_bytes, uint64_t off, struct qcow2_error *err)
{
    while (nr_bytes > 0) {
        uint64_t reach;
        const struct convert_part *p = find_part(s, s->skip + off, &reach);
        size_t n = min_u64(nr_bytes, reach);

        if (read_part(s, p, buf, n, s->skip + off - p->start, err) == -1)
            return -1;
        buf = (unsigned char *)buf + n;
        nr_bytes -= n;
        off += n;
    }
    return 0;
}

/* Calls ask for every layer until one is what it asks for. */
static bool
has_layer(const struct convert_source *s,
          bool (*ask)(const struct io *io, const struct io *wanted),
          const struct io *wanted)
{
    bool found = false;

    for (size_t i = 0; i < s->nr_parts && !found; i++) {
        struct source_chain *chain = disk_get_chain(s->parts[i].disk);

        for (unsigned n = 0; n < chain->nr_layers && !found; n++)
            found = ask(chain->layers[n]->io, wanted)
                    || ask(chain->layers[n]->data->io, wanted);
        source_chain_put(chain);
    }
    return found;
}

static bool
is_file(const struct io *io, const struct io *wanted)
{
    if (wanted->ino == 0)
        return io->ino == 0 && strcmp(io->name, wanted->name) == 0;
    return io->ino == wanted->ino && io->dev == wanted->dev;
}

bool
convert_source_has_file(const struct convert_source *s,
                        const struct policy_file *file)
{
    const struct io wanted = {
        .dev = file->dev, .ino = file->ino, .name = file->path,
    };

    return has_layer(s, is_file, &wanted);
}

static bool
is_no_file(const struct io *io, const struct io *wanted)
{
    (void)wanted;
    return !io->is_local;
}

mode_t
convert_source_mode(const struct convert_source *s)
{
    mode_t mode = 0666;

    for (size_t i = 0; i < s->nr_parts; i++) {
        struct source_chain *chain = disk_get_chain(s->parts[i].disk);

        for (unsigned n = 0; n < chain->nr_layers; n++)
            mode &= chain->layers[n]->io->mode
                    & chain->layers[n]->data->io->mode;
        source_chain_put(chain);
    }
    return mode | 0600;
}

bool
convert_source_is_remote(const struct convert_source *s)
{
    return has_layer(s, is_no_file, NULL);
}
