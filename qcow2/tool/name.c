/* SPDX-License-Identifier: BSD-3-Clause */
/* name.c: names of images on the command line; see name.h. */
#include "name.h"

#include <string.h>

#include "text.h"

/* What the engine takes as URIs of NBD servers. */
static const char *const nbd_schemes[] = {
    "nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nbds+vsock",
    "nbd+ssh",
};

/* Other protocols and drivers that QEMU knows by the start of a name. */
static const char *const protocols[] = {
    "blkdebug", "blkio", "blklogwrites", "blkreplay", "blkverify", "fat",
    "ftp", "ftps", "gluster", "gluster+rdma", "gluster+tcp", "gluster+unix",
    "host_cdrom", "http", "https", "io_uring", "iscsi", "iser", "json",
    "nbd", "nfs", "null-aio", "null-co", "nvme", "nvme-io_uring", "quorum",
    "rbd", "replication", "sheepdog", "sheepdog+tcp", "sheepdog+unix", "ssh",
    "tftp", "virtio-blk-vfio-pci", "virtio-blk-vhost-user",
    "virtio-blk-vhost-vdpa", "vxhs",
};

/* --- Strings that last ---------------------------------------------------- */

static char **kept;
static size_t nr_kept;

const char *
name_keep(char *text)
{
    check_memory(text);
    kept = check_memory(realloc(kept, (nr_kept + 1) * sizeof *kept));
    kept[nr_kept++] = text;
    return text;
}

void
name_error(const struct args *a, const char *text, const char *fmt, ...)
{
    CLEANUP_FREE char *name = text_escape(text), *why = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&why, fmt, ap) == -1)
        check_memory(NULL);
    va_end(ap);
    report("%s: %s", name, why);
    exit(a->verb->cannot_open ? a->verb->cannot_open : EXIT_FAILURE);
}

/* --- NBD exports ---------------------------------------------------------- */

/* Writes s with all but what a part of a URI may have as %XX. */
static void
put_part(FILE *out, const char *s, const char *also)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";

    for (; *s; s++)
        fprintf(out, strchr(plain, *s) || strchr(also, *s) ? "%c" : "%%%02X",
                (unsigned char)*s);
}

static void
put_server(FILE *out, const struct name_export *e)
{
    bool is_ip6 = strchr(e->host, ':');

    fprintf(out, "%s", is_ip6 ? "[" : "");
    put_part(out, e->host, is_ip6 ? ":" : "");
    fprintf(out, "%s", is_ip6 ? "]" : "");
    if (e->port)
        fprintf(out, ":%s", e->port);
}

const char *
name_of_export(const struct args *a, const char *text,
               const struct name_export *e)
{
    char *uri = NULL, *end;
    size_t len;
    FILE *out;

    if (e->socket ? !*e->socket : !*e->host)
        name_error(a, text, "the %s of the NBD server is missing",
                   e->socket ? "socket" : "host");
    if (!e->socket && e->port) {
        unsigned long port = strtoul(e->port, &end, 10);

        if (*e->port < '0' || *e->port > '9' || *end || port < 1
            || port > 65535)
            name_error(a, text, "the port must be a number from 1 to 65535");
    }
    out = check_memory(open_memstream(&uri, &len));
    fprintf(out, "nbd%s://", e->socket ? "+unix" : "");
    if (!e->socket)
        put_server(out, e);
    if (e->socket || e->export)
        fputc('/', out);
    if (e->export)
        put_part(out, e->export, "");
    if (e->socket) {
        fputs("?socket=", out);
        put_part(out, e->socket, "/");
    }
    if (fclose(out) != 0)
        check_memory(NULL);
    return name_keep(uri);
}

/* "nbd:unix:PATH[:exportname=N]" or "nbd:HOST:PORT[:exportname=N]", of which
 * rest is what follows "nbd:". */
static const char *
take_nbd(const struct args *a, const char *text, const char *rest)
{
    static const char export_name[] = ":exportname=";
    CLEANUP_FREE char *server = check_memory(strdup(rest));
    struct name_export e = { .socket = NULL };
    char *export = strstr(server, export_name), *colon;

    if (export) {
        *export = '\0';
        e.export = export + strlen(export_name);
    }
    if (strncmp(server, "unix:", 5) == 0) {
        e.socket = server + 5;
        return name_of_export(a, text, &e);
    }
    colon = strrchr(server, ':');
    if (!colon || strchr(colon, ']'))
        name_error(a, text, "write nbd:HOST:PORT or nbd:unix:PATH, and "
                   ":exportname=NAME behind it if the export has a name");
    *colon = '\0';
    e.port = colon + 1;
    e.host = server;
    if (server[0] == '[' && colon > server && colon[-1] == ']') {
        colon[-1] = '\0';
        e.host = server + 1;
    }
    return name_of_export(a, text, &e);
}

