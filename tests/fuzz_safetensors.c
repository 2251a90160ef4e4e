// Fuzz target: any bytes as a safetensors file. What opens must be readable from end to end.
#include "model/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    struct Safetensors s;
    if (!safetensors_open_memory(&s, data, bytes, "fuzz"))
        return 0;
    uint64_t total = 0;
    for (uint32_t i = 0; i < s.n_entries; i++) {
        const struct SafetensorsEntry *e = &s.entries[i];
        uint8_t *copy = xmalloc(e->bytes);
        if (safetensors_find(&s, e->name) != e || !safetensors_read(&s, e, 0, e->bytes, copy) ||
            safetensors_read(&s, e, 1, e->bytes, copy))
            abort();
        total += e->bytes;
        free(copy);
    }
    if (total > bytes)
        abort();
    safetensors_metadata(&s, "format");
    safetensors_close(&s);
    return 0;
}
