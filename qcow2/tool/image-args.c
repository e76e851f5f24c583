/* SPDX-License-Identifier: BSD-3-Clause */
/* image-args.c: options of images to be made; see image-args.h. */
#include "image-args.h"

#include <inttypes.h>
#include <string.h>

#include "name.h"

struct setting {
    const char *name, *arg, *help;
    void (*set)(struct image_args *i, const struct args *a, char *value);
};

static void
set_size(struct image_args *i, const struct args *a, char *value)
{
    i->create.size = parse_bytes(a, "size", value);
    i->has_size = true;
}

static void
set_compat(struct image_args *i, const struct args *a, char *value)
{
    if (strcmp(value, "0.10") == 0 || strcmp(value, "v2") == 0)
        i->create.version = 2;
    else if (strcmp(value, "1.1") == 0 || strcmp(value, "v3") == 0)
        i->create.version = 3;
    else
        usage_error(a->verb, "compat must be 0.10 (v2) or 1.1 (v3)");
    i->compat = value;
}

static void
set_cluster_size(struct image_args *i, const struct args *a, char *value)
{
    uint64_t size = parse_bytes(a, "cluster_size", value);

    if (size == 0 || size > UINT32_MAX)
        usage_error(a->verb, "cluster_size must be a power of two from 512 "
                    "to 2M");
    i->create.cluster_size = size;
}

static void
set_refcount_bits(struct image_args *i, const struct args *a, char *value)
{
    i->create.refcount_bits = parse_number(a, "refcount_bits", value, 0, 64);
    if (i->create.refcount_bits == 0)
        usage_error(a->verb, "refcount_bits must be a power of two from 1 to "
                    "64");
}

static void
set_compression(struct image_args *i, const struct args *a, char *value)
{
    i->has_compression = true;
    i->create.zstd = strcmp(value, "zstd") == 0;
    if (!i->create.zstd && strcmp(value, "zlib") != 0)
        usage_error(a->verb, "compression_type must be zlib or zstd");
}

static void
set_lazy_refcounts(struct image_args *i, const struct args *a, char *value)
{
    i->has_lazy_refcounts = true;
    i->create.lazy_refcounts = parse_on_off(a, "lazy_refcounts", value);
}

static void
set_backing_file(struct image_args *i, const struct args *a, char *value)
{
    (void)a;
    i->create.backing = value;
}

static void
set_backing_fmt(struct image_args *i, const struct args *a, char *value)
{
    i->create.backing_format = parse_format(a, value);
}

static void
set_preallocation(struct image_args *i, const struct args *a, char *value)
{
    i->prealloc = parse_prealloc(a, value);
    i->has_prealloc = true;
}

static void
set_extended_l2(struct image_args *i, const struct args *a, char *value)
{
    i->create.extended_l2 = parse_on_off(a, "extended_l2", value);
}

/* What others ask for as "none of it", and nothing more is possible. */
static void
check_off(const struct args *a, const char *name, const char *value,
          const char *what)
{
    if (parse_on_off(a, name, value))
        usage_error(a->verb, "%s=on: %s are not supported", name, what);
}

static void
set_encryption(struct image_args *i, const struct args *a, char *value)
{
    check_off(a, "encryption", value, "encrypted images");
    i->has_encryption = true;
}

static void
set_data_file(struct image_args *i, const struct args *a, char *value)
{
    (void)a;
    i->create.data_file = value;
}

static void
set_data_file_raw(struct image_args *i, const struct args *a, char *value)
{
    i->create.data_file_raw = parse_on_off(a, "data_file_raw", value);
    i->has_data_file_raw = true;
}

static void
set_nocow(struct image_args *i, const struct args *a, char *value)
{
    i->create.nocow = parse_on_off(a, "nocow", value);
    i->has_nocow = true;
}

static void
set_extent_size_hint(struct image_args *i, const struct args *a, char *value)
{
    uint64_t nr_bytes = parse_bytes(a, "extent_size_hint", value);

    if (nr_bytes > UINT32_MAX)
        usage_error(a->verb, "extent_size_hint must be below 4G");
    i->create.extent_size_hint = nr_bytes;
    i->has_extent_size_hint = true;
}

