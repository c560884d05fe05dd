// The choices that make one execution differ from another, and the ways to go through them.
#ifndef LOCKSTEP_TESTS_EXPLORE_CHOICES_H_
#define LOCKSTEP_TESTS_EXPLORE_CHOICES_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/tests/explore/knowledge.h"

namespace lockstep::explore {

/// How far an execution may stray from the plainest one.
struct Bounds {
  /// Switches away from a thread that could go on, as in Musuvathi and Qadeer, "Iterative context
  /// bounding" (PLDI 2007), and turns of a thread that polls in vain.
  int preemptions = 0;
  /// Loads that see an old value, compare-exchanges that fail and wakes that come for no reason.
  int oddities = 0;
  /// Moments at which all deadlines pass although somebody could go on.
  int leaps = 0;

  /// "p3o1l0"
  std::string Text() const;
  static Bounds Parse(const std::string& text);
};

/// A thread that may run next, or (kLeap) time that may pass, and what it costs.
struct Turn {
  enum class Price : std::uint8_t { kNothing, kPreemption, kPoll, kWake, kLeap };
  int thread;
  Price price;
};

/// One execution after the other asks Choices at each point where it could go on in several ways.
/// Option 0 is the plain one: what costs nothing.
///
///   choices.SearchDepthFirst(bounds);
///   do { choices.Begin(); Execute(); } while (choices.Next());
class Choices {
 public:
  /// All executions within the bounds, each once.
  void SearchDepthFirst(const Bounds& bounds);
  /// Executions drawn by chance, the same ones for the same seed: threads have priorities, of which
  /// a few change on the way, as in Burckhardt et al., "A randomized scheduler with probabilistic
  /// guarantees of finding bugs" (ASPLOS 2010).
  void SearchRandomly(const Bounds& bounds, std::uint64_t seed);
  /// The one execution that Code() described.
  void Replay(const Bounds& bounds, const std::string& code);

  /// To be called before each execution.
  void Begin();
  /// Whether another execution is left. Randomly there always is.
  bool Next();

  /// One of `turns`, not empty.
  Turn PickTurn(const std::vector<Turn>& turns);
  /// One of `count` options that cost nothing.
  int Pick(int count);
  /// 0, or one of the `count` - 1 odd alternatives to it.
  int PickOddity(int count);
  /// What may still be spent in this execution.
  const Bounds& left() const { return left_; }

  /// Digits and lower case letters are options, upper case letters runs of zeros (A is one). Zeros
  /// at the end are left out.
  std::string Code() const;
  /// Differs, as far as 64 bits can, between different executions.
  std::uint64_t Hash() const;

 private:
  enum class Mode : std::uint8_t { kDepthFirst, kRandom, kReplay };
  struct Choice {
    std::uint8_t taken;
    std::uint8_t count;
  };

  void Start(Mode mode, const Bounds& bounds);
  // Takes what the path prescribes, and `fresh` where it ends.
  int Decide(int count, int fresh);
  int RandomTurn(const std::vector<Turn>& turns);
  std::uint64_t Random(std::uint64_t below);

  Mode mode_ = Mode::kDepthFirst;
  Bounds bounds_;
  Bounds left_;
  std::vector<Choice> path_;
  std::size_t at_ = 0;

  std::uint64_t random_ = 0;
  std::array<int, kMaxThreads> priority_{};
  std::array<std::uint64_t, 4> changes_{};
  std::uint64_t turns_ = 0;
  std::uint64_t longest_ = 32;
};

}  // namespace lockstep::explore

#endif  // LOCKSTEP_TESTS_EXPLORE_CHOICES_H_
