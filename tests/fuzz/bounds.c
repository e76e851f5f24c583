/* SPDX-License-Identifier: BSD-3-Clause */
/* bounds.c: see bounds.h. */
#include "bounds.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

/* An operation reads each table a few times at most; inputs have a few dozen
 * operations, on files that may claim tables of up to 64 MiB.
 */
#define MAX_READS      (UINT64_C(1) << 20)
#define MAX_READ_BYTES (UINT64_C(4) << 30)

static unsigned cpu_limit_ms;
static bool counting;
static int64_t now_bytes, peak_bytes, max_bytes;

void
bounds_broken(const char *file, int line, const char *cond, const char *fmt,
              ...)
{
    va_list ap;

    fprintf(stderr, "%s:%d: not so: %s: ", file, line, cond);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

#ifdef WITH_ASAN
int __sanitizer_install_malloc_and_free_hooks(
    void (*malloc_hook)(const volatile void *p, size_t nr_bytes),
    void (*free_hook)(const volatile void *p));
size_t __sanitizer_get_allocated_size(const volatile void *p);

static void
note_malloc(const volatile void *p, size_t nr_bytes)
{
    (void)p;
    if (!counting)
        return;
    now_bytes += nr_bytes;
    if (now_bytes > peak_bytes)
        peak_bytes = now_bytes;
}

static void
note_free(const volatile void *p)
{
    if (counting && p)
        now_bytes -= __sanitizer_get_allocated_size(p);
}
#endif

#if !defined(WITH_ASAN) && !defined(__SANITIZE_THREAD__)
/* Not from getrusage, which also counts what ran in the process before. */
static int64_t
most_in_memory(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    int64_t kib = 0;

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %" SCNd64, &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib << 10;
}
#endif

static void
start_counting(void)
{
    now_bytes = peak_bytes = 0;
#ifdef WITH_ASAN
    static bool installed;

    if (!installed)
        __sanitizer_install_malloc_and_free_hooks(note_malloc, note_free);
    installed = true;
#endif
    counting = true;
}

static void
stop_counting(void)
{
    counting = false;
#if !defined(WITH_ASAN) && !defined(__SANITIZE_THREAD__)
    peak_bytes = most_in_memory();
#endif
    if (peak_bytes > max_bytes)
        max_bytes = peak_bytes;
    MUST(peak_bytes <= MAX_MEMORY_BYTES, "%" PRId64 " bytes of memory",
         peak_bytes);
}

static void
too_slow(int sig)
{
    static const char text[] = "an input took too much CPU time\n";

    (void)sig;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(1);
    abort();
}

static void
set_timer(unsigned ms)
{
    const struct itimerval t = {
        .it_value = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 },
    };

    setitimer(ITIMER_PROF, &t, NULL);
}

void
bounds_limit_cpu(unsigned ms)
{
    cpu_limit_ms = ms;
    signal(SIGPROF, too_slow);
}

void
bounds_begin(void)
{
    if (cpu_limit_ms > 0)
        set_timer(cpu_limit_ms);
    start_counting();
}

void
bounds_end(void)
{
    stop_counting();
    if (cpu_limit_ms > 0)
        set_timer(0);
}

void
bounds_of_work(const struct sparse_counts *counts)
{
    MUST(counts->nr_reads <= MAX_READS, "%" PRIu64 " reads",
         counts->nr_reads);
    MUST(counts->nr_read_bytes <= MAX_READ_BYTES, "%" PRIu64 " bytes read",
         counts->nr_read_bytes);
}

uint64_t
bounds_max_memory(void)
{
    return max_bytes;
}