static const struct setting settings[] = {
    { "backing_file", "FILE", "backing file, as -b", set_backing_file },
    { "backing_fmt", "FMT", "format of the backing file, as -F",
      set_backing_fmt },
    { "cluster_size", "BYTES", "512 to 2M, a power of two [64k; 128k "
      "with extended_l2]",
      set_cluster_size },
    { "compat", "VERSION", "0.10 or 1.1, also called v2 and v3 [1.1]",
      set_compat },
    { "compression_type", "TYPE", "zlib or zstd [zlib]", set_compression },
    { "data_file", "FILE", "where guest data are to be, relative to the "
      "image's directory", set_data_file },
    { "data_file_raw", "on|off", "the data file is the disk as a raw image "
      "[off]", set_data_file_raw },
    { "encryption", "off", "there is nothing else", set_encryption },
    { "extended_l2", "on|off", "32 subclusters a cluster, of at least 16k "
      "[off]", set_extended_l2 },
    { "extent_size_hint", "BYTES", "what XFS allocates for the file at once",
      set_extent_size_hint },
    { "lazy_refcounts", "on|off", "write refcounts at the close, not "
      "with each flush [off]", set_lazy_refcounts },
    { "nocow", "on|off", "have Btrfs not copy the file on write [off]",
      set_nocow },
    { "preallocation", "MODE", "off, metadata, falloc or full [off]",
      set_preallocation },
    { "refcount_bits", "N", "1 to 64, a power of two [16]",
      set_refcount_bits },
    { "size", "BYTES", "virtual size", set_size },
};
enum { NR_SETTINGS = sizeof settings / sizeof settings[0] };

static void
print_settings(void)
{
    printf("Options of qcow2 images:\n");
    for (size_t i = 0; i < NR_SETTINGS; i++)
        printf("  %s=%-*s  %s\n", settings[i].name,
               26 - (int)strlen(settings[i].name), settings[i].arg,
               settings[i].help);
    printf("Options of raw images: extent_size_hint, nocow, preallocation (but "
           "not\nmetadata), size\n");
}

/* Cuts the next "name=value" from *text, where a comma is written twice. */
static char *
next_part(const char **text)
{
    char *part = check_memory(malloc(strlen(*text) + 1)), *p = part;
    const char *s = *text;

    for (; *s && (s[0] != ',' || s[1] == ','); s++) {
        *p++ = *s;
        if (*s == ',')
            s++;
    }
    *p = '\0';
    *text = *s ? s + 1 : s;
    return part;
}

static void __attribute__((noreturn))
refuse_setting(const struct args *a, const char *word)
{
    CLEANUP_FREE char *name = text_escape(word);

    for (size_t i = 0; i < NR_SETTINGS; i++)
        if (text_is_close(settings[i].name, word))
            usage_error(a->verb, "there is no option -o %s; did you mean %s?",
                        name, settings[i].name);
    usage_error(a->verb, "there is no option -o %s; -o help lists them", name);
}

static void
take_part(struct image_args *i, const struct args *a, char *part)
{
    char on[] = "on", *value = strchr(part, '=');
    size_t n;

    if (strcmp(part, "help") == 0 || strcmp(part, "?") == 0) {
        print_settings();
        exit(EXIT_SUCCESS);
    }
    if (value)
        *value++ = '\0';
    for (n = 0; n < NR_SETTINGS; n++)
        if (strcmp(settings[n].name, part) == 0)
            break;
    if (n == NR_SETTINGS)
        refuse_setting(a, part);
    /* Of what is on or off the name alone means on. */
    if (!value && (strcmp(settings[n].arg, "on|off") == 0
                   || strcmp(settings[n].arg, "off") == 0))
        value = on;
    if (!value)
        usage_error(a->verb, "-o %s needs a value", part);
    settings[n].set(i, a, value);
}

void
image_args_take(struct image_args *i, const struct args *a, const char *text)
{
    while (*text) {
        i->strings = check_memory(realloc(i->strings, (i->nr_strings + 1)
                                                      * sizeof(char *)));
        i->strings[i->nr_strings] = next_part(&text);
        take_part(i, a, i->strings[i->nr_strings++]);
    }
}

