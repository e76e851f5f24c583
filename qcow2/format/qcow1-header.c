/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow1-header.c: reads headers of version 1, and refuses what must not be
 * trusted; see qcow1-header.h.
 */
#include "format/qcow1-header.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/format.h"

_Static_assert(sizeof(struct disk_qcow1_header) == QCOW1_HEADER_LENGTH,
               "the header has no holes");

static int
check_magic(const struct disk_qcow1_header *d, uint64_t file_size,
            struct qcow2_error *err)
{
    if (be32_get(d->magic) != QCOW2_MAGIC || be32_get(d->version) != 1)
        return error_set(err, EINVAL, "not an image of the format qcow: its "
                         "first bytes are not those of a header of version 1");
    if (file_size < sizeof *d)
        return error_set(err, EIO, "the file ends inside the header, after "
                         "%" PRIu64 " bytes", file_size);
    return 0;
}

static int
check_encryption(const struct qcow1_header *h, struct qcow2_error *err)
{
    if (h->crypt_method == CRYPT_NONE)
        return 0;
    if (h->crypt_method != CRYPT_AES)
        return error_set(err, ENOTSUP, "is encrypted by the unknown method "
                         "%" PRIu32, h->crypt_method);
    return error_set(err, ENOTSUP, "is encrypted (AES), which is not "
                     "supported for the format qcow");
}

static int
check_geometry(const struct qcow1_header *h, struct qcow2_error *err)
{
    if (h->cluster_bits < MIN_CLUSTER_BITS
        || h->cluster_bits > QCOW1_MAX_CLUSTER_BITS)
        return error_set(err, EIO, "header: cluster_bits is %u, must be %d "
                         "to %d", h->cluster_bits, MIN_CLUSTER_BITS,
                         QCOW1_MAX_CLUSTER_BITS);
    if (h->l2_bits < QCOW1_MIN_L2_BITS || h->l2_bits > QCOW1_MAX_L2_BITS)
        return error_set(err, EIO, "header: l2_bits is %u, must be %d to %d",
                         h->l2_bits, QCOW1_MIN_L2_BITS, QCOW1_MAX_L2_BITS);
    return 0;
}

static int
find_l1(struct qcow1_header *h, struct qcow2_error *err)
{
    uint64_t reach = UINT64_C(1) << (h->cluster_bits + h->l2_bits);
    uint64_t nr = div_round_up(h->size, reach);

    if (nr > MAX_L1_BYTES / sizeof(be64))
        return error_set(err, EIO, "header: a virtual size of %" PRIu64
                         " bytes needs an L1 table of %" PRIu64 " entries, "
                         "more than the limit of %zu", h->size, nr,
                         MAX_L1_BYTES / sizeof(be64));
    if (nr > 0
        && (h->l1_offset < QCOW1_HEADER_LENGTH
            || !is_aligned(h->l1_offset, sizeof(be64))
            || !range_inside(h->l1_offset, nr * sizeof(be64), h->file_size)))
        return error_set(err, EIO, "header: an L1 table of %" PRIu64
                         " entries at host offset 0x%" PRIx64 " does not lie "
                         "behind the header in the file, which has %" PRIu64
                         " bytes", nr, h->l1_offset, h->file_size);
    h->l1_entries = nr;
    return 0;
}

static int
read_backing_name(struct io *io, const struct disk_qcow1_header *d,
                  struct qcow1_header *h, struct qcow2_error *err)
{
    uint64_t offset = be64_get(d->backing_file_offset);
    uint32_t size = be32_get(d->backing_file_size);
    char name[MAX_BACKING_NAME_BYTES];

    if (offset == 0 && size == 0)
        return 0;
    if (size == 0 || size > MAX_BACKING_NAME_BYTES
        || offset < QCOW1_HEADER_LENGTH
        || !range_inside(offset, size, h->file_size))
        return error_set(err, EIO, "header: a backing file name of %" PRIu32
                         " bytes at host offset 0x%" PRIx64 " must have 1 to "
                         "%d bytes, and lie behind the header in the file",
                         size, offset, MAX_BACKING_NAME_BYTES);
    if (io_pread(io, name, size, offset, err) == -1)
        return -1;
    if (memchr(name, '\0', size))
        return error_set(err, EIO, "header: the backing file name has a byte "
                         "of 0 in it");
    h->backing_file = strndup(name, size);
    return h->backing_file ? 0 : error_nomem(err);
}

int
qcow1_header_read_loosely(struct io *io, struct qcow1_header *h,
                          struct qcow2_error *refusal,
                          struct qcow2_error *err)
{
    struct disk_qcow1_header d;
    struct qcow2_error error;

    *h = (struct qcow1_header){ .size = 0 };
    *refusal = (struct qcow2_error){ .errnum = 0 };
    if (io_get_size(io, &h->file_size, err) == -1
        || io_pread(io, &d, sizeof d, 0, err) == -1)
        return -1;
    if (check_magic(&d, h->file_size, err) == -1)
        return error_prefix(err, "%s", io->name);
    h->size = be64_get(d.size);
    h->cluster_bits = d.cluster_bits;
    h->l2_bits = d.l2_bits;
    h->crypt_method = be32_get(d.crypt_method);
    h->l1_offset = be64_get(d.l1_table_offset);
    if (check_encryption(h, refusal) == -1
        || check_geometry(h, refusal) == -1
        || find_l1(h, refusal) == -1)
        error_prefix(refusal, "%s", io->name);
    if (read_backing_name(io, &d, h, &error) == -1
        && refusal->errnum == 0) {
        *refusal = error;
        error_prefix(refusal, "%s", io->name);
    }
    return 0;
}

int
qcow1_header_read(struct io *io, struct qcow1_header *h,
                  struct qcow2_error *err)
{
    struct qcow2_error refusal;

    if (qcow1_header_read_loosely(io, h, &refusal, err) == -1)
        return -1;
    if (refusal.errnum == 0)
        return 0;
    qcow1_header_free(h);
    if (err)
        *err = refusal;
    return -1;
}

void
qcow1_header_free(struct qcow1_header *h)
{
    free(h->backing_file);
    h->backing_file = NULL;
}
