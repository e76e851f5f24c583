/* SPDX-License-Identifier: BSD-3-Clause */
/* text.c: names and sizes as people read them. */
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "text.h"
#include "tool.h"

/* Length of the UTF-8 sequence that the terminated string s begins with; 0
 * if it is none.
 */
size_t
text_utf8_length(const unsigned char *s, uint32_t *code_point)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t len = *s < 0x80 ? 1 : *s < 0xc0 ? 0 : *s < 0xe0 ? 2
                 : *s < 0xf0 ? 3 : *s < 0xf8 ? 4 : 0;
    uint32_t c = len == 1 ? *s : *s & (0x7f >> len);

    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (len == 0 || c < least[len] || c > 0x10ffff
        || (c >= 0xd800 && c < 0xe000))
        return 0;
    *code_point = c;
    return len;
}

/* Neither control characters nor what changes how text around it reads. */
static bool
is_harmless(uint32_t c)
{
    return c >= 0x20 && !(c >= 0x7f && c < 0xa0)
           && !(c >= 0x200b && c <= 0x200f) && !(c >= 0x2028 && c <= 0x202e)
           && !(c >= 0x2060 && c <= 0x206f) && c != 0xfeff;
}

/* Length of the character that the terminated string s begins with; 0 if it is
 * none that the locale can show, or should not be shown. */
static size_t
shown_length(const char *s)
{
    mbstate_t state = { 0 };
    wchar_t c;
    size_t len = mbrtowc(&c, s, strlen(s), &state);

    return len == (size_t)-1 || len == (size_t)-2 || !is_harmless(c)
           || !iswprint(c) ? 0 : len;
}

static char *
escape(const char *text, bool backslashes)
{
    const char *in = text;
    char *out = check_memory(malloc(4 * strlen(text) + 1)), *p = out;

    while (*in) {
        size_t len = shown_length(in);

        if (len > 0 && !(backslashes && *in == '\\')) {
            memcpy(p, in, len);
            p += len;
            in += len;
        } else {
            p += sprintf(p, "\\x%02x", (unsigned char)*in++);
        }
    }
    *p = '\0';
    return out;
}

char *
text_escape(const char *name)
{
    return escape(name, true);
}

/* Value of an escaped byte that s begins with, if it is no ASCII; else 0. */
static unsigned char
escaped_byte(const char *s)
{
    static const char digits[] = "0123456789abcdef";
    const char *high, *low;

    if (s[0] != '\\' || s[1] != 'x' || !s[2] || !s[3])
        return 0;
    high = strchr(digits, s[2]);
    low = strchr(digits, s[3]);
    return high && low && high - digits >= 8
           ? (high - digits) << 4 | (low - digits) : 0;
}

char *
text_without_controls(const char *text)
{
    CLEANUP_FREE char *plain = check_memory(strdup(text));
    char *p = plain;

    while (*text) {
        char c[MB_LEN_MAX + 1];
        size_t nr = 0, len;

        while (nr < MB_LEN_MAX && escaped_byte(text + 4 * nr)) {
            c[nr] = escaped_byte(text + 4 * nr);
            nr++;
        }
        c[nr] = '\0';
        len = nr > 0 ? shown_length(c) : 0;
        if (len > 0)
            memcpy(p, c, len);
        else
            *p = *text;
        p += len > 0 ? len : 1;
        text += len > 0 ? 4 * len : 1;
    }
    *p = '\0';
    return escape(plain, false);
}

bool
text_is_close(const char *a, const char *b)
{
    size_t len_a = strlen(a), len_b = strlen(b), same = 0;

    while (a[same] && a[same] == b[same])
        same++;
    if (same >= 3 && (!a[same] || !b[same]))
        return true;
    a += same;
    b += same;
    if (len_a == len_b)
        return strcmp(a + 1, b + 1) == 0
               || (a[0] == b[1] && a[1] == b[0] && strcmp(a + 2, b + 2) == 0);
    return len_a + 1 == len_b   ? strcmp(a, b + 1) == 0
           : len_b + 1 == len_a ? strcmp(a + 1, b) == 0
                                : false;
}

void
text_indent(unsigned level)
{
    if (level > TEXT_MAX_INDENT)
        printf("%*s`- (%u) ", 3 * TEXT_MAX_INDENT - 3, "", level);
    else if (level > 0)
        printf("%*s`- ", (int)(3 * level - 3), "");
}

/* At most three digits: the unit is one in which it is below 1000. */
const char *
text_size(char buf[TEXT_SIZE], uint64_t nr_bytes)
{
    static const char *const units[] = {
        "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB",
    };
    double n = nr_bytes;
    unsigned unit = 0;

    for (; n >= 1000; unit++)
        n /= 1024;
    snprintf(buf, TEXT_SIZE, "%.3g %s", n, units[unit]);
    return buf;
}

const char *
text_exact_size(char buf[TEXT_SIZE], uint64_t nr_bytes)
{
    size_t len = strlen(text_size(buf, nr_bytes));

    snprintf(buf + len, TEXT_SIZE - len, " (%" PRIu64 " bytes)", nr_bytes);
    return buf;
}
