// Data sets and task files that others wrote: the first byte says which reader gets the rest.
#include "eval/items.h"
#include <stdlib.h>

static void read_records(const struct DataFiles *files, enum RecordKind kind) {
    static const char *const EACH[] = {NULL, "a", "a b"};
    struct RecordForm form = {.kind = kind, .at = kind == RECORDS_JSON ? "examples" : NULL, .each = EACH[kind % 3]};
    for (size_t i = 0; i < files->n; i++) {
        struct Records r = {0};
        struct Text text = {0};
        if (records_read(&r, &files->list[i], &form) && r.n)
            field_fill(&text, "{a}{question.choices.0.text|strip|capitalise}{list|lines}\\n{a|words}", &r.list[0],
                       NULL);
        text_free(&text);
        records_free(&r);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fail_quiet(true);
    if (bytes == 0)
        return 0;
    const char *rest = (const char *)data + 1;
    if (data[0] % 8 == 7) {
        struct Task t;
        if (task_parse(&t, rest, bytes - 1, "fuzz", "fuzz.task"))
            task_free(&t);
        return 0;
    }
    if (data[0] % 8 == 6) {
        char *text = xsprintf("%.*s", (int)(bytes - 1), rest), *normal = latex_normal(text);
        free(boxed_content(text));
        free(normal);
        free(text);
        return 0;
    }
    struct DataFiles files = {0};
    if (container_read(&files, rest, bytes - 1, "fuzz", data[0] & 8 ? "*.txt" : NULL))
        read_records(&files, (enum RecordKind)(data[0] % 5));
    datafiles_free(&files);
    return 0;
}
