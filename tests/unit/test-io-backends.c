/* SPDX-License-Identifier: BSD-3-Clause */
/* test-io-backends.c: the backends that other tests rely on: memory,
 * faults, and the states of a power cut.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "expect.h"
#include "io-crash.h"
#include "io-fault.h"
#include "io-mem.h"
#include "rng.h"
#include "tmpdir.h"

static uint64_t
size_of(struct io *io)
{
    uint64_t size = 0;

    assert_int_equal(io_get_size(io, &size, NULL), 0);
    return size;
}

static void
fill(struct io *io, uint64_t off, size_t nr_bytes, char c)
{
    char *buf = malloc(nr_bytes);
    struct qcow2_error err;

    memset(buf, c, nr_bytes);
    EXPECT_OK(io_pwrite(io, buf, nr_bytes, off, &err), &err);
    free(buf);
}

static void
expect_filled(struct io *io, uint64_t off, size_t nr_bytes, char c)
{
    char *got = malloc(nr_bytes), *want = malloc(nr_bytes);

    memset(want, c, nr_bytes);
    memset(got, ~c, nr_bytes);
    assert_int_equal(io_pread(io, got, nr_bytes, off, NULL), 0);
    expect_same("content", got, want, nr_bytes, off);
    free(got);
    free(want);
}

/* Memory. */

static void
memory_grows_and_outlives_its_backends(void **state)
{
    struct mem *m = mem_new("abc", 3);
    struct io *io = io_mem_open(m, false), *second;
    uint64_t nr_bytes;

    (void)state;
    assert_int_equal(size_of(io), 3);
    fill(io, 10000, 10, 'x');
    assert_int_equal(size_of(io), 10010);
    expect_filled(io, 3, 9997, 0);
    expect_filled(io, 10000, 10, 'x');
    expect_filled(io, 10010, 5000, 0);
    second = io_mem_open(m, true);
    io_close(io);
    expect_filled(second, 10000, 10, 'x');
    assert_int_equal(io_pwrite(second, "", 1, 0, NULL), -1);
    assert_memory_equal(mem_bytes(m, &nr_bytes), "abc", 3);
    assert_int_equal(nr_bytes, 10010);
    mem_free(m);
    expect_filled(second, 10000, 10, 'x');
    io_close(second);
}

static void
memory_knows_its_holes(void **state)
{
    struct mem *m = mem_new(NULL, 65536);
    struct io *io = io_mem_open(m, false);
    uint64_t nr_bytes, len = 1 << 20;
    bool is_hole;

    (void)state;
    assert_int_equal(io_get_allocated(io, &nr_bytes, NULL), 0);
    assert_int_equal(nr_bytes, 0);
    fill(io, 8192, 8192, 'x');
    io_get_allocated(io, &nr_bytes, NULL);
    assert_int_equal(nr_bytes, 8192);
    io_extent(io, 100, &len, &is_hole, NULL);
    assert_true(is_hole && len == 8092);
    len = 1 << 20;
    io_extent(io, 8192, &len, &is_hole, NULL);
    assert_true(!is_hole && len == 8192);
    len = 1 << 20;
    io_extent(io, 16384, &len, &is_hole, NULL);
    assert_true(is_hole && len == 1 << 20);

    assert_int_equal(io_punch(io, 8192, 4096, NULL), 0);
    expect_filled(io, 8192, 4096, 0);
    expect_filled(io, 12288, 4096, 'x');
    assert_int_equal(io_zero(io, 12288, 2048, IO_ZERO_PUNCH, NULL), 0);
    io_get_allocated(io, &nr_bytes, NULL);
    assert_int_equal(nr_bytes, 4096);
    assert_int_equal(io_zero(io, 60000, 10000, 0, NULL), 0);
    assert_int_equal(size_of(io), 70000);
    assert_int_equal(io_punch(io, 0, 1 << 20, NULL), 0);
    assert_int_equal(size_of(io), 70000);
    expect_filled(io, 0, 70000, 0);
    io_close(io);
    mem_free(m);
}

