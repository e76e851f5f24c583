/* SPDX-License-Identifier: BSD-3-Clause */
/* images.c: the images that are open, shared by connections.
 *
 * An image opens with its first connection and closes with its last, so an
 * idle server holds no lock and has nothing left to write. All connections
 * share one disk: a flush on one covers all, and our own locks never stand
 * in our way. Files are identified by device and inode: an overlay that was
 * deleted and made anew under the same name is another image.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plugin.h"

enum image_state { IMAGE_OPENING, IMAGE_OPEN, IMAGE_FAILED, IMAGE_CLOSING };

/* Guards the table and what is in it, and is never held over I/O: an image
 * that takes long to open or close keeps only its own users waiting.
 */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t state_changed = PTHREAD_COND_INITIALIZER;
static struct open_image *table; /* those with users */
static struct qcow2_pool *pool;
static struct qcow2_failures *failures;

/* nbdkit sets these by -D qcow2.TOPIC=1. */
NBDKIT_DLL_PUBLIC int qcow2_debug_open, qcow2_debug_map;
NBDKIT_DLL_PUBLIC int qcow2_debug_alloc, qcow2_debug_flush;

/* There is no other way into nbdkit's log that is always shown. */
static void
warn_of_no_locks(void *opaque, const char *name)
{
    (void)opaque;
    nbdkit_error("warning: %s: its file system keeps no locks, so nothing "
                 "keeps other programs from using it at the same time", name);
}

int
images_init(void)
{
    struct qcow2_error err;

    failures = qcow2_failures_new(&err);
    if (failures) {
        qcow2_failures_report_unlocked(failures, warn_of_no_locks, NULL);
        pool = qcow2_pool_new(config.cache_bytes, &err);
    }
    if (!pool)
        report_error("", &err);
    return pool ? 0 : -1;
}

/* nbdkit waits for connections, but not for ever. If it gave up on one that
 * is still opening an image, the pool is in use until the process ends.
 */
void
images_free(void)
{
    bool in_use;

    pthread_mutex_lock(&table_lock);
    in_use = table != NULL;
    pthread_mutex_unlock(&table_lock);
    if (in_use)
        return;
    qcow2_pool_free(pool);
    qcow2_failures_free(failures);
}

/* nbdkit has no level between errors and what only -v shows. */
static void
warn(void *opaque, const char *text)
{
    (void)opaque;
    nbdkit_error("warning: %s", text);
}

static void
debug(void *opaque, unsigned topic, const char *text)
{
    (void)opaque;
    (void)topic;
    nbdkit_debug("%s", text);
}

/* How to open the image of an export, by what the command line says. */
static void
fill_options(const struct export *export, struct qcow2_options *options)
{
    *options = (struct qcow2_options){
        .format = export->format,
        .probe_raw = config.dir,
        .no_lock = !config.lock,
        .fd = config.fd,
        .file = export->file,
        .window = config.window,
        .backing_none = config.backing_none,
        .backing = config.backing,
        .backing_format = config.backing_format,
        .allow = config.allow,
        .nr_allow = config.nr_allow,
        .shared_dir = config.dir,
        .cache = config.cache,
        .no_discard = !config.discard,
        .detect_zeroes = config.detect_zeroes,
        .nbd_timeout_ms = config.nbd_timeout_ms,
        .pool = pool,
        .failures = failures,
        .warn = warn,
        .debug = debug,
        .debug_topics = (qcow2_debug_open ? QCOW2_DEBUG_OPEN : 0)
                        | (qcow2_debug_map ? QCOW2_DEBUG_MAP : 0)
                        | (qcow2_debug_alloc ? QCOW2_DEBUG_ALLOC : 0)
                        | (qcow2_debug_flush ? QCOW2_DEBUG_FLUSH : 0),
    };
}

/* Is it a file that nothing but its name could make an image? */
static bool
is_raw(const struct export *export)
{
    const struct qcow2_info_options options = {
        .file = export->file,
        .window = config.window,
        .use_fd = config.fd >= 0,
        .fd = config.fd,
        .no_lock = true,
        .no_bitmaps = true,
        .limit_snapshots = true,
    };
    struct qcow2_info *info;
    bool found;

    if (config.dir
        || (export->file && qcow2_file_get_id(export->file).ino == 0))
        return false; /* a directory's file, or a URI */
    info = qcow2_get_info(export->path, &options, NULL);
    found = info && info->format == QCOW2_FORMAT_RAW && info->virtual_size > 0;
    qcow2_info_free(info);
    return found;
}

/* What may not be written is served read-only: a file without the right to
 * write it, an image marked corrupt, or (in a directory, where that is
 * usual) one that is somebody's backing file just now. *err is set if the
 * result is NULL.
 */
