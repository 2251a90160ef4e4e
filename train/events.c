// The wire format by hand: a message is built in one buffer and then framed.
#include "train/events.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Fields of the messages Event, SessionLog, Summary and Summary.Value.
enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SESSION_STATUS = 1, SESSION_START = 1, SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2 };

// ---- Protocol buffers ----

struct Wire {
    uint8_t bytes[2048];
    size_t n;
};
enum WireType { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static void put_bytes(struct Wire *w, const void *data, size_t n) {
    assert(n <= sizeof w->bytes - w->n); // a handful of scalars with short names
    memcpy(w->bytes + w->n, data, n);
    w->n += n;
}

static void put_varint(struct Wire *w, uint64_t value) {
    uint8_t out[10];
    size_t n = 0;
    do {
        out[n++] = (uint8_t)((value & 127) | (value > 127 ? 128 : 0));
        value >>= 7;
    } while (value);
    put_bytes(w, out, n);
}

static void put_little(struct Wire *w, uint64_t value, size_t bytes) {
    uint8_t out[8];
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> 8 * i);
    put_bytes(w, out, bytes);
}

static void put_key(struct Wire *w, unsigned field, enum WireType type) { put_varint(w, field << 3 | type); }

static void put_part(struct Wire *w, unsigned field, const void *data, size_t n) {
    put_key(w, field, WIRE_BYTES);
    put_varint(w, n);
    put_bytes(w, data, n);
}

static void put_head(struct Wire *w, uint64_t step) {
    struct timespec now;
    uint64_t bits;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    memcpy(&bits, &seconds, sizeof bits);
    put_key(w, EVENT_TIME, WIRE_64);
    put_little(w, bits, 8);
    put_key(w, EVENT_STEP, WIRE_VARINT);
    put_varint(w, step);
}

static void put_scalar(struct Wire *w, const struct EventScalar *s) {
    struct Wire value = {.n = 0};
    uint32_t bits;
    float f = (float)s->value;
    memcpy(&bits, &f, sizeof bits);
    put_part(&value, VALUE_TAG, s->tag, strlen(s->tag));
    put_key(&value, VALUE_SIMPLE, WIRE_32);
    put_little(&value, bits, 4);
    put_part(w, SUMMARY_VALUE, value.bytes, value.n);
}

// ---- Records ----

uint32_t crc32c(const void *data, size_t bytes) {
    static uint32_t table[256];
    const uint8_t *at = data;
    uint32_t crc = 0xffffffff;
    for (uint32_t i = 0; table[255] == 0 && i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78 : 0);
    }
    for (size_t i = 0; i < bytes; i++)
        crc = crc >> 8 ^ table[(crc ^ at[i]) & 255];
    return ~crc;
}

// TensorFlow masks a CRC, because the CRC of data that hold their own CRC is a poor one.
static uint32_t masked_crc(const void *data, size_t bytes) {
    uint32_t crc = crc32c(data, bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8;
}

static bool write_record(struct Events *e, const struct Wire *w) {
    struct Wire frame = {.n = 0};
    errno = 0; // of a write before this one it may be another's by now
    put_little(&frame, w->n, 8);
    put_little(&frame, masked_crc(frame.bytes, 8), 4);
    fwrite(frame.bytes, 1, frame.n, e->file);
    fwrite(w->bytes, 1, w->n, e->file);
    frame.n = 0;
    put_little(&frame, masked_crc(w->bytes, w->n), 4);
    fwrite(frame.bytes, 1, frame.n, e->file);
    return (fflush(e->file) == 0 && !ferror(e->file)) ||
           fail("%s: cannot be written: %s", e->path, strerror(errno ? errno : EIO));
}

bool events_open(struct Events *e, const char *dir, uint64_t first_step) {
    static const char version[] = "brain.Event:2";
    // TensorBoard reads the files of a folder in the order of their names.
    char *name = xsprintf("events.out.tfevents.%010lld.%07ld", (long long)time(NULL), (long)getpid());
    *e = (struct Events){.path = path_join(dir, name)};
    free(name);
    e->file = fopen(e->path, "ab");
    if (!e->file) {
        fail("%s: %s", e->path, strerror(errno));
        events_close(e);
        return false;
    }
    struct Wire w = {.n = 0};
    put_head(&w, 0);
    put_part(&w, EVENT_VERSION, version, strlen(version));
    if (!write_record(e, &w))
        return false;
    // What files before this one say of these steps is taken back: of all, where a run begins anew in the folder of one that was stopped.
    struct Wire session = {.n = 0};
    put_key(&session, SESSION_STATUS, WIRE_VARINT);
    put_varint(&session, SESSION_START);
    w.n = 0;
    put_head(&w, first_step > 1 ? first_step : 0); // held-out losses before the first step are of step 0
    put_part(&w, EVENT_SESSION, session.bytes, session.n);
    return write_record(e, &w);
}

bool events_scalars(struct Events *e, uint64_t step, const struct EventScalar *scalars, size_t n) {
    struct Wire w = {.n = 0}, summary = {.n = 0};
    for (size_t i = 0; i < n; i++)
        if (isfinite(scalars[i].value))
            put_scalar(&summary, &scalars[i]);
    put_head(&w, step);
    put_part(&w, EVENT_SUMMARY, summary.bytes, summary.n);
    return write_record(e, &w);
}

void events_close(struct Events *e) {
    if (e->file)
        fclose(e->file);
    free(e->path);
    *e = (struct Events){0};
}
