/* SPDX-License-Identifier: BSD-3-Clause */
/* targets.c: the targets that open a disk; see targets.h. */
#include "targets.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "bounds.h"
#include "disk/open.h"
#include "format/header.h"
#include "format/snaptab.h"
#include "qcow2.h"
#include "session.h"

/* Opening for reading changes nothing, and whoever reads what the image says
 * of itself finds it. */
static void
look_at(struct sparse *file, const struct qcow2_options *options)
{
    struct sparse *before = sparse_copy(file);
    struct io *io = sparse_open(file, options->readonly);
    struct qcow2_error err = { 0 };
    struct qcow2_disk *disk = disk_open_io(io, "/nonexistent/fuzzed", options,
                                           &err);
    struct qcow2_snapshot_list list;
    struct qcow2_layer layer;

    if (!disk) {
        MUST(err.errnum != 0 && err.text[0], "refused without a reason");
        MUST(strlen(err.text) < sizeof err.text, "a reason without end");
        sparse_free(before);
        return;
    }
    MUST(qcow2_get_snapshots(disk, &list, NULL) == 0, "no list");
    MUST(list.nr == qcow2_get_nr_snapshots(disk), "a list cut short");
    for (unsigned i = 0; i < qcow2_get_nr_layers(disk); i++)
        qcow2_get_layer(disk, i, &layer, NULL);
    if (list.nr > 0)
        qcow2_close(qcow2_open_snapshot(disk, list.snapshots[0].id, NULL),
                    NULL);
    qcow2_snapshot_list_free(&list);
    MUST(qcow2_close(disk, NULL) == 0 || !options->readonly, "close");
    if (options->readonly)
        MUST(sparse_same(file, before), "reading changed the file");
    sparse_free(before);
}

/* With names from the image, which lead nowhere; without; and for writing,
 * which repairs what is dirty. */
static void
target_open(const uint8_t *data, size_t nr_bytes)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct input in;

    input_decode(&in, data, nr_bytes);
    options.no_lock = true;
    options.readonly = true;
    look_at(in.file, &options);
    options.probe_raw = true;
    options.backing_none = true;
    look_at(in.file, &options);
    options.format = QCOW2_FORMAT_QCOW2;
    options.readonly = false;
    look_at(in.file, &options);
    bounds_of_work(sparse_counts(in.file));
    input_free(&in);
}

static void
run_session(const struct input *in, bool readonly,
            const struct command *ops, unsigned nr_ops)
{
    struct session s;

    session_begin(&s, in->file, readonly);
    session_run(&s, ops, nr_ops);
    if (s.disk)
        session_read_all(&s);
    session_end(&s);
}

static void
target_read(const uint8_t *data, size_t nr_bytes)
{
    struct input in;
    struct sparse *before;

    input_decode(&in, data, nr_bytes);
    before = sparse_copy(in.file);
    run_session(&in, true, in.ops, in.nr_ops);
    MUST(sparse_same(in.file, before), "reading changed the file");
    sparse_free(before);
    input_free(&in);
}

/* For files that come without operations. */
static const struct command usual[] = {
    { 0x80 + DO_WRITE, 0, 3, 700 }, { 0x80 + DO_ZERO, A_MAY_TRIM, 20, 3000 },
    { 0x80 + DO_WRITE, A_FUA, 100, 5000 }, { 0x80 + DO_FLUSH, 0, 0, 0 },
    { 0x80 + DO_TRIM, A_ALIGNED, 1, 3 }, { 0x80 + DO_REOPEN, 0, 0, 0 },
    { 0x80 + DO_COMPRESSED, 0, 2, 9 }, { 0x80 + DO_WRITE, A_ALIGNED, 4, 9 },
    { 0x80 + DO_ZERO, A_ALIGNED, 6, 2 }, { 0x80 + DO_FLUSH, 0, 0, 0 },
};

