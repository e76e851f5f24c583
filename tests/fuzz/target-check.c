/* SPDX-License-Identifier: BSD-3-Clause */
/* target-check.c: check and repair. A check, or the plan of a repair, writes
 * nothing; a repair writes what was planned, ends, never makes more corrupt
 * than there was, and has nothing to do a second time.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bounds.h"
#include "check/check.h"
#include "input.h"
#include "rng.h"
#include "session.h"
#include "targets.h"

/* What was told of a run. */
struct told {
    uint64_t nr_corruptions, nr_writes;
    uint64_t sum; /* of the writes */
};

/* A missing COPIED flag harms nothing. It comes with a refcount that was
 * lowered where the entry lies in a cluster that is not only a table: repair
 * must not write there. */
static void
note_problem(void *opaque, const struct qcow2_problem *p)
{
    struct told *told = opaque;

    MUST(p->code && p->code[0] && p->text && p->text[0], "no words");
    if (p->severity == QCOW2_CORRUPTION
        && strcmp(p->code, "alone-but-not-copied") != 0)
        told->nr_corruptions += p->nr_clusters;
}

static void
note_recheck(void *opaque)
{
    struct told *told = opaque;

    told->nr_corruptions = 0;
}

static int
note_write(void *opaque, const struct qcow2_repair_write *w)
{
    struct told *told = opaque;
    const unsigned char *bytes = w->new_bytes;

    told->nr_writes++;
    told->sum = told->sum * 31 + w->host_off;
    for (size_t i = 0; i < w->nr_bytes; i++)
        told->sum = told->sum * 31 + bytes[i];
    return 0;
}

static int
run(struct sparse *file, enum qcow2_repair repair, bool plan,
    struct told *told, struct qcow2_check_result *result)
{
    const struct qcow2_check_options options = {
        .repair = repair, .plan = plan, .problem = note_problem,
        .recheck = note_recheck, .write = note_write, .opaque = told,
    };
    struct io *io = sparse_open(file, repair == QCOW2_REPAIR_NONE || plan);
    int r;

    memset(told, 0, sizeof *told);
    r = check_io(io, &options, result, NULL);
    io_close(io);
    return r;
}

static int
check_alone(struct sparse *file, struct told *told,
            struct qcow2_check_result *result)
{
    struct sparse *before = sparse_copy(file);
    struct told planned;
    int r;

    run(file, QCOW2_REPAIR_ALL, true, &planned, result);
    r = run(file, QCOW2_REPAIR_NONE, false, told, result);
    MUST(told->nr_writes == 0, "a check writes");
    MUST(sparse_same(file, before), "a check changed the file");
    sparse_free(before);
    told->sum = planned.sum;
    told->nr_writes = planned.nr_writes;
    return r;
}

static void
repair(struct sparse *file, enum qcow2_repair how, const struct told *found)
{
    struct sparse *repaired = sparse_copy(file), *once;
    struct qcow2_check_result result;
    struct told told;
    int r = run(repaired, how, false, &told, &result);

    bounds_of_work(sparse_counts(repaired));
    if (r == 0 && !sparse_was_full(repaired)) {
        MUST(told.nr_corruptions <= found->nr_corruptions,
             "%" PRIu64 " corruptions became %" PRIu64,
             found->nr_corruptions, told.nr_corruptions);
        if (how == QCOW2_REPAIR_ALL)
            MUST(told.nr_writes == found->nr_writes
                 && told.sum == found->sum, "%" PRIu64 " writes, planned "
                 "%" PRIu64, told.nr_writes, found->nr_writes);
        once = sparse_copy(repaired);
        r = run(repaired, how, false, &told, &result);
        MUST(r == 0 && told.nr_writes == 0 && sparse_same(repaired, once),
             "there is more to repair the second time");
        sparse_free(once);
    }
    sparse_free(repaired);
}

void
target_check(const uint8_t *data, size_t nr_bytes)
{
    struct qcow2_check_result result;
    struct input in;
    struct told told;

    input_decode(&in, data, nr_bytes);
    if (check_alone(in.file, &told, &result) == 0) {
        repair(in.file, QCOW2_REPAIR_LEAKS, &told);
        repair(in.file, QCOW2_REPAIR_ALL, &told);
    }
    bounds_of_work(sparse_counts(in.file));
    input_free(&in);
}
