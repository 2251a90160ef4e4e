// `vkmoe info MODEL`: what a model is and costs, from its configuration alone: no weights are read and no device is opened.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/term.h"
#include "model/json.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t FLOPS_TOKENS = 4096;

static uint64_t cache_bytes_per_token(const struct Config *c) { return session_cache_bytes(c, DT_F16); }

static const enum DType INFO_TYPES[] = {DT_F32,  DT_BF16, DT_F16,  DT_Q8_0,   DT_Q6_K,   DT_Q5_K, DT_Q5_1, DT_Q5_0,
                                        DT_Q4_K, DT_Q4_1, DT_Q4_0, DT_IQ4_NL, DT_IQ4_XS, DT_Q3_K, DT_Q2_K};
static const uint32_t INFO_CONTEXTS[] = {1024, 4096, 8192, 16384, 32768, 131072};
enum { N_INFO_TYPES = sizeof INFO_TYPES / sizeof INFO_TYPES[0] };
enum { N_INFO_CONTEXTS = sizeof INFO_CONTEXTS / sizeof INFO_CONTEXTS[0] };

static bool type_wanted(const struct Args *args, enum DType type) {
    const char *only = args_text(args, "type");
    return !only || strcmp(only, DTYPES[type].name) == 0;
}

static bool context_fits(const struct Config *c, uint32_t context) { return context <= max_u64(c->max_context, 1024); }

static json_t *memory_json(const struct Args *args, const struct Config *c) {
    json_t *rows = json_array();
    for (int t = 0; t < N_INFO_TYPES; t++) {
        if (!type_wanted(args, INFO_TYPES[t]))
            continue;
        uint64_t weights = model_weight_bytes(c, INFO_TYPES[t]);
        for (int i = 0; i < N_INFO_CONTEXTS; i++) {
            if (!context_fits(c, INFO_CONTEXTS[i]))
                continue;
            uint64_t cache = cache_bytes_per_token(c) * INFO_CONTEXTS[i];
            json_array_append_new(rows, json_pack("{s:s, s:i, s:I, s:I}", "type", DTYPES[INFO_TYPES[t]].name, "context",
                                                  (int)INFO_CONTEXTS[i], "weight_bytes", (json_int_t)weights,
                                                  "cache_bytes", (json_int_t)cache));
        }
    }
    return rows;
}

static int print_json(const struct Args *args, const struct Config *c) {
    json_t *root = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f}", "model", args->operands[0], "architecture",
                             ARCHS[c->arch].model_type, "total_parameters", (json_int_t)config_parameters(c),
                             "activated_parameters", (json_int_t)config_activated_parameters(c), "flops_per_4k_tokens",
                             config_train_flops(c, FLOPS_TOKENS), "forward_flops_per_4k_tokens",
                             config_train_flops(c, FLOPS_TOKENS) / 3);
    if (!root) {
        fail("%s: the name is not UTF-8", args->operands[0]);
        return EXIT_FAILED;
    }
    char *config = config_to_json(c, "float32");
    json_object_set_new(root, "config", json_loads(config, 0, NULL));
    free(config);
    json_object_set_new(root, "memory", memory_json(args, c));
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(root);
    return EXIT_DONE;
}

// What else the config switches on.
static void print_switches(const struct Config *c) {
    static const char *const ROPE[] = {NULL, "linear", "dynamic", "yarn", "llama3", "rope_freqs.weight"};
    char rope[64] = "";
    if (c->rope.kind == ROPE_DIVISORS)
        snprintf(rope, sizeof rope, "rope scaled by rope_freqs.weight");
    else if (c->rope.kind != ROPE_PLAIN)
        snprintf(rope, sizeof rope, "rope scaling %s by %g", ROPE[c->rope.kind], (double)c->rope.factor);
    const char *const parts[] = {rope[0] ? rope : NULL, c->qkv_bias ? "biases of q, k and v" : NULL,
                                 c->o_bias ? "of o" : NULL, c->mlp_bias ? "biases of the FFN" : NULL,
                                 c->qk_norm ? "norms of q and k" : NULL};
    bool any = false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i])
            printf("%s%s", any ? ", " : "  with           ", parts[i]);
        any = any || parts[i];
    }
    if (any)
        putchar('\n');
}

