/* SPDX-License-Identifier: BSD-3-Clause */
/* bare.c: see bare.h. */
#include "bare.h"

#include "audit.h"
#include "expect.h"
#include "meta/flush.h"

enum { CACHE_BYTES = 64 << 10 };

void
bare_start(struct bare *b, const char *recipe, uint64_t device_bytes)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    const unsigned char *bytes;
    size_t nr_bytes;

    memset(b, 0, sizeof *b);
    expect_case("%s", recipe);
    b->plan = plan;
    b->recipe = builder_new();
    builder_add(b->recipe, "%s", recipe);
    b->meta = cache_new(CACHE_BYTES, NULL);
    b->decompress = decompress_pool_new(CACHE_BYTES, NULL);
    EXPECT(b->meta && b->decompress, "caches");
    bytes = builder_bytes(b->recipe, &nr_bytes);
    if (device_bytes) {
        struct io *io;

        b->mem = mem_new_device(device_bytes);
        io = io_mem_open(b->mem, false);
        EXPECT(io_pwrite(io, bytes, nr_bytes, 0, NULL) == 0, "device");
        io_close(io);
    } else {
        b->mem = mem_new(bytes, nr_bytes);
    }
}

struct image *
bare_try(struct bare *b, struct qcow2_error *err)
{
    struct io *io = io_fault_new(io_mem_open(b->mem, false), &b->plan);

    b->img = image_open(io, false, b->meta, b->decompress, err);
    return b->img;
}

static void
must_open(struct bare *b)
{
    struct qcow2_error err;

    EXPECT(bare_try(b, &err), "open: %s", err.text);
    EXPECT_OK(image_begin_write(b->img, &err), &err);
}

void
bare_open(struct bare *b, const char *recipe)
{
    bare_start(b, recipe, 0);
    must_open(b);
}

void
bare_open_device(struct bare *b, const char *recipe, uint64_t nr_bytes)
{
    bare_start(b, recipe, nr_bytes);
    must_open(b);
}

void
bare_drop(struct bare *b)
{
    image_free(b->img);
    mem_free(b->mem);
    cache_free(b->meta);
    decompress_pool_free(b->decompress);
    builder_free(b->recipe);
}

void
bare_close(struct bare *b)
{
    struct qcow2_error err;
    const unsigned char *bytes;
    uint64_t nr_bytes;
    struct audit a;

    EXPECT_OK(flush_close(b->img, &err), &err);
    bytes = mem_bytes(b->mem, &nr_bytes);
    audit_image(bytes, nr_bytes, &a);
    EXPECT(audit_is_clean(&a), "closed image: %u corruptions (%s), %u "
           "without COPIED, %u leaks", a.nr_corruptions, a.first,
           a.nr_uncopied, a.nr_leaks);
    bare_drop(b);
}
