// See rope.h. Everything is computed in double on the host, where transformers takes f32.
#include "model/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double PI = 3.14159265358979323846;
static const char *const NAMES[] = {"default", "linear", "dynamic", "yarn", "llama3", "rope_freqs.weight"};

// ---- Frequencies ----

// The dimension whose wavelength is original_context / rotations.
static double yarn_dimension(const struct Config *c, double rotations) {
    return c->head_dim * log(c->rope.original_context / (rotations * 2 * PI)) / (2 * log((double)c->rope_base));
}

static void yarn_stretch(const struct Config *c, double *f) {
    double low = yarn_dimension(c, (double)c->rope.beta_fast), high = yarn_dimension(c, (double)c->rope.beta_slow);
    if (c->rope.truncate)
        low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, c->head_dim - 1.0);
    if (low == high)
        high += 0.001;
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        double stretched = fmin(1, fmax(0, (i - low) / (high - low)));
        f[i] = f[i] / (double)c->rope.factor * stretched + f[i] * (1 - stretched);
    }
}

static void llama3_stretch(const struct Config *c, double *f) {
    const struct Rope *r = &c->rope;
    double low = (double)r->low_freq_factor, high = (double)r->high_freq_factor, factor = (double)r->factor;
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        double turns = r->original_context * f[i] / (2 * PI); // within the original context
        double smooth = (turns - low) / (high - low);
        if (turns < low)
            f[i] /= factor;
        else if (turns <= high)
            f[i] *= (1 - smooth) / factor + smooth;
    }
}

void rope_frequencies(const struct Config *c, double *f) {
    for (uint32_t i = 0; i < c->head_dim / 2; i++)
        f[i] = pow((double)c->rope_base, -2.0 * i / c->head_dim);
    if (c->rope.kind == ROPE_YARN)
        yarn_stretch(c, f);
    else if (c->rope.kind == ROPE_LLAMA3)
        llama3_stretch(c, f);
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        if (c->rope.kind == ROPE_LINEAR)
            f[i] /= (double)c->rope.factor;
        else if (c->rope.kind == ROPE_DIVISORS)
            f[i] /= (double)c->rope.divisor[i];
    }
}

double rope_magnitude(const struct Config *c) {
    return c->rope.kind == ROPE_YARN ? (double)c->rope.attention_factor : 1;
}

bool rope_divisors(const struct Config *c, float *out) {
    if (c->rope.kind != ROPE_LLAMA3 && c->rope.kind != ROPE_DIVISORS)
        return false;
    double f[CONFIG_MAX_HEAD_DIM / 2];
    rope_frequencies(c, f);
    for (uint32_t i = 0; i < c->head_dim / 2; i++)
        out[i] = (float)(pow((double)c->rope_base, -2.0 * i / c->head_dim) / f[i]);
    return true;
}

// ---- Checks ----

static bool positive(const char *where, const char *key, float value, float low, float high) {
    return (value >= low && value <= high) || fail("%s: rope scaling: %s is %g; %g to %g is expected", where, key,
                                                   (double)value, (double)low, (double)high);
}

bool rope_check(const struct Config *c, const char *where) {
    const struct Rope *r = &c->rope;
    if (r->kind == ROPE_PLAIN)
        return true;
    if (r->kind == ROPE_DIVISORS) {
        for (uint32_t i = 0; i < c->head_dim / 2; i++) {
            if (!positive(where, "rope_freqs.weight", r->divisor[i], 1e-6f, 1e6f))
                return false;
        }
        return true;
    }
    if (!positive(where, "factor", r->factor, 1, 1e6f))
        return false;
    if (r->kind != ROPE_YARN && r->kind != ROPE_LLAMA3)
        return true;
    if (r->original_context == 0 || r->original_context > 1u << 24)
        return fail("%s: rope scaling: original_max_position_embeddings is %u; 1 to %u is expected", where,
                    r->original_context, 1u << 24);
    if (r->kind == ROPE_LLAMA3)
        return positive(where, "low_freq_factor", r->low_freq_factor, 1e-3f, 1e6f) &&
               (r->high_freq_factor > r->low_freq_factor && r->high_freq_factor <= 1e6f
                    ? true
                    : fail("%s: rope scaling: high_freq_factor is %g; more than low_freq_factor (%g) is expected",
                           where, (double)r->high_freq_factor, (double)r->low_freq_factor));
    if (c->rope_base < 1.5f)
        return fail("%s: rope scaling: yarn asks for a rope_theta above 1.5, found %g", where, (double)c->rope_base);
    return positive(where, "attention_factor", r->attention_factor, 1e-3f, 1e3f) &&
           positive(where, "beta_fast", r->beta_fast, 1e-3f, 1e6f) &&
           positive(where, "beta_slow", r->beta_slow, 1e-3f, r->beta_fast);
}

