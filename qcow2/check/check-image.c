/* SPDX-License-Identifier: BSD-3-Clause */
/* check-image.c: check and repair as an operation on a whole image. */
#include "check/check.h"

#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "check/check-private.h"

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

/* One check. *acted: there was something for repair to do. */
static int
check_once(struct io *io, const struct qcow2_check_options *options,
           struct qcow2_check_result *result, bool *acted,
           struct qcow2_error *err)
{
    struct snapshot_table snaptab;
    struct header hdr;
    struct check c;
    int r = -1;

    if (header_read(io, &hdr, err) == -1)
        return -1;
    if (snaptab_read(io, &hdr, &snaptab, err) == -1) {
        header_free(&hdr);
        return -1;
    }
    *acted = false;
    if (check_begin(&c, io, &hdr, &snaptab, options, err) == 0
        && check_run(&c, err) == 0) {
        *acted = found_any(&c);
        if (pass_metadata(&c, *acted, err) == 0
            && repair_run(&c, err) == 0)
            r = 0;
    }
    *result = c.result;
    check_end(&c);
    snaptab_free(&snaptab);
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

int
qcow2_check(const char *path, const struct qcow2_check_options *options,
            struct qcow2_check_result *result, struct qcow2_error *err)
{
    bool readonly = options->repair == QCOW2_REPAIR_NONE || options->plan;
    enum io_lock lock = options->no_lock ? IO_LOCK_NONE
                        : readonly ? IO_LOCK_READ : IO_LOCK_WRITE;
    struct io *io = io_file_open(path, -1, readonly, lock, err);
    int r;

    if (!io)
        return -1;
    r = check_io(io, options, result, err);
    io_close(io);
    return r;
}
