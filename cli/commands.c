// The one table of commands and flags. A flag added here is parsed, checked, listed by --help and suggested when misspelt.
#include "cli/commands.h"
#include "model/config.h"
#include "model/sampler.h"
#include <string.h>

// Short forms of the entries: FLAG_xxx(name, short, value, default, help).
#define SWITCH(name, letter, help)                                                                                     \
    { name, letter, ARG_SWITCH, NULL, NULL, help, 0, 0, false }
#define TEXT(name, letter, value, fallback, help)                                                                      \
    { name, letter, ARG_TEXT, value, fallback, help, 0, 0, false }
#define NEEDED(name, letter, value, help)                                                                              \
    { name, letter, ARG_FILE, value, NULL, help, 0, 0, true }
#define FILENAME(name, letter, value, help)                                                                            \
    { name, letter, ARG_FILE, value, NULL, help, 0, 0, false }
#define LIST(name, value, help)                                                                                        \
    { name, 0, ARG_LIST, value, NULL, help, 0, 0, false }
#define INT(name, letter, fallback, min, max, help)                                                                    \
    { name, letter, ARG_INT, "N", fallback, help, min, max, false }
#define FLOAT(name, fallback, min, max, help)                                                                          \
    { name, 0, ARG_FLOAT, "X", fallback, help, min, max, false }
#define CHOICE(name, choices, fallback, help)                                                                          \
    { name, 0, ARG_CHOICE, choices, fallback, help, 0, 0, false }
#define HEADING(text)                                                                                                  \
    { NULL, 0, ARG_SWITCH, NULL, NULL, text, 0, 0, false }
#define END                                                                                                            \
    { NULL, 0, ARG_SWITCH, NULL, NULL, NULL, 0, 0, false }

const struct Flag COMMON_FLAGS[] = {
    HEADING("Common flags"),
    TEXT("device", 0, "NAME|N", NULL, "number or part of the name as `vkmoe devices` shows it; the fastest otherwise"),
    INT("seed", 0, "1", 0, 9007199254740992.0, "what all random choices follow from"),
    SWITCH("json", 0, "figures as JSON on stdout; everything else goes to stderr"),
    SWITCH("help", 'h', "this text"),
    SWITCH("version", 0, "the version"),
    END,
};

#define TYPES "f32|bf16|f16|q8_0|q6_k|q5_k|q5_1|q5_0|q4_k|q4_1|q4_0|iq4_nl|iq4_xs|q3_k|q2_k"
// llama.cpp's mixes (model/mix.c), the largest first.
#define MIXES "q8_0|q6_k|q5_k_m|q5_k_s|q5_1|q5_0|q4_k_m|q4_k_s|q4_1|q4_0|iq4_nl|iq4_xs|q3_k_l|q3_k_m|q3_k_s|q2_k"
#define TYPE_AS_FILE                                                                                                   \
    CHOICE("type", TYPES, NULL, "weights are held in this type on the device (default: as the file has them)")
#define ADAPTER       FILENAME("adapter", 0, "DIR", "LoRA adapter (PEFT layout) to put on top of the model")
#define CONTEXT(most) INT("context", 'c', NULL, 1, 1048576, "tokens of context to make room for (default: " most ")")
#define CACHE                                                                                                          \
    CHOICE("cache-type", "f32|f16|bf16|q8_0", "f16",                                                                   \
           "keys and values are held in this type: f16 halves their memory, q8_0 quarters it")
#define PLACE                                                                                                          \
    TEXT("gpu-layers", 0, "auto|all|N", "auto", "layers on the device; the others stay in host memory"),               \
        CHOICE("experts-on", "auto|gpu|cpu", "auto",                                                                   \
               "where routed experts lie: with cpu, or where they do not fit, the device brings in those it needs")
#define TUNE_WHERE(where)                                                                                              \
    TEXT("tune", 0, "off|auto|SECONDS", "auto",                                                                        \
         "time to spend on measuring kernel settings; the fastest are remembered. Results do not change (auto: 3 on "  \
         "a card, off on a processor" where ")")
