/* SPDX-License-Identifier: BSD-3-Clause */
/* config.c: the parameters of the plugin. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "plugin.h"

/* Sanitizers and gcov look at the process, and write files, at its end. */
#ifdef IS_INSTRUMENTED
#define SANDBOX_IF_OMITTED SANDBOX_OFF
#else
#define SANDBOX_IF_OMITTED SANDBOX_DEFAULT
#endif

struct config config = {
    .fd = -1, .discard = true, .lock = true, .sandbox = SANDBOX_IF_OMITTED,
};

const char config_help[] =
    "[file=]FILENAME            The qcow2 image to serve, or one of:\n"
    "dir=DIRECTORY              Serve each image in it, by its name.\n"
    "fd=FD                      Serve the image open on this descriptor.\n"
    "snapshot=NAME|ID           Make this snapshot the default export.\n"
    "backing=FILENAME|none      Use this backing file, not the image's own.\n"
    "backing-format=raw|qcow2   Format of the backing file.\n"
    "allow=DIRECTORY|URI        Backing files may lie here (repeatable).\n"
    "discard=on|off             Give space back to the host (default on).\n"
    "detect-zeroes=off|on|unmap Look for zeroes in writes (default off).\n"
    "cache=MODE                 Use of the host's cache: writeback (default),\n"
    "                           none, writethrough, directsync or unsafe.\n"
    "cache-size=SIZE            Bound of cached metadata (default 32M).\n"
    "image-offset=SIZE          Where the image begins in the file.\n"
    "image-size=SIZE            How long it is there.\n"
    "lock=on|off                Lock out other processes (default on).\n"
    "nbd-timeout=SECONDS        How long NBD servers may take (default 30).\n"
    "sandbox=on|off             Restrict the server to what it needs (default\n"
    "                           as far as the system can do that).";

/* A row of the table below. Setters store value where it points. */
struct parameter {
    const char *key;
    int (*set)(const struct parameter *p, const char *value);
    void *where;
    bool is_source; /* says what to serve */
};

static int
refuse(const struct parameter *p, const char *value, const char *why)
{
    nbdkit_error("%s=%s: %s", p->key, value, why);
    return -1;
}

static int
set_string(const struct parameter *p, const char *value)
{
    *(const char **)p->where = value;
    return 0;
}

/* nbdkit_parse_bool would report the value without the parameter. */
static int
parse_bool(const char *value)
{
    static const char words[][6] = { "off", "no", "false", "0", "n", "f",
                                     "on", "yes", "true", "1", "y", "t" };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(value, words[i]) == 0)
            return i >= sizeof words / sizeof words[0] / 2;
    return -1;
}

static int
set_bool(const struct parameter *p, const char *value)
{
    int on = parse_bool(value);

    if (on == -1)
        return refuse(p, value, "use on or off");
    *(bool *)p->where = on;
    return 0;
}

static int
set_size(const struct parameter *p, const char *value)
{
    int64_t nr_bytes = nbdkit_parse_size(value);

    if (nr_bytes == -1)
        return refuse(p, value, "use a size, as 64M");
    *(uint64_t *)p->where = nr_bytes;
    return 0;
}

static int
set_size_of_image(const struct parameter *p, const char *value)
{
    if (set_size(p, value) == -1)
        return -1;
    return *(uint64_t *)p->where > 0
           ? 0 : refuse(p, value, "an image is not empty");
}

static int
set_seconds(const struct parameter *p, const char *value)
{
    unsigned seconds;

    if (nbdkit_parse_unsigned(p->key, value, &seconds) == -1)
        return -1;
    if (seconds == 0 || seconds > 24 * 60 * 60)
        return refuse(p, value, "specify 1 to 86400 seconds");
    *(unsigned *)p->where = seconds * 1000;
    return 0;
}

static int
set_sandbox(const struct parameter *p, const char *value)
{
    int on = parse_bool(value);

    if (on == -1)
        return refuse(p, value, "use on or off");
    *(enum sandbox *)p->where = on ? SANDBOX_ON : SANDBOX_OFF;
    return 0;
}

/* Takes over path, NULL after an error. */
static int
store_path(const char **where, char *path)
{
    *where = path ? nbdkit_strdup_intern(path) : NULL;
    free(path);
    return *where ? 0 : -1;
}

/* nbdkit changes directory later, so make paths absolute now. */
static int
store_absolute(const char **where, const char *value)
{
    return store_path(where, strstr(value, "://")
                             ? strdup(value) : nbdkit_absolute_path(value));
}

