/* SPDX-License-Identifier: BSD-3-Clause */
/* builder.c: reads recipes; see builder.h. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "builder-private.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "rng.h"

void
builder_mistake(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "tests: image recipe: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(99); /* automake's "hard error" */
}

static void *
must_alloc(void *old, size_t nr_bytes)
{
    void *p = realloc(old, nr_bytes ? nr_bytes : 1);

    if (!p)
        builder_mistake("out of memory");
    return p;
}

static bool make_lazy;

void
builder_make_lazy(void)
{
    make_lazy = true;
}

bool
builder_is_lazy(void)
{
    return make_lazy || env_number("LAZY_REFCOUNTS", 0);
}

struct builder *
builder_new(void)
{
    struct builder *b = must_alloc(NULL, sizeof *b);

    memset(b, 0, sizeof *b);
    b->version = 3;
    b->cluster_bits = 16;
    b->refcount_order = 4;
    return b;
}

static void
free_view(struct test_view *v)
{
    for (uint32_t i = 0; i < v->nr_l1; i++) {
        if (v->l1[i] && --v->l1[i]->nr_users == 0)
            free(v->l1[i]);
    }
    free(v->l1);
}

void
builder_free(struct builder *b)
{
    if (!b)
        return;
    free_view(&b->active);
    for (unsigned i = 0; i < b->nr_snapshots; i++)
        free_view(&b->snapshots[i].view);
    free(b->bytes);
    free(b->data);
    free(b->pokes);
    free(b);
}

bool
builder_has_zstd(void)
{
#ifdef HAVE_ZSTD
    return true;
#else
    return false;
#endif
}

uint64_t
builder_number(const char *s, const char **end)
{
    char *e;
    uint64_t n = strtoull(s, &e, 0);

    if (e == s)
        builder_mistake("a number is missing at '%s'", s);
    switch (*e) {
    case 'T': n <<= 10; /* fall through */
    case 'G': n <<= 10; /* fall through */
    case 'M': n <<= 10; /* fall through */
    case 'K': n <<= 10; e++;
    }
    *end = e;
    return n;
}

unsigned
builder_l2_entry_bytes(const struct builder *b)
{
    return b->features[0] & 16 ? 16 : 8;
}

uint64_t
builder_l2_entries(const struct builder *b)
{
    return b->cluster_size / builder_l2_entry_bytes(b);
}

uint64_t
builder_alloc(struct builder *b, uint64_t nr_clusters)
{
    uint64_t off = b->nr_bytes;
    uint64_t end = off + nr_clusters * b->cluster_size;

    if (end > b->capacity) {
        b->bytes = must_alloc(b->bytes, end * 2);
        memset(b->bytes + b->capacity, 0, end * 2 - b->capacity);
        b->capacity = end * 2;
    }
    b->nr_bytes = end;
    b->packed_end = 0;
    return off;
}

/* The first line of content fixes the geometry. */
static void
begin(struct builder *b)
{
    uint64_t per_table;
    uint64_t nr;

    if (b->begun)
        return;
    b->begun = true;
    b->cluster_size = UINT32_C(1) << b->cluster_bits;
    per_table = (uint64_t)b->cluster_size * builder_l2_entries(b);
    nr = b->active.size / per_table + (b->active.size % per_table != 0);
    if (nr < b->min_l1_entries)
        nr = b->min_l1_entries;
    b->active.nr_l1 = nr;
    b->active.l1 = must_alloc(NULL, nr * sizeof *b->active.l1);
    memset(b->active.l1, 0, nr * sizeof *b->active.l1);
    builder_alloc(b, 1); /* the header's */
}

static struct table *
new_table(struct builder *b, const struct table *old)
{
    size_t nr_bytes = sizeof(struct table) +
                      builder_l2_entries(b) * sizeof(struct slot);
    struct table *t = must_alloc(NULL, nr_bytes);

    if (old)
        memcpy(t, old, nr_bytes);
    else
        memset(t, 0, nr_bytes);
    t->nr_users = 1;
    t->host_off = builder_alloc(b, 1);
    return t;
}

/* The slot to change: its table is made, or copied if it is shared. */
static struct slot *
slot_to_change(struct builder *b, struct test_view *v, uint64_t guest_cluster)
{
    uint64_t nr_slots = builder_l2_entries(b);
    uint64_t i = guest_cluster / nr_slots;
    struct table *t;

    if (i >= v->nr_l1)
        builder_mistake("cluster %llu is past the end of the disk",
                        (unsigned long long)guest_cluster);
    t = v->l1[i];
    if (!t) {
        v->l1[i] = new_table(b, NULL);
    } else if (t->nr_users > 1) {
        t->nr_users--;
        v->l1[i] = new_table(b, t);
    }
    return &v->l1[i]->slots[guest_cluster % nr_slots];
}

