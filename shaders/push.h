// The arguments of every kernel, declared once for C and GLSL. Each PUSH_name lists the fields of a push-constant block through
// macros of the reader's choice: pointers first (IN: only read, OUT: only written, RW: both), then 32-bit numbers.
// GLSL (types.glsl) makes the block `p` of it; C (runtime/kernel.h) makes `struct Args_name` of it, where a pointer is a range of
// device memory: so the recorder knows what every dispatch reads and writes, and nobody can forget to say so.
// A pointer that may be absent (address 0) says so in its comment. At most 128 bytes: 8 a pointer, 4 a number.
#ifndef VKMOE_PUSH_H
#define VKMOE_PUSH_H

// Every block, for the tables on the C side.
#define PUSHES(X)                                                                                                      \
    X(fill) X(copy) X(probe)                                                                                           \
    X(gemm) X(gemv) X(embed) X(embed_back) X(rmsnorm) X(rmsnorm_back) X(rope) X(swiglu) X(swiglu_back)                 \
    X(add) X(bias) X(gate) X(gate_back) X(route) X(route_back) X(sort) X(balance) X(combine) X(gather_rows) X(peaks) X(expert_swiglu_back)        \
    X(scatter_rows) X(column_sum) X(xent) X(sum) X(norm_finish) X(adamw) X(sample) X(argmax) X(logit_bias) X(remap)    \
    X(mask_logits) X(penalty) X(follow) X(noise)                                                                       \
    X(attention) X(attention_decode) X(attention_back_prepare) X(attention_back_dq)                                    \
    X(attention_back_dkv) X(own) X(attention_back_pack)

// y[i] = value, `n` 32-bit words.
#define PUSH_fill(IN, OUT, RW, U32, F32) OUT(u32, y) U32(n) U32(value)
// y[i] = x[i], `n` 32-bit words.
#define PUSH_copy(IN, OUT, RW, U32, F32) IN(u32, x) OUT(u32, y) U32(n)
// Microbenchmarks and the start-up canary: mode by specialisation constant.
#define PUSH_probe(IN, OUT, RW, U32, F32) IN(u32x4, x) RW(u32x4, y) U32(n) U32(rounds)

// Matrix multiply, three forms by module, dense (tiles and offsets absent) or grouped by expert; see gemm.comp.
//   NT: y(m,n) = x(m,k) w(n,k)^T    NN: y(m,n) = x(m,k) w(k,n)    TN: y(n,k) = x(m,n)^T w(m,k), contraction over rows m
// y = alpha * product (+ y where accumulate is not 0). flags of NT and NN: 1 grouped, 2 rows of x through gather. On matrix units x of NT and NN is of 16 bits,
// and of f16 units x_peak and w_peak (else absent) are the peaks of the product's rows of x and columns of w (of every expert's). Of gemm_packed.comp alone: w of
// 16 bits too, and with MORE the product's second part, x2 (m,k2) and w2 as w, but with k2 steps.
#define PUSH_gemm(IN, OUT, RW, U32, F32)                                                                               \
    IN(f32, x) IN(u32x4, w) RW(f32, y) IN(u32, gather) IN(u32x4, tiles) IN(u32, offsets) IN(u32, grid) IN(u32x4, x2)   \
    IN(u32x4, w2) IN(u32, x_peak) IN(u32, w_peak)                                                                      \
    U32(m) U32(n) U32(k) U32(accumulate) F32(alpha) U32(w_row_bytes) U32(ldx) U32(ldy) U32(flags) U32(k2)
// Few rows: y(m,n) = alpha * x(m,k) w(n,k)^T (+ y), or silu(x w^T) * (x w2^T); see gemv.comp for what else it makes at once. Absent what it then does not
// take. row_expert (m): matrix of the stack w that a row takes; row r reads x row r / x_divide.
#define PUSH_gemv(IN, OUT, RW, U32, F32)                                                                               \
    IN(f32, x) IN(u32x4, w) IN(u32x4, w2) IN(u32x4, w3) IN(u32x4, w4) RW(f32, y) RW(f32, y2) RW(f32, y3)               \
    IN(u32, row_expert) IN(u32, norm) IN(f32, weights)                                                                 \
    U32(m) U32(n) U32(n2) U32(k) U32(accumulate) F32(alpha) U32(w_row_bytes) U32(w3_row_bytes) U32(x_divide) F32(eps)

