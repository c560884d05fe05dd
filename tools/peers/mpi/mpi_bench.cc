// All-reduce over the ranks of one machine: lockstep's threads against MPI's processes, in
// alternating rounds of one run.
//
//   mpirun -n 2 lockstep_mpi_bench
//
// Every process takes part in MPI's rounds; in lockstep's, process 0 runs as many ranks while the
// others sleep. The third column is the zero-copy bound: the same threads, each reading its half of
// all inputs and writing its half of all outputs once, without meeting anybody.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "lockstep/collective/collective_barrier.h"
#include "lockstep/collective/reduce_tree.h"
#include "lockstep/tools/lockstep/bench/bench.h"
#include "lockstep/tools/lockstep/report.h"

namespace lockstep::tools {
namespace {

constexpr int kRounds = 7;

// One per rank. Both sides get the same memory: aligned to cache lines, in large pages where that
// pays.
using Buffers = std::vector<Tensor>;

Buffers MakeBuffers(int ranks, std::int64_t count) {
  static const Worker worker = *Worker::Adopt(0, 1, Device::Cpu());
  Buffers buffers;
  for (int rank = 0; rank < ranks; ++rank)
    buffers.push_back(*worker.Empty({count}, DType::kFloat32));
  return buffers;
}

// A barrier of sleeping processes: it takes no core from those being measured.
void SleepUntilAllAreHere() {
  MPI_Request request;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  for (int done = 0; done == 0;) {
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

double MeasureMpi(int repeats, const Tensor& in, const Tensor& out) {
  const auto sum = [&] {
    MPI_Allreduce(in.data<float>(), out.data<float>(), static_cast<int>(in.size()), MPI_FLOAT,
                  MPI_SUM, MPI_COMM_WORLD);
    return absl::OkStatus();
  };
  *TimeEach(5, sum);
  MPI_Barrier(MPI_COMM_WORLD);
  const double mine = *TimeEach(repeats, sum);
  double slowest = 0;
  MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return slowest;
}

// The slowest rank's microseconds of `work(rank)`.
double MeasureRanks(Executor& executor, CollectiveBarrier& barrier, int repeats,
                    const std::function<absl::Status(int)>& work) {
  std::vector<double> times(static_cast<std::size_t>(executor.world_size()));
  const absl::Status status = executor.Run([&](Worker& worker) -> absl::Status {
    const auto work_here = [&] { return work(worker.rank()); };
    LOCKSTEP_RETURN_IF_ERROR(TimeEach(5, work_here).status());
    LOCKSTEP_RETURN_IF_ERROR(barrier.communicator(worker.rank()).Barrier());
    LOCKSTEP_ASSIGN_OR_RETURN(times[worker.rank()], TimeEach(repeats, work_here));
    return absl::OkStatus();
  });
  LOCKSTEP_CHECK(status.ok());
  return *std::max_element(times.begin(), times.end());
}

double MeasureLockstep(Executor& executor, CollectiveBarrier& barrier, int repeats,
                       const Buffers& in, const Buffers& out) {
  return MeasureRanks(executor, barrier, repeats, [&](int rank) {
    return barrier.communicator(rank).AllReduce(in[rank], out[rank]);
  });
}

double MeasureBound(Executor& executor, CollectiveBarrier& barrier, int repeats, const Buffers& in,
                    const Buffers& out, bool streaming) {
  return MeasureRanks(executor, barrier, repeats, [&](int rank) {
    const auto ranks = static_cast<std::int64_t>(in.size());
    const std::int64_t begin = in[0].size() * rank / ranks;
    const std::int64_t end = in[0].size() * (rank + 1) / ranks;
    std::vector<const void*> inputs;
    std::vector<void*> outputs;
    for (const Tensor& tensor : in) inputs.push_back(tensor.data<float>() + begin);
    for (const Tensor& tensor : out) outputs.push_back(tensor.data<float>() + begin);
    internal::ReduceTree(DType::kFloat32, ReduceOp::kSum, inputs, outputs, end - begin, streaming);
    return absl::OkStatus();
  });
}

float InputAt(int rank, std::int64_t index) { return static_cast<float>(index % 13 + rank); }

bool AllRight(const Tensor& out, int ranks) {
  for (std::int64_t i = 0; i < out.size(); ++i) {
    float expected = 0;
    for (int rank = 0; rank < ranks; ++rank) expected += InputAt(rank, i);
    if (out.data<float>()[i] != expected) return false;
  }
  return true;
}

Buffers MakeInputs(int ranks, std::int64_t count) {
  Buffers in = MakeBuffers(ranks, count);
  for (int rank = 0; rank < ranks; ++rank) {
    for (std::int64_t i = 0; i < count; ++i) in[rank].data<float>()[i] = InputAt(rank, i);
  }
  return in;
}

// Adds a row to the report of process 0. Returns whether all results were right.
bool MeasureSize(std::int64_t bytes, int process, int ranks, Executor* executor,
                 CollectiveBarrier* barrier, Report* report) {
  const std::int64_t count = bytes / static_cast<std::int64_t>(sizeof(float));
  const int repeats = static_cast<int>(std::clamp(2e8 / static_cast<double>(bytes), 20.0, 20000.0));
  const Buffers in = MakeInputs(ranks, count);
  const Buffers out = MakeBuffers(ranks, count);
  std::vector<double> mpi;
  std::vector<double> ours;
  std::vector<double> bound;
  bool right = true;
  for (int round = 0; round < kRounds; ++round) {
    SleepUntilAllAreHere();
    mpi.push_back(MeasureMpi(repeats, in[process], out[process]));
    right = right && AllRight(out[process], ranks);
    if (process == 0) {
      for (const Tensor& tensor : out) std::fill_n(tensor.data<float>(), count, -1.0f);
      ours.push_back(MeasureLockstep(*executor, *barrier, repeats, in, out));
      for (const Tensor& tensor : out) right = right && AllRight(tensor, ranks);
      bound.push_back(
          std::min(MeasureBound(*executor, *barrier, repeats, in, out, /*streaming=*/false),
                   MeasureBound(*executor, *barrier, repeats, in, out, /*streaming=*/true)));
    }
    SleepUntilAllAreHere();
  }
  if (process == 0) {
    const double us = Summarize(ours).p50;
    report->Add({{"size_bytes", bytes},
                 {"mpi_us", Summarize(mpi).p50},
                 {"ours_us", us},
                 {"bound_us", Summarize(bound).p50},
                 {"mpi_over_ours", Summarize(mpi).p50 / us},
                 {"bound_over_ours", Summarize(bound).p50 / us},
                 {"right", right ? "right" : "WRONG"}});
  }
  return right;
}

bool MeasureAll(int process, int ranks) {
  std::unique_ptr<Executor> executor;
  std::unique_ptr<CollectiveBarrier> barrier;
  std::unique_ptr<Report> report;
  if (process == 0) {
    executor = *Executor::Create({.world_size = ranks});
    barrier = *CollectiveBarrier::Create(*executor);
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(version, &length);
    const std::string title = absl::StrCat("all_reduce, float32 sum, ", ranks, " ranks, median of ",
                                           kRounds, " alternating rounds");
    report.reset(new Report(/*json=*/false, title,
                            {{"size (B)", 12, "size_bytes"},
                             {"MPI (us)", 12, "mpi_us"},
                             {"ours (us)", 12, "ours_us"},
                             {"bound (us)", 12, "bound_us"},
                             {"MPI/ours", 10, "mpi_over_ours"},
                             {"bound/ours", 10, "bound_over_ours"},
                             {"", 6, "right"}},
                            {},
                            // MPICH tells all of its build.
                            {std::string(version, std::strcspn(version, "\n"))}));
  }
  bool right = true;
  for (std::int64_t bytes = 1024; bytes <= 16 << 20; bytes *= 4) {
    right =
        MeasureSize(bytes, process, ranks, executor.get(), barrier.get(), report.get()) && right;
  }
  return right;
}

}  // namespace
}  // namespace lockstep::tools

int main(int argc, char* argv[]) {
  MPI_Init(&argc, &argv);
  int process = 0;
  int ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &process);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const bool right = lockstep::tools::MeasureAll(process, ranks);
  MPI_Finalize();
  return right ? 0 : 1;
}
