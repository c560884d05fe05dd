# cmake -DBINARY_DIR=... -DSOURCE_DIR=... -P run.cmake: installs lockstep, builds the project beside this file against it and
# runs that; then configures it with lockstep inside.
set(scratch "${BINARY_DIR}/embed")
file(REMOVE_RECURSE "${scratch}")
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGV}\n${output}")
  endif()
endfunction()
run(${CMAKE_COMMAND} --install "${BINARY_DIR}" --prefix "${scratch}/prefix")
run(${CMAKE_COMMAND} -S "${CMAKE_CURRENT_LIST_DIR}" -B "${scratch}/installed" "-DCMAKE_PREFIX_PATH=${scratch}/prefix")
run(${CMAKE_COMMAND} --build "${scratch}/installed")
run("${scratch}/installed/embed")
run(${CMAKE_COMMAND} -S "${CMAKE_CURRENT_LIST_DIR}" -B "${scratch}/inside" "-DLOCKSTEP_SOURCE=${SOURCE_DIR}"
    -DLOCKSTEP_CUDA=OFF)