static void
memory_that_shrank_grows_with_zeroes(void **state)
{
    struct mem *m = mem_new(NULL, 0);
    struct io *io = io_mem_open(m, false);

    (void)state;
    fill(io, 0, 5000, 'x');
    assert_int_equal(io_truncate(io, 100, NULL), 0);
    expect_filled(io, 100, 4900, 0);
    assert_int_equal(io_truncate(io, 5000, NULL), 0);
    expect_filled(io, 0, 100, 'x');
    expect_filled(io, 100, 4900, 0);
    io_close(io);
    mem_free(m);
}

static void
a_device_in_memory_keeps_its_size(void **state)
{
    struct mem *m = mem_new_device(4096);
    struct io *io = io_mem_open(m, false);
    struct qcow2_error err;

    (void)state;
    assert_false(io->can_grow);
    assert_false(io->reads_zero_past_end);
    fill(io, 4000, 96, 'x');
    assert_int_equal(io_pwrite(io, "xx", 2, 4095, &err), -1);
    assert_int_equal(err.errnum, ENOSPC);
    assert_int_equal(io_zero(io, 4095, 2, 0, &err), -1);
    assert_int_equal(io_truncate(io, 100, &err), -1);
    assert_int_equal(err.errnum, ENOTSUP);
    io_close(io);
    mem_free(m);
}

static void
memory_is_saved_and_loaded(void **state)
{
    struct mem *m = mem_new("content", 7), *copy;
    uint64_t nr_bytes;

    (void)state;
    mem_save(m, tmpdir_path("saved"));
    mem_free(m);
    m = mem_load(tmpdir_path("saved"));
    copy = mem_copy(m);
    mem_free(m);
    assert_memory_equal(mem_bytes(copy, &nr_bytes), "content", 7);
    assert_int_equal(nr_bytes, 7);
    mem_free(copy);
}

/* Faults. */

static void
the_chosen_operation_fails(void **state)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct mem *m = mem_new(NULL, 4096);
    struct io *io = io_fault_new(io_mem_open(m, false), &plan);
    struct qcow2_error err;

    (void)state;
    fault_arm(&plan, FAULT_WRITE | FAULT_FLUSH, 3, ENOSPC, FAULT_ONCE);
    fill(io, 0, 10, 'a');
    expect_filled(io, 0, 10, 'a');
    assert_int_equal(io_flush(io, &err), 0);
    assert_int_equal(fault_fired(&plan), 0);
    assert_int_equal(io_pwrite(io, "b", 1, 0, &err), -1);
    assert_int_equal(err.errnum, ENOSPC);
    assert_int_equal(fault_fired(&plan), 1);
    expect_filled(io, 0, 10, 'a');
    fill(io, 0, 10, 'c');
    expect_filled(io, 0, 10, 'c');
    assert_int_equal(fault_fired(&plan), 1);
    io_close(io);
    mem_free(m);
}

static void
operations_fail_for_good_until_disarmed(void **state)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct mem *m = mem_new(NULL, 4096);
    struct io *io = io_fault_new(io_mem_open(m, false), &plan);
    struct qcow2_error err;
    char c;

    (void)state;
    fault_arm(&plan, FAULT_ALL, 1, EIO, FAULT_FOR_GOOD);
    assert_int_equal(io_pread(io, &c, 1, 0, &err), -1);
    assert_int_equal(io_pwrite(io, &c, 1, 0, &err), -1);
    assert_int_equal(io_flush(io, &err), -1);
    assert_int_equal(io_zero(io, 0, 1, 0, &err), -1);
    assert_int_equal(io_punch(io, 0, 1, &err), -1);
    assert_int_equal(io_truncate(io, 1, &err), -1);
    assert_int_equal(err.errnum, EIO);
    assert_int_equal(fault_fired(&plan), 6);
    assert_int_equal(size_of(io), 4096);

    fault_arm(&plan, 0, 0, 0, 0);
    assert_int_equal(io_pread(io, &c, 1, 0, &err), 0);
    io_close(io);
    mem_free(m);
}

