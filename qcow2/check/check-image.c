/* SPDX-License-Identifier: BSD-3-Clause */
/* check-image.c: check and repair as an operation on a whole image. */
#include "check/check.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "check/check-private.h"
#include "format/first-read.h"
#include "storage/io-open.h"
#include "storage/io-window.h"
#include "storage/path-policy.h"

static bool
found_any(const struct check *c)
{
    for (unsigned i = 0; i < NR_PROBLEMS; i++)
        if (c->nr[i] > 0)
            return true;
    return false;
}

static int
pass_metadata(struct check *c, bool any, struct qcow2_error *err)
{
    const struct qcow2_check_options *o = &c->options;
    bool wanted = o->metadata && !o->plan
                  && (any || o->repair == QCOW2_REPAIR_NONE);

    return wanted ? check_pass_metadata(c, err) : 0;
}

/* The header is the only thing that could be looked at. */
static void
only_header(const struct header_flaws *flaws,
            const struct qcow2_check_options *options,
            struct qcow2_check_result *result)
{
    const struct finding f = {
        .problem = PROBLEM_HEADER, .nr = 1, .text = flaws->first.text,
    };
    char text[256];
    const struct qcow2_problem p = {
        .code = problem_kinds[f.problem].code,
        .text = text,
        .severity = problem_kinds[f.problem].severity,
        .nr_clusters = 1,
    };

    result->corruptions = 1;
    problem_text(&f, text, sizeof text);
    if (options->problem)
        options->problem(options->opaque, &p);
}

/* Can nothing be made of an image whose header has these flaws? -1 where that
 * is not damage, but something that we do not support. */
static int
is_hopeless(struct io *io, const struct header_flaws *flaws,
            struct qcow2_error *err)
{
    if (!(flaws->parts & (1u << HEADER_GEOMETRY | 1u << HEADER_FEATURES)))
        return 0;
    if (flaws->first.errnum != ENOTSUP)
        return 1;
    if (err)
        *err = flaws->first;
    return error_prefix(err, "%s", io->name);
}

/* One check of an image whose header and snapshot table were read. *acted:
 * there was something for repair to do. */
static int
check_tables(struct io *io, struct header *hdr,
             const struct header_flaws *flaws,
             const struct qcow2_check_options *options,
             struct qcow2_check_result *result, bool *acted,
             struct qcow2_error *err)
{
    struct snapshot_table snaptab;
    struct qcow2_error why;
    uint32_t nr_lost;
    struct check c;
    int r = -1;

    header_drop_parts(hdr, flaws->parts);
    if (snaptab_read_loosely(io, hdr, &snaptab, &nr_lost, &why, err) == -1)
        return -1;
    if (check_begin(&c, io, hdr, &snaptab, options, err) == 0) {
        check_header(&c, flaws);
        check_snapshots(&c, nr_lost, why.text);
        r = check_run(&c, err);
    }
    if (r == 0) {
        *acted = found_any(&c);
        r = pass_metadata(&c, *acted, err);
    }
    if (r == 0)
        r = repair_run(&c, err);
    *result = c.result;
    check_end(&c);
    snaptab_free(&snaptab);
    return r;
}

static int
check_once(struct io *io, const struct qcow2_check_options *options,
           struct qcow2_check_result *result, bool *acted,
           struct qcow2_error *err)
{
    struct header_flaws flaws;
    struct header hdr;
    int r;

    *acted = false;
    if (header_read_parts(io, &hdr, &flaws, err) == -1)
        return -1;
    r = is_hopeless(io, &flaws, err);
    if (r == 1) {
        only_header(&flaws, options, result);
        r = 0;
    } else if (r == 0) {
        r = check_tables(io, &hdr, &flaws, options, result, acted, err);
    }
    header_free(&hdr);
    return r;
}

int
check_io(struct io *io, const struct qcow2_check_options *options,
         struct qcow2_check_result *result, struct qcow2_error *err)
{
    struct qcow2_check_options again = *options;
    struct qcow2_check_result found;
    bool acted;

    memset(result, 0, sizeof *result);
    if (check_once(io, options, result, &acted, err) == -1)
        return -1;
    if (options->repair == QCOW2_REPAIR_NONE || options->plan || !acted)
        return 0;

    /* What is left is what a second look finds. */
    again.repair = QCOW2_REPAIR_NONE;
    again.metadata = NULL;
    if (options->recheck)
        options->recheck(options->opaque);
    found = *result;
    if (check_once(io, &again, result, &acted, err) == -1)
        return -1;
    result->corruptions_fixed
        = found.corruptions - min_u64(found.corruptions,
                                      result->corruptions);
    result->leaks_fixed = found.leaks - min_u64(found.leaks, result->leaks);
    return 0;
}

static struct io *
open_file(const struct policy_file *file, bool readonly,
          const struct qcow2_check_options *options, struct qcow2_error *err)
{
    enum io_lock lock = options->no_lock ? IO_LOCK_NONE
                        : readonly ? IO_LOCK_READ : IO_LOCK_WRITE;

    const struct io_open_options o = {
        .readonly = readonly, .lock = lock,
        .direct = io_cache_is_direct(options->cache),
        .window = options->window,
    };

    return io_open(file, &o, err);
}

int
qcow2_check(const char *path, const struct qcow2_check_options *options,
            struct qcow2_check_result *result, struct qcow2_error *err)
{
    bool readonly = options->repair == QCOW2_REPAIR_NONE || options->plan;
    struct policy_file found = POLICY_FILE_INIT;
    struct io *io;
    int r;

    if (!options->file && policy_trust(path, &found, err) == -1)
        return -1;
    io = open_file(options->file ? &options->file->file : &found, readonly,
                   options, err);
    policy_file_free(&found);
    if (!io)
        return -1;
    r = readonly ? 0 : io_window_check_end(io, err);
    if (r == 0)
        r = first_read_prepare(io, options->failures, options->no_lock, err);
    if (r == 0)
        r = check_io(io, options, result, err);
    io_close(io);
    return r;
}
