// See code.h.
#include "eval/code.h"
#include "eval/sandbox.h"
#include <stdlib.h>
#include <string.h>

char *code_program(const struct Task *t, const struct Item *item, const char *answer) {
    // A body that goes on from the prompt ends where a block is closed that it never opened.
    const char *close = *answer == ' ' || *answer == '\t' ? strstr(answer, "\n```") : NULL;
    if (close && !memmem(answer, (size_t)(close - answer), "```", 3)) {
        char *body = xsprintf("%.*s", (int)(close - answer + 1), answer);
        char *program = code_program(t, item, body);
        free(body);
        return program;
    }
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

static struct Sandbox *sandbox; // opened by who asks first; serves all programs

bool code_available(void) {
    if (!sandbox)
        sandbox = sandbox_open(NULL);
    return sandbox != NULL;
}

void code_close(void) {
    if (sandbox)
        sandbox_close(sandbox);
    sandbox = NULL;
}

bool code_run(const struct CodeJob *job, struct CodeVerdict *verdict) {
    struct SandboxJob boxed = {.program = job->program,
                               .setup = job->setup,
                               .checks = job->checks,
                               .entry = job->entry,
                               .reference = job->reference};
    struct SandboxResult result;
    if (!code_available() || !sandbox_run(sandbox, &boxed, &SANDBOX_LIMITS, &result))
        return false;
    verdict->passed = result.verdict == SANDBOX_PASSED;
    snprintf(verdict->text, sizeof verdict->text, "%s", SANDBOX_VERDICTS[result.verdict]);
    sandbox_result_free(&result);
    return true;
}
