/* SPDX-License-Identifier: BSD-3-Clause */
/* input.c: see input.h. */
#include "input.h"

#include <string.h>

#include "base/checked.h"
#include "bases.h"

/* Bytes that have not been used yet; past their end all is zero. */
struct reader {
    const uint8_t *data;
    size_t left;
};

static uint64_t
take(struct reader *r, unsigned nr_bytes)
{
    uint64_t n = 0;

    while (nr_bytes-- > 0) {
        n = n << 8 | (r->left > 0 ? *r->data : 0);
        if (r->left > 0) {
            r->data++;
            r->left--;
        }
    }
    return n;
}

static struct sparse *
decode_base(struct reader *r)
{
    return sparse_copy(base_image(take(r, 1) % nr_bases));
}

static struct sparse *
decode_runs(struct reader *r)
{
    struct sparse *f = sparse_new();
    uint64_t size = take(r, 8);

    for (;;) {
        uint64_t sector = take(r, 4);
        size_t n = take(r, 2);

        n = min_u64(n, r->left);
        if (n == 0)
            break;
        sparse_write(f, sector * 512, r->data, n);
        r->data += n;
        r->left -= n;
    }
    sparse_truncate(f, size);
    return f;
}

/* All that is left comes to the end of the file, into clusters of its own.
 * Nobody counts them. */
static uint64_t
append(struct sparse *f, struct reader *r)
{
    uint64_t at = round_up(sparse_size(f),
                           UINT64_C(1) << min_u64(sparse_get(f, 20, 4), 21));

    sparse_write(f, at, r->data, r->left);
    r->left = 0;
    return at;
}

static struct sparse *
decode_snapshots(struct reader *r)
{
    struct sparse *f = decode_base(r);
    unsigned nr = take(r, 2);

    sparse_put(f, 60, 4, nr);
    sparse_put(f, 64, 8, append(f, r));
    return f;
}

/* The extension comes first, over those that the base has. */
static struct sparse *
decode_bitmaps(struct reader *r)
{
    struct sparse *f = decode_base(r);
    uint64_t at = sparse_get(f, 4, 4) == 2 ? 72 : sparse_get(f, 100, 4);
    unsigned nr = take(r, 2);

    if (sparse_get(f, 4, 4) == 3)
        sparse_put(f, 88, 8, 1);
    sparse_put(f, 8, 8, 0);
    sparse_put(f, at, 8, UINT64_C(0x2385287500000018));
    sparse_put(f, at + 8, 8, (uint64_t)nr << 32);
    sparse_put(f, at + 16, 8, r->left);
    sparse_put(f, at + 24, 8, append(f, r));
    sparse_put(f, at + 32, 8, 0);
    return f;
}

static void
decode_commands(struct input *in, struct reader *r)
{
    while (r->left >= COMMAND_BYTES) {
        size_t nr = 1;

        if (r->data[0] < 0x80)
            nr = patch_file(in->file, r->data, r->left / COMMAND_BYTES);
        else if (in->nr_ops < MAX_OPERATIONS)
            command_decode(&in->ops[in->nr_ops++], r->data);
        r->data += nr * COMMAND_BYTES;
        r->left -= nr * COMMAND_BYTES;
    }
}

void
input_decode(struct input *in, const uint8_t *data, size_t nr_bytes)
{
    struct reader r = { data, nr_bytes };

    in->nr_ops = 0;
    if (nr_bytes >= 4 && memcmp(data, "QFI\xfb", 4) == 0) {
        in->file = sparse_new();
        sparse_write(in->file, 0, data, nr_bytes);
        return;
    }
    switch (nr_bytes ? data[0] : 0) {
    case INPUT_SPARSE:
        take(&r, 1);
        in->file = decode_runs(&r);
        break;
    case INPUT_SNAPSHOTS:
        take(&r, 1);
        in->file = decode_snapshots(&r);
        break;
    case INPUT_BITMAPS:
        take(&r, 1);
        in->file = decode_bitmaps(&r);
        break;
    default:
        in->file = decode_base(&r);
    }
    decode_commands(in, &r);
}

void
input_free(struct input *in)
{
    sparse_free(in->file);
}
