// `vkmoe merge MODEL --adapter DIR --out PATH`: a LoRA adapter, or the experts of ESFT, become part of the weights. What was written is loaded and asked the
// same text as the model with the adapter on top: where the answers lie too far apart, nothing is left and the command fails.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/output.h"
#include "cli/term.h"
#include "model/card.h"
#include "model/probe.h"
#include "model/selftest.h"
#include "train/merge.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char PROBE_TEXT[] =
    "Water boils at one hundred degrees at the level of the sea; on a mountain it boils earlier, because the air is "
    "thinner there. Question: what is 17 plus 25? Answer: 42. def area(r): return 3.14159 * r * r";
enum { PROBE_TOKENS = 64 };

struct Asked {
    uint32_t ids[PROBE_TOKENS], n;
};

// The beginning of the text; of a model without a tokenizer numbers without a meaning.
static bool probe_ids(const struct ModelFile *f, struct Asked *asked) {
    struct Tokenizer t;
    uint32_t *ids = NULL, words[4];
    size_t n = 0;
    asked->n = (uint32_t)min_u64(PROBE_TOKENS, f->config.max_context);
    if (!f->gguf && !f->tokenizer_path) {
        for (uint32_t i = 0; i < asked->n; i++) {
            philox(1, 0, i, words);
            asked->ids[i] = words[0] % f->config.vocab_size;
        }
        return true;
    }
    if (!tokenizer_open(&t, f))
        return false;
    bool ok = tokenizer_encode(&t, PROBE_TEXT, strlen(PROBE_TEXT), TOKENIZE_BOS, &ids, &n);
    asked->n = (uint32_t)min_u64(asked->n, n);
    if (ok)
        memcpy(asked->ids, ids, asked->n * sizeof *ids);
    free(ids);
    tokenizer_free(&t);
    return ok;
}

// The divergence from the adapted model that rounding to a type may bring along, in nats a token: more than was seen with small models, and far below what a
// damaged tensor brings. Whether a small change is still there the weights themselves tell (merge_measure).
static double bound_of(enum DType type) {
    static const double BITS[] = {[2] = 5, [3] = 2, [4] = 1, [5] = 0.3, [6] = 0.1, [8] = 0.05};
    if (type == DT_F32)
        return 1e-5;
    if (!dtype_is_quantised(type))
        return 1e-2;
    const char *name = DTYPES[type].name; // q4_k, iq4_nl
    return BITS[name[strcspn(name, "0123456789")] - '0'];
}

// A dry run of the larger half: the model with its adapter, and a session to ask it.
static bool fits(const struct Device *dev, const struct ModelFile *f, const char *adapter, struct Asked *asked) {
    struct Device dry;
    struct Model m;
    struct Merge g;
    struct Session s = {0};
    struct ModelOptions o = {.type = DT_COUNT, .max_positions = asked->n};
    struct SessionOptions so = {.n_sequences = 1, .context = asked->n, .chunk = 1, .cache_type = DT_F32};
    device_open_dry(&dry, dev);
    bool ok = model_load(&m, &dry, f, &o);
    if (ok) {
        ok = merge_begin(&g, &m, adapter) && session_init(&s, &m, &so);
        session_free(&s);
        merge_end(&g);
        model_free(&m);
    }
    return ok && memory_fits(dev, dry.peak_bytes, dry.host_bytes, f->path,
                             "choose another --device (lavapipe uses the machine's memory)");
}

// As the base has its weights, tensor by tensor, where the output can hold that; else all in one type.
static bool write_merged(const struct Args *args, const char *to, const struct ModelFile *f, struct Merge *g,
                         enum DType type) {
    struct WeightSource source = merge_source(g);
    bool like = output_is_gguf(args_text(args, "out")) && f->gguf && !args_given(args, "type");
    char *name = output_name(f);
    char *adapter = path_name(args_text(args, "adapter"));
    char *description = xsprintf("%s with the adapter %s merged into it by vkmoe %s", name, adapter, VKMOE_VERSION);
    struct GgufOrigin origin = {name, description};
    struct WriteTypes types = {.type = type, .embed_type = DT_COUNT, .like = like ? f : NULL, .origin = &origin};
    bool ok = output_write_to(args, to, &g->m->config, &types, &source, f, name,
                              like ? "the base has them" : DTYPES[type].name);
    free(name), free(adapter), free(description);
    return ok;
}