// y(t,dim) = table[ids[t]], or table[t]; an id outside the vocabulary gives zeros. y f32, or f16 or bf16.
#define PUSH_embed(IN, OUT, RW, U32, F32) IN(u32, ids) IN(u32x4, w) OUT(f32, y) U32(rows) U32(dim) U32(vocab) U32(w_row_bytes)
// NEFTune: x[i,j] += scale u with u uniform in (-1, 1) by philox(seed, (example, step), (position, j / 4)), so a token has the same noise wherever it
// lies. examples (rows, 2): the token's example in its batch, the bits of scale; key (4): seed, low word and high, step, unused.
#define PUSH_noise(IN, OUT, RW, U32, F32) RW(f32, x) IN(u32, positions) IN(u32, examples) IN(u32, key) U32(rows) U32(dim)
// dw[segment_id[s]] += sum of dy[order[i]] over i in segment_start[s] .. segment_start[s+1]; n_segments[0] segments.
#define PUSH_embed_back(IN, OUT, RW, U32, F32)                                                                         \
    IN(f32, dy) IN(u32, order) IN(u32, segment_start) IN(u32, segment_id) IN(u32, n_segments) RW(f32, dw)              \
    U32(rows) U32(dim) U32(vocab)

// y = x * rstd * w, rstd = 1/sqrt(mean(x^2) + eps). rstd (rows) may be absent.
#define PUSH_rmsnorm(IN, OUT, RW, U32, F32) IN(f32, x) IN(u32, w) OUT(f32, y) OUT(f32, rstd) U32(rows) F32(eps)
// dx (+)= rstd * (w*dy - x * rstd^2 * mean(w*dy*x)).
#define PUSH_rmsnorm_back(IN, OUT, RW, U32, F32)                                                                       \
    IN(f32, x) IN(u32, w) IN(f32, rstd) IN(f32, dy) RW(f32, dx) U32(rows) U32(accumulate)
// Rotates pairs (i, i + head_dim/2) of every head of x by table[position]; sign -1 is the backward. With a cache (cache.glsl) also those of k on the way to
// its rows index[i], and v as it is to the same; one beyond it is skipped.
#define PUSH_rope(IN, OUT, RW, U32, F32)                                                                               \
    RW(f32, x) IN(u32, positions) IN(f32, table) RW(f32, k) IN(f32, v) IN(u32, index) RW(f32, cache_k) RW(f32, cache_v)\
    U32(rows) U32(n_heads) U32(n_kv_heads) U32(n_positions) U32(cache_rows) F32(sign)
// h = silu(gate) * up, n elements.
#define PUSH_swiglu(IN, OUT, RW, U32, F32) IN(f32, gate) IN(f32, up) OUT(f32, h) U32(n)
// From dh, in place: gate becomes dgate, up becomes dup and, with keep_h, dh becomes h.
#define PUSH_swiglu_back(IN, OUT, RW, U32, F32) RW(f32, gate) RW(f32, up) RW(f32, dh) U32(n) U32(keep_h)
// y = a + b.
#define PUSH_add(IN, OUT, RW, U32, F32) IN(f32, a) IN(f32, b) OUT(f32, y) U32(n)
// y[i,j] += bias[j].
#define PUSH_bias(IN, OUT, RW, U32, F32) RW(f32, y) IN(f32, bias) U32(rows) U32(dim)
// y[i,j] = sigmoid(gate[i]) * x[i,j].
#define PUSH_gate(IN, OUT, RW, U32, F32) IN(f32, gate) IN(f32, x) OUT(f32, y) U32(rows) U32(dim)
// dgate[i] = s (1 - s) <dy[i], x[i]> with s = sigmoid(gate[i]), then x[i,j] = s dy[i,j] in place.
#define PUSH_gate_back(IN, OUT, RW, U32, F32) IN(f32, gate) IN(f32, dy) RW(f32, x) OUT(f32, dgate) U32(rows) U32(dim)

