/* SPDX-License-Identifier: BSD-3-Clause */
/* bases.c: see bases.h. */
#include "bases.h"

#include <stdlib.h>

#include "builder.h"

const char *const bases[] = {
    "version 3; cluster 512; refcount-bits 64; size 41000;"
    "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
    "snapshot 1 first; data 2 4; zero-alloc 3; gap 3",

    "version 3; cluster 512; refcount-bits 16; size 40960;"
    "data 0-3 1; zero-alloc 5; data 70-79 5; snapshot 1 first; data 2 3;"
    "snapshot 2 second",

    "version 2; cluster 512; size 41000; data 0-3 1; compressed 6-7 2;"
    "snapshot 1 first; data 2 4",

    "version 3; cluster 512; refcount-bits 64; size 41000; backing base raw;"
    "data 0-3 1; zero 4; zero-alloc 5; compressed 6-7 2; data 8-9 3;"
    "data 20-57 6",

    "version 3; cluster 512; refcount-bits 1; size 100K; data 0-9 1;"
    "zero 12-14",

    "version 3; cluster 4096; refcount-bits 16; size 4M; data 0-1 0;"
    "compressed 2-5 2; zero 6; zero-alloc 7; data 600 0;"
    "snapshot 1 one vmstate=1; data 1 0; compressed 9 7",

    "version 3; cluster 4096; autoclear 0; size 1M;"
    "extension 0x23852875 \\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00"
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x20"
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00; data 0-1 0; append 12288;"
    "poke refcount[@end/C-3] = 1; poke refcount[@end/C-2] = 1;"
    "poke refcount[@end/C-1] = 1; poke u64[136] = @end-12288;"
    "poke u64[@end-12288] = @end-8192; poke u32[@end-12280] = 1;"
    "poke u32[@end-12276] = 0; poke u32[@end-12272] = 0x01100001;"
    "poke u32[@end-12268] = 0; poke u64[@end-12264] = 0x6100000000000000;"
    "poke u64[@end-8192] = @end-4096",

    "version 3; cluster 512; autoclear 0; size 40000;"
    "extension 0x23852875 \\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00"
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x20"
    "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00; data 0-1 0; append 1536;"
    "poke refcount[@end/C-3] = 1; poke refcount[@end/C-2] = 1;"
    "poke refcount[@end/C-1] = 1; poke u64[136] = @end-1536;"
    "poke u64[@end-1536] = @end-1024; poke u32[@end-1528] = 1;"
    "poke u32[@end-1524] = 0; poke u32[@end-1520] = 0x01100001;"
    "poke u32[@end-1516] = 0; poke u64[@end-1512] = 0x6100000000000000;"
    "poke u64[@end-1024] = @end-512",

    "version 3; cluster 65536; refcount-bits 16; size 8G; data 0 0;"
    "compressed 1-3 2; zero 4; data 8192 0; snapshot 1 big; data 0 0",

    "version 3; cluster 2M; refcount-bits 8; size 1T; data 0 0; zero 1;"
    "compressed 2 3; table 262144",

    "version 3; cluster 512; refcount-bits 32; size 33000; l1-entries 4;"
    "data 0-3 1; data 63-66 2; data 130 3; snapshot 1 first; data 200 4",

    "version 3; cluster 512; refcount-bits 64; size 41000; incompatible 0;"
    "compatible 0; data 0-3 1; leak 2; compressed 4-9 3; snapshot 1 a;"
    "data 2 2; poke refcount[@data[8]/C] = 1",

    "version 3; cluster 512; refcount-bits 2; size 20000; header-length 120;"
    "extension 0x6803f857 \\x00\\x00dirty; extension 0x12345678 hello;"
    "autoclear 5; data 0-9 1; snapshot 1 one extra=16;"
    "snapshot 2 two extra=40; data 3 3",

    "version 3; cluster 1024; refcount-bits 8; size 300000; data 0-5 1;"
    "compressed 10-30 2; zero 31-40; zero-alloc 41-43; snapshot 1 one;"
    "data 200-210 4; snapshot 2 two; unallocated 11; data 12 8",

    "version 2; cluster 512; size 41000; backing base raw; data 0-3 1;"
    "compressed 6-7 2; data 79-80 5",

    "version 3; cluster 512; refcount-bits 16; size 0",

    "version 3; cluster 512; refcount-bits 64; size 40960; data-file data;"
    "backing base raw; data 0-3 1; zero 4; zero-alloc 5; data 70-79 5; gap 2",

    "version 3; cluster 1024; refcount-bits 8; size 100K; data-file data raw;"
    "data 0-99 1; leak 1",

    "version 3; cluster 16K; extended-l2; refcount-bits 64; size 200000;"
    "data 0 1; subclusters 1 ddzzuud 2; zero 2; zero-alloc 3; compressed 4-5 2;"
    "subclusters 6 puzd 3; snapshot 1 first; subclusters 1 uudz 4; data 7 5;"
    "gap 1",

    "version 3; cluster 32K; extended-l2; refcount-bits 16; size 200000;"
    "backing base raw; subclusters 0 duz 1; subclusters 1 puzzd 2; data 2 3;"
    "compressed 3 4; subclusters 6 zu",
};
const unsigned nr_bases = sizeof bases / sizeof bases[0];

struct sparse *
base_build(const char *recipe)
{
    struct builder *b = builder_new();
    struct sparse *s = sparse_new();
    const unsigned char *bytes;
    size_t nr_bytes;

    builder_add(b, "%s", recipe);
    bytes = builder_bytes(b, &nr_bytes);
    /* What is all zero is a hole. */
    for (size_t off = 0; off < nr_bytes; off += 512) {
        size_t n = nr_bytes - off < 512 ? nr_bytes - off : 512, i = 0;

        while (i < n && bytes[off + i] == 0)
            i++;
        if (i < n)
            sparse_write(s, off, bytes + off, n);
    }
    sparse_truncate(s, nr_bytes);
    builder_free(b);
    return s;
}

const struct sparse *
base_image(unsigned i)
{
    static struct sparse *built[sizeof bases / sizeof bases[0]];

    if (!built[i])
        built[i] = base_build(bases[i]);
    return built[i];
}
