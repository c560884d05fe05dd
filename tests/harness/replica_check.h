// Tensors that must be the same on every rank, and the first operation after which they are not.
#ifndef LOCKSTEP_TESTS_HARNESS_REPLICA_CHECK_H_
#define LOCKSTEP_TESTS_HARNESS_REPLICA_CHECK_H_

#include <string>
#include <vector>

#include "lockstep/collective/communicator.h"
#include "lockstep/runtime/worker.h"

namespace lockstep::testing {

/// A rank's record of replicated tensors, used by its thread alone; `worker` must outlive it:
///
///   lockstep::testing::ReplicaCheck replicas(worker);
///   LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, down.Forward(h));
///   LOCKSTEP_RETURN_IF_ERROR(replicas.Note("down.Forward", y));
///   ...
///   LOCKSTEP_RETURN_IF_ERROR(replicas.Compare(comm));   // on every rank, at the end
class ReplicaCheck {
 public:
  explicit ReplicaCheck(Worker& worker) : worker_(worker) {}

  /// Records a hash of the tensor's bits, under the name of the operation that made it. The tensor
  /// may be strided. Waits for the worker's stream. kInvalidArgument: it cannot be read.
  absl::Status Note(absl::string_view operation, const Tensor& tensor);

  /// A collective: OK if all ranks have noted the same operations, types, shapes and bits, in the
  /// same order. kInternal, with the same text on every rank but for names: the first record that
  /// differs, and which ranks agree with each other; or, where all else agrees, that some ranks
  /// noted more.
  absl::Status Compare(Communicator& comm) const;

 private:
  struct Record {
    std::string operation;
    std::string tensor;
    std::int64_t name_hash;
    std::int64_t bits_hash;
  };

  Worker& worker_;
  std::vector<Record> records_;
};

}  // namespace lockstep::testing

#endif  // LOCKSTEP_TESTS_HARNESS_REPLICA_CHECK_H_