struct Found {
    struct MergeLoss loss;
    struct ProbeGap moved, gap; // adapted from base; merged from adapted
    double bound;
};

static bool show(const struct Args *args, const struct Found *r) {
    fprintf(stderr,
            "%u tensors changed: rms of the weights %.4g, of the change %.4g, of the rounding %.4g; %.1f %% of the "
            "change is kept\n",
            r->loss.tensors, r->loss.weight, r->loss.change, r->loss.error, 100 * r->loss.kept);
    fprintf(stderr,
            "the adapter moves the model by %.4g nats a token; merged it is %.4g off (largest logit difference "
            "%.4g, the same likeliest token behind %.0f %%)\n",
            r->moved.divergence, r->gap.divergence, r->gap.logit, 100 * r->gap.same);
    if (!args_switch(args, "json"))
        return true;
    json_t *j = json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "tensors", (int)r->loss.tensors,
                          "rms_weight", r->loss.weight, "rms_change", r->loss.change, "rms_error", r->loss.error,
                          "change_kept", r->loss.kept, "adapter_divergence", r->moved.divergence, "divergence",
                          r->gap.divergence, "bound", r->bound, "largest_logit_difference", r->gap.logit,
                          "same_likeliest", r->gap.same, "out", json_repaired(args_text(args, "out")));
    return output_json(j, JSON_INDENT(1));
}

// README.md in a folder. A GGUF stands in somebody's folder, beside which its own goes: merged.README.md by merged.gguf.
static char *card_path(const struct Args *args) {
    const char *out = args_text(args, "out");
    return output_is_gguf(out) ? xsprintf("%.*s.README.md", (int)strlen(out) - 5, out) : path_join(out, "README.md");
}

static bool card_check(const struct Args *args) {
    char *path = card_path(args);
    bool ok = !file_exists(path) || fail("%s: exists already; give another name or remove it first", path);
    free(path);
    return ok;
}

static bool write_card(const struct Args *args, const struct Found *r, enum DType type, const json_t *record) {
    const char **line = args_command_line(args);
    struct Card c;
    card_begin(&c, "A model merged with vkmoe", args->operands[0], "merge",
               output_is_gguf(args_text(args, "out")) ? "gguf" : "transformers", "merge");
    card_heading(&c, "What it is");
    card_fact(&c, "base model", "%s", args->operands[0]);
    card_fact(&c, "merged into it", "%s", args_text(args, "adapter"));
    card_fact(&c, "type", "%s", DTYPES[type].name);
    card_fact(&c, "made with", "vkmoe %s", VKMOE_VERSION);
    card_heading(&c, "What was measured");
    card_fact(&c, "tensors changed", "%u", r->loss.tensors);
    card_fact(&c, "rms of weights, change, rounding", "%.4g, %.4g, %.4g", r->loss.weight, r->loss.change,
              r->loss.error);
    card_fact(&c, "share of the change that is kept", "%.4f", r->loss.kept);
    card_fact(&c, "nats a token off the adapted model", "%.4g on a short text", r->gap.divergence);
    card_command(&c, line, args->n_words + 2);
    free(line);
    if (record)
        card_training(&c, record);
    char *path = card_path(args);
    bool ok = card_end(&c, path, NULL);
    free(path);
    return ok;
}

