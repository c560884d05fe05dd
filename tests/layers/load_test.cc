// Loads of whole arrays and of shards, either way round.
#include "lockstep/layers/parameter.h"

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

struct Sharding {
  Shape shape;
  int axis;
};

// More ranks than elements, uneven parts, none at all, and wide enough for a copy in blocks.
const Sharding kMatrices[] = {{{4, 4}, 0},   {{4, 4}, 1},   {{3, 5}, Parameter::kReplicated},
                              {{3, 8}, 0},   {{3, 8}, 1},   {{0, 4}, 1},
                              {{4, 0}, 1},   {{1, 7}, 0},   {{7, 1}, 0},
                              {{37, 50}, 0}, {{37, 50}, 1}, {{37, 50}, Parameter::kReplicated}};

// Element [i, j] of a matrix of `columns` columns is its number, which every type holds.
Array Counted(const Shape& shape) {
  Array array = Array::Constant(shape, 0.0);
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    array.values[i] = static_cast<double>(i % 251);
  }
  return array;
}

Array Transposed(const Array& array) {
  const std::int64_t rows = array.shape[0];
  const std::int64_t columns = array.shape[1];
  Array out = Array::Constant({columns, rows}, 0.0);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      out.values[j * rows + i] = array.values[i * columns + j];
    }
  }
  return out;
}

// Rows [begin, begin + length) of the axis.
Array PartOf(const Array& array, int axis, const Shard& shard) {
  if (axis == Parameter::kReplicated) return array;
  if (axis == 1) return Transposed(PartOf(Transposed(array), 0, shard));
  const auto width = static_cast<std::size_t>(array.shape[1]);
  const auto begin = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(shard.begin) * width);
  const auto count = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(shard.length) * width);
  const auto from = array.values.begin() + begin;
  return {{shard.length, array.shape[1]}, {from, from + count}};
}

using Load = std::function<absl::Status(Worker&, const Parameter&, const Array& full)>;

// After `load` on every rank, what it gathers must be the array in the parameter's own orientation.
void RequireLoads(const Load& load) {
  auto group = CreateRanks(GENERATE(1, 2, 3, 5, 9));
  REQUIRE_OK(group);
  for (const DType dtype : kFloatingTypes) {
    for (const Sharding& sharding : kMatrices) {
      const Array full = Counted(sharding.shape);
      CAPTURE(group->world_size(), Name(dtype).data(), ToString(sharding.shape), sharding.axis);
      REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
        LOCKSTEP_ASSIGN_OR_RETURN(
            auto parameter,
            Parameter::Create(worker, comm, "w", sharding.shape, sharding.axis, dtype));
        LOCKSTEP_RETURN_IF_ERROR(load(worker, parameter, full));
        LOCKSTEP_ASSIGN_OR_RETURN(Tensor gathered, parameter.GatherFull(worker, comm));
        LOCKSTEP_ASSIGN_OR_RETURN(Array found, ToArray(worker, gathered));
        return SameBits(found, full) ? absl::OkStatus() : absl::InternalError("not what it was");
      }));
    }
  }
}

// A file in the host's memory, of another type than most parameters.
Tensor FileOf(Array& array) {
  return Tensor::View(array.values.data(), array.shape, DType::kFloat64);
}

}  // namespace

TEST_CASE("A whole matrix loads either way round, at every world size, axis and type", "[gpu]") {
  RequireLoads([](Worker& worker, const Parameter& parameter, const Array& full) {
    Array file = full;
    return parameter.LoadFull(worker, FileOf(file), Orientation::kInOut);
  });
  RequireLoads([](Worker& worker, const Parameter& parameter, const Array& full) {
    Array file = Transposed(full);
    return parameter.LoadFull(worker, FileOf(file), Orientation::kOutIn);
  });
}

TEST_CASE("A rank's own shard loads either way round, at every world size, axis and type",
          "[gpu]") {
  RequireLoads([](Worker& worker, const Parameter& parameter, const Array& full) {
    Array file = PartOf(full, parameter.shard_axis(), parameter.shard());
    return parameter.LoadShard(worker, FileOf(file), Orientation::kInOut);
  });
  RequireLoads([](Worker& worker, const Parameter& parameter, const Array& full) {
    Array file = Transposed(PartOf(full, parameter.shard_axis(), parameter.shard()));
    return parameter.LoadShard(worker, FileOf(file), Orientation::kOutIn);
  });
}

