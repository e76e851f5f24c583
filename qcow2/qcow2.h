/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2.h: the public interface of the qcow2 engine.
 *
 * A struct qcow2_disk is one disk as a guest sees it: a qcow2 image on its
 * backing chain, an internal snapshot of one, or a raw file. Offsets are
 * guest offsets and lengths are in bytes, of any alignment, unless a name
 * says otherwise. "specification" is QEMU's docs/interop/qcow2.
 *
 * Threads: a disk may be used by any number of threads at once; open, close
 * and the pool's functions too, but nobody may use a disk that is being
 * closed.
 *
 * Errors: functions return 0, or -1 (NULL for pointers) with *err filled.
 * err may be NULL. errnum is an errno: EIO for damaged images and failed
 * I/O, EINVAL for a caller's mistake, ENOTSUP for a feature that is not
 * supported, EROFS for writes to what is read-only, EBUSY for a lock that
 * somebody holds, EPERM for a file the image names but must not open,
 * ENOSPC and ENOMEM as they say.
 */
#ifndef QCOW2_H
#define QCOW2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define QCOW2_PUBLIC __attribute__((visibility("default")))
#else
#define QCOW2_PUBLIC
#endif

/* Remedies for an error. The engine does not know the words by which users
 * ask for them: callers add their own words to the text, and leave out what
 * they do not offer.
 */
enum qcow2_hint {
    QCOW2_HINT_READONLY = 1 << 0,  /* open it read-only */
    QCOW2_HINT_NO_LOCK = 1 << 1,   /* options.no_lock, if nobody else has the
                                    * file open */
    QCOW2_HINT_SHRINK = 1 << 2,    /* may_shrink of qcow2_resize */
    QCOW2_HINT_CHECK = 1 << 3,     /* a check reports what is wrong */
    QCOW2_HINT_REPAIR = 1 << 4,    /* a check that repairs everything */
    QCOW2_HINT_CONVERT = 1 << 5,   /* copy the disk to a new qcow2 image */
    QCOW2_HINT_VERSION_3 = 1 << 6, /* amend the image to version 3 */
    QCOW2_HINT_MUCH = 1 << 7,      /* may_write_much of qcow2_amend */
    QCOW2_HINT_SNAPSHOTS = 1 << 8, /* QCOW2_SNAPSHOTS_KEEP or _CHANGE */
    QCOW2_HINT_ALLOW = 1 << 9,     /* options.allow with the error's place */
    QCOW2_HINT_BACKING = 1 << 10,  /* options.backing */
    QCOW2_HINT_BACKING_FORMAT = 1 << 11, /* options.backing_format */
    QCOW2_HINT_DECLARE_FORMAT = 1 << 12, /* declare it in the image above, by
                                          * a rebase with header_only */
    QCOW2_HINT_WHICH_SNAPSHOT = 1 << 13, /* "snapshot.id=" before a word */
};

/* An errno, one sentence without a final newline, and what helps (a mask of
 * enum qcow2_hint, 0 if nothing does). Names that come from an image are
 * escaped in the text: it is safe on a terminal. place is set with
 * QCOW2_HINT_ALLOW: the directory or URI as a word for a shell, in quotes if
 * it needs them; "" if it has bytes that cannot be shown, or too many.
 */
struct qcow2_error {
    int errnum;
    unsigned hints;
    char place[512];
    char text[1024];
};

struct qcow2_pool;
struct qcow2_disk;
struct qcow2_file;

enum qcow2_format {
    QCOW2_FORMAT_AUTO = 0, /* by the file's first bytes */
    QCOW2_FORMAT_QCOW2,
    QCOW2_FORMAT_RAW,
    QCOW2_FORMAT_QCOW, /* version 1 of qcow2: only read */
};

/* "qcow2", "raw", "qcow"; false: another name, *format stays as it is. */
QCOW2_PUBLIC const char *qcow2_format_name(enum qcow2_format format);
QCOW2_PUBLIC bool qcow2_format_find(const char *name,
                                    enum qcow2_format *format);

/* What a write of zeroes becomes. */
enum qcow2_detect_zeroes {
    QCOW2_DETECT_ZEROES_OFF = 0, /* data like any other */
    QCOW2_DETECT_ZEROES_ON,      /* a zero request that keeps the space */
    QCOW2_DETECT_ZEROES_UNMAP,   /* a zero request that frees the space */
};

/* How the host caches a file, and when what was written is durable; the words
 * are QEMU's. Direct I/O goes past the host's cache (O_DIRECT): ENOTSUP where
 * the file system cannot do it; for NBD exports, which the host does not
 * cache, it changes nothing.
 */
enum qcow2_cache {
    QCOW2_CACHE_WRITEBACK = 0, /* durable after a flush */
    QCOW2_CACHE_WRITETHROUGH,  /* each change is durable before the function
                                * returns, as with QCOW2_FUA */
    QCOW2_CACHE_NONE,          /* direct I/O */
    QCOW2_CACHE_DIRECTSYNC,    /* direct I/O, and as WRITETHROUGH */
    QCOW2_CACHE_UNSAFE,        /* flushes and QCOW2_FUA do nothing, so that a
                                * power cut loses whatever was written since
                                * the disk was opened. The image stays valid;
                                * closing it makes all durable */
};

/* The part of a file that an image is. All zero: all of it. Nothing outside of
 * it is read or written, and the image cannot get longer than that (ENOSPC);
 * the file is locked as a whole. size 0: up to the end of the file; then a
 * qcow2 image opens only readonly (EROFS), as it would take what lies behind
 * it for free space of its own.
 */
struct qcow2_window {
    uint64_t offset, size; /* bytes */
};

/* Topics of the debug callback; a mask of these says which are wanted. */
enum {
    QCOW2_DEBUG_OPEN = 1,
    QCOW2_DEBUG_MAP = 2,
    QCOW2_DEBUG_ALLOC = 4,
    QCOW2_DEBUG_FLUSH = 8,
};
typedef void qcow2_debug_fn(void *opaque, unsigned topic, const char *text);

/* What the user should know, though nothing failed: one line, without control
 * characters. Called by whatever thread makes the request, which holds locks of
 * the disk, so that it must not use it. */
typedef void qcow2_warn_fn(void *opaque, const char *text);

