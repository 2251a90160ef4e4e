// One way to read any model: a Hugging Face folder or a GGUF file becomes a Config, the source of its tokenizer, and tensors
// by Hugging Face's names, except that the routed experts of a layer are one tensor (n_experts, out, in). Rows of q and
// k always come in Hugging Face's order (rope on halves); GGUF's interleaved order is undone while reading.
#pragma once
#include "model/config.h"
#include "model/gguf.h"
#include "model/safetensors.h"

// What a tensor is for, so that callers need not take names apart.
enum WeightRole {
    ROLE_EMBED,       // model.embed_tokens.weight                             (vocab_size, dim)
    ROLE_NORM,        // ...input_layernorm / post_attention_layernorm / model.norm .weight   (dim);
                      //   self_attn.q_norm (n_heads * head_dim), k_norm (n_kv_heads * head_dim)
    ROLE_BIAS,        // a linear's .bias                                      (rows of its weight)
    ROLE_Q,           // model.layers.%u.self_attn.q_proj.weight               (n_heads * head_dim, dim)
    ROLE_K,           // ...k_proj                                             (n_kv_heads * head_dim, dim)
    ROLE_V,           // ...v_proj                                             (n_kv_heads * head_dim, dim)
    ROLE_O,           // ...o_proj                                             (dim, n_heads * head_dim)
    ROLE_FFN,         // model.layers.%u.mlp.{gate,up}_proj (hidden, dim), down_proj (dim, hidden)
    ROLE_ROUTER,      // model.layers.%u.mlp.gate.weight                       (n_experts, dim)
    ROLE_EXPERTS,     // model.layers.%u.mlp.experts.{gate,up}_proj.weight     (n_experts, moe_hidden, dim),
                      //   down_proj                                           (n_experts, dim, moe_hidden)
    ROLE_SHARED,      // model.layers.%u.mlp.shared_experts.{gate,up}_proj.weight (config_shared_width, dim), down_proj;
                      //   shared_expert of Qwen2-MoE
    ROLE_SHARED_GATE, // model.layers.%u.mlp.shared_expert_gate.weight     (1, dim)
    ROLE_HEAD,        // lm_head.weight, absent when tied                      (vocab_size, dim)
};

struct WeightSpec {
    char name[80]; // canonical
    char gguf[48]; // GGUF's name
    enum WeightRole role;
    uint32_t layer; // UINT32_MAX: of no layer
    uint32_t n_dims;
    uint32_t dim[4]; // outermost first
};
// What is kept in f32 on devices and in GGUF: norms, biases and what decides on experts must not be rounded.
static inline bool weight_is_exact(const struct WeightSpec *w) {
    return w->n_dims == 1 || w->role == ROLE_ROUTER || w->role == ROLE_SHARED_GATE;
}
// Whether its rows (elements, of a bias) are those of the heads that rope turns: q and k.
bool weight_has_heads(const struct WeightSpec *w);
// All weights of a model in the order of the forward pass; malloc'ed.
struct WeightSpec *weight_list(const struct Config *c, uint32_t *count);
// Name of expert `e`'s slice of a ROLE_EXPERTS tensor in a Hugging Face file.
void weight_expert_name(const struct WeightSpec *w, uint32_t e, char *out, size_t room);

struct FilePart {
    uint32_t shard;
    uint64_t offset; // from the start of that file
};
struct FileTensor {
    struct WeightSpec spec;
    enum DType type;
    uint64_t cols, n_rows; // rows over all outer dimensions
    uint64_t row_bytes;    // in file layout
    uint64_t rows_per_part;
    struct FilePart *parts;
    uint32_t rope_head; // head_dim when rows (of a bias: its elements) must be un-permuted, else 0
};

struct ModelFile {
    char *path;
    struct Config config;
    // A GGUF without tensors, whose config is as far as the file states it, or a tokenizer's folder or file, without any config.
    bool vocab_only;
    struct FileTensor *tensors;
    uint32_t n_tensors;
    struct FileIn **shards; // files the parts refer to
    uint32_t n_shards;
    struct Safetensors *safetensors; // of a folder, n_shards of them
    struct Gguf *gguf;               // NULL for a folder; the file, or the first of n_gguf parts, which has the keys
    uint32_t n_gguf;                 // that are open
    // The tokenizer: of a folder the path of tokenizer.json, else tokenizer.model (NULL: none), and tokenizer_config.json (NULL: none); of a GGUF the keys tokenizer.*.
    char *tokenizer_path, *tokenizer_config_path;
    char *chat_template; // Jinja text, NULL: none
};
// All tensors that the config asks for must exist with their shape and a supported type; one clear line otherwise. A vocabulary alone is
// no model here.
bool modelfile_open(struct ModelFile *f, const char *path);
// Config and tokenizer alone (info, tokenize): tensors are not looked at, and those of a folder need not be there.
bool modelfile_open_config(struct ModelFile *f, const char *path);
void modelfile_close(struct ModelFile *f);
const struct FileTensor *modelfile_find(const struct ModelFile *f, const char *name); // NULL: absent
// Where in a file all rows stand as modelfile_read_rows gives them, one behind the other; false: nowhere, they must be put together.
bool modelfile_place(const struct FileTensor *t, struct FilePart *place);
// Rows first .. first+count (over all outer dimensions) in file layout: count * row_bytes bytes.
bool modelfile_read_rows(const struct ModelFile *f, const struct FileTensor *t, uint64_t first, uint64_t count,
                         void *out);
