/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c: the state of an open image: damage, failures, where the file ends;
 * see image.h.
 */
#include "meta/image.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/escape.h"

int
image_check_own_view(const struct image *img, struct qcow2_error *err)
{
    if (!img->overridden)
        return 0;
    return error_set(err, EINVAL, "%s: it does not stand on the backing file "
                     "that it names, and this would write what it reads as "
                     "on another one; give it that by a rebase of its header "
                     "alone first", img->name);
}

int
image_check_state(struct image *img, struct qcow2_error *err)
{
    switch ((enum image_state)__atomic_load_n(&img->state,
                                              __ATOMIC_ACQUIRE)) {
    case IMAGE_OK:
        return 0;
    case IMAGE_DAMAGED:
        error_set(err, EIO, "%s: the image is damaged and takes no more "
                  "writes", img->name);
        return error_hint(err, QCOW2_HINT_REPAIR);
    case IMAGE_FAILED:
        if (io_flush_has_failed(img->io))
            return error_set(err, EIO, "%s: " IO_FLUSH_FAILED, img->name);
        return error_set(err, EIO,
                         "%s: writing failed before, so it takes no more "
                         "writes until it is opened again",
                         img->name);
    }
    return -1;
}

uint64_t
image_incompatible(struct image *img)
{
    LOCK_SCOPE(&img->feature_lock);

    return img->hdr.incompatible;
}

/* Moves from IMAGE_OK to `state`; says whether this call did it. */
static bool
leave_ok(struct image *img, enum image_state state)
{
    int ok = IMAGE_OK;

    return __atomic_compare_exchange_n(&img->state, &ok, state, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The image takes no more writes anyway: a failure here changes nothing. */
static void
set_incompatible(struct image *img, uint64_t bit)
{
    const struct header_update u = {
        .parts = HEADER_SET_INCOMPATIBLE, .incompatible_set = bit,
    };
    LOCK_SCOPE(&img->feature_lock);

    if (img->hdr.version >= 3 && !img->readonly)
        header_write_fields(img->io, &img->hdr, &u, NULL);
}

int
image_damaged(struct image *img, struct qcow2_error *err, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!img->readonly && leave_ok(img, IMAGE_DAMAGED))
        set_incompatible(img, INCOMPAT_CORRUPT);
    error_set(err, EIO, "%s: %s: the image is damaged", img->name, text);
    return error_hint(err, QCOW2_HINT_CHECK);
}

/* A size found before the file was cut must not stay known. */
static int
learn_end(struct image *img, uint64_t *end, struct qcow2_error *err)
{
    unsigned nr_cuts;

    do {
        nr_cuts = __atomic_load_n(&img->nr_cuts, __ATOMIC_SEQ_CST);
        if (io_get_size(img->io, end, err) == -1)
            return -1;
        *end = round_up(min_u64(*end, MAX_HOST_OFFSET), img->cluster_size);
        __atomic_store_n(&img->known_end, *end, __ATOMIC_SEQ_CST);
    } while (nr_cuts != __atomic_load_n(&img->nr_cuts, __ATOMIC_SEQ_CST));
    return 0;
}

void
image_file_was_cut(struct image *img, uint64_t end)
{
    __atomic_add_fetch(&img->nr_cuts, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&img->known_end, end, __ATOMIC_SEQ_CST);
}

int
image_check_grown(struct image *img, uint64_t host_off, uint64_t nr_bytes,
                  struct qcow2_error *err)
{
    uint64_t end;

    if (learn_end(img, &end, err) == -1)
        return -1;
    if (range_inside(host_off, nr_bytes, end))
        return 0;
    return image_damaged(img, err, "a table points to 0x%llx, past the end "
                         "of the file", (unsigned long long)host_off);
}

void
image_fail(struct image *img)
{
    /* Whether what was written is there is unknown: the dirty bit has the
     * next writable open count all references. */
    if (leave_ok(img, IMAGE_FAILED))
        set_incompatible(img, INCOMPAT_DIRTY);
    __atomic_store_n(&img->state, IMAGE_FAILED, __ATOMIC_RELEASE);
}

void
image_warn(struct image *img, const char *fmt, ...)
{
    qcow2_warn_fn *fn = img->warn;
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    escape_controls(text, sizeof text);
    if (fn)
        fn(img->warn_opaque, text);
}

void
image_debug(struct image *img, unsigned topic, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (img->debug)
        img->debug(img->debug_opaque, topic, text);
}
