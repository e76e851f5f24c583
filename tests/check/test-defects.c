/* SPDX-License-Identifier: BSD-3-Clause */
/* test-defects: check and repair of damaged images, one directory each.
 *
 * DIRECTORY/recipe builds the image (builder.h). DIRECTORY/expect says:
 *
 *   finds CODE N                  what check finds, N times
 *   left CODE N                   what repair of everything leaves
 *   qemu CORRUPTIONS LEAKS        if qemu-img check counts otherwise
 *   qemu-left CORRUPTIONS LEAKS   what it counts after our repair
 *   qemu any                      it finds something, but not as much
 *   qemu fails                    it cannot check it to the end
 *
 * '#' begins a comment: why it is so. For every image:
 *
 *   check finds that and writes nothing, and a plan of a repair writes
 *   nothing and says exactly what the repair then writes;
 *   repair leaves that, undoing it gives the image back, and a second one
 *   has nothing to write;
 *   what could be read of the disk and its snapshots reads the same after
 *   repair; if that left nothing, all of the disk can then be written, which
 *   leaves the image clean and its snapshots alone;
 *   repair of leaks touches no corruption;
 *   a repair that fails, or is cut by a power cut, at any point can be run
 *   again and leaves the same;
 *   a writable open of it, with the dirty bit set, repairs it if nothing is
 *   wrong that no crash can do, and else refuses and writes nothing.
 *
 * In the end every kind of problem was found somewhere.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "audit.h"
#include "builder.h"
#include "check/check.h"
#include "check/problem.h"
#include "disk/open.h"
#include "expect.h"
#include "figures.h"
#include "format/format.h"
#include "io-crash.h"
#include "io-fault.h"
#include "io-mem.h"
#include "oracle.h"
#include "saved.h"
#include "states.h"
#include "tmpdir.h"

struct expectation {
    long counts[NR_PROBLEMS];
    long corruptions, leaks;        /* of qemu-img */
    enum { AS_WE, SO_MANY, ANY, FAILS } qemu;
};

struct defect {
    struct mem *image;
    struct expectation before, after;
    bool damaged;                   /* other than by a crash */
};

/* Of all images together. */
static struct {
    unsigned nr_defects, nr_repaired; /* wholly */
    bool found[NR_PROBLEMS];
} tally;

/* What a check or repair told. */
struct told {
    long counts[NR_PROBLEMS];       /* by the last check */
    struct qcow2_check_result result;
    struct write {
        uint64_t host_off, file_size;
        size_t nr_bytes;
        unsigned char *old_bytes, *new_bytes;
    } writes[4096];
    unsigned nr_writes;
};

static void
note_problem(void *opaque, const struct qcow2_problem *p)
{
    struct told *told = opaque;

    EXPECT(strlen(p->text) > 10 && !strchr(p->text, '{'), "%s", p->text);
    for (unsigned i = 0; i < NR_PROBLEMS; i++)
        if (strcmp(problem_kinds[i].code, p->code) == 0)
            told->counts[i] += p->nr_clusters;
}

static void
note_recheck(void *opaque)
{
    memset(((struct told *)opaque)->counts, 0,
           sizeof ((struct told *)opaque)->counts);
}

static void *
copy_of(const void *bytes, size_t nr_bytes)
{
    void *copy = malloc(nr_bytes);

    assert_non_null(copy);
    return memcpy(copy, bytes, nr_bytes);
}

static int
note_write(void *opaque, const struct qcow2_repair_write *w)
{
    struct told *told = opaque;

    EXPECT(told->nr_writes < 4096, "%s", w->why);
    told->writes[told->nr_writes++] = (struct write){
        w->host_off, w->file_size, w->nr_bytes,
        copy_of(w->old_bytes, w->nr_bytes),
        copy_of(w->new_bytes, w->nr_bytes),
    };
    return 0;
}

static void
told_free(struct told *told)
{
    for (unsigned i = 0; i < told->nr_writes; i++) {
        free(told->writes[i].old_bytes);
        free(told->writes[i].new_bytes);
    }
    free(told);
}

static int
run(struct io *io, enum qcow2_repair repair, bool plan, struct told *told,
    struct qcow2_error *err)
{
    const struct qcow2_check_options options = {
        .repair = repair,
        .data = true,
        .plan = plan,
        .problem = note_problem,
        .recheck = note_recheck,
        .write = note_write,
        .opaque = told,
    };
    int r;