static void print_architecture(const struct Config *c) {
    char total[16], active[16];
    term_format_count((double)config_parameters(c), total);
    term_format_count((double)config_activated_parameters(c), active);
    printf("  architecture   %s, %u layers, width %u, vocabulary %u%s\n", ARCHS[c->arch].model_type, c->n_layers,
           c->dim, c->vocab_size, c->tied_head ? " (head tied to the embedding)" : "");
    printf("  attention      %u heads of %u, %u for keys and values, context %u\n", c->n_heads, c->head_dim,
           c->n_kv_heads, c->max_context);
    uint32_t n_moe = config_moe_layers(c);
    if (n_moe < c->n_layers)
        printf("  feed-forward   %u layers of width %u\n", c->n_layers - n_moe, c->hidden);
    if (n_moe > 0 && c->shared_hidden)
        printf("  experts        %u layers of %u routed (%u active) experts of width %u and a %sshared one of %u\n",
               n_moe, c->n_experts, c->n_active, c->moe_hidden, c->shared_gate ? "gated " : "", c->shared_hidden);
    else if (n_moe > 0)
        printf("  experts        %u layers of %u routed (%u active) and %u shared experts of width %u\n", n_moe,
               c->n_experts, c->n_active, c->n_shared, c->moe_hidden);
    print_switches(c);
    printf("  parameters     %s in all, %s activated by a token\n", total, active);
    double flops = config_train_flops(c, FLOPS_TOKENS);
    printf("  FLOPs          %.3gT per 4K tokens, forward and backward (%.3gT forward)\n", flops * 1e-12,
           flops * 1e-12 / 3);
}

static void print_memory(const struct Args *args, const struct Config *c) {
    char text[16];
    printf("\n  memory to run it: weights and cache (f16), by type and context\n  %-8s %10s", "type", "weights");
    for (int i = 0; i < N_INFO_CONTEXTS; i++) {
        if (context_fits(c, INFO_CONTEXTS[i]))
            printf(" %9u K", INFO_CONTEXTS[i] / 1024);
    }
    putchar('\n');
    for (int t = 0; t < N_INFO_TYPES; t++) {
        if (!type_wanted(args, INFO_TYPES[t]))
            continue;
        uint64_t weights = model_weight_bytes(c, INFO_TYPES[t]);
        term_format_bytes(weights, text);
        printf("  %-8s %10s", DTYPES[INFO_TYPES[t]].name, text);
        for (int i = 0; i < N_INFO_CONTEXTS; i++) {
            if (!context_fits(c, INFO_CONTEXTS[i]))
                continue;
            term_format_bytes(weights + cache_bytes_per_token(c) * INFO_CONTEXTS[i], text);
            printf(" %11s", text);
        }
        putchar('\n');
    }
    printf("\n  `vkmoe train ... --dry-run` tells the memory of a fine-tuning before it begins.\n");
}

static int print(const struct Args *args, const struct Config *c) {
    if (args_switch(args, "json"))
        return print_json(args, c);
    printf("%s%s%s\n", term_paint(stdout, PAINT_BOLD), args->operands[0], term_paint(stdout, PAINT_NONE));
    print_architecture(c);
    print_memory(args, c);
    return EXIT_DONE;
}

int cmd_info(const struct Args *args) {
    const char *model = args->operands[0];
    struct ModelFile f;
    int status = EXIT_FAILED;
    if (!load_open_any(&f, model, false))
        return EXIT_FAILED;
    if (f.vocab_only)
        fail("%s: holds a vocabulary alone, no weights; `vkmoe tokenize` can use it", model);
    else
        status = print(args, &f.config);
    modelfile_close(&f);
    return status;
}
