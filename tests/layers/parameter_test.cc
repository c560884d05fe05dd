#include "lockstep/layers/parameter.h"

#include <cmath>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

struct Sharding {
  Shape shape;
  int axis;
};

const Sharding kShardings[] = {{{7}, 0},       {{5}, Parameter::kReplicated},
                               {{6, 5}, 0},    {{6, 5}, 1},
                               {{3, 8}, 1},    {{2, 3, 5}, 1},
                               {{2, 3, 5}, 2}, {{2, 3, 5}, Parameter::kReplicated},
                               {{0, 4}, 0},    {{4, 0}, 0}};

// What every rank gathers after `start`, which gives the parameter its value.
absl::StatusOr<std::vector<Array>> GatherAfter(
    Ranks& group, const Sharding& sharding, DType dtype,
    const std::function<absl::Status(Worker&, const Parameter&)>& start) {
  std::vector<Array> gathered(static_cast<std::size_t>(group.world_size()));
  const absl::Status status = group.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto parameter, Parameter::Create(worker, comm, "p", sharding.shape, sharding.axis, dtype));
    LOCKSTEP_RETURN_IF_ERROR(start(worker, parameter));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, parameter.GatherFull(worker, comm));
    LOCKSTEP_ASSIGN_OR_RETURN(gathered[worker.rank()], ToArray(worker, full));
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return gathered;
}

absl::StatusOr<Worker> LoneWorker() { return Worker::Adopt(0, 1, Device::Cpu()); }

}  // namespace

TEST_CASE("A rank that does not exist has an empty shard") {
  constexpr Shard kNothing{.begin = 0, .length = 0};
  CHECK(Shard::Of(10, 0, 0) == kNothing);
  CHECK(Shard::Of(10, 3, 3) == kNothing);
  CHECK(Shard::Of(10, -1, 3) == kNothing);
}

TEST_CASE("Shards cover an axis in rank order and differ by at most one element") {
  for (int world_size = 1; world_size <= 9; ++world_size) {
    for (const std::int64_t total : {0, 1, 2, 7, 8, 9, 1000}) {
      std::int64_t end = 0;
      for (int rank = 0; rank < world_size; ++rank) {
        const Shard shard = Shard::Of(total, rank, world_size);
        REQUIRE(shard.begin == end);
        REQUIRE(shard.length == total / world_size + (rank < total % world_size ? 1 : 0));
        end += shard.length;
      }
      REQUIRE(end == total);
    }
  }
}

TEST_CASE("A loaded parameter gathers to what was loaded, at every world size, axis and type",
          "[gpu]") {
  const int world_size = GENERATE(range(1, 9));
  auto group = CreateRanks(world_size);
  REQUIRE_OK(group);
  for (const DType dtype : kFloatingTypes) {
    for (const Sharding& sharding : kShardings) {
      // Eighths are exact in every type.
      Array full = Array::Constant(sharding.shape, 0.0);
      for (std::size_t i = 0; i < full.values.size(); ++i) {
        full.values[i] = static_cast<double>(i) / 8 - 2;
      }
      const auto load = [&](Worker& worker, const Parameter& parameter) -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, ToTensor(worker, full, dtype));
        return parameter.LoadFull(worker, tensor);
      };
      const auto gathered = GatherAfter(*group, sharding, dtype, load);
      REQUIRE_OK(gathered);
      for (const Array& one : *gathered) REQUIRE(SameBits(one, full));
    }
  }
}

TEST_CASE("A parameter starts with the same full value at every world size", "[gpu]") {
  const int world_size = GENERATE(range(1, 9));
  auto alone = CreateRanks(1);
  auto group = CreateRanks(world_size);
  REQUIRE_OK(alone);
  REQUIRE_OK(group);
  const auto draw = [](Worker& worker, const Parameter& parameter) {
    return parameter.InitializeUniform(worker, 17, 0.5F);
  };
  for (const DType dtype : kFloatingTypes) {
    for (const Sharding& sharding : kShardings) {
      const auto expected = GatherAfter(*alone, sharding, dtype, draw);
      const auto gathered = GatherAfter(*group, sharding, dtype, draw);
      REQUIRE_OK(expected);
      REQUIRE_OK(gathered);
      for (const Array& one : *gathered) REQUIRE(SameBits(one, expected->front()));
    }
  }
}