    memset(told, 0, sizeof *told);
    r = check_io(io, &options, &told->result, err);
    io_close(io);
    return r;
}

static struct told *
run_on(struct mem *image, enum qcow2_repair repair, bool plan)
{
    struct told *told = malloc(sizeof *told);
    struct qcow2_error err;

    assert_non_null(told);
    EXPECT_OK(run(io_mem_open(image, repair == QCOW2_REPAIR_NONE || plan),
                  repair, plan, told, &err), &err);
    return told;
}

static void
expect_found(const char *when, const struct told *told,
             const struct expectation *e)
{
    unsigned nr_wrong = 0;

    for (unsigned i = 0; i < NR_PROBLEMS; i++) {
        if (told->counts[i] == e->counts[i])
            continue;
        print_message("%s: %s: found %ld times, expected %ld\n", when,
                      problem_kinds[i].code, told->counts[i], e->counts[i]);
        nr_wrong++;
    }
    EXPECT(nr_wrong == 0, "%u kinds are not as expected", nr_wrong);
}

static bool
same_bytes(struct mem *a, struct mem *b)
{
    uint64_t nr_a, nr_b;
    const unsigned char *bytes_a = mem_bytes(a, &nr_a);
    const unsigned char *bytes_b = mem_bytes(b, &nr_b);

    return nr_a == nr_b && memcmp(bytes_a, bytes_b, nr_a) == 0;
}

/* Without what is said explicitly, qemu-img counts as we do. */
static void
expect_qemu(const char *when, struct mem *image, const struct told *told,
            const struct expectation *e)
{
    const char *path = tmpdir_path("defect.qcow2");
    long corruptions = told->result.corruptions, leaks = told->result.leaks;
    struct oracle_check q;

    if (!oracle_present())
        return;
    mem_save(image, path);
    oracle_check(path, &q);
    switch (e->qemu) {
    case SO_MANY:
        corruptions = e->corruptions;
        leaks = e->leaks;
        /* fall through */
    case AS_WE:
        EXPECT(q.corruptions == corruptions && q.leaks == leaks,
               "%s: qemu-img check counts %ld corruptions and %ld leaks, not "
               "%ld and %ld", when, q.corruptions, q.leaks, corruptions,
               leaks);
        break;
    case ANY:
        EXPECT(q.exit_status == 2, "%s: exit status %d", when,
               q.exit_status);
        break;
    case FAILS:
        EXPECT(q.exit_status == 1, "%s: exit status %d", when,
               q.exit_status);
        break;
    }
}

/* --- Reading the directories ------------------------------------------- */

static unsigned
problem_by_code(const char *code)
{
    unsigned i = 0;

    while (i < NR_PROBLEMS && strcmp(problem_kinds[i].code, code) != 0)
        i++;
    EXPECT(i < NR_PROBLEMS, "no problem has the code %s", code);
    return i;
}

static void
parse_expect(char *text, struct defect *d)
{
    char *save;

    for (char *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        struct expectation *e = strstr(line, "left") ? &d->after
                                                     : &d->before;
        char word[16], code[64];
        long n, m;

        line[strcspn(line, "#")] = '\0';
        if (sscanf(line, "%15[a-z-] %ld %ld", word, &n, &m) == 3) {
            e->qemu = SO_MANY;
            e->corruptions = n;
            e->leaks = m;
        } else if (strncmp(line, "qemu", 4) == 0) {
            e->qemu = strstr(line, " any") ? ANY : FAILS;
        } else if (sscanf(line, "%15[a-z] %63[a-z0-9-] %ld", word, code, &n)
                   == 3) {
            unsigned i = problem_by_code(code);

            e->counts[i] = n;
            d->damaged |= problem_is_damage(i);
        } else {
            EXPECT(line[strspn(line, " ")] == '\0', "%s", line);
        }
    }
}

static char *
read_text(const char *directory, const char *name)
{
    char path[1024];
    unsigned char *bytes;
    size_t nr_bytes;
    char *text;

    snprintf(path, sizeof path, "%s/%s", directory, name);
    bytes = tmpdir_read_file(path, &nr_bytes);
    text = strndup((char *)bytes, nr_bytes);
    assert_non_null(text);
    free(bytes);
    return text;
}

