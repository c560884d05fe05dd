# cmake -DBINARY_DIR=... -DSOURCE_DIR=... -DGENERATOR=... -DMAKE_PROGRAM=... -DCXX_COMPILER=... -DTOOLS=... -DVERSION=... -P
# run.cmake: installs lockstep, runs its command if it was built with TOOLS, builds the project beside this file against it
# and runs that; then configures it with lockstep inside. All with the tools that built lockstep, since there need be no
# others, and in a folder whose name has a space.
set(scratch "${BINARY_DIR}/embed test")
file(REMOVE_RECURSE "${scratch}")
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGV}\n${output}")
  endif()
endfunction()
set(configure ${CMAKE_COMMAND} -S "${CMAKE_CURRENT_LIST_DIR}" -G "${GENERATOR}" "-DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}"
    "-DCMAKE_CXX_COMPILER=${CXX_COMPILER}")
run(${CMAKE_COMMAND} --install "${BINARY_DIR}" --prefix "${scratch}/prefix")
if(TOOLS)
  execute_process(COMMAND "${scratch}/prefix/bin/lockstep" --version OUTPUT_VARIABLE output RESULT_VARIABLE result)
  if(NOT result EQUAL 0 OR NOT output STREQUAL "lockstep ${VERSION}\n")
    message(FATAL_ERROR "bin/lockstep --version: \"${output}\", ${result}; it must print \"lockstep ${VERSION}\"")
  endif()
endif()
run(${configure} -B "${scratch}/installed" "-DCMAKE_PREFIX_PATH=${scratch}/prefix")
run(${CMAKE_COMMAND} --build "${scratch}/installed")
run("${scratch}/installed/embed")
# It starts where CUDA is not installed, also if it can use GPUs.
execute_process(COMMAND readelf -d "${scratch}/installed/embed" OUTPUT_VARIABLE needed RESULT_VARIABLE result)
if(NOT result EQUAL 0 OR NOT needed MATCHES "NEEDED" OR needed MATCHES "lib(cu|nv)[a-zA-Z]*\\.so")
  message(FATAL_ERROR "a program with lockstep must need no library of CUDA:\n${needed}")
endif()
run(${configure} -B "${scratch}/inside" "-DLOCKSTEP_SOURCE=${SOURCE_DIR}" -DLOCKSTEP_CUDA=OFF)