/* A pool holds what disks in one process share: the cache of metadata, the
 * cache of decompressed clusters, and read-only backing layers, which are
 * opened once however many overlays stand on them.
 *
 * cache_bytes bounds the cached metadata (L2 tables and refcount blocks) of
 * all disks together; 0 is the default of 32 MiB, enough for 256 GiB of
 * 64 KiB clusters. At least 1 MiB is used. The cache of decompressed
 * clusters has half of that again.
 */
QCOW2_PUBLIC struct qcow2_pool *
qcow2_pool_new(uint64_t cache_bytes, struct qcow2_error *err);

/* All disks opened with the pool must be closed. NULL is fine. */
QCOW2_PUBLIC void qcow2_pool_free(struct qcow2_pool *pool);

/* A file found by its name and held until it is freed: the one that
 * qcow2_options.file opens, whatever becomes of the name. Threads may share
 * it. EPERM if a name in dir_fd, or a link, leads out of that directory. */
QCOW2_PUBLIC struct qcow2_file *
qcow2_find_file(const char *path_or_uri, struct qcow2_error *err);
QCOW2_PUBLIC struct qcow2_file *
qcow2_find_file_in(int dir_fd, const char *name, struct qcow2_error *err);
QCOW2_PUBLIC void qcow2_file_free(struct qcow2_file *file); /* NULL is fine */
struct qcow2_file_id {
    uint64_t dev, ino; /* as stat(2) has them, but of a block device the same
                        * for all of its nodes; both 0 for a URI */
    const char *name;  /* in its directory, not of a link; held as long */
};
QCOW2_PUBLIC struct qcow2_file_id
qcow2_file_get_id(const struct qcow2_file *file);

/* The same of a file that the caller looked at; name is NULL. */
struct stat;
QCOW2_PUBLIC struct qcow2_file_id
qcow2_stat_get_id(const struct stat *st);

/* The files of which a flush has failed: one for a process, given to every
 * call that takes it. After a failed flush the kernel may count as written
 * what is not on the disk, so with it such a file never opens for writing
 * again (EIO): it takes another process, once the storage works. It opens
 * readonly, and reads as it is on the disk. NULL: nothing is remembered.
 */
struct qcow2_failures;
QCOW2_PUBLIC struct qcow2_failures *
qcow2_failures_new(struct qcow2_error *err);

/* Locking may fail, too: where the file system or the kernel keeps no locks,
 * files are opened without, and nothing holds other programs off. fn is called
 * with the name of the first such file (safe on a terminal), once, by the
 * thread that opens it. NULL: nobody is told.
 */
typedef void qcow2_unlocked_fn(void *opaque, const char *name);
QCOW2_PUBLIC void
qcow2_failures_report_unlocked(struct qcow2_failures *failures,
                               qcow2_unlocked_fn *fn, void *opaque);

/* All that was opened with it must be closed. NULL is fine. */
QCOW2_PUBLIC void qcow2_failures_free(struct qcow2_failures *failures);

/* How to open a disk. All zero (with fd -1) is a sensible default:
 * QCOW2_OPTIONS_INIT. Strings are copied. */
struct qcow2_options {
    enum qcow2_format format; /* AUTO refuses files that are neither qcow2
                               * nor qcow unless probe_raw is set */
    bool probe_raw;           /* AUTO takes other files as raw; writes that
                               * would make such a file look like another
                               * format then fail with EPERM */
    bool readonly;
    bool no_lock;             /* take no locks and respect none */
    bool no_lock_backing;     /* the same, of backing files alone */
    int fd;                   /* use this descriptor instead of opening
                               * path (it is duplicated), or -1 */
    const struct qcow2_file *file; /* instead of path, or NULL */
    struct qcow2_window window; /* of the disk's own file */

    /* The backing chain. backing_none: as if the image named none.
     * backing: this file instead of the one the image names; trusted, as
     * the user named it. backing_format: of the immediate backing file,
     * instead of what the image declares. Where that makes another disk of
     * the image, resize, preallocate, amend, commit and rebase refuse
     * (EINVAL): what they write would stay.
     */
    bool backing_none;
    const char *backing;
    enum qcow2_format backing_format;

    /* Backing files named by images are opened only if they lie in the
     * directory of the image that names them (of its file, not of a link; a
     * block device has none), or below one of these. "/" allows every local
     * path, "/proc/self/fd/N" what is open there, an NBD URI those that begin
     * with it, and a file that one file. trust_backing: the user chose the
     * name that the disk itself has for its backing file, so that it needs
     * none of this. Data files are opened by the same rules;
     * trust_data_file: the user chose the disk's. shared_dir: the directory
     * has images of several owners, none of which may have others' files
     * written: a data file in it is opened for writing only by `allow`. */
    const char *const *allow;
    size_t nr_allow;
    bool trust_backing, trust_data_file, shared_dir;
    const char *data_file;    /* where the disk's is, instead of what the image
                               * says: relative to its directory, trusted */

    enum qcow2_cache cache;   /* of the disk's own file, */
    enum qcow2_cache backing_cache; /* and of those below it, unless the pool
                               * has them open: only the host's cache
                               * matters, as they are not written */

    bool no_discard;          /* trim and freed clusters keep host space */
    enum qcow2_detect_zeroes detect_zeroes;

    /* NBD: how long a server may take to accept a connection, and to answer a
     * request that reads. 0: 30 seconds. Large reads may take longer, in
     * proportion to their size, and requests that change the export ten times
     * as long, as a flush may have to wait for a disk. A server that is too
     * late counts as lost.
     */
    unsigned nbd_timeout_ms;

    struct qcow2_pool *pool;  /* or NULL: a pool of its own */
    struct qcow2_failures *failures; /* the process's, or NULL */
    const struct io_driver *driver; /* for tests of the engine
                               * (storage/io-open.h); or NULL */

    qcow2_warn_fn *warn;      /* or NULL */
    void *warn_opaque;
    qcow2_debug_fn *debug;    /* or NULL */
    unsigned debug_topics;
    void *debug_opaque;
};

#define QCOW2_OPTIONS_INIT { .fd = -1 }

/* Directories and NBD URIs for the allow of any options, as users and
 * administrators write them down for every command: add takes the value of a
 * variable, separated by colons; read the lines of a file (at an absolute
 * path), if it exists, where '#' begins a comment. What is neither an
 * absolute path nor an NBD URI is left out: the rest is taken, and the result
 * is -1 (EINVAL). Directories that do not exist are left out silently. A file
 * that others than root can write (EPERM), itself or by its directory, is
 * left out. names is NULL, with nr 0, at first, to be freed in the end.
 */
