// What both norms know before they run: the weights' storage type (enum DType: 0 f32, 1 f16, 2 bf16) and the width of a row. With the width
// known loops unroll, and a row that fits is kept in registers between its two passes.
layout(constant_id = 2) const uint W_TYPE = 0;
layout(constant_id = 3) const uint KEEP_RSTD = 0;
layout(constant_id = 4) const uint DIM = 8;
const uint QUADS = DIM / 4;
const uint ROUNDS = (QUADS + LOCAL_SIZE - 1) / LOCAL_SIZE; // quads of a row per lane
const uint KEPT = ROUNDS <= 32 ? ROUNDS : 1;

vec4 weight4(uint q) { return norm_weight4(p.w, W_TYPE, q); }

// Whether quad q, of round j, is there: only the last round can be incomplete.
bool is_inside(uint j, uint q) { return (j + 1) * LOCAL_SIZE <= QUADS || q < QUADS; }