static void
a_torn_write_leaves_its_first_sectors(void **state)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct mem *m = mem_new(NULL, 8192);
    struct io *io = io_fault_new(io_mem_open(m, false), &plan);
    char buf[4096];
    struct iovec iov[] = { { buf, 1000 }, { buf, 1000 }, { buf, 1000 } };

    (void)state;
    memset(buf, 'x', sizeof buf);
    fault_arm(&plan, FAULT_WRITE, 1, EIO, FAULT_TORN);
    assert_int_equal(io_pwritev(io, iov, 3, 0, NULL), -1);
    expect_filled(io, 0, 1024, 'x');
    expect_filled(io, 1024, 4096, 0);
    fault_arm(&plan, FAULT_WRITE, 1, EIO, FAULT_TORN);
    assert_int_equal(io_pwrite(io, buf, 512, 4096, NULL), -1);
    expect_filled(io, 4096, 512, 0);
    io_close(io);
    mem_free(m);
}

static void
operations_are_counted_by_kind(void **state)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    struct mem *m = mem_new(NULL, 4096);
    struct io *io = io_fault_new(io_mem_open(m, false), &plan);

    (void)state;
    fill(io, 0, 1, 'x');
    fill(io, 0, 1, 'x');
    expect_filled(io, 0, 1, 'x');
    io_zero(io, 0, 1, 0, NULL);
    io_flush(io, NULL);
    assert_int_equal(fault_count(&plan, FAULT_WRITE), 2);
    assert_int_equal(fault_count(&plan, FAULT_READ), 1);
    assert_int_equal(fault_count(&plan, FAULT_FLUSH), 1);
    assert_int_equal(fault_count(&plan, FAULT_CHANGE), 3);
    assert_int_equal(fault_count(&plan, FAULT_ALL), 5);
    fault_reset_counts(&plan);
    assert_int_equal(fault_count(&plan, FAULT_ALL), 0);
    io_close(io);
    mem_free(m);
}

/* Power cuts. A state is told as one character a sector. */

struct seen {
    char states[8192][16];
    unsigned nr_marks[8192];
    unsigned nr;
};

static int
note_state(void *opaque, const struct crash_state *s)
{
    struct seen *seen = opaque;
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(s->image, &nr_bytes);
    char *text = seen->states[seen->nr];
    unsigned n = 0;

    for (uint64_t i = 0; i < nr_bytes; i += 512, n++)
        text[n] = bytes[i] ? bytes[i] : '.';
    text[n] = '\0';
    seen->nr_marks[seen->nr++] = s->nr_marks;
    return 0;
}

/* How often this state was shown after that many marks. */
static unsigned
times_seen(const struct seen *seen, const char *what, unsigned nr_marks)
{
    unsigned n = 0;

    for (unsigned i = 0; i < seen->nr; i++)
        n += strcmp(seen->states[i], what) == 0
             && seen->nr_marks[i] == nr_marks;
    return n;
}

struct crash_case {
    struct mem *start;
    struct crash_log *log;
    struct io *io;
    struct crash_options options;
    struct crash_stats stats;
    struct seen seen;
};

static struct crash_case *
crash_case_new(uint64_t nr_sectors)
{
    struct crash_case *c = calloc(1, sizeof *c);

    c->start = mem_new(NULL, nr_sectors * 512);
    c->log = crash_log_new(c->start);
    c->io = io_crash_open(c->log);
    c->options = (struct crash_options)CRASH_OPTIONS_INIT;
    return c;
}

static void
crash_case_enumerate(struct crash_case *c)
{
    c->seen.nr = 0;
    assert_int_equal(crash_log_enumerate(c->log, &c->options, note_state,
                                         &c->seen, &c->stats), 0);
    assert_int_equal(c->stats.nr_distinct, c->seen.nr);
}

static void
crash_case_free(struct crash_case *c)
{
    io_close(c->io);
    crash_log_free(c->log);
    mem_free(c->start);
    free(c);
}

static void
without_a_flush_any_subset_survives(void **state)
{
    struct crash_case *c = crash_case_new(3);

    (void)state;
    fill(c->io, 0, 512, 'a');
    fill(c->io, 512, 512, 'b');
    fill(c->io, 1024, 512, 'c');
    crash_case_enumerate(c);
    assert_int_equal(c->seen.nr, 8);
    assert_int_equal(times_seen(&c->seen, "...", 0), 1);
    assert_int_equal(times_seen(&c->seen, "a.c", 0), 1);
    assert_int_equal(times_seen(&c->seen, ".bc", 0), 1);
    assert_int_equal(times_seen(&c->seen, "abc", 0), 1);
    assert_int_equal(c->stats.max_unsynced, 3);
    crash_case_free(c);
}