#define QCOW2_ALLOW_FILE "/etc/nbdkit-qcow2/allow"
struct qcow2_allow_list {
    const char **names;
    size_t nr;
};
QCOW2_PUBLIC int qcow2_allow_list_add(struct qcow2_allow_list *list,
                                      const char *text,
                                      struct qcow2_error *err);
QCOW2_PUBLIC int qcow2_allow_list_read(struct qcow2_allow_list *list,
                                       const char *path,
                                       struct qcow2_error *err);
QCOW2_PUBLIC void qcow2_allow_list_free(struct qcow2_allow_list *list);

/* Opens path, which may be an NBD URI. A writable open of an image whose
 * dirty bit is set repairs its refcounts first (specification, "Header":
 * incompatible_features bit 0). An image whose corrupt bit is set opens only
 * readonly (EROFS).
 * The disk is the caller's, to be closed by qcow2_close.
 */
QCOW2_PUBLIC struct qcow2_disk *
qcow2_open(const char *path, const struct qcow2_options *options,
           struct qcow2_error *err);

/* A read-only disk of an internal snapshot of disk, with the snapshot's own
 * size (specification, "Snapshot table entry": disk size). disk may be closed
 * before or after.
 *
 * word means the snapshot whose name or id it is. "snapshot.id=ID",
 * "snapshot.name=NAME" and "snapshot.id=ID,snapshot.name=NAME" mean the one
 * with that id, that name, or both; what follows "snapshot.name=" is the name
 * whatever it is. ENOENT if there is none, EINVAL if several are meant: one
 * by its name and another by its id, or two that have the same name.
 */
QCOW2_PUBLIC struct qcow2_disk *
qcow2_open_snapshot(struct qcow2_disk *disk, const char *word,
                    struct qcow2_error *err);

/* Flushes what is left, gives back what was freed, and lets go of the disk
 * in any case. On -1 data since the last successful flush may be lost.
 * The image itself closes with the last disk open on it.
 */
QCOW2_PUBLIC int qcow2_close(struct qcow2_disk *disk,
                             struct qcow2_error *err);

/* Virtual size in bytes. Not necessarily a multiple of anything. */
QCOW2_PUBLIC uint64_t qcow2_get_size(const struct qcow2_disk *disk);

/* Do writes fail with EROFS? */
QCOW2_PUBLIC bool qcow2_is_readonly(const struct qcow2_disk *disk);

/* Can requests of zero be done without writing data? */
QCOW2_PUBLIC bool qcow2_can_fast_zero(const struct qcow2_disk *disk);

/* Bytes of a cluster (of a raw file: 4096). */
QCOW2_PUBLIC uint32_t qcow2_get_cluster_size(const struct qcow2_disk *disk);

/* Bytes of a subcluster with extended L2 entries, else of a cluster: what is
 * data or a hole as a whole, and the size and alignment below which writes cost
 * most.
 */
QCOW2_PUBLIC uint32_t
qcow2_get_subcluster_size(const struct qcow2_disk *disk);

/* Not AUTO. */
QCOW2_PUBLIC enum qcow2_format
qcow2_get_format(const struct qcow2_disk *disk);

/* Flags of the requests below. */
enum {
    QCOW2_FUA = 1,      /* on stable storage before the function returns */
    QCOW2_MAY_TRIM = 2, /* zero: host space may be given back */
    QCOW2_FAST = 4,     /* zero: ENOTSUP, and nothing changed, rather than
                         * write data */
};

/* The requests. Ranges must lie inside the disk (EINVAL otherwise). A write
 * that fails may have been done in part. Requests that overlap in time are
 * done in some order, cluster by cluster.
 */
QCOW2_PUBLIC int qcow2_pread(struct qcow2_disk *disk, void *buf,
                             size_t nr_bytes, uint64_t guest_off,
                             struct qcow2_error *err);
QCOW2_PUBLIC int qcow2_pwrite(struct qcow2_disk *disk, const void *buf,
                              size_t nr_bytes, uint64_t guest_off,
                              unsigned flags, struct qcow2_error *err);

/* The range reads as zeroes afterwards, whatever the backing file holds. */
QCOW2_PUBLIC int qcow2_zero(struct qcow2_disk *disk, uint64_t nr_bytes,
                            uint64_t guest_off, unsigned flags,
                            struct qcow2_error *err);

/* Advice that the range's content is no longer wanted. Whole clusters in
 * it read as zeroes afterwards and their space is freed, as far as the
 * format can say so without showing the backing file; the rest is kept.
 */
QCOW2_PUBLIC int qcow2_trim(struct qcow2_disk *disk, uint64_t nr_bytes,
                            uint64_t guest_off, unsigned flags,
                            struct qcow2_error *err);

/* All requests of all threads that returned before this call are on stable
 * storage when it returns 0. After a failed flush the disk is failed: writes
 * and flushes fail, reads go on until what was not flushed is lost. (But for
 * ENOMEM: then nothing was tried, and another flush may succeed.)
 */
QCOW2_PUBLIC int qcow2_flush(struct qcow2_disk *disk,
                             struct qcow2_error *err);

/* What a range of the disk is, over the whole chain. */
struct qcow2_extent {
    uint64_t guest_off;
    uint64_t nr_bytes;
    bool present; /* a layer says what it is; else it reads as zeroes as
                   * none does, or as the next layer has ended */
    bool hole; /* no space is allocated for it in any layer */
    bool zero; /* it reads as zeroes */
    unsigned depth;     /* layer that decides, or the last one that was asked
                         * if it is not present: 0 the disk itself */
    bool compressed;
    bool has_host_off;  /* data lies at host_off of that layer's file, or of
                         * its data file, if it has one */
    uint64_t host_off;
};

/* Calls fn for consecutive extents from guest_off on, until the range is
 * covered or fn returns non-zero (which is then not an error). No data is
 * read. fn must not call back into the disk.
 */
typedef int qcow2_extent_fn(void *opaque, const struct qcow2_extent *e);
QCOW2_PUBLIC int qcow2_map(struct qcow2_disk *disk, uint64_t nr_bytes,
                           uint64_t guest_off, qcow2_extent_fn *fn,
                           void *opaque, struct qcow2_error *err);

/* Advice that the range will be read soon. */
QCOW2_PUBLIC int qcow2_prefetch(struct qcow2_disk *disk, uint64_t nr_bytes,
                                uint64_t guest_off, struct qcow2_error *err);

