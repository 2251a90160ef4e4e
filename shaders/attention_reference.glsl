// What the bodies of attention on matrix units share. Weights are relative to a reference below the row's greatest score so far: it moves only when a
// weight would pass 2^14, so that sums are seldom rescaled, and starts with the greatest weight at 2^8, so that f16 holds weights down to 2^-22 of it
// in full.
const float HEADROOM = 14, FIRST_WEIGHT = 8;
float reference_moved(float reference, float top) { return top > reference + HEADROOM ? top - FIRST_WEIGHT : reference; }

// The greatest number of f16, at which queries and what q8_0 decodes to are cut; bf16 has the range of f32.
#ifdef MATRIX_BF16
const float MATRIX_MOST = 0;
#else
const float MATRIX_MOST = 65504;
#endif
