/* SPDX-License-Identifier: BSD-3-Clause */
/* exports.c: export names, and what they stand for.
 *
 *   ""         the disk (or snapshot=) of file= or fd=
 *   @SNAPSHOT  an internal snapshot of it, by name or id
 *   FILE, FILE@SNAPSHOT  the same in the directory of dir=
 *
 * Names come from clients and from images: neither is trusted.
 */
#include <config.h>

#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "plugin.h"

#define MAX_LISTED_SNAPSHOTS 1000 /* of an image; bounds the time it takes */

/* Can this be an export's name, and be shown to people? It is UTF-8 without
 * control characters then.
 */
static bool
is_printable(const char *name)
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

/* Is there a file of that name to serve? Symbolic links stand for what they
 * lead to, which must be in the directory or below it.
 */
static bool
find_file(const char *name, struct export *out)
{
    size_t nr_dir = strlen(config.dir);
    struct stat st;
    char *real;
    bool ok;

    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/'))
        return false;
    out->path = nbdkit_printf_intern("%s/%s", config.dir, name);
    out->snapshot = NULL;
    real = out->path ? realpath(out->path, NULL) : NULL;
    if (!real)
        return false;
    out->format = fnmatch("*.qcow2", real, 0) == 0 ? QCOW2_FORMAT_QCOW2
                  : fnmatch("*.raw", real, 0) == 0 ? QCOW2_FORMAT_RAW
                                                   : QCOW2_FORMAT_AUTO;
    ok = strncmp(real, config.dir, nr_dir) == 0
         && (nr_dir == 1 || real[nr_dir] == '/') && stat(real, &st) == 0
         && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
    free(real);
    return ok;
}

/* A file of the whole name wins, then one of the longest part before '@'. */
static bool
find_in_dir(const char *name, struct export *out)
{
    const char *at = name + strlen(name), *file;

    for (; at; at = memrchr(name, '@', at - name)) {
        file = nbdkit_strndup_intern(name, at - name);
        if (file && find_file(file, out)) {
            out->snapshot = *at ? at + 1 : NULL;
            return true;
        }
    }
    return false;
}

int
exports_find(const char *name, struct export *out)
{
    if (config.dir && find_in_dir(name, out))
        return 0;
    if (!config.dir && (name[0] == '\0' || name[0] == '@')) {
        *out = (struct export){
            .path = config.file,
            .format = QCOW2_FORMAT_QCOW2,
            .snapshot = name[0] == '@' ? name + 1 : config.snapshot,
        };
        return 0;
    }
    nbdkit_error("no export '%s': there are %s",
                 is_printable(name) ? name : "(unprintable)",
                 config.dir ? "FILE and FILE@SNAPSHOT, of files in dir="
                            : "'' and '@SNAPSHOT'");
    return -1;
}

/* The snapshot that a client gets by this word, if it gets exactly one. */
static bool
find_snapshot(const struct qcow2_disk *disk, const char *word,
              struct qcow2_snapshot *out)
{
    struct qcow2_snapshot s;
    size_t nr_found = 0;

    for (int by_id = 0; by_id <= 1 && nr_found == 0; by_id++)
        for (size_t i = 0; i < qcow2_get_nr_snapshots(disk); i++) {
            qcow2_get_snapshot(disk, i, &s);
            if (strcmp(by_id ? s.id : s.name, word) == 0) {
                *out = s;
                nr_found++;
            }
        }
    return nr_found == 1;
}

/* Does a client get this snapshot by the word? */
static bool
means(const char *word, const struct qcow2_disk *disk,
      const struct qcow2_snapshot *s)
{
    struct qcow2_snapshot found;

    return is_printable(word) && find_snapshot(disk, word, &found)
           && strcmp(found.id, s->id) == 0;
}

const char *
exports_describe(const struct qcow2_disk *disk, const char *snapshot)
{
    struct qcow2_snapshot s;
    struct tm tm;
    char when[32];

    if (!snapshot)
        return nbdkit_printf_intern(
            "%s image, %ju bytes",
            qcow2_get_format(disk) == QCOW2_FORMAT_RAW ? "raw" : "qcow2",
            (uintmax_t)qcow2_get_size(disk));
    if (!find_snapshot(disk, snapshot, &s))
        return NULL;
    gmtime_r(&(time_t){ s.date_sec }, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    return nbdkit_printf_intern("snapshot %s of %s UTC, %ju bytes",
                                is_printable(s.id) ? s.id : "", when,
                                (uintmax_t)s.disk_size);
}

/* Lists an image without disturbing anybody who uses it: takes no locks,
 * writes nothing, and does not care for backing files. What cannot be
 * listed is left out: it must not hide the rest.
 */
static void
list_image(struct nbdkit_exports *exports, const char *name,
           const struct export *export)
{
    struct qcow2_options options;
    struct qcow2_error err;
    struct qcow2_disk *disk;
    struct qcow2_snapshot s;
    const char *word, *full;
    struct export shadow;

    images_options(export, &options);
    options.readonly = options.no_lock = options.backing_none = true;
    options.backing = NULL;
    options.backing_format = QCOW2_FORMAT_AUTO;
    disk = qcow2_open(export->path, &options, &err);
    if (!disk) {
        nbdkit_debug("not listed: %s", err.text);
        return;
    }
    nbdkit_add_export(exports, name, exports_describe(disk, export->snapshot));
    for (size_t i = 0;
         i < qcow2_get_nr_snapshots(disk) && i < MAX_LISTED_SNAPSHOTS; i++) {
        qcow2_get_snapshot(disk, i, &s);
        word = means(s.name, disk, &s) ? s.name
               : means(s.id, disk, &s) ? s.id
                                       : NULL;
        full = word ? nbdkit_printf_intern("%s@%s", name, word) : NULL;
        if (full && !(config.dir && find_file(full, &shadow)))
            nbdkit_add_export(exports, full, exports_describe(disk, word));
    }
    qcow2_close(disk, NULL);
}

int
exports_list(int readonly, int is_tls, struct nbdkit_exports *exports)
{
    struct dirent **entries;
    struct export export;
    const char *name;
    int nr;

    (void)readonly;
    (void)is_tls;
    if (!config.dir && exports_find("", &export) == 0) {
        list_image(exports, "", &export);
        return 0;
    }
    nr = scandir(config.dir, &entries, NULL, alphasort);
    if (nr == -1) {
        nbdkit_error("%s: cannot list the directory: %m", config.dir);
        return -1;
    }
    for (int i = 0; i < nr; i++) {
        name = entries[i]->d_name;
        if (is_printable(name) && find_file(name, &export))
            list_image(exports, name, &export);
        free(entries[i]);
    }
    free(entries);
    return 0;
}