static void
defect_read(const char *directory, struct defect *d)
{
    char *recipe = read_text(directory, "recipe");
    char *expect = read_text(directory, "expect");
    struct builder *b = builder_new();
    const unsigned char *bytes;
    size_t nr_bytes;

    memset(d, 0, sizeof *d);
    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    d->image = mem_new(bytes, nr_bytes);
    builder_write(b, tmpdir_path("as-built")); /* and its data file */
    parse_expect(expect, d);
    builder_free(b);
    free(expect);
    free(recipe);
}

/* --- What is tried with each ------------------------------------------- */

static void
try_check(const struct defect *d)
{
    struct mem *image = mem_copy(d->image);
    struct told *told = run_on(image, QCOW2_REPAIR_NONE, false);

    expect_step("check");
    expect_found("check", told, &d->before);
    expect_qemu("before", image, told, &d->before);
    if (d->before.qemu == AS_WE)
        figures_expect_same(tmpdir_path("defect.qcow2"), &told->result);
    told_free(told);
    mem_free(image);
}

static void
put_back(struct mem *image, const struct told *told)
{
    struct io *io = io_mem_open(image, false);

    for (unsigned i = told->nr_writes; i-- > 0; ) {
        const struct write *w = &told->writes[i];

        EXPECT_OK(io_pwrite(io, w->old_bytes, w->nr_bytes, w->host_off,
                            NULL), &(struct qcow2_error){ 0 });
    }
    if (told->nr_writes > 0)
        io_truncate(io, told->writes[0].file_size, NULL);
    io_close(io);
}

static void
expect_planned(const struct told *plan, const struct told *told)
{
    EXPECT(plan->nr_writes == told->nr_writes, "planned %u, made %u writes",
           plan->nr_writes, told->nr_writes);
    for (unsigned i = 0; i < told->nr_writes; i++) {
        const struct write *p = &plan->writes[i], *w = &told->writes[i];

        EXPECT(p->host_off == w->host_off && p->nr_bytes == w->nr_bytes
               && memcmp(p->new_bytes, w->new_bytes, w->nr_bytes) == 0,
               "write %u at 0x%" PRIx64 " was planned otherwise", i,
               w->host_off);
    }
}

static void
try_repair(const struct defect *d)
{
    struct mem *image = mem_copy(d->image);
    struct told *plan = run_on(image, QCOW2_REPAIR_ALL, true);
    struct told *told, *again;

    expect_step("repair all");
    EXPECT(same_bytes(image, d->image), "a plan wrote");
    told = run_on(image, QCOW2_REPAIR_ALL, false);
    expect_planned(plan, told);
    expect_found("after repair", told, &d->after);
    expect_qemu("after", image, told, &d->after);

    again = run_on(image, QCOW2_REPAIR_ALL, false);
    EXPECT(again->nr_writes == 0, "a second repair wrote");
    put_back(image, told);
    EXPECT(same_bytes(image, d->image), "undoing it did not");
    told_free(again);
    told_free(told);
    told_free(plan);
    mem_free(image);
}

static struct audit
audit_of(struct mem *image)
{
    uint64_t nr_bytes;
    const unsigned char *bytes = mem_bytes(image, &nr_bytes);
    struct audit a;

    audit_image(bytes, nr_bytes, &a);
    return a;
}

static bool
nothing_expected(const struct expectation *e)
{
    for (unsigned i = 0; i < NR_PROBLEMS; i++)
        if (e->counts[i] > 0)
            return false;
    return true;
}

static bool
has_bitmaps(struct mem *image)
{
    struct disk_header h;
    uint64_t nr_bytes;

    memcpy(&h, mem_bytes(image, &nr_bytes), sizeof h);
    return be32_get(h.version) >= 3
           && (be64_get(h.autoclear_features) & AUTOCLEAR_BITMAPS);
}

/* Writes to all of the disk: nothing is lost but what was there, and bitmaps,
 * which become invalid and leak, as the format asks. */
static void
try_writes(const struct defect *d, struct mem *image)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    struct saved *before = saved_read(image), *now;
    bool may_leak = has_bitmaps(image);
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct told *told;
    unsigned char *buf;
    uint64_t size;

    expect_step("write all");
    options.backing_none = true;
    disk = disk_open_io(io_mem_open(image, false), tmpdir_path("repaired"),
                        &options, &err);
    EXPECT(disk, "%s", err.text);
    size = qcow2_get_size(disk);
    buf = malloc(size);
    assert_non_null(buf);
    memset(buf, 0x77, size);
    EXPECT_OK(qcow2_pwrite(disk, buf, size, 0, 0, &err), &err);
    EXPECT_OK(qcow2_close(disk, &err), &err);
    free(buf);
    told = run_on(image, QCOW2_REPAIR_NONE, false);
    if (may_leak)
        told->counts[PROBLEM_REFCOUNT_HIGH] = 0;
    expect_found("written", told, &d->after);
    told_free(told);
    now = saved_read(image);
    saved_expect_kept(before, now, SAVED_SNAPSHOTS);
    saved_free(before);
    saved_free(now);
}