static void
what_was_flushed_survives(void **state)
{
    struct crash_case *c = crash_case_new(2);

    (void)state;
    fill(c->io, 0, 512, 'a');
    assert_int_equal(io_flush(c->io, NULL), 0);
    assert_int_equal(crash_log_mark(c->log, CRASH_MARK_DEMANDS), 0);
    fill(c->io, 512, 512, 'b');
    crash_case_enumerate(c);
    assert_int_equal(times_seen(&c->seen, "..", 0), 1);
    assert_int_equal(times_seen(&c->seen, "a.", 0), 1);
    assert_int_equal(times_seen(&c->seen, "a.", 1), 1);
    assert_int_equal(times_seen(&c->seen, "ab", 1), 1);
    assert_int_equal(c->seen.nr, 4);
    assert_int_equal(c->stats.max_unsynced, 1);
    crash_case_free(c);
}

static void
later_writes_win(void **state)
{
    struct crash_case *c = crash_case_new(1);

    (void)state;
    fill(c->io, 0, 512, 'a');
    fill(c->io, 0, 512, 'b');
    assert_int_equal(io_zero(c->io, 0, 512, 0, NULL), 0);
    crash_case_enumerate(c);
    assert_int_equal(times_seen(&c->seen, ".", 0), 1);
    assert_int_equal(times_seen(&c->seen, "a", 0), 1);
    assert_int_equal(times_seen(&c->seen, "b", 0), 1);
    assert_int_equal(c->seen.nr, 3);
    crash_case_free(c);
}

static void
writes_are_torn_between_sectors(void **state)
{
    struct crash_case *c = crash_case_new(3);

    (void)state;
    fill(c->io, 0, 3 * 512, 'a');
    c->options.nr_torn = 0;
    crash_case_enumerate(c);
    assert_int_equal(c->seen.nr, 8);
    assert_int_equal(times_seen(&c->seen, "a..", 0), 1);
    assert_int_equal(times_seen(&c->seen, ".aa", 0), 1);
    assert_int_equal(times_seen(&c->seen, "a.a", 0), 1);
    crash_case_free(c);
}

static void
long_writes_are_torn_by_samples(void **state)
{
    struct crash_case *c = crash_case_new(13);

    (void)state;
    fill(c->io, 0, 13 * 512, 'a');
    c->options.nr_torn = 0;
    crash_case_enumerate(c);
    assert_int_equal(c->seen.nr, 2);
    c->options.nr_torn = 400;
    crash_case_enumerate(c);
    assert_true(c->seen.nr > 50);
    assert_int_equal(times_seen(&c->seen, ".............", 0), 1);
    assert_int_equal(times_seen(&c->seen, "aaaaaaaaaaaaa", 0), 1);
    assert_int_equal(times_seen(&c->seen, "aaaaaa.......", 0), 1);
    assert_int_equal(times_seen(&c->seen, "......aaaaaaa", 0), 1);
    crash_case_free(c);
}

/* Twelve writes of which one has two sectors: of all their subsets one
 * write is never torn, but in the samples. */
static void
twelve_unsynced_writes_are_all_tried(void **state)
{
    struct crash_case *c = crash_case_new(13);

    (void)state;
    for (int i = 0; i < 11; i++)
        fill(c->io, i * 512, 512, 'a' + i);
    fill(c->io, 11 * 512, 2 * 512, 'z');
    c->options.nr_torn = 0;
    crash_case_enumerate(c);
    assert_int_equal(c->stats.nr_distinct, 1 << 12);
    assert_int_equal(c->stats.nr_sampled, 0);
    c->options.nr_torn = 10;
    crash_case_enumerate(c);
    assert_true(c->stats.nr_distinct > 1 << 12);
    crash_case_free(c);
}

