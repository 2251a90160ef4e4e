// The built-in chat templates in the syntax of template files, and which of them a model's own template stands for: by a hash of
// its text in one spelling. A template is in the list when its rendering has been compared (tests/golden/templates).
#include "model/template_parse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "vkmoe-template 1\n"

static const struct {
    const char *name, *text;
} BUILT_IN[] = {
    {"plain", HEAD "start \"{bos:auto}\"\n"
                   "system \"{text}\\n\"\n"
                   "user \"{text}\\n\"\n"
                   "answer \"{text}{eos}\"\n"},
    // DeepSeek LLM, DeepSeekMoE, DeepSeek V2. The blank before the answer is the answer's: the prompt ends with the colon.
    {"deepseek", HEAD "start \"{bos}\"\n"
                      "system \"{text}\\n\\n\"\n"
                      "user \"User: {text}\\n\\n\"\n"
                      "prompt \"Assistant:\"\n"
                      "answer \" {text}{eos}\"\n"},
    {"deepseek-coder", HEAD
     "needs \"<|EOT|>\"\n"
     "start \"{bos}\"\n"
     "default-system \"You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek "
     "Company, and you only answer questions related to computer science. For politically sensitive questions, "
     "security and privacy issues, and other non-computer science questions, you will refuse to answer\\n\"\n"
     "system \"{text}\"\n"
     "user \"### Instruction:\\n{text}\\n\"\n"
     "prompt \"### Response:\\n\"\n"
     "answer \"{text}\\n<|EOT|>\"\n"
     "after \"\\n\"\n"
     "system-first\n"},
    {"deepseek-v3", HEAD "needs \"<｜User｜>\" \"<｜Assistant｜>\" \"<｜end▁of▁sentence｜>\"\n"
                         "start \"{bos}\"\n"
                         "system \"{text}\"\n"
                         "user \"<｜User｜>{text}\"\n"
                         "prompt \"<｜Assistant｜>\"\n"
                         "answer \"{text}<｜end▁of▁sentence｜>\"\n"
                         "system-first\n"},
    {"llama2", HEAD "first-user \"{bos}[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{text:trim-end} [/INST]\"\n"
                    "user \"{bos}[INST] {text:trim} [/INST]\"\n"
                    "answer \" {text:trim} {eos}\"\n"
                    "alternate\n"
                    "system-first\n"},
    {"llama3", HEAD "needs \"<|start_header_id|>\" \"<|end_header_id|>\" \"<|eot_id|>\"\n"
                    "start \"{bos}\"\n"
                    "system \"<|start_header_id|>system<|end_header_id|>\\n\\n{text:trim}<|eot_id|>\"\n"
                    "user \"<|start_header_id|>user<|end_header_id|>\\n\\n{text:trim}<|eot_id|>\"\n"
                    "prompt \"<|start_header_id|>assistant<|end_header_id|>\\n\\n\"\n"
                    "answer \"{text:trim}<|eot_id|>\"\n"},
#define CHATML                                                                                                         \
    "needs \"<|im_start|>\" \"<|im_end|>\"\n"                                                                          \
    "system \"<|im_start|>system\\n{text}<|im_end|>\\n\"\n"                                                            \
    "user \"<|im_start|>user\\n{text}<|im_end|>\\n\"\n"                                                                \
    "prompt \"<|im_start|>assistant\\n\"\n"                                                                            \
    "answer \"{text}<|im_end|>\"\n"                                                                                    \
    "after \"\\n\"\n"
    {"chatml", HEAD CHATML},
    {"qwen2", HEAD CHATML "default-system \"You are a helpful assistant.\"\n"},
    {"qwen2.5",
     HEAD CHATML "default-system \"You are Qwen, created by Alibaba Cloud. You are a helpful assistant.\"\n"},
    {"mistral", HEAD "start \"{bos}\"\n"
                     "user \"[INST] {text} [/INST]\"\n"
                     "answer \"{text}{eos}\"\n"
                     "alternate\n"},
    {"zephyr", HEAD "system \"<|system|>\\n{text}{eos}\\n\"\n" // and TinyLlama
                    "user \"<|user|>\\n{text}{eos}\\n\"\n"
                    "prompt \"<|assistant|>\\n\"\n"
                    "answer \"{text}{eos}\"\n"
                    "after \"\\n\"\n"},
};
enum { N_BUILT_IN = sizeof BUILT_IN / sizeof *BUILT_IN };

// Published templates by their fingerprints.
static const struct {
    const char fingerprint[17], *name;
} KNOWN
    [] =
        {
            {"38604166561e5172", "deepseek"}, // DeepSeek LLM, DeepSeekMoE, DeepSeek V2
            {"c242d5ed988e3550", "deepseek-coder"},
            {"b7a01e51bbd5ecd4", "deepseek-v3"}, // V3 and R1
            {"eb60d2f1dd18c2a0", "llama2"},
            {"60240b521a5b4c6f", "llama3"}, // as first published: always with a generation prompt
            {"5bf753ab32aaacdc", "llama3"},
            {"719bcff3728cf0a1", "qwen2.5"},
            {"423af8fdaa9c677b", "mistral"},
            {"1a93883d8c306bea", "zephyr"}, // and TinyLlama
};

