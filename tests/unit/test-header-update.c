/* SPDX-License-Identifier: BSD-3-Clause */
/* test-header-update: changes of a header, of fields and of extensions, each
 * by one write of the first sector; all that is not named stays.
 */
#include "format/header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "builder.h"
#include "expect.h"
#include "io-mem.h"

enum { OURS = 0x11223344, OTHER = 0x55667788 };

/* An image in memory with its header. */
struct scene {
    struct builder *recipe;
    struct mem *mem;
    struct io *io;
    struct header h;
    unsigned char *before;
    size_t nr_bytes;
};

static void
begin(struct scene *s, const char *recipe)
{
    const unsigned char *bytes;
    struct qcow2_error err;

    expect_case("%s", recipe);
    s->recipe = builder_new();
    builder_add(s->recipe, "%s", recipe);
    bytes = builder_bytes(s->recipe, &s->nr_bytes);
    s->before = malloc(s->nr_bytes);
    EXPECT(s->before, "memory");
    memcpy(s->before, bytes, s->nr_bytes);
    s->mem = mem_new(bytes, s->nr_bytes);
    s->io = io_mem_open(s->mem, false);
    EXPECT_OK(header_read(s->io, &s->h, &err), &err);
}

static void
end(struct scene *s)
{
    header_free(&s->h);
    io_close(s->io);
    mem_free(s->mem);
    builder_free(s->recipe);
    free(s->before);
}

/* Prepares: nothing that the old header refers to may have changed. Then the
 * header is switched, and read by others as the engine has it. */
static void
change(struct scene *s, const struct header_update *u)
{
    struct header_sector sector;
    struct qcow2_error err;
    struct header again;

    EXPECT_OK(header_prepare(s->io, &s->h, u, &sector, &err), &err);
    EXPECT_OK(header_read(s->io, &again, &err), &err);
    EXPECT(again.nr_extensions == s->h.nr_extensions
           && again.size == s->h.size, "changed before the switch");
    header_free(&again);
    EXPECT_OK(header_switch(s->io, &s->h, u, &sector, &err), &err);
    EXPECT_OK(header_read(s->io, &again, &err), &err);
    EXPECT(again.size == s->h.size && again.l1_size == s->h.l1_size
           && again.l1_offset == s->h.l1_offset
           && again.incompatible == s->h.incompatible
           && again.compatible == s->h.compatible
           && again.autoclear == s->h.autoclear
           && again.nr_extensions == s->h.nr_extensions,
           "memory and file differ");
    header_free(&again);
}

/* Bytes [from, to) alone may differ from what was before. */
static void
expect_change_inside(struct scene *s, size_t from, size_t to)
{
    uint64_t size;
    const unsigned char *now = mem_bytes(s->mem, &size);

    EXPECT(size == s->nr_bytes && memcmp(now, s->before, from) == 0
           && memcmp(now + to, s->before + to, size - to) == 0,
           "bytes outside of %zu to %zu changed", from, to);
}

static const struct header_extension *
find(const struct scene *s, uint32_t type)
{
    for (unsigned i = 0; i < s->h.nr_extensions; i++)
        if (s->h.extensions[i].type == type)
            return &s->h.extensions[i];
    return NULL;
}

static void
expect_extension(const struct scene *s, uint32_t type, const char *text)
{
    const struct header_extension *e = find(s, type);

    EXPECT(e && e->length == strlen(text)
           && memcmp(e->data, text, e->length) == 0, "extension %x", type);
}

static void
fields_far_from_each_other_change_together(void **state)
{
    struct header_update u = {
        .parts = HEADER_SET_DISK | HEADER_SET_AUTOCLEAR
                 | HEADER_SET_INCOMPATIBLE,
        .size = 512 << 10,
        .l1_size = 1,
        .incompatible_set = INCOMPAT_DIRTY,
        .autoclear = 4,
    };
    struct scene s;

    (void)state;
    begin(&s, "size 1M; compatible 0; compatible 9; autoclear 5;"
          "header-length 200; data 0 1; snapshot 1 a");
    u.l1_offset = s.h.l1_offset;
    change(&s, &u);
    expect_change_inside(&s, 24, 96);
    assert_int_equal(s.h.size, 512 << 10);
    assert_int_equal(s.h.incompatible, INCOMPAT_DIRTY);
    assert_int_equal(s.h.compatible, 1 | 1 << 9);
    assert_int_equal(s.h.autoclear, 4);
    assert_int_equal(s.h.nr_snapshots, 1);
    end(&s);
}