const struct slot *
builder_slot(const struct builder *b, const struct test_view *v,
             uint64_t guest_cluster)
{
    uint64_t nr_slots = builder_l2_entries(b);
    uint64_t i = guest_cluster / nr_slots;

    if (i >= v->nr_l1 || !v->l1[i])
        return NULL;
    return &v->l1[i]->slots[guest_cluster % nr_slots];
}

static size_t
deflate_raw(const void *in, size_t in_len, void *out, size_t out_len)
{
    z_stream z = { 0 };
    size_t n = 0;

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        builder_mistake("zlib does not start");
    z.next_in = (void *)in;
    z.avail_in = in_len;
    z.next_out = out;
    z.avail_out = out_len;
    if (deflate(&z, Z_FINISH) == Z_STREAM_END)
        n = out_len - z.avail_out;
    deflateEnd(&z);
    return n;
}

static size_t
pack(const struct builder *b, const void *in, void *out)
{
    size_t len = b->cluster_size;

#ifdef HAVE_ZSTD
    if (b->zstd) {
        size_t n = ZSTD_compress(out, len, in, len, 0);

        return ZSTD_isError(n) ? 0 : n;
    }
#endif
    return deflate_raw(in, len, out, len);
}

/* Compressed data goes on where the last ended, into the next host cluster
 * if need be; a new cluster is begun where something else came between. */
static void
make_compressed(struct builder *b, struct slot *s, uint64_t guest_cluster)
{
    unsigned char *plain = must_alloc(NULL, b->cluster_size);
    unsigned char *packed = must_alloc(NULL, b->cluster_size);
    size_t len;
    uint64_t at = b->packed_end;

    pattern_fill(plain, b->cluster_size, s->seed,
                 guest_cluster * b->cluster_size);
    len = pack(b, plain, packed);
    if (len == 0)
        builder_mistake("content does not compress");
    if (at == 0)
        at = builder_alloc(b, 1);
    if (at + len > b->nr_bytes)
        builder_alloc(b, 1);
    memcpy(b->bytes + at, packed, len);
    s->host_off = at;
    s->packed_len = len;
    b->packed_end = at + len < b->nr_bytes ? at + len : 0;
    free(plain);
    free(packed);
}

/* What was in use before holds anything but zeroes. */
static uint64_t
add_junk(struct builder *b, uint64_t nr_clusters)
{
    uint64_t off = builder_alloc(b, nr_clusters);

    memset(b->bytes + off, 0x5a, nr_clusters * b->cluster_size);
    return off;
}

/* Gives the slot a place, and returns its bytes. */
static unsigned char *
place_cluster(struct builder *b, struct slot *s, uint64_t guest_cluster)
{
    uint64_t end = (guest_cluster + 1) * b->cluster_size;

    s->has_place = true;
    if (!b->data_file[0]) {
        s->host_off = add_junk(b, 1);
        return b->bytes + s->host_off;
    }
    s->host_off = end - b->cluster_size;
    if (end > b->nr_data_bytes) {
        b->data = must_alloc(b->data, end);
        memset(b->data + b->nr_data_bytes, 0, end - b->nr_data_bytes);
        b->nr_data_bytes = end;
    }
    return memset(b->data + s->host_off, 0x5a, b->cluster_size);
}

static void
make_cluster(struct builder *b, struct test_view *v, enum slot_kind kind,
             uint64_t guest_cluster, uint64_t seed)
{
    struct slot *s = slot_to_change(b, v, guest_cluster);

    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->seed = seed;
    switch (kind) {
    case SLOT_UNALLOCATED:
    case SLOT_ZERO:
        break;
    case SLOT_DATA:
        pattern_fill(place_cluster(b, s, guest_cluster), b->cluster_size, seed,
                     guest_cluster * b->cluster_size);
        break;
    case SLOT_ZERO_ALLOC:
        place_cluster(b, s, guest_cluster);
        break;
    case SLOT_COMPRESSED:
        make_compressed(b, s, guest_cluster);
        break;
    case SLOT_SUBCLUSTERS: /* add_subclusters */
        break;
    }
}

static void
fill_subclusters(struct builder *b, struct slot *s, uint64_t guest_cluster)
{
    uint32_t n = b->cluster_size / 32;
    unsigned char *place = place_cluster(b, s, guest_cluster);

    for (unsigned i = 0; i < 32; i++)
        if (s->allocated >> i & 1)
            pattern_fill(place + i * n, n, s->seed,
                         guest_cluster * b->cluster_size + i * n);
}

