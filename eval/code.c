// See code.h.
#include "eval/code.h"
#include <stdlib.h>
#include <string.h>

char *code_program(const struct Task *t, const struct Item *item, const char *answer) {
    struct Extraction fence = {.steps = &(struct ExtractStep){.kind = EXTRACT_FENCE}, .n = 1};
    char *code = extraction_run(&fence, answer);
    for (uint32_t i = 0; !code && i < t->stop.n; i++) { // stop strings do not end a chat's answer
        const char *end = strstr(answer, t->stop.list[i].text);
        char *shorter = end ? xsprintf("%.*s", (int)(end - answer), answer) : NULL;
        if (!shorter)
            continue;
        char *rest = code_program(t, item, shorter);
        free(shorter);
        return rest;
    }
    const struct FieldExtra extra[] = {{"code", code ? code : answer}, {NULL, NULL}};
    struct Text program = {0};
    bool ok = field_fill(&program, t->program, &item->record, extra);
    free(code);
    if (!ok)
        text_free(&program);
    return ok ? text_take(&program) : NULL;
}

bool code_available(void) { return fail("code execution is refused: this build has no sandbox to run programs in"); }

bool code_run(const struct CodeJob *job, struct CodeVerdict *verdict) {
    (void)job, (void)verdict;
    return code_available();
}