static struct qcow2_disk *
open_disk(const struct export *export, bool readonly, struct qcow2_error *err)
{
    struct qcow2_options options;
    struct qcow2_error of_reading;
    struct qcow2_disk *disk;
    size_t nr;

    fill_options(export, &options);
    options.readonly = readonly || config.snapshot;
    disk = qcow2_open(export->path, &options, err);
    if (disk)
        return disk;
    if (!options.readonly
        && (err->errnum == EACCES || err->errnum == EPERM
            || err->errnum == EROFS
            || (err->errnum == EBUSY && config.dir))) {
        options.readonly = true;
        disk = qcow2_open(export->path, &options, &of_reading);
        if (disk)
            nbdkit_debug("serving it read-only: %s", err->text);
        else if (err->errnum != EBUSY)
            *err = of_reading; /* to serve it read-only is no remedy */
    }
    nr = strlen(err->text);
    if (!disk && is_raw(export))
        snprintf(err->text + nr, sizeof err->text - nr,
                 "; 'nbdkit file' serves raw disks");
    return disk;
}

/* The image of a file that has users, unless it failed to open; table_lock is
 * held. */
static struct open_image *
table_find(const struct qcow2_file_id *id, enum qcow2_format format)
{
    struct open_image *image = table;

    while (image && (image->dev != id->dev || image->ino != id->ino
                     || image->format != format
                     || image->state == IMAGE_FAILED))
        image = image->next;
    return image;
}

/* Ends one use of an image that is not open (any more). */
static void
table_put(struct open_image *image)
{
    struct open_image **p = &table;

    if (--image->nr_users > 0)
        return;
    while (*p != image)
        p = &(*p)->next;
    *p = image->next;
    free(image);
}

/* Finds the image and uses it, once it is neither opening nor closing; or
 * makes one in state IMAGE_OPENING, which is the caller's to open.
 */
static struct open_image *
table_get(const struct qcow2_file_id *id, enum qcow2_format format,
          bool *is_new)
{
    struct open_image *image;

    while ((image = table_find(id, format)) && image->state == IMAGE_CLOSING)
        pthread_cond_wait(&state_changed, &table_lock);
    *is_new = !image;
    if (!image) {
        image = calloc(1, sizeof *image);
        if (!image)
            return NULL;
        image->dev = id->dev;
        image->ino = id->ino;
        image->format = format;
        image->state = IMAGE_OPENING;
        image->next = table;
        table = image;
    }
    image->nr_users++;
    while (!*is_new && image->state == IMAGE_OPENING)
        pthread_cond_wait(&state_changed, &table_lock);
    return image;
}

static void
open_image(struct open_image *image, const struct export *export,
           bool readonly)
{
    struct qcow2_disk *disk = open_disk(export, readonly, &image->error);

    pthread_mutex_lock(&table_lock);
    image->disk = disk;
    image->state = disk ? IMAGE_OPEN : IMAGE_FAILED;
    pthread_cond_broadcast(&state_changed);
    pthread_mutex_unlock(&table_lock);
}

/* Of the file that is opened: no name is looked up again. */
static int
get_id(const struct export *export, struct qcow2_file_id *id)
{
    struct stat st;

    if (export->file) {
        *id = qcow2_file_get_id(export->file);
        return 0;
    }
    if (fstat(config.fd, &st) == -1)
        return -1;
    *id = qcow2_stat_get_id(&st);
    return 0;
}

/* Connections that waited while the image was being opened share the result,
 * a failure too. They must not try in turn: with a backing chain that leads
 * back here, through this server's own socket, each attempt would begin the
 * next one.
 */
struct open_image *
images_get(const struct export *export, bool readonly)
{
    struct open_image *image = NULL;
    struct qcow2_file_id id;
    bool is_new;

    if (get_id(export, &id) == 0) {
        pthread_mutex_lock(&table_lock);
        image = table_get(&id, export->format, &is_new);
        pthread_mutex_unlock(&table_lock);
    }
    if (!image) {
        nbdkit_error("%s: cannot open: %m", export->path);
        return NULL;
    }
    if (is_new)
        open_image(image, export, readonly);
    pthread_mutex_lock(&table_lock);
    if (image->state == IMAGE_FAILED) {
        report_error("", &image->error);
        table_put(image);
        image = NULL;
    }
    pthread_mutex_unlock(&table_lock);
    return image;
}

void
images_put(struct open_image *image)
{
    struct qcow2_error err;
    bool is_last;

    pthread_mutex_lock(&table_lock);
    is_last = image->nr_users == 1;
    if (is_last)
        image->state = IMAGE_CLOSING;
    else
        image->nr_users--;
    pthread_mutex_unlock(&table_lock);
    if (!is_last)
        return;
    if (qcow2_close(image->disk, &err) == -1)
        report_error("", &err);
    pthread_mutex_lock(&table_lock);
    table_put(image);
    pthread_cond_broadcast(&state_changed);
    pthread_mutex_unlock(&table_lock);
}
