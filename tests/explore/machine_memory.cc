#include <algorithm>

#include "lockstep/tests/explore/machine.h"

namespace lockstep::explore {
namespace {

// So far back a load may look: what fits one character of a replay string.
constexpr int kMaxSeen = 32;

bool Acquires(std::memory_order order) {
  return order != std::memory_order_relaxed && order != std::memory_order_release;
}
bool Releases(std::memory_order order) {
  return order == std::memory_order_release || order == std::memory_order_acq_rel ||
         order == std::memory_order_seq_cst;
}

const char* NameOf(std::memory_order order) {
  switch (order) {
    case std::memory_order_relaxed:
      return "relaxed";
    case std::memory_order_consume:
      return "consume";
    case std::memory_order_acquire:
      return "acquire";
    case std::memory_order_release:
      return "release";
    case std::memory_order_acq_rel:
      return "acq_rel";
    case std::memory_order_seq_cst:
      return "seq_cst";
  }
  return "?";
}

}  // namespace

void Machine::Create(const void* address, std::uint64_t value) {
  Check(num_locations_ < kMaxLocations, "too many atomics: raise kMaxLocations");
  Location& at = locations_[static_cast<std::size_t>(num_locations_++)];
  at.address = address;
  at.alive = true;
  at.sequential = 0;
  at.history = AccessHistory();
  // Not synchronised: who uses it must know of it otherwise.
  Access(at.history, /*write=*/true);
  at.stores.assign(1, {value, Knowledge()});
}

void Machine::Destroy(const void* address) {
  Location* at = Find(address);
  if (failed() || at == nullptr) return;
  at->alive = false;
  Note("destroy a%d", IndexOf(*at));
  const bool ordered = at->history.Write(current_, self().knows);
  if (!ordered && current_ != kMain) Fail("an atomic is destroyed that others may still use");
}

void Machine::Access(AccessHistory& history, bool write) {
  const Knowledge& knows = self().knows;
  const bool ordered = write ? history.Write(current_, knows) : history.Read(current_, knows);
  if (!ordered) Fail(write ? "data race: a write" : "data race: a read");
}

// The newest at this address.
Machine::Location* Machine::Find(const void* address) {
  for (int i = num_locations_ - 1; i >= 0; --i) {
    Location& at = locations_[static_cast<std::size_t>(i)];
    if (at.address == address) return &at;
  }
  return nullptr;
}

Machine::Location& Machine::Reach(const void* address) {
  Step();
  Location* at = Find(address);
  if (at == nullptr || !at->alive) Fail("an atomic is used after its end");
  if (!at->history.Read(current_, self().knows)) Fail("data race: an atomic is used while made");
  return *at;
}

// The running thread has seen that store.
void Machine::Observe(Location& at, int store, std::memory_order order) {
  Thread& me = self();
  auto& known = me.knows.store(IndexOf(at));
  known = std::max(known, static_cast<std::int16_t>(store));
  if (Acquires(order)) me.knows.Learn(at.stores[static_cast<std::size_t>(store)].released);
  if (order == std::memory_order_seq_cst) at.sequential = std::max(at.sequential, store);
  me.polled_location = IndexOf(at);
  me.polled_store = store;
}

// `continues`: a read-modify-write passes on what the store before it released.
void Machine::Append(Location& at, std::uint64_t value, std::memory_order order, bool continues) {
  Thread& me = self();
  const int store = static_cast<int>(at.stores.size());
  me.knows.store(IndexOf(at)) = static_cast<std::int16_t>(store);
  StoredValue stored{value, Releases(order) ? me.knows : Knowledge()};
  if (continues) stored.released.Learn(at.stores.back().released);
  at.stores.push_back(stored);
  // What it does next is not released yet.
  me.knows.step(current_) += 1;
  if (order == std::memory_order_seq_cst) at.sequential = store;
  for (int i = 0; i < num_threads_; ++i) {
    Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.state == State::kPolling && thread.polled_location == IndexOf(at)) {
      thread.state = State::kReady;
    }
  }
}

void Machine::Replace(Location& at, std::uint64_t value, std::memory_order order,
                      const char* what) {
  const int before = at.newest();
  Observe(at, before, order);
  Append(at, value, order, /*continues=*/true);
  NoteAccess(what, order, at, before + 1);
}

std::uint64_t Machine::Load(const void* address, std::memory_order order) {
  Location& at = Reach(address);
  const int newest = at.newest();
  int oldest = self().knows.store(IndexOf(at));
  if (order == std::memory_order_seq_cst) oldest = std::max(oldest, at.sequential);
  const int store = newest - choices_.PickOddity(std::min(newest - oldest + 1, kMaxSeen));
  Observe(at, store, order);
  NoteAccess("load", order, at, store);
  return at.value(store);
}

void Machine::Store(const void* address, std::uint64_t value, std::memory_order order) {
  Location& at = Reach(address);
  Append(at, value, order, /*continues=*/false);
  NoteAccess("store", order, at, at.newest());
}

bool Machine::CompareExchange(const void* address, std::uint64_t& expected, std::uint64_t desired,
                              bool weak, std::memory_order success, std::memory_order failure) {
  Location& at = Reach(address);
  const int newest = at.newest();
  // One that fails is a load, and may see an older value that differs; the weak one may fail
  // without a difference too.
  std::array<int, kMaxSeen> seen{newest};
  int count = 1;
  const bool equal = at.value(newest) == expected;
  if (choices_.left().oddities > 0) {
    if (weak && equal) seen[static_cast<std::size_t>(count++)] = newest;
    const int oldest = self().knows.store(IndexOf(at));
    for (int store = newest - 1; store >= oldest && count < kMaxSeen; --store) {
      if (at.value(store) == expected) continue;
      seen[static_cast<std::size_t>(count++)] = store;
    }
  }
  const int odd = choices_.PickOddity(count);
  if (odd == 0 && equal) {
    Replace(at, desired, success, "compare-exchange");
    return true;
  }
  const int store = seen[static_cast<std::size_t>(odd)];
  Observe(at, store, failure);
  NoteAccess("compare-exchange fails", failure, at, store);
  expected = at.value(store);
  return false;
}

void Machine::NoteAccess(const char* what, std::memory_order order, const Location& at,
                         int store) const {
  if (!tracing_) return;
  const std::uint64_t value = at.value(store);
  Print("%s %s a%d: %08x'%08x%s", what, NameOf(order), IndexOf(at),
        static_cast<unsigned>(value >> 32), static_cast<unsigned>(value),
        store == at.newest() ? "" : ", which is old");
}

}  // namespace lockstep::explore
