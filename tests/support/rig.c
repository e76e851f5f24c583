/* SPDX-License-Identifier: BSD-3-Clause */
/* rig.c: see rig.h. */
#include "rig.h"

#include <stdlib.h>

#include "audit.h"
#include "disk/open.h"
#include "expect.h"
#include "oracle.h"
#include "snapshots.h"
#include "storage/io-align.h"
#include "tmpdir.h"

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

void
rig_init(struct rig *r, const char *recipe, uint64_t backing_bytes)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct fault_plan plan = FAULT_PLAN_INIT;
    unsigned char *bytes;
    uint64_t size;

    memset(r, 0, sizeof *r);
    r->options = options;
    r->options.pool = must_have(qcow2_pool_new(0, NULL));
    r->plan = plan;
    r->image = builder_new();
    builder_add(r->image, "%s", recipe);
    size = builder_disk_size(r->image, -1);
    r->below = must_have(calloc(1, size + 1));
    if (backing_bytes == 0)
        return;
    bytes = must_have(malloc(backing_bytes));
    pattern_fill(bytes, backing_bytes, 77, 0);
    tmpdir_write_file(tmpdir_path("base.raw"), bytes, backing_bytes);
    memcpy(r->below, bytes, backing_bytes < size ? backing_bytes : size);
    free(bytes);
}

void
rig_free(struct rig *r)
{
    qcow2_pool_free(r->options.pool);
    free(r->below);
    builder_free(r->image);
}

static struct mem *
new_file(const struct rig *r)
{
    size_t nr_bytes;
    const unsigned char *bytes = builder_bytes(r->image, &nr_bytes);
    struct mem *m;
    struct io *io;

    if (r->device_bytes == 0)
        return mem_new(bytes, nr_bytes);
    m = mem_new_device(r->device_bytes);
    io = io_mem_open(m, false);
    EXPECT(io_pwrite(io, bytes, nr_bytes, 0, NULL) == 0, "device");
    io_close(io);
    return m;
}

void
rig_start(struct rig *r)
{
    uint64_t size = builder_disk_size(r->image, -1);
    unsigned char *content = must_have(malloc(size + 1));

    r->mem = new_file(r);
    if (builder_has_data_file(r->image))
        builder_write(r->image, tmpdir_path("as-built"));
    memcpy(content, r->below, size);
    builder_overlay(r->image, -1, content, size);
    memset(&r->play, 0, sizeof r->play);
    play_init(&r->play, content, size);
    r->play.may_keep_trimmed = builder_version(r->image) == 2;
    free(content);
}

void
rig_end(struct rig *r)
{
    play_free(&r->play);
    mem_free(r->mem);
    r->mem = NULL;
}

unsigned
rig_version(struct mem *image)
{
    uint64_t nr_bytes;

    return mem_bytes(image, &nr_bytes)[7];
}

struct qcow2_disk *
rig_open_disk(struct rig *r, struct io *io)
{
    struct qcow2_disk *disk;
    struct qcow2_error err;

    if (r->block)
        io = must_have(io_align_new(io, r->block, &err));
    disk = disk_open_io(io, tmpdir_path("image"), &r->options, &err);
    EXPECT(disk, "open: %s", err.text);
    r->play.cluster_size = qcow2_get_cluster_size(disk);
    if (disk_image(disk)->subcluster_size < r->play.cluster_size)
        r->play.subcluster_size = disk_image(disk)->subcluster_size;
    return disk;
}

void
rig_open(struct rig *r)
{
    rig_start(r);
    r->play.disk = rig_open_disk(r, io_fault_new(io_mem_open(r->mem, false),
                                                 &r->plan));
}

void
rig_expect_snapshots(struct rig *r, struct qcow2_disk *disk)
{
    size_t nr = qcow2_get_nr_snapshots(disk);
    struct qcow2_error err;

    for (size_t i = 0; i < nr; i++) {
        struct qcow2_snapshot info;
        struct qcow2_disk *s;
        uint64_t size = builder_disk_size(r->image, i);
        unsigned char *want = must_have(calloc(2, size));
        unsigned char *got = want + size;

        snapshot_get(disk, i, &info);
        s = qcow2_open_snapshot(disk, info.name, &err);
        EXPECT(s, "snapshot %s: %s", info.name, err.text);
        memcpy(want, r->below, size);
        builder_overlay(r->image, i, want, size);
        EXPECT_OK(qcow2_pread(s, got, size, 0, &err), &err);
        expect_same("snapshot", got, want, size, 0);
        EXPECT_OK(qcow2_close(s, &err), &err);
        free(want);
    }
}

void
rig_close(struct rig *r)
{
    const char *path = tmpdir_path("image");
    struct qcow2_error err;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    play_verify(&r->play);
    rig_expect_snapshots(r, r->play.disk);
    EXPECT_OK(qcow2_close(r->play.disk, &err), &err);
    bytes = mem_bytes(r->mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks%s", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks, a.dirty ? ", dirty" : "");
    mem_save(r->mem, path);
    oracle_expect_clean(path);
    oracle_expect_content(path, r->play.model.disk, r->play.model.size);
    rig_end(r);
}

void
rig_play(struct rig *r, enum op_kind kind, uint64_t off, uint64_t nr_bytes,
         unsigned flags)
{
    static uint64_t seed = 10000;
    struct op op = { kind, off, nr_bytes, flags, seed++ };
    struct qcow2_error err;

    expect_step("%s", play_text(&op));
    EXPECT_OK(play_op(&r->play, &op, &err), &err);
}

void
rig_flush(struct rig *r)
{
    rig_play(r, OP_FLUSH, 0, 0, 0);
}
