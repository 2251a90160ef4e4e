// Shared-memory tiles for attention on GPUs, forward and backward. 128 threads as 16 x 8: thread (ty, tx) owns the rows ty + 16 r of a tile of
// TILE_ROWS, and of a tile of 32 columns the four 4 tx .. 4 tx + 3 in one vec4. Two products do all the work: multiply_chunk (rows times columns
// along the head, a chunk of 32 floats at a time) and add_chunk (weights times 32 rows, 32 floats of the head at a time). Under 16 KiB in all.
#include "attention.glsl"

layout(constant_id = 4) const uint THREAD_ROWS = 4;
const uint TILE_COLUMNS = 32, CHUNK_VECS = 8, PITCH = CHUNK_VECS + 1; // one vec4 of padding spreads rows over the banks
const uint TILE_ROWS = 16 * THREAD_ROWS;
const uint N_CHUNKS = (HEAD_VECS + CHUNK_VECS - 1) / CHUNK_VECS;
const uint N_SUMS = THREAD_ROWS * N_CHUNKS; // vec4 per thread of one result: its rows by its part of the head

shared vec4 left[TILE_ROWS * PITCH]; // rows by a chunk of the head; then rows by columns: the weights
shared vec4 right[TILE_COLUMNS * PITCH];
shared float reduced[TILE_ROWS * 8];
shared uint bounds[WHOLE_WORDS];

const uint THREADS = 128;
uint tx() { return gl_LocalInvocationID.x % 8; }
uint ty() { return gl_LocalInvocationID.x / 8; }

vec4 fetch(f32x4_in x, uint row, uint n_rows, uint n_heads, uint head, uint d) {
    return row < n_rows && d < HEAD_VECS ? x.v[(row * n_heads + head) * HEAD_VECS + d] : vec4(0);
}
void stage_left(f32x4_in x, uint first, uint n_rows, uint n_heads, uint head, uint chunk) {
    [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++)
        left[(ty() + 16 * r) * PITCH + tx()] = fetch(x, first + ty() + 16 * r, n_rows, n_heads, head, chunk * CHUNK_VECS + tx());
}
// Keys and values, or in the backward what stands in their place: rows begin .. end-1. What nobody sees may be a cache's memory that was never
// written, and no weight of 0 makes a number of a NaN.
vec4 fetch_cached(f32x4_in x, uint row, uint begin, uint end, uint n_heads, uint head, uint d) {
    return row >= begin && row < end && d < HEAD_VECS ? cache_get4(x, cache_place(row, n_heads, head, HEAD_DIM), d) : vec4(0);
}
// Row i of the tile lies at place (i % 4) * 8 + i / 4, so that the four columns of a thread are 8 places apart and neighbours are neighbours.
void stage_right(f32x4_in x, uint first, uint begin, uint end, uint n_heads, uint head, uint chunk) {
    [[unroll]] for (uint i = ty(); i < TILE_COLUMNS; i += THREADS / 8)
        right[((i % 4) * 8 + i / 4) * PITCH + tx()] = fetch_cached(x, first + i, begin, end, n_heads, head, chunk * CHUNK_VECS + tx());
}
void multiply_chunk(inout vec4 s[THREAD_ROWS]) {
    [[dont_unroll]] for (uint d = 0; d < CHUNK_VECS; d++) {
        const vec4 b0 = right[tx() * PITCH + d], b1 = right[(8 + tx()) * PITCH + d];
        const vec4 b2 = right[(16 + tx()) * PITCH + d], b3 = right[(24 + tx()) * PITCH + d];
        [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
            const vec4 a = left[(ty() + 16 * r) * PITCH + d];
            // One order of sums, written out: what a driver makes of dot() may differ between the rows of a thread.
            precise vec4 to = s[r];
            [[unroll]] for (uint i = 0; i < 4; i++) to = fma(vec4(a[i]), vec4(b0[i], b1[i], b2[i], b3[i]), to);
            s[r] = to;
        }
    }
}
void add_chunk(inout vec4 sum[N_SUMS], uint chunk) {
    [[dont_unroll]] for (uint i = 0; i < TILE_COLUMNS / 4; i++) {
        const vec4 b0 = right[i * PITCH + tx()], b1 = right[(8 + i) * PITCH + tx()];
        const vec4 b2 = right[(16 + i) * PITCH + tx()], b3 = right[(24 + i) * PITCH + tx()];
        [[unroll]] for (uint r = 0; r < THREAD_ROWS; r++) {
            const vec4 a = left[(ty() + 16 * r) * PITCH + i];
            precise vec4 to = sum[r * N_CHUNKS + chunk];
            to = fma(vec4(a.x), b0, to);
            to = fma(vec4(a.y), b1, to);
            to = fma(vec4(a.z), b2, to);
            sum[r * N_CHUNKS + chunk] = fma(vec4(a.w), b3, to);
        }
    }
}
// All chunks of x's rows. Written out: drivers unroll no loop that holds a loop, and sums at an index that varies would lie in memory.
void add_chunks(inout vec4 sum[N_SUMS], f32x4_in x, uint first, uint begin, uint end, uint n_heads, uint head) {
#define CHUNK(i)                                                                                                       \
    if (i < N_CHUNKS) {                                                                                                \
        if (i > 0)                                                                                                     \
            barrier();                                                                                                 \
        stage_right(x, first, begin, end, n_heads, head, i);                                                              \
        barrier();                                                                                                     \
        add_chunk(sum, i);                                                                                             \
    }
    CHUNK(0) CHUNK(1) CHUNK(2) CHUNK(3) CHUNK(4) CHUNK(5) CHUNK(6) CHUNK(7)
}
// The least begin and the greatest end of the spans of a tile's rows, the same for all threads: loops over them may hold barriers.
uvec2 tile_bounds(u32_in span, uint first, uint n_rows, uint n_others) {
    if (gl_LocalInvocationID.x == 0) {
        bounds[0] = 0xffffffffu;
        bounds[1] = 0;
    }
    barrier();
    const uint row = first + gl_LocalInvocationID.x;
    if (gl_LocalInvocationID.x < TILE_ROWS && row < n_rows) {
        const uint begin = span.v[2 * row], end = min(span.v[2 * row + 1], n_others);
        if (begin < end) {
            atomicMin(bounds[0], begin);
            atomicMax(bounds[1], end);
        }
    }
    barrier();
    return uvec2(bounds[0], bounds[1]);
}