#define TUNE TUNE_WHERE("")
#define READING                                                                                                        \
    TEXT("columns", 0, "LIST", NULL, "other names of keys, by commas: prompt=question,completion=answer"),             \
        CHOICE("overlong", "cut|split|drop", "cut", "what becomes of examples longer than --context"),                 \
        TEXT("data-weights", 0, "LIST", NULL, "how often an epoch sees each file, by commas: 2,0.5 (default: once)"),  \
        SWITCH("skip-bad", 0, "leave bad records out, each with a line, instead of stopping")
#define SAMPLING                                                                                                       \
    HEADING("Sampling"),                                                                                               \
        FLOAT("temperature", "0.7", 0, 100, "0 takes the likeliest token always; higher is more varied"),              \
        INT("top-k", 0, "0", 0, 1000000, "only the K likeliest tokens; 0: all"),                                       \
        FLOAT("top-p", "0.95", 0.000001, 1, "only the likeliest tokens that together reach this probability"),         \
        FLOAT("min-p", "0", 0, 1, "only tokens at least this probable, measured by the likeliest one"),                \
        FLOAT("typical", "1", 0.000001, 1,                                                                             \
              "typical sampling: keep the tokens whose surprise is nearest to the expected one, up to this total "     \
              "probability; 1: off"),                                                                                  \
        FLOAT("repeat-penalty", "1", 0.01, 100, "above 1: makes tokens that were seen lately less likely"),            \
        FLOAT("presence-penalty", "0", -100, 100, "taken from the logit of each token that was seen lately"),          \
        FLOAT("frequency-penalty", "0", -100, 100, "the same for each time that it was seen"),                         \
        INT("penalty-window", 0, "64", 1, SAMPLER_MAX_WINDOW,                                                          \
            "how many of the latest tokens (prompt included) the penalties look at"),                                  \
        FLOAT(                                                                                                         \
            "mirostat", "0", 0, 100,                                                                                   \
            "holds the surprise of tokens at so many bits (mirostat 2), instead of top-k, top-p, min-p and typical"),  \
        FLOAT("mirostat-rate", "0.1", 0.000001, 1, "how fast mirostat learns"),                                        \
        LIST("stop", "TEXT",                                                                                           \
             "ends an answer before this text, which is not printed; \\n, \\t and \\\\ stand for newline, tab and "    \
             "\\; may be "                                                                                             \
             "given several times")
#define TEMPLATE                                                                                                       \
    TEXT("template", 0, "NAME|FILE", NULL,                                                                             \
         "chat template: plain, deepseek, deepseek-coder, deepseek-v3, llama2, llama3, chatml, qwen2, qwen2.5, "       \
         "mistral, "                                                                                                   \
         "zephyr, "                                                                                                    \
         "or a file (default: the one the model names)")

