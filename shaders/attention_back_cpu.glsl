// What attention's gradients on CPU devices share. A lane holds rows of its own (LANE_ROWS), the others' come from addresses that are the same for
// all lanes: a broadcast each. The processor's registers hold neither the lane's rows nor their sums, which lie in stack memory, so that each number of them
// that is loaded should meet several broadcasts, and a broadcast that meets one row of the lane is part of its multiplication (AVX-512).
#include "attention.glsl"

layout(constant_id = 4) const uint LANE_ROWS = 1;  // rows of a lane, LOCAL_SIZE apart
layout(constant_id = 5) const uint LOAD_AGAIN = 0; // a broadcast is loaded anew for its second use

// An offset to load again by: 0, which the compiler does not know, else it keeps each broadcast, as a whole vector in stack memory, for the second use.
uint again() { return LOAD_AGAIN != 0 ? p.rows >> 31 : 0; }

// Where the vectors of four numbers from vector i on lie: with a pointer of its own for each row, element d lies at a constant distance, and loads need no
// arithmetic. As words, because SwiftShader's compiler knows no arrays of pointers.
uvec2 row_from(uvec2 at, uint i) {
    uint carry;
    const uint low = uaddCarry(at.x, i << 4, carry);
    return uvec2(low, at.y + (i >> 28) + carry);
}
