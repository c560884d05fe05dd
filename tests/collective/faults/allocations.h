// Counts what operator new is asked for, on all threads, and lets it fail. For a program of its
// own: linking this replaces operator new.
#ifndef LOCKSTEP_TESTS_COLLECTIVE_FAULTS_ALLOCATIONS_H_
#define LOCKSTEP_TESTS_COLLECTIVE_FAULTS_ALLOCATIONS_H_

namespace lockstep::testing {

/// More than any attempt makes.
inline constexpr int kMaxAllocations = 1000;

/// Begins to count. The allocations from number `from` to number `to`, counted from 1, throw
/// std::bad_alloc.
void Arm(int from, int to);

/// Stops counting. Returns whether one failed.
bool Disarm();

/// The number of allocations between Arm() and Disarm().
int NumAllocations();

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_COLLECTIVE_FAULTS_ALLOCATIONS_H_
