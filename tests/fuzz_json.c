// Fuzz target: any bytes as JSON and as config.json; a config that is accepted must survive the way out and in again.
#include "model/config.h"
#include "model/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    json_t *value = json_parse((const char *)data, bytes, "fuzz");
    json_decref(value);
    struct Config c, again;
    if (config_from_json(&c, (const char *)data, bytes, "fuzz")) {
        config_generation_from_json(&c, (const char *)data, bytes, "fuzz");
        char *text = config_to_json(&c, "float32");
        if (!config_from_json(&again, text, strlen(text), "again") || again.dim != c.dim ||
            again.n_experts != c.n_experts || again.rope_base != c.rope_base || again.norm_eps != c.norm_eps ||
            config_parameters(&again) != config_parameters(&c))
            abort();
        free(text);
    }
    return 0;
}
