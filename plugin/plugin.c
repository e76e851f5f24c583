/* SPDX-License-Identifier: BSD-3-Clause */
/* plugin.c: nbdkit's callbacks, each a call of the engine. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugin.h"
#include "sandbox.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* One connection. It shares the active disk, but has a snapshot to itself. */
struct handle {
    struct handle *next;
    struct open_image *image;
    struct export export;
    struct qcow2_disk *disk;
    char description[EXPORT_TEXT_SIZE];
    bool can_write;
};

static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static struct handle *handles;

static struct qcow2_disk *
disk_of(void *handle)
{
    return ((struct handle *)handle)->disk;
}

/* Hands the result of a request to nbdkit. For an errno that nbdkit does not
 * know it would tell the client EINVAL, its own mistake. ENOTSUP answers a
 * fast zero that would not be fast: it is not worth a message.
 */
static int
report_result(int r, const struct qcow2_error *err)
{
    static const int known[] = { EPERM,  EROFS, ENOMEM, ENOSPC,
                                 EDQUOT, EFBIG, EINVAL, ENOTSUP };
    int errnum = EIO;

    if (r != -1)
        return r;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i] == err->errnum)
            errnum = err->errnum;
    if (errnum != ENOTSUP)
        report_error("", err);
    nbdkit_set_error(errnum);
    return -1;
}

static unsigned
engine_flags(uint32_t flags)
{
    return (flags & NBDKIT_FLAG_FUA ? QCOW2_FUA : 0)
           | (flags & NBDKIT_FLAG_MAY_TRIM ? QCOW2_MAY_TRIM : 0)
           | (flags & NBDKIT_FLAG_FAST_ZERO ? QCOW2_FAST : 0);
}

static void
plugin_dump(void)
{
    static const char features[][11] = { "zlib", "zstd", "libdeflate", "nbd" };

    printf("qcow2_landlock=%s\n", landlock_is_supported() ? "yes" : "no");
    printf("qcow2_seccomp=%s\n", seccomp_is_supported() ? "yes" : "no");
    for (size_t i = 0; i < 4; i++)
        printf("qcow2_%s=%s\n", features[i],
               qcow2_has_feature(features[i]) ? "yes" : "no");
}

static void
plugin_close(void *handle)
{
    struct handle *h = handle, **p;
    struct qcow2_error err;

    pthread_mutex_lock(&handles_lock);
    for (p = &handles; *p != h; p = &(*p)->next)
        ;
    *p = h->next;
    pthread_mutex_unlock(&handles_lock);
    if (h->disk && h->disk != h->image->disk
        && qcow2_close(h->disk, &err) == -1)
        report_error("", &err);
    images_put(h->image);
    exports_free(&h->export);
    free(h);
}

static struct handle *
open_export(const char *name, bool readonly)
{
    struct handle *h = calloc(1, sizeof *h);
    struct qcow2_error err;

    if (!h || !name || exports_find(name, &h->export) == -1) {
        free(h);
        return NULL;
    }
    h->image = images_get(&h->export, readonly);
    if (!h->image) {
        exports_free(&h->export);
        free(h);
        return NULL;
    }
    pthread_mutex_lock(&handles_lock);
    h->next = handles;
    handles = h;
    pthread_mutex_unlock(&handles_lock);
    h->disk = h->image->disk;
    if (h->export.snapshot)
        h->disk = qcow2_open_snapshot(h->disk, h->export.snapshot, &err);
    if (!h->disk) {
        report_error("", &err);
        plugin_close(h);
        return NULL;
    }
    h->can_write = !readonly && !qcow2_is_readonly(h->disk);
    return h;
}

/* What is wrong with the image shows before nbdkit goes into the background.
 * nbdkit does not say yet whether -r is set: open for reading, and keep
 * nothing open.
 */
static int
plugin_get_ready(void)
{
    struct handle *h = NULL;

    if (images_init() == -1 || (!config.dir && !(h = open_export("", true))))
        return -1;
    if (h)
        plugin_close(h);
    return sandbox_prepare();
}

/* No client has been accepted yet, and the command of --run is started. */
static int
plugin_after_fork(void)
{
    return sandbox_enter();
}

/* nbdkit does not close the connections that are open when it is stopped. */
static void
plugin_cleanup(void)
{
    while (handles)
        plugin_close(handles);
    images_free();
}

static void *
plugin_open(int readonly)
{
    return open_export(nbdkit_export_name(), readonly);
}

/* A directory has none: opening '' says so. */
static const char *
plugin_default_export(int readonly, int is_tls)
{
    (void)readonly;
    (void)is_tls;
    return "";
}

static const char *
plugin_export_description(void *handle)
{
    struct handle *h = handle;

    return exports_describe(h->description, h->image->disk,
                            h->export.snapshot);
}

static int64_t
plugin_get_size(void *handle)
{
    return qcow2_get_size(disk_of(handle));
}