TEST_CASE("Elements of a starting value lie within the bound and are not all alike", "[gpu]") {
  auto group = CreateRanks(3);
  REQUIRE_OK(group);
  const auto gathered = GatherAfter(*group, {{40, 50}, 1}, DType::kFloat32,
                                    [](Worker& worker, const Parameter& parameter) {
                                      return parameter.InitializeUniform(worker, 1, 0.25F);
                                    });
  REQUIRE_OK(gathered);
  double sum = 0.0;
  double sum_of_squares = 0.0;
  for (const double value : gathered->front().values) {
    REQUIRE(std::abs(value) <= 0.25);
    sum += value;
    sum_of_squares += value * value;
  }
  // Mean 0 and variance bound^2 / 3, each within four standard errors of 2000 draws.
  REQUIRE(std::abs(sum / 2000) < 4 * 0.25 / std::sqrt(3.0 * 2000));
  REQUIRE(std::abs(sum_of_squares / 2000 - 0.0625 / 3) < 4 * 0.0625 * std::sqrt(4.0 / 45 / 2000));
}

TEST_CASE("A new parameter is zero, with a gradient wide enough to accumulate in") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  for (const DType dtype : kFloatingTypes) {
    const auto parameter = Parameter::Create(*worker, "p", {3, 2}, dtype);
    REQUIRE_OK(parameter);
    REQUIRE(parameter->value().dtype() == dtype);
    REQUIRE(parameter->gradient().dtype() ==
            (dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32));
    for (const Tensor& tensor : {parameter->value(), parameter->gradient()}) {
      const auto array = ToArray(*worker, tensor);
      REQUIRE_OK(array);
      REQUIRE(SameBits(*array, Array::Constant({3, 2}, 0.0)));
    }
  }
}

TEST_CASE("Gradients gather like values, and zeroing them leaves the values alone", "[gpu]") {
  auto group = CreateRanks(GENERATE(1, 3, 5));
  REQUIRE_OK(group);
  const Array full = Array::Uniform({4, 3}, 5);
  const absl::Status status = group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto parameter,
                              Parameter::Create(worker, comm, "p", {4, 3}, 0, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, ToTensor(worker, full, DType::kFloat32));
    LOCKSTEP_RETURN_IF_ERROR(parameter.LoadFull(worker, tensor));
    LOCKSTEP_RETURN_IF_ERROR(Copy(worker, parameter.value(), parameter.gradient()));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor gradient, parameter.GatherFullGradient(worker, comm));
    LOCKSTEP_RETURN_IF_ERROR(parameter.ZeroGradient(worker));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor zeroed, parameter.GatherFullGradient(worker, comm));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor value, parameter.GatherFull(worker, comm));
    LOCKSTEP_ASSIGN_OR_RETURN(Array gradient_array, ToArray(worker, gradient));
    LOCKSTEP_ASSIGN_OR_RETURN(Array zeroed_array, ToArray(worker, zeroed));
    LOCKSTEP_ASSIGN_OR_RETURN(Array value_array, ToArray(worker, value));
    const bool right = SameBits(gradient_array, full) && SameBits(value_array, full) &&
                       SameBits(zeroed_array, Array::Constant({4, 3}, 0.0));
    return right ? absl::OkStatus() : absl::InternalError("not what was put in");
  });
  REQUIRE_OK(status);
}