static void
add_subclusters(struct builder *b, const char *args)
{
    uint64_t guest_cluster = builder_number(args, &args);
    struct slot *s = slot_to_change(b, &b->active, guest_cluster);
    const char *letters = args + strspn(args, " ");
    size_t nr = strcspn(letters, " ");
    bool has_place = false;

    if (nr == 0 || nr > 32 || builder_l2_entry_bytes(b) != 16)
        builder_mistake("subclusters: '%s'", args);
    make_cluster(b, &b->active, SLOT_SUBCLUSTERS, guest_cluster, 1);
    if (letters[nr])
        s->seed = builder_number(letters + nr, &args);
    for (unsigned i = 0; i < 32; i++) {
        char c = letters[i < nr ? i : nr - 1];

        s->allocated |= (uint32_t)(c == 'd') << i;
        s->zero |= (uint32_t)(c == 'z') << i;
        has_place |= c == 'd' || c == 'p';
        if (!strchr("dzup", c))
            builder_mistake("subclusters: what is '%c'?", c);
    }
    if (has_place)
        fill_subclusters(b, s, guest_cluster);
}

/* State the guest's machine would have saved lies in the snapshot's table
 * past the disk. */
static void
add_vm_state(struct builder *b, struct test_snapshot *s)
{
    uint64_t nr_slots = builder_l2_entries(b);
    uint32_t old = s->view.nr_l1;
    uint32_t add = s->vm_state_clusters / nr_slots + 1;

    s->view.nr_l1 = old + add;
    s->view.l1 = must_alloc(s->view.l1, (old + add) * sizeof *s->view.l1);
    memset(s->view.l1 + old, 0, add * sizeof *s->view.l1);
    for (uint64_t i = 0; i < s->vm_state_clusters; i++)
        make_cluster(b, &s->view, SLOT_DATA, old * nr_slots + i, 99);
}

static void
add_snapshot(struct builder *b, char *args)
{
    struct test_snapshot *s = &b->snapshots[b->nr_snapshots];
    char *save = NULL, *id = strtok_r(args, " ", &save);
    char *name = strtok_r(NULL, " ", &save), *option;
    const char *end;

    if (b->nr_snapshots++ == MAX_TEST_SNAPSHOTS || !name)
        builder_mistake("snapshot: too many, or no name");
    snprintf(s->id, sizeof s->id, "%s", id);
    snprintf(s->name, sizeof s->name, "%s", name);
    s->extra_len = b->version == 2 ? 0 : 16;
    s->view = b->active;
    s->view.l1 = must_alloc(NULL, s->view.nr_l1 * sizeof *s->view.l1);
    for (uint32_t i = 0; i < s->view.nr_l1; i++) {
        s->view.l1[i] = b->active.l1[i];
        if (s->view.l1[i])
            s->view.l1[i]->nr_users++;
    }
    while ((option = strtok_r(NULL, " ", &save))) {
        if (strncmp(option, "size=", 5) == 0)
            s->view.size = builder_number(option + 5, &end);
        else if (strncmp(option, "extra=", 6) == 0)
            s->extra_len = builder_number(option + 6, &end);
        else if (strncmp(option, "vmstate=", 8) == 0)
            s->vm_state_clusters = builder_number(option + 8, &end);
        else
            builder_mistake("snapshot: what is '%s'?", option);
    }
    if (s->vm_state_clusters)
        add_vm_state(b, s);
}

static void
add_extension(struct builder *b, const char *args)
{
    struct test_extension *x = &b->extensions[b->nr_extensions];
    unsigned byte;

    if (b->nr_extensions++ == MAX_TEST_EXTENSIONS)
        builder_mistake("too many extensions");
    x->type = builder_number(args, &args);
    while (*args == ' ')
        args++;
    while (*args && x->length < sizeof x->data) {
        if (sscanf(args, "\\x%2x", &byte) == 1) {
            x->data[x->length++] = byte;
            args += 4;
        } else {
            x->data[x->length++] = *args++;
        }
    }
}

static unsigned
log2_of(uint64_t n)
{
    unsigned bits = 0;

    while ((UINT64_C(1) << bits) < n)
        bits++;
    if ((UINT64_C(1) << bits) != n)
        builder_mistake("%llu is not a power of two", (unsigned long long)n);
    return bits;
}

