/* SPDX-License-Identifier: BSD-3-Clause */
/* values.c: what the arguments of options say: sizes, numbers, formats. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"

bool
parse_output(const struct args *a)
{
    if (strcmp(a->value, "json") != 0 && strcmp(a->value, "human") != 0)
        usage_error(a->verb, "--output must be human or json");
    return strcmp(a->value, "json") == 0;
}

/* Whole numbers are exact; fractions are as good as a double. */
bool
text_to_bytes(const char *s, uint64_t *nr_bytes)
{
    static const char suffixes[] = "bBkKmMgGtTpPeE";
    bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
    const char *suffix = suffixes;
    double fraction = 0;
    unsigned shift;
    char *end;

    if (*s < '0' || *s > '9')
        return false;
    errno = 0;
    *nr_bytes = strtoull(s, &end, hex ? 16 : 10);
    if (errno != 0)
        return false;
    if (*end == '.')
        fraction = strtod(end, &end);
    if (*end) {
        suffix = strchr(suffixes, *end);
        if (hex || !suffix || end[1])
            return false;
    }
    shift = (suffix - suffixes) / 2 * 10;
    if (fraction >= 1 || (fraction > 0 && shift == 0)
        || (shift > 0 && *nr_bytes >> (64 - shift)))
        return false;
    *nr_bytes <<= shift;
    *nr_bytes += (uint64_t)(fraction * (UINT64_C(1) << shift));
    return true;
}

/* Of "10GB" and "10GiB", the length of "10G"; 0 if it is none of these. */
static size_t
size_without_unit(const char *s)
{
    size_t digits = strspn(s, "0123456789."), len = digits + 1;

    if (digits == 0 || !s[digits] || !strchr("kKMGTPE", s[digits]))
        return 0;
    return strcmp(s + len, "B") == 0 || strcmp(s + len, "iB") == 0 ? len : 0;
}

uint64_t
parse_bytes(const struct args *a, const char *what, const char *s)
{
    uint64_t nr_bytes;

    if (!text_to_bytes(s + (*s == '+'), &nr_bytes)) {
        CLEANUP_FREE char *text = text_escape(s);
        size_t len = size_without_unit(s);

        if (len > 0)
            usage_error(a->verb, "%s: '%s' is not a size; write %.*s", what,
                        text, (int)len, s);
        usage_error(a->verb, "%s: '%s' is not a size, or is too large; write a "
                    "number with one of the suffixes k, M, G, T, P and E, or "
                    "none",
                    what, text);
    }
    return nr_bytes;
}

uint64_t
parse_number(const struct args *a, const char *what, const char *s,
             uint64_t min, uint64_t max)
{
    unsigned long long n;
    char *end;

    errno = 0;
    n = strtoull(s, &end, 0);
    if (*s < '0' || *s > '9' || *end || errno != 0 || n < min || n > max) {
        CLEANUP_FREE char *text = text_escape(s);

        usage_error(a->verb, "%s: '%s' is not a number from %" PRIu64 " to %"
                    PRIu64, what, text, min, max);
    }
    return n;
}

bool
parse_on_off(const struct args *a, const char *what, const char *s)
{
    static const char *const words[][2] = {
        { "off", "on" }, { "no", "yes" }, { "false", "true" }, { "n", "y" },
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        for (int on = 0; on < 2; on++)
            if (strcmp(s, words[i][on]) == 0)
                return on;
    usage_error(a->verb, "%s must be on or off", what);
}

/* Formats of qemu-img: those that it can write come first. */
static const char *const other_formats[] = {
    "vmdk", "vdi", "vhdx", "vpc", "qcow", "qed", "parallels", "luks",
    "bochs", "cloop", "dmg",
};
enum {
    NR_FORMATS = sizeof other_formats / sizeof other_formats[0],
    NR_WRITTEN = 8,
};

/* is_new: of an image that is to be made, not read. */
static void __attribute__((noreturn))
refuse_format(const struct args *a, const char *s, bool is_new)
{
    CLEANUP_FREE char *text = text_escape(s);
    int i = 0;

    while (i < NR_FORMATS && strcmp(s, other_formats[i]) != 0)
        i++;
    if (i == NR_FORMATS && text_is_close("qcow2", s))
        usage_error(a->verb, "there is no format '%s'; did you mean qcow2?",
                    text);
    if (i < NR_FORMATS && !is_new)
        usage_error(a->verb, "format '%s' is not supported, only qcow2, "
                    "qcow and raw are; 'qemu-img convert -f %s -O qcow2' "
                    "makes an image that is", text, text);
    if (i < NR_WRITTEN)
        usage_error(a->verb, "format '%s' is not supported, only qcow2 and "
                    "raw are; make a raw image, then 'qemu-img convert -f raw "
                    "-O %s' makes one of it", text, text);
    usage_error(a->verb, "format '%s' is not supported, only qcow2 and raw "
                "are", text);
}

static enum qcow2_format
format_of(const struct args *a, const char *s, bool is_new)
{
    enum qcow2_format format;

    if (!qcow2_format_find(s, &format)
        || (is_new && format == QCOW2_FORMAT_QCOW))
        refuse_format(a, s, is_new);
    return format;
}

enum qcow2_format
parse_format(const struct args *a, const char *s)
{
    return format_of(a, s, false);
}

enum qcow2_format
parse_new_format(const struct args *a, const char *s)
{
    return format_of(a, s, true);
}

enum qcow2_cache
parse_cache(const struct args *a)
{
    static const struct {
        const char *name;
        enum qcow2_cache cache;
    } modes[] = {
        { "writeback", QCOW2_CACHE_WRITEBACK },
        { "writethrough", QCOW2_CACHE_WRITETHROUGH },
        { "none", QCOW2_CACHE_NONE },
        { "off", QCOW2_CACHE_NONE },
        { "directsync", QCOW2_CACHE_DIRECTSYNC },
        { "unsafe", QCOW2_CACHE_UNSAFE },
    };

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(a->value, modes[i].name) == 0)
            return modes[i].cache;
    usage_error(a->verb, "the cache mode must be writeback, none, "
                "writethrough, directsync or unsafe");
}

enum qcow2_preallocation
parse_prealloc(const struct args *a, const char *s)
{
    if (strcmp(s, "off") == 0)
        return QCOW2_PREALLOC_OFF;
    if (strcmp(s, "metadata") == 0)
        return QCOW2_PREALLOC_METADATA;
    if (strcmp(s, "falloc") == 0)
        return QCOW2_PREALLOC_FALLOC;
    if (strcmp(s, "full") == 0)
        return QCOW2_PREALLOC_FULL;
    CLEANUP_FREE char *text = text_escape(s);

    usage_error(a->verb, "Unsupported preallocation mode: '%s'; it must be "
                "off, metadata, falloc or full", text);
}