// Router of `rows` tokens: probs = softmax(logits) (rows, n_experts); the n_active greatest, ties to the lower index. Of few tokens also the lists
// that sort makes of many (absent else): slots are in order, a tile is a slot.
#define PUSH_route(IN, OUT, RW, U32, F32)                                                                              \
    IN(f32, logits) OUT(f32, probs) OUT(f32, weights) OUT(u32, experts)                                                \
    OUT(u32, gather) OUT(u32, slot_row) OUT(u32, row_expert) OUT(u32x4, tiles) OUT(u32, grid)                          \
    U32(rows) U32(n_experts) U32(n_active) U32(norm_topk) F32(scale) U32(max_tiles)
// dlogits from dweights (rows, n_active) and dbalance (rows, n_experts; may be absent).
#define PUSH_route_back(IN, OUT, RW, U32, F32)                                                                         \
    IN(f32, probs) IN(u32, experts) IN(f32, dweights) IN(f32, dbalance) OUT(f32, dlogits)                              \
    U32(rows) U32(n_experts) U32(n_active) U32(norm_topk) F32(scale)
// Stable counting sort of rows*n_active slots by expert, in phases by specialisation constant; see sort.comp.
#define PUSH_sort(IN, OUT, RW, U32, F32)                                                                               \
    IN(u32, experts) RW(u32, counts) RW(u32, offsets) RW(u32, gather) RW(u32, slot_row) RW(u32, row_expert)            \
    RW(u32x4, tiles) RW(u32, grid)                                                                                     \
    U32(rows) U32(n_active) U32(tile_rows) U32(max_tiles) U32(part_slots) U32(n_parts)
// Slots in the place of experts: row_expert (rows), tiles (max_tiles, grid[0] in use).
#define PUSH_remap(IN, OUT, RW, U32, F32)                                                                              \
    IN(u32, map) RW(u32, row_expert) RW(u32x4, tiles) IN(u32, grid) U32(rows) U32(max_tiles) U32(n_experts)
// Balance loss over groups of tokens (documents or the whole micro-batch), in phases; see balance.comp.
#define PUSH_balance(IN, OUT, RW, U32, F32)                                                                            \
    IN(f32, probs) IN(u32, experts) IN(u32, group_start) IN(u32, token_group) IN(f32, group_weight) RW(f32, part)      \
    RW(f32, fraction) OUT(f32, terms) OUT(f32, dbalance)                                                               \
    U32(rows) U32(n_experts) U32(n_active) U32(n_groups) U32(n_pieces) F32(alpha)
// out[t] = residual[t] + shared[t] + sum_k weights[t,k] * y[slot_row[t,k]]; residual and shared may be absent.
#define PUSH_combine(IN, OUT, RW, U32, F32)                                                                            \
    IN(f32, y) IN(f32, weights) IN(u32, slot_row) IN(f32, shared_y) IN(f32, residual) OUT(f32, out_y)                  \
    U32(rows) U32(dim) U32(n_active)
// Row slot_row[t,k] of gate, up and dh: dweights[t,k] = <dh, h>, then in place dgate and dup of weights[t,k] * dh, and weights[t,k] * h in dh.
#define PUSH_expert_swiglu_back(IN, OUT, RW, U32, F32)                                                                 \
    RW(f32, gate) RW(f32, up) RW(f32, dh) IN(f32, weights) IN(u32, slot_row) OUT(f32, dweights)                        \
    U32(rows) U32(width) U32(n_active)
// y[i] = x[index[i]] (or x[i]); an index beyond x, as 0xffffffff, gives zeros. y f32, or f16 or bf16; its rows have ld numbers, behind dim zeros. Where peak
// (rows) is there, y is f16 and a row times a power of two: see peak.glsl.
#define PUSH_gather_rows(IN, OUT, RW, U32, F32)                                                                        \
    IN(f32, x) IN(u32, index) OUT(f32, y) OUT(u32, peak) U32(rows) U32(dim) U32(ld) U32(x_rows)
