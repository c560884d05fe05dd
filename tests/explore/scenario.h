// What is explored: small programs for the simulated machine.
#ifndef LOCKSTEP_TESTS_EXPLORE_SCENARIO_H_
#define LOCKSTEP_TESTS_EXPLORE_SCENARIO_H_

#include <set>
#include <string>
#include <vector>

#include "lockstep/tests/explore/choices.h"

namespace lockstep::explore {

struct Search {
  int world_size;
  Bounds bounds;
  /// So many executions drawn by chance; 0 for all within the bounds.
  int draws = 0;
  /// Ends after so many executions; 0 for never. A search cut short is not judged by what it has
  /// not come upon.
  int max_executions = 0;
};

struct Scenario {
  /// Begins with the group that the command line selects by: "barrier/...".
  const char* name;
  /// Runs once on TheMachine() and returns its outcome. Must do the same whenever the choices are
  /// the same.
  int (*run)(int world_size);
  /// All outcomes that there are: each search has to come upon each of them, and upon no other.
  std::set<int> outcomes;
  std::vector<Search> searches;
  /// For a program that is wrong: part of the failure that has to be found.
  const char* failure = nullptr;
};

std::vector<Scenario> LitmusTests();
std::vector<Scenario> BrokenProtocols();
std::vector<Scenario> BarrierRounds();
std::vector<Scenario> BarrierFaults();
std::vector<Scenario> Handovers();

}  // namespace lockstep::explore

#endif  // LOCKSTEP_TESTS_EXPLORE_SCENARIO_H_
