#include "lockstep/tests/explore/machine.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace lockstep::explore {
namespace {

// More than any execution that ends needs, and fewer than Knowledge can count.
constexpr int kMaxSteps = 30000;

const char* NameOf(int thread) {
  static constexpr const char* kNames[] = {"t0", "t1", "t2", "t3", "t4",  "t5",
                                           "t6", "t7", "t8", "t9", "main"};
  return kNames[thread];
}

}  // namespace

void Machine::Reset(bool tracing) {
  tracing_ = tracing;
  failure_.clear();
  now_ = Time(std::chrono::seconds(1));
  steps_ = 0;
  parks_ = 0;
  unparks_ = 0;
  num_locations_ = 0;
  num_threads_ = 0;
  current_ = kMain;
  for (Thread& thread : threads_) thread.knows = Knowledge();
  choices_.Begin();
}

void Machine::RunThreads(int num_threads, int num_alike, void* body, void (*call)(void*, int)) {
  num_threads_ = num_threads;
  num_alike_ = num_alike;
  body_ = body;
  call_ = call;
  Thread& main = self();
  if (main.fiber == nullptr) main.fiber = std::make_unique<Fiber>();
  for (int i = 0; i < num_threads; ++i) {
    Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.fiber == nullptr) thread.fiber = std::make_unique<Fiber>(&Live, &thread);
    thread.state = State::kReady;
    thread.begun = false;
    thread.knows = main.knows;
    thread.knows.step(i) += 1;
    thread.polled_location = -1;
  }
  main.knows.step(kMain) += 1;
  Reschedule();
  if (failed()) {
    // Who was in the middle of something stays there for ever.
    for (Thread& thread : threads_) thread.fiber = nullptr;
    throw Failed();
  }
  for (int i = 0; i < num_threads; ++i) {
    main.knows.Learn(threads_[static_cast<std::size_t>(i)].knows);
  }
}

// One thread after the other on the same stack, so that making threads costs nothing.
void Machine::Live(void* thread) {
  Machine& machine = TheMachine();
  Thread& self = *static_cast<Thread*>(thread);
  for (;;) {
    machine.call_(machine.body_, machine.current_);
    machine.Note("ends");
    self.state = State::kEnded;
    machine.Reschedule();
  }
}

void Machine::Fail(const std::string& why) {
  if (!failed()) failure_ = std::string(NameOf(current_)) + ": " + why;
  Note("FAILS: %s", why.c_str());
  if (current_ == kMain) throw Failed();
  Thread& from = self();
  current_ = kMain;
  Fiber::Switch(*from.fiber, *self().fiber);
  std::abort();  // nobody comes back to it
}

void Machine::Step() {
  if (++steps_ > kMaxSteps) Fail("livelock: it runs for ever");
  if (current_ != kMain) Reschedule();
}

void Machine::Reschedule() {
  Thread& from = self();
  const int next = PickNext();
  Thread& to = threads_[static_cast<std::size_t>(next)];
  current_ = next;
  to.begun = true;
  if (&from != &to) Fiber::Switch(*from.fiber, *to.fiber);
}

int Machine::PickNext() {
  for (;;) {
    CollectTurns();
    if (turns_.empty()) {
      const auto ended = [](const Thread& thread) { return thread.state == State::kEnded; };
      if (std::all_of(threads_.begin(), threads_.begin() + num_threads_, ended)) return kMain;
      WaitForTime();
      continue;
    }
    const Turn turn = choices_.PickTurn(turns_);
    if (turn.price == Turn::Price::kLeap) {
      PassTime(kLeap);
      continue;
    }
    if (turn.price == Turn::Price::kPoll) PassTime(kTick);
    if (turn.price == Turn::Price::kWake) Note("%s wakes for no reason", NameOf(turn.thread));
    threads_[static_cast<std::size_t>(turn.thread)].state = State::kReady;
    return turn.thread;
  }
}

