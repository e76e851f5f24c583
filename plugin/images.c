/* SPDX-License-Identifier: BSD-3-Clause */
/* images.c: the images that are open, shared by connections.
 *
 * An image opens with its first connection and closes with its last, so an
 * idle server holds no lock and has nothing left to write. All connections
 * share one disk: a flush on one covers all, and our own locks never stand
 * in our way. Files are told apart by device and inode: an overlay that was
 * deleted and made anew under the same name is another image.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "plugin.h"

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct open_image *table; /* closed ones, too */
static struct qcow2_pool *pool;

/* nbdkit sets these by -D qcow2.TOPIC=1. */
NBDKIT_DLL_PUBLIC int qcow2_debug_open, qcow2_debug_map;
NBDKIT_DLL_PUBLIC int qcow2_debug_alloc, qcow2_debug_flush;

int
images_init(void)
{
    struct qcow2_error err;

    pool = qcow2_pool_new(config.cache_bytes, &err);
    if (!pool)
        report_error("", &err);
    return pool ? 0 : -1;
}

void
images_free(void)
{
    struct open_image *image;

    while ((image = table)) {
        table = image->next;
        pthread_mutex_destroy(&image->lock);
        free(image);
    }
    qcow2_pool_free(pool);
}

static void
debug(void *opaque, unsigned topic, const char *text)
{
    (void)opaque;
    (void)topic;
    nbdkit_debug("%s", text);
}

void
images_options(const struct export *export, struct qcow2_options *options)
{
    *options = (struct qcow2_options){
        .format = export->format,
        .probe_raw = true,
        .no_lock = !config.lock,
        .fd = config.fd,
        .backing_none = config.backing_none,
        .backing = config.backing,
        .backing_format = config.backing_format,
        .allow = config.allow,
        .nr_allow = config.nr_allow,
        .no_discard = !config.discard,
        .detect_zeroes = config.detect_zeroes,
        .pool = pool,
        .debug = debug,
        .debug_topics = (qcow2_debug_open ? QCOW2_DEBUG_OPEN : 0)
                        | (qcow2_debug_map ? QCOW2_DEBUG_MAP : 0)
                        | (qcow2_debug_alloc ? QCOW2_DEBUG_ALLOC : 0)
                        | (qcow2_debug_flush ? QCOW2_DEBUG_FLUSH : 0),
    };
}

/* What may not be written is served read-only: a file without the right to
 * write it, an image marked corrupt, or (in a directory, where that is
 * usual) one that is somebody's backing file just now.
 */
static struct qcow2_disk *
open_disk(const struct export *export, bool readonly)
{
    struct qcow2_options options;
    struct qcow2_error err;
    struct qcow2_disk *disk;

    images_options(export, &options);
    options.readonly = readonly || config.snapshot;
    disk = qcow2_open(export->path, &options, &err);
    if (disk)
        return disk;
    if (!options.readonly
        && (err.errnum == EACCES || err.errnum == EPERM || err.errnum == EROFS
            || (err.errnum == EBUSY && config.dir))) {
        options.readonly = true;
        disk = qcow2_open(export->path, &options, NULL);
    }
    if (disk)
        err.hints &= ~QCOW2_HINT_READONLY;
    report_error(disk ? "serving it read-only: " : "", &err);
    return disk;
}

static struct open_image *
find_in_table(const struct stat *st, enum qcow2_format format)
{
    struct open_image *image;

    pthread_mutex_lock(&table_lock);
    for (image = table; image; image = image->next)
        if (image->dev == st->st_dev && image->ino == st->st_ino
            && image->format == format)
            break;
    if (!image && (image = calloc(1, sizeof *image))) {
        image->dev = st->st_dev;
        image->ino = st->st_ino;
        image->format = format;
        pthread_mutex_init(&image->lock, NULL);
        image->next = table;
        table = image;
    }
    pthread_mutex_unlock(&table_lock);
    return image;
}

struct open_image *
images_get(const struct export *export, bool readonly)
{
    struct open_image *image;
    struct stat st;
    bool is_open;

    if ((config.fd >= 0 ? fstat(config.fd, &st) : stat(export->path, &st)) == -1
        || !(image = find_in_table(&st, export->format))) {
        nbdkit_error("%s: cannot open: %m", export->path);
        return NULL;
    }
    pthread_mutex_lock(&image->lock);
    if (image->nr_users == 0)
        image->disk = open_disk(export, readonly);
    is_open = image->disk != NULL;
    image->nr_users += is_open;
    pthread_mutex_unlock(&image->lock);
    return is_open ? image : NULL;
}

void
images_put(struct open_image *image)
{
    struct qcow2_error err;

    pthread_mutex_lock(&image->lock);
    if (--image->nr_users == 0) {
        if (qcow2_close(image->disk, &err) == -1)
            report_error("", &err);
        image->disk = NULL;
    }
    pthread_mutex_unlock(&image->lock);
}
