// Rope's frequencies and the ways to stretch them. With base b and head_dim d, pair i turns by position * f[i], plainly f[i] = b^(-2i/d).
//   linear   f / factor
//   dynamic  plain up to max_position_embeddings. Beyond it transformers takes a base that depends on the length of the sequence, so that a key
//            in the cache would have to turn with every new token: such contexts are refused by name
//   yarn     between f / factor (low frequencies) and f (high ones), by a ramp over i; cosine and sine times attention_factor (arXiv 2309.00071)
//   llama3   f / factor for wavelengths above original_context / low_freq_factor, f below original_context / high_freq_factor, smooth between
//   divisors f / divisor[i]
#pragma once
#include "model/config.h"
#include "model/gguf.h"
#include "model/json.h"

// f[0 .. head_dim/2), with the scaling.
void rope_frequencies(const struct Config *c, double *f);
// What cosine and sine are multiplied by.
double rope_magnitude(const struct Config *c);
// The longest context that the kind allows.
bool rope_check_context(const struct Config *c, uint32_t positions, const char *where);
bool rope_check(const struct Config *c, const char *where);

// rope_scaling {"type": ..., "factor": ...}, or the newer rope_parameters {"rope_type": ..., "rope_theta": ..., "factor": ...}; absent: nothing changes.
bool rope_from_json(struct Config *c, const json_t *object, const char *key, const char *where);
void rope_print_json(FILE *out, const struct Config *c); // the line of rope_scaling
bool rope_check_json(const struct Config *c, const char *where);

// The keys rope.scaling.* of `arch`, and rope_freqs.weight.
bool rope_from_gguf(struct Config *c, const struct Gguf *g, const char *arch);
bool rope_check_gguf(const struct Config *c, const char *where);
void rope_to_gguf(struct GgufWriter *w, const struct Config *c, const char *arch);
// Where the kind is written as rope_freqs.weight (head_dim/2): its values, and true.
bool rope_divisors(const struct Config *c, float *out);
