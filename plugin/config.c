/* SPDX-License-Identifier: BSD-3-Clause */
/* config.c: the parameters of the plugin. */
#include <config.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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
    "cache-size=SIZE            Bound of cached metadata (default 32M).\n"
    "lock=on|off                Lock out other processes (default on).\n"
    "nbd-timeout=SECONDS        How long NBD servers may take (default 30).\n"
    "sandbox=on|off             Restrict the server to what it needs (default\n"
    "                           as far as the system can do that).";

/* The setters store value in what the table below points to. */
static int
set_string(void *where, const char *value)
{
    *(const char **)where = value;
    return 0;
}

static int
set_bool(void *where, const char *value)
{
    int on = nbdkit_parse_bool(value);

    *(bool *)where = on == 1;
    return on == -1 ? -1 : 0;
}

static int
set_size(void *where, const char *value)
{
    int64_t nr_bytes = nbdkit_parse_size(value);

    *(uint64_t *)where = nr_bytes;
    return nr_bytes == -1 ? -1 : 0;
}

static int
set_seconds(void *where, const char *value)
{
    unsigned seconds;

    if (nbdkit_parse_unsigned("nbd-timeout", value, &seconds) == -1)
        return -1;
    if (seconds == 0 || seconds > 24 * 60 * 60) {
        nbdkit_error("nbd-timeout=%s: specify 1 to 86400 seconds", value);
        return -1;
    }
    *(unsigned *)where = seconds * 1000;
    return 0;
}

static int
set_sandbox(void *where, const char *value)
{
    bool on = false;
    int r = set_bool(&on, value);

    *(enum sandbox *)where = on ? SANDBOX_ON : SANDBOX_OFF;
    return r;
}

/* Takes over path, NULL after an error. */
static int
set_resolved(void *where, char *path)
{
    const char *copy = path ? nbdkit_strdup_intern(path) : NULL;

    free(path);
    return copy ? set_string(where, copy) : -1;
}

/* nbdkit changes directory later, so make paths absolute now. */
static int
set_path(void *where, const char *value)
{
    return set_resolved(where, strstr(value, "://")
                               ? strdup(value) : nbdkit_absolute_path(value));
}

/* The directory that value names now; it stays the one that is meant. */
static int
open_dir(const char *value)
{
    int fd = open(value, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd == -1)
        nbdkit_error("'%s' is not a directory", value);
    return fd;
}

static int
set_dir(void *where, const char *value)
{
    char *real;

    config.dir_fd = open_dir(value);
    if (config.dir_fd == -1)
        return -1;
    real = realpath(value, NULL);
    if (!real)
        nbdkit_error("'%s': %m", value);
    return set_resolved(where, real);
}

/* The engine opens it by the descriptor, if there is /proc. */
static int
set_allowed_dir(void *where, const char *value)
{
    int fd = open_dir(value);
    const char *name;

    if (fd == -1)
        return -1;
    name = nbdkit_printf_intern("/proc/self/fd/%d", fd);
    if (name && access(name, F_OK) == 0)
        return set_string(where, name);
    close(fd);
    return name ? set_path(where, value) : -1;
}

static int
set_allow(void *where, const char *value)
{
    const char ***dirs = where;
    const char **more = realloc(*dirs, (config.nr_allow + 1) * sizeof *more);

    if (!more)
        return nbdkit_error("allow=%s: %m", value), -1;
    *dirs = more;
    more += config.nr_allow++;
    return strstr(value, "://") ? set_path(more, value)
                                : set_allowed_dir(more, value);
}

static int
set_fd(void *where, const char *value)
{
    int *fd = where;

    if (nbdkit_parse_int("fd", value, fd) == -1)
        return -1;
    if (*fd <= STDERR_FILENO) {
        nbdkit_error("fd=%s: pass a descriptor above %d", value, STDERR_FILENO);
        return -1;
    }
    config.file = nbdkit_printf_intern("/dev/fd/%d", *fd);
    return config.file ? 0 : -1;
}

static int
set_backing(void *where, const char *value)
{
    config.backing_none = strcmp(value, "none") == 0;
    return config.backing_none ? 0 : set_path(where, value);
}

static int
set_format(void *where, const char *value)
{
    bool is_raw = strcmp(value, "raw") == 0;

    *(enum qcow2_format *)where =
        is_raw ? QCOW2_FORMAT_RAW : QCOW2_FORMAT_QCOW2;
    if (is_raw || strcmp(value, "qcow2") == 0)
        return 0;
    nbdkit_error("backing-format=%s: say raw or qcow2", value);
    return -1;
}

static int
set_detect_zeroes(void *where, const char *value)
{
    bool unmap = strcmp(value, "unmap") == 0, on = false;
    int r = unmap ? 0 : set_bool(&on, value);

    *(enum qcow2_detect_zeroes *)where =
        unmap ? QCOW2_DETECT_ZEROES_UNMAP
        : on  ? QCOW2_DETECT_ZEROES_ON
              : QCOW2_DETECT_ZEROES_OFF;
    return r;
}

static const struct parameter {
    const char *key;
    int (*set)(void *where, const char *value);
    void *where;
    bool is_source; /* says what to serve */
} parameters[] = {
    { "file", set_path, &config.file, true },
    { "dir", set_dir, &config.dir, true },
    { "fd", set_fd, &config.fd, true },
    { "snapshot", set_string, &config.snapshot, false },
    { "backing", set_backing, &config.backing, false },
    { "backing-format", set_format, &config.backing_format, false },
    { "allow", set_allow, &config.allow, false },
    { "discard", set_bool, &config.discard, false },
    { "detect-zeroes", set_detect_zeroes, &config.detect_zeroes, false },
    { "cache-size", set_size, &config.cache_bytes, false },
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
    return p->set(p->where, value);
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
            || config.backing_format != QCOW2_FORMAT_AUTO)) {
        nbdkit_error("dir= excludes snapshot=, backing=, backing-format=");
        return -1;
    }
    return sandbox_check();
}
