// Who knows what to have happened: the clocks of the simulated memory.
#ifndef LOCKSTEP_TESTS_EXPLORE_KNOWLEDGE_H_
#define LOCKSTEP_TESTS_EXPLORE_KNOWLEDGE_H_

#include <algorithm>
#include <array>
#include <cstdint>

namespace lockstep::explore {

constexpr int kMaxThreads = 10;
/// The context outside of all threads, which makes them and waits for their end.
constexpr int kMain = kMaxThreads;
constexpr int kMaxLocations = 13;

/// What happens before a point of a thread: of each thread the steps up to this one, and of each
/// atomic location the newest store, behind which coherence forbids to fall back.
class Knowledge {
 public:
  std::int16_t& step(int thread) { return newest_[static_cast<std::size_t>(thread)]; }
  std::int16_t step(int thread) const { return newest_[static_cast<std::size_t>(thread)]; }
  std::int16_t& store(int location) { return step(kMaxThreads + 1 + location); }
  std::int16_t store(int location) const { return step(kMaxThreads + 1 + location); }

  void Learn(const Knowledge& other) {
    for (std::size_t i = 0; i < newest_.size(); ++i) {
      newest_[i] = std::max(newest_[i], other.newest_[i]);
    }
  }

 private:
  std::array<std::int16_t, kMaxThreads + 1 + kMaxLocations> newest_{};
};

/// Who touched something without synchronisation of its own, so that races are found whatever the
/// order in which the accesses happened to run.
class AccessHistory {
 public:
  /// False: a race with a write.
  [[nodiscard]] bool Read(int thread, const Knowledge& knows) {
    reads_.step(thread) = knows.step(thread);
    return knows.step(writer_) >= write_;
  }
  /// False: a race with a write or a read.
  [[nodiscard]] bool Write(int thread, const Knowledge& knows) {
    bool ordered = knows.step(writer_) >= write_;
    for (int reader = 0; reader <= kMain; ++reader) {
      ordered = ordered && knows.step(reader) >= reads_.step(reader);
    }
    writer_ = thread;
    write_ = knows.step(thread);
    return ordered;
  }

 private:
  int writer_ = kMain;
  std::int16_t write_ = 0;
  Knowledge reads_;
};

}  // namespace lockstep::explore

#endif  // LOCKSTEP_TESTS_EXPLORE_KNOWLEDGE_H_
