#include "lockstep/tests/explore/choices.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>

namespace lockstep::explore {
namespace {

char Digit(int value) { return static_cast<char>(value < 10 ? '0' + value : 'a' + value - 10); }

[[noreturn]] void Die(const char* why) {
  std::fflush(stdout);
  std::fprintf(stderr, "explore: %s\n", why);
  // Not exit: this may be a fiber, which would be destroyed under its own feet.
  std::_Exit(2);
}

}  // namespace

std::string Bounds::Text() const {
  return "p" + std::to_string(preemptions) + "o" + std::to_string(oddities) + "l" +
         std::to_string(leaps);
}

Bounds Bounds::Parse(const std::string& text) {
  Bounds bounds;
  if (std::sscanf(text.c_str(), "p%do%dl%d", &bounds.preemptions, &bounds.oddities,
                  &bounds.leaps) != 3) {
    Die("bounds look like p3o1l0");
  }
  return bounds;
}

void Choices::Start(Mode mode, const Bounds& bounds) {
  mode_ = mode;
  bounds_ = bounds;
  path_.clear();
  turns_ = 0;
  longest_ = 32;
}

void Choices::SearchDepthFirst(const Bounds& bounds) { Start(Mode::kDepthFirst, bounds); }

void Choices::SearchRandomly(const Bounds& bounds, std::uint64_t seed) {
  Start(Mode::kRandom, bounds);
  random_ = seed;
}

void Choices::Replay(const Bounds& bounds, const std::string& code) {
  Start(Mode::kReplay, bounds);
  for (const char c : code) {
    if (c >= 'A' && c <= 'Z') {
      path_.insert(path_.end(), static_cast<std::size_t>(c - 'A' + 1), Choice{0, 0});
    } else {
      const int taken = c <= '9' ? c - '0' : c - 'a' + 10;
      path_.push_back({static_cast<std::uint8_t>(taken), 0});
    }
  }
}

void Choices::Begin() {
  left_ = bounds_;
  at_ = 0;
  if (mode_ != Mode::kRandom) return;
  path_.clear();
  std::iota(priority_.begin(), priority_.end(), 1);
  for (std::size_t i = priority_.size(); i > 1; --i) {
    std::swap(priority_[i - 1], priority_[Random(i)]);
  }
  longest_ = std::max(longest_, turns_);
  turns_ = 0;
  for (std::uint64_t& change : changes_) change = Random(longest_);
}

bool Choices::Next() {
  if (mode_ != Mode::kDepthFirst) return mode_ == Mode::kRandom;
  while (!path_.empty() && path_.back().taken + 1 == path_.back().count) path_.pop_back();
  if (path_.empty()) return false;
  path_.back().taken += 1;
  return true;
}

int Choices::Decide(int count, int fresh) {
  if (count == 1) return 0;
  if (at_ == path_.size()) {
    path_.push_back({static_cast<std::uint8_t>(fresh), static_cast<std::uint8_t>(count)});
  }
  Choice& choice = path_[at_++];
  if (choice.count == 0) choice.count = static_cast<std::uint8_t>(count);
  if (choice.count != count || choice.taken >= count) {
    Die("an execution went another way than when it was recorded");
  }
  return choice.taken;
}

Turn Choices::PickTurn(const std::vector<Turn>& turns) {
  const int fresh = mode_ == Mode::kRandom && turns.size() > 1 ? RandomTurn(turns) : 0;
  const Turn turn = turns[static_cast<std::size_t>(Decide(static_cast<int>(turns.size()), fresh))];
  using Price = Turn::Price;
  left_.preemptions -= turn.price == Price::kPreemption || turn.price == Price::kPoll ? 1 : 0;
  left_.oddities -= turn.price == Price::kWake ? 1 : 0;
  left_.leaps -= turn.price == Price::kLeap ? 1 : 0;
  return turn;
}

int Choices::Pick(int count) {
  const bool random = mode_ == Mode::kRandom;
  return Decide(count, random ? static_cast<int>(Random(static_cast<std::uint64_t>(count))) : 0);
}

int Choices::PickOddity(int count) {
  if (count == 1 || left_.oddities == 0) return 0;
  int fresh = 0;
  if (mode_ == Mode::kRandom && Random(4) == 0) {
    fresh = static_cast<int>(Random(static_cast<std::uint64_t>(count)));
  }
  const int odd = Decide(count, fresh);
  left_.oddities -= odd != 0 ? 1 : 0;
  return odd;
}

int Choices::RandomTurn(const std::vector<Turn>& turns) {
  turns_ += 1;
  if (Random(32) == 0) return static_cast<int>(Random(turns.size()));
  // The thread that runs is the first of the turns, if it can go on.
  if (std::find(changes_.begin(), changes_.end(), turns_) != changes_.end()) {
    priority_[static_cast<std::size_t>(turns[0].thread)] = -static_cast<int>(turns_);
  }
  int best = 0;
  for (int i = 1; i < static_cast<int>(turns.size()); ++i) {
    const Turn& turn = turns[static_cast<std::size_t>(i)];
    if (turn.price > Turn::Price::kPreemption) continue;
    if (priority_[static_cast<std::size_t>(turn.thread)] >
        priority_[static_cast<std::size_t>(turns[static_cast<std::size_t>(best)].thread)]) {
      best = i;
    }
  }
  return best;
}

// splitmix64
std::uint64_t Choices::Random(std::uint64_t below) {
  random_ += 0x9e3779b97f4a7c15u;
  std::uint64_t z = random_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % below;
}

std::string Choices::Code() const {
  std::string code;
  int zeros = 0;
  for (std::size_t i = 0; i < at_; ++i) {
    if (path_[i].taken == 0) {
      ++zeros;
      continue;
    }
    for (; zeros > 0; zeros -= std::min(zeros, 26)) {
      code += static_cast<char>('A' + std::min(zeros, 26) - 1);
    }
    code += Digit(path_[i].taken);
  }
  return code;
}

std::uint64_t Choices::Hash() const {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (std::size_t i = 0; i < at_; ++i) hash = (hash ^ path_[i].taken) * 0x100000001b3u;
  return hash;
}

}  // namespace lockstep::explore
