// The simulated machine: threads, memory, futexes and a clock, whose every accident is a choice.
#ifndef LOCKSTEP_TESTS_EXPLORE_MACHINE_H_
#define LOCKSTEP_TESTS_EXPLORE_MACHINE_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lockstep/tests/explore/choices.h"
#include "lockstep/tests/explore/fiber.h"
#include "lockstep/tests/explore/knowledge.h"

namespace lockstep::explore {

using Time = std::chrono::steady_clock::time_point;
using std::chrono::nanoseconds;

/// What passes when all that is left to do is to poll: spin budgets are this long.
constexpr nanoseconds kTick{10};
/// What passes at once in a leap: time-outs that end are this long.
constexpr nanoseconds kLeap{100};
/// A deadline further away than this never comes, so that no nap hides a forgotten wake.
constexpr std::chrono::seconds kHorizon{1};
/// A time-out that never ends.
constexpr std::chrono::seconds kNever{3600};

/// Leaves an execution that has failed; the machine has kept why.
struct Failed {};

/// Runs threads as fibers, one at a time, and may switch before each operation on an atomic.
///
/// Memory follows C++20 without fences. A location keeps all its stores in the order of execution,
/// which is their modification order. A load may see any of them that neither coherence nor what
/// happened before forbids; a read-modify-write sees the newest. What a store released, a load that
/// acquires learns, through the read-modify-writes in between too. Sequentially consistent accesses
/// do not fall behind what others of their kind have seen of that location.
///
/// Not simulated: a load that sees a store from the future (load buffering), a store that takes its
/// place before an older one (2+2W), fences, consume (it acquires).
class Machine {
 public:
  /// Runs `body(thread)` as threads 0 .. num_threads - 1 and returns when all have ended. What the
  /// caller did happens before, what it does next happens after. The first `num_alike` threads do
  /// the same, so that it is enough to let them begin in order.
  template <typename Body>
  void Run(int num_threads, int num_alike, Body&& body) {
    RunThreads(num_threads, num_alike, &body, [](void* erased, int thread) {
      (*static_cast<std::remove_reference_t<Body>*>(erased))(thread);
    });
  }

  /// A failure of what is explored: ends the execution.
  [[noreturn]] void Fail(const std::string& why);
  void Check(bool condition, const char* what) {
    if (!condition) Fail(what);
  }

  // Operations of the running thread.
  void Create(const void* address, std::uint64_t value);
  void Destroy(const void* address);
  std::uint64_t Load(const void* address, std::memory_order order);
  void Store(const void* address, std::uint64_t value, std::memory_order order);
  template <typename Change>
  std::uint64_t Modify(const void* address, const char* what, std::memory_order order,
                       Change change) {
    Location& at = Reach(address);
    const std::uint64_t old = at.value(at.newest());
    Replace(at, change(old), order, what);
    return old;
  }
  bool CompareExchange(const void* address, std::uint64_t& expected, std::uint64_t desired,
                       bool weak, std::memory_order success, std::memory_order failure);
  void Park(const void* address, std::uint32_t expected, Time deadline);
  void UnparkAll(const void* address);
  /// Between two polls.
  void Pause();
  void SleepUntil(Time when);
  Time Now() const { return now_; }
  /// Sleeps that were asked for, and wakes.
  int parks() const { return parks_; }
  int unparks() const { return unparks_; }
  /// An access without synchronisation.
  void Access(AccessHistory& history, bool write);

  // For who explores.
  Choices& choices() { return choices_; }
  /// A machine as good as new.
  void Reset(bool tracing);
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  /// A line for the reader of a replay.
  template <typename... Args>
  void Note(const char* format, Args... args) {
    if (tracing_) Print(format, args...);
  }

 private:
  enum class State : std::uint8_t { kReady, kPolling, kParked, kSleeping, kEnded };
  struct Thread {
    std::unique_ptr<Fiber> fiber;
    State state = State::kEnded;
    bool begun = false;
    Knowledge knows;
    // What the last load saw, for Pause.
    int polled_location = -1;
    int polled_store = 0;
    const void* sleeps_at = nullptr;
    Time deadline;
  };
  struct StoredValue {
    std::uint64_t value;
    // What a load that acquires learns.
    Knowledge released;
  };
  struct Location {
    const void* address = nullptr;
    bool alive = false;
    // The newest store that a sequentially consistent access has seen.
    int sequential = 0;
    AccessHistory history;
    std::vector<StoredValue> stores;

    int newest() const { return static_cast<int>(stores.size()) - 1; }
    std::uint64_t value(int store) const { return stores[static_cast<std::size_t>(store)].value; }
  };

  // machine.cc: whose turn it is.
  void RunThreads(int num_threads, int num_alike, void* body, void (*call)(void*, int));
  static void Live(void* thread);
  void Step();
  void Reschedule();
  int PickNext();
  void CollectTurns();
  void PassTime(nanoseconds by);
  void WaitForTime();
  std::string Standstill() const;
  [[gnu::format(printf, 2, 3)]] void Print(const char* format, ...) const;
  Thread& self() { return threads_[static_cast<std::size_t>(current_)]; }

  // machine_memory.cc: what it sees.
  Location* Find(const void* address);
  int IndexOf(const Location& at) const { return static_cast<int>(&at - locations_.data()); }
  // A step, and the location, which must be alive.
  Location& Reach(const void* address);
  void Observe(Location& at, int store, std::memory_order order);
  void Append(Location& at, std::uint64_t value, std::memory_order order, bool continues);
  void Replace(Location& at, std::uint64_t value, std::memory_order order, const char* what);
  void NoteAccess(const char* what, std::memory_order order, const Location& at, int store) const;

  Choices choices_;
  std::array<Thread, kMaxThreads + 1> threads_;  // the last is kMain
  int num_threads_ = 0;
  int num_alike_ = 0;
  int current_ = kMain;
  void* body_ = nullptr;
  void (*call_)(void*, int) = nullptr;
  Time now_;
  int steps_ = 0;
  int parks_ = 0;
  int unparks_ = 0;
  std::array<Location, kMaxLocations> locations_;
  int num_locations_ = 0;
  std::vector<Turn> turns_;
  std::string failure_;
  bool tracing_ = false;
};

/// The one that is simulated.
inline Machine& TheMachine() {
  static Machine machine;
  return machine;
}

}  // namespace lockstep::explore

#endif  // LOCKSTEP_TESTS_EXPLORE_MACHINE_H_
