/*
 * Appends records from C and reads them back.
 *
 *     cc append.c -I../include -L<target dir>/release -lforeshadow_wal -o append && ./append <path of a log>
 */
#include <stdio.h>
#include <string.h>

#include "foreshadow_wal.h"

static int failed(const char *what, const foreshadow_error *error) {
    fprintf(stderr, "%s: %s (code %d)\n", what, error->message, error->code);
    return 1;
}

int main(int argc, char **argv) {
    foreshadow_error error = {0};
    foreshadow_options options = {.size = sizeof options, .segment_bytes = 65536, .id = 42};
    foreshadow_record records[2] = {
        {.data = "hello", .len = 5, .kind = 1},
        {.data = "from C", .len = 6, .kind = 2},
    };
    foreshadow_record record;
    foreshadow_log *log;
    foreshadow_scan *scan;
    int32_t code;

    if (argc != 2) {
        fprintf(stderr, "usage: append LOG\n");
        return 2;
    }
    if (foreshadow_log_open(argv[1], &options, &log, &error)) return failed("open", &error);
    if (foreshadow_log_append(log, records, 2, &error)) return failed("append", &error);
    if (foreshadow_log_position(log) <= records[1].lsn) return 1;
    if (foreshadow_log_append(NULL, records, 2, &error) != FORESHADOW_ARGUMENT) return 1;
    if (foreshadow_log_release(log, records[0].lsn, &error)) return failed("release", &error);
    foreshadow_log_close(log);

    if (foreshadow_scan_open(argv[1], 0, &scan, &error)) return failed("scan", &error);
    while ((code = foreshadow_scan_next(scan, &record, &error)) == FORESHADOW_OK)
        printf("%llu kind %u: %.*s\n", (unsigned long long)record.lsn, record.kind,
               (int)record.len, (const char *)record.data);
    foreshadow_scan_close(scan);
    return code == FORESHADOW_END ? 0 : failed("next", &error);
}
