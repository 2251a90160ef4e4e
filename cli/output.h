// Where convert, init, upcycle and merge put a model: a folder in Hugging Face's layout, or one GGUF file when the name ends
// in .gguf; with a progress bar over the rows that go by.
#pragma once
#include "cli/args.h"
#include "model/modelwrite.h"
#include <jansson.h>
#include <signal.h>

// Checks --out and --type before any work: the output is free, and a folder gets F32, F16 or BF16 alone.
bool output_check(const struct Args *args);
// The chat template that the adapter (or NULL), else the model was trained with, for whoever uses the output (model/template.h).
bool output_template(const char *out, const char *adapter, const char *model);
// --type, or `fallback`; a quantised fallback becomes F32 for a folder, with a line that says so.
enum DType output_type(const struct Args *args, enum DType fallback);
// `tokenizer` may be NULL. Says at the end what was written.
bool output_write(const struct Args *args, const struct Config *c, enum DType type, const struct WeightSource *source,
                  const struct ModelFile *tokenizer, const char *name);
// The same with a type for each tensor; `what` is how the message calls them.
bool output_write_as(const struct Args *args, const struct Config *c, const struct WriteTypes *types,
                     const struct WeightSource *source, const struct ModelFile *tokenizer, const char *name,
                     const char *what);
// As these two, but the model stands at `to`, which need not be --out. A folder knows types.type alone.
bool output_write_to(const struct Args *args, const char *to, const struct Config *c, const struct WriteTypes *types,
                     const struct WeightSource *source, const struct ModelFile *tokenizer, const char *name,
                     const char *what);
// Prints it to stdout, by jansson's flags, and drops it. False after a message where it is NULL, as json_pack gives for a text that is no UTF-8.
bool output_json(json_t *j, size_t flags);
// From here on SIGINT, SIGTERM and SIGHUP end the program without what is not finished (runtime/temporary.h). Writing does this by itself; what follows on
// it may have to as well.
struct OutputGuard {
    struct sigaction before[3];
};
void output_guard(struct OutputGuard *g);
// The same with a handler of the caller's. One that is ignored stays so, under both: nohup, or a shell's job in the background.
void output_catch(struct OutputGuard *g, void (*handler)(int number));
void output_unguard(const struct OutputGuard *g); // as it was before
// What a model that is made from this file is called: the name that the file gives it, or else that of the file.
char *output_name(const struct ModelFile *f);
bool output_is_gguf(const char *path);
// The type of most weights of a model's file.
enum DType output_main_type(const struct ModelFile *f);