// peak: bits of the greatest magnitude of each row of w (rows,cols), or of each column of its stacked matrices of stack_rows rows; of columns zeros before.
#define PUSH_peaks(IN, OUT, RW, U32, F32) IN(u32x4, w) RW(u32, peak) U32(rows) U32(cols) U32(stack_rows) U32(w_row_bytes)
// y[index[i]] (+)= x[i], indices distinct; an index beyond y, as 0xffffffff, is skipped.
#define PUSH_scatter_rows(IN, OUT, RW, U32, F32)                                                                       \
    IN(f32, x) IN(u32, index) RW(f32, y) U32(rows) U32(dim) U32(y_rows) U32(accumulate)
// y[g,j] (+)= sum over the rows i of part g of x[i,j], or of x[i,j] * dy[i,j] * rstd[i]; fixed order.
#define PUSH_column_sum(IN, OUT, RW, U32, F32)                                                                         \
    IN(f32, x) IN(f32, dy) IN(f32, rstd) RW(f32, y) U32(rows) U32(dim) U32(rows_per_part) U32(accumulate)

// Rows of logits (rows, vocab), row stride ld: loss[i] = logsumexp - logit of targets[i] (0 where targets[i] is 0xffffffff), with WEIGHTED times
// weights[i]; with BACKWARD logits become its gradient times params.inv_labels (params otherwise absent).
#define PUSH_xent(IN, OUT, RW, U32, F32)                                                                               \
    RW(f32, logits) IN(u32, targets) OUT(f32, loss) IN(f32, params) IN(f32, weights) U32(rows) U32(vocab) U32(ld)
// y[first + g] (+)= sum of elements g*chunk .. (g+1)*chunk-1 of x, or of their squares; fixed order.
#define PUSH_sum(IN, OUT, RW, U32, F32) IN(f32, x) RW(f32, y) U32(n) U32(chunk) U32(first) U32(accumulate)
// norm = sqrt(sum of part[0..n_parts]); clip factor and finite flag into result.
#define PUSH_norm_finish(IN, OUT, RW, U32, F32) IN(f32, part) IN(f32, params) RW(f32, result) U32(n_parts)
// One tensor's AdamW update, or that of a part of it from element `first` (a multiple of 64) on; weights f32 or bf16 (stochastic rounding).
// Leaves all untouched when result.finite is 0. n is a multiple of 8.
#define PUSH_adamw(IN, OUT, RW, U32, F32)                                                                              \
    RW(u32, w) IN(f32, g) RW(f32, m1) RW(f32, m2) IN(f32, params) IN(f32, result) U32(n) U32(tensor_index)         \
    U32(first) F32(decay)
// One token per row of logits; params as in struct SampleParams. May write where the next step reads. chance: log of the probability with
// which it was drawn, after all filters. Where several workgroups share a row: part (rows, lanes of a workgroup), what each lane found, and
// done (rows): zeros, before and after.
#define PUSH_sample(IN, OUT, RW, U32, F32)                                                                             \
    IN(f32, logits) IN(u32, params) OUT(u32, ids) OUT(f32, logprob) OUT(f32, chance) RW(u32x4, part) RW(u32, done)     \
    U32(rows) U32(vocab) U32(ld)
#define PUSH_argmax(IN, OUT, RW, U32, F32) IN(f32, logits) OUT(u32, ids) OUT(f32, logprob) U32(rows) U32(vocab) U32(ld)
// list: n, then n pairs of a token and the bits of an f32, which is added to that token's logit in every row.
#define PUSH_logit_bias(IN, OUT, RW, U32, F32) IN(u32, list) RW(f32, logits) U32(rows) U32(vocab) U32(ld)
// y (rows, vocab) = logits, but FORBIDDEN where the token's bit is not set in mask (rows, mask_words; may be absent).
#define PUSH_mask_logits(IN, OUT, RW, U32, F32)                                                                        \
    IN(f32, logits) IN(u32, mask) OUT(f32, y) U32(rows) U32(vocab) U32(mask_words)
// list (rows, 4 + 2 room): n, then repeat, presence and frequency as f32, then n pairs of a token and how often it was seen: its positive
// logit is divided by repeat, its negative one multiplied, and presence + frequency * count is taken off.
#define PUSH_penalty(IN, OUT, RW, U32, F32) IN(u32, list) RW(f32, logits) U32(rows) U32(vocab) U32(room)
// What was drawn goes in next: ids = next; positions, ends of span (rows, 2), cache_rows and the index of params (struct SampleParams) one
// further. drawn (rows, 2): the token and the bits of its logprob, for a host that looks later.
#define PUSH_follow(IN, OUT, RW, U32, F32)                                                                             \
    IN(u32, next) IN(f32, logprob) OUT(u32, ids) RW(u32, positions) RW(u32, span) RW(u32, cache_rows) RW(u32, params)  \
    OUT(u32, drawn) U32(rows)