/* One internal snapshot (specification, "Snapshots"). id and name live as
 * long as the list or the info that has them; bytes that are not printable
 * are possible in both.
 */
struct qcow2_snapshot {
    const char *id;
    const char *name;
    uint64_t disk_size;      /* bytes; the snapshot's own */
    uint64_t vm_state_size;  /* bytes; 0: no VM state */
    uint32_t date_sec;       /* since the epoch */
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;  /* guest's clock at the snapshot */
    uint64_t icount;         /* UINT64_MAX if unknown */
};

/* Number of internal snapshots: others may change it at any time. */
QCOW2_PUBLIC size_t qcow2_get_nr_snapshots(const struct qcow2_disk *disk);

/* A copy of the image's list of internal snapshots as it is at one moment, in
 * the order of the image. ENOMEM. The caller frees it, whatever became of the
 * disk; none of a list of zeroes is fine.
 */
struct qcow2_snapshot_list {
    size_t nr;
    struct qcow2_snapshot *snapshots;
};
QCOW2_PUBLIC int qcow2_get_snapshots(const struct qcow2_disk *disk,
                                     struct qcow2_snapshot_list *out,
                                     struct qcow2_error *err);

/* The index in the list of the snapshot that qcow2_open_snapshot means by the
 * word; -1: ENOENT or EINVAL, as there. */
QCOW2_PUBLIC long qcow2_find_snapshot(const struct qcow2_snapshot_list *list,
                                      const char *word,
                                      struct qcow2_error *err);
QCOW2_PUBLIC void qcow2_snapshot_list_free(struct qcow2_snapshot_list *list);

/* Does nbr of host file bytes at start look like a disk format other than
 * raw? Returns its name ("qcow2", "vmdk", …) or NULL.
 */
QCOW2_PUBLIC const char *qcow2_probe(const void *start, size_t nr_bytes);

/* Is this part built in? Known names: "zlib", "zstd", "libdeflate",
 * "nbd". */
QCOW2_PUBLIC bool qcow2_has_feature(const char *name);

/* What the file has below its virtual disk. */
enum qcow2_preallocation {
    QCOW2_PREALLOC_OFF = 0,
    QCOW2_PREALLOC_METADATA, /* clusters mapped, not written */
    QCOW2_PREALLOC_FALLOC,   /* and reserved in the file system */
    QCOW2_PREALLOC_FULL,     /* and written with zeroes */
};

/* How to create an image. */
struct qcow2_create_options {
    uint64_t size;            /* virtual size in bytes, rounded up to 512;
                               * with backing and size_from_backing unused */
    bool size_from_backing;
    unsigned version;         /* 2 or 3; 0 is 3 */
    uint32_t cluster_size;    /* power of two, 512 to 2 MiB; 0 is 64 KiB, or
                               * 128 KiB with extended_l2 */
    bool extended_l2;         /* 32 subclusters a cluster, which has at least
                               * 16 KiB (v3) */
    unsigned refcount_bits;   /* 1, 2, 4, … 64; 0 is 16; v2 only 16 */
    bool zstd;                /* compression type zstd instead of zlib */
    bool lazy_refcounts;      /* sets the compatible bit (v3) */
    const char *backing;      /* as stored; relative to path's directory */
    enum qcow2_format backing_format; /* must be said when backing is */
    bool backing_unchecked;   /* it need not be there: it is not opened */
    const char *data_file;    /* as stored; relative to path's directory; made,
                               * or emptied, with the image. NULL: none */
    bool data_file_raw;       /* it is the disk as a raw image */
    bool overwrite;           /* existing files may be replaced */
    enum qcow2_preallocation prealloc; /* without backing, or with
                               * extended_l2, where places for data hide
                               * nothing */
    bool nocow;               /* advice to the file system of a new file: */
    uint32_t extent_size_hint; /* not to copy it on write (Btrfs), and to
                               * allocate so many bytes at once (XFS) */
    const char *const *allow; /* as in qcow2_options, for what backing names
                               * in turn: the user chose backing itself */
    size_t nr_allow;
    uint64_t *size_created;   /* set to the virtual size of the new image;
                               * or NULL */
    struct qcow2_failures *failures; /* the process's, or NULL */
    const struct io_driver *driver; /* as in qcow2_options: makes the file */
};

/* Creates an empty qcow2 image at path. On failure nothing is left behind
 * that was not there before. A backing file may be open elsewhere, for writing
 * too: nothing but its size and format is of interest. */
QCOW2_PUBLIC int qcow2_create(const char *path,
                              const struct qcow2_create_options *options,
                              struct qcow2_error *err);

/* --- Whole images ------------------------------------------------------ */

/* A long operation, done in short steps so that it can be watched, paced
 * and canceled. One thread at a time makes the steps (qcow2_job_step, _run)
 * and frees it; all other functions may be called by any thread meanwhile.
 * Giving it up between steps (qcow2_job_free) leaves every image valid, and
 * doing the operation again later (after a failed flush, in another process)
 * completes it.
 */
struct qcow2_job;

/* The states of a job's life, named as QEMU names them. A job that fails, or is
 * canceled, is concluded from any of them.
 */
enum qcow2_job_status {
    QCOW2_JOB_CREATED,   /* no step was made */
    QCOW2_JOB_RUNNING,
    QCOW2_JOB_PAUSED,    /* steps do nothing until it is resumed */
    QCOW2_JOB_READY,     /* could end, and goes on until qcow2_job_complete */
    QCOW2_JOB_WAITING,   /* all is done but the end */
    QCOW2_JOB_PENDING,   /* the same: nothing but qcow2_job_finalize is missing,
                          * if it is manual */
    QCOW2_JOB_CONCLUDED, /* ended: it can only be freed */
};
QCOW2_PUBLIC enum qcow2_job_status qcow2_job_get_status(struct qcow2_job *job);

/* The word for it in QEMU's protocol, such as "created". */
QCOW2_PUBLIC const char *qcow2_job_status_name(enum qcow2_job_status status);

/* Requests, which the next step sees; asking twice is fine. Pausing takes
 * effect before the next step, canceling too: that step fails with ECANCELED.
 */
QCOW2_PUBLIC void qcow2_job_pause(struct qcow2_job *job);
QCOW2_PUBLIC void qcow2_job_resume(struct qcow2_job *job);
QCOW2_PUBLIC void qcow2_job_cancel(struct qcow2_job *job);

/* Has a job that is ready end (EINVAL in any other state). */
QCOW2_PUBLIC int qcow2_job_complete(struct qcow2_job *job,
                                    struct qcow2_error *err);

