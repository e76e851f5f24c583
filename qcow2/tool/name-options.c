/* SPDX-License-Identifier: BSD-3-Clause */
/* name-options.c: images named by options of QEMU's block drivers, as
 * --image-opts and "json:{...}" have them.
 *
 * Both become a list of keys and values, objects in objects as keys with
 * dots. Drivers take theirs; what nobody took is not supported.
 */
#include <string.h>

#include "json.h"
#include "name.h"

enum { MAX_OPTIONS = 64, MAX_DEPTH = 8 };

struct option_value {
    char *key, *value;  /* value NULL: null in JSON */
    bool taken;
};

struct reader {
    const struct args *args;
    const char *text;   /* all of it, for messages */
    struct option_value options[MAX_OPTIONS];
    size_t nr;
};

#define READER_ERROR(r, ...) name_error((r)->args, (r)->text, __VA_ARGS__)

/* --- Reading -------------------------------------------------------------- */

/* Takes over key and value. */
static void
add(struct reader *r, char *key, char *value)
{
    check_memory(key);
    for (size_t i = 0; i < r->nr; i++)
        if (strcmp(r->options[i].key, key) == 0)
            READER_ERROR(r, "'%s' is there twice", key);
    if (r->nr == MAX_OPTIONS)
        READER_ERROR(r, "it has more than %d options", MAX_OPTIONS);
    r->options[r->nr++] = (struct option_value){ key, value, false };
}

/* A copy up to the next comma that is not doubled; *text moves past it. */
static char *
next_part(const char **text)
{
    const char *in = *text;
    char *part = check_memory(malloc(strlen(in) + 1)), *out = part;

    for (; *in && (*in != ',' || in[1] == ','); in++) {
        in += *in == ',';
        *out++ = *in;
    }
    *out = '\0';
    *text = in + (*in == ',');
    return part;
}

/* "a=1,b,no_c" is a=1,b=on; a key without a value is a switch. */
static void
read_list(struct reader *r)
{
    const char *text = r->text;

    while (*text) {
        char *part = next_part(&text), *value = strchr(part, '=');

        if (value)
            *value++ = '\0';
        add(r, part, check_memory(strdup(value ? value : "on")));
    }
}

static char *
scalar_text(const json_t *value)
{
    char *text;

    if (json_is_string(value))
        return check_memory(strdup(json_string_value(value)));
    if (json_is_boolean(value))
        return check_memory(strdup(json_is_true(value) ? "on" : "off"));
    if (asprintf(&text, "%" JSON_INTEGER_FORMAT, json_integer_value(value))
        == -1)
        check_memory(NULL);
    return text;
}

static void
read_object(struct reader *r, json_t *object, const char *prefix,
            unsigned depth)
{
    const char *key;
    json_t *value;

    if (depth == MAX_DEPTH)
        READER_ERROR(r, "it is nested too deeply");
    json_object_foreach(object, key, value)
    {
        char *full;

        if (asprintf(&full, "%s%s%s", prefix, *prefix ? "." : "", key) == -1)
            check_memory(NULL);
        if (json_is_object(value)) {
            read_object(r, value, full, depth + 1);
            free(full);
        } else if (json_is_null(value)) {
            add(r, full, NULL);
        } else if (json_is_array(value) || json_is_real(value)) {
            READER_ERROR(r, "'%s' must be a string, a whole number, true or "
                         "false", full);
        } else {
            add(r, full, scalar_text(value));
        }
    }
}

static void
read_json(struct reader *r)
{
    json_error_t error;
    json_t *root = json_loads(r->text + strlen("json:"),
                              JSON_REJECT_DUPLICATES, &error);

    if (!root)
        READER_ERROR(r, "it is not JSON: %s (line %d, column %d)", error.text,
                     error.line, error.column);
    if (!json_is_object(root))
        READER_ERROR(r, "it is not an object");
    read_object(r, root, "", 0);
    json_decref(root);
}

/* --- Taking --------------------------------------------------------------- */

static struct option_value *
find(struct reader *r, const char *prefix, const char *key)
{
    size_t len = strlen(prefix);

    for (size_t i = 0; i < r->nr; i++)
        if (strncmp(r->options[i].key, prefix, len) == 0
            && strcmp(r->options[i].key + len, key) == 0)
            return &r->options[i];
    return NULL;
}

/* The value of PREFIXkey; NULL: it is not there. */
static const char *
take(struct reader *r, const char *prefix, const char *key)
{
    struct option_value *o = find(r, prefix, key);

    if (!o || !o->value)
        return NULL;
    o->taken = true;
    return o->value;
}

static bool
is_one_of(const char *value, const char *const *words)
{
    while (*words && strcmp(value, *words) != 0)
        words++;
    return *words;
}

static enum name_switch
take_switch(struct reader *r, const char *prefix, const char *key)
{
    static const char *const on[] = { "on", "yes", "true", "y", NULL };
    static const char *const off[] = { "off", "no", "false", "n", NULL };
    const char *value = take(r, prefix, key);

    if (!value)
        return NAME_UNSAID;
    if (!is_one_of(value, on) && !is_one_of(value, off))
        READER_ERROR(r, "'%s%s' must be on or off", prefix, key);
    return is_one_of(value, on) ? NAME_ON : NAME_OFF;
}