static const struct Flag devices_flags[] = {
    SWITCH("check", 0, "run the start-up answers of every kernel variant again, and say which fail"),
    END,
};
static const struct Flag info_flags[] = {
    CHOICE("type", TYPES, NULL, "memory for weights of this type only (default: a row for each)"),
    END,
};
static const struct Flag chat_flags[] = {
    TEXT("system", 0, "TEXT", NULL, "system message, where the model's template knows one"),
    FILENAME("load", 0, "FILE", "go on with a conversation that /save kept"),
    TEMPLATE,
    INT("max-tokens", 'n', "1024", 1, 1048576, "longest answer"),
    TYPE_AS_FILE,
    ADAPTER,
    CONTEXT("the model's, at most 4096"),
    CACHE,
    PLACE,
    TUNE,
    SAMPLING,
    END,
};
static const struct Flag generate_flags[] = {
    TEXT("prompt", 'p', "TEXT", NULL, "what to go on from"),
    FILENAME("file", 'f', "FILE", "prompt from a file; - is standard input (the default without -p)"),
    FILENAME("prompts", 0, "FILE",
             "many prompts, several at once: a prompt a line, or, where the name ends in .jsonl, an object a line with "
             "\"prompt\" or \"messages\"; answers come in their order"),
    INT("parallel", 0, "8", 1, SESSION_MAX_SEQUENCES, "prompts of --prompts to answer at once"),
    SWITCH("chat", 0, "the prompt is a user's message: wrap it in the model's chat template"),
    SWITCH("raw", 0,
           "the prompt as it is, names of special tokens in it standing for the tokens (this is the default)"),
    TEXT("system", 0, "TEXT", NULL, "system message, with --chat"),
    TEMPLATE,
    INT("max-tokens", 'n', "128", 1, 1048576, "tokens to generate at most"),
    SWITCH("ignore-eos", 0, "never end before --max-tokens: no end-of-sequence token is taken"),
    FILENAME("grammar", 0, "FILE|TEXT",
             "the answer follows this grammar in GBNF: a file, the rules themselves, or the word json; the answer is "
             "always complete, even at --max-tokens"),
    INT("top-logprobs", 0, "0", 0, 100, "with --json: so many likeliest tokens in the place of each, and theirs"),
    TYPE_AS_FILE,
    ADAPTER,
    CONTEXT("what is needed"),
    CACHE,
    PLACE,
    TUNE,
    SAMPLING,
    END,
};
static const struct Flag train_flags[] = {
    NEEDED("data", 0, "FILES",
           "examples: JSON lines, a JSON array, CSV or plain text (.txt), also gzipped, in any usual form; by commas"),
    READING,
    FILENAME("validation", 0, "FILE", "examples of their own to measure on: before, between and after"),
    FLOAT("validation-split", "0", 0, 0.9, "share of the data that is held out to measure on"),
    TEMPLATE,
    NEEDED("out", 'o', "DIR", "folder for the result, checkpoints, metrics.jsonl, TensorBoard's events, pictures"),
    CHOICE("method", "full|lora|qlora|esft", "full",
           "train all weights, low-rank adapters of every linear (qlora: on a quantised base), or the experts that "
           "matter"),
    CHOICE("loss", "sft|dpo", "sft",
           "cross-entropy of answers, or preference between two: {\"prompt\", \"chosen\", \"rejected\"}"),
    FLOAT("dpo-beta", "0.1", 0.000001, 1000, "dpo: how much a gain in log-probability counts"),
    SWITCH(
        "from-scratch", 0,
        "MODEL is a preset, or a model whose config alone is taken; its weights begin as random ones that follow from "
        "--seed. Defaults are then --lr 6e-4 --schedule cosine --epochs 1 --overlong split"),
    FILENAME(
        "tokenizer", 0, "MODEL",
        "from scratch: model, tokenizer.json or tokenizer.model to take the tokens from (default: MODEL's own; of a "
        "preset one a byte)"),
    CHOICE("recipe", "deepseekmoe-sft", NULL, "defaults of the DeepSeekMoE paper's fine-tuning; flags given win"),
    SWITCH("resume", 0, "go on from the last checkpoint in --out"),
    SWITCH("dry-run", 0, "stop before the first step: the table of what is trained, the memory plan, one sample"),
    HEADING("How long and how much"),
    FLOAT("epochs", "3", 0.000001, 100000, "times through the data"),
    INT("steps", 0, NULL, 1, 1000000000, "steps, instead of --epochs"),
    INT("batch", 'b', "16", 1, 1048576, "examples a step"),
    TEXT("micro-batch", 0, "N|auto", "auto",
         "rows on the device at once: changes memory, and the result in rounding only, except with --balance-over "
         "batch"),
    INT("context", 'c', "1024", 8, 1048576, "tokens of a row; examples are packed into rows, none seeing another"),
    HEADING("Optimiser (AdamW)"),
    FLOAT("lr", "1e-5", 0, 10, "learning rate"),
    CHOICE("schedule", "constant|cosine|linear", "constant", "learning rate over the steps, after the warm-up"),
    INT("warmup", 0, "0", 0, 1000000000, "steps over which the learning rate rises from 0"),
    FLOAT("beta1", "0.9", 0, 0.999999, "decay of the first moment"),
    FLOAT("beta2", "0.95", 0, 0.999999, "decay of the second moment"),
    FLOAT("epsilon", "1e-8", 1e-18, 1, "added to the root of the second moment"), // which f32 may lose below that
    FLOAT("weight-decay", "0.1", 0, 10, "decoupled; not on norms and vectors"),
    CHOICE("moments", "f32|8bit", "f32", "how both moments are kept; 8bit: by blocks of 64, stochastically rounded"),
    FLOAT("clip", "1", 0, 1000000, "largest norm of the whole gradient; 0: no clipping"),
    FLOAT("neftune-alpha", "0", 0, 1000,
          "NEFTune: uniform noise of at most alpha / sqrt(tokens x width) on the embeddings of training examples; 5 to "
          "15 are usual, 0: none"),
    FLOAT("balance", NULL, 0, 1000, "weight of the experts' balance loss (default: the model's aux_loss_alpha)"),
    CHOICE("balance-over", "document|batch", NULL, "what the balance loss counts over (default: the model's seq_aux)"),
    SWITCH("freeze-router", 0, "leave the router's weights as they are"),
    HEADING("LoRA"),
    INT("lora-rank", 0, "16", 1, 1024, "rank"),
    FLOAT("lora-alpha", "32", 0.000001, 1000000, "scale is alpha / rank"),
    TEXT("lora-targets", 0, "LIST", "all",
         "by commas: all, attention, q_proj, k_proj, v_proj, o_proj, mlp, dense, shared_experts, experts, gate"),
    SWITCH("rslora", 0, "scale is alpha / sqrt(rank): large ranks learn as fast as small ones"),
    FLOAT("lora-experts-share", "1", 0.000001, 1,
          "adapters for this share of each layer's experts, the most used on the data"),
    FILENAME("adapter", 0, "DIR",
             "train this adapter (PEFT layout) further, on other data or by pairs, instead of a new one"),
    HEADING("Experts that matter (ESFT)"),
    CHOICE("esft-score", "token|gate", "token", "an expert's score: share of tokens sent to it, or mean gate weight"),
    FLOAT("esft-threshold", "0.2", 0.000001, 1,
          "in each layer the fewest experts whose scores sum up to this are trained"),
    INT("expert-sample", 0, "256", 0, 1000000000, "examples that experts are scored on; 0: all"),
    FILENAME("esft-config", 0, "FILE", "a list instead, as the authors publish them (expert_cfg.json)"),
    SWITCH("esft-only", 0, "the result is the trained experts alone, not a whole model"),
    HEADING("Memory and safety"),
    CHOICE(
        "type", TYPES, "f32",
        "weights (default with lora and qlora: as the file has them); bf16 ones are updated with stochastic rounding"),
    CHOICE("recompute", "on|off", "on", "forget a block's inner results and compute them again: less memory"),
    CHOICE("optimizer-in-backward", "on|off", "off",
           "update each layer as soon as its gradient is there, which makes room for the next one's; a step is one "
           "micro-batch then"),
    TEXT("offload", 0, "LIST", "none",
         "what lies in host memory: none, moments, weights, by commas; same result, slower"),
    TUNE,
    TEXT("assume-memory", 0, "SIZE", NULL, "with --dry-run: the plan for a card with so much (16GiB) that is not here"),
    INT("save-every", 0, "0", 0, 1000000000, "steps between checkpoints; 0: at the end only"),
    INT("keep", 0, "2", 1, 1000, "checkpoints to keep"),
    SWITCH("keep-best", 0, "the result is the model with the lowest held-out loss that was seen, not the last"),
    INT("validate-every", 0, "0", 0, 1000000000, "steps between looks at --validation; 0: first and last only"),
    HEADING("What the model says meanwhile (samples.txt)"),
    INT("sample-every", 0, "0", 0, 1000000000,
        "steps between samples, before the first step and behind the last too; 0: none"),
    TEXT("sample-prompt", 0, "TEXT", NULL, "what a sample goes on from (default: the beginning of a text)"),
    INT("sample-tokens", 0, "128", 1, 1048576, "longest sample"),
    FLOAT("sample-temperature", "0.8", 0, 100, "0 takes the likeliest token always; higher is more varied"),
    END,
};
static const struct Flag data_flags[] = {
    NEEDED("model", 'm', "MODEL", "whose tokenizer and chat template read the data; no weights are needed"),
    TEMPLATE,
    READING,
    CHOICE("loss", "sft|dpo", "sft", "what `train` will learn from; dpo: pairs {\"prompt\", \"chosen\", \"rejected\"}"),
    INT("context", 'c', "1024", 8, 1048576, "tokens of a row, as in `train`"),
    INT("batch", 'b', "16", 1, 1048576, "examples a step, as in `train`: what is packed together"),
    INT("samples", 'n', "3", 0, 1000000, "examples to show, drawn by --seed"),
    END,
};
static const struct Flag plot_flags[] = {
    CHOICE("metric", "loss|lr|grad_norm|tokens_per_second|validation_loss", "loss", "which curve"),
    FLOAT("smooth", "0.025", 0, 1, "width of the running mean, as a share of the curve; 0: the values as they are"),
    FILENAME("out", 'o', "FILE", "PNG to write (default: the metric's name and .png)"),
    END,
};
static const struct Flag score_flags[] = {
    NEEDED("file", 'f', "TEXT", "text to score; - is standard input"),
    INT("limit", 0, NULL, 1, 1000000000, "first tokens of the text only"),
    SWITCH("no-bos", 0, "do not put the beginning-of-sequence token before each window"),
    TYPE_AS_FILE,
    ADAPTER,
    CACHE,
    PLACE,
    TUNE,
    INT("window", 'w', NULL, 2, 1048576, "tokens seen at once (default: the model's context, at most 2048)"),
    END,
};
static const struct Flag eval_flags[] = {
    TEXT("tasks", 0, "LIST", "all", "benchmarks by commas, as `vkmoe eval tasks` lists them"),
    LIST("task-file", "FILE", "a task of your own, instead of --tasks or beside it"),
    FILENAME("data", 0, "DIR", "folder of the benchmarks' files as they are published"),
    FILENAME("out", 'o', "FILE",
             "results as JSON (default: results.json); every prompt and answer goes to FILE with .jsonl behind it, "
             "from where an interrupted run goes on"),
    TEXT("name", 0, "TEXT", NULL, "what the model is called in tables (default: the name that its file gives it)"),
    INT("shots", 0, NULL, 0, 1000, "worked examples in front of each question (default: the task's own number)"),
    INT("limit", 0, NULL, 1, 100000000, "records of a task at most, taken from all its subjects in turn"),
    SWITCH("chat", 0, "each prompt is a user's message: wrap it in the model's chat template"),
    TEMPLATE,
    SWITCH("dry-run", 0, "ask nothing: print every prompt with its tokens, a line of JSON each (needs no weights)"),
    SWITCH("subjects", 0, "the table has a row for each subject too"),
    SWITCH("allow-code-execution", 0, "run the programs that the model writes (HumanEval, MBPP), in a sandbox"),
    INT("parallel", 0, "8", 1, SESSION_MAX_SEQUENCES, "answers at once: changes the time, not the scores"),
    TYPE_AS_FILE,
    ADAPTER,
    CONTEXT("what is needed"),
    CACHE,
    PLACE,
    TUNE,
    HEADING("Of `eval report`"),
    SWITCH("md", 0, "the table in Markdown"),
    FILENAME("png", 0, "FILE", "the table as a picture"),
    END,
};
static const struct Flag bench_flags[] = {
    INT("repetitions", 'r', "5", 1, 63, "runs of which the median is taken (model), after one that compiles"),
    SWITCH("csv", 0, "the table as CSV"),
    SWITCH("md", 0, "the table in Markdown"),
    FILENAME("compare", 0, "FILE", "what --json printed before: ratios, and status 1 where a row is worse"),
    FLOAT("threshold", "5", 0, 1000, "percent that a row may be worse"),
    SWITCH("operations", 0, "time by operation as well, of the last test (model, train)"),
    FILENAME("png", 0, "FILE",
             "a picture: time by operation (model, train), or a roofline with a dot for each row (kernels)"),
    TUNE_WHERE("; kernels: only where given"),
    HEADING("Of `bench model`"),
    TEXT("n-prompt", 'p', "LIST", "512", "tokens of prompts to read, by commas; 0: none"),
    TEXT("n-gen", 'n', "LIST", "128", "tokens to make one by one; 0: none"),
    TEXT("n-depth", 'd', "LIST", "0", "tokens that stand before them"),
    TEXT("sequences", 'b', "LIST", "1", "sequences that make tokens at once"),
    CHOICE("type", TYPES, NULL,
           "weights are held in this type (default: as the file has them, bf16 of presets; train: f32, unless adapters "
           "are trained)"),
    ADAPTER,
    CACHE,
    PLACE,
    HEADING("Of `bench kernels`"),
    FILENAME("preset", 0, "MODEL",
             "shapes of the layers of this preset or model, weights in --type (bf16), instead of a chosen few"),
    TEXT("tokens", 0, "LIST", "1,512", "tokens of a pass: up to 8 decode, more are a prompt or training"),
    SWITCH("warm", 0, "leave in the caches what the run before left there"),
    HEADING("Of `bench shader`"),
    TEXT("as", 0, "KERNEL", NULL,
         "run the file in the place of this built-in kernel, checked and beside its time; FILTER: a part of an "
         "operation "
         "or shape"),
    LIST("define", "NAME[=VALUE]", "for the preprocessor"),
    TEXT("grid", 0, "X[,Y[,Z]]", NULL, "workgroups"),
    INT("width", 0, NULL, 1, 65536, "invocations of one, where the file leaves it open (local_size_x_id = 0)"),
    LIST("buffer", "[NAME=]TYPE:SHAPE[:FILL]",
         "memory for a pointer of the push-constant block: f32:4096, q4_0:64x4K; filled with random, index, out (NaN) "
         "or "
         "a number"),
    LIST("push", "[NAME=]VALUE", "a number of the push-constant block"),
    LIST("constant", "ID=VALUE", "a specialisation constant, from 2 on"),
    FLOAT("flops", "0", 0, 1e18, "operations of a run, for GFLOP/s"),
    FLOAT("bytes", "0", 0, 1e18, "bytes that a run reads and writes, for GB/s"),
    HEADING("Of `bench static`"),
    SWITCH("peer", 0,
           "beside llama.cpp's kernels of the same operations, from its test-backend-ops (VKMOE_PEER=PATH); AMD's and "
           "NVIDIA's cards, there or not"),
    HEADING("Of `bench train`"),
    CHOICE("method", "full|lora|qlora|esft", "full", "what is trained, as in `train`"),
    INT("context", 'c', "1024", 8, 1048576, "tokens of a row"),
    INT("micro-batch", 0, "1", 1, 65536, "rows on the device at once"),
    INT("batch", 0, NULL, 1, 65536, "rows of a step (default: one micro-batch)"),
    INT("steps", 0, "5", 1, 1000, "steps of which the median is taken, after one that compiles"),
    CHOICE("recompute", "on|off", "on", "forget a block's inner results and compute them again"),
    CHOICE("moments", "f32|8bit", "f32", "how AdamW's moments are kept"),
    CHOICE("optimizer-in-backward", "on|off", "off", "update each layer as soon as its gradient is there"),
    CHOICE("offload", "none|moments|weights|moments,weights", "none", "what lies in host memory"),
    INT("lora-rank", 0, "16", 1, 1024, "rank of adapters, which every linear gets"),
    FLOAT("esft-threshold", "0.2", 0.000001, 1, "share of the experts that is trained"),
    END,
};
static const struct Flag tokenize_flags[] = {
    FILENAME("file", 'f', "FILE", "text to cut; - is standard input"),
    TEXT("prompt", 'p', "TEXT", NULL, "text to cut"),
    TEXT("decode", 0, "IDS", NULL, "the other way: numbers by commas or spaces to text"),
    SWITCH("special", 0, "names of special tokens in the text stand for the tokens"),
    SWITCH("bos", 0, "put the beginning-of-sequence token first, where the model has it"),
    END,
};
static const struct Flag init_flags[] = {
    CHOICE("preset", CONFIG_PRESETS("|"), "tiny-moe", "architecture to make"),
    NEEDED("out", 'o', "PATH", "folder (Hugging Face layout), or a name that ends in .gguf"),
    FILENAME("tokenizer", 0, "MODEL",
             "model, tokenizer.json or tokenizer.model to take the tokens from (default: one a byte)"),
    CHOICE("type", TYPES, "f32", "type of the weights in the file"),
    INT("layers", 0, NULL, 1, 1000, "only so many of its layers, each as wide as it is"),
    END,
};
static const struct Flag convert_flags[] = {
    NEEDED("out", 'o', "PATH", "folder (Hugging Face layout), or a name that ends in .gguf"),
    CHOICE("type", TYPES, NULL, "type of the matrices in the file (default: as they are)"),
    END,
};
static const struct Flag quantize_flags[] = {
    NEEDED("out", 'o', "FILE", "a name that ends in .gguf"),
    CHOICE("type", MIXES, "q4_k_m", "llama.cpp's name for the mix: which tensor gets which type is the same as there"),
    FILENAME("imatrix", 0, "FILE", "importance matrix of llama-imatrix: columns that matter more are kept nearer"),
    END,
};
static const struct Flag upcycle_flags[] = {
    NEEDED("out", 'o', "PATH", "folder (Hugging Face layout), or a name that ends in .gguf"),
    INT("shards", 0, "16", 2, 4096, "pieces that each feed-forward layer is cut into"),
    INT("shared", 0, "4", 0, 4096, "pieces that every token goes through; the rest are routed experts"),
    INT("active", 0, NULL, 1, 4096, "routed experts a token takes (default: half of them)"),
    INT("dense-layers", 0, "1", 0, 4096, "first layers left as they are"),
    FILENAME("calibrate", 0, "FILE",
             "a little text: neurons are grouped by what they do on that text, and the router starts from them"),
    CHOICE("type", TYPES, NULL, "type of the matrices in the file (default: as they are)"),
    END,
};
static const struct Flag merge_flags[] = {
    NEEDED("adapter", 0, "DIR",
           "LoRA adapter (PEFT layout) to add to the weights, or the experts of `train --esft-only`"),
    NEEDED("out", 'o', "PATH", "folder (Hugging Face layout), or a name that ends in .gguf"),
    CHOICE("type", TYPES, NULL,
           "type of the matrices in the file (default: each as it is; a folder cannot hold quantised ones)"),
    FLOAT("max-divergence", NULL, 0, 1000,
          "nats a token that the merged model may be off the adapted one on a short text, else it fails (default by "
          "type: "
          "f32 1e-5, f16 and bf16 0.01, 8 bits 0.05, 6 0.1, 5 0.3, 4 1, 3 2, 2 5)"),
    END,
};
static const struct Flag completion_flags[] = {
    END,
};
static const struct Flag man_flags[] = {
    FILENAME("out", 'o', "DIR", "write all pages to this folder, instead of one to standard output"),
    END,
};