void
image_args_free(struct image_args *i)
{
    while (i->nr_strings > 0)
        free(i->strings[--i->nr_strings]);
    free(i->strings);
}

void
image_args_check(struct image_args *i, const struct args *a)
{
    struct qcow2_create_options *c = &i->create;

    if (c->backing)
        c->backing = name_path(a, c->backing, &c->backing_format);
    if (i->format == QCOW2_FORMAT_QCOW)
        usage_error(a->verb, "images of the format qcow are read, but not "
                    "made");
    if (i->format == QCOW2_FORMAT_RAW) {
        if (c->version || c->cluster_size || c->refcount_bits || c->zstd
            || c->lazy_refcounts || c->extended_l2 || c->data_file
            || c->data_file_raw || c->backing
            || c->backing_format)
            usage_error(a->verb, "a raw image has neither a backing file nor "
                        "options but size and preallocation");
        if (i->prealloc == QCOW2_PREALLOC_METADATA)
            usage_error(a->verb, "Unsupported preallocation mode: metadata; "
                        "a raw image has none");
    }
    if (c->backing_format && !c->backing)
        usage_error(a->verb, "a backing format is given, but no backing "
                    "file");
    if (c->backing && i->prealloc != QCOW2_PREALLOC_OFF && !c->extended_l2)
        usage_error(a->verb, "with a backing file there is nothing to "
                    "preallocate: it would be hidden, unless extended_l2 is "
                    "on");
}

static const char *
prealloc_name(enum qcow2_preallocation mode)
{
    switch (mode) {
    case QCOW2_PREALLOC_OFF:
        return "off";
    case QCOW2_PREALLOC_METADATA:
        return "metadata";
    case QCOW2_PREALLOC_FALLOC:
        return "falloc";
    case QCOW2_PREALLOC_FULL:
        return "full";
    }
    return "";
}

static void
show_qcow2(const struct image_args *i, uint64_t size)
{
    const struct qcow2_create_options *c = &i->create;

    printf("qcow2%s cluster_size=%" PRIu32 " extended_l2=%s",
           i->has_encryption ? " encryption=off" : "",
           c->cluster_size ? c->cluster_size
           : c->extended_l2 ? 131072 : 65536, c->extended_l2 ? "on" : "off");
    if (i->has_prealloc)
        printf(" preallocation=%s", prealloc_name(i->prealloc));
    printf(" compression_type=%s size=%" PRIu64, c->zstd ? "zstd" : "zlib",
           size);
    if (i->compat)
        printf(" compat=%s", i->compat);
    if (c->backing) {
        CLEANUP_FREE char *backing = text_escape(c->backing);

        printf(" backing_file=%s backing_fmt=%s", backing,
               qcow2_format_name(c->backing_format));
    }
    if (c->data_file) {
        CLEANUP_FREE char *data_file = text_escape(c->data_file);

        printf(" data_file=%s", data_file);
    }
    if (i->has_data_file_raw)
        printf(" data_file_raw=%s", c->data_file_raw ? "on" : "off");
    printf(" lazy_refcounts=%s refcount_bits=%u",
           c->lazy_refcounts ? "on" : "off",
           c->refcount_bits ? c->refcount_bits : 16);
}

void
image_args_show(const struct image_args *i, const char *path, uint64_t size)
{
    const struct qcow2_create_options *c = &i->create;
    CLEANUP_FREE char *name = text_escape(path);

    printf("Formatting '%s', fmt=", name);
    if (i->format == QCOW2_FORMAT_RAW) {
        printf("raw size=%" PRIu64, size);
        if (i->has_prealloc)
            printf(" preallocation=%s", prealloc_name(i->prealloc));
    } else {
        show_qcow2(i, size);
    }
    if (i->has_nocow)
        printf(" nocow=%s", c->nocow ? "on" : "off");
    if (i->has_extent_size_hint)
        printf(" extent_size_hint=%" PRIu32, c->extent_size_hint);
    putchar('\n');
}