static void
version_2_has_no_place_for_feature_bits(void **state)
{
    static const struct header_update u = {
        .parts = HEADER_SET_INCOMPATIBLE | HEADER_SET_AUTOCLEAR,
        .incompatible_set = INCOMPAT_DIRTY, .autoclear = 1,
    };
    struct scene s;

    (void)state;
    begin(&s, "version 2; size 1M; backing base raw");
    change(&s, &u);
    expect_change_inside(&s, 0, 0);
    assert_int_equal(s.h.incompatible, 0);
    end(&s);
}

static void
extensions_are_added_replaced_and_removed(void **state)
{
    unsigned char one[] = "one", second[] = "the second", third[] = "3";
    const struct header_extension added[] = {
        { OURS, 3, one }, { OTHER, 10, second },
    };
    const struct header_extension replaced[] = {
        { OURS, 10, second }, { OTHER, 0, NULL },
    };
    const struct header_extension again = { OURS, 1, third };
    struct header_update u = {
        .parts = HEADER_SET_EXTENSIONS | HEADER_SET_AUTOCLEAR,
        .extensions = added, .nr_extensions = 2, .autoclear = 2,
    };
    struct scene s;

    (void)state;
    begin(&s, "size 1M; backing base raw; extension 0x99 unknown");
    change(&s, &u);
    expect_extension(&s, 0x99, "unknown");
    expect_extension(&s, OURS, "one");
    expect_extension(&s, OTHER, "the second");
    assert_string_equal(s.h.backing_file, "base");
    assert_string_equal(s.h.backing_format, "raw");
    assert_int_equal(s.h.autoclear, 2);

    u.extensions = replaced;
    change(&s, &u);
    expect_extension(&s, OURS, "the second");
    assert_null(find(&s, OTHER));
    expect_extension(&s, 0x99, "unknown");

    u.extensions = &again;
    u.nr_extensions = 1;
    change(&s, &u);
    expect_extension(&s, OURS, "3");
    assert_string_equal(s.h.backing_file, "base");
    end(&s);
}

/* A corrupt bit set by a reader in between stays, and a bit of the update's
 * own comes with the extension. */
