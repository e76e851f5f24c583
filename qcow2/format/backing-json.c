/* SPDX-License-Identifier: BSD-3-Clause */
/* backing-json.c: takes apart "json:" backing names; see backing-json.h. */
#include "format/backing-json.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct parser {
    const char *at;
    char *driver, *file_driver, *filename; /* MAX_BACKING_NAME_BYTES + 1 */
};

static void
skip_blanks(struct parser *p)
{
    p->at += strspn(p->at, " \t\n\r");
}

static bool
accept(struct parser *p, char c)
{
    skip_blanks(p);
    if (*p->at != c)
        return false;
    p->at++;
    return true;
}

static int
hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* "\uXXXX", of what a path can hold and one unit can say. */
static bool
take_unicode(struct parser *p, char **out)
{
    uint32_t c = 0;

    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*p->at);

        if (digit < 0)
            return false;
        c = c << 4 | digit;
        p->at++;
    }
    if (c == 0 || (c >= 0xd800 && c < 0xe000))
        return false;
    if (c >= 0x800) {
        *(*out)++ = 0xe0 | c >> 12;
        *(*out)++ = 0x80 | (c >> 6 & 0x3f);
        *(*out)++ = 0x80 | (c & 0x3f);
    } else if (c >= 0x80) {
        *(*out)++ = 0xc0 | c >> 6;
        *(*out)++ = 0x80 | (c & 0x3f);
    } else {
        *(*out)++ = c;
    }
    return true;
}

static bool
take_escape(struct parser *p, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found = *p->at ? strchr(from, *p->at) : NULL;

    if (*p->at == 'u') {
        p->at++;
        return take_unicode(p, out);
    }
    if (!found)
        return false;
    p->at++;
    *(*out)++ = to[found - from];
    return true;
}

/* out is as large as the whole name, and no escape grows. */
static bool
take_string(struct parser *p, char *out)
{
    if (!accept(p, '"'))
        return false;
    while (*p->at != '"') {
        if ((unsigned char)*p->at < ' ')
            return false;
        if (*p->at != '\\') {
            *out++ = *p->at++;
            continue;
        }
        p->at++;
        if (!take_escape(p, &out))
            return false;
    }
    p->at++;
    *out = '\0';
    return true;
}

/* A value that was not given before, and is not empty. */
static bool
take_value(struct parser *p, char *out)
{
    return !out[0] && take_string(p, out) && out[0];
}

static bool take_object(struct parser *p, bool in_file);

static bool
take_member(struct parser *p, bool in_file)
{
    char key[MAX_BACKING_NAME_BYTES + 1];

    if (!take_string(p, key) || !accept(p, ':'))
        return false;
    if (in_file && strcmp(key, "driver") == 0)
        return take_value(p, p->file_driver);
    if (in_file && strcmp(key, "filename") == 0)
        return take_value(p, p->filename);
    if (in_file)
        return false;
    if (strcmp(key, "driver") == 0)
        return take_value(p, p->driver);
    if (strcmp(key, "file.driver") == 0)
        return take_value(p, p->file_driver);
    if (strcmp(key, "file.filename") == 0)
        return take_value(p, p->filename);
    return strcmp(key, "file") == 0 && take_object(p, true);
}

/* Objects do not nest deeper than "file". */
static bool
take_object(struct parser *p, bool in_file)
{
    if (!accept(p, '{'))
        return false;
    do {
        if (!take_member(p, in_file))
            return false;
    } while (accept(p, ','));
    return accept(p, '}');
}

bool
backing_json_parse(const char *name, char path[MAX_BACKING_NAME_BYTES + 1],
                   enum qcow2_format *format)
{
    char driver[MAX_BACKING_NAME_BYTES + 1] = "";
    char file_driver[MAX_BACKING_NAME_BYTES + 1] = "";
    struct parser p = { .driver = driver, .file_driver = file_driver,
                        .filename = path };

    if (strncmp(name, "json:", 5) != 0
        || strlen(name) > MAX_BACKING_NAME_BYTES)
        return false;
    p.at = name + 5;
    path[0] = '\0';
    if (!take_object(&p, false))
        return false;
    skip_blanks(&p);
    if (*p.at || !path[0] || strcmp(file_driver, "file") != 0)
        return false;
    return qcow2_format_find(driver, format);
}