bool rope_check_context(const struct Config *c, uint32_t positions, const char *where) {
    return c->rope.kind != ROPE_DYNAMIC || positions <= c->max_context ||
           fail(
               "%s: a context of %u is above max_position_embeddings (%u): rope scaling of type dynamic would turn the "
               "keys in the cache anew with every token there, which is not supported",
               where, positions, c->max_context);
}

// ---- config.json ----

static const char *const KNOWN[] = {"type",
                                    "rope_type",
                                    "rope_theta",
                                    "factor",
                                    "original_max_position_embeddings",
                                    "attention_factor",
                                    "beta_fast",
                                    "beta_slow",
                                    "mscale",
                                    "mscale_all_dim",
                                    "truncate",
                                    "low_freq_factor",
                                    "high_freq_factor",
                                    "finetuned"};

static bool check_keys(json_t *object, const char *key, const char *where) {
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        bool known = json_is_null(value);
        for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
            known = known || strcmp(name, KNOWN[i]) == 0;
        // A rotation of a part of each head has its own name everywhere.
        if (strcmp(name, "partial_rotary_factor") == 0 && json_number_value(value) == 1)
            known = true;
        if (!known)
            return fail("%s: %s: the key %.100s is not supported", where, key, name);
    }
    return true;
}

static double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

static bool read_yarn(struct Config *c, const json_t *object, const char *where) {
    struct Rope *r = &c->rope;
    float mscale = 0, mscale_all = 0;
    r->attention_factor = 0;
    r->beta_fast = 32, r->beta_slow = 1, r->truncate = true;
    if (!json_get_float(object, "attention_factor", 1e-3f, 1e3f, &r->attention_factor, where) ||
        !json_get_float(object, "mscale", 0, 1e3f, &mscale, where) ||
        !json_get_float(object, "mscale_all_dim", 0, 1e3f, &mscale_all, where) ||
        !json_get_float(object, "beta_fast", 0, 1e6f, &r->beta_fast, where) ||
        !json_get_float(object, "beta_slow", 0, 1e6f, &r->beta_slow, where) ||
        !json_get_bool(object, "truncate", &r->truncate, where))
        return false;
    // 0 stands for the default there.
    r->beta_fast = r->beta_fast == 0 ? 32 : r->beta_fast;
    r->beta_slow = r->beta_slow == 0 ? 1 : r->beta_slow;
    if (r->factor == 0 && r->original_context)
        r->factor = (float)c->max_context / (float)r->original_context;
    double factor = (double)r->factor;
    if (r->attention_factor == 0)
        r->attention_factor = (float)(mscale > 0 && mscale_all > 0 ? yarn_mscale(factor, (double)mscale) /
                                                                         yarn_mscale(factor, (double)mscale_all)
                                                                   : yarn_mscale(factor, 1));
    return true;
}

bool rope_from_json(struct Config *c, const json_t *object, const char *key, const char *where) {
    if (!object || json_is_null(object))
        return true;
    if (!json_is_object(object))
        return fail("%s: %s must be an object or null", where, key);
    const char *type = NULL, *newer = NULL;
    if (!json_get_string(object, "type", &type, where) || !json_get_string(object, "rope_type", &newer, where) ||
        !json_get_float(object, "rope_theta", 1, 1e12f, &c->rope_base, where) ||
        !check_keys((json_t *)object, key, where))
        return false;
    type = newer ? newer : type;
    if (!type || strcmp(type, "default") == 0)
        return !json_object_get(object, "factor") || type || fail("%s: %s has a factor but no type", where, key);
    enum RopeKind kind = ROPE_LINEAR;
    while (kind < ROPE_DIVISORS && strcmp(type, NAMES[kind]) != 0)
        kind++;
    if (kind == ROPE_DIVISORS)
        return fail("%s: %s of type \"%s\" is not supported; linear, dynamic, yarn and llama3 are", where, key, type);
    struct Rope *r = &c->rope;
    *r = (struct Rope){.kind = kind, .original_context = c->max_context};
    if (!json_get_float(object, "factor", 1, 1e6f, &r->factor, where) ||
        !json_get_u32(object, "original_max_position_embeddings", 1, 1 << 24, &r->original_context, where) ||
        (kind == ROPE_YARN && !read_yarn(c, object, where)) ||
        (kind == ROPE_LLAMA3 && (!json_get_float(object, "low_freq_factor", 0, 1e6f, &r->low_freq_factor, where) ||
                                 !json_get_float(object, "high_freq_factor", 0, 1e6f, &r->high_freq_factor, where))))
        return false;
    return r->factor >= 1 || fail("%s: %s of type %s has no factor", where, key, type);
}

