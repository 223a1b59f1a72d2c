/*
 * The native change log of Foreshadow: append records that are durable when the call returns, can be
 * fenced, and are replicated by the sidecar without touching your threads.
 *
 * Threads: a log may be used by any number of threads at once; appends of several threads share one
 * write. A scan belongs to one thread at a time. One process appends to a log at a time.
 *
 * Errors: every function that can fail returns 0 or one of FORESHADOW_*, and fills *error if it is
 * not NULL. An append that failed was not acknowledged: the record may or may not be in the log,
 * except with FORESHADOW_NOT_MIRRORED, where it is durable here.
 *
 * Link with -lforeshadow_wal.
 */
#ifndef FORESHADOW_WAL_H
#define FORESHADOW_WAL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FORESHADOW_OK = 0,
    FORESHADOW_SYSTEM = 1,       /* error->system is errno */
    FORESHADOW_IN_USE = 2,       /* another process appends to it */
    FORESHADOW_SEALED = 3,       /* it belongs to another node now */
    FORESHADOW_LEASE_OVER = 4,   /* the sidecar is dead or frozen */
    FORESHADOW_NOT_MIRRORED = 5, /* durable here, no mirror confirmed it in time */
    FORESHADOW_TOO_LONG = 6,     /* the batch fits no segment */
    FORESHADOW_DAMAGED = 7,      /* acknowledged bytes are not what was written */
    FORESHADOW_GONE = 8,         /* the log does not reach back so far */
    FORESHADOW_VERSION = 9,      /* written by a newer version */
    FORESHADOW_NOT_A_LOG = 10,
    FORESHADOW_BROKEN = 11,      /* an earlier write failed: close it and open it again */
    FORESHADOW_NO_SPACE = 12,    /* nothing was written; release segments or make room */
    FORESHADOW_ARGUMENT = 13,    /* NULL, or text that is not UTF-8 */
    FORESHADOW_PANIC = 14,       /* a bug in the library; close the log */
    FORESHADOW_END = 15          /* no more records now; ask again later */
};

typedef struct foreshadow_error {
    int32_t code;
    int32_t system;
    char message[248]; /* what, where, why; ends with 0 */
} foreshadow_error;

typedef struct foreshadow_options {
    uint32_t size;              /* sizeof(foreshadow_options) */
    uint32_t segment_bytes;     /* 0: 4 MiB; counts when the log is made */
    uint32_t groups_in_flight;  /* 0: 2 */
    uint32_t mirror_timeout_ms; /* 0: an append returns when it is durable here */
    uint64_t id;                /* partition id, counts when the log is made */
    uint32_t must_exist;        /* 1: fails where there is no log, instead of making one */
    uint32_t zero;              /* 0, for later versions */
} foreshadow_options;

typedef struct foreshadow_record {
    uint64_t lsn; /* where it lies; not read by appends */
    const void *data;
    size_t len;
    uint16_t kind; /* yours; Foreshadow does not look at it */
} foreshadow_record;

typedef struct foreshadow_log foreshadow_log;
typedef struct foreshadow_scan foreshadow_scan;

/* Opens the log at a path, or makes it. options may be NULL. Where a log is to arrive from another
 * node, set must_exist: an empty log made in its place would be in its way. */
int32_t foreshadow_log_open(const char *path, const foreshadow_options *options,
                            foreshadow_log **log, foreshadow_error *error);

/* Appends records that are there together or not at all; returns when they are durable. Writes the
 * position of each into its lsn. */
int32_t foreshadow_log_append(foreshadow_log *log, foreshadow_record *records, size_t count,
                              foreshadow_error *error);

/* Everything below this position is acknowledged. */
uint64_t foreshadow_log_position(const foreshadow_log *log);

/* Nothing below lsn is needed any more: whole segments below it are used again. */
int32_t foreshadow_log_release(foreshadow_log *log, uint64_t lsn, foreshadow_error *error);

/* Closes the log; no append may be under way. NULL is allowed. */
void foreshadow_log_close(foreshadow_log *log);

/* Reads the log at a path from lsn on, where a record that was acknowledged begins a batch, or
 * from its beginning if lsn is 0. Needs no log to be open. */
int32_t foreshadow_scan_open(const char *path, uint64_t lsn, foreshadow_scan **scan,
                             foreshadow_error *error);

/* The next record. Its data is valid until the next call with this scan. FORESHADOW_END: not yet. */
int32_t foreshadow_scan_next(foreshadow_scan *scan, foreshadow_record *record,
                             foreshadow_error *error);

/* Ends a scan. NULL is allowed. */
void foreshadow_scan_close(foreshadow_scan *scan);

#ifdef __cplusplus
}
#endif

#endif