/* The directory that value names now; it stays the one that is meant. */
static int
open_dir(const struct parameter *p, const char *value)
{
    int fd = open(value, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd == -1 ? refuse(p, value, strerror(errno)) : fd;
}

static int
set_path(const struct parameter *p, const char *value)
{
    if (!value[0])
        return refuse(p, value, "the file name is empty");
    return store_absolute(p->where, value);
}

static int
set_dir(const struct parameter *p, const char *value)
{
    config.dir_fd = open_dir(p, value);
    return config.dir_fd == -1 ? -1
                               : store_path(p->where, realpath(value, NULL));
}

/* The engine opens it by the descriptor, if there is /proc. */
static int
store_allowed_dir(const struct parameter *p, const char **where,
                  const char *value)
{
    int fd = open_dir(p, value);

    if (fd == -1)
        return -1;
    *where = nbdkit_printf_intern("/proc/self/fd/%d", fd);
    if (*where && access(*where, F_OK) == 0)
        return 0;
    close(fd);
    return store_absolute(where, value);
}

static int
set_allow(const struct parameter *p, const char *value)
{
    const char ***dirs = p->where;
    const char **more = realloc(*dirs, (config.nr_allow + 1) * sizeof *more);

    if (!more)
        return refuse(p, value, "out of memory");
    *dirs = more;
    more += config.nr_allow++;
    return strstr(value, "://") ? store_absolute(more, value)
                                : store_allowed_dir(p, more, value);
}

/* What is not for this user is none of the server's. */
static int
take_always_allowed(void)
{
    const struct parameter p = { "allow", set_allow, &config.allow, false };
    const char *text = secure_getenv("QCOW2_ALLOW");
    struct qcow2_allow_list list = { .nr = 0 };
    struct qcow2_error err;
    int r = 0;

    if (text && qcow2_allow_list_add(&list, text, &err) == -1)
        report_error("QCOW2_ALLOW: ignored: ", &err);
    if (qcow2_allow_list_read(&list, QCOW2_ALLOW_FILE, &err) == -1)
        report_error("ignored: ", &err);
    for (size_t i = 0; r == 0 && i < list.nr; i++)
        if (list.names[i][0] != '/' || access(list.names[i], R_OK) == 0)
            r = set_allow(&p, list.names[i]);
    qcow2_allow_list_free(&list);
    return r;
}

static int
set_fd(const struct parameter *p, const char *value)
{
    int *fd = p->where;

    if (nbdkit_parse_int("fd", value, fd) == -1)
        return -1;
    if (*fd <= STDERR_FILENO)
        return refuse(p, value, "use a descriptor above 2");
    config.file = nbdkit_printf_intern("/dev/fd/%d", *fd);
    return config.file ? 0 : -1;
}

static int
set_backing(const struct parameter *p, const char *value)
{
    config.backing_none = strcmp(value, "none") == 0;
    return config.backing_none ? 0 : set_path(p, value);
}

static int
set_format(const struct parameter *p, const char *value)
{
    if (!qcow2_format_find(value, p->where))
        return refuse(p, value, "use raw, qcow2 or qcow");
    return 0;
}

static int
set_detect_zeroes(const struct parameter *p, const char *value)
{
    bool unmap = strcmp(value, "unmap") == 0;
    int on = unmap ? 1 : parse_bool(value);

    if (on == -1)
        return refuse(p, value, "use off, on or unmap");
    *(enum qcow2_detect_zeroes *)p->where =
        unmap ? QCOW2_DETECT_ZEROES_UNMAP
        : on  ? QCOW2_DETECT_ZEROES_ON
              : QCOW2_DETECT_ZEROES_OFF;
    return 0;
}

static int
set_cache(const struct parameter *p, const char *value)
{
    static const struct {
        const char *name;
        enum qcow2_cache cache;
    } modes[] = {
        { "writeback", QCOW2_CACHE_WRITEBACK },
        { "default", QCOW2_CACHE_WRITEBACK }, /* as nbdkit's file plugin */
        { "writethrough", QCOW2_CACHE_WRITETHROUGH },
        { "none", QCOW2_CACHE_NONE },
        { "directsync", QCOW2_CACHE_DIRECTSYNC },
        { "unsafe", QCOW2_CACHE_UNSAFE },
    };

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(value, modes[i].name) == 0) {
            *(enum qcow2_cache *)p->where = modes[i].cache;
            return 0;
        }
    return refuse(p, value, "use writeback, none, writethrough, directsync or "
                  "unsafe");
}

static const struct parameter parameters[] = {
    { "file", set_path, &config.file, true },
    { "dir", set_dir, &config.dir, true },
    { "fd", set_fd, &config.fd, true },
    { "snapshot", set_string, &config.snapshot, false },
    { "backing", set_backing, &config.backing, false },
    { "backing-format", set_format, &config.backing_format, false },
    { "allow", set_allow, &config.allow, false },
    { "discard", set_bool, &config.discard, false },
    { "detect-zeroes", set_detect_zeroes, &config.detect_zeroes, false },
    { "cache", set_cache, &config.cache, false },
    { "cache-size", set_size, &config.cache_bytes, false },
    { "image-offset", set_size, &config.window.offset, false },
    { "image-size", set_size_of_image, &config.window.size, false },
    { "lock", set_bool, &config.lock, false },
    { "nbd-timeout", set_seconds, &config.nbd_timeout_ms, false },
    { "sandbox", set_sandbox, &config.sandbox, false },
};

int
config_set(const char *key, const char *value)
{
    const struct parameter *p = parameters;
    const struct parameter *end = p + sizeof parameters / sizeof *p;

    while (p < end && strcmp(p->key, key) != 0)
        p++;
    if (p == end) {
        nbdkit_error("unknown parameter '%s'", key);
        return -1;
    }
    if (p->is_source && (config.file || config.dir)) {
        nbdkit_error("give only one of file=, dir= and fd=, and only once");
        return -1;
    }
    return p->set(p, value);
}

int
config_complete(void)
{
    if (!config.file && !config.dir) {
        nbdkit_error("say what to serve: file=IMAGE, dir=DIRECTORY or fd=FD");
        return -1;
    }
    if (config.dir
        && (config.snapshot || config.backing || config.backing_none
            || config.backing_format != QCOW2_FORMAT_AUTO
            || config.window.offset > 0 || config.window.size > 0)) {
        nbdkit_error("dir= excludes snapshot=, backing=, backing-format=, "
                     "image-offset= and image-size=");
        return -1;
    }
    return take_always_allowed() == 0 ? sandbox_check() : -1;
}
