// The input is a file of training data; what is taken must make sound examples, and they must pack.
#include "model/template.h"
#include "train/pack.h"

#include <stdlib.h>
#include <string.h>

static const char VOCABULARY[] = "{\"added_tokens\": [{\"id\": 4, \"content\": \"<s>\", \"special\": true}], "
                                 "\"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                                 "\"add_prefix_space\": false}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "
                                 "{\"type\": \"BPE\", \"unk_token\": \"b\", "
                                 "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\xc4\xa0\": 3}, \"merges\": [\"a b\"]}}";
static const char CONFIG[] = "{\"bos_token\": \"<s>\", \"eos_token\": \"<s>\", \"add_bos_token\": true}";

static void check(const struct Dataset *d, uint32_t max_tokens) {
    const struct Example **all = xmalloc(d->n * sizeof *all);
    uint64_t labels = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct Example *e = all[i] = &d->examples[i];
        if (e->n == 0 || e->n > max_tokens || e->n_labels == 0 || e->labels[e->n - 1] != -1)
            abort();
        for (uint32_t t = 0; t + 1 < e->n; t++)
            if (e->labels[t] != -1 && e->labels[t] != (int32_t)e->ids[t + 1])
                abort();
        labels += e->n_labels;
    }
    if (d->pairs && d->n % 2)
        abort();
    struct PackPlan p;
    struct PackOptions options = {.seq_len = max_tokens, .micro_tokens = 3 * max_tokens, .round = max_tokens % 5};
    if (!pack_plan(&p, all, d->n, &options) || p.n_labels != labels || labels != d->n_labels)
        abort();
    pack_free(&p);
    free(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct Tokenizer tokenizer;
    static struct Template chat[2];
    static bool open;
    fail_quiet(true);
    if (!open &&
        (!tokenizer_open_json(&tokenizer, VOCABULARY, sizeof VOCABULARY - 1, CONFIG, sizeof CONFIG - 1, "fuzz") ||
         !template_open(&chat[0], "deepseek", NULL, &tokenizer, "fuzz") ||
         !template_open(&chat[1], "plain", NULL, &tokenizer, "fuzz")))
        abort();
    open = true;
    uint32_t mode = bytes ? data[bytes - 1] : 0;
    // The byte before the last: CSV, text or JSON, other names, what becomes of long examples, how much memory.
    uint32_t way = bytes > 1 ? data[bytes - 2] : 0;
    struct Columns columns = {0};
    if ((way & 4) && !columns_parse(&columns, "prompt=a,completion=b,messages=c,role=d,weight=e"))
        abort();
    struct DataOptions options = {.max_tokens = 2 + mode % 61,
                                  .skip_bad = mode & 64,
                                  .overlong = way & 64 ? OVERLONG_DROP : (enum Overlong)(way >> 3 & 3) % 3,
                                  .pairs = way & 64,
                                  .columns = way & 4 ? &columns : NULL,
                                  .memory_bytes = way & 32 ? 64 : 0};
    const char *path = way & 1 ? "fuzz.csv" : way & 128 ? "fuzz.txt" : "fuzz.jsonl";
    struct Dataset d;
    if (dataset_load_memory(&d, (const char *)data, bytes, path, &tokenizer, &chat[mode >> 7], &options)) {
        check(&d, options.max_tokens);
        dataset_free(&d);
    }
    columns_free(&columns);
    return 0;
}
