#include "lockstep/tests/explore/barrier_group.h"

namespace lockstep::explore {

Word::Verdict Group::Meet(int rank, int round, nanoseconds timeout, std::uint32_t epoch) {
  Machine& machine = TheMachine();
  machine.Note("comes to round %d", round);
  brought_[Index(round & 1)][Index(rank)].Write(round + 1);
  rounds_[Index(round)].came += 1;
  const auto agree = [&] {
    const bool agrees = Agree(round);
    machine.Note(agrees ? "agrees" : "disagrees");
    if (!agrees) Diagnose(rank);
    return agrees;
  };
  const Time deadline = machine.Now() + timeout;
  const auto explain = [&](Word::Reason reason) {
    const bool timed_out = reason == Word::Reason::kTimeout;
    machine.Note(timed_out ? "explains: time-out" : "explains: departed");
    machine.Check(timed_out ? machine.Now() >= deadline : somebody_departs_, "the wrong reason");
    Diagnose(rank);
  };
  const Word::Outcome outcome =
      word_.Meet(rank, epoch, timeout, patience_[Index(rank)], agree, explain);
  machine.Note("verdict %d, culprit %d", static_cast<int>(outcome.verdict), outcome.culprit);
  Judge(outcome, round);
  return outcome.verdict;
}

void Group::Depart() {
  somebody_departs_ = true;
  word_.Depart();
}

bool Group::Agree(int round) {
  for (int rank = 0; rank < world_size_; ++rank) {
    TheMachine().Check(brought_[Index(round & 1)][Index(rank)].Read() == round + 1,
                       "asked to agree before all have come");
  }
  return round < disagree_from_;
}

void Group::Judge(const Word::Outcome& outcome, int round_number) {
  Machine& machine = TheMachine();
  Round& round = rounds_[Index(round_number)];
  const bool completed = outcome.verdict == Word::Verdict::kCompleted;
  machine.Check(round.verdict == 0 || completed == (round.verdict == 1),
                "one round, and two verdicts");
  round.last += outcome.last ? 1 : 0;
  machine.Check(round.last <= 1, "two ranks came last");
  if (completed) {
    machine.Check(round.came == world_size_, "a rank leaves before all have come");
    machine.Check(outcome.arrived, "a round is completed without its ranks");
    machine.Check(Agree(round_number) || true, "");
    round.verdict = 1;
  } else if (outcome.verdict == Word::Verdict::kStale) {
    round.verdict = 3;
  } else {
    machine.Check(outcome.culprit >= 0 && outcome.culprit <= world_size_, "there is no such rank");
    machine.Check(round.culprit < 0 || round.culprit == outcome.culprit, "two culprits");
    machine.Check(diagnosis_[Index(outcome.culprit)].Read() == outcome.culprit + 1,
                  "the culprit has left no diagnosis");
    round.culprit = outcome.culprit;
    if (round.verdict == 0) round.verdict = 2;
  }
}

void Group::CheckHealth() {
  const int culprit = word_.health().culprit;
  if (culprit < 0) return;
  TheMachine().Check(culprit <= world_size_, "there is no such rank");
  TheMachine().Check(diagnosis_[Index(culprit)].Read() == culprit + 1,
                     "the culprit has left no diagnosis");
}

int Group::Outcome(int num_rounds) const {
  int digits = 0;
  for (int round = 0; round < num_rounds; ++round) {
    const Round& ended = rounds_[Index(round)];
    TheMachine().Check(ended.verdict != 1 || ended.last == 1, "nobody came last");
    digits = digits * 10 + ended.verdict;
  }
  return digits;
}

}  // namespace lockstep::explore
