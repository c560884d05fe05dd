// The one include of the test framework: Catch2 2.13 (Debian 12) or 3.x (Ubuntu 24.04). Its
// assertions are for the main thread; ranks return a status.
#ifndef LOCKSTEP_TESTS_CATCH_H_
#define LOCKSTEP_TESTS_CATCH_H_

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif

#include "lockstep/runtime/status.h"

/// Fails the test with the status's own text unless it is OK. Takes a Status or a StatusOr.
#define REQUIRE_OK(expression)                          \
  do {                                                  \
    const auto& lockstep_result = (expression);         \
    INFO(::lockstep::testing::TextOf(lockstep_result)); \
    REQUIRE(lockstep_result.ok());                      \
  } while (false)

namespace lockstep::testing {

inline std::string TextOf(const absl::Status& status) { return status.ToString(); }
template <typename T>
std::string TextOf(const absl::StatusOr<T>& result) {
  return result.status().ToString();
}

/// Whether a status's text contains `part`.
inline bool Says(const absl::Status& status, const std::string& part) {
  return status.ToString().find(part) != std::string::npos;
}

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_CATCH_H_
