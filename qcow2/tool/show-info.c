/* SPDX-License-Identifier: BSD-3-Clause */
/* show-info.c: what an image says of itself, as text and as JSON. */
#include <inttypes.h>
#include <string.h>

#include "json.h"
#include "show.h"
#include "tool.h"

static const char *
yes_no(bool b)
{
    return b ? "yes" : "no";
}

static const char *
true_false(bool b)
{
    return b ? "true" : "false";
}

/* "label: name", on a line of its own. */
static void
show_name(const char *label, const char *name)
{
    CLEANUP_FREE char *text = text_escape(name);

    printf("%s: %s\n", label, text);
}

static bool
has_unknown_feature(const struct qcow2_info *info)
{
    for (size_t i = 0; i < info->nr_features; i++)
        if (!info->features[i].known)
            return true;
    return false;
}

static const char *
kind_name(enum qcow2_feature_kind kind)
{
    switch (kind) {
    case QCOW2_INCOMPATIBLE:
        return "incompatible";
    case QCOW2_COMPATIBLE:
        return "compatible";
    case QCOW2_AUTOCLEAR:
        return "autoclear";
    }
    return "";
}

/* --- Text ---------------------------------------------------------------- */

static void
show_bitmaps(const struct qcow2_info *info)
{
    if (info->nr_bitmaps > 0)
        printf("    bitmaps:\n");
    for (size_t i = 0; i < info->nr_bitmaps; i++) {
        const struct qcow2_info_bitmap *b = &info->bitmaps[i];
        int n = 0;

        printf("        [%zu]:\n            flags:\n", i);
        if (b->in_use)
            printf("                [%d]: in-use\n", n++);
        if (b->automatic)
            printf("                [%d]: auto\n", n++);
        show_name("            name", b->name);
        printf("            granularity: %" PRIu64 "\n", b->granularity);
    }
}

static void
show_format_specific(const struct qcow2_info *info)
{
    printf("Format specific information:\n"
           "    compat: %s\n"
           "    compression type: %s\n",
           info->version == 2 ? "0.10" : "1.1", info->compression);
    if (info->version >= 3)
        printf("    lazy refcounts: %s\n", true_false(info->lazy_refcounts));
    show_bitmaps(info);
    printf("    refcount bits: %u\n", info->refcount_bits);
    if (info->encryption)
        printf("    encrypt:\n        format: %s\n", info->encryption);
    if (info->data_file)
        show_name("    data file", info->data_file);
    if (info->has_data_file)
        printf("    data file raw: %s\n", true_false(info->data_file_raw));
    if (info->version >= 3)
        printf("    corrupt: %s\n    extended l2: %s\n",
               true_false(info->corrupt), true_false(info->extended_l2));
}

static void
show_disk_sizes(const struct qcow2_info *info)
{
    if (info->nr_snapshots > 0)
        printf("Snapshot disk sizes:\n");
    for (size_t i = 0; i < info->nr_snapshots; i++) {
        const struct qcow2_snapshot *s = &info->snapshots[i];
        CLEANUP_FREE char *id = text_escape(s->id);
        CLEANUP_FREE char *name = text_escape(s->name);

        printf("    %s (%s): %s\n", id, name, EXACT_SIZE_TEXT(s->disk_size));
    }
}

static void
show_features(const struct qcow2_info *info)
{
    if (info->nr_features > 0)
        printf("Feature bits:\n");
    for (size_t i = 0; i < info->nr_features; i++) {
        const struct qcow2_info_feature *f = &info->features[i];
        CLEANUP_FREE char *name = text_escape(f->name ? f->name
                                                      : "without a name");

        printf("    %s %u: %s%s\n", kind_name(f->kind), f->bit, name,
               f->known ? "" : " (unknown)");
    }
}

static void
show_verdict(const struct qcow2_info *info)
{
    printf("Verdict:\n"
           "    names a backing file: %s\n"
           "    names a data file: %s\n"
           "    names a file outside its directory: %s\n"
           "    unknown features: %s\n"
           "    dirty: %s\n"
           "    corrupt: %s\n",
           yes_no(info->backing_file), yes_no(info->data_file),
           yes_no(info->backing_outside || info->data_file_outside),
           yes_no(has_unknown_feature(info)), yes_no(info->dirty),
           yes_no(info->corrupt));
    if (info->refusal.errnum) {
        CLEANUP_FREE char *why = text_without_controls(info->refusal.text);

        printf("    can be opened: no: %s\n", why);
    } else {
        printf("    can be opened: yes\n");
    }
}

static void
show_backing(const struct qcow2_info *info)
{
    CLEANUP_FREE char *name = text_escape(info->backing_file);
    CLEANUP_FREE char *full = text_escape(info->full_backing_file);

    if (strcmp(name, full) == 0)
        printf("backing file: %s\n", name);
    else
        printf("backing file: %s (actual path: %s)\n", name, full);
    if (info->backing_format)
        show_name("backing file format", info->backing_format);
}

void
show_info(const struct qcow2_info *info, bool verdict)
{
    bool qcow2 = info->format == QCOW2_FORMAT_QCOW2;

    show_name("image", info->path);
    printf("file format: %s\nvirtual size: %s\ndisk size: %s\n",
           qcow2_format_name(info->format),
           EXACT_SIZE_TEXT(info->virtual_size),
           info->allocated_size == UINT64_MAX
           ? "unavailable" : SIZE_TEXT(info->allocated_size));
    if (info->format == QCOW2_FORMAT_RAW)
        return;
    if (info->encryption)
        printf("encrypted: yes\n");
    printf("cluster_size: %" PRIu32 "\n", info->cluster_size);
    if (info->dirty)
        printf("cleanly shut down: no\n");
    if (info->backing_file)
        show_backing(info);
    show_snapshots(info->snapshots, info->nr_snapshots);
    if (qcow2)
        show_format_specific(info);
    if (!verdict)
        return;
    show_disk_sizes(info);
    show_features(info);
    show_verdict(info);
}

