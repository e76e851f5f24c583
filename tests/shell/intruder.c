/* SPDX-License-Identifier: BSD-3-Clause */
/* intruder.c: an nbdkit filter that tries, for each connection, what
 * somebody would who has taken over the server. The variable INTRUDER says
 * what, in lines of a verb and a word; "VERB WORD: ERROR" goes to stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <nbdkit-filter.h>

static int
try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    return fd == -1 ? -1 : close(fd);
}

static int
try_execute(const char *path)
{
    char *argv[] = { (char *)path, NULL };

    return execv(path, argv);
}

static int
try_connect(const char *port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(port)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r, saved;

    if (fd == -1)
        return -1;
    r = connect(fd, (struct sockaddr *)&addr, sizeof addr);
    saved = errno;
    close(fd);
    errno = saved;
    return r;
}

/* With arguments that fail with something else, or do nothing, unless the
 * call is refused.
 */
static int
try_call(const char *name)
{
    if (strcmp(name, "unshare") == 0)
        return unshare(CLONE_NEWUTS);
    if (strcmp(name, "clone") == 0)
        return syscall(SYS_clone, CLONE_NEWUTS | CLONE_SIGHAND, 0, 0, 0, 0);
    if (strcmp(name, "ptrace") == 0)
        return ptrace(PTRACE_ATTACH, getppid(), 0, 0);
    if (strcmp(name, "keyctl") == 0)
        return syscall(SYS_keyctl, 0, -3, 0);
    if (strcmp(name, "bpf") == 0)
        return syscall(SYS_bpf, 0, NULL, 0);
    if (strcmp(name, "io_uring_setup") == 0)
        return syscall(SYS_io_uring_setup, 0, NULL);
    if (strcmp(name, "getpid") == 0)
        return getpid() > 0 ? 0 : -1;
    errno = EINVAL;
    return -1;
}

static int
try(const char *verb, const char *word)
{
    if (strcmp(verb, "read") == 0)
        return try_open(word, O_RDONLY);
    if (strcmp(verb, "write") == 0)
        return try_open(word, O_WRONLY);
    if (strcmp(verb, "create") == 0)
        return try_open(word, O_WRONLY | O_CREAT | O_EXCL);
    if (strcmp(verb, "remove") == 0)
        return unlink(word);
    if (strcmp(verb, "chmod") == 0)
        return chmod(word, 0666);
    if (strcmp(verb, "execute") == 0)
        return try_execute(word);
    if (strcmp(verb, "connect") == 0)
        return try_connect(word);
    if (strcmp(verb, "signal") == 0)
        return kill(atoi(word), 0);
    if (strcmp(verb, "call") == 0)
        return try_call(word);
    errno = EINVAL;
    return -1;
}

/* Exchanges two names once the plugin knows its parameters: the variable
 * INTRUDER_EXCHANGES has both, with a space between.
 */
static int
intruder_config_complete(nbdkit_next_config_complete *next,
                         nbdkit_backend *nxdata)
{
    char *names = getenv("INTRUDER_EXCHANGES"), *other;
    int r = next(nxdata);

    if (r == -1 || !names)
        return r;
    other = strchr(names, ' ');
    *other++ = '\0';
    return renameat2(AT_FDCWD, names, AT_FDCWD, other, RENAME_EXCHANGE);
}

static void *
intruder_open(nbdkit_next_open *next, nbdkit_context *nxdata, int readonly,
              const char *export_name, int is_tls)
{
    char *lines = strdup(getenv("INTRUDER")), *line, *rest = lines, *word;

    (void)is_tls;
    while ((line = strsep(&rest, "\n"))) {
        word = strchr(line, ' ');
        if (!word)
            continue;
        *word++ = '\0';
        errno = 0;
        fprintf(stderr, "%s %s: %s\n", line, word,
                try(line, word) == 0 ? "done" : strerrorname_np(errno));
    }
    free(lines);
    return next(nxdata, readonly, export_name) == 0
           ? NBDKIT_HANDLE_NOT_NEEDED : NULL;
}

static struct nbdkit_filter filter = {
    .name = "intruder",
    .config_complete = intruder_config_complete,
    .open = intruder_open,
};

NBDKIT_REGISTER_FILTER(filter)