// Nothing when nobody can go on. First the plain turn: to go on with the thread that runs.
void Machine::CollectTurns() {
  using Price = Turn::Price;
  turns_.clear();
  const bool goes_on = current_ != kMain && self().state == State::kReady;
  if (goes_on) turns_.push_back({current_, Price::kNothing});
  const Bounds& left = choices_.left();
  const bool may_preempt = left.preemptions > 0;
  // Nothing left to spend: the most frequent case.
  if (goes_on && !may_preempt && left.oddities == 0 && left.leaps == 0) return;
  bool waits_to_begin = false;
  for (int i = 0; i < num_threads_; ++i) {
    const Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.state != State::kReady || (goes_on && i == current_)) continue;
    if (!thread.begun && i < num_alike_) {
      if (waits_to_begin) continue;
      waits_to_begin = true;
    }
    if (!goes_on) turns_.push_back({i, Price::kNothing});
    if (goes_on && may_preempt) turns_.push_back({i, Price::kPreemption});
  }
  if (turns_.empty()) return;
  for (int i = 0; i < num_threads_; ++i) {
    const State state = threads_[static_cast<std::size_t>(i)].state;
    if (state == State::kPolling && may_preempt) turns_.push_back({i, Price::kPoll});
    if (state == State::kParked && left.oddities > 0) turns_.push_back({i, Price::kWake});
  }
  if (left.leaps > 0) turns_.push_back({0, Price::kLeap});
}

void Machine::PassTime(nanoseconds by) {
  now_ += by;
  Note("%lld ns pass", static_cast<long long>(by.count()));
  for (int i = 0; i < num_threads_; ++i) {
    Thread& thread = threads_[static_cast<std::size_t>(i)];
    const bool sleeps = thread.state == State::kParked || thread.state == State::kSleeping;
    if (thread.state == State::kPolling || (sleeps && thread.deadline <= now_)) {
      thread.state = State::kReady;
    }
  }
}

// Nobody can go on: until the next deadline, or the next poll.
void Machine::WaitForTime() {
  const Time never = now_ + kHorizon;
  Time next = never;
  for (int i = 0; i < num_threads_; ++i) {
    const Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.state == State::kPolling) next = std::min(next, now_ + kTick);
    if (thread.state == State::kParked || thread.state == State::kSleeping) {
      next = std::min(next, thread.deadline);
    }
  }
  if (++steps_ > kMaxSteps) Fail("livelock: everybody polls for ever");
  if (next == never) Fail(Standstill());
  PassTime(next - now_);
}

std::string Machine::Standstill() const {
  std::string text = "deadlock: asleep for ever are";
  for (int i = 0; i < num_threads_; ++i) {
    const Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.state != State::kEnded) text += std::string(" ") + NameOf(i);
  }
  return text;
}

void Machine::Pause() {
  Thread& me = self();
  // Who polls without looking would not get anywhere else.
  if (++steps_ > kMaxSteps) Fail("livelock: it polls for ever");
  if (current_ == kMain) return;
  if (me.polled_location >= 0) {
    const Location& at = locations_[static_cast<std::size_t>(me.polled_location)];
    // It saw an old value, and will see a newer one.
    if (me.polled_store < at.newest()) return;
  }
  Note("pauses");
  me.state = State::kPolling;
  Reschedule();
}

void Machine::SleepUntil(Time when) {
  Step();
  if (when <= now_) return;
  Note("sleeps");
  self().deadline = when;
  self().state = State::kSleeping;
  Reschedule();
}

void Machine::Park(const void* address, std::uint32_t expected, Time deadline) {
  const Location& at = Reach(address);
  parks_ += 1;
  const auto low = static_cast<std::uint32_t>(at.value(at.newest()));
  if (low != expected || deadline <= now_) {
    Note("park a%d, expecting %08x: does not sleep", IndexOf(at), expected);
    return;
  }
  Note("park a%d, expecting %08x: sleeps", IndexOf(at), expected);
  if (current_ == kMain) Fail("deadlock: there is nobody else");
  Thread& me = self();
  me.sleeps_at = address;
  me.deadline = deadline;
  me.state = State::kParked;
  Reschedule();
}

// Touches nothing: what was at `address` may be gone.
void Machine::UnparkAll(const void* address) {
  Step();
  Note("unpark all");
  unparks_ += 1;
  for (int i = 0; i < num_threads_; ++i) {
    Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.state == State::kParked && thread.sleeps_at == address) {
      thread.state = State::kReady;
    }
  }
}

void Machine::Print(const char* format, ...) const {
  std::printf("%4d %-4s  ", steps_, NameOf(current_));
  std::va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::printf("\n");
}

}  // namespace lockstep::explore
