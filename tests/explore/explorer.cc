#include "lockstep/tests/explore/explorer.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "lockstep/tests/explore/machine.h"

namespace lockstep::explore {
namespace {

// Whether it ran to its end.
bool Execute(const Scenario& scenario, int world_size, bool tracing, int& outcome) {
  Machine& machine = TheMachine();
  machine.Reset(tracing);
  try {
    outcome = scenario.run(world_size);
    machine.Check(machine.unparks() <= machine.parks(), "a wake that nobody had asked for");
    if (scenario.failure == nullptr && !scenario.outcomes.contains(outcome)) {
      machine.Fail("an outcome that there should not be: " + std::to_string(outcome));
    }
  } catch (const Failed&) {
  }
  return !machine.failed();
}

std::string ReplayText(const Scenario& scenario, const Search& search) {
  return std::string(scenario.name) + "/" + std::to_string(search.world_size) + "/" +
         search.bounds.Text() + "/" + TheMachine().choices().Code();
}

// A failure that its string does not bring back would be worth nothing.
bool Recurs(const Scenario& scenario, const Search& search) {
  Machine& machine = TheMachine();
  const std::string failure = machine.failure();
  machine.choices().Replay(search.bounds, machine.choices().Code());
  int outcome = 0;
  return !Execute(scenario, search.world_size, /*tracing=*/false, outcome) &&
         machine.failure() == failure;
}

std::string Text(const std::set<int>& outcomes) {
  std::string text;
  for (const int outcome : outcomes) text += " " + std::to_string(outcome);
  return text;
}

bool Judge(const Scenario& scenario, const Search& search, const std::set<int>& outcomes,
           bool cut) {
  const Machine& machine = TheMachine();
  if (machine.failed()) {
    const std::string failure = machine.failure();
    const std::string replay = ReplayText(scenario, search);
    const bool recurs = Recurs(scenario, search);
    if (scenario.failure != nullptr && failure.find(scenario.failure) != std::string::npos) {
      if (!recurs) std::printf("FAILED: %s does not bring the failure back\n", replay.c_str());
      return recurs;
    }
    std::printf("FAILED: %s\n  replay with --replay=%s%s\n", failure.c_str(), replay.c_str(),
                recurs ? "" : " (which did NOT bring it back)");
    return false;
  }
  if (cut) return true;
  if (scenario.failure != nullptr) {
    std::printf("FAILED: nothing was found, and there is: %s\n", scenario.failure);
    return false;
  }
  if (outcomes != scenario.outcomes) {
    std::printf("FAILED: the outcomes were%s, and should be%s\n", Text(outcomes).c_str(),
                Text(scenario.outcomes).c_str());
    return false;
  }
  return true;
}

}  // namespace

Findings Explore(const Scenario& scenario, const Search& search, std::uint64_t seed) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  Choices& choices = TheMachine().choices();
  if (search.draws > 0) {
    choices.SearchRandomly(search.bounds, seed);
  } else {
    choices.SearchDepthFirst(search.bounds);
  }
  Findings findings;
  std::set<int> outcomes;
  std::vector<std::uint64_t> drawn;
  std::int64_t executions = 0;
  bool more = true;
  bool cut = false;
  while (more && !cut) {
    int outcome = 0;
    executions += 1;
    if (!Execute(scenario, search.world_size, /*tracing=*/false, outcome)) break;
    outcomes.insert(outcome);
    if (search.draws > 0) drawn.push_back(choices.Hash());
    more = choices.Next() && (search.draws == 0 || executions < search.draws);
    cut = more && executions == search.max_executions;
  }
  std::sort(drawn.begin(), drawn.end());
  drawn.erase(std::unique(drawn.begin(), drawn.end()), drawn.end());
  findings.executions = search.draws > 0 ? static_cast<std::int64_t>(drawn.size()) : executions;
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf("%-28s %d ranks %-10s %-6s %9lld executions %6.2f s %5.0f thousand/s%s\n",
              scenario.name, search.world_size, search.bounds.Text().c_str(),
              search.draws > 0 ? "random" : "all", static_cast<long long>(findings.executions),
              seconds, static_cast<double>(executions) / seconds / 1000, cut ? ", cut short" : "");
  findings.passed = Judge(scenario, search, outcomes, cut);
  std::fflush(stdout);
  return findings;
}

bool Replay(const std::vector<Scenario>& scenarios, const std::string& text) {
  const std::size_t choices_at = text.rfind('/');
  const std::size_t bounds_at = text.rfind('/', choices_at - 1);
  const std::size_t ranks_at = text.rfind('/', bounds_at - 1);
  if (choices_at == std::string::npos || bounds_at == std::string::npos ||
      ranks_at == std::string::npos) {
    std::printf("a replay string looks like NAME/RANKS/BOUNDS/CHOICES\n");
    return false;
  }
  const std::string name = text.substr(0, ranks_at);
  for (const Scenario& scenario : scenarios) {
    if (name != scenario.name) continue;
    TheMachine().choices().Replay(
        Bounds::Parse(text.substr(bounds_at + 1, choices_at - bounds_at - 1)),
        text.substr(choices_at + 1));
    int outcome = 0;
    if (!Execute(scenario, std::stoi(text.substr(ranks_at + 1)), /*tracing=*/true, outcome)) {
      std::printf("failed: %s\n", TheMachine().failure().c_str());
      return false;
    }
    std::printf("ended well, with outcome %d\n", outcome);
    return true;
  }
  std::printf("there is no scenario %s\n", name.c_str());
  return false;
}

}  // namespace lockstep::explore
