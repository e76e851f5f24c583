/* SPDX-License-Identifier: BSD-3-Clause */
/* model.c: see model.h. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *
must_grow(void *array, unsigned nr, unsigned *capacity, size_t element)
{
    if (nr < *capacity)
        return array;
    *capacity = *capacity ? 2 * *capacity : 4;
    array = realloc(array, *capacity * element);
    if (!array)
        abort();
    return array;
}

static uint64_t
nr_sectors(const struct model *m)
{
    return (m->size + SECTOR - 1) / SECTOR;
}

void
model_init(struct model *m, const void *disk, uint64_t size)
{
    memset(m, 0, sizeof *m);
    m->size = size;
    m->disk = malloc(size ? size : 1);
    if (!m->disk)
        abort();
    memcpy(m->disk, disk, size);
}

void
model_free(struct model *m)
{
    if (m->remembers) {
        for (uint64_t s = 0; s < nr_sectors(m); s++)
            free(m->sectors[s].versions);
    }
    free(m->sectors);
    free(m->flushes);
    free(m->disk);
    memset(m, 0, sizeof *m);
}

static size_t
sector_bytes(const struct model *m, uint64_t sector)
{
    uint64_t left = m->size - sector * SECTOR;

    return left < SECTOR ? left : SECTOR;
}

static struct sector_version *
add_version(struct model *m, uint64_t sector)
{
    struct sector_history *h = &m->sectors[sector];
    struct sector_version *v;

    h->versions = must_grow(h->versions, h->nr, &h->capacity,
                            sizeof *h->versions);
    v = &h->versions[h->nr++];
    memset(v, 0, sizeof *v);
    memcpy(v->bytes, m->disk + sector * SECTOR, sector_bytes(m, sector));
    return v;
}

void
model_remember(struct model *m)
{
    m->remembers = true;
    m->sectors = calloc(nr_sectors(m) + 1, sizeof *m->sectors);
    if (!m->sectors)
        abort();
    for (uint64_t s = 0; s < nr_sectors(m); s++)
        add_version(m, s)->durable = true;
}

void
model_write(struct model *m, const void *buf, uint64_t nr_bytes,
            uint64_t off, uint64_t sent)
{
    if (nr_bytes == 0)
        return;
    if (buf)
        memcpy(m->disk + off, buf, nr_bytes);
    else
        memset(m->disk + off, 0, nr_bytes);
    if (!m->remembers)
        return;
    for (uint64_t s = off / SECTOR; s <= (off + nr_bytes - 1) / SECTOR; s++) {
        struct sector_version *v = add_version(m, s);

        v->sent = sent;
        v->answered = UINT64_MAX;
        v->partial = off > s * SECTOR ||
                     off + nr_bytes < s * SECTOR + sector_bytes(m, s);
    }
}

void
model_answered(struct model *m, uint64_t nr_bytes, uint64_t off,
               uint64_t answered, bool durable)
{
    if (!m->remembers || nr_bytes == 0)
        return;
    for (uint64_t s = off / SECTOR; s <= (off + nr_bytes - 1) / SECTOR; s++) {
        struct sector_history *h = &m->sectors[s];
        struct sector_version *v = &h->versions[h->nr - 1];

        v->answered = answered;
        v->durable = durable;
    }
}

void
model_flushed(struct model *m, uint64_t sent, uint64_t answered)
{
    if (!m->remembers)
        return;
    m->flushes = must_grow(m->flushes, m->nr_flushes, &m->flushes_capacity,
                           sizeof *m->flushes);
    m->flushes[m->nr_flushes++] = (struct model_flush) { sent, answered };
}

/* When the last flush answered before the moment was sent: what was
 * answered before that is durable. */
static uint64_t
durable_before(const struct model *m, uint64_t moment)
{
    for (unsigned i = m->nr_flushes; i > 0; i--) {
        if (m->flushes[i - 1].answered <= moment)
            return m->flushes[i - 1].sent;
    }
    return 0;
}

/* Each byte is that of some version: all that can be asked of a sector to
 * which several requests gave parts. */
static bool
mix_legal(const struct sector_version *v, unsigned first, unsigned end,
          const unsigned char *got, size_t nr_bytes)
{
    for (size_t i = 0; i < nr_bytes; i++) {
        unsigned j = first;

        while (j < end && v[j].bytes[i] != got[i])
            j++;
        if (j == end)
            return false;
    }
    return true;
}

static bool
sector_legal(const struct model *m, uint64_t sector, uint64_t moment,
             uint64_t durable, const unsigned char *got)
{
    const struct sector_history *h = &m->sectors[sector];
    const struct sector_version *v = h->versions;
    size_t nr_bytes = sector_bytes(m, sector);
    unsigned first = 0, end = 0, nr_partial = 0;

    for (; end < h->nr && v[end].sent <= moment; end++) {
        if (v[end].answered <= durable ||
            (v[end].durable && v[end].answered <= moment))
            first = end;
    }
    for (unsigned i = end; i > first; i--) {
        if (memcmp(v[i - 1].bytes, got, nr_bytes) == 0)
            return true;
        nr_partial += i - 1 > first && v[i - 1].partial;
    }
    return nr_partial > 0 && end - first > 2 &&
           mix_legal(v, first, end, got, nr_bytes);
}

bool
model_legal(const struct model *m, const void *disk, uint64_t moment,
            uint64_t *bad_sector)
{
    uint64_t durable = durable_before(m, moment);
    const unsigned char *p = disk;

    for (uint64_t s = 0; s < nr_sectors(m); s++) {
        if (!sector_legal(m, s, moment, durable, p + s * SECTOR)) {
            *bad_sector = s;
            return false;
        }
    }
    return true;
}
