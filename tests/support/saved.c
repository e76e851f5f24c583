/* SPDX-License-Identifier: BSD-3-Clause */
/* saved.c: reads what can be read of an image; see saved.h. */
#include "saved.h"

#include <stdlib.h>

#include "disk/open.h"
#include "expect.h"
#include "snapshots.h"
#include "tmpdir.h"

/* A disk or snapshot. */
struct content {
    char *name;
    uint64_t size, piece;
    unsigned char *bytes;
    bool *lost; /* of each piece */
};

struct saved {
    size_t nr;
    struct content *contents; /* [0]: the disk */
};

static void *
must_have(void *p)
{
    if (!p)
        abort();
    return p;
}

static uint64_t
nr_pieces(const struct content *c)
{
    return (c->size + c->piece - 1) / c->piece;
}

static void
read_content(struct content *c, const char *name, struct qcow2_disk *disk)
{
    uint32_t cluster_size = qcow2_get_cluster_size(disk);

    c->name = must_have(strdup(name));
    c->size = qcow2_get_size(disk);
    c->piece = cluster_size < 65536 ? cluster_size : 65536;
    c->bytes = must_have(calloc(1, c->size + 1));
    c->lost = must_have(calloc(nr_pieces(c) + 1, sizeof *c->lost));
    for (uint64_t i = 0; i < nr_pieces(c); i++) {
        uint64_t off = i * c->piece;
        uint64_t n = c->size - off < c->piece ? c->size - off : c->piece;

        c->lost[i] = qcow2_pread(disk, c->bytes + off, n, off, NULL) == -1;
    }
}

struct saved *
saved_read(struct mem *image)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct saved *s = must_have(calloc(1, sizeof *s));
    struct qcow2_error err;
    struct qcow2_disk *disk;

    options.readonly = true;
    options.backing_none = true;
    disk = disk_open_io(io_mem_open(image, true), tmpdir_path("saved"),
                        &options, &err);
    if (!disk) /* nothing can be read */
        return s;
    s->contents = must_have(calloc(1 + qcow2_get_nr_snapshots(disk),
                                   sizeof *s->contents));
    read_content(&s->contents[s->nr++], "disk", disk);
    for (size_t i = 0; i < qcow2_get_nr_snapshots(disk); i++) {
        struct qcow2_snapshot info;
        struct qcow2_disk *snapshot;

        snapshot_get(disk, i, &info);
        snapshot = qcow2_open_snapshot(disk, info.name, &err);
        if (!snapshot) /* its entry is damaged */
            continue;
        read_content(&s->contents[s->nr++], info.name, snapshot);
        EXPECT_OK(qcow2_close(snapshot, &err), &err);
    }
    EXPECT_OK(qcow2_close(disk, &err), &err);
    return s;
}

void
saved_free(struct saved *s)
{
    for (size_t i = 0; i < s->nr; i++) {
        free(s->contents[i].name);
        free(s->contents[i].bytes);
        free(s->contents[i].lost);
    }
    free(s->contents);
    free(s);
}

unsigned long
saved_nr_lost(const struct saved *s)
{
    unsigned long nr = 0;

    for (size_t i = 0; i < s->nr; i++)
        for (uint64_t k = 0; k < nr_pieces(&s->contents[i]); k++)
            nr += s->contents[i].lost[k];
    return nr;
}

void
saved_expect_kept(const struct saved *before, const struct saved *now,
                  enum saved_of of)
{
    EXPECT(before->nr == now->nr, "%zu snapshots became %zu", before->nr - 1,
           now->nr - 1);
    for (size_t i = of == SAVED_ALL ? 0 : 1; i < now->nr; i++) {
        const struct content *b = &before->contents[i];
        const struct content *n = &now->contents[i];

        EXPECT(b->size == n->size && strcmp(b->name, n->name) == 0, "%s",
               b->name);
        for (uint64_t k = 0; k < nr_pieces(b); k++) {
            uint64_t off = k * b->piece;

            if (b->lost[k])
                continue;
            EXPECT(!n->lost[k], "%s at %llu could be read", b->name,
                   (unsigned long long)off);
            expect_same(b->name, n->bytes + off, b->bytes + off,
                        b->size - off < b->piece ? b->size - off : b->piece,
                        off);
        }
    }
}
