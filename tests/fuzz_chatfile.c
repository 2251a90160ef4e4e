// Fuzz target: any bytes as a saved conversation, as they are and with length and checksum put right, so that what they guard is reached.
#include "model/chatfile.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void touch(const uint8_t *data, size_t bytes) {
    struct ChatFile f;
    if (!chatfile_open_memory(&f, data, bytes, "fuzz"))
        return;
    uint64_t words = 0, cache = 0;
    for (uint32_t i = 0; i < f.state.n_messages; i++)
        words += 16 + f.state.messages[i].bytes + UINT64_C(4) * f.state.messages[i].n_ids;
    for (uint32_t i = 0; i < f.state.n_settings; i++)
        words += 8 + strlen(f.state.settings[i].name) + strlen(f.state.settings[i].value);
    uint8_t *row = xmalloc(f.n_layers ? f.row_bytes : 1);
    for (uint32_t layer = 0; layer < f.n_layers; layer++)
        for (uint32_t part = 0; part < 2; part++)
            for (uint32_t i = 0; i < f.state.n_cached; i++, cache += f.row_bytes)
                if (!chatfile_rows(&f, layer, part, i, 1, row))
                    abort();
    if (words + cache > bytes || chatfile_rows(&f, f.n_layers, 0, 0, 1, row) ||
        chatfile_rows(&f, 0, 0, f.state.n_cached, 1, row))
        abort();
    chatfile_matches(&f, &f.id, 512);
    free(row);
    chatfile_close(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    touch(data, bytes);
    if (bytes < 136)
        return 0;
    uint8_t *copy = xmalloc(bytes);
    memcpy(copy, data, bytes);
    for (int i = 0; i < 8; i++)
        copy[16 + i] = (uint8_t)((uint64_t)bytes >> 8 * i);
    uint64_t sum = chatfile_checksum(copy, bytes - 8);
    for (int i = 0; i < 8; i++)
        copy[bytes - 8 + (size_t)i] = (uint8_t)(sum >> 8 * i);
    touch(copy, bytes);
    free(copy);
    return 0;
}
