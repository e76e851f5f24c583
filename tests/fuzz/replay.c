/* SPDX-License-Identifier: BSD-3-Clause */
/* replay.c: runs inputs without a fuzzer.
 *
 *   replay                     all seeds of all targets
 *   replay -w DIR              writes them: DIR/TARGET/NAME
 *   replay TARGET FILE...      these inputs; of directories, all in them
 *   replay -x INPUT IMAGE      makes the file that an input stands for
 *
 * FUZZ_CPU_MS in the environment: each may take that much CPU time.
 * FUZZ_VERBOSE: their names.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bounds.h"
#include "input.h"
#include "rng.h"
#include "seeds.h"
#include "session.h"
#include "targets.h"
#include "tmpdir.h"

/* Nobody waits for it: an end to what has none. */
enum { CPU_SECONDS = 600 };

static const struct target *target; /* what runs now, for all below */
static const char *directory;
static unsigned nr_inputs;

static void
run_seed(void *opaque, const char *name, const uint8_t *data,
         size_t nr_bytes)
{
    static char what[400];

    (void)opaque;
    nr_inputs++;
    snprintf(what, sizeof what, "%s %s", target->name, name);
    if (getenv("FUZZ_VERBOSE"))
        fprintf(stderr, "%s\n", what);
    target_run(target, data, nr_bytes);
}

static void
write_seed(void *opaque, const char *name, const uint8_t *data,
           size_t nr_bytes)
{
    char path[1024];

    (void)opaque;
    nr_inputs++;
    snprintf(path, sizeof path, "%s/%s/%s", directory, target->name, name);
    tmpdir_write_file(path, data, nr_bytes);
}

static void
each_seed(seed_fn *fn)
{
    const char *top = getenv("abs_top_srcdir");
    char check_dir[1024], path[1024];

    snprintf(check_dir, sizeof check_dir, "%s/tests/check",
             top ? top : "../..");
    for (unsigned i = 0; i < nr_targets; i++) {
        target = &targets[i];
        if (directory) {
            snprintf(path, sizeof path, "%s/%s", directory, target->name);
            if (mkdir(path, 0777) == -1 && errno != EEXIST)
                abort();
        }
        nr_inputs = 0;
        seeds_each(target->name, check_dir, fn, NULL);
        printf("%s: %u inputs\n", target->name, nr_inputs);
        MUST(nr_inputs > 10, "where are they?");
    }
}

static void
run_file(const char *path)
{
    uint8_t *bytes;
    size_t nr_bytes;

    bytes = tmpdir_read_file(path, &nr_bytes);
    run_seed(NULL, path, bytes, nr_bytes);
    free(bytes);
}

static void
run_path(const char *path)
{
    struct dirent **entries;
    int nr = scandir(path, &entries, NULL, alphasort);

    if (nr == -1)
        run_file(path);
    for (int i = 0; i < nr; i++) {
        char file[1024];

        snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            run_file(file);
        free(entries[i]);
    }
    if (nr >= 0)
        free(entries);
}

static void
put_page(void *opaque, uint64_t off, const void *bytes, size_t nr_bytes)
{
    FILE *f = opaque;

    if (fseeko(f, off, SEEK_SET) == -1 || fwrite(bytes, 1, nr_bytes, f) == 0)
        abort();
}

static void
extract(const char *path, const char *image)
{
    FILE *f = fopen(image, "wb");
    struct input in;
    size_t nr_bytes;
    uint8_t *bytes = tmpdir_read_file(path, &nr_bytes);

    input_decode(&in, bytes, nr_bytes);
    if (!f)
        abort();
    sparse_each(in.file, put_page, f);
    if (fflush(f) != 0 || ftruncate(fileno(f), sparse_size(in.file)) == -1)
        perror(image);
    fclose(f);
    for (unsigned i = 0; i < in.nr_ops; i++)
        printf("operation %u a=%02x b=%u c=%" PRIx64 "\n",
               (in.ops[i].kind & 0x7f) % NR_OPERATIONS, in.ops[i].a,
               in.ops[i].b, in.ops[i].c);
    input_free(&in);
    free(bytes);
}

int
main(int argc, char *argv[])
{
    const struct rlimit limit = { CPU_SECONDS, CPU_SECONDS };

    if (argc == 3 && strcmp(argv[1], "-w") == 0) {
        directory = argv[2];
        each_seed(write_seed);
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "-x") == 0) {
        extract(argv[2], argv[3]);
        return 0;
    }
    if (getenv("FUZZ_CPU_MS"))
        bounds_limit_cpu(env_number("FUZZ_CPU_MS", 0));
    if (argc == 1) {
        setrlimit(RLIMIT_CPU, &limit);
        each_seed(run_seed);
    } else {
        target = target_find(argv[1]);
        if (!target) {
            fprintf(stderr, "there is no target %s\n", argv[1]);
            return 2;
        }
        for (int i = 2; i < argc; i++)
            run_path(argv[i]);
        printf("%s: %u inputs\n", target->name, nr_inputs);
    }
    printf("memory: %" PRIu64 " KiB at most\n", bounds_max_memory() >> 10);
    return 0;
}