// The shortest decimal that reads back as the same float.
static const char *number(float value, char text[32]) {
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, 32, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    if (!strpbrk(text, ".en"))
        strcat(text, ".0");
    return text;
}

void rope_print_json(FILE *out, const struct Config *c) {
    const struct Rope *r = &c->rope;
    char a[32], b[32], d[32], e[32];
    switch (r->kind) {
    case ROPE_LINEAR:
    case ROPE_DYNAMIC: // two keys alone: older versions of transformers ask for just these
        fprintf(out, "  \"rope_scaling\": {\"type\": \"%s\", \"factor\": %s},\n", NAMES[r->kind], number(r->factor, a));
        break;
    case ROPE_YARN:
        fprintf(
            out,
            "  \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": %s, \"original_max_position_embeddings\": %u, "
            "\"attention_factor\": %s, \"beta_fast\": %s, \"beta_slow\": %s%s},\n",
            number(r->factor, a), r->original_context, number(r->attention_factor, b), number(r->beta_fast, d),
            number(r->beta_slow, e), r->truncate ? "" : ", \"truncate\": false");
        break;
    case ROPE_LLAMA3:
        fprintf(out,
                "  \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": %s, \"original_max_position_embeddings\": "
                "%u, \"low_freq_factor\": %s, \"high_freq_factor\": %s},\n",
                number(r->factor, a), r->original_context, number(r->low_freq_factor, b),
                number(r->high_freq_factor, d));
        break;
    default:
        fprintf(out, "  \"rope_scaling\": null,\n");
    }
}

bool rope_check_json(const struct Config *c, const char *where) {
    return c->rope.kind != ROPE_DIVISORS ||
           fail("%s: rope_freqs.weight is not what llama3's rope scaling gives, and has no place in config.json",
                where);
}

// ---- GGUF ----

// Divisors that are llama3's with its published constants become that kind, which config.json can say.
static void recognise_llama3(struct Config *c, uint32_t original) {
    struct Config guess = *c;
    float most = 1, divisor[CONFIG_MAX_HEAD_DIM / 2];
    for (uint32_t i = 0; i < c->head_dim / 2; i++)
        most = fmaxf(most, c->rope.divisor[i]);
    guess.rope = (struct Rope){.kind = ROPE_LLAMA3,
                               .factor = most,
                               .original_context = original ? original : 8192,
                               .low_freq_factor = 1,
                               .high_freq_factor = 4};
    rope_divisors(&guess, divisor);
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        if (!(fabsf(divisor[i] / c->rope.divisor[i] - 1) < 1e-5f))
            return;
    }
    c->rope = guess.rope;
}

// LLaMA 3's scaling is a tensor of divisors there.
static bool read_divisors(struct Config *c, const struct Gguf *g, uint32_t original) {
    const struct GgufTensor *t = gguf_find_tensor(g, "rope_freqs.weight");
    if (!t)
        return true;
    float values[CONFIG_MAX_HEAD_DIM / 2];
    if (t->type != DT_F32 || t->n_dims != 1 || t->dim[0] != c->head_dim / 2 || t->bytes > sizeof values)
        return fail("%s: rope_freqs.weight is not %u F32 values, half a head's dimension", g->file.name,
                    c->head_dim / 2);
    if (!gguf_read(g, t, 0, t->bytes, values))
        return false;
    bool ones = true;
    for (uint32_t i = 0; i < c->head_dim / 2; i++)
        ones = ones && values[i] == 1;
    if (ones)
        return true;
    if (c->rope.kind != ROPE_PLAIN)
        return fail("%s: rope_freqs.weight beside rope.scaling.type %s is not supported", g->file.name,
                    NAMES[c->rope.kind]);
    c->rope = (struct Rope){.kind = ROPE_DIVISORS};
    memcpy(c->rope.divisor, values, t->bytes);
    if (rope_check(c, g->file.name))
        recognise_llama3(c, original);
    return rope_check(c, g->file.name);
}

static bool key_f32(const struct Gguf *g, const char *arch, const char *name, float *out) {
    char *key = xsprintf("%s.%s", arch, name);
    bool ok = gguf_get_f32(g, key, false, out);
    free(key);
    return ok;
}

