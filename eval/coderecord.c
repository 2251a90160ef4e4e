// Records of HumanEval and MBPP as jobs of the sandbox.
#include "eval/sandbox.h"
#include "model/json.h"

#include <stdlib.h>
#include <string.h>

// A field that must be there, as text; an array is its lines.
static bool text_field(const json_t *record, const char *key, bool needed, char **text, const char *where) {
    const json_t *value = json_object_get(record, key), *line;
    size_t i;
    if (json_is_string(value)) {
        *text = xstrdup(json_string_value(value));
        return true;
    }
    if (!value && !needed) {
        *text = xstrdup("");
        return true;
    }
    if (!json_is_array(value))
        return fail("%s: the record has no text '%s'", where, key);
    char *all = xstrdup("");
    json_array_foreach(value, i, line) {
        if (!json_is_string(line)) {
            free(all);
            return fail("%s: '%s' holds something that is no text", where, key);
        }
        char *longer = xsprintf("%s%s\n", all, json_string_value(line));
        free(all);
        all = longer;
    }
    *text = all;
    return true;
}

bool sandbox_job_humaneval(const json_t *record, const char *answer, struct SandboxJob *job, const char *where) {
    char *prompt = NULL, *solution = NULL, *test = NULL, *entry = NULL;
    bool ok = text_field(record, "prompt", true, &prompt, where) && text_field(record, "test", true, &test, where) &&
              text_field(record, "entry_point", true, &entry, where) &&
              (answer || text_field(record, "canonical_solution", true, &solution, where));
    if (ok) {
        // The prompt is the set-up of the checks too: some of them call functions that stand in it.
        *job = (struct SandboxJob){.program = xsprintf("%s%s\n", prompt, answer ? answer : solution),
                                   .setup = xstrdup(prompt),
                                   .checks = xsprintf("%s\ncheck(%s)\n", test, entry),
                                   .entry = xstrdup(entry)};
    }
    free(prompt);
    free(solution);
    free(test);
    free(entry);
    return ok;
}

bool sandbox_job_mbpp(const json_t *record, const char *answer, struct SandboxJob *job, const char *where) {
    char *code = NULL, *setup = NULL, *imports = NULL, *checks = NULL;
    bool ok = text_field(record, "code", true, &code, where) && text_field(record, "test_list", true, &checks, where) &&
              text_field(record, "test_setup_code", false, &setup, where) &&
              text_field(record, "test_imports", false, &imports, where);
    if (ok)
        *job = (struct SandboxJob){.program = xstrdup(answer ? answer : code),
                                   .setup = xsprintf("%s\n%s", imports, setup),
                                   .checks = xstrdup(checks),
                                   .reference = xstrdup(code)};
    free(code);
    free(setup);
    free(imports);
    free(checks);
    return ok;
}

void sandbox_job_free(struct SandboxJob *job) {
    free((char *)job->program);
    free((char *)job->setup);
    free((char *)job->checks);
    free((char *)job->entry);
    free((char *)job->reference);
    *job = (struct SandboxJob){0};
}
