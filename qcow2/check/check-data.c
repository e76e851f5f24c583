/* SPDX-License-Identifier: BSD-3-Clause */
/* check-data.c: tries whether compressed clusters can be decompressed. */
#include <errno.h>
#include <stdlib.h>

#include "base/compress.h"
#include "base/error.h"
#include "check/check-private.h"

struct decompressor {
    struct compress_context *context;
    unsigned char *in, *out;
};

/* A descriptor counts at most so many bytes. */
static uint64_t
most_in(const struct check *c)
{
    return 2 * c->cluster_size;
}

static int
prepare(struct check *c, struct qcow2_error *err)
{
    struct decompressor *d = c->decompressor;

    if (d)
        return 0;
    d = c->decompressor = calloc(1, sizeof *d);
    if (!d)
        return error_nomem(err);
    d->context = compress_context_new();
    d->in = malloc(most_in(c));
    d->out = malloc(c->cluster_size);
    if (d->context && d->in && d->out)
        return 0;
    check_free_decompressor(c);
    return error_nomem(err);
}

int
check_compressed(struct check *c, const struct l2_entry *e, uint64_t at,
                 struct qcow2_error *err)
{
    struct decompressor *d;

    if (prepare(c, err) == -1)
        return -1;
    d = c->decompressor;
    if (check_read(c, d->in, e->compressed_len, e->host_off, NULL, err) == -1)
        return -1;
    if (compress_decode(d->context, c->hdr->compression_type, d->in,
                        e->compressed_len, d->out, c->cluster_size) == 0)
        return 0;
    if (errno != EIO)
        return error_set_errno(err, errno, "%s: compressed cluster",
                               c->io->name);
    check_report(c, PROBLEM_COMPRESSED_DAMAGED, at, e->host_off, 0);
    return 0;
}

void
check_free_decompressor(struct check *c)
{
    if (!c->decompressor)
        return;
    compress_context_free(c->decompressor->context);
    free(c->decompressor->in);
    free(c->decompressor->out);
    free(c->decompressor);
    c->decompressor = NULL;
}