static void
cuts_before_the_first_mark_are_left_out(void **state)
{
    struct crash_case *c = crash_case_new(3);

    (void)state;
    fill(c->io, 0, 512, 'a');
    crash_log_mark(c->log, CRASH_MARK_ALLOWS);
    fill(c->io, 512, 512, 'b');
    io_flush(c->io, NULL);
    c->options.first_mark = 1;
    crash_case_enumerate(c);
    assert_int_equal(c->seen.nr, 2);
    assert_int_equal(times_seen(&c->seen, ".b.", 1), 1);
    assert_int_equal(times_seen(&c->seen, "ab.", 1), 1);
    crash_case_free(c);
}

static void
small_writes_are_never_torn(void **state)
{
    struct crash_case *c = crash_case_new(2);

    (void)state;
    fill(c->io, 0, 8, 'a');
    fill(c->io, 512, 512, 'b');
    c->options.nr_torn = 100;
    crash_case_enumerate(c);
    assert_int_equal(c->seen.nr, 4);
    crash_case_free(c);
}

static void
sizes_survive_like_data(void **state)
{
    struct crash_case *c = crash_case_new(1);

    (void)state;
    fill(c->io, 512, 512, 'b');
    assert_int_equal(io_truncate(c->io, 512, NULL), 0);
    assert_int_equal(io_truncate(c->io, 3 * 512, NULL), 0);
    assert_int_equal(io_punch(c->io, 0, 8 * 512, NULL), 0);
    crash_case_enumerate(c);
    assert_int_equal(times_seen(&c->seen, ".", 0), 1);
    assert_int_equal(times_seen(&c->seen, ".b", 0), 1);
    assert_int_equal(times_seen(&c->seen, ".b.", 0), 1);
    assert_int_equal(times_seen(&c->seen, "..", 0), 1);
    assert_int_equal(times_seen(&c->seen, "...", 0), 1);
    assert_int_equal(c->seen.nr, 5);
    crash_case_free(c);
}

static void
many_unsynced_writes_are_sampled(void **state)
{
    struct crash_case *c = crash_case_new(14);
    uint64_t first;

    (void)state;
    for (int i = 0; i < 14; i++)
        fill(c->io, i * 512, 512, 'a' + i);
    crash_case_enumerate(c);
    assert_int_equal(c->stats.max_unsynced, 14);
    assert_int_equal(c->stats.nr_sampled, 2);
    assert_int_equal(times_seen(&c->seen, "abcdefghijklmn", 0), 1);
    assert_int_equal(times_seen(&c->seen, ".............n", 0), 1);
    assert_int_equal(times_seen(&c->seen, ".bcdefghijklmn", 0), 1);
    assert_true(c->stats.nr_distinct < 1 << 13);

    /* A seed repeats itself; all of it can be had. */
    first = c->stats.nr_distinct;
    crash_case_enumerate(c);
    assert_int_equal(c->stats.nr_distinct, first);
    crash_case_free(c);
}

static int
count_states(void *opaque, const struct crash_state *s)
{
    (void)s;
    return ++*(int *)opaque == 3 ? 42 : 0;
}

static void
the_function_ends_the_enumeration(void **state)
{
    struct crash_case *c = crash_case_new(4);
    int calls = 0;

    (void)state;
    for (int i = 0; i < 4; i++)
        fill(c->io, i * 512, 512, 'a' + i);
    assert_int_equal(crash_log_enumerate(c->log, &c->options, count_states,
                                         &calls, NULL), 42);
    assert_int_equal(calls, 3);
    crash_case_free(c);
}

static void
nothing_lost_is_what_was_written(void **state)
{
    struct crash_case *c = crash_case_new(4);
    uint64_t nr_bytes;
    struct rng rng;
    char last[16];

    (void)state;
    rng_init(&rng, 3, 0);
    for (int i = 0; i < 60; i++) {
        fill(c->io, rng_below(&rng, 8) * 512, 512, 'a' + i % 26);
        if (i % 5 == 4)
            io_flush(c->io, NULL);
    }
    crash_log_mark(c->log, CRASH_MARK_DEMANDS);
    crash_case_enumerate(c);
    /* All is flushed: the last mark allows one state alone. */
    const unsigned char *bytes = mem_bytes(crash_log_content(c->log),
                                           &nr_bytes);
    for (uint64_t i = 0; i < nr_bytes / 512; i++)
        last[i] = bytes[i * 512] ? bytes[i * 512] : '.';
    last[nr_bytes / 512] = '\0';
    assert_int_equal(times_seen(&c->seen, last, 1), 1);
    for (unsigned i = 0; i < c->seen.nr; i++)
        assert_true(c->seen.nr_marks[i] == 0
                    || strcmp(c->seen.states[i], last) == 0);
    crash_case_free(c);
}

