// The simulated memory itself: small programs whose outcomes the C++ standard determines.
#include <array>

#include "lockstep/tests/explore/scenario.h"
#include "lockstep/tests/explore/simulated_platform.h"

namespace lockstep::explore {
namespace {

using Atomic = SimulatedAtomic<int>;
using Order = std::memory_order;
constexpr Order kRelaxed = Order::relaxed;
constexpr Order kAcquire = Order::acquire;
constexpr Order kRelease = Order::release;
constexpr Order kAcqRel = Order::acq_rel;
constexpr Order kSeqCst = Order::seq_cst;

// Runs one function per thread.
template <typename... Threads>
void Together(Threads... threads) {
  TheMachine().Run(sizeof...(threads), 0, [&](int thread) {
    int i = 0;
    ((i++ == thread ? threads() : void()), ...);
  });
}

// What was read, a digit each.
int Digits(std::initializer_list<int> read) {
  int digits = 0;
  for (const int digit : read) digits = digits * 10 + digit;
  return digits;
}

// Message passing of plain data, read only if the flag says so.
template <Order kStore, Order kLoad>
int PassMessage(int) {
  Plain<int> data;
  Atomic flag(0);
  int seen = 0;
  Together(
      [&] {
        data.Write(1);
        flag.store(1, kStore);
      },
      [&] {
        if (flag.load(kLoad) == 1) seen = data.Read();
      });
  return seen;
}

// Message passing of atomic data: the flag, then the data.
template <Order kStore, Order kLoad>
int PassAtomicMessage(int) {
  Atomic data(0), flag(0);
  int f = 0, d = 0;
  Together(
      [&] {
        data.store(1, kRelaxed);
        flag.store(1, kStore);
      },
      [&] {
        f = flag.load(kLoad);
        d = data.load(kRelaxed);
      });
  return Digits({f, d});
}

// Store buffering: each stores to one place and loads the other's.
template <Order kStore, Order kLoad>
int BufferStores(int) {
  Atomic x(0), y(0);
  int a = 0, b = 0;
  Together(
      [&] {
        x.store(1, kStore);
        a = y.load(kLoad);
      },
      [&] {
        y.store(1, kStore);
        b = x.load(kLoad);
      });
  return Digits({a, b});
}

// Load buffering: each loads from one place and stores to the other's.
int BufferLoads(int) {
  Atomic x(0), y(0);
  int a = 0, b = 0;
  Together(
      [&] {
        a = x.load(kRelaxed);
        y.store(1, kRelaxed);
      },
      [&] {
        b = y.load(kRelaxed);
        x.store(1, kRelaxed);
      });
  return Digits({a, b});
}

// Independent reads of independent writes: do two readers see them in the same order? Whether each
// reader saw the one without the other: 1 x alone by the first, 2 y alone by the second, 3 both.
template <Order kStore, Order kLoad>
int ReadIndependently(int) {
  Atomic x(0), y(0);
  int a = 0, b = 0, c = 0, d = 0;
  Together([&] { x.store(1, kStore); }, [&] { y.store(1, kStore); },
           [&] {
             a = x.load(kLoad);
             b = y.load(kLoad);
           },
           [&] {
             c = y.load(kLoad);
             d = x.load(kLoad);
           });
  return (a == 1 && b == 0 ? 1 : 0) + (c == 1 && d == 0 ? 2 : 0);
}

// Write to read causality: does a message that was passed on carry what came before?
template <Order kPassOn>
int PassOn(int) {
  Atomic x(0), y(0);
  int a = 0, b = 0, c = 0;
  Together([&] { x.store(1, kRelease); },
           [&] {
             a = x.load(kAcquire);
             y.store(1, kPassOn);
           },
           [&] {
             b = y.load(kAcquire);
             c = x.load(kRelaxed);
           });
  return Digits({a, b, c});
}

// Coherence: two loads of one place never see it go back.
int ReadTwice(int) {
  Atomic x(0);
  int a = 0, b = 0;
  Together(
      [&] {
        x.store(1, kRelaxed);
        x.store(2, kRelaxed);
      },
      [&] {
        a = x.load(kRelaxed);
        b = x.load(kRelaxed);
      });
  return Digits({a, b});
}

// Two threads store to two places in opposite order: what stays there?
int StoreTwice(int) {
  Atomic x(0), y(0);
  Together(
      [&] {
        x.store(1, kRelaxed);
        y.store(2, kRelaxed);
      },
      [&] {
        y.store(1, kRelaxed);
        x.store(2, kRelaxed);
      });
  return Digits({x.load(kRelaxed), y.load(kRelaxed)});
}

// A read-modify-write between a release and an acquire passes the message on, whatever its order.
int ModifyBetween(int) {
  Plain<int> data;
  Atomic flag(0);
  int seen = 0;
  Together(
      [&] {
        data.Write(1);
        flag.store(1, kRelease);
      },
      [&] { flag.fetch_add(1, kRelaxed); },
      [&] {
        if (flag.load(kAcquire) == 2) seen = data.Read();
      });
  return seen;
}

// A plain store between them does not, even of the thread that released.
int StoreBetween(int) {
  Plain<int> data;
  Atomic flag(0);
  Together(
      [&] {
        data.Write(1);
        flag.store(1, kRelease);
        flag.store(2, kRelaxed);
      },
      [&] {
        if (flag.load(kAcquire) == 2) data.Read();
      });
  return 0;
}

int CountTogether(int) {
  Atomic counter(0);
  int a = 0, b = 0;
  Together([&] { a = counter.fetch_add(1, kRelaxed); },
           [&] { b = counter.fetch_add(1, kRelaxed); });
  return Digits({counter.load(kRelaxed), a, b});
}

// Which of two exchanges from 0 succeeded; 0 if a weak one failed for no reason.
template <bool kWeak>
int ExchangeTogether(int) {
  Atomic word(0);
  const auto exchange = [&](int desired) {
    int expected = 0;
    kWeak ? word.compare_exchange_weak(expected, desired, kAcqRel, kAcquire)
          : word.compare_exchange_strong(expected, desired, kAcqRel, kAcquire);
  };
  Together([&] { exchange(1); }, [&] { exchange(2); });
  return word.load(kRelaxed);
}

}  // namespace

std::vector<Scenario> LitmusTests() {
  const std::vector<Search> all = {{0, {9, 9, 0}}};
  return {
      {"litmus/message/relaxed", PassMessage<kRelaxed, kAcquire>, {}, all, "data race"},
      {"litmus/message/not_acquired", PassMessage<kRelease, kRelaxed>, {}, all, "data race"},
      {"litmus/message", PassMessage<kRelease, kAcquire>, {0, 1}, all},
      {"litmus/atomic_message", PassAtomicMessage<kRelease, kAcquire>, {0, 1, 11}, all},
      {"litmus/atomic_message/relaxed", PassAtomicMessage<kRelaxed, kAcquire>, {0, 1, 10, 11}, all},
      {"litmus/store_buffering", BufferStores<kRelease, kAcquire>, {0, 1, 10, 11}, all},
      {"litmus/store_buffering/mixed", BufferStores<kSeqCst, kAcquire>, {0, 1, 10, 11}, all},
      {"litmus/store_buffering/seq_cst", BufferStores<kSeqCst, kSeqCst>, {1, 10, 11}, all},
      {"litmus/independent_reads", ReadIndependently<kRelease, kAcquire>, {0, 1, 2, 3}, all},
      {"litmus/independent_reads/seq_cst", ReadIndependently<kSeqCst, kSeqCst>, {0, 1, 2}, all},
      {"litmus/passed_on", PassOn<kRelease>, {0, 1, 10, 11, 100, 101, 111}, all},
      {"litmus/passed_on/relaxed", PassOn<kRelaxed>, {0, 1, 10, 11, 100, 101, 110, 111}, all},
      {"litmus/coherence", ReadTwice, {0, 1, 2, 11, 12, 22}, all},
      {"litmus/release_sequence", ModifyBetween, {0, 1}, all},
      {"litmus/release_sequence/ended_by_store", StoreBetween, {}, all, "data race"},
      {"litmus/counter", CountTogether, {201, 210}, all},
      {"litmus/exchange", ExchangeTogether<false>, {1, 2}, all},
      {"litmus/exchange/weak", ExchangeTogether<true>, {0, 1, 2}, all},
      // What the standard allows and the machine does not show: 11 here, and 11 there.
      {"litmus/limits/load_buffering", BufferLoads, {0, 1, 10}, all},
      {"litmus/limits/two_stores", StoreTwice, {12, 21, 22}, all},
  };
}

}  // namespace lockstep::explore
