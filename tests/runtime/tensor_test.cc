#include "lockstep/runtime/tensor.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "lockstep/runtime/worker.h"
#include "lockstep/tests/catch.h"

namespace lockstep {
namespace {

using testing::Says;

TEST_CASE("a view knows shape, strides, size and bytes") {
  float data[24];
  const Tensor x = Tensor::View(data, {2, 3, 4}, DType::kFloat32);
  CHECK(x.strides() == Shape{12, 4, 1});
  CHECK(x.size() == 24);
  CHECK(x.size_bytes() == 96);
  CHECK(x.extent(-1) == 4);
  CHECK(x.extent(0) == 2);
  CHECK(x.is_contiguous());
  CHECK(x.data<float>() == data);
  CHECK(x.ToString() == "float32 [2, 3, 4] on cpu");
  CHECK(Tensor().size() == 0);
  CHECK(Tensor::View(data, {}, DType::kFloat32).size() == 1);
}

TEST_CASE("slices share memory, along any axis") {
  float data[24];
  const Tensor x = Tensor::View(data, {2, 3, 4}, DType::kFloat32);
  const auto rows = x.Slice(0, 1, 1);
  REQUIRE_OK(rows);
  CHECK(rows->is_contiguous());
  CHECK(rows->data<float>() == data + 12);
  const auto columns = x.Slice(-1, 2, 2);
  REQUIRE_OK(columns);
  CHECK(columns->shape() == Shape{2, 3, 2});
  CHECK_FALSE(columns->is_contiguous());
  CHECK(columns->data<float>() == data + 2);
  const auto inner = columns->Slice(1, 1, 2);
  REQUIRE_OK(inner);
  CHECK(inner->data<float>() == data + 6);
  const auto none = x.Slice(1, 3, 0);
  REQUIRE_OK(none);
  CHECK(none->size() == 0);
  CHECK(none->is_contiguous());
}

TEST_CASE("slices that leave their axis are refused") {
  float data[6];
  const Tensor x = Tensor::View(data, {2, 3}, DType::kFloat32);
  CHECK(Says(x.Slice(1, 2, 2).status(), "2 elements from 2 along axis 1"));
  CHECK(Says(x.Slice(1, -1, 1).status(), "that axis has 3"));
  CHECK(Says(x.Slice(1, 0, -1).status(), "that axis has 3"));
  CHECK(Says(x.Slice(1, 1, INT64_MAX).status(), "that axis has 3"));
  CHECK(Says(x.Slice(2, 0, 1).status(), "which has 2 axes"));
  CHECK(Says(x.Slice(-3, 0, 1).status(), "which has 2 axes"));
}

TEST_CASE("an axis of one element does not make a tensor strided") {
  float data[12];
  const Tensor row = *Tensor::View(data, {3, 4}, DType::kFloat32).Slice(0, 1, 1);
  CHECK(row.is_contiguous());
  CHECK(row.Slice(1, 0, 2)->is_contiguous());
  CHECK_FALSE(Tensor::View(data, {3, 4}, DType::kFloat32).Slice(1, 1, 1)->is_contiguous());
}

TEST_CASE("a transpose shares memory, and takes two axes") {
  float data[6];
  const Tensor x = Tensor::View(data, {2, 3}, DType::kFloat32);
  const auto turned = x.Transpose();
  REQUIRE_OK(turned);
  CHECK(turned->shape() == Shape{3, 2});
  CHECK(turned->strides() == Shape{1, 3});
  CHECK(turned->raw_data() == data);
  CHECK(turned->size() == 6);
  CHECK_FALSE(turned->is_contiguous());
  CHECK(turned->Transpose()->is_contiguous());
  CHECK(Says(Tensor::View(data, {6}, DType::kFloat32).Transpose().status(),
             "float32 [6] on cpu, which has 1 axes; it must have 2"));
}

TEST_CASE("a contiguous tensor takes another shape of as many elements") {
  float data[6];
  const Tensor x = Tensor::View(data, {2, 3}, DType::kFloat32);
  const auto flat = x.Reshape({6});
  REQUIRE_OK(flat);
  CHECK(flat->data<float>() == data);
  CHECK(Says(x.Reshape({5}).status(), "as many elements"));
  CHECK(Says(x.Slice(1, 0, 2)->Reshape({4}).status(), "which is strided"));
}

TEST_CASE("what a tensor does not have is told by null and by -1, and ends no process") {
  float data[6];
  const Tensor x = Tensor::View(data, {2, 3}, DType::kFloat32);
  CHECK(x.data<double>() == nullptr);
  CHECK(x.data<BFloat16>() == nullptr);
  CHECK(x.data<std::int32_t>() == nullptr);
  CHECK(x.data<float>() == data);
  CHECK(x.extent(-2) == 2);
  for (const int axis : {2, 3, -3, INT32_MAX, INT32_MIN}) CHECK(x.extent(axis) == -1);
  CHECK(Tensor::View(data, {}, DType::kFloat32).extent(0) == -1);
  CHECK(Tensor::View(data, {}, DType::kFloat32).extent(-1) == -1);
}

TEST_CASE("a shape or type that cannot be is taken by a view, and by nothing that uses it") {
  float data[6];
  const Tensor negative = Tensor::View(data, {2, -3}, DType::kFloat32);
  CHECK(Says(negative.Slice(0, 0, 1).status(), "extent -3"));
  CHECK(Says(negative.Reshape({6}).status(), "as many elements"));
  const Tensor endless = Tensor::View(data, {INT64_MAX, 8}, DType::kFloat32);
  CHECK(Says(endless.Slice(0, INT64_MAX, 0).status(), "more bytes than 2^63 - 1"));
  const auto none = static_cast<DType>(6);
  CHECK(Says(ContiguousBytes({2}, none).status(), "no element type, number 6; there are 6"));
  CHECK(Says(Tensor::View(data, {6}, none).Slice(0, 0, 1).status(), "no element type"));
}

TEST_CASE("a slice, a slice of it and another shape keep the memory") {
  auto memory = std::make_shared<std::vector<float>>(24);
  const std::weak_ptr<std::vector<float>> alive = memory;
  float* const data = memory->data();
  Tensor part;
  {
    const Tensor whole = Tensor::Own(std::shared_ptr<void>(std::move(memory), data), {2, 3, 4},
                                     DType::kFloat32, Device::Cpu());
    part = *whole.Reshape({6, 4})->Slice(0, 1, 4)->Slice(0, 2, 2);
  }
  CHECK_FALSE(alive.expired());
  CHECK(part.data<float>() == data + 12);
  CHECK(part.size_bytes() == 32);
  part = Tensor();
  CHECK(alive.expired());
}

TEST_CASE("sizes that cannot be are refused rather than wrapped around") {
  CHECK(Says(ContiguousBytes({-1, 2}, DType::kFloat32).status(), "extent -1"));
  CHECK(
      Says(ContiguousBytes({INT64_MAX, 2}, DType::kFloat32).status(), "more bytes than 2^63 - 1"));
  // An extent of zero does not hide the others.
  CHECK_FALSE(ContiguousBytes({INT64_MAX, 2, 0}, DType::kFloat32).ok());
  CHECK_FALSE(ContiguousBytes({0, INT64_MAX, 2}, DType::kFloat32).ok());
  CHECK_FALSE(ContiguousBytes({0, -1}, DType::kFloat32).ok());
  CHECK_FALSE(ContiguousBytes({(std::int64_t{1} << 60) - 1, 8}, DType::kFloat16).ok());
  CHECK(*ContiguousBytes({(std::int64_t{1} << 60) - 1, 4}, DType::kFloat16) == INT64_MAX - 7);
  CHECK(*ContiguousBytes({}, DType::kInt64) == 8);
  CHECK(*ContiguousBytes({5, 0, 3}, DType::kFloat64) == 0);
  CHECK(*ContiguousBytes({5, 3}, DType::kFloat64) == 120);
}

TEST_CASE("a worker's tensors are aligned, zero where asked, and may outlive it") {
  Tensor x;
  {
    auto worker = Worker::Adopt(0, 1, Device::Cpu());
    REQUIRE_OK(worker);
    auto made = worker->Zeros({3, 5}, DType::kInt64);
    REQUIRE_OK(made);
    x = *made;
    CHECK(worker->Empty({-1}, DType::kFloat32).status().code() ==
          absl::StatusCode::kInvalidArgument);
    CHECK(worker->Empty({std::int64_t{1} << 60}, DType::kInt32).status().code() ==
          absl::StatusCode::kResourceExhausted);
  }
  CHECK(reinterpret_cast<std::uintptr_t>(x.raw_data()) % 64 == 0);
  for (int i = 0; i < 15; ++i) CHECK(x.data<std::int64_t>()[i] == 0);
}

}  // namespace
}  // namespace lockstep