// Attention: query row i of head h sees keys span[2i] .. span[2i+1]-1 of k and v: causality, documents, caches and batches in
// two numbers. q (rows, n_heads, head_dim), k and v (key_rows, n_kv_heads, head_dim) in the cache's type, o as q; lse (rows, n_heads) may be absent.
#define PUSH_attention(IN, OUT, RW, U32, F32)                                                                          \
    IN(f32, q) IN(f32, k) IN(f32, v) IN(u32, span) OUT(f32, o) OUT(f32, lse)                                           \
    U32(rows) U32(n_heads) U32(n_kv_heads) U32(head_dim) U32(key_rows) F32(scale)
// The same for few rows: the keys of a row are cut into n_parts parts, part (rows, n_heads, n_parts, head_dim + 4): the weighted sum of v,
// then the greatest score, the sum of weights and two unused words. done (rows * n_heads): zeros, before and after.
#define PUSH_attention_decode(IN, OUT, RW, U32, F32)                                                                   \
    IN(f32, q) IN(f32, k) IN(f32, v) IN(u32, span) RW(f32, part) OUT(f32, o) RW(u32, done)                             \
    U32(rows) U32(n_heads) U32(n_kv_heads) U32(head_dim) U32(key_rows) U32(n_parts) F32(scale)
// delta[i,h] = <dy, o>.
#define PUSH_attention_back_prepare(IN, OUT, RW, U32, F32) IN(f32, o) IN(f32, dy) OUT(f32, delta) U32(rows) U32(n_heads) U32(head_dim)
// Operands of matrix units, f16 or bf16 (rows_packed, n_heads, head_dim), zeros from `rows` on: q times scale and log2(e), dy divided by a power of two
// of its row and head. delta (rows, n_heads, 2): <dy, o> divided by that power, and the power.
#define PUSH_attention_back_pack(IN, OUT, RW, U32, F32)                                                                \
    IN(f32, q) IN(f32, o) IN(f32, dy) OUT(u32x4, q_packed) OUT(u32x4, dy_packed) OUT(f32, delta)                       \
    U32(rows) U32(n_heads) U32(head_dim) U32(rows_packed) F32(scale)
// The matrix bodies of these two take q, k, v and dy packed, and delta as attention_back_pack makes it.
#define PUSH_attention_back_dq(IN, OUT, RW, U32, F32)                                                                  \
    IN(f32, q) IN(f32, k) IN(f32, v) IN(f32, dy) IN(f32, lse) IN(f32, delta) IN(u32, span) OUT(f32, dq)                \
    U32(rows) U32(n_heads) U32(n_kv_heads) U32(head_dim) U32(key_rows) F32(scale)
// key_span (key_rows, 2): the query rows that see key j.
#define PUSH_attention_back_dkv(IN, OUT, RW, U32, F32)                                                                 \
    IN(f32, q) IN(f32, k) IN(f32, v) IN(f32, dy) IN(f32, lse) IN(f32, delta) IN(u32, span) IN(u32, key_span)           \
    OUT(f32, dk) OUT(f32, dv) U32(rows) U32(n_heads) U32(n_kv_heads) U32(head_dim) U32(key_rows) F32(scale)

// A block that a user's own file declares (`vkmoe bench shader`), eight bytes a place: a pointer, or up to two numbers in an address without a range.
#define PUSH_own(IN, OUT, RW, U32, F32)                                                                                \
    RW(u32, a0) RW(u32, a1) RW(u32, a2) RW(u32, a3) RW(u32, a4) RW(u32, a5) RW(u32, a6) RW(u32, a7)                    \
    RW(u32, a8) RW(u32, a9) RW(u32, a10) RW(u32, a11) RW(u32, a12) RW(u32, a13) RW(u32, a14) RW(u32, a15)

#endif