static const struct command usual_whole[] = {
    { 0x80 + DO_CREATE, A_FUA, 1, 1 }, { 0x80 + DO_WRITE, A_ALIGNED, 1, 9 },
    { 0x80 + DO_DELETE, 0, 0, 0 }, { 0x80 + DO_APPLY, A_BEHIND, 0, 0 },
    { 0x80 + DO_REOPEN, 0, 0, 0 }, { 0x80 + DO_CREATE, 0, 2, 1 },
    { 0x80 + DO_RESIZE, A_MAY_TRIM, 0, 30000 }, { 0x80 + DO_LOOK, 0, 0, 0 },
    { 0x80 + DO_RESIZE, 0, 0, 60000 }, { 0x80 + DO_WRITE, 0, 9, 99999 },
    { 0x80 + DO_APPLY, 0, 0, 0 }, { 0x80 + DO_AMEND, 3, 8 + 5, 0 },
};

static void
run_writable(const uint8_t *data, size_t nr_bytes,
             const struct command *ops, unsigned nr_ops)
{
    struct input in;

    input_decode(&in, data, nr_bytes);
    if (in.nr_ops > 0) {
        ops = in.ops;
        nr_ops = in.nr_ops;
    }
    run_session(&in, false, ops, nr_ops);
    input_free(&in);
}

static void
target_write(const uint8_t *data, size_t nr_bytes)
{
    run_writable(data, nr_bytes, usual, sizeof usual / sizeof usual[0]);
}

/* What is decoded from a table is encoded to one that means the same. */
static void
encode_again(const struct header *h, const struct snapshot_table *t)
{
    struct sparse *file = sparse_new();
    struct io *io = sparse_open(file, true);
    struct header at_start = *h;
    struct snapshot_table again;
    unsigned char *bytes, *bytes_again;
    uint64_t nr_bytes, nr_again;
    struct qcow2_error err;

    at_start.snapshots_offset = 0;
    if (snaptab_encode(t, &bytes, &nr_bytes, NULL) == 0) {
        sparse_write(file, 0, bytes, nr_bytes);
        sparse_truncate(file, UINT64_C(1) << 60); /* L1 tables lie in it */
        MUST(snaptab_read(io, &at_start, &again, &err) == 0, "%s", err.text);
        MUST(snaptab_encode(&again, &bytes_again, &nr_again, NULL) == 0
             && nr_again == nr_bytes
             && memcmp(bytes, bytes_again, nr_bytes) == 0,
             "encoded again it is something else");
        free(bytes_again);
        free(bytes);
        snaptab_free(&again);
    }
    io_close(io);
    sparse_free(file);
}

static void
target_snapshots(const uint8_t *data, size_t nr_bytes)
{
    struct snapshot_table t;
    struct header h;
    struct input in;
    struct io *io;

    input_decode(&in, data, nr_bytes);
    io = sparse_open(in.file, true);
    if (header_read(io, &h, NULL) == 0) {
        if (h.nr_snapshots > 0 && snaptab_read(io, &h, &t, NULL) == 0) {
            encode_again(&h, &t);
            snaptab_free(&t);
        }
        header_free(&h);
    }
    io_close(io);
    input_free(&in);
    run_writable(data, nr_bytes, usual_whole,
                 sizeof usual_whole / sizeof usual_whole[0]);
}

const struct target targets[] = {
    { "open", target_open },
    { "read", target_read },
    { "write", target_write },
    { "check", target_check },
    { "snapshots", target_snapshots },
    { "bitmaps", target_bitmaps },
    { "decompress", target_decompress },
    { "qcow1", target_qcow1 },
};
const unsigned nr_targets = sizeof targets / sizeof targets[0];

const struct target *
target_find(const char *name)
{
    for (unsigned i = 0; i < nr_targets; i++)
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    return NULL;
}

void
target_run(const struct target *t, const uint8_t *data, size_t nr_bytes)
{
    if (nr_bytes > MAX_INPUT_BYTES)
        return;
    bounds_begin();
    t->run(data, nr_bytes);
    bounds_end();
}