/* Each thread writes its sector, flushes, and counts its rounds by marks:
 * whatever the interleaving, a cut after its mark shows that round or a
 * later one.
 */
enum { NR_WRITERS = 3, NR_ROUNDS = 8 };

struct writers {
    struct io *io;
    struct crash_log *log;
    unsigned next;
    unsigned owner[NR_WRITERS * NR_ROUNDS]; /* of each mark */
    unsigned nr_wrong;
};

static void *
write_rounds(void *opaque)
{
    struct writers *w = opaque;
    unsigned me = __atomic_fetch_add(&w->next, 1, __ATOMIC_RELAXED);

    for (int round = 1; round <= NR_ROUNDS; round++) {
        char buf[512];

        memset(buf, round, sizeof buf);
        io_pwrite(w->io, buf, sizeof buf, me * 512, NULL);
        io_flush(w->io, NULL);
        w->owner[crash_log_mark(w->log, CRASH_MARK_DEMANDS)] = me;
    }
    return NULL;
}

static int
check_rounds(void *opaque, const struct crash_state *s)
{
    struct writers *w = opaque;
    unsigned flushed[NR_WRITERS] = { 0 };
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(s->image, &nr_bytes);

    for (unsigned i = 0; i < s->nr_marks; i++)
        flushed[w->owner[i]]++;
    for (unsigned i = 0; i < NR_WRITERS; i++)
        w->nr_wrong += bytes[i * 512] < flushed[i];
    return 0;
}

static void
a_flush_covers_what_had_returned_in_any_thread(void **state)
{
    struct crash_case *c = crash_case_new(NR_WRITERS);
    struct writers w = { .io = c->io, .log = c->log };
    pthread_t threads[NR_WRITERS];

    (void)state;
    for (int i = 0; i < NR_WRITERS; i++)
        pthread_create(&threads[i], NULL, write_rounds, &w);
    for (int i = 0; i < NR_WRITERS; i++)
        pthread_join(threads[i], NULL);
    crash_log_enumerate(c->log, &c->options, check_rounds, &w, NULL);
    assert_int_equal(w.nr_wrong, 0);
    crash_case_free(c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_grows_and_outlives_its_backends),
        cmocka_unit_test(memory_knows_its_holes),
        cmocka_unit_test(memory_that_shrank_grows_with_zeroes),
        cmocka_unit_test(a_device_in_memory_keeps_its_size),
        cmocka_unit_test(memory_is_saved_and_loaded),
        cmocka_unit_test(the_chosen_operation_fails),
        cmocka_unit_test(operations_fail_for_good_until_disarmed),
        cmocka_unit_test(a_torn_write_leaves_its_first_sectors),
        cmocka_unit_test(operations_are_counted_by_kind),
        cmocka_unit_test(without_a_flush_any_subset_survives),
        cmocka_unit_test(what_was_flushed_survives),
        cmocka_unit_test(later_writes_win),
        cmocka_unit_test(writes_are_torn_between_sectors),
        cmocka_unit_test(long_writes_are_torn_by_samples),
        cmocka_unit_test(twelve_unsynced_writes_are_all_tried),
        cmocka_unit_test(cuts_before_the_first_mark_are_left_out),
        cmocka_unit_test(small_writes_are_never_torn),
        cmocka_unit_test(sizes_survive_like_data),
        cmocka_unit_test(many_unsynced_writes_are_sampled),
        cmocka_unit_test(the_function_ends_the_enumeration),
        cmocka_unit_test(nothing_lost_is_what_was_written),
        cmocka_unit_test(a_flush_covers_what_had_returned_in_any_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