TEST_CASE("What a replicated parameter gathers to is memory of its own", "[gpu]") {
  auto group = CreateRanks(2);
  REQUIRE_OK(group);
  const absl::Status status = group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(
        auto parameter,
        Parameter::Create(worker, comm, "p", {4}, Parameter::kReplicated, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, parameter.GatherFull(worker, comm));
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker, 1.0, full));
    LOCKSTEP_ASSIGN_OR_RETURN(Array value, ToArray(worker, parameter.value()));
    return SameBits(value, Array::Constant({4}, 0.0)) ? absl::OkStatus()
                                                      : absl::InternalError("shared");
  });
  REQUIRE_OK(status);
}

TEST_CASE("Loading converts the type") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  const auto parameter = Parameter::Create(*worker, "p", {1}, DType::kBFloat16);
  REQUIRE_OK(parameter);
  const auto full = ToTensor(*worker, Array::Constant({1}, 1.0 + 0x1p-7 + 0x1p-9), DType::kFloat64);
  REQUIRE_OK(full);
  REQUIRE_OK(parameter->LoadFull(*worker, *full));
  const auto value = ToArray(*worker, parameter->value());
  REQUIRE_OK(value);
  REQUIRE(value->values[0] == 1.0 + 0x1p-7);
}

TEST_CASE("Loading another shape is refused with both shapes, though it has as many elements") {
  auto worker = LoneWorker();
  REQUIRE_OK(worker);
  const auto parameter = Parameter::Create(*worker, "weight", {2, 6}, DType::kFloat32);
  REQUIRE_OK(parameter);
  const auto full = worker->Zeros({6, 2}, DType::kFloat32);
  REQUIRE_OK(full);
  const absl::Status status = parameter->LoadFull(*worker, *full);
  REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(Says(status, "weight"));
  REQUIRE(Says(status, "[6, 2]"));
  REQUIRE(Says(status, "[2, 6]"));
}

TEST_CASE("A parameter that cannot be is refused", "[gpu]") {
  auto group = CreateRanks(1);
  REQUIRE_OK(group);
  const auto create = [&](const Shape& shape, int axis, DType dtype) {
    return group->Run([&](Worker& worker, Communicator& comm) {
      return Parameter::Create(worker, comm, "p", shape, axis, dtype).status();
    });
  };
  REQUIRE_OK(create({2, 2}, 1, DType::kFloat32));
  for (const absl::Status& status :
       {create({}, Parameter::kReplicated, DType::kFloat32), create({2, 2}, 2, DType::kFloat32),
        create({2, 2}, -2, DType::kFloat32), create({2, -2}, 0, DType::kFloat32),
        create({2, 2}, 0, DType::kInt32), create({INT64_MAX, 2}, 0, DType::kFloat32)}) {
    INFO(status.ToString());
    REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("A parameter of which each part can be, but never the whole, is refused at Create",
          "[gpu]") {
  auto group = CreateRanks(2);
  REQUIRE_OK(group);
  // 2^63 bytes, though there is not one element; each rank's part would be 2^62.
  const absl::Status status = group->Run([](Worker& worker, Communicator& comm) {
    return Parameter::Create(worker, comm, "p", {std::int64_t{1} << 61, 0}, 0, DType::kFloat32)
        .status();
  });
  INFO(status.ToString());
  REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(Says(status, "[2305843009213693952, 0]"));
}

TEST_CASE("Gathering over a group that deals the shards otherwise is refused, not misordered",
          "[gpu]") {
  auto group = CreateRanks(2);
  REQUIRE_OK(group);
  std::vector<absl::Status> statuses(2);
  REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto reversed, comm.Split(/*color=*/0, /*key=*/-worker.rank()));
    LOCKSTEP_ASSIGN_OR_RETURN(auto parameter,
                              Parameter::Create(worker, comm, "p", {4}, 0, DType::kFloat32));
    statuses[worker.rank()] = parameter.GatherFull(worker, *reversed).status();
    return absl::OkStatus();
  }));
  for (const absl::Status& status : statuses) {
    INFO(status.ToString());
    REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
    REQUIRE(Says(status, "[0, 2)"));
    REQUIRE(Says(status, "[2, 4)"));
  }
}

}  // namespace lockstep::testing
