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
#include <cstdio>
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

using Clock = std::chrono::steady_clock;
// Both sides get the same memory: aligned to cache lines, in large pages where that pays.
struct Buffer {
  std::shared_ptr<void> memory;
  std::size_t count;
  float* data() const { return static_cast<float*>(memory.get()); }
  std::size_t size() const { return count; }
};
using Buffers = std::vector<Buffer>;

Buffers MakeBuffers(int ranks, std::size_t count) {
  static const std::shared_ptr<MemoryPool> pool = *MemoryPool::Create(Stream());
  Buffers buffers;
  for (int rank = 0; rank < ranks; ++rank) {
    buffers.push_back({*pool->Allocate(static_cast<std::int64_t>(count * sizeof(float))), count});
  }
  return buffers;
}

constexpr int kRounds = 7;

double MicrosecondsEach(Clock::time_point start, int repeats) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count() / repeats;
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

double MeasureMpi(int count, int repeats, const Buffer& in, const Buffer& out) {
  for (int i = 0; i < 5; ++i)
    MPI_Allreduce(in.data(), out.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Barrier(MPI_COMM_WORLD);
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < repeats; ++i)
    MPI_Allreduce(in.data(), out.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  double mine = MicrosecondsEach(start, repeats);
  double slowest = 0;
  MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return slowest;
}

// The slowest rank's microseconds of `work(rank)`.
double MeasureRanks(Executor& executor, CollectiveBarrier& barrier, int repeats,
                    const std::function<absl::Status(int)>& work) {
  std::vector<double> times(static_cast<std::size_t>(executor.world_size()));
  const absl::Status status = executor.Run([&](Worker& worker) -> absl::Status {
    for (int i = 0; i < 5; ++i) LOCKSTEP_RETURN_IF_ERROR(work(worker.rank()));
    LOCKSTEP_RETURN_IF_ERROR(barrier.communicator(worker.rank()).Barrier());
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < repeats; ++i) LOCKSTEP_RETURN_IF_ERROR(work(worker.rank()));
    times[worker.rank()] = MicrosecondsEach(start, repeats);
    return absl::OkStatus();
  });
  LOCKSTEP_CHECK(status.ok());
  return *std::max_element(times.begin(), times.end());
}

double MeasureLockstep(Executor& executor, CollectiveBarrier& barrier, int repeats, Buffers& in,
                       Buffers& out) {
  return MeasureRanks(executor, barrier, repeats, [&](int rank) {
    const auto r = static_cast<std::size_t>(rank);
    const auto count = static_cast<std::int64_t>(in[r].size());
    return barrier.communicator(rank).AllReduce(
        Tensor::View(in[r].data(), {count}, DType::kFloat32),
        Tensor::View(out[r].data(), {count}, DType::kFloat32));
  });
}

double MeasureBound(Executor& executor, CollectiveBarrier& barrier, int repeats, Buffers& in,
                    Buffers& out, bool streaming) {
  return MeasureRanks(executor, barrier, repeats, [&](int rank) {
    const auto ranks = static_cast<std::int64_t>(in.size());
    const auto count = static_cast<std::int64_t>(in[0].size());
    const std::int64_t begin = count * rank / ranks;
    const std::int64_t end = count * (rank + 1) / ranks;
    std::vector<const void*> inputs;
    std::vector<void*> outputs;
    for (const Buffer& buffer : in) inputs.push_back(buffer.data() + begin);
    for (const Buffer& buffer : out) outputs.push_back(buffer.data() + begin);
    internal::ReduceTree(DType::kFloat32, ReduceOp::kSum, inputs, outputs, end - begin, streaming);
    return absl::OkStatus();
  });
}

bool AllRight(const Buffer& out, int ranks) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    float expected = 0;
    for (int rank = 0; rank < ranks; ++rank)
      expected += static_cast<float>(i % 13 + static_cast<std::size_t>(rank));
    if (out.data()[i] != expected) return false;
  }
  return true;
}

Buffers MakeInputs(int ranks, std::size_t count) {
  Buffers in = MakeBuffers(ranks, count);
  for (std::size_t rank = 0; rank < in.size(); ++rank) {
    for (std::size_t i = 0; i < count; ++i) in[rank].data()[i] = static_cast<float>(i % 13 + rank);
  }
  return in;
}

// One line of the table. Returns whether all results were right.
bool MeasureSize(std::size_t bytes, int process, int ranks, Executor* executor,
                 CollectiveBarrier* barrier) {
  const std::size_t count = bytes / sizeof(float);
  const int repeats = static_cast<int>(std::clamp(2e8 / static_cast<double>(bytes), 20.0, 20000.0));
  Buffers in = MakeInputs(ranks, count);
  Buffers out = MakeBuffers(ranks, count);
  std::vector<double> mpi;
  std::vector<double> ours;
  std::vector<double> bound;
  bool right = true;
  for (int round = 0; round < kRounds; ++round) {
    const auto mine = static_cast<std::size_t>(process);
    SleepUntilAllAreHere();
    mpi.push_back(MeasureMpi(static_cast<int>(count), repeats, in[mine], out[mine]));
    right = right && AllRight(out[mine], ranks);
    if (process == 0) {
      for (const Buffer& buffer : out) std::fill_n(buffer.data(), count, -1.0f);
      ours.push_back(MeasureLockstep(*executor, *barrier, repeats, in, out));
      for (const Buffer& buffer : out) right = right && AllRight(buffer, ranks);
      bound.push_back(
          std::min(MeasureBound(*executor, *barrier, repeats, in, out, /*streaming=*/false),
                   MeasureBound(*executor, *barrier, repeats, in, out, /*streaming=*/true)));
    }
    SleepUntilAllAreHere();
  }
  if (process == 0) {
    const double us = Summarize(ours).p50;
    std::printf("%12zu %12.2f %12.2f %12.2f %10.2f %10.2f  %s\n", bytes, Summarize(mpi).p50, us,
                Summarize(bound).p50, Summarize(mpi).p50 / us, Summarize(bound).p50 / us,
                right ? "right" : "WRONG");
    std::fflush(stdout);
  }
  return right;
}

bool MeasureAll(int process, int ranks) {
  std::unique_ptr<Executor> executor;
  std::unique_ptr<CollectiveBarrier> barrier;
  if (process == 0) {
    executor = *Executor::Create({.world_size = ranks});
    barrier = *CollectiveBarrier::Create(*executor);
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(version, &length);
    std::printf(
        "# all_reduce, float32 sum, %d ranks, median of %d alternating rounds\n# %s\n# %s\n", ranks,
        kRounds, MachineLine().c_str(),
        std::string(version, std::strcspn(version, "\n")).c_str());  // MPICH tells all of its build
    std::printf("#%11s %12s %12s %12s %10s %10s\n", "size (B)", "MPI (us)", "ours (us)",
                "bound (us)", "MPI/ours", "bound/ours");
  }
  bool right = true;
  for (std::size_t bytes = 1024; bytes <= (std::size_t{16} << 20); bytes *= 4) {
    right = MeasureSize(bytes, process, ranks, executor.get(), barrier.get()) && right;
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