static void
add_data_file(struct builder *b, const char *args)
{
    struct test_extension *x = &b->extensions[b->nr_extensions];
    char raw[8] = "";

    if (b->nr_extensions++ == MAX_TEST_EXTENSIONS
        || sscanf(args, "%63s %7s", b->data_file, raw) < 1)
        builder_mistake("data-file: '%s'", args);
    x->type = 0x44415441;
    x->length = strlen(b->data_file);
    memcpy(x->data, b->data_file, x->length);
    b->features[0] |= 4;
    if (strcmp(raw, "raw") == 0)
        b->features[2] |= 2;
}

static bool
add_geometry(struct builder *b, const char *word, char *args)
{
    static const char *const kinds[] = {
        "incompatible", "compatible", "autoclear"
    };
    const char *end;

    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(word, kinds[i]) == 0) {
            b->features[i] |= UINT64_C(1) << builder_number(args, &end);
            return true;
        }
    }
    if (strcmp(word, "version") == 0)
        b->version = builder_number(args, &end);
    else if (strcmp(word, "cluster") == 0)
        b->cluster_bits = log2_of(builder_number(args, &end));
    else if (strcmp(word, "refcount-bits") == 0)
        b->refcount_order = log2_of(builder_number(args, &end));
    else if (strcmp(word, "size") == 0)
        b->active.size = builder_number(args, &end);
    else if (strcmp(word, "l1-entries") == 0)
        b->min_l1_entries = builder_number(args, &end);
    else if (strcmp(word, "header-length") == 0)
        b->header_length = builder_number(args, &end);
    else if (strcmp(word, "extension") == 0)
        add_extension(b, args);
    else if (strcmp(word, "data-file") == 0)
        add_data_file(b, args);
    else if (strcmp(word, "backing") == 0)
        sscanf(args, "%1023s %63s", b->backing, b->backing_format);
    else if (strcmp(word, "compression") == 0)
        b->zstd = strncmp(args, "zstd", 4) == 0;
    else if (strcmp(word, "extended-l2") == 0)
        b->features[0] |= 16;
    else
        return false;
    if (b->begun)
        builder_mistake("'%s' comes too late", word);
    return true;
}

static bool
add_clusters(struct builder *b, const char *word, const char *args)
{
    static const char *const kinds[] = {
        [SLOT_UNALLOCATED] = "unallocated", [SLOT_DATA] = "data",
        [SLOT_ZERO] = "zero", [SLOT_ZERO_ALLOC] = "zero-alloc",
        [SLOT_COMPRESSED] = "compressed"
    };
    uint64_t first, last, seed = 1;
    unsigned kind;

    for (kind = 0; kind <= SLOT_COMPRESSED; kind++) {
        if (strcmp(word, kinds[kind]) == 0)
            break;
    }
    if (kind > SLOT_COMPRESSED)
        return false;
    begin(b);
    first = last = builder_number(args, &args);
    if (*args == '-')
        last = builder_number(args + 1, &args);
    if (*args == ' ')
        seed = builder_number(args, &args);
    for (uint64_t c = first; c <= last; c++)
        make_cluster(b, &b->active, kind, c, seed);
    return true;
}

static void
add_leak(struct builder *b, uint64_t nr_clusters)
{
    struct test_leak *l = &b->leaks[b->nr_leaks];

    if (b->nr_leaks++ == MAX_TEST_LEAKS)
        builder_mistake("too many leaks");
    l->off = add_junk(b, nr_clusters);
    l->nr_bytes = nr_clusters * b->cluster_size;
}

static void
keep_poke(struct builder *b, const char *line)
{
    size_t len = strlen(line) + 1;

    b->pokes = must_alloc(b->pokes, b->pokes_len + len);
    memcpy(b->pokes + b->pokes_len, line, len);
    b->pokes_len += len;
}

static void
add_line(struct builder *b, char *line)
{
    char word[32] = "", *args;
    const char *end;
    int len = 0;

    line += strspn(line, " \t");
    line[strcspn(line, "#")] = '\0';
    for (size_t n = strlen(line); n > 0 && isspace((unsigned char)line[n-1]);)
        line[--n] = '\0';
    if (sscanf(line, "%31s %n", word, &len) != 1)
        return;
    args = line + len;
    if (add_geometry(b, word, args) || add_clusters(b, word, args))
        return;
    begin(b);
    if (strcmp(word, "subclusters") == 0) {
        add_subclusters(b, args);
    } else if (strcmp(word, "table") == 0) {
        slot_to_change(b, &b->active, builder_number(args, &end));
    } else if (strcmp(word, "gap") == 0) {
        add_junk(b, builder_number(args, &end));
    } else if (strcmp(word, "leak") == 0) {
        add_leak(b, builder_number(args, &end));
    } else if (strcmp(word, "snapshot") == 0) {
        add_snapshot(b, args);
    } else if (strcmp(word, "poke") == 0 || strcmp(word, "truncate") == 0 ||
               strcmp(word, "append") == 0) {
        keep_poke(b, line);
    } else {
        builder_mistake("what is '%s'?", line);
    }
}