/* What is said nearer to the file counts. */
static void
take_switch_to(struct reader *r, const char *prefix, const char *key,
               enum name_switch *where)
{
    enum name_switch s = take_switch(r, prefix, key);

    if (s != NAME_UNSAID)
        *where = s;
}

static void
take_choice(struct reader *r, const char *prefix, const char *key,
            const char *const *words)
{
    const char *value = take(r, prefix, key);

    if (value && !is_one_of(value, words))
        READER_ERROR(r, "'%s%s' cannot be '%s'", prefix, key, value);
}

/* Options that change nothing of what is read or written here: those that
 * every driver has, and how QEMU's qcow2 driver uses its memory. */
static void
take_harmless(struct reader *r, const char *prefix)
{
    static const char *const keys[] = {
        "cache-clean-interval", "cache-size", "l2-cache-entry-size",
        "l2-cache-size", "node-name", "open-timeout", "overlap-check",
        "reconnect-delay", "refcount-cache-size",
    };
    static const char *const switches[] = {
        "auto-read-only", "discard-no-unref", "drop-cache", "lazy-refcounts",
        "pass-discard-other", "pass-discard-request", "pass-discard-snapshot",
        "x-check-cache-dropped",
    };
    static const char *const aio[] = { "threads", "native", "io_uring",
                                       NULL };
    static const char *const locking[] = { "on", "auto", NULL };

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        take(r, prefix, keys[i]);
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++)
        take_switch(r, prefix, switches[i]);
    take_choice(r, prefix, "aio", aio);
    if (find(r, prefix, "locking"))
        take_choice(r, prefix, "locking", locking);
    if (take_switch(r, prefix, "force-share") == NAME_ON)
        READER_ERROR(r, "'%sforce-share' can only be off; -U takes no locks",
                     prefix);
}

static void
take_discard(struct reader *r, const char *prefix, struct name_settings *s)
{
    static const char *const no[] = { "ignore", "off", NULL };
    static const char *const yes[] = { "unmap", "on", NULL };
    const char *value = take(r, prefix, "discard");

    if (!value)
        return;
    if (!is_one_of(value, no) && !is_one_of(value, yes))
        READER_ERROR(r, "'%sdiscard' must be unmap or ignore", prefix);
    s->discard = is_one_of(value, yes) ? NAME_ON : NAME_OFF;
}

static void
take_detect_zeroes(struct reader *r, const char *prefix,
                   struct name_settings *s)
{
    const char *value = take(r, prefix, "detect-zeroes");

    if (!value)
        return;
    s->has_detect_zeroes = true;
    if (strcmp(value, "unmap") == 0)
        s->detect_zeroes = QCOW2_DETECT_ZEROES_UNMAP;
    else if (strcmp(value, "on") == 0)
        s->detect_zeroes = QCOW2_DETECT_ZEROES_ON;
    else if (strcmp(value, "off") == 0)
        s->detect_zeroes = QCOW2_DETECT_ZEROES_OFF;
    else
        READER_ERROR(r, "'%sdetect-zeroes' must be on, off or unmap", prefix);
}

/* What is the same for drivers of formats and of files. */
static void
take_settings(struct reader *r, const char *prefix, struct name_settings *s)
{
    take_harmless(r, prefix);
    take_switch_to(r, prefix, "cache.direct", &s->direct);
    take_switch_to(r, prefix, "cache.no-flush", &s->no_flush);
    take_switch_to(r, prefix, "read-only", &s->read_only);
    take_discard(r, prefix, s);
    take_detect_zeroes(r, prefix, s);
}

/* Of the driver raw. */
static void
take_window(struct reader *r, const char *prefix, struct name_settings *s)
{
    const char *offset = take(r, prefix, "offset");
    const char *size = take(r, prefix, "size");

    if (!offset && !size)
        return;
    if (s->window.offset > 0 || s->window.size > 0)
        READER_ERROR(r, "a part of a part of a file is not supported: say "
                     "'offset' and 'size' once");
    if (offset && !text_to_bytes(offset, &s->window.offset))
        READER_ERROR(r, "'%soffset' is not a size", prefix);
    if (size && (!text_to_bytes(size, &s->window.size)
                 || s->window.size == 0))
        READER_ERROR(r, "'%ssize' must be a size above 0", prefix);
}

/* server.type and so on, or the older host, port, path at the same level. */
static const char *
take_export(struct reader *r, const char *prefix)
{
    const char *type = take(r, prefix, "server.type");
    const char *dot = type ? "server." : "";
    char *at;
    struct name_export e;
    const char *uri;

    if (asprintf(&at, "%s%s", prefix, dot) == -1)
        check_memory(NULL);
    e = (struct name_export){
        .socket = take(r, at, "path"), .host = take(r, at, "host"),
        .port = take(r, at, "port"), .export = take(r, prefix, "export"),
    };
    if ((type && strcmp(type, "unix") != 0 && strcmp(type, "inet") != 0)
        || (!e.socket == !e.host)
        || (type && !e.socket == (strcmp(type, "unix") == 0)))
        READER_ERROR(r, "an NBD server has either server.type=unix and "
                     "server.path, or server.type=inet, server.host and "
                     "server.port");
    uri = name_of_export(r->args, r->text, &e);
    free(at);
    return uri;
}

