# Builds every line of shaders/kernels.def to build/spirv/NAME.spv and embeds all in one C file, in the order of the
# list. A kernel whose extension the installed glslc does not know comes from shaders/prebuilt (tools/prebuilt.sh), or, where that is
# not made from the sources as they are, is left out (words NULL): the runtime then takes the next path. Gives VKMOE_KERNEL_CODE,
# a source for the runtime's library.

find_program(GLSLC glslc REQUIRED)
set(spirv_dir ${CMAKE_BINARY_DIR}/spirv)
set(generated_dir ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${spirv_dir} ${generated_dir})

# What each NEEDS_ flag asks of the compiler of shaders. A flag that is not here asks something of the device alone.
set(needs_extension_COOPMAT GL_KHR_cooperative_matrix)
set(needs_extension_COOPMAT2 GL_NV_cooperative_matrix2)
set(needs_extension_BF16 GL_EXT_bfloat16)
set(needs_extension_F16 GL_EXT_shader_explicit_arithmetic_types_float16)
set(needs_extension_SUBGROUP GL_KHR_shader_subgroup_arithmetic)
set(needs_extension_DOT2 GL_EXT_spirv_intrinsics)
# An instruction that came later than the extension by which it is written, so that it is the optimiser of glslc that has to know it.
set(needs_text_DOT2 "#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
spirv_instruction(extensions = [\"SPV_VALVE_mixed_float_dot_product\"], capabilities = [6912], id = 6916)
float dot2_add(f16vec2 a, f16vec2 b, float c);
layout(binding = 0) buffer B { float v[]; };
void main() { v[0] = dot2_add(f16vec2(v[1]), f16vec2(v[2]), v[3]); }
")

# shader_flag_known(FLAG OUT): asks glslc once per compiler; the answer is cached.
function(shader_flag_known flag out)
  file(TIMESTAMP ${GLSLC} stamp)
  set(variable GLSLC_KNOWS_${flag})
  set(text "${needs_text_${flag}}")
  if(NOT text)
    set(text "void main() {}\n")
  endif()
  if(NOT DEFINED CACHE{${variable}} OR NOT "${VKMOE_GLSLC_PROBED}" STREQUAL "${GLSLC} ${stamp}")
    set(probe ${generated_dir}/probe_${flag}.comp)
    file(WRITE ${probe} "#version 460\n#extension ${needs_extension_${flag}} : require\n${text}")
    execute_process(COMMAND ${GLSLC} --target-env=vulkan1.3 -O -o ${probe}.spv ${probe}
                    RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET)
    if(result EQUAL 0)
      set(${variable} ON CACHE INTERNAL "")
    else()
      set(${variable} OFF CACHE INTERNAL "")
    endif()
  endif()
  set(${out} ${${variable}} PARENT_SCOPE)
endfunction()

set(known_flags "")
set(unknown_flags "")
foreach(flag COOPMAT COOPMAT2 BF16 F16 SUBGROUP DOT2)
  shader_flag_known(${flag} known)
  if(known)
    list(APPEND known_flags ${flag})
  else()
    list(APPEND unknown_flags ${flag})
  endif()
endforeach()
file(TIMESTAMP ${GLSLC} glslc_stamp)
set(VKMOE_GLSLC_PROBED "${GLSLC} ${glslc_stamp}" CACHE INTERNAL "")
string(REPLACE ";" " " known_text "${known_flags}")
string(REPLACE ";" " " unknown_text "${unknown_flags}")
message(STATUS "glslc knows: ${known_text}; does not know: ${unknown_text}")

# Which prebuilt modules are those of today's sources; asked again when one of these changes.
set(prebuilt "")
set(prebuilt_compiler "")
if(unknown_flags)
  set(prebuilt_script ${CMAKE_SOURCE_DIR}/tools/prebuilt.sh)
  file(GLOB shader_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/shaders/*.comp ${CMAKE_SOURCE_DIR}/shaders/*.glsl
    ${CMAKE_SOURCE_DIR}/shaders/*.h ${CMAKE_SOURCE_DIR}/shaders/prebuilt/*)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${shader_files} ${prebuilt_script})
  execute_process(COMMAND ${CMAKE_COMMAND} -E env CC=${CMAKE_C_COMPILER} bash ${prebuilt_script} current
    OUTPUT_VARIABLE prebuilt OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    set(prebuilt "")
  endif()
  string(REPLACE "\n" ";" prebuilt "${prebuilt}")
  list(POP_FRONT prebuilt prebuilt_compiler)
endif()
execute_process(COMMAND ${GLSLC} --version OUTPUT_VARIABLE glslc_version ERROR_QUIET)
string(REGEX MATCH "shaderc v?([^ \n]+)" glslc_shaderc "${glslc_version}")
set(glslc_shaderc ${CMAKE_MATCH_1})
string(REGEX MATCH "glslang v?([^ \n]+)" glslc_glslang "${glslc_version}")
set(glslc_compiler "shaderc ${glslc_shaderc}, glslang ${CMAKE_MATCH_1}")

set(kernels_def ${VKMOE_CODE}/shaders/kernels.def)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${kernels_def})
file(STRINGS ${kernels_def} kernel_lines REGEX "^[ \t]*KERNEL\\(")
file(STRINGS ${kernels_def} odd_lines REGEX "KERNEL[ \t]+\\(|^[ \t]*KERNEL\\([^\"]*$")
if(odd_lines)
  message(FATAL_ERROR "shaders/kernels.def: one KERNEL(name, source, push, needs, \"defines\") a line: ${odd_lines}")
endif()

set(code "// Made by cmake/shaders.cmake from shaders/kernels.def.\n#include <stddef.h>\n#include <stdint.h>\n")
set(table "")
set(all_words "")
set(left_out "")
set(taken "")
set(n_built 0)
foreach(line IN LISTS kernel_lines)
  if(NOT line MATCHES
     "^[ \t]*KERNEL\\([ \t]*([a-z0-9_]+),[ \t]*([a-z0-9_.]+),[ \t]*([a-z0-9_]+),[ \t]*([A-Z0-9_| ]+),[ \t]*\"([^\"]*)\"[ \t]*\\)")
    message(FATAL_ERROR "shaders/kernels.def: expected KERNEL(name, source, push, needs, \"defines\"), found: ${line}")
  endif()
  set(name ${CMAKE_MATCH_1})
  set(source ${VKMOE_CODE}/shaders/${CMAKE_MATCH_2})
  set(push ${CMAKE_MATCH_3})
  set(needs ${CMAKE_MATCH_4})
  separate_arguments(defines UNIX_COMMAND "${CMAKE_MATCH_5}")
  string(REGEX MATCHALL "NEEDS_[A-Z0-9_]+" flags "${needs}")
  set(buildable ON)
  foreach(flag IN LISTS flags)
    string(REPLACE "NEEDS_" "" flag ${flag})
    if(flag IN_LIST unknown_flags)
      set(buildable OFF)
    endif()
  endforeach()
  if(NOT EXISTS ${source})
    message(FATAL_ERROR "shaders/kernels.def: ${name}: there is no file shaders/${CMAKE_MATCH_2}")
  endif()
  set(spv ${spirv_dir}/${name}.spv)
  set(words ${spirv_dir}/${name}.inc)
  set(compiler "${glslc_compiler}")
  if(NOT buildable AND NOT name IN_LIST prebuilt)
    list(APPEND left_out ${name})
    string(APPEND table "    {\"${name}\", NULL, 0, NULL},\n")
    continue()
  elseif(NOT buildable)
    set(spv ${CMAKE_SOURCE_DIR}/shaders/prebuilt/${name}.spv)
    set(compiler "${prebuilt_compiler}, prebuilt")
    list(APPEND taken ${name})
    add_custom_command(
      OUTPUT ${words}
      COMMAND ${CMAKE_COMMAND} -DSPV=${spv} -DWORDS=${words} -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
      DEPENDS ${spv} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
      COMMENT "Shader ${name} (prebuilt)"
      VERBATIM)
  else()
    add_custom_command(
      OUTPUT ${words}
      BYPRODUCTS ${spv}
      COMMAND ${GLSLC} --target-env=vulkan1.3 -O -Werror -I ${VKMOE_CODE}/shaders -DPUSH=${push} ${defines}
              -MD -MF ${spv}.d -MT spirv/${name}.inc -o ${spv} ${source}
      COMMAND ${CMAKE_COMMAND} -DSPV=${spv} -DWORDS=${words} -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
      DEPENDS ${source} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
      DEPFILE ${spv}.d
      COMMENT "Shader ${name}"
      VERBATIM)
  endif()
  list(APPEND all_words ${words})
  string(APPEND code "static const uint32_t words_${name}[] = {\n#include \"spirv/${name}.inc\"\n};\n")
  string(APPEND table "    {\"${name}\", words_${name}, sizeof words_${name} / sizeof words_${name}[0], \"${compiler}\"},\n")
  math(EXPR n_built "${n_built} + 1")
endforeach()
list(LENGTH kernel_lines n_kernels)
message(STATUS "Shaders: ${n_built} of ${n_kernels} modules can be built")
if(taken)
  string(REPLACE ";" " " taken "${taken}")
  message(STATUS "From shaders/prebuilt (${prebuilt_compiler}), because glslc is too old for them: ${taken}")
endif()
if(left_out)
  string(REPLACE ";" " " left_out "${left_out}")
  message(WARNING "Left out, because glslc is too old for them and shaders/prebuilt is not of these sources (make prebuilt): ${left_out}")
endif()

if(NOT kernel_lines)
  set(table "    {NULL, NULL, 0, NULL},\n")
endif()
string(APPEND code "struct KernelCode {\n    const char *name;\n    const uint32_t *words;\n    uint32_t n_words;\n    const char *compiler;\n};\n"
  "extern const struct KernelCode KERNEL_CODE[];\nextern const uint32_t N_KERNEL_CODE;\n"
  "const struct KernelCode KERNEL_CODE[] = {\n${table}};\nconst uint32_t N_KERNEL_CODE = ${n_kernels};\n")
set(VKMOE_KERNEL_CODE ${generated_dir}/kernel_code.c)
file(CONFIGURE OUTPUT ${VKMOE_KERNEL_CODE} CONTENT "${code}" @ONLY) # touches the file only when it changes
set_source_files_properties(${VKMOE_KERNEL_CODE} PROPERTIES
  OBJECT_DEPENDS "${all_words}" INCLUDE_DIRECTORIES ${CMAKE_BINARY_DIR})