/* manual: a job whose work is done stays pending until qcow2_job_finalize
 * (EINVAL in any other state). To be set before it can be so far.
 */
QCOW2_PUBLIC void qcow2_job_set_manual_finalize(struct qcow2_job *job,
                                                bool manual);
QCOW2_PUBLIC int qcow2_job_finalize(struct qcow2_job *job,
                                    struct qcow2_error *err);

/* One step: 1 if there is more to do, 0 when all is done and durable, -1 on
 * failure. 1 too where nothing was done, as the job is paused or pending.
 * EINVAL after 0 or -1.
 */
QCOW2_PUBLIC int qcow2_job_step(struct qcow2_job *job,
                                struct qcow2_error *err);

/* All steps. progress (or NULL) is called between them with how far it is, 0 <=
 * done <= total in units of the operation's own; when it returns not 0 the job
 * fails with ECANCELED. While the job is paused or pending it waits
 * for another thread's request.
 */
typedef int qcow2_progress_fn(void *opaque, uint64_t done, uint64_t total);
QCOW2_PUBLIC int qcow2_job_run(struct qcow2_job *job,
                               qcow2_progress_fn *progress, void *opaque,
                               struct qcow2_error *err);

/* Ends a job, finished or not. NULL is fine. */
QCOW2_PUBLIC void qcow2_job_free(struct qcow2_job *job);

/* Internal snapshots of a disk that is open for writing (specification,
 * "Snapshots"). Requests wait meanwhile; the time is proportional to the
 * metadata touched, not to the data. On failure, and at every crash point,
 * the image has the snapshots and the content of before or after. A word is
 * looked up as by qcow2_open_snapshot.
 *
 * Create: name may be taken already (as with QEMU), must not be empty, and
 * at most 255 bytes long; date_* and vm_clock_nsec are stored as given. The new
 * snapshot has the lowest id above all numeric ones. ENOTSUP when a
 * refcount would overflow its width: nothing is changed then.
 */
struct qcow2_snapshot_create_options {
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    /* VM state (for instance a QEMU migration stream): read by vm_state,
     * which returns the bytes read (0 at the end, -1 on failure with errno
     * set); NULL for none. */
    long (*vm_state)(void *opaque, void *buf, size_t nr_bytes);
    void *opaque;
};
QCOW2_PUBLIC int
qcow2_snapshot_create(struct qcow2_disk *disk, const char *name,
                      const struct qcow2_snapshot_create_options *options,
                      struct qcow2_error *err);

/* The disk becomes what it was at the snapshot, in content and size. */
QCOW2_PUBLIC int qcow2_snapshot_apply(struct qcow2_disk *disk,
                                      const char *word,
                                      struct qcow2_error *err);

/* EBUSY while a disk of the snapshot is open. */
QCOW2_PUBLIC int qcow2_snapshot_delete(struct qcow2_disk *disk,
                                       const char *word,
                                       struct qcow2_error *err);

/* Reads VM state of a disk that qcow2_open_snapshot gave. nr_bytes at off
 * must lie inside vm_state_size. EIO if the snapshot's L1 table has no room
 * for so much.
 */
QCOW2_PUBLIC int qcow2_read_vm_state(struct qcow2_disk *snapshot, void *buf,
                                     size_t nr_bytes, uint64_t off,
                                     struct qcow2_error *err);

/* The run of VM state at off (< vm_state_size): sets *nr_bytes to its length,
 * at least 1, and *zero to whether nothing is stored for it, so that it reads
 * as zeroes. A state that has more other bytes than its image's file is long
 * repeats clusters, which no program stores so.
 */
QCOW2_PUBLIC int qcow2_map_vm_state(struct qcow2_disk *snapshot, uint64_t off,
                                    uint64_t *nr_bytes, bool *zero,
                                    struct qcow2_error *err);

/* Changes the virtual size. New space reads as zeroes whatever a longer
 * backing file holds there. Without may_shrink a smaller size is EINVAL;
 * with it what lies beyond is discarded. Snapshots keep their own size;
 * version 2 images that have any cannot be resized (ENOTSUP).
 */
QCOW2_PUBLIC int qcow2_resize(struct qcow2_disk *disk, uint64_t size,
                              bool may_shrink, struct qcow2_error *err);

/* Gives every cluster of a range that has none, and does not show the
 * backing file, a place in the file. It reads as zeroes still. Requests that
 * come meanwhile wait, those to a raw disk for a part of it at a time. OFF
 * gives places only where other programs expect them: in a raw data file,
 * after growing.
 */
QCOW2_PUBLIC int qcow2_preallocate(struct qcow2_disk *disk,
                                   uint64_t nr_bytes, uint64_t guest_off,
                                   enum qcow2_preallocation mode,
                                   struct qcow2_error *err);

/* --- Commit, rebase, convert, compare, measure --------------------------
 *
 * Jobs below open what they are told to by path themselves, lock it as long
 * as they live, and close it with their last step, which so tells of every
 * failure; options->fd, readonly and pool are not used. options->cache is for
 * all that they write; no cache mode makes them leave out a barrier which what
 * is there depends on. Their progress counts
 * guest bytes to be copied. Disks given to a job must stay open until it is
 * freed. A path may be an NBD URI (nbd://, nbds://,
 * nbd+unix://, …) wherever qcow2_open takes one: it is a raw disk.
 */

/* What becomes of internal snapshots of an overlay, which read from its
 * backing file what they left to it, when that comes to read differently.
 */
enum qcow2_left_to_backing {
    QCOW2_SNAPSHOTS_REFUSE = 0, /* the job fails (ENOTEMPTY) before anything
                                 * is changed, if any would */
    QCOW2_SNAPSHOTS_KEEP,       /* what they read is copied into the image
                                 * first, for each snapshot of its own */
    QCOW2_SNAPSHOTS_CHANGE,     /* they read differently, as with QEMU */
};

/* Commit: writes what the image at path, and the layers between it and the
 * base, hold into the base, which grows if it is shorter; what reads as
 * zeroes there does so in the base. Then the image is emptied; its snapshots
 * stay.
 *
 * It is not emptied when keep is set, nor when there are layers between it
 * and the base (they would show through). Those layers, and other overlays
 * on the base, read differently afterwards: the image itself never does, at
 * no point, and doing it again after it was interrupted completes it.
 *
 * options: how to open the image; backing can only be the backing file that
 * it names.
 */
