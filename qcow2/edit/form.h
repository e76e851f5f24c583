/* SPDX-License-Identifier: BSD-3-Clause */
/* form.h: gives an image another header, for amend and rebase. */
#ifndef QCOW2_FORM_H
#define QCOW2_FORM_H

#include "meta/image.h"

/* Flushes, and switches the header to the form (I5), which starts as
 * header_form_of. The caller holds image.rwlock exclusively and has everything
 * on disk. Readers of snapshots may find damage meanwhile: the corrupt bit
 * stays.
 */
int form_switch(struct image *img, const struct header_form *form,
                struct qcow2_error *err);

#endif /* QCOW2_FORM_H */
