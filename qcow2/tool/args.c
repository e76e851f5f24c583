/* SPDX-License-Identifier: BSD-3-Clause */
/* args.c: command lines, as a verb's table of options describes them. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "tool.h"

void
usage_error(const struct verb *verb, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s: %s: ", program_name(), verb->name);
    va_start(ap, fmt);
    report_text(fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nTry '%s %s --help'.\n", program_name(), verb->name);
    exit(EXIT_FAILURE);
}

static const struct verb *current_verb;
static bool withdrawn[NR_KEYS];

bool
args_accept(int key)
{
    const struct tool_option *o = current_verb ? current_verb->options : NULL;

    while (o && o->key && o->key != key)
        o++;
    return o && o->key && !withdrawn[key];
}

void
args_withdraw(int key)
{
    withdrawn[key] = true;
}

void
args_start(struct args *a, const struct verb *verb, int argc, char **argv)
{
    size_t nr = 0, nr_longs = 0;
    char *p;

    current_verb = verb;
    while (verb->options[nr].key)
        nr++;
    *a = (struct args){ .verb = verb, .argc = argc, .argv = argv };
    a->letters = p = check_memory(malloc(2 * nr + 3));
    a->longs = check_memory(calloc(nr + 2, sizeof *a->longs));
    *p++ = ':'; /* we tell what is wrong */
    for (size_t i = 0; i < nr; i++) {
        const struct tool_option *o = &verb->options[i];

        if (o->key < 256) {
            *p++ = o->key;
            if (o->arg)
                *p++ = ':';
        }
        if (o->name)
            a->longs[nr_longs++] = (struct option){
                o->name, o->arg ? required_argument : no_argument, NULL,
                o->key,
            };
    }
    *p++ = 'h';
    *p = '\0';
    a->longs[nr_longs] = (struct option){ "help", no_argument, NULL, 'h' };
    optind = 1;
}

/* The option that getopt just objected to. */
static const char *
option_text(const struct args *a, char buf[3])
{
    if (optopt > 0 && optopt < 256) {
        snprintf(buf, 3, "-%c", optopt);
        return buf;
    }
    return a->argv[optind - 1];
}

int
args_next(struct args *a)
{
    char buf[3];
    int key = getopt_long(a->argc, a->argv, a->letters, a->longs, NULL);

    a->value = optarg;
    switch (key) {
    case '?': {
        CLEANUP_FREE char *option = text_escape(option_text(a, buf));

        usage_error(a->verb, "unknown option '%s'", option);
    }
    case ':':
        usage_error(a->verb, "option '%s' needs an argument",
                    option_text(a, buf));
    case 'h':
        help_print(a->verb);
        exit(EXIT_SUCCESS);
    case -1:
        a->operands = a->argv + optind;
        a->nr_operands = a->argc - optind;
        free(a->letters);
        free(a->longs);
        a->letters = NULL;
        a->longs = NULL;
    }
    return key;
}

void
args_need(const struct args *a, int nr, const char *what)
{
    if (a->nr_operands != nr)
        usage_error(a->verb, "expects %s", what);
}

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

enum qcow2_format
parse_format(const struct args *a, const char *s)
{
    if (strcmp(s, "qcow2") == 0)
        return QCOW2_FORMAT_QCOW2;
    if (strcmp(s, "raw") != 0) {
        CLEANUP_FREE char *text = text_escape(s);

        usage_error(a->verb, "format '%s' is not supported, only qcow2 and "
                    "raw are", text);
    }
    return QCOW2_FORMAT_RAW;
}

void
parse_cache(const struct args *a)
{
    static const char *const modes[] = {
        "writeback", "none", "writethrough", "directsync", "unsafe", "off",
    };

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(a->value, modes[i]) == 0)
            return;
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