struct qcow2_commit_options {
    const char *base; /* a file in the chain; NULL: the image's own backing
                       * file */
    bool keep;
    enum qcow2_left_to_backing snapshots;
};
QCOW2_PUBLIC struct qcow2_job *
qcow2_commit(const char *path, const struct qcow2_options *options,
             const struct qcow2_commit_options *commit,
             struct qcow2_error *err);

/* Rebase: the image at path gets another backing file, or none, and reads
 * the same: what the old and the new one have different is copied into it
 * first. With header_only nothing is compared, copied or opened but the
 * image itself, whatever its snapshots read then: right only if both have
 * the same content.
 *
 * The new name is the user's own, so it needs no leave; names in the files
 * it leads to are subject to options->allow. options->backing can only be
 * the old backing file.
 */
struct qcow2_rebase_options {
    const char *backing;      /* as stored: relative to path's directory;
                               * NULL: none (all is copied) */
    enum qcow2_format backing_format; /* must be said when backing is */
    bool header_only;
    enum qcow2_left_to_backing snapshots;
};
QCOW2_PUBLIC struct qcow2_job *
qcow2_rebase(const char *path, const struct qcow2_options *options,
             const struct qcow2_rebase_options *rebase,
             struct qcow2_error *err);

/* Creates a raw file that reads as zeroes. Of options only size (as it is),
 * overwrite, failures, prealloc (METADATA is EINVAL), nocow and
 * extent_size_hint are used. On failure nothing is left behind that was not
 * there before.
 */
QCOW2_PUBLIC int qcow2_create_raw(const char *path,
                                  const struct qcow2_create_options *options,
                                  struct qcow2_error *err);

/* Convert: copies disks, one behind the other, to another image. Holes and
 * zeroes are kept, and clusters are compressed if asked for.
 */
struct qcow2_convert_options {
    /* The target: created, unless no_create, with what `create` says but
     * prealloc; its size is that of the sources unless create.size is larger,
     * its mode what all their files allow, 0600 where one has none. A
     * target that the job created is removed if the job does not complete.
     * With create.backing (or no_create and has_backing) only what the top
     * layer of each source holds is copied.
     */
    enum qcow2_format format; /* of the target; AUTO: qcow2 if created */
    struct qcow2_create_options create;
    enum qcow2_preallocation prealloc; /* before copying */
    bool no_create;
    bool has_backing;
    bool target_is_zero;      /* no_create: it reads as zeroes already */
    const struct qcow2_options *open; /* how to open the target, or NULL:
                               * pool, allow, no_lock, no_discard, cache,
                               * window (with no_create), warn, debug.
                               * Cache UNSAFE makes nothing of a target that
                               * the job creates durable: a power cut may
                               * leave half of it */

    bool compress;            /* as the target's compression type says */
    int compress_level;       /* 0: the library's default */
    bool allocate_all;        /* zeroes are allocated too (-S 0) */
    uint32_t sparse_bytes;    /* shortest run of zeroes in data that becomes
                               * a hole; 0: 4096 */
    unsigned nr_threads;      /* 0: as many as make sense; at most 64 */
    bool out_of_order;        /* clusters land as they come */
    bool ignore_read_errors;  /* what cannot be read becomes zeroes */

    uint64_t skip_bytes;      /* of the sources, left out */
    bool has_nr_bytes;        /* of what follows, only */
    uint64_t nr_bytes;        /* so many, at most */
    /* The bitmaps of the source, which is a single image of version 3, come
     * too, disabled ones disabled. One that is in use, so wrong, ends that
     * before it begins (EBUSY), or is left out with a warning. */
    bool bitmaps, skip_broken_bitmaps;
};
QCOW2_PUBLIC struct qcow2_job *
qcow2_convert(struct qcow2_disk *const *sources, size_t nr_sources,
              const char *target,
              const struct qcow2_convert_options *options,
              struct qcow2_error *err);

/* Compare: do two disks read the same? *result is filled by the step that
 * returns 0. Past its end the shorter one counts as zeroes, so sizes may
 * differ in disks that are QCOW2_SAME.
 */
enum qcow2_difference {
    QCOW2_SAME = 0,
    QCOW2_DIFFERENT_SIZE,       /* strict only */
    QCOW2_DIFFERENT_ALLOCATION, /* strict only: hole, zero or data */
    QCOW2_DIFFERENT_CONTENT,
};
struct qcow2_compare_result {
    enum qcow2_difference difference;
    bool sizes_differ;
    uint64_t guest_off; /* of the first difference but in size: of the
                         * sector with it */
};
QCOW2_PUBLIC struct qcow2_job *
qcow2_compare(struct qcow2_disk *a, struct qcow2_disk *b, bool strict,
              struct qcow2_compare_result *result, struct qcow2_error *err);

/* Measure: what a new image needs in host bytes: for source's content as it
 * is, and when all of it is written. What is then made is not larger, but may
 * be smaller: metadata is counted as of all of it, places that a refcount
 * table moves from as lost, and compressed clusters as others. Blocks of
 * zeroes that are copied as data need what all of it does.
 * The size is that of source, or create.size if that is larger. Of
 * create only version, cluster_size, refcount_bits, backing and sizes are
 * used; nothing is opened. Bitmaps are not counted.
 */
struct qcow2_measure_options {
    enum qcow2_format format; /* AUTO: qcow2 */
    struct qcow2_create_options create;
    enum qcow2_preallocation prealloc;
};
struct qcow2_measure {
    uint64_t required;
    uint64_t fully_allocated;
};
QCOW2_PUBLIC int
qcow2_measure(struct qcow2_disk *source,
              const struct qcow2_measure_options *options,
              struct qcow2_measure *result, struct qcow2_error *err);

/* --- What a disk is made of -------------------------------------------- */

/* One file of a disk's chain. Names from images may hold bytes that are not
 * printable. qcow2_get_info tells more.
 */
struct qcow2_layer {
    enum qcow2_format format;
    uint64_t size;      /* virtual */
    uint64_t file_size; /* length of its file, holes included */
    uint64_t allocated; /* bytes it takes from its file system; 0 where that
                         * cannot be known (NBD) */
    size_t nr_snapshots;
    char name[1024];            /* as messages have it: escaped, maybe cut */
    char backing[1024];         /* as stored; empty: none */
    char data_file[1024];       /* as stored; it has all guest data. Empty:
                                 * none, or it does not say which */
    char backing_format[64];    /* as declared, the start of it; empty: not
                                 * declared */
};

