#include "lockstep/tools/lockstep/check/campaign.h"

#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <new>
#include <random>
#include <sstream>
#include <thread>

#include "lockstep/tests/harness/child_process.h"
#include "lockstep/tools/lockstep/bench/group.h"

namespace lockstep::tools {
namespace {

using Clock = std::chrono::steady_clock;

// For mishaps that have to time out.
constexpr absl::Duration kShort = absl::Milliseconds(50);
// For all others: longer than a busy machine keeps a rank from running, and within every grace, so
// that a rank that is lost is named.
constexpr absl::Duration kLong = absl::Seconds(20);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::int64_t kMemorySlack = 1 << 30;  // these keep what is freed
#else
constexpr std::int64_t kMemorySlack = 8 << 20;
#endif

// Shared with the child, so that what it saw outlives it.
struct Counts {
  CampaignResult result;  // but for its text
  char first_failure[2000] = "";
};

struct Resources {
  std::int64_t threads = 0;
  std::int64_t descriptors = 0;
  std::int64_t memory_bytes = 0;

  static Resources Now() {
    Resources now;
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      std::istringstream words(line);
      std::string name;
      std::int64_t value = 0;
      words >> name >> value;
      if (name == "Threads:") now.threads = value;
      if (name == "VmRSS:") now.memory_bytes = value << 10;
    }
    std::error_code error;
    const std::filesystem::directory_iterator open_files("/proc/self/fd", error);
    now.descriptors = std::distance(begin(open_files), end(open_files));
    return now;
  }

  // A thread that has been joined is counted until the system is done with it.
  static Resources WhenThreadsAre(std::int64_t threads) {
    const Clock::time_point end = Clock::now() + std::chrono::seconds(5);
    Resources now = Now();
    while (now.threads > threads && Clock::now() < end) {
      std::this_thread::yield();
      now = Now();
    }
    return now;
  }

  // How many of the three have grown since `before`.
  std::int64_t GrownSince(const Resources& before) const {
    return (threads > before.threads) + (descriptors > before.descriptors) +
           (memory_bytes > before.memory_bytes + kMemorySlack);
  }
};

void Note(Counts& counts, absl::string_view failure) {
  if (counts.first_failure[0] == 0) {
    std::snprintf(counts.first_failure, sizeof(counts.first_failure), "%.*s",
                  static_cast<int>(failure.size()), failure.data());
  }
}

void Add(const EpisodePlan& plan, std::uint64_t seed, const EpisodeFindings& findings,
         Counts& counts) {
  CampaignResult& result = counts.result;
  const auto kind = static_cast<std::size_t>(plan.mishap);
  const bool right =
      findings.survived.ok() && findings.split_verdicts == 0 && findings.wrong_results == 0;
  result.episodes += 1;
  result.good_rounds += findings.good_rounds;
  result.happened[kind] += 1;
  result.survived[kind] += right;
  result.split_verdicts += findings.split_verdicts;
  result.wrong_results += findings.wrong_results;
  result.slow += findings.slow;
  if (!right) {
    Note(counts, absl::StrCat("episode ", seed, " (rank ", plan.rank, ", ", Name(plan.mishap),
                              ", call ", plan.at, " of ", plan.calls.size(), "): ",
                              findings.split_verdicts, " split verdicts, ", findings.wrong_results,
                              " wrong results; ", findings.survived.ToString()));
  }
}

absl::Status RunEpisodes(const CampaignOptions& options, Counts& counts) {
  BenchOptions bench;
  bench.executor.world_size = options.world_size;
  bench.barrier.timeout = kShort;
  LOCKSTEP_ASSIGN_OR_RETURN(const BenchGroup hasty, BenchGroup::Create(bench));
  bench.barrier.timeout = kLong;
  LOCKSTEP_ASSIGN_OR_RETURN(const BenchGroup patient, BenchGroup::Create(bench));
  const Clock::time_point end = Clock::now() + absl::ToChronoNanoseconds(options.length);
  const std::int64_t& episodes = counts.result.episodes;
  Resources before;
  // Neighbouring seeds have no episodes in common.
  for (std::uint64_t seed = std::mt19937_64(options.seed)();
       Clock::now() < end || episodes <= options.warm_up; ++seed) {
    if (episodes == options.warm_up) before = Resources::Now();
    EpisodePlan plan = PlanEpisode(seed, options.world_size);
    plan.spoil = options.spoil;
    const bool times_out = MustTimeOut(plan.mishap);
    const BenchGroup& group = times_out ? hasty : patient;
    const absl::Duration timeout = times_out ? kShort : kLong;
    Add(plan, seed, RunEpisode(plan, *group.executor, *group.barrier, timeout), counts);
  }
  counts.result.leaks = Resources::WhenThreadsAre(before.threads).GrownSince(before);
  if (counts.result.leaks > 0)
    Note(counts, "there are more threads, file descriptors or memory in the end");
  return absl::OkStatus();
}

}  // namespace

bool CampaignResult::good() const {
  return happened == survived && split_verdicts == 0 && wrong_results == 0 && leaks == 0 &&
         hangs == 0 && first_failure.empty();
}

CampaignResult RunCampaign(const CampaignOptions& options) {
  void* const shared =
      mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  LOCKSTEP_CHECK(shared != MAP_FAILED);
  auto* const counts = new (shared) Counts;
  const absl::Status ran = testing::RunInChild(options.length + options.grace,
                                               [&] { return RunEpisodes(options, *counts); });
  CampaignResult result = counts->result;
  result.first_failure = counts->first_failure;
  if (!ran.ok()) {
    result.hangs += absl::IsDeadlineExceeded(ran);
    if (result.first_failure.empty()) result.first_failure = ran.ToString();
  }
  counts->~Counts();
  munmap(shared, sizeof(Counts));
  return result;
}

}  // namespace lockstep::tools