static void
try_what_is_saved(const struct defect *d)
{
    struct mem *image = mem_copy(d->image);
    struct saved *before = saved_read(image), *now;

    expect_step("what is saved");
    told_free(run_on(image, QCOW2_REPAIR_ALL, false));
    now = saved_read(image);
    saved_expect_kept(before, now, SAVED_ALL);
    EXPECT(!nothing_expected(&d->after) || saved_nr_lost(now) == 0,
           "%lu pieces cannot be read", saved_nr_lost(now));
    saved_free(before);
    saved_free(now);
    if (nothing_expected(&d->after))
        try_writes(d, image);
    mem_free(image);
}

static void
count(const struct defect *d)
{
    for (unsigned i = 0; i < NR_PROBLEMS; i++)
        tally.found[i] |= d->before.counts[i] > 0;
    tally.nr_defects += !nothing_expected(&d->before);
    tally.nr_repaired += !nothing_expected(&d->before)
                         && nothing_expected(&d->after);
}

static void
try_leaks(const struct defect *d)
{
    struct mem *image = mem_copy(d->image);
    struct told *told = run_on(image, QCOW2_REPAIR_LEAKS, false);
    struct audit before = audit_of(d->image), after = audit_of(image);

    expect_step("repair leaks");
    for (unsigned i = 0; i < NR_PROBLEMS; i++)
        if (problem_kinds[i].severity == QCOW2_CORRUPTION
            && i != PROBLEM_COPIED_SET && i != PROBLEM_COPIED_CLEAR)
            EXPECT(told->counts[i] == d->before.counts[i], "%s: %ld times",
                   problem_kinds[i].code, told->counts[i]);
    EXPECT(after.nr_corruptions <= before.nr_corruptions, "%s", after.first);
    told_free(told);
    told = run_on(image, QCOW2_REPAIR_LEAKS, false);
    EXPECT(told->nr_writes == 0, "a second repair wrote");
    told_free(told);
    mem_free(image);
}

static void
try_faults(const struct defect *d)
{
    struct fault_plan plan = FAULT_PLAN_INIT;
    bool fired = true;

    expect_step("faults");
    for (uint64_t nth = 1; fired; nth++) {
        struct mem *image = mem_copy(d->image);
        struct told *told = malloc(sizeof *told);
        struct qcow2_error err;

        assert_non_null(told);
        fault_arm(&plan, FAULT_CHANGE | FAULT_FLUSH, nth, EIO,
                  FAULT_ONCE | FAULT_TORN);
        fired = run(io_fault_new(io_mem_open(image, false), &plan),
                    QCOW2_REPAIR_ALL, false, told, &err) == -1;
        EXPECT(fired == (fault_fired(&plan) > 0), "operation %" PRIu64, nth);
        told_free(told);
        told = run_on(image, QCOW2_REPAIR_ALL, false);
        expect_found("repaired again", told, &d->after);
        told_free(told);
        mem_free(image);
    }
}

static int
repair_state(void *opaque, const struct crash_state *state)
{
    const struct defect *d = opaque;
    struct audit before = audit_of(d->image);
    struct audit now = audit_of(state->image);
    struct told *told;

    expect_step("power cut: %s", state->what);
    /* The audit minds COPIED in tables that repair must not touch. */
    EXPECT(now.nr_corruptions <= before.nr_corruptions
           || d->after.counts[PROBLEM_METADATA_SHARED] > 0,
           "%u corruptions instead of %u: %s", now.nr_corruptions,
           before.nr_corruptions, now.first);
    told = run_on(state->image, QCOW2_REPAIR_ALL, false);
    expect_found("repaired again", told, &d->after);
    told_free(told);
    return 0;
}

static void
try_power_cuts(struct defect *d)
{
    const struct crash_options options = {
        .nr_random = 10, .nr_torn = 5, .seed = 1,
    };
    struct crash_log *log = crash_log_new(d->image);
    struct told *told = malloc(sizeof *told);
    struct qcow2_error err;

    expect_step("power cuts");
    assert_non_null(told);
    EXPECT_OK(run(io_crash_open(log), QCOW2_REPAIR_ALL, false, told, &err),
              &err);
    crash_log_enumerate(log, &options, repair_state, d, NULL);
    crash_log_free(log);
    told_free(told);
}

