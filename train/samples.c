// See samples.h.
#include "train/samples.h"
#include "model/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char FILE_NAME[] = "samples.txt", HEADER[] = "step ";

static bool prompt_ids(const struct SampleOptions *o, const struct Tokenizer *t, uint32_t **ids, size_t *n) {
    const char *prompt = o->prompt ? o->prompt : "";
    if (!tokenizer_encode(t, prompt, strlen(prompt), TOKENIZE_BOS | TOKENIZE_SPECIAL, ids, n))
        return false;
    return *n > 0 || fail("this tokenizer begins no text with a token of its own: give --sample-prompt");
}

// As many tokens as a prompt of so many bytes can become, the sample, and no more than a row: known without a tokenizer.
static uint32_t room(const struct SampleOptions *o) {
    uint64_t prompt = o->prompt ? strlen(o->prompt) : 0;
    return (uint32_t)min_u64(o->context, 2 * prompt + 8 + o->tokens);
}

bool samples_check(const struct SampleOptions *o, const struct Tokenizer *t) {
    uint32_t *ids = NULL;
    size_t n = 0;
    bool ok = o->every == 0 || prompt_ids(o, t, &ids, &n);
    if (ok && o->every && n >= room(o))
        ok = fail("--sample-prompt has %zu tokens, --context is %u: none is left for a sample", n, o->context);
    free(ids);
    return ok;
}

static bool open_session(const struct SampleOptions *o, struct Model *m, struct Session *s) {
    struct SessionOptions so = {.n_sequences = 1, .context = room(o), .chunk = 64, .cache_type = DT_F16, .ahead = true};
    return session_init(s, m, &so);
}

bool samples_plan(const struct SampleOptions *o, struct Model *m, uint64_t *bytes) {
    struct Session s = {0};
    *bytes = 0;
    bool ok = o->every == 0 || open_session(o, m, &s);
    if (ok && o->every)
        *bytes = s.cache.peak_bytes + s.scratch.peak_bytes + s.host.peak_bytes;
    session_free(&s);
    return ok;
}

bool samples_begin(const char *out, uint64_t step) {
    char *path = path_join(out, FILE_NAME);
    uint8_t *text = NULL;
    uint64_t bytes = 0;
    bool ok = true;
    if (step == 0) {
        ok = unlink(path) == 0 || errno == ENOENT || fail("%s: cannot be removed: %s", path, strerror(errno));
    } else if (file_exists(path)) {
        ok = file_read(path, UINT64_C(1) << 30, &text, &bytes);
        const char *at = (const char *)text;
        while (ok && at && strncmp(at, HEADER, strlen(HEADER)) == 0 &&
               strtoull(at + strlen(HEADER), NULL, 10) <= step) {
            at = strstr(at, "\nstep "); // texts are set in, so that no line of theirs is taken for one
            at += at != NULL;
        }
        ok = ok && (!at || file_write_atomic(path, text, (uint64_t)(at - (const char *)text)));
    }
    free(text);
    free(path);
    return ok;
}

static bool append(const char *out, uint64_t step, const char *text) {
    char *path = path_join(out, FILE_NAME);
    FILE *f = fopen(path, "a");
    bool ok = f != NULL;
    if (ok) {
        fprintf(f, "%s%llu\n  ", HEADER, (unsigned long long)step);
        for (const char *c = text; *c; c++)
            fprintf(f, *c == '\n' ? "\n  " : "%c", *c);
        fprintf(f, "\n\n");
        ok = !ferror(f);
        ok = fclose(f) == 0 && ok;
    }
    if (!ok)
        fail("%s: cannot be written: %s", path, strerror(errno));
    free(path);
    return ok;
}

static bool ends(const struct Model *m, const struct Tokenizer *t, uint32_t id) {
    for (uint32_t i = 0; i < m->config.n_eos; i++)
        if (id == m->config.eos_id[i])
            return true;
    return id == t->eos_id;
}

// The prompt's tokens, then one after the other up to an end, behind those of ids, which has room for all; *n counts them.
static bool draw(const struct SampleOptions *o, struct Session *s, const struct Tokenizer *t, uint32_t *ids,
                 size_t *n) {
    struct SampleParams p = {.temperature = o->temperature,
                             .top_p = 0.95f,
                             .seed_low = (uint32_t)o->seed,
                             .seed_high = (uint32_t)(o->seed >> 32)};
    uint32_t next = 0, sequence = 0;
    float logprob;
    bool ok = session_prefill(s, 0, ids, (uint32_t)*n, &p, &next, &logprob);
    while (ok && p.index < o->tokens && !ends(s->m, t, next)) {
        ids[(*n)++] = next;
        p.index++;
        if (s->length[0] >= s->context)
            break;
        ok = p.index == o->tokens || session_decode(s, 1, &sequence, &ids[*n - 1], &p, &next, &logprob);
    }
    return ok;
}

bool samples_take(const struct SampleOptions *o, struct Model *m, const struct Tokenizer *t, const char *out,
                  uint64_t step, char **text) {
    struct Session s = {0};
    uint32_t *ids = NULL;
    size_t n = 0, bytes = 0;
    *text = NULL;
    bool ok = prompt_ids(o, t, &ids, &n) && open_session(o, m, &s);
    if (ok) {
        ids = xrealloc(ids, ((size_t)n + room(o) + 1) * sizeof *ids);
        ok = draw(o, &s, t, ids, &n);
    }
    if (ok) {
        char *raw = tokenizer_decode(t, ids, n, false, &bytes);
        *text = utf8_repair(raw, bytes, &bytes);
        free(raw);
        ok = append(out, step, *text);
    }
    session_free(&s);
    free(ids);
    return ok;
}
