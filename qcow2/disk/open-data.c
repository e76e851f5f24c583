/* SPDX-License-Identifier: BSD-3-Clause */
/* open-data.c: opens data files; see open-data.h. */
#include "disk/open-data.h"

#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "base/escape.h"
#include "meta/data-file.h"
#include "storage/failures.h"
#include "storage/io-open.h"

enum io_lock
disk_lock_of(const struct qcow2_options *options)
{
    return options->no_lock    ? IO_LOCK_NONE
           : options->readonly ? IO_LOCK_READ
                               : IO_LOCK_WRITE;
}

static bool
is_file(const struct io *io, uint64_t dev, uint64_t ino)
{
    return io->ino != 0 && io->ino == ino && io->dev == dev;
}

static bool
has_data_file(const struct image *img)
{
    return img->hdr.incompatible & INCOMPAT_DATA_FILE;
}

static const char *
name_of(const struct image *img, const struct data_opening *how)
{
    return how->name ? how->name : img->hdr.data_file;
}

static int
name_it(const struct image *img, const struct data_opening *how,
        struct qcow2_error *err)
{
    return error_prefix(err, "data file '%s' of '%s'",
                        ESCAPED(name_of(img, how)), ESCAPED(img->name));
}

/* The file that the image names, decided upon by the path policy. */
static int
find(const struct image *img, const struct data_opening *how,
     struct policy_file *file, struct qcow2_error *err)
{
    const char *name = name_of(img, how);
    struct policy_place from = *how->place;
    int r;

    if (how->options->shared_dir && !how->readonly)
        from = policy_place_shared(how->place);
    if (how->name && name[0] == '/')
        r = policy_trust(name, file, err);
    else if (how->trusted)
        r = policy_trust_name(how->place, name, file, err);
    else
        r = policy_resolve(&from, name, how->allow, file, err);

    if (r == -1)
        return -1;
    if (policy_is_remote(file))
        r = error_set(err, ENOTSUP, "it must be a file or block device");
    else if (is_file(img->io, file->dev, file->ino))
        r = error_set(err, EINVAL, "it is the image itself");
    if (r == -1)
        policy_file_free(file);
    return r;
}

/* A file that was exchanged for another is noticed here, if at all. */
static int
check_length(const struct image *img, struct io *io, struct qcow2_error *err)
{
    uint64_t length;

    if (io_get_size(io, &length, err) == -1)
        return -1;
    if (length < img->hdr.size)
        return error_set(err, EIO, "it has %" PRIu64 " bytes, fewer than the "
                         "disk, which has %" PRIu64 ": it is another file, or "
                         "was cut short", length, img->hdr.size);
    return 0;
}

/* The dirty bit may mean that a flush failed, of either file (first-read.h). */
static int
prepare(const struct image *img, const struct data_opening *how, struct io *io,
        struct qcow2_error *err)
{
    bool in_use = how->lock == IO_LOCK_NONE && how->readonly;

    if (failures_watch(how->options->failures, io, err) == -1)
        return -1;
    if (img->hdr.incompatible & INCOMPAT_DIRTY && !in_use)
        io_drop_cache(io);
    return check_length(img, io, err);
}

static int
open_found(struct image *img, const struct data_opening *how,
           const struct policy_file *file, struct qcow2_error *err)
{
    const struct io_open_options o = {
        .readonly = how->readonly, .lock = how->lock, .direct = how->direct,
        .driver = how->options->driver,
    };
    struct io *io = io_open(file, &o, err);

    if (!io)
        return -1;
    if (prepare(img, how, io, err) == -1) {
        io_close(io);
        return -1;
    }
    return data_file_use(img, io, err);
}

int
data_open(struct image *img, const struct data_opening *how,
          struct qcow2_error *err)
{
    struct policy_file file;
    int r;

    if (!has_data_file(img))
        return 0;
    if (!name_of(img, how))
        return error_set(err, EIO, "%s: its guest data are in a data file, but "
                         "it does not say in which", img->name);
    r = find(img, how, &file, err);
    if (r == 0) {
        r = open_found(img, how, &file, err);
        policy_file_free(&file);
    }
    return r == 0 ? 0 : name_it(img, how, err);
}

int
data_check_allowed(struct image *img, const struct data_opening *how,
                   struct qcow2_error *err)
{
    struct policy_file file;
    bool same;

    if (!has_data_file(img))
        return 0;
    if (find(img, how, &file, err) == -1)
        return name_it(img, how, err);
    same = is_file(img->data->io, file.dev, file.ino);
    policy_file_free(&file);
    if (same)
        return 0;
    error_set(err, EIO, "it was replaced while the image is in use");
    return name_it(img, how, err);
}

int
data_open_disk(struct image *img, const char *path,
               const struct policy_place *place,
               const struct qcow2_options *options, struct qcow2_error *err)
{
    struct policy_place found = { .kind = POLICY_UNNAMED };
    struct policy_allow allow;
    struct data_opening how = {
        .place = place ? place : &found, .allow = &allow, .options = options,
        .name = options->data_file,
        .trusted = options->trust_data_file || options->data_file,
        .readonly = options->readonly,
        .lock = disk_lock_of(options),
        .direct = io_cache_is_direct(options->cache),
    };
    int r = 0;

    if (!has_data_file(img))
        return 0;
    if (policy_allow_init(&allow, options->allow, options->nr_allow, err)
        == -1)
        return -1;
    if (!place && options->fd >= 0)
        policy_place_of_fd(options->fd, &found);
    else if (!place && !(options->data_file && options->data_file[0] == '/'))
        r = policy_place_of(path, &found, err);
    if (r == 0)
        r = data_open(img, &how, err);
    policy_place_free(&found);
    policy_allow_free(&allow);
    return r;
}

static int
check_pair(const struct source *s, const struct source *other,
           struct qcow2_error *err)
{
    const struct io *io = s->data->io;

    /* That it is not the image itself was seen before it was opened. */
    if (s == other || !source_has_file(other, io->dev, io->ino))
        return 0;
    return error_set(err, EINVAL, "'%s' is the data file of '%s', and part of "
                     "the backing chain by '%s' as well", ESCAPED(io->name),
                     ESCAPED(s->io->name), ESCAPED(other->io->name));
}

int
data_check_chain(const struct source_chain *chain, struct qcow2_error *err)
{
    for (unsigned i = 0; i < chain->nr_layers; i++) {
        const struct source *s = chain->layers[i];

        if (s->data->io == s->io)
            continue;
        for (unsigned j = 0; j < chain->nr_layers; j++)
            if (check_pair(s, chain->layers[j], err) == -1)
                return -1;
    }
    return 0;
}
