// What the attention kernels share: the head's width as a constant, and the constants of a softmax in base 2. Scores are kept
// times log2(e), so that exp2 does the work (`precise`, because a driver that fuses a multiply with a sum for some rows of a thread and not
// for others makes a row's bits depend on its place); a key that a row does not see weighs exactly 0, by a choice and not by a small exponential.
#include "types.glsl"
#include "cache.glsl"

layout(constant_id = 2) const uint HEAD_DIM = 64;
const uint HEAD_VECS = HEAD_DIM / 4;
const float LOG2E = 1.4426950408889634, LN2 = 0.6931471805599453;
const float NO_SCORE = -3.0e38; // below every score; finite, so that differences of two are no NaN

// Head, key head and tile of this workgroup: heads vary fastest, so that neighbours share keys; the last tiles, which see most
// keys under causality, come first.
uint tile_of_group(uint n_tiles, uint n_heads) { return n_tiles - 1 - min(group_index() / n_heads, n_tiles - 1); }
uint head_of_group(uint n_heads) { return group_index() % n_heads; }
// A processor's threads take runs of neighbouring workgroups, of equal length: there the tiles of a head are neighbours, long and short ones in turns.
uint tile_of_run(uint n_tiles) {
    const uint i = group_index() % n_tiles;
    return i % 2 == 0 ? i / 2 : n_tiles - 1 - i / 2;
}
uint head_of_run(uint n_tiles, uint n_heads) { return min(group_index() / n_tiles, n_heads - 1); }

float logsumexp_of(float most, float sum) {
    precise float x = fma(most, LN2, log(sum));
    return sum == 0 ? uintBitsToFloat(0xff800000u) : x;
}
// The weight of a score relative to its row's logsumexp (natural). At most 1, also where rounding of huge scores says more.
float weight_of(float score2, float lse) {
    precise float x = score2 - lse * LOG2E;
    return exp2(min(x, 0));
}
vec4 weights_of(vec4 score2, vec4 lse) {
    precise vec4 x = score2 - lse * LOG2E;
    return exp2(min(x, vec4(0)));
}

// Four neighbouring columns against a span: what lies outside becomes NO_SCORE or 0, whatever it was.
bvec4 and4(bvec4 a, bvec4 b) { return bvec4(a.x && b.x, a.y && b.y, a.z && b.z, a.w && b.w); }
bvec4 is_seen(uvec4 column, uvec2 span) { return and4(greaterThanEqual(column, uvec4(span.x)), lessThan(column, uvec4(span.y))); }
vec4 seen_or_none(vec4 score2, uvec4 column, uvec2 span) { return mix(vec4(NO_SCORE), score2, is_seen(column, span)); }
vec4 seen_or_zero(vec4 weight, uvec4 column, uvec2 span) { return mix(vec4(0), weight, is_seen(column, span)); }
