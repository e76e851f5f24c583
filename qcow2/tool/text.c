/* SPDX-License-Identifier: BSD-3-Clause */
/* text.c: names and sizes as people read them. */
#include <inttypes.h>
#include <string.h>

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

static char *
escape(const char *text, bool backslashes)
{
    const unsigned char *in = (const unsigned char *)text;
    char *out = check_memory(malloc(4 * strlen(text) + 1)), *p = out;

    while (*in) {
        uint32_t c = 0;
        size_t len = text_utf8_length(in, &c);

        if (len > 0 && is_harmless(c) && !(backslashes && c == '\\')) {
            memcpy(p, in, len);
            p += len;
            in += len;
            continue;
        }
        for (; len > 1; len--)
            p += sprintf(p, "\\x%02x", *in++);
        p += sprintf(p, "\\x%02x", *in++);
    }
    *p = '\0';
    return out;
}

char *
text_escape(const char *name)
{
    return escape(name, true);
}

char *
text_without_controls(const char *text)
{
    return escape(text, false);
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