static int
plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                  uint32_t *maximum)
{
    uint32_t unit = qcow2_get_subcluster_size(disk_of(handle));

    *minimum = 1;
    *preferred = unit > 4096 ? unit : 4096;
    *maximum = 64 * 1024 * 1024;
    return 0;
}

static int
plugin_can_write(void *handle)
{
    return ((struct handle *)handle)->can_write;
}

/* nbdkit (1.32.5 at least) aborts when a client sends a fast zero that was not
 * offered. So it always is, and qcow2_zero answers ENOTSUP where it would have
 * to write data: nothing in the protocol promises more.
 */
static int
plugin_can_fast_zero(void *handle)
{
    (void)handle;
    return 1;
}

static int
plugin_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int
plugin_can_multi_conn(void *handle)
{
    (void)handle;
    return 1;
}

static int
plugin_pread(void *handle, void *buf, uint32_t nr_bytes, uint64_t guest_off,
             uint32_t flags)
{
    struct qcow2_error err;

    (void)flags;
    return report_result(
        qcow2_pread(disk_of(handle), buf, nr_bytes, guest_off, &err), &err);
}

static int
plugin_pwrite(void *handle, const void *buf, uint32_t nr_bytes,
              uint64_t guest_off, uint32_t flags)
{
    struct qcow2_error err;

    return report_result(qcow2_pwrite(disk_of(handle), buf, nr_bytes, guest_off,
                                      engine_flags(flags), &err),
                         &err);
}

static int
plugin_flush(void *handle, uint32_t flags)
{
    struct qcow2_error err;

    (void)flags;
    return report_result(qcow2_flush(disk_of(handle), &err), &err);
}

static int
plugin_trim(void *handle, uint32_t nr_bytes, uint64_t guest_off, uint32_t flags)
{
    struct qcow2_error err;

    return report_result(qcow2_trim(disk_of(handle), nr_bytes, guest_off,
                                    engine_flags(flags), &err),
                         &err);
}

static int
plugin_zero(void *handle, uint32_t nr_bytes, uint64_t guest_off, uint32_t flags)
{
    struct qcow2_error err;

    return report_result(qcow2_zero(disk_of(handle), nr_bytes, guest_off,
                                    engine_flags(flags), &err),
                         &err);
}

struct extents_call {
    struct nbdkit_extents *extents;
    bool one_only;
    unsigned nr;
    uint32_t type; /* of the last one */
    int r;
};

static int
add_extent(void *opaque, const struct qcow2_extent *e)
{
    struct extents_call *call = opaque;
    uint32_t type = (e->hole ? NBDKIT_EXTENT_HOLE : 0)
                    | (e->zero ? NBDKIT_EXTENT_ZERO : 0);

    if (call->one_only && call->nr++ > 0 && type != call->type)
        return 1;
    call->type = type;
    call->r = nbdkit_add_extent(call->extents, e->guest_off, e->nr_bytes, type);
    return call->r;
}

static int
plugin_extents(void *handle, uint32_t nr_bytes, uint64_t guest_off,
               uint32_t flags, struct nbdkit_extents *extents)
{
    struct extents_call call = {
        .extents = extents,
        .one_only = flags & NBDKIT_FLAG_REQ_ONE,
    };
    struct qcow2_error err;
    int r = qcow2_map(disk_of(handle), nr_bytes, guest_off, add_extent, &call,
                      &err);

    return call.r == -1 ? -1 : report_result(r, &err);
}

static int
plugin_cache(void *handle, uint32_t nr_bytes, uint64_t guest_off,
             uint32_t flags)
{
    struct qcow2_error err;

    (void)flags;
    return report_result(
        qcow2_prefetch(disk_of(handle), nr_bytes, guest_off, &err), &err);
}

/* What can_… does not say follows from which callbacks there are. */
static struct nbdkit_plugin plugin = {
    .name = "qcow2",
    .version = PACKAGE_VERSION,
    .description = "Serves qcow2 images, for reading and writing.",
    .config_help = config_help,
    .magic_config_key = "file",
    .errno_is_preserved = 1,
    .dump_plugin = plugin_dump,
    .config = config_set,
    .config_complete = config_complete,
    .get_ready = plugin_get_ready,
    .after_fork = plugin_after_fork,
    .cleanup = plugin_cleanup,
    .list_exports = exports_list,
    .default_export = plugin_default_export,
    .open = plugin_open,
    .close = plugin_close,
    .export_description = plugin_export_description,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can_write,
    .can_fast_zero = plugin_can_fast_zero,
    .can_fua = plugin_can_fua,
    .can_multi_conn = plugin_can_multi_conn,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .flush = plugin_flush,
    .trim = plugin_trim,
    .zero = plugin_zero,
    .extents = plugin_extents,
    .cache = plugin_cache,
};

NBDKIT_DLL_PUBLIC struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)