/* Layer 0 is the disk itself. */
QCOW2_PUBLIC unsigned qcow2_get_nr_layers(const struct qcow2_disk *disk);
QCOW2_PUBLIC int qcow2_get_layer(const struct qcow2_disk *disk,
                                 unsigned layer, struct qcow2_layer *out,
                                 struct qcow2_error *err);

/* What a layer contributes, in guest bytes; reads tables, not data. */
struct qcow2_layer_usage {
    uint64_t own;     /* data or zeroes here, not left to the layer below */
    uint64_t visible; /* of those, not hidden by a layer above */
    uint64_t added;   /* data for which the next layer has no place: about
                       * what it would grow by if this one was committed */
};
QCOW2_PUBLIC int qcow2_get_layer_usage(struct qcow2_disk *disk,
                                       unsigned layer,
                                       struct qcow2_layer_usage *out,
                                       struct qcow2_error *err);

/* --- What a file says of itself ----------------------------------------
 *
 * For showing and judging images, also those that qcow2_open refuses. Reads
 * the header, the snapshot table and the bitmap directory. What the file
 * names (backing_file, data_file) is neither opened nor looked up, unless
 * chain is set; then backing files are opened as qcow2_open would, with
 * options.allow, except that a format nothing declares is guessed.
 */
enum qcow2_feature_kind {
    QCOW2_INCOMPATIBLE = 0, /* numbers of the feature name table */
    QCOW2_COMPATIBLE = 1,
    QCOW2_AUTOCLEAR = 2,
};
struct qcow2_info_feature {
    enum qcow2_feature_kind kind;
    unsigned bit;
    const char *name; /* the specification's, else what the image calls it;
                       * NULL: nobody names it */
    bool known;       /* to the specification, as far as we know it */
};
struct qcow2_info_extension {
    uint32_t type;
    uint32_t nr_bytes;
    const char *name; /* NULL: unknown type */
};
struct qcow2_info_bitmap {
    const char *name;
    uint64_t granularity; /* bytes */
    bool in_use, automatic;
};

/* Strings live as long as the struct does; names from the file may hold
 * bytes that are not printable.
 */
struct qcow2_info {
    const char *path;
    enum qcow2_format format;
    uint64_t virtual_size;
    uint64_t file_size;         /* bytes up to the file's end */
    uint64_t allocated_size;    /* bytes it takes from the file system;
                                 * UINT64_MAX: nobody tells (NBD) */

    uint32_t cluster_size;      /* raw: 0 */
    const char *encryption;     /* NULL: none; "aes", "luks", "unknown" */

    /* qcow2 only; else 0. */
    unsigned version;
    unsigned refcount_bits;     /* 0: the header has no valid width */
    const char *compression;    /* "zlib", "zstd" or "unknown" */
    bool dirty, corrupt, lazy_refcounts, extended_l2;

    const char *backing_file;      /* as stored; NULL: none */
    const char *full_backing_file; /* relative to where path is */
    const char *backing_format;    /* as declared; NULL: not declared */
    bool has_data_file, data_file_raw;
    const char *data_file;         /* as stored; NULL: not stored */
    bool backing_outside;       /* the name leads out of the directory of */
    bool data_file_outside;     /* path, or is not a plain path at all */

    size_t nr_features;         /* feature bits that are set */
    const struct qcow2_info_feature *features;
    size_t nr_extensions;
    const struct qcow2_info_extension *extensions;
    size_t nr_snapshots;
    const struct qcow2_snapshot *snapshots;
    size_t nr_bitmaps;
    const struct qcow2_info_bitmap *bitmaps;

    /* Why qcow2_open refuses the file; errnum is 0 if it does not, as far as
     * the above tells (ENOTSUP: a feature, EIO: damage). */
    struct qcow2_error refusal;

    /* chain: what stands below, or why it cannot be had (errnum not 0). */
    struct qcow2_info *backing;
    struct qcow2_error backing_error;
};
struct qcow2_info_options {
    enum qcow2_format format; /* AUTO: raw unless its first bytes say more */
    bool use_fd;              /* read this descriptor (it is duplicated); */
    int fd;                   /* path is for messages only */
    const struct qcow2_file *file; /* instead of path, or NULL */
    struct qcow2_window window; /* as in qcow2_options */
    bool no_lock;             /* take no locks and respect none */
    bool no_bitmaps;          /* do not read the bitmap directory */
    bool limit_snapshots;     /* read only the first of the snapshots, */
    size_t max_snapshots;     /* at most so many */
    bool chain;
    const char *const *allow; /* as in qcow2_options */
    size_t nr_allow;
    unsigned nbd_timeout_ms;  /* as in qcow2_options */
    struct qcow2_failures *failures; /* the process's, or NULL */
};
QCOW2_PUBLIC struct qcow2_info *
qcow2_get_info(const char *path, const struct qcow2_info_options *options,
               struct qcow2_error *err);

/* The path of the file that a name in the image at image_path means, which need
 * not be there; the caller frees it. NULL: no memory. */
QCOW2_PUBLIC char *qcow2_join_name(const char *image_path, const char *name);

/* With all that stands below it. NULL is fine. */
QCOW2_PUBLIC void qcow2_info_free(struct qcow2_info *info);

/* Changes how an image is stored. Zero keeps what is. Snapshots, content and
 * backing file stay; ENOTSUP, and nothing changed, if they cannot. Going to
 * version 2 needs refcounts of 16 bits, no snapshots, and writes zeroes where
 * version 3 has zero clusters over a backing file: more than
 * QCOW2_AMEND_MAX_ZEROES bytes only if may_write_much.
 */
#define QCOW2_AMEND_MAX_ZEROES (UINT64_C(1) << 30)
enum qcow2_amend { QCOW2_AMEND_KEEP = 0, QCOW2_AMEND_OFF, QCOW2_AMEND_ON };
struct qcow2_amend_options {
    unsigned version;       /* 2 or 3 */
    unsigned refcount_bits; /* 1, 2, 4, … 64 */
    enum qcow2_amend lazy_refcounts;
    enum qcow2_amend data_file_raw; /* EINVAL for ON where it is not */
    const char *data_file;  /* what the data file is called from now on, as
                             * stored; that one is open (qcow2_options). NULL:
                             * as before */
    bool may_write_much;
};
QCOW2_PUBLIC int qcow2_amend(struct qcow2_disk *disk,
                             const struct qcow2_amend_options *options,
                             struct qcow2_error *err);

