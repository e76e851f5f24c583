/* SPDX-License-Identifier: BSD-3-Clause */
/* json.c: JSON from values that images chose; see json.h. */
#include "json.h"

#include <string.h>

#include "text.h"
#include "tool.h"

json_t *
json_name(const char *name)
{
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
    const unsigned char *in = (const unsigned char *)name;
    CLEANUP_FREE char *out = NULL;
    char *p;

    if (!name)
        return json_null();
    out = p = check_memory(malloc(3 * strlen(name) + 1));
    while (*in) {
        uint32_t c;
        size_t len = text_utf8_length(in, &c);

        if (len > 0) {
            memcpy(p, in, len);
            p += len;
            in += len;
        } else {
            memcpy(p, replacement, 3);
            p += 3;
            in++;
        }
    }
    *p = '\0';
    return json_string(out);
}

json_t *
json_bytes(uint64_t n)
{
    return n <= INT64_MAX ? json_integer(n) : json_real(n);
}

void
json_put(json_t *to, const char *key, json_t *value)
{
    int r = key ? json_object_set_new(to, key, value)
                : json_array_append_new(to, value);

    if (r == -1)
        check_memory(NULL);
}

/* DEL is the one character of ASCII that JSON lets through and terminals do
 * not print. It can be in strings only. */
static int
print_part(const char *text, size_t len, void *opaque)
{
    (void)opaque;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == 0x7f)
            fputs("\\u007F", stdout);
        else
            putchar(text[i]);
    }
    return 0;
}

void
json_print(json_t *value)
{
    check_memory(value);
    if (json_dump_callback(value, print_part, NULL,
                           JSON_INDENT(4) | JSON_ENSURE_ASCII) == -1)
        check_memory(NULL);
    putchar('\n');
    json_decref(value);
}
