# How every target of lockstep is made. Headers stand beside their sources and are included as
# "lockstep/<folder>/<file>.h": the build tree offers the source root under that name.
set(LOCKSTEP_INCLUDE_DIR "${PROJECT_BINARY_DIR}/include")
file(MAKE_DIRECTORY "${LOCKSTEP_INCLUDE_DIR}")
file(CREATE_LINK "${PROJECT_SOURCE_DIR}" "${LOCKSTEP_INCLUDE_DIR}/lockstep" SYMBOLIC)

# Language level, warnings and sanitizers, for one target and nothing else.
function(lockstep_target_defaults target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wno-sign-conversion;-Wshadow;$<$<BOOL:${LOCKSTEP_WERROR}>:-Werror>>
    # CMake 3.25 does not know CUDA's C++20.
    $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;-Xcompiler=-Wall,-Wextra;$<$<BOOL:${LOCKSTEP_WERROR}>:-Werror=all-warnings>>)
  if(LOCKSTEP_SANITIZE)
    # -O1 and lines alone, as the sanitizers' manuals advise: half the time to compile.
    target_compile_options(${target} PRIVATE -fsanitize=${LOCKSTEP_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all -O1 -g1)
    target_link_options(${target} PUBLIC -fsanitize=${LOCKSTEP_SANITIZE})
  endif()
endfunction()

# lockstep_library(runtime SOURCES ... HEADERS ... PUBLIC ... PRIVATE ...) makes lockstep::runtime. HEADERS are the public ones:
# they alone are installed, compiled alone by a test, and read by Doxygen. They are collected in the property
# LOCKSTEP_PUBLIC_HEADERS, from the source root, and include public headers only (tools/lint).
function(lockstep_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;HEADERS;PUBLIC;PRIVATE" ${ARGN})
  file(RELATIVE_PATH folder "${PROJECT_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}")
  list(TRANSFORM arg_HEADERS PREPEND "${folder}/")
  set_property(GLOBAL APPEND PROPERTY LOCKSTEP_PUBLIC_HEADERS ${arg_HEADERS})
  add_library(lockstep_${name} STATIC ${arg_SOURCES})
  add_library(lockstep::${name} ALIAS lockstep_${name})
  set_target_properties(lockstep_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(lockstep_${name} PUBLIC
    $<BUILD_INTERFACE:${LOCKSTEP_INCLUDE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(lockstep_${name} PUBLIC ${arg_PUBLIC} PRIVATE ${arg_PRIVATE})
  lockstep_target_defaults(lockstep_${name})
  lockstep_precompile(lockstep_${name})
endfunction()
