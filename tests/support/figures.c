/* SPDX-License-Identifier: BSD-3-Clause */
/* figures.c: see figures.h. */
#include "figures.h"

#include <inttypes.h>
#include <stdlib.h>

#include "expect.h"
#include "oracle.h"
#include "tmpdir.h"

/* qemu-img leaves out figures that are 0. */
static uint64_t
json_number(const char *text, const char *key)
{
    char quoted[64];
    const char *p;

    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    p = strstr(text, quoted);
    return p ? strtoull(p + strlen(quoted), NULL, 10) : 0;
}

void
figures_expect_same(const char *path, const struct qcow2_check_result *r)
{
    const char *json = tmpdir_path("figures.json");
    const struct {
        const char *key;
        uint64_t value;
    } figures[] = {
        { "image-end-offset", r->image_end_offset },
        { "total-clusters", r->total_clusters },
        { "allocated-clusters", r->allocated_clusters },
        { "fragmented-clusters", r->fragmented_clusters },
        { "compressed-clusters", r->compressed_clusters },
        { "corruptions", r->corruptions },
        { "leaks", r->leaks },
    };
    unsigned char *bytes;
    size_t nr_bytes;
    char *text;

    if (!oracle_present())
        return;
    /* In its directory, which is where QEMU looks for a data file. */
    oracle_run("cd \"$(dirname '%s')\" && qemu-img check -f qcow2 "
               "--output=json '%s' >'%s' 2>/dev/null", path,
               path, json);
    bytes = tmpdir_read_file(json, &nr_bytes);
    text = strndup((char *)bytes, nr_bytes);
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        EXPECT(json_number(text, figures[i].key) == figures[i].value,
               "%s is %" PRIu64 ", qemu-img says %" PRIu64, figures[i].key,
               figures[i].value, json_number(text, figures[i].key));
    free(text);
    free(bytes);
}