/* The file or export that the options which begin with prefix are about. */
static const char *
take_file(struct reader *r, const char *prefix, const char *driver,
          struct name_settings *s)
{
    bool is_nbd = driver && strcmp(driver, "nbd") == 0;
    const char *name = is_nbd ? NULL : take(r, prefix, "filename");

    take_settings(r, prefix, s);
    if (is_nbd)
        return take_export(r, prefix);
    if (driver && strcmp(driver, "file") != 0
        && strcmp(driver, "host_device") != 0)
        READER_ERROR(r, "the driver '%s' is not supported: only qcow2, "
                     "qcow and raw on file or nbd are", driver);
    if (!name)
        READER_ERROR(r, "'%sfilename' is missing", prefix);
    return driver ? name_of_path(r->args, r->text, name)
                  : name_of_plain(r->args, name);
}

static bool
is_protocol(const char *driver)
{
    enum qcow2_format format;

    return driver && !qcow2_format_find(driver, &format);
}

static void
refuse_node(struct reader *r, const char *prefix)
{
    if (find(r, prefix, "file"))
        READER_ERROR(r, "'%sfile' names a node, and there are none here; "
                     "write %sfile.filename", prefix, prefix);
}

/* prefix and "file."; to be freed. */
static char *
file_of(const char *prefix)
{
    char *below;

    if (asprintf(&below, "%sfile.", prefix) == -1)
        check_memory(NULL);
    return below;
}

/* What is below a format: a file, or by the driver raw a part of one. */
static const char *
take_below(struct reader *r, const char *prefix, bool is_backing,
           struct name_settings *s)
{
    CLEANUP_FREE char *below = file_of(prefix);
    const char *driver = take(r, below, "driver");

    if (driver && strcmp(driver, "raw") == 0 && !is_backing) {
        take_settings(r, below, s);
        take_window(r, below, s);
        prefix = strcpy(check_memory(malloc(strlen(below) + 1)), below);
        free(below);
        refuse_node(r, prefix);
        below = file_of(prefix);
        free((char *)prefix);
        driver = take(r, below, "driver");
    }
    if (driver && !is_protocol(driver))
        READER_ERROR(r, "'%sdriver' can only be file or nbd", below);
    return take_file(r, below, driver, s);
}

/* An image: its format, if said, and the file that it is in. */
static const char *
take_image(struct reader *r, const char *prefix, enum qcow2_format *format,
           struct name_settings *s)
{
    const char *driver = take(r, prefix, "driver");
    bool is_backing = *prefix;

    if (is_protocol(driver)) {
        *format = QCOW2_FORMAT_RAW;
        return take_file(r, prefix, driver, s);
    }
    *format = QCOW2_FORMAT_AUTO;
    if (driver)
        qcow2_format_find(driver, format);
    if (!driver && find(r, prefix, "filename"))
        return take_file(r, prefix, NULL, s);
    refuse_node(r, prefix);
    take_settings(r, prefix, s);
    if (*format == QCOW2_FORMAT_RAW && !is_backing)
        take_window(r, prefix, s);
    return take_below(r, prefix, is_backing, s);
}

static bool
has_backing(const struct reader *r)
{
    for (size_t i = 0; i < r->nr; i++)
        if (strncmp(r->options[i].key, "backing.", 8) == 0)
            return true;
    return false;
}

static void
take_backing(struct reader *r, struct name *n)
{
    struct option_value *o = find(r, "", "backing");
    struct name_settings ignored = { .read_only = NAME_UNSAID };

    /* "backing=" is how a list says null. */
    if (o && o->value && *o->value)
        READER_ERROR(r, "'backing' names a node, and there are none here; "
                     "write backing.file.filename");
    if (o) {
        o->taken = true;
        n->backing_none = true;
    }
    if (has_backing(r))
        n->backing = take_image(r, "backing.", &n->backing_format, &ignored);
    if ((n->backing_none || n->backing) && n->format == QCOW2_FORMAT_RAW)
        READER_ERROR(r, "a raw image has no backing file");
}

struct name
name_of_options(const struct args *a, const char *text, bool json)
{
    struct reader r = { .args = a, .text = text };
    struct name n = { .path = NULL };

    if (json)
        read_json(&r);
    else
        read_list(&r);
    n.path = take_image(&r, "", &n.format, &n.settings);
    take_backing(&r, &n);
    for (size_t i = 0; i < r.nr; i++) {
        if (!r.options[i].taken)
            READER_ERROR(&r, "the option '%s' is not supported",
                         r.options[i].key);
        free(r.options[i].key);
        free(r.options[i].value);
    }
    return n;
}
