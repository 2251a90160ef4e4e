// Fuzz target: any bytes as an importance matrix, in either format. What opens holds finite numbers that are found by name.
#include "model/imatrix.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    struct Imatrix m;
    if (!imatrix_open_memory(&m, data, bytes, "fuzz"))
        return 0;
    for (uint32_t i = 0; i < m.n_entries; i++) {
        if (imatrix_find(&m, m.entries[i].name) != &m.entries[i])
            abort();
        for (uint64_t k = 0; k < m.entries[i].count; k++)
            if (!(m.entries[i].values[k] >= 0) || isinf(m.entries[i].values[k]))
                abort();
    }
    imatrix_close(&m);
    return 0;
}