TEST_CASE("A strided file loads either way round") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  const Array full = Counted({20, 33});
  for (const bool turned : {false, true}) {
    const auto parameter = Parameter::Create(*worker, "w", {20, 33}, DType::kFloat32);
    REQUIRE_OK(parameter);
    const Array file = turned ? Transposed(full) : full;
    const Shape wide{file.shape[0], file.shape[1] + 3};
    const auto wider = worker->Zeros(wide, DType::kFloat32);
    REQUIRE_OK(wider);
    const auto inner = wider->Slice(1, 2, file.shape[1]);
    REQUIRE_OK(inner);
    const auto tensor = ToTensor(*worker, file, DType::kFloat32);
    REQUIRE_OK(tensor);
    REQUIRE_OK(Copy(*worker, *tensor, *inner));
    const Orientation orientation = turned ? Orientation::kOutIn : Orientation::kInOut;
    REQUIRE_OK(parameter->LoadFull(*worker, *inner, orientation));
    const auto value = ToArray(*worker, parameter->value());
    REQUIRE_OK(value);
    REQUIRE(SameBits(*value, full));
  }
}

TEST_CASE("Vectors load as they are, and what has other than two axes has no transpose") {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  for (const Shape& shape : {Shape{3}, Shape{2, 3, 2}}) {
    const auto parameter = Parameter::Create(*worker, "b", shape, DType::kFloat32);
    REQUIRE_OK(parameter);
    Array file = Counted(shape);
    REQUIRE_OK(parameter->LoadFull(*worker, FileOf(file), Orientation::kInOut));
    REQUIRE_OK(parameter->LoadShard(*worker, FileOf(file), Orientation::kInOut));
    for (const absl::Status& status :
         {parameter->LoadFull(*worker, FileOf(file), Orientation::kOutIn),
          parameter->LoadShard(*worker, FileOf(file), Orientation::kOutIn)}) {
      INFO(status.ToString());
      REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
      REQUIRE(Says(status, "kOutIn is for two axes, give it as kInOut"));
    }
  }
}

TEST_CASE("A load that does not fit names both shapes, and whether the other way round would",
          "[gpu]") {
  auto group = CreateRanks(2);
  REQUIRE_OK(group);
  std::vector<std::pair<absl::Status, std::string>> refused;
  REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(auto w,
                              Parameter::Create(worker, comm, "w", {2, 6}, 1, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor whole, worker.Zeros({2, 6}, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor turned, worker.Zeros({6, 2}, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, worker.Zeros({2, 3}, DType::kFloat32));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor turned_part, worker.Zeros({3, 2}, DType::kFloat32));
    if (worker.rank() != 0) return absl::OkStatus();
    constexpr Orientation kInOut = Orientation::kInOut;
    constexpr Orientation kOutIn = Orientation::kOutIn;
    const auto text = [&](absl::string_view call, absl::string_view given, absl::string_view rest) {
      return absl::StrCat("parameter w: ", call, " of float32 ", given, " on ",
                          worker.device().ToString(), " as ", rest);
    };
    refused = {
        {w.LoadFull(worker, turned),
         text("LoadFull", "[6, 2]",
              "kInOut, but its full shape is [2, 6]; it must be [2, 6], or be given as "
              "kOutIn")},
        {w.LoadFull(worker, whole, kOutIn),
         text("LoadFull", "[2, 6]",
              "kOutIn, but its full shape is [2, 6]; it must be [6, 2], or be given as "
              "kInOut")},
        {w.LoadFull(worker, part),
         text("LoadFull", "[2, 3]", "kInOut, but its full shape is [2, 6]; it must be [2, 6]")},
        {w.LoadShard(worker, turned_part, kInOut),
         text("LoadShard", "[3, 2]",
              "kInOut, but this rank's part is [2, 3]; it must be [2, 3], or be given as "
              "kOutIn")},
        {w.LoadShard(worker, part, kOutIn),
         text("LoadShard", "[2, 3]",
              "kOutIn, but this rank's part is [2, 3]; it must be [3, 2], or be given as "
              "kInOut")},
        {w.LoadShard(worker, whole, kInOut),
         text("LoadShard", "[2, 6]", "kInOut, but this rank's part is [2, 3]; it must be [2, 3]")}};
    return absl::OkStatus();
  }));
  REQUIRE(refused.size() == 6);
  for (const auto& [status, text] : refused) {
    REQUIRE(status.code() == absl::StatusCode::kInvalidArgument);
    REQUIRE(std::string(status.message()) == text);
  }
}

}  // namespace lockstep::testing
