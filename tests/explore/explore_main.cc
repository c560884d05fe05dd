// Explores every scenario, or the one or the group that was asked for: see README.md.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "lockstep/tests/explore/explorer.h"
#include "lockstep/tests/explore/scenario.h"

namespace lockstep::explore {
namespace {

constexpr char kUsage[] =
    "explore [--only=NAME or GROUP] [--bounds=p3o1l0] [--ranks=N] [--draws=N] [--seed=N] "
    "[--max-executions=N]\n"
    "explore --replay=NAME/RANKS/BOUNDS/CHOICES\n"
    "explore --list\n";

struct Options {
  std::string only;
  std::string bounds;
  std::string replay;
  int ranks = 0;
  int draws = -1;
  int max_executions = 0;
  std::uint64_t seed = 1;
  bool list = false;
};

// Whether `argument` is --name=..., and if so its value.
bool Takes(const char* argument, const char* name, std::string& value) {
  const std::size_t length = std::strlen(name);
  if (std::strncmp(argument, name, length) != 0) return false;
  value = argument + length;
  return true;
}

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    std::string value;
    if (Takes(argv[i], "--only=", options.only) || Takes(argv[i], "--bounds=", options.bounds) ||
        Takes(argv[i], "--replay=", options.replay)) {
    } else if (Takes(argv[i], "--ranks=", value)) {
      options.ranks = std::atoi(value.c_str());
    } else if (Takes(argv[i], "--draws=", value)) {
      options.draws = std::atoi(value.c_str());
    } else if (Takes(argv[i], "--max-executions=", value)) {
      options.max_executions = std::atoi(value.c_str());
    } else if (Takes(argv[i], "--seed=", value)) {
      options.seed = std::strtoull(value.c_str(), nullptr, 10);
    } else if (std::strcmp(argv[i], "--list") == 0) {
      options.list = true;
    } else {
      std::fprintf(stderr, "%s", kUsage);
      return false;
    }
  }
  return true;
}

bool Selects(const std::string& only, const std::string& name) {
  return only.empty() || name == only || name.rfind(only + "/", 0) == 0;
}

std::vector<Scenario> AllScenarios() {
  std::vector<Scenario> all;
  for (auto* group : {&LitmusTests, &BrokenProtocols, &BarrierRounds, &BarrierFaults, &Handovers}) {
    for (Scenario& scenario : group()) all.push_back(std::move(scenario));
  }
  return all;
}

// With what the command line says instead of the scenario's own searches.
std::vector<Search> SearchesOf(const Scenario& scenario, const Options& options) {
  std::vector<Search> searches = scenario.searches;
  if (!options.bounds.empty() || options.ranks > 0 || options.draws >= 0) searches.resize(1);
  for (Search& search : searches) {
    if (options.ranks > 0) search.world_size = options.ranks;
    if (!options.bounds.empty()) search.bounds = Bounds::Parse(options.bounds);
    if (options.draws >= 0) search.draws = options.draws;
    search.max_executions = options.max_executions;
  }
  return searches;
}

int Main(const Options& options) {
  const std::vector<Scenario> scenarios = AllScenarios();
  if (!options.replay.empty()) return Replay(scenarios, options.replay) ? 0 : 1;
  std::int64_t executions = 0;
  for (const Scenario& scenario : scenarios) {
    if (options.list) std::printf("%s\n", scenario.name);
    if (options.list || !Selects(options.only, scenario.name)) continue;
    for (const Search& search : SearchesOf(scenario, options)) {
      const Findings findings = Explore(scenario, search, options.seed);
      executions += findings.executions;
      if (!findings.passed) return 1;
    }
  }
  if (!options.list) {
    std::printf("%lld executions, all of them different\n", static_cast<long long>(executions));
  }
  return 0;
}

}  // namespace
}  // namespace lockstep::explore

int main(int argc, char** argv) {
  lockstep::explore::Options options;
  if (!lockstep::explore::Parse(argc, argv, options)) return 2;
  return lockstep::explore::Main(options);
}
