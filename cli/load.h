// What chat, generate, score and others open before they can begin: the files, the device, the weights, an adapter, a session. All that
// can be known to be wrong is told before the weights are read, memory included: a dry run on a device that only counts comes first.
#pragma once
#include "cli/args.h"
#include "model/modelfile.h"
#include "model/sampler.h"
#include "model/stops.h"
#include "model/template.h"

struct Loaded {
    struct ModelFile file;
    struct Tokenizer tokenizer;
    struct Template template;
    struct Device dev;
    struct Model model;
    struct Session session;
    uint32_t positions; // that the rope table covers where later sessions are longer than the first; 0: as that one
    bool has_tokenizer, has_template, has_device, has_model, has_session;
    char *stops[STOPS_MAX]; // of --stop
    uint32_t n_stops;
};

// The device of --device, with its kernels verified and, as --tune says, its tiles measured.
bool load_device(struct Device *dev, const struct Args *args);
// What --tune says; below 0: off. False after one line.
bool load_tune(const struct Device *dev, const struct Args *args, double *seconds);

// What --template says, else the template that the adapter, else the model was trained with (model/template.h); NULL: the model's own. To be
// freed. `adapter` and `model` may be NULL.
char *load_template_name(const struct Args *args, const char *adapter, const char *model);
// Config, tokenizer and, where asked for, the chat template.
bool load_text(struct Loaded *l, const struct Args *args, bool with_template);
// The same of a model that need not have weights, such as a vocabulary alone: nothing else is loaded behind it.
bool load_text_alone(struct Loaded *l, const struct Args *args, bool with_template);
// Then device, weights (--type, --adapter) and a session. `positions` is what the rope table covers: the session's context at least.
bool load_model(struct Loaded *l, const struct Args *args, const struct SessionOptions *o);
void load_free(struct Loaded *l);
// model_load, or of a preset, which has no weights, random ones (model_fill; bf16 where --type is not given). For load_model's plan too.
bool load_weights(const struct Loaded *l, struct Device *dev, struct Model *m, const struct ModelOptions *o);

// Whether the weights as the file has them, and an adapter (or NULL), fit the device; with figures and `remedy` when not. For commands
// that need no session.
bool load_fits(const struct Device *dev, struct ModelFile *f, const char *adapter, const char *remedy);

// A model's file or folder, with its weights or its config alone; of a preset the line says what it lacks.
bool load_open(struct ModelFile *f, const char *model, bool with_weights);
// The same, or a preset's config.
bool load_open_any(struct ModelFile *f, const char *model, bool with_weights);
// Whether `model` is the name of a preset (a path of that name wins); then the config is all there is in `f`.
bool load_preset(struct ModelFile *f, const char *model);
// --context where given, else `wanted`; never above the model's context (refused by name when asked for).
bool load_context(const struct Loaded *l, const struct Args *args, uint64_t wanted, uint32_t *context);
// The flags under "Sampling", and the seed; false after one line.
bool load_sampling(const struct Args *args, struct SamplerSettings *set);
// --stop; the texts are kept by *l. load_text comes first.
bool load_stops(struct Loaded *l, const struct Args *args, struct Stops *stops);
// A stop text with \n, \t and \\ made the signs that they stand for; malloc'ed.
char *load_unescape(const char *text);
// --grammar into *g, where it is given.
bool load_grammar(const struct Args *args, struct Grammar *g);
// The grammar's automaton over the model's vocabulary, with the tokens of load_is_stop.
struct Matching *load_matching(const struct Loaded *l, const struct Grammar *g);
// A text from a file or, for "-", from standard input; malloc'ed.
bool load_file(const char *path, char **text, size_t *bytes);
// Ids after which a text is over: the config's, the tokenizer's and, with a template, the template's.
bool load_is_stop(const struct Loaded *l, uint32_t id);
// Keeps all of them out of what the session (made with `biased`) samples from now on.
bool load_forbid_stops(struct Loaded *l);
