// What both norms know before they run: the weights' storage type (enum DType: 0 f32, 1 f16, 2 bf16) and the width of a row. With the width
// known loops unroll, and a row that fits is kept in registers between its two passes.
layout(constant_id = 2) const uint W_TYPE = 0;
layout(constant_id = 3) const uint KEEP_RSTD = 0;
layout(constant_id = 4) const uint DIM = 8;
const uint VECS = DIM / VEC_SIZE;
const uint ROUNDS = (VECS + LOCAL_SIZE - 1) / LOCAL_SIZE; // VECs of a row per lane
const uint KEPT = ROUNDS * VEC_SIZE <= 128 ? ROUNDS : 1;

VEC weights(uint first) {
#ifdef PAIRS
    if (W_TYPE != 0) {
        const uint word = lanes_load_word(p.w, first);
        return W_TYPE == 1 ? unpackHalf2x16(word) : uintBitsToFloat(uvec2(word << 16, word & 0xffff0000u));
    }
    return lanes_load(p.w, first);
#else
    return norm_weight4(p.w, W_TYPE, first + LANE);
#endif
}

// Whether the VECs of round j are there: only the last round can be incomplete.
bool is_inside(uint j) { return (j + 1) * LOCAL_SIZE <= VECS || lanes_inside(j * LOCAL_SIZE, VECS); }
