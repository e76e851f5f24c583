/* SPDX-License-Identifier: BSD-3-Clause */
/* exports.c: export names, and what they mean.
 *
 *   ""         the disk (or snapshot=) of file= or fd=
 *   @SNAPSHOT  an internal snapshot of it: a name or id, id:ID or name:NAME
 *   FILE, FILE@SNAPSHOT  the same in the directory of dir=
 *
 * Names come from clients and from images: neither is trusted.
 */
#include <config.h>

#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "plugin.h"

bool
exports_is_printable(const char *name)
{
    static const uint32_t least[] = { 0x20, 0xa0, 0x800, 0x10000 };
    const unsigned char *s = (const unsigned char *)name;
    unsigned nr_more;
    uint32_t c;

    while ((c = *s++)) {
        nr_more = c < 0xc0 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        if ((c >= 0x7f && c < 0xc0) || c >= 0xf8)
            return false;
        c &= nr_more ? 0x3f >> nr_more : 0x7f;
        for (unsigned i = 0; i < nr_more; i++, s++) {
            if ((*s & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*s & 0x3f);
        }
        if (c < least[nr_more] || c > 0x10ffff || c >> 11 == 0x1b)
            return false;
    }
    return name[0] != '\0';
}

/* Symbolic links mean what they lead to, which must be in the directory
 * or below it.
 */
bool
exports_find_file(const char *name, size_t nr_bytes, struct export *out)
{
    char file[NAME_MAX + 1];
    struct qcow2_error err;
    const char *real;

    *out = (struct export){ .path = NULL };
    if (nr_bytes == 0 || nr_bytes > NAME_MAX || name[0] == '.'
        || memchr(name, '/', nr_bytes))
        return false;
    memcpy(file, name, nr_bytes);
    file[nr_bytes] = '\0';
    out->file = qcow2_find_file_in(config.dir_fd, file, &err);
    if (!out->file)
        return false;
    if (asprintf(&out->path, "%s/%s", config.dir, file) == -1) {
        out->path = NULL;
        exports_free(out);
        return false;
    }
    real = qcow2_file_get_id(out->file).name;
    out->format = fnmatch("*.qcow2", real, 0) == 0 ? QCOW2_FORMAT_QCOW2
                  : fnmatch("*.raw", real, 0) == 0 ? QCOW2_FORMAT_RAW
                                                   : QCOW2_FORMAT_AUTO;
    return true;
}

bool
exports_is_file(const char *name)
{
    struct export file;
    bool found = exports_find_file(name, strlen(name), &file);

    exports_free(&file);
    return found;
}

/* A word for a snapshot begins so in export names and snapshot=; the engine has
 * longer words for the same. */
static const struct {
    const char *ours, *engines;
} prefixes[] = {
    { "id:", "snapshot.id=" },
    { "name:", "snapshot.name=" },
};

bool
exports_has_prefix(const char *word)
{
    for (int i = 0; i < 2; i++)
        if (strncmp(word, prefixes[i].ours, strlen(prefixes[i].ours)) == 0
            || strncmp(word, prefixes[i].engines,
                       strlen(prefixes[i].engines)) == 0)
            return true;
    return false;
}

/* A word of ours as the engine has it; NULL: no memory. */
static char *
engine_word(const char *word)
{
    char *out;

    for (int i = 0; i < 2; i++) {
        size_t len = strlen(prefixes[i].ours);

        if (strncmp(word, prefixes[i].ours, len) == 0)
            return asprintf(&out, "%s%s", prefixes[i].engines, word + len)
                   == -1 ? NULL : out;
    }
    return strdup(word);
}

/* A file of the whole name wins, then one of the longest part before '@'.
 * File names are short, so few parts need to be tried however long the name
 * is.
 */
static bool
find_in_dir(const char *name, struct export *out)
{
    size_t nr_bytes = strlen(name), part = nr_bytes;

    if (part > NAME_MAX)
        part = NAME_MAX;
    for (; part > 0; part--)
        if ((part == nr_bytes || name[part] == '@')
            && exports_find_file(name, part, out)) {
            if (part < nr_bytes)
                out->snapshot = engine_word(name + part + 1);
            if (part == nr_bytes || out->snapshot)
                return true;
            exports_free(out);
        }
    return false;
}

/* The export of file= or fd=; snapshot may be NULL. */
static int
use_file(const char *snapshot, struct export *out)
{
    struct qcow2_error err;

    out->format = QCOW2_FORMAT_AUTO; /* of any version, but never raw */
    out->path = strdup(config.file);
    out->snapshot = snapshot ? engine_word(snapshot) : NULL;
    if (!out->path || (snapshot && !out->snapshot)) {
        nbdkit_error("%s: %m", config.file);
        exports_free(out);
        return -1;
    }
    if (config.fd >= 0)
        return 0;
    out->file = qcow2_find_file(config.file, &err);
    if (out->file)
        return 0;
    report_error("", &err);
    exports_free(out);
    return -1;
}

/* For the log, after find_in_dir has found nothing. */
static void
report_not_in_dir(const char *name)
{
    const char *shown = exports_is_printable(name) ? name : "(unprintable)";
    struct stat link, st;

    if (name[0] == '\0')
        nbdkit_error("there is no default export with dir=: name a file");
    else if (!strchr(name, '/')
             && fstatat(config.dir_fd, name, &link, AT_SYMLINK_NOFOLLOW) == 0
             && S_ISLNK(link.st_mode))
        nbdkit_error("no export '%s': it is a symbolic link that leads %s",
                     shown, fstatat(config.dir_fd, name, &st, 0) == 0
                     ? "out of dir=, or to what is no file" : "to nothing");
    else
        nbdkit_error("no export '%s': there are FILE and FILE@SNAPSHOT, of "
                     "files in dir=", shown);
}

int
exports_find(const char *name, struct export *out)
{
    *out = (struct export){ .path = NULL };
    if (config.dir && find_in_dir(name, out))
        return 0;
    if (!config.dir && (name[0] == '\0' || name[0] == '@'))
        return use_file(name[0] == '@' ? name + 1 : config.snapshot, out);
    if (config.dir)
        report_not_in_dir(name);
    else
        nbdkit_error("no export '%s': there are '' and '@SNAPSHOT'",
                     exports_is_printable(name) ? name : "(unprintable)");
    return -1;
}

void
exports_free(struct export *export)
{
    free(export->path);
    free(export->snapshot);
    qcow2_file_free(export->file);
    *export = (struct export){ .path = NULL };
}

const char *
exports_describe_disk(char text[EXPORT_TEXT_SIZE], enum qcow2_format format,
                      uint64_t size)
{
    snprintf(text, EXPORT_TEXT_SIZE, "%s image, %ju bytes",
             qcow2_format_name(format), (uintmax_t)size);
    return text;
}

const char *
exports_describe_snapshot(char text[EXPORT_TEXT_SIZE],
                          const struct qcow2_snapshot *s)
{
    struct tm tm;
    char when[32];

    gmtime_r(&(time_t){ s->date_sec }, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(text, EXPORT_TEXT_SIZE, "snapshot %s of %s UTC, %ju bytes",
             strlen(s->id) < EXPORT_TEXT_SIZE / 2 && exports_is_printable(s->id)
             ? s->id : "", when, (uintmax_t)s->disk_size);
    return text;
}

const char *
exports_describe(char text[EXPORT_TEXT_SIZE], const struct qcow2_disk *disk,
                 const char *snapshot)
{
    struct qcow2_snapshot_list list;
    const char *described = NULL;
    long i;

    if (!snapshot)
        return exports_describe_disk(text, qcow2_get_format(disk),
                                     qcow2_get_size(disk));
    if (qcow2_get_snapshots(disk, &list, NULL) == -1)
        return NULL;
    i = qcow2_find_snapshot(&list, snapshot, NULL);
    if (i >= 0)
        described = exports_describe_snapshot(text, &list.snapshots[i]);
    qcow2_snapshot_list_free(&list);
    return described;
}
