# The Python sources of eval/python as C strings: build/generated/eval/python.h has PYTHON_NAME for NAME.py. They stay files of their
# own so that they can be read, and are in the program so that it needs none.
file(GLOB python_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/eval/python/*.py)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${python_sources})
set(code "// Made by cmake/python.cmake from eval/python.\n#pragma once\n")
foreach(source IN LISTS python_sources)
  cmake_path(GET source STEM name)
  string(TOUPPER ${name} name)
  file(READ ${source} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(APPEND code "static const char PYTHON_${name}[] = {${bytes}0};\n")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/eval/python.h CONTENT "${code}" @ONLY)