const char *template_names(void) {
    return "plain, deepseek, deepseek-coder, deepseek-v3, llama2, llama3, chatml, qwen2, qwen2.5, mistral, zephyr";
}

const char *template_built_in(const char *name) {
    for (size_t i = 0; i < N_BUILT_IN; i++)
        if (strcmp(name, BUILT_IN[i].name) == 0)
            return BUILT_IN[i].text;
    return NULL;
}

// ---- Which template a model has ----

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

// One spelling for templates that say the same: no blanks in tags but between words, single quotes, real line feeds, joined
// literals in one, message['role'] for message.role, no line feed behind a block (Hugging Face trims it). malloc'ed.
static char *canonical(const char *from) {
    char *out = xmalloc(strlen(from) * 2 + 32);
    size_t n = 0;
    char close = 0, quote = 0; // the tag's closing character, the literal's opening one
    while (isspace((unsigned char)*from))
        from++;
    while (*from) {
        if (quote) {
            if (from[0] == '\\' && from[1] == 'n') {
                out[n++] = '\n';
                from += 2;
            } else if (*from == quote) {
                out[n++] = '\'';
                quote = 0;
                from++;
            } else {
                out[n++] = *from++;
            }
        } else if (!close) {
            if (from[0] == '{' && (from[1] == '%' || from[1] == '{')) {
                close = from[1] == '%' ? '%' : '}';
                out[n++] = *from++;
            }
            out[n++] = *from++;
        } else if (from[0] == close && from[1] == '}') {
            out[n++] = close;
            out[n++] = '}';
            from += 2;
            from += close == '%' && *from == '\n';
            close = 0;
        } else if (*from == '\'' || *from == '"') {
            if (n >= 2 && out[n - 1] == '+' && out[n - 2] == '\'')
                n -= 2; // 'a'+'b' is 'ab'
            else
                out[n++] = '\'';
            quote = *from++;
        } else if (isspace((unsigned char)*from)) {
            while (isspace((unsigned char)*from))
                from++;
            if (is_word(out[n - 1]) && is_word(*from))
                out[n++] = ' ';
        } else if (strncmp(from, ".role", 5) == 0 || strncmp(from, ".content", 8) == 0) {
            const char *key = from[1] == 'r' ? "['role']" : "['content']";
            memcpy(out + n, key, strlen(key));
            n += strlen(key);
            from += from[1] == 'r' ? 5 : 8;
        } else {
            out[n++] = *from++;
        }
    }
    while (n && isspace((unsigned char)out[n - 1]))
        n--;
    out[n] = 0;
    return out;
}

static bool skip(const char **text, const char *expected) {
    size_t bytes = strlen(expected);
    if (strncmp(*text, expected, bytes) != 0)
        return false;
    *text += bytes;
    return true;
}

static const char GUARD[] = "{%if not add_generation_prompt is defined%}{%set add_generation_prompt=false%}{%endif%}";

// ChatML, and what it lets the system say where the messages do not begin with the system's own words (malloc'ed or NULL).
static bool is_chatml(const char *text, char **default_system) {
    const char *system = NULL, *end = NULL;
    skip(&text, GUARD);
    if (!skip(&text, "{%for message in messages%}"))
        return false;
    if (skip(&text, "{%if loop.first and messages[0]['role']!='system'%}{{'<|im_start|>system\n")) {
        system = text;
        end = strstr(text, "<|im_end|>\n'}}{%endif%}");
        if (!end || memchr(system, '\'', (size_t)(end - system)))
            return false;
        text = end;
        skip(&text, "<|im_end|>\n'}}{%endif%}");
    }
    if (!skip(&text, "{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>\n'}}{%endfor%}"
                     "{%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}") ||
        *text)
        return false;
    if (system) {
        size_t bytes = (size_t)(end - system);
        *default_system = xmalloc(bytes + 1);
        memcpy(*default_system, system, bytes);
        (*default_system)[bytes] = 0;
    }
    return true;
}

const char *template_recognise(const char *jinja, char **default_system, char fingerprint[17]) {
    char *text = canonical(jinja), hex[65];
    const char *from = text, *found = NULL;
    skip(&from, GUARD);
    struct Sha256 sha;
    sha256_begin(&sha);
    sha256_add(&sha, from, strlen(from));
    sha256_end(&sha, hex);
    memcpy(fingerprint, hex, 16);
    fingerprint[16] = 0;
    *default_system = NULL;
    if (is_chatml(from, default_system))
        found = "chatml";
    for (size_t i = 0; !found && i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (strcmp(fingerprint, KNOWN[i].fingerprint) == 0)
            found = KNOWN[i].name;
    free(text);
    return found;
}