/* --- JSON ---------------------------------------------------------------- */

static json_t *
bitmaps_json(const struct qcow2_info *info)
{
    json_t *array = check_memory(json_array());

    for (size_t i = 0; i < info->nr_bitmaps; i++) {
        const struct qcow2_info_bitmap *b = &info->bitmaps[i];
        json_t *o = check_memory(json_object());
        json_t *flags = check_memory(json_array());

        if (b->in_use)
            json_put(flags, NULL, json_string("in-use"));
        if (b->automatic)
            json_put(flags, NULL, json_string("auto"));
        json_put(o, "flags", flags);
        json_put(o, "name", json_name(b->name));
        json_put(o, "granularity", json_bytes(b->granularity));
        json_put(array, NULL, o);
    }
    return array;
}

static json_t *
specific_json(const struct qcow2_info *info)
{
    json_t *o = check_memory(json_object());
    json_t *data = check_memory(json_object());

    json_put(data, "compat",
             json_string(info->version == 2 ? "0.10" : "1.1"));
    json_put(data, "compression-type", json_string(info->compression));
    json_put(data, "refcount-bits", json_integer(info->refcount_bits));
    if (info->version >= 3) {
        json_put(data, "lazy-refcounts", json_boolean(info->lazy_refcounts));
        json_put(data, "corrupt", json_boolean(info->corrupt));
        json_put(data, "extended-l2", json_boolean(info->extended_l2));
    }
    if (info->nr_bitmaps > 0)
        json_put(data, "bitmaps", bitmaps_json(info));
    if (info->encryption) {
        json_t *encrypt = check_memory(json_object());

        json_put(encrypt, "format", json_string(info->encryption));
        json_put(data, "encrypt", encrypt);
    }
    if (info->data_file)
        json_put(data, "data-file", json_name(info->data_file));
    if (info->has_data_file)
        json_put(data, "data-file-raw", json_boolean(info->data_file_raw));
    json_put(o, "type", json_string("qcow2"));
    json_put(o, "data", data);
    return o;
}

static json_t *
header_json(const struct qcow2_info *info)
{
    json_t *o = check_memory(json_object());
    json_t *features = check_memory(json_array());
    json_t *extensions = check_memory(json_array());

    for (size_t i = 0; i < info->nr_features; i++) {
        const struct qcow2_info_feature *f = &info->features[i];
        json_t *feature = check_memory(json_object());

        json_put(feature, "type", json_string(kind_name(f->kind)));
        json_put(feature, "bit", json_integer(f->bit));
        json_put(feature, "name", json_name(f->name));
        json_put(feature, "known", json_boolean(f->known));
        json_put(features, NULL, feature);
    }
    for (size_t i = 0; i < info->nr_extensions; i++) {
        const struct qcow2_info_extension *e = &info->extensions[i];
        json_t *extension = check_memory(json_object());

        json_put(extension, "type", json_integer(e->type));
        json_put(extension, "length", json_integer(e->nr_bytes));
        json_put(extension, "name", json_name(e->name));
        json_put(extensions, NULL, extension);
    }
    json_put(o, "version", json_integer(info->version));
    json_put(o, "features", features);
    json_put(o, "extensions", extensions);
    return o;
}

static json_t *
verdict_json(const struct qcow2_info *info)
{
    json_t *o = check_memory(json_object());

    json_put(o, "names-backing-file", json_boolean(info->backing_file));
    json_put(o, "names-data-file", json_boolean(info->data_file));
    json_put(o, "names-file-outside-directory",
             json_boolean(info->backing_outside
                          || info->data_file_outside));
    json_put(o, "unknown-features",
             json_boolean(has_unknown_feature(info)));
    json_put(o, "encrypted", json_boolean(info->encryption));
    json_put(o, "dirty", json_boolean(info->dirty));
    json_put(o, "corrupt", json_boolean(info->corrupt));
    json_put(o, "can-be-opened", json_boolean(info->refusal.errnum == 0));
    if (info->refusal.errnum)
        json_put(o, "refusal", json_name(info->refusal.text));
    return o;
}

json_t *
show_info_json(const struct qcow2_info *info)
{
    bool qcow2 = info->format == QCOW2_FORMAT_QCOW2;
    json_t *o = check_memory(json_object());

    json_put(o, "filename", json_name(info->path));
    json_put(o, "format", json_string(qcow2_format_name(info->format)));
    json_put(o, "virtual-size", json_bytes(info->virtual_size));
    if (info->allocated_size != UINT64_MAX)
        json_put(o, "actual-size", json_bytes(info->allocated_size));
    json_put(o, "file-size", json_bytes(info->file_size));
    if (info->cluster_size > 0)
        json_put(o, "cluster-size", json_integer(info->cluster_size));
    json_put(o, "dirty-flag", json_boolean(info->dirty));
    if (info->encryption)
        json_put(o, "encrypted", json_true());
    if (info->backing_file) {
        json_put(o, "backing-filename", json_name(info->backing_file));
        json_put(o, "full-backing-filename",
                 json_name(info->full_backing_file));
    }
    if (info->backing_format)
        json_put(o, "backing-filename-format",
                 json_name(info->backing_format));
    if (info->nr_snapshots > 0)
        json_put(o, "snapshots", show_snapshots_json(info->snapshots,
                                                     info->nr_snapshots));
    if (qcow2) {
        json_put(o, "format-specific", specific_json(info));
        json_put(o, "header", header_json(info));
    }
    json_put(o, "verdict", verdict_json(info));
    return o;
}
