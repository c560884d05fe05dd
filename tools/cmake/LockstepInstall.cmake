# find_package(lockstep CONFIG) for those who install it.
include(CMakePackageConfigHelpers)
set(LOCKSTEP_CMAKE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/lockstep")
install(TARGETS lockstep_runtime lockstep_collective lockstep_layers lockstep_testing
        EXPORT lockstep-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
get_property(LOCKSTEP_PUBLIC_HEADERS GLOBAL PROPERTY LOCKSTEP_PUBLIC_HEADERS)
foreach(header ${LOCKSTEP_PUBLIC_HEADERS})
  cmake_path(GET header PARENT_PATH folder)
  install(FILES "${PROJECT_SOURCE_DIR}/${header}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/lockstep/${folder}")
endforeach()
# For tools/lint.
list(JOIN LOCKSTEP_PUBLIC_HEADERS "\n" LOCKSTEP_HEADER_LINES)
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/public_headers.txt" CONTENT "${LOCKSTEP_HEADER_LINES}\n" @ONLY)
install(EXPORT lockstep-targets NAMESPACE lockstep:: DESTINATION ${LOCKSTEP_CMAKE_DIR})
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/lockstep-config.cmake.in"
  "${PROJECT_BINARY_DIR}/lockstep-config.cmake" INSTALL_DESTINATION ${LOCKSTEP_CMAKE_DIR})
write_basic_package_version_file("${PROJECT_BINARY_DIR}/lockstep-config-version.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/lockstep-config.cmake"
  "${PROJECT_BINARY_DIR}/lockstep-config-version.cmake"
  "${PROJECT_SOURCE_DIR}/tools/cmake/FindBLIS.cmake" "${PROJECT_SOURCE_DIR}/tools/cmake/FindHwloc.cmake"
  DESTINATION ${LOCKSTEP_CMAKE_DIR})