const struct Command COMMANDS[] = {
    {"devices", cmd_devices, "what can run here, which fast paths are on, and why others are off", "", 0, 0,
     devices_flags, TAKES_DEVICE | TAKES_JSON, "vkmoe devices"},
    {"info", cmd_info, "architecture, parameters, FLOPs per 4K tokens, memory", "MODEL", 1, 1, info_flags, TAKES_JSON,
     "vkmoe info deepseek-moe-16b"},
    {"chat", cmd_chat, "talk to a model", "MODEL", 1, 1, chat_flags, TAKES_ALL, "vkmoe chat tuned --temperature 0.3"},
    {"generate", cmd_generate, "one answer or many, for scripts and pipes", "MODEL", 1, 1, generate_flags, TAKES_ALL,
     "vkmoe generate smollm2.gguf --chat -p \"What is a mixture of experts?\"\n"
     "vkmoe generate smollm2.gguf --prompts questions.txt --chat --json --stop \"###\"\n"
     "vkmoe generate smollm2.gguf --chat -p \"A cat as JSON, please.\" --grammar json"},
    {"train", cmd_train, "fine-tune a model: all weights, LoRA, QLoRA, chosen experts; SFT or DPO", "MODEL", 1, 1,
     train_flags, TAKES_ALL, "vkmoe train smollm2-moe --data chats.jsonl --out tuned --method lora --lr 2e-4"},
    {"data", cmd_data, "what training would see of data files", "FILE...", 1, ARGS_MAX_OPERANDS, data_flags,
     TAKES_SEED | TAKES_JSON, "vkmoe data chats.jsonl --model smollm2.gguf --context 2048"},
    {"plot", cmd_plot, "the curves of training runs, one over the other", "DIR...", 1, ARGS_MAX_OPERANDS, plot_flags,
     TAKES_JSON, "vkmoe plot tuned tuned-lora --metric validation_loss --out curves.png"},
    {"score", cmd_score, "log-probabilities and perplexity of a text", "MODEL", 1, 1, score_flags,
     TAKES_DEVICE | TAKES_JSON, "vkmoe score smollm2.gguf --file wiki.txt --json"},
    {"eval", cmd_eval, "benchmarks of the DeepSeekMoE paper, and tables of their results",
     "MODEL | report RESULTS... | tasks", 1, ARGS_MAX_OPERANDS, eval_flags, TAKES_DEVICE | TAKES_JSON,
     "vkmoe eval smollm2.gguf --tasks hellaswag,piqa --data benchmarks --limit 100\n"
     "vkmoe eval report dense.json moe.json --png table.png"},
    {"bench", cmd_bench, "speed of models, of every kernel beside this device's own measured peak, and of the device",
     "model MODEL | train MODEL | kernels [FILTER] | shader FILE [FILTER] | device | static [FILTER]", 1, 3,
     bench_flags, TAKES_ALL,
     "vkmoe bench model smollm2.gguf -p 512,4096 -d 0,4096 -b 1,8\n"
     "vkmoe bench model deepseek-moe-16b --type q4_k --json >before.json\n"
     "vkmoe bench model deepseek-moe-16b --type q4_k --compare before.json\n"
     "vkmoe bench train deepseek-moe-16b --method qlora --context 2048 --operations\n"
     "vkmoe bench kernels gemm\n"
     "vkmoe bench kernels --preset deepseek-moe-16b --tokens 1,8,512,4096 --csv --png roofline.png\n"
     "vkmoe bench shader my_gemv.comp --as gemv_q4_0\n"
     "vkmoe bench shader scale.comp --grid 4096 --buffer x=f32:1M --buffer y=f32:1M:out --push n=1M --push a=0.5 "
     "--bytes 8e6"},
    {"tokenize", cmd_tokenize, "text to token numbers, and back", "MODEL", 1, 1, tokenize_flags, TAKES_JSON,
     "vkmoe tokenize smollm2.gguf -p \"Hello, world\""},
    {"init", cmd_init, "make a model with random weights", "", 0, 0, init_flags, TAKES_SEED | TAKES_JSON,
     "vkmoe init --preset tiny-moe --out tiny"},
    {"convert", cmd_convert, "write a model in another format or type", "MODEL", 1, 1, convert_flags, TAKES_JSON,
     "vkmoe convert smollm2-folder --out smollm2-q4_1.gguf --type q4_1"},
    {"quantize", cmd_quantize, "make a model small: a GGUF with llama.cpp's mix of types", "MODEL", 1, 1,
     quantize_flags, TAKES_JSON, "vkmoe quantize smollm2-folder --out smollm2-q4_k_m.gguf --type q4_k_m"},
    {"upcycle", cmd_upcycle, "cut a dense model into a DeepSeekMoE", "MODEL", 1, 1, upcycle_flags, TAKES_ALL,
     "vkmoe upcycle smollm2.gguf --out smollm2-moe --shards 16 --shared 4 --active 6 --calibrate some.txt"},
    {"merge", cmd_merge, "add a LoRA adapter, or trained experts, to their model", "MODEL", 1, 1, merge_flags,
     TAKES_DEVICE | TAKES_JSON, "vkmoe merge smollm2.gguf --adapter tuned --out merged.gguf"},
    {"completion", cmd_completion, "a script with which a shell completes commands, flags and values", "SHELL", 1, 1,
     completion_flags, 0, "vkmoe completion bash >~/.local/share/bash-completion/completions/vkmoe"},
    {"man", cmd_man, "manual pages, in roff", "[COMMAND]", 0, 1, man_flags, 0,
     "vkmoe man generate | man -l -\nvkmoe man --out ~/.local/share/man/man1"},
    {NULL, NULL, NULL, NULL, 0, 0, NULL, 0, NULL},
};

bool args_takes(const struct Command *command, const struct Flag *flag) {
    static const struct {
        const char *name;
        unsigned bit;
    } SOME[] = {{"device", TAKES_DEVICE}, {"seed", TAKES_SEED}, {"json", TAKES_JSON}}; // the others are everybody's
    for (size_t i = 0; flag->name && i < sizeof SOME / sizeof *SOME; i++)
        if (strcmp(flag->name, SOME[i].name) == 0)
            return command->takes & SOME[i].bit;
    return true;
}
