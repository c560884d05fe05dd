# Finds the serial BLIS, which ships no CMake config, by its own name: never a plain -lblas, which may be anything.
# Makes the target BLIS::BLIS, for #include <cblas.h>.
find_path(BLIS_INCLUDE_DIR NAMES blis.h PATH_SUFFIXES blis-serial blis)
find_library(BLIS_LIBRARY NAMES blis PATH_SUFFIXES blis-serial blis)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(BLIS REQUIRED_VARS BLIS_LIBRARY BLIS_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install libblis-serial-dev")
if(BLIS_FOUND AND NOT TARGET BLIS::BLIS)
  add_library(BLIS::BLIS UNKNOWN IMPORTED)
  set_target_properties(BLIS::BLIS PROPERTIES
    IMPORTED_LOCATION "${BLIS_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${BLIS_INCLUDE_DIR}")
endif()
mark_as_advanced(BLIS_INCLUDE_DIR BLIS_LIBRARY)