/* The image with its dirty bit set. */
static struct mem *
dirty_copy(const struct defect *d, bool *has_bit)
{
    struct mem *image = mem_copy(d->image);
    struct io *io = io_mem_open(image, false);
    struct disk_header h;

    assert_int_equal(io_pread(io, &h, sizeof h, 0, NULL), 0);
    *has_bit = be32_get(h.version) >= 3
               && !(be64_get(h.incompatible_features) & INCOMPAT_CORRUPT);
    if (*has_bit) {
        h.incompatible_features = be64_make(
            be64_get(h.incompatible_features) | INCOMPAT_DIRTY);
        assert_int_equal(io_pwrite(io, &h, sizeof h, 0, NULL), 0);
    }
    io_close(io);
    return image;
}

static void
try_open_dirty(const struct defect *d)
{
    struct qcow2_options options = QCOW2_OPTIONS_INIT;
    bool has_bit;
    struct mem *image = dirty_copy(d, &has_bit);
    struct mem *before = mem_copy(image);
    struct qcow2_disk *disk;
    struct qcow2_error err;
    struct told *told;

    expect_step("open with dirty bit");
    options.backing_none = true;
    if (has_bit) {
        disk = disk_open_io(io_mem_open(image, false), tmpdir_path("defect"),
                            &options, &err);
        EXPECT((disk != NULL) == !d->damaged, "%s",
               disk ? "opened" : err.text);
        if (disk) {
            EXPECT_OK(qcow2_close(disk, &err), &err);
            told = run_on(image, QCOW2_REPAIR_NONE, false);
            expect_found("after open", told, &d->after);
            told_free(told);
        } else {
            EXPECT(err.errnum == EIO, "%s", err.text);
            EXPECT(same_bytes(image, before), "refused, but wrote");
        }
    }
    mem_free(before);
    mem_free(image);
}

static void
test_defect(void **state)
{
    struct defect d;

    expect_case("%s", (char *)*state);
    defect_read(*state, &d);
    try_check(&d);
    try_repair(&d);
    try_what_is_saved(&d);
    try_leaks(&d);
    try_faults(&d);
    try_power_cuts(&d);
    try_open_dirty(&d);
    count(&d);
    mem_free(d.image);
}

static void
every_kind_of_problem_has_an_image(void **state)
{
    unsigned nr = 0;

    (void)state;
    expect_case("all images");
    for (unsigned i = 0; i < NR_PROBLEMS; i++) {
        EXPECT(tally.found[i], "none with %s", problem_kinds[i].code);
        nr++;
    }
    EXPECT(tally.nr_defects >= 60, "only %u damaged images",
           tally.nr_defects);
    print_message("damaged images: %u with %u kinds of problems, %u repaired "
                  "without remainder, %u as far as nothing is lost by it\n",
                  tally.nr_defects, nr, tally.nr_repaired,
                  tally.nr_defects - tally.nr_repaired);
}

static int
is_defect(const struct dirent *e)
{
    return e->d_type == DT_DIR && e->d_name[0] != '.';
}

int
main(void)
{
    const char *top = getenv("abs_top_srcdir");
    struct CMUnitTest tests[256];
    char directory[1024];
    struct dirent **entries;
    int nr, failed;

    snprintf(directory, sizeof directory, "%s/tests/check",
             top ? top : "../..");
    nr = scandir(directory, &entries, is_defect, alphasort);
    if (nr < 1 || nr > 255)
        return 1;
    for (int i = 0; i < nr; i++) {
        char *path;

        if (asprintf(&path, "%s/%s", directory, entries[i]->d_name) == -1)
            return 1;
        tests[i] = (struct CMUnitTest){
            .name = entries[i]->d_name,
            .test_func = test_defect,
            .initial_state = path,
        };
    }
    tests[nr] = (struct CMUnitTest)cmocka_unit_test(
        every_kind_of_problem_has_an_image);
    failed = _cmocka_run_group_tests("defects", tests, nr + 1, NULL, NULL);
    for (int i = 0; i < nr; i++) {
        free(tests[i].initial_state);
        free(entries[i]);
    }
    free(entries);
    states_print();
    return failed;
}