void
builder_add(struct builder *b, const char *fmt, ...)
{
    char *text, *line, *save = NULL;
    va_list ap;

    if (b->laid_out)
        builder_mistake("nothing can be added to a finished image");
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        builder_mistake("out of memory");
    va_end(ap);
    for (line = strtok_r(text, "\n;", &save); line;
         line = strtok_r(NULL, "\n;", &save))
        add_line(b, line);
    free(text);
}

const unsigned char *
builder_bytes(struct builder *b, size_t *nr_bytes)
{
    if (!b->laid_out) {
        begin(b);
        builder_layout(b);
        b->laid_out = true;
        for (size_t i = 0; i < b->pokes_len; i += strlen(b->pokes + i) + 1)
            builder_poke(b, b->pokes + i);
    }
    *nr_bytes = b->nr_bytes;
    return b->bytes;
}

bool
builder_has_data_file(const struct builder *b)
{
    return b->data_file[0] != '\0';
}

const unsigned char *
builder_data(const struct builder *b, uint64_t *nr_bytes)
{
    *nr_bytes = b->data_file[0] ? b->active.size : 0;
    if (*nr_bytes > b->nr_data_bytes)
        *nr_bytes = b->nr_data_bytes;
    return b->data;
}

static void
write_file(const char *path, const void *bytes, size_t nr_bytes,
           uint64_t length)
{
    FILE *f = fopen(path, "wb");

    if (!f || (nr_bytes > 0 && fwrite(bytes, 1, nr_bytes, f) != nr_bytes)
        || fclose(f) != 0 || truncate(path, length) != 0)
        builder_mistake("cannot write %s", path);
}

void
builder_write(struct builder *b, const char *path)
{
    size_t nr_bytes;
    const unsigned char *bytes = builder_bytes(b, &nr_bytes);
    uint64_t nr_data_bytes;
    char data_path[1024];

    write_file(path, bytes, nr_bytes, nr_bytes);
    if (!b->data_file[0])
        return;
    snprintf(data_path, sizeof data_path, "%.*s%s",
             (int)(strrchr(path, '/') - path + 1), path, b->data_file);
    bytes = builder_data(b, &nr_data_bytes);
    write_file(data_path, bytes, nr_data_bytes, b->active.size);
}

void
builder_make(const char *path, const char *recipe)
{
    struct builder *b = builder_new();

    builder_add(b, "%s", recipe);
    builder_write(b, path);
    builder_free(b);
}

static const struct test_view *
view_of(const struct builder *b, int snapshot)
{
    return snapshot < 0 ? &b->active : &b->snapshots[snapshot].view;
}

uint64_t
builder_disk_size(const struct builder *b, int snapshot)
{
    return view_of(b, snapshot)->size;
}

unsigned
builder_version(const struct builder *b)
{
    return b->version;
}

/* The same of a cluster's subclusters, for what of them is in n bytes. */
static void
overlay_subclusters(const struct builder *b, const struct slot *s,
                    unsigned char *disk, uint64_t off, uint64_t n)
{
    uint64_t unit = b->cluster_size / 32;

    for (uint64_t i = 0; i * unit < n; i++) {
        uint64_t len = n - i * unit < unit ? n - i * unit : unit;

        if (s->zero >> i & 1)
            memset(disk + off + i * unit, 0, len);
        else if (s->allocated >> i & 1)
            pattern_fill(disk + off + i * unit, len, s->seed, off + i * unit);
    }
}

void
builder_overlay(const struct builder *b, int snapshot, unsigned char *disk,
                uint64_t nr_bytes)
{
    for (uint64_t off = 0; off < nr_bytes; off += b->cluster_size) {
        const struct slot *s = builder_slot(b, view_of(b, snapshot),
                                            off / b->cluster_size);
        uint64_t n = nr_bytes - off;

        if (!s || s->kind == SLOT_UNALLOCATED)
            continue;
        if (n > b->cluster_size)
            n = b->cluster_size;
        if (s->kind == SLOT_SUBCLUSTERS)
            overlay_subclusters(b, s, disk, off, n);
        else if (s->kind == SLOT_ZERO || s->kind == SLOT_ZERO_ALLOC)
            memset(disk + off, 0, n);
        else
            pattern_fill(disk + off, n, s->seed, off);
    }
}