bool rope_from_gguf(struct Config *c, const struct Gguf *g, const char *arch) {
    struct Rope *r = &c->rope;
    char *key = xsprintf("%s.rope.scaling.type", arch), *type = NULL;
    char *original_key = xsprintf("%s.rope.scaling.original_context_length", arch);
    float attention = 1, extension = 1;
    uint32_t original = 0;
    *r = (struct Rope){.kind = ROPE_LINEAR, .factor = 1, .beta_fast = 32, .beta_slow = 1, .truncate = true};
    bool ok = gguf_get_string(g, key, false, &type) && gguf_get_u32(g, original_key, false, &original);
    if (ok && type && strcmp(type, "none") == 0)
        r->kind = ROPE_PLAIN;
    else if (ok && type && strcmp(type, "yarn") == 0)
        r->kind = ROPE_YARN;
    else if (ok && type && strcmp(type, "linear") != 0) // linear is what llama.cpp takes where the type is not said
        ok = fail("%s: %s is \"%s\", which is not supported; none, linear and yarn are", g->file.name, key, type);
    if (r->kind != ROPE_PLAIN)
        ok = ok && key_f32(g, arch, "rope.scale_linear", &r->factor) &&
             key_f32(g, arch, "rope.scaling.factor", &r->factor);
    if (r->factor == 0) // some files say 0 for none
        r->factor = 1;
    if (r->kind == ROPE_LINEAR && r->factor == 1)
        r->kind = ROPE_PLAIN;
    ok = ok && key_f32(g, arch, "rope.scaling.attn_factor", &attention) &&
         key_f32(g, arch, "rope.scaling.yarn_ext_factor", &extension) &&
         key_f32(g, arch, "rope.scaling.yarn_beta_fast", &r->beta_fast) &&
         key_f32(g, arch, "rope.scaling.yarn_beta_slow", &r->beta_slow);
    if (ok && r->kind == ROPE_YARN) {
        r->original_context = original ? original : c->max_context;
        r->attention_factor = attention * (float)yarn_mscale((double)r->factor, 1);
        if (extension != 1)
            ok = fail("%s: %s.rope.scaling.yarn_ext_factor is %g, which is not supported; 1 is", g->file.name, arch,
                      (double)extension);
    } else if (ok && attention != 1) {
        ok = fail("%s: %s.rope.scaling.attn_factor is %g, which is supported with yarn alone", g->file.name, arch,
                  (double)attention);
    }
    ok = ok && rope_check(c, g->file.name) && read_divisors(c, g, original);
    free(key);
    free(original_key);
    free(type);
    return ok;
}

bool rope_check_gguf(const struct Config *c, const char *where) {
    const char *arch = config_gguf_arch(c);
    if (c->rope.kind == ROPE_YARN && !c->rope.truncate)
        return fail("%s: rope scaling of type yarn with truncate false has no place in GGUF", where);
    if ((c->rope.kind == ROPE_LLAMA3 || c->rope.kind == ROPE_DIVISORS) && strcmp(arch, ARCHS[ARCH_LLAMA].gguf) != 0)
        return fail("%s: rope scaling of type %s has no place in GGUF's %s architecture", where, NAMES[c->rope.kind],
                    arch);
    return true;
}

static void put_f32(struct GgufWriter *w, const char *arch, const char *name, float value) {
    char *key = xsprintf("%s.%s", arch, name);
    gguf_writer_f32(w, key, value);
    free(key);
}

void rope_to_gguf(struct GgufWriter *w, const struct Config *c, const char *arch) {
    const struct Rope *r = &c->rope;
    bool named = r->kind == ROPE_LINEAR || r->kind == ROPE_YARN;
    char *type = xsprintf("%s.rope.scaling.type", arch);
    char *original = xsprintf("%s.rope.scaling.original_context_length", arch);
    gguf_writer_string(w, type, named ? NAMES[r->kind] : "none");
    if (named)
        put_f32(w, arch, "rope.scaling.factor", r->factor);
    if (r->kind == ROPE_DYNAMIC)
        warn("rope scaling of type dynamic is not written: GGUF has none, and up to %u tokens it changes nothing",
             c->max_context);
    if (r->kind == ROPE_YARN || r->kind == ROPE_LLAMA3)
        gguf_writer_u32(w, original, r->original_context);
    if (r->kind == ROPE_YARN) {
        put_f32(w, arch, "rope.scaling.yarn_beta_fast", r->beta_fast);
        put_f32(w, arch, "rope.scaling.yarn_beta_slow", r->beta_slow);
        // llama.cpp multiplies by 1 + log(factor)/10 itself.
        put_f32(w, arch, "rope.scaling.attn_factor", r->attention_factor / (float)yarn_mscale((double)r->factor, 1));
    }
    free(type);
    free(original);
}