static void
feature_bits_change_with_extensions(void **state)
{
    static const struct header_update corrupt = {
        .parts = HEADER_SET_INCOMPATIBLE,
        .incompatible_set = INCOMPAT_CORRUPT,
    };
    unsigned char text[] = "text";
    const struct header_extension e = { OURS, 4, text };
    const struct header_update u = {
        .parts = HEADER_SET_EXTENSIONS | HEADER_SET_INCOMPATIBLE,
        .extensions = &e, .nr_extensions = 1,
        .incompatible_set = INCOMPAT_DIRTY,
    };
    struct header_sector sector;
    struct qcow2_error err;
    struct scene s;

    (void)state;
    begin(&s, "size 1M");
    EXPECT_OK(header_prepare(s.io, &s.h, &u, &sector, &err), &err);
    EXPECT_OK(header_write_fields(s.io, &s.h, &corrupt, &err), &err);
    EXPECT_OK(header_switch(s.io, &s.h, &u, &sector, &err), &err);
    assert_int_equal(s.h.incompatible, INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
    expect_extension(&s, OURS, "text");
    end(&s);
}

static void
without_room_nothing_changes(void **state)
{
    static unsigned char text[600];
    const struct header_extension e = { OURS, sizeof text, text };
    const struct header_update u = {
        .parts = HEADER_SET_EXTENSIONS | HEADER_SET_DISK,
        .extensions = &e, .nr_extensions = 1,
    };
    struct header_sector sector;
    struct qcow2_error err;
    struct scene s;

    (void)state;
    begin(&s, "cluster 512; size 64K");
    assert_int_equal(header_prepare(s.io, &s.h, &u, &sector, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    expect_change_inside(&s, 0, 0);
    assert_int_equal(header_write_fields(s.io, &s.h, &u, &err), -1);
    assert_int_equal(err.errnum, EINVAL);
    expect_change_inside(&s, 0, 0);
    assert_int_equal(s.h.size, 64 << 10);
    end(&s);
}

static const struct header_update set_dirty = {
    .parts = HEADER_SET_INCOMPATIBLE, .incompatible_set = INCOMPAT_DIRTY,
};
static const struct header_update no_autoclear = {
    .parts = HEADER_SET_AUTOCLEAR,
};

static void
single_fields_are_rewritten_and_nothing_else(void **state)
{
    struct header_update moved = {
        .parts = HEADER_SET_REFTABLE, .reftable_clusters = 1,
    };
    struct builder *b = builder_new();
    struct qcow2_error err;
    unsigned char *before;
    const unsigned char *bytes;
    struct header h, again;
    uint64_t mem_size;
    size_t nr_bytes;
    struct mem *m;
    struct io *io;

    (void)state;
    builder_add(b, "size 1M; backing b raw; autoclear 5; compatible 9;"
                "header-length 200");
    bytes = builder_bytes(b, &nr_bytes);
    before = malloc(nr_bytes);
    assert_non_null(before);
    memcpy(before, bytes, nr_bytes);
    m = mem_new(bytes, nr_bytes);
    builder_free(b);
    io = io_mem_open(m, false);
    EXPECT_OK(header_read(io, &h, &err), &err);

    EXPECT_OK(header_write_fields(io, &h, &set_dirty, &err), &err);
    EXPECT_OK(header_write_fields(io, &h, &no_autoclear, &err), &err);
    moved.reftable_offset = h.l1_offset;
    EXPECT_OK(header_write_fields(io, &h, &moved, &err), &err);
    assert_int_equal(h.incompatible, INCOMPAT_DIRTY);
    assert_int_equal(h.autoclear, 0);

    memset(before + 72, 0, 8);
    before[79] = 1;
    memset(before + 88, 0, 8);
    memcpy(before + 48, before + 40, 8);
    assert_memory_equal(before, mem_bytes(m, &mem_size), nr_bytes);
    assert_int_equal(mem_size, nr_bytes);
    assert_int_equal(header_read(io, &again, &err), -1); /* they overlap */
    assert_non_null(strstr(err.text, "overlap"));

    header_free(&h);
    io_close(io);
    mem_free(m);
    free(before);
}

static void
failed_rewrite_leaves_the_header_as_it_was(void **state)
{
    const struct header_update moved = {
        .parts = HEADER_SET_REFTABLE, .reftable_clusters = 9,
    };
    struct builder *b = builder_new();
    const unsigned char *bytes;
    struct qcow2_error err;
    struct header h;
    size_t nr_bytes;
    struct mem *m;
    struct io *io;

    (void)state;
    builder_add(b, "size 1M; autoclear 5");
    bytes = builder_bytes(b, &nr_bytes);
    m = mem_new(bytes, nr_bytes);
    builder_free(b);
    io = io_mem_open(m, true);
    EXPECT_OK(header_read(io, &h, &err), &err);
    assert_int_equal(header_write_fields(io, &h, &no_autoclear, &err), -1);
    assert_int_equal(header_write_fields(io, &h, &set_dirty, &err), -1);
    assert_int_equal(header_write_fields(io, &h, &moved, &err), -1);
    assert_int_equal(err.errnum, EROFS);
    assert_int_equal(h.autoclear, 32);
    assert_int_equal(h.incompatible, 0);
    assert_int_equal(h.reftable_clusters, 1);
    header_free(&h);
    io_close(io);
    mem_free(m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_far_from_each_other_change_together),
        cmocka_unit_test(version_2_has_no_place_for_feature_bits),
        cmocka_unit_test(extensions_are_added_replaced_and_removed),
        cmocka_unit_test(feature_bits_change_with_extensions),
        cmocka_unit_test(without_room_nothing_changes),
        cmocka_unit_test(single_fields_are_rewritten_and_nothing_else),
        cmocka_unit_test(failed_rewrite_leaves_the_header_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