// Whether what was written is what the adapter asks for, as far as the type can hold it.
static bool agrees(const struct Args *args, const struct Found *r, enum DType type) {
    const char *out = args_text(args, "out");
    if (!(r->gap.divergence <= r->bound)) // one that is no number fails too
        return fail("the merged model is %.4g nats a token off the adapted one, above the bound of %.4g for %s: %s is "
                    "removed; give a wider --type, or another --max-divergence",
                    r->gap.divergence, r->bound, DTYPES[type].name, out);
    return r->loss.kept >= 0.5 || args_given(args, "max-divergence") ||
           fail("rounding to %s leaves %.1f %% of the change: %s is removed; give a wider --type (q8_0, f16), or "
                "--max-divergence %.2g to have it so",
                DTYPES[type].name, 100 * r->loss.kept, out, r->bound);
}

// Writes the merged model to a place, and asks base and adapted one.
static bool merge(const struct Args *args, const char *to, struct Device *dev, const struct ModelFile *f,
                  const struct Asked *asked, enum DType type, struct Probe *adapted, struct Found *r) {
    struct Model m;
    struct Merge g = {0};
    struct Probe base = {0};
    struct ModelFile written;
    struct ModelOptions o = {.type = DT_COUNT, .max_positions = asked->n};
    if (!model_load(&m, dev, f, &o))
        return false;
    bool ok = probe_take(&base, &m, asked->ids, asked->n) && merge_begin(&g, &m, args_text(args, "adapter")) &&
              probe_take(adapted, &m, asked->ids, asked->n) && write_merged(args, to, f, &g, type);
    if (ok)
        r->moved = probe_compare(adapted, &base);
    if (ok && modelfile_open(&written, to)) {
        ok = merge_measure(&g, f, &written, &r->loss);
        modelfile_close(&written);
    } else {
        ok = false;
    }
    probe_free(&base);
    merge_end(&g);
    model_free(&m);
    return ok;
}

static bool ask_merged(const char *path, struct Device *dev, const struct Asked *asked, const struct Probe *adapted,
                       struct Found *r) {
    struct ModelFile f;
    struct Model m;
    struct Probe merged = {0};
    struct ModelOptions o = {.type = DT_COUNT, .max_positions = asked->n};
    if (!modelfile_open(&f, path))
        return false;
    bool ok = model_load(&m, dev, &f, &o);
    if (ok) {
        ok = probe_take(&merged, &m, asked->ids, asked->n);
        if (ok)
            r->gap = probe_compare(adapted, &merged);
        model_free(&m);
    }
    probe_free(&merged);
    modelfile_close(&f);
    return ok;
}

int cmd_merge(const struct Args *args) {
    struct ModelFile f;
    struct Device dev;
    struct Asked asked;
    struct Probe adapted = {0};
    struct Found r = {0};
    json_t *record = NULL;
    if (!output_check(args) || !card_check(args) || !card_record_read(args_text(args, "adapter"), &record) ||
        !load_open(&f, args->operands[0], true)) {
        json_decref(record);
        return EXIT_FAILED;
    }
    bool ok = false;
    if (probe_ids(&f, &asked) && selftest_device_open(&dev, args_text(args, "device"))) {
        bool fit = fits(&dev, &f, args_text(args, "adapter"), &asked);
        enum DType type = fit ? output_type(args, output_main_type(&f)) : DT_F32;
        r.bound = args_given(args, "max-divergence") ? args_float(args, "max-divergence") : bound_of(type);
        struct ModelPlace result; // what was found to be right gets its name
        struct OutputGuard guard;
        output_guard(&guard);
        modelwrite_place(&result, args_text(args, "out"));
        const char *path = result.temporary.path;
        ok = fit && merge(args, path, &dev, &f, &asked, type, &adapted, &r) &&
             ask_merged(path, &dev, &asked, &adapted, &r);
        ok = ok && show(args, &r) && agrees(args, &r, type) && modelwrite_place_keep(&result) &&
             write_card(args, &r, type, record) &&
             output_template(args_text(args, "out"), args_text(args, "adapter"), args->operands[0]);
        modelwrite_place_drop(&result);
        output_unguard(&guard);
        device_close(&dev);
    }
    probe_free(&adapted);
    modelfile_close(&f);
    json_decref(record);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
