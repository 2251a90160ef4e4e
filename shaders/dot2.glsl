// Both products of two pairs of f16 added to an f32 in one instruction (VK_VALVE_shader_mixed_float_dot_product).
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#ifdef DOT2_BY_FMA // for tests, where there is no such instruction
float dot2_add(f16vec2 a, f16vec2 b, float c) { return fma(float(a.x), float(b.x), fma(float(a.y), float(b.y), c)); }
#else
#extension GL_EXT_spirv_intrinsics : require
spirv_instruction(extensions = ["SPV_VALVE_mixed_float_dot_product"], capabilities = [6912], id = 6916) // OpFDot2MixAcc32VALVE
float dot2_add(f16vec2 a, f16vec2 b, float c);
#endif