/* --- Names ---------------------------------------------------------------- */

const char *
name_of_path(const struct args *a, const char *text, const char *path)
{
    char *kept_path;

    if (!*path)
        name_error(a, text, "the file name is empty");
    /* What looks like a protocol behind "file:" is none. */
    if (path[strcspn(path, ":/")] != ':')
        return name_keep(strdup(path));
    if (asprintf(&kept_path, "./%s", path) == -1)
        check_memory(NULL);
    return name_keep(kept_path);
}

static bool
is_one_of(const char *const *words, size_t nr, const char *s, size_t len)
{
    for (size_t i = 0; i < nr; i++)
        if (strlen(words[i]) == len && strncmp(words[i], s, len) == 0)
            return true;
    return false;
}

const char *
name_of_plain(const struct args *a, const char *text)
{
    size_t len = strcspn(text, ":/");
    const char *rest = text + len + 1;
    bool is_uri = text[len] == ':' && strncmp(rest, "//", 2) == 0;
    char *uri;

    if (!*text) {
        report("the file name is empty");
        exit(a->verb->cannot_open ? a->verb->cannot_open : EXIT_FAILURE);
    }
    if (text[len] != ':')
        return name_of_path(a, text, text);
    if (strncmp(text, "file:", 5) == 0
        || strncmp(text, "host_device:", 12) == 0)
        return name_of_path(a, text, rest);
    if (is_uri && is_one_of(nbd_schemes,
                            sizeof nbd_schemes / sizeof nbd_schemes[0], text,
                            len))
        return name_keep(strdup(text));
    if (is_uri && strncmp(text, "nbd+tcp:", 8) == 0) {
        if (asprintf(&uri, "nbd:%s", rest) == -1)
            check_memory(NULL);
        return name_keep(uri);
    }
    if (strncmp(text, "nbd:", 4) == 0)
        return take_nbd(a, text, rest);
    if (is_uri || is_one_of(protocols, sizeof protocols / sizeof protocols[0],
                            text, len)) {
        CLEANUP_FREE char *name = text_escape(text);

        name_error(a, text, "the protocol '%.*s' is not supported, only "
                   "files and NBD are; ./%s names a local file", (int)len,
                   text, name);
    }
    return name_keep(strdup(text));
}

bool
name_is_json(const char *text)
{
    return strncmp(text, "json:", 5) == 0;
}

struct name
name_parse(const struct args *a, const char *text, bool image_opts)
{
    if (image_opts || name_is_json(text))
        return name_of_options(a, text, !image_opts);
    return (struct name){ .path = name_of_plain(a, text) };
}

void
name_settle_format(const struct args *a, const char *text,
                   enum qcow2_format says, enum qcow2_format *format)
{
    if (says == QCOW2_FORMAT_AUTO)
        return;
    if (*format != QCOW2_FORMAT_AUTO && *format != says)
        name_error(a, text, "its 'driver' is not the format that is given "
                   "for it");
    *format = says;
}

const char *
name_path(const struct args *a, const char *text, enum qcow2_format *format)
{
    struct name n = name_parse(a, text, false);

    if (n.backing || n.backing_none)
        name_error(a, text, "'backing' has no meaning here");
    if (n.settings.window.offset > 0 || n.settings.window.size > 0)
        name_error(a, text, "'offset' and 'size' have no meaning here");
    if (n.settings.read_only == NAME_ON)
        name_error(a, text, "'read-only' has no meaning here");
    if (format)
        name_settle_format(a, text, n.format, format);
    return n.path;
}

void
name_apply(const struct name_settings *s, struct qcow2_options *o)
{
    bool direct = o->cache == QCOW2_CACHE_NONE
                  || o->cache == QCOW2_CACHE_DIRECTSYNC;
    bool sync = o->cache == QCOW2_CACHE_WRITETHROUGH
                || o->cache == QCOW2_CACHE_DIRECTSYNC;
    bool unsafe = o->cache == QCOW2_CACHE_UNSAFE;

    o->window = s->window;
    o->readonly = s->read_only == NAME_ON;
    if (s->discard != NAME_UNSAID)
        o->no_discard = s->discard == NAME_OFF;
    if (s->has_detect_zeroes)
        o->detect_zeroes = s->detect_zeroes;
    if (s->direct != NAME_UNSAID)
        direct = s->direct == NAME_ON;
    if (s->no_flush != NAME_UNSAID)
        unsafe = s->no_flush == NAME_ON;
    /* Without flushes and direct is not a mode of ours: with them it is. */
    o->cache = direct   ? sync ? QCOW2_CACHE_DIRECTSYNC : QCOW2_CACHE_NONE
               : unsafe ? QCOW2_CACHE_UNSAFE
               : sync   ? QCOW2_CACHE_WRITETHROUGH
                        : QCOW2_CACHE_WRITEBACK;
}