/* --- Persistent bitmaps --------------------------------------------------
 *
 * A bitmap records which parts of a disk have changed since it was made or
 * cleared, unless it is disabled. Whatever is written to a disk is recorded,
 * from the time it is opened until it is closed; then all is stored, and other
 * programs can use it. A bitmap that was not stored, as its writer crashed, is
 * in use, that is, wrong: it can only be removed.
 *
 * Each of these is done as a whole or not at all, and is durable when it
 * returns 0. ENOENT: there is no such bitmap. EEXIST: there is. ENOTSUP: the
 * image, raw or of version 2, has none. EBUSY: the bitmap is in use. EIO: the
 * image's bitmaps are damaged. granularity is a power of two from 512 bytes to
 * 2 GiB, 0: of a cluster, from 4 to 64 KiB.
 */
QCOW2_PUBLIC int qcow2_bitmap_add(struct qcow2_disk *disk, const char *name,
                                  uint64_t granularity, bool disabled,
                                  struct qcow2_error *err);
QCOW2_PUBLIC int qcow2_bitmap_remove(struct qcow2_disk *disk,
                                     const char *name,
                                     struct qcow2_error *err);
QCOW2_PUBLIC int qcow2_bitmap_clear(struct qcow2_disk *disk,
                                    const char *name,
                                    struct qcow2_error *err);
QCOW2_PUBLIC int qcow2_bitmap_enable(struct qcow2_disk *disk,
                                     const char *name, bool enable,
                                     struct qcow2_error *err);

/* Adds what a bitmap of the same disk, or of another one of the same size,
 * has. */
QCOW2_PUBLIC int qcow2_bitmap_merge(struct qcow2_disk *disk,
                                    const char *name,
                                    struct qcow2_disk *source,
                                    const char *source_name,
                                    struct qcow2_error *err);

/* Calls fn for the ranges of the disk in ascending order, which are dirty and
 * not in turns, until it returns other than 0, which is returned. It must not
 * use the disk. */
typedef int qcow2_bitmap_fn(void *opaque, uint64_t guest_off,
                            uint64_t nr_bytes, bool dirty);
QCOW2_PUBLIC int qcow2_bitmap_dump(struct qcow2_disk *disk, const char *name,
                                   qcow2_bitmap_fn *fn, void *opaque,
                                   struct qcow2_error *err);

/* --- Check and repair ---------------------------------------------------- */

enum qcow2_severity {
    QCOW2_CORRUPTION, /* data or structure is, or will be, damaged */
    QCOW2_LEAK,       /* space in the file that nothing uses */
    QCOW2_INFO,       /* worth knowing */
};

/* One thing that is wrong. Strings are valid during the callback. */
struct qcow2_problem {
    const char *code;      /* short and stable, as "refcount-too-low" */
    const char *text;      /* one sentence, with the numbers */
    enum qcow2_severity severity;
    const char *remedy;    /* what repair does; NULL: nothing it could do
                            * without losing something */
    uint64_t host_off;     /* of the entry or cluster that is wrong */
    uint64_t nr_clusters;  /* with just this problem, from there on */
};
typedef void qcow2_problem_fn(void *opaque, const struct qcow2_problem *p);

/* One write of a repair, before it is made. */
struct qcow2_repair_write {
    uint64_t host_off;
    size_t nr_bytes;
    const void *old_bytes; /* past the file's end: zeroes */
    const void *new_bytes;
    uint64_t file_size;    /* before the write */
    const char *why;       /* a few words */
};
typedef int qcow2_repair_write_fn(void *opaque,
                                  const struct qcow2_repair_write *w);

/* A stretch of the image's metadata: tables and header, in ascending order,
 * each in whole clusters as far as the file has them, and in pieces of at
 * most 64 KiB. bytes NULL: all zeroes, and any length. -1 ends the check
 * (ECANCELED).
 */
typedef int qcow2_metadata_fn(void *opaque, uint64_t host_off,
                              uint64_t nr_bytes, const void *bytes);

enum qcow2_repair {
    QCOW2_REPAIR_NONE = 0,
    QCOW2_REPAIR_LEAKS, /* only what leaks is given back */
    QCOW2_REPAIR_ALL,
};

struct qcow2_check_options {
    enum qcow2_repair repair;
    bool data;      /* decompress all compressed clusters, too */
    bool plan;      /* say by `write` what would be written; write nothing */
    bool no_lock;
    enum qcow2_cache cache; /* as in qcow2_options */
    struct qcow2_window window; /* as in qcow2_options */
    const struct qcow2_file *file; /* instead of path, or NULL */
    struct qcow2_failures *failures; /* the process's, or NULL */

    /* All may be NULL. problem: called for each problem found first, then,
     * if something was repaired, with recheck, for each that is left.
     * write: called before each write of a repair; when it returns not 0,
     * the repair ends there (ECANCELED). To undo a repair, put old_bytes
     * back in reverse order and cut the file to the first file_size. So
     * that this survives a power cut, what `write` keeps must be durable
     * before the image changes: settle is called before any of the writes
     * announced since its last call is made, many of them together; not 0
     * ends the repair. Without settle each is made as soon as `write`
     * returns. metadata: called for all metadata before the first write of
     * a repair that has something to do, or after a check without repair.
     * progress: not 0 cancels, a repair too, between two writes.
     */
    qcow2_problem_fn *problem;
    void (*recheck)(void *opaque);
    qcow2_repair_write_fn *write;
    int (*settle)(void *opaque);
    qcow2_metadata_fn *metadata;
    qcow2_progress_fn *progress;
    void *opaque;
};

/* Figures have the names and meanings of qemu-img check --output=json. */
struct qcow2_check_result {
    uint64_t image_end_offset;
    uint64_t total_clusters, allocated_clusters;
    uint64_t fragmented_clusters, compressed_clusters;
    uint64_t corruptions, leaks;             /* left when it returned */
    uint64_t corruptions_fixed, leaks_fixed;
};

/* Checks the qcow2 image at path, and repairs it if told to. -1 if that
 * could not be done to the end; an image with problems is not an error.
 * Backing files are not looked at. Nothing is ever written unless repair
 * is set and plan is not. A repair that is cut short leaves the image no
 * worse than it was.
 */
QCOW2_PUBLIC int qcow2_check(const char *path,
                             const struct qcow2_check_options *options,
                             struct qcow2_check_result *result,
                             struct qcow2_error *err);

#endif /* QCOW2_H */
