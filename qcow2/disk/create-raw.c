/* SPDX-License-Identifier: BSD-3-Clause */
/* create-raw.c: makes new raw files. */
#include <errno.h>
#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "disk/create.h"
#include "disk/open.h"
#include "format/probe.h"
#include "qcow2.h"
#include "storage/failures.h"
#include "storage/io-open.h"

int
create_preallocate(struct io *io, const struct policy_target *target,
                   enum qcow2_format format,
                   enum qcow2_preallocation prealloc, struct qcow2_error *err)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct policy_place place;
    struct qcow2_disk *disk;
    int r;

    options.format = format;
    options.trust_data_file = true;
    policy_target_place(target, &place);
    disk = disk_open_at(io, target->path, &place, &options, NULL, err);
    policy_place_free(&place);
    if (!disk)
        return -1;
    r = qcow2_preallocate(disk, qcow2_get_size(disk), 0, prealloc, err);
    if (qcow2_close(disk, r == 0 ? err : NULL) == -1)
        r = -1;
    return r;
}

/* What cannot grow, a device or an NBD export, keeps what it holds but for
 * the start, which may make it look like an image. */
int
create_set_size(struct io *io, uint64_t size, struct qcow2_error *err)
{
    uint64_t has;

    if (io->can_grow)
        return io_truncate(io, size, err);
    if (io_get_size(io, &has, err) == -1)
        return -1;
    if (has < size)
        return error_set(err, ENOSPC, "%s: it has %" PRIu64 " bytes, of which "
                         "there must be %" PRIu64, io->name, has, size);
    if (io_zero(io, 0, min_u64(has, PROBE_BYTES), 0, err) == -1)
        return -1;
    return io_flush(io, err);
}

struct io *
create_raw_target(struct policy_target *target,
                  const struct qcow2_create_options *o, mode_t mode,
                  struct qcow2_error *err)
{
    const struct io_create_options c = {
        .overwrite = o->overwrite, .mode = mode, .driver = o->driver,
    };
    struct io *io = io_create(target, &c, err);

    if (!io)
        return NULL;
    io_advise_layout(io, o->nocow, o->extent_size_hint);
    if (create_set_size(io, o->size, err) == 0)
        return io;
    policy_target_remove(target);
    io_close(io);
    error_prefix(err, "cannot create");
    return NULL;
}

int
qcow2_create_raw(const char *path, const struct qcow2_create_options *o,
                 struct qcow2_error *err)
{
    struct policy_target target;
    struct io *io;
    int r = -1;

    if (o->prealloc == QCOW2_PREALLOC_METADATA)
        return error_set(err, EINVAL, "%s: cannot create: Unsupported "
                         "preallocation mode: metadata; a raw file has none",
                         path);
    if (policy_target_find(path, &target, err) == -1)
        return -1;
    io = create_raw_target(&target, o, CREATE_MODE, err);
    if (io)
        failures_note_locks(o->failures, io);
    if (io && o->prealloc == QCOW2_PREALLOC_OFF) {
        io_close(io);
        r = 0;
    } else if (io) {
        r = create_preallocate(io, &target, QCOW2_FORMAT_RAW, o->prealloc,
                               err);
        if (r == -1) {
            policy_target_remove(&target);
            error_prefix(err, "cannot create");
        }
    }
    policy_target_free(&target);
    return r;
}
