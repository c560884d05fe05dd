// Runs scenarios in all the ways that a search has, and tells what it saw.
#ifndef LOCKSTEP_TESTS_EXPLORE_EXPLORER_H_
#define LOCKSTEP_TESTS_EXPLORE_EXPLORER_H_

#include <cstdint>
#include <string>

#include "lockstep/tests/explore/scenario.h"

namespace lockstep::explore {

struct Findings {
  /// Nothing unexpected happened.
  bool passed = true;
  /// No two of these were the same.
  std::int64_t executions = 0;
};

/// Explores and prints a line, or on a failure what went wrong and the string that replays it.
Findings Explore(const Scenario& scenario, const Search& search, std::uint64_t seed);

/// "NAME/RANKS/BOUNDS/CHOICES". Runs that execution, printing each of its steps. False if it fails.
bool Replay(const std::vector<Scenario>& scenarios, const std::string& text);

}  // namespace lockstep::explore

#endif  // LOCKSTEP_TESTS_EXPLORE_EXPLORER_H_
