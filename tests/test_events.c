// TensorBoard's event files, byte by byte.
#include "check.h"
#include "train/events.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t little(const uint8_t *at) { return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24; }

// Records follow each other with the lengths and sums that readers check; one says the value that was given.
static void test_events(void) {
    CHECK(crc32c("123456789", 9) == 0xe3069283, "CRC-32C is %08x", crc32c("123456789", 9));
    char folder[] = "test-events-XXXXXX";
    struct Events e;
    const struct EventScalar scalars[] = {{"a/b", 0.5}, {"nan", NAN}};
    if (!CHECK(mkdtemp(folder) && events_open(&e, folder, 7) && events_scalars(&e, 300, scalars, 2), "%s", fail_last()))
        return;
    uint8_t *data = NULL;
    uint64_t bytes = 0, at = 0, records = 0;
    CHECK(file_read(e.path, 1 << 20, &data, &bytes), "%s", fail_last());
    for (; at + 12 <= bytes; records++) {
        uint32_t n = little(data + at), sums[2] = {crc32c(data + at, 8), crc32c(data + at + 12, n)};
        for (int i = 0; i < 2; i++)
            sums[i] = (sums[i] >> 15 | sums[i] << 17) + 0xa282ead8;
        CHECK(little(data + at + 8) == sums[0] && little(data + at + 12 + n) == sums[1], "sums of record %llu",
              (unsigned long long)records);
        // time (9 bytes), step 300 (3), summary { value { "a/b", 0.5 } }
        static const uint8_t last[] = {0x10, 0xac, 0x02, 0x2a, 0x0c, 0x0a, 0x0a, 0x0a, 0x03,
                                       'a',  '/',  'b',  0x15, 0,    0,    0,    0x3f};
        CHECK(records != 2 || (n == 9 + sizeof last && memcmp(data + at + 12 + 9, last, sizeof last) == 0),
              "a record of %u bytes", n);
        at += 16 + n;
    }
    CHECK(at == bytes && records == 3, "%llu records in %llu bytes", (unsigned long long)records,
          (unsigned long long)bytes);
    unlink(e.path);
    events_close(&e);
    rmdir(folder);
    free(data);
    fail_quiet(true);
    CHECK(!events_open(&e, "no/such/folder", 1) && strstr(fail_last(), "no/such/folder"), "'%s'", fail_last());
    fail_quiet(false);
}

int main(void) {
    test_events();
    return check_done();
}
