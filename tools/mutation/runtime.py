"""Edits of runtime/, judged by its own tests."""
from mutant import Mutant

PROGRAMS = ["runtime_test"]  # built and run for each edit, in this order, until one fails
EDITS = {
    "runtime/block_cache.h": [
        Mutant("bytes + step - 1) / step * step", "bytes + step) / step * step"),
        Mutant("kMaxReserved = 3;", "kMaxReserved = 4;"),
        Mutant("if (closed_) return false;", ""),
        Mutant("at->second.front().put < oldest->second.front().put", "at->second.front().put > oldest->second.front().put"),
        Mutant("free_bytes_ -= block.size;", ""),
        Mutant("used_bytes_ -= size;", ""),
    ],
    "runtime/memory_pool.cc": [
        Mutant("if (block == nullptr && GiveBackAll() > 0) block = AskSystem(size);", ""),
        Mutant("munmap(block.memory, block.size);", "madvise(block.memory, block.size, MADV_DONTNEED);"),
        Mutant("cache_->Close(); GiveBackAll();", "cache_->Close();"),
    ],
    "runtime/status.h": [
        Mutant("if (absl::Status status = (__VA_ARGS__); !status.ok()) return status;",
               "if (absl::Status status = (__VA_ARGS__); !status.ok()) return absl::OkStatus();"),
        Mutant("return !status.ok() && absl::IsResourceExhausted(status) && status.message().empty();",
               "return absl::IsResourceExhausted(status);"),
    ],
    "runtime/tensor.cc": [
        Mutant("return axis >= 0 && axis < num_axes() ?", "return axis >= 0 && axis <= num_axes() ?"),
        Mutant("LOCKSTEP_RETURN_IF_ERROR(ContiguousBytes(shape_, dtype_).status());", ""),
        Mutant("return empty ? 0 : bytes;", "return bytes;"),
        Mutant("if (shape_[axis] != 1 && strides_[axis] != expected) return false;",
               "if (strides_[axis] != expected) return false;"),
        Mutant("begin * strides_[at] *", "begin *"),
        Mutant("if (extent > 0 && __builtin_mul_overflow", "if (!empty && __builtin_mul_overflow"),
    ],
    "runtime/tensor.h": [
        Mutant("return DTypeOf<T>() == dtype_ ? static_cast<T*>(data_) : nullptr;", "return static_cast<T*>(data_);"),
    ],
    "runtime/dtype.cc": [
        Mutant("magnitude >= 0x477FF000u", "magnitude > 0x477FF000u",
               equivalent="65520 itself becomes infinity by the carry of the rounding too"),
        Mutant("magnitude >= 0x38800000u", "magnitude > 0x38800000u",
               equivalent="the smallest normal number comes out of either branch alike"),
        Mutant("magnitude + 0x0FFFu + ((magnitude >> 13) & 1u)", "magnitude + 0x1000u"),
        Mutant("(bits >> 16) | 0x0040u", "bits >> 16"),
        Mutant("return dtype == DType::kFloat16 || dtype == DType::kBFloat16;", "return dtype == DType::kBFloat16;"),
    ],
    "runtime/device.cc": [
        Mutant("rank * devices.size() / num_ranks", "rank % devices.size()"),
    ],
    "runtime/elementwise.cc": [
        Mutant("if (x.size() == 0) return accumulate ? absl::OkStatus() : Fill(worker, 0, out);",
               "if (x.size() == 0) return Fill(worker, 0, out);"),
        Mutant("return matrix.data<T>() + row * matrix.strides()[0];", "return matrix.data<T>() + row * matrix.extent(1);"),
        Mutant("if (tensor.size() == 0 || tensor.raw_data() != nullptr) return absl::OkStatus();", "return absl::OkStatus();"),
        Mutant("Load(from[i]) < 0 ? Compute<T>{0} : Load(from[i])", "Load(from[i]) > 0 ? Load(from[i]) : Compute<T>{0}"),
        Mutant("const T* const from = x.data<T>() + x_at; const T* const above", "const T* const from = x.data<T>() + at; const T* const above"),
        Mutant("const std::int64_t out_step = whole ? 1 : out.strides().back();", "const std::int64_t out_step = in_step;",
               equivalent="no tensor can be made whose last axis has another stride than 1, unless it has one element"),
        Mutant('CheckMemory("copy", "out", out)', 'CheckMemory("copy", "out", in)'),
    ],
    "runtime/check_tensors.h": [
        Mutant("offset_b += at[axis] * b.strides()[axis];", "offset_b += at[axis] * a.strides()[axis];"),
        Mutant("for (std::size_t axis = at.size() - 1; axis-- > 0;) {", "for (std::size_t axis = at.size() - 1; axis-- > 1;) {"),
    ],
    "runtime/cross_entropy.cc": [
        Mutant("T* const to = grad.data<T>() + i * grad.strides()[0];", "T* const to = grad.data<T>() + i * logits.strides()[0];"),
        Mutant("RowLoss(logits.data<T>() + i * logits.strides()[0]", "RowLoss(logits.data<T>() + i * logits.extent(1)"),
        Mutant("if (Load(row[j]) > Load(row[largest])) largest = j;", "if (Load(row[j]) >= Load(row[largest])) largest = j;"),
        Mutant('CheckMemory(kWhat, "labels", labels)', 'CheckMemory(kWhat, "labels", logits)'),
    ],
    "runtime/matmul.cc": [
        Mutant("tensor->extent(0) > kMost ||", ""),
        Mutant("tensor.extent(0) > 1 ? tensor.strides()[0] : tensor.extent(1)", "tensor.extent(1)"),
        Mutant("return options.bias == nullptr ? absl::OkStatus() : AddBias(worker, *options.bias, out);", "return absl::OkStatus();"),
        Mutant('internal::CheckMemory("matmul", "b", b)', 'internal::CheckMemory("matmul", "b", a)'),
    ],
    "runtime/update.cc": [
        Mutant("static_cast<T>(options.weight_decay) * weight; return", "0 * weight; return"),
        Mutant("(std::sqrt(v * static_cast<T>(square_weight)) + static_cast<T>(options.epsilon))",
               "std::sqrt(v * static_cast<T>(square_weight) + static_cast<T>(options.epsilon))"),
        Mutant("std::pow(options.beta2, static_cast<double>(step))", "std::pow(options.beta1, static_cast<double>(step))"),
        Mutant("T& v = mean_square.data<T>()[i];", "T& v = mean_square.data<T>()[0];"),
    ],
    "runtime/random.cc": [
        Mutant("static_cast<std::uint64_t>(first_row) + static_cast<std::uint64_t>(i)", "static_cast<std::uint64_t>(i)"),
        Mutant("out.extent(1) > full_columns ||", ""),
    ],
    "runtime/executor.cc": [
        Mutant("state->exception = nullptr; const absl::Status replaced", "const absl::Status replaced"),
        Mutant("state->failed_rank = -1;", ""),
        Mutant("if (failed_rank >= 0) return;", ""),
        Mutant("[](internal::TaskObserver& observer) { observer.OnRunStart(); }", "[](internal::TaskObserver&) {}"),
        Mutant("observer.OnTaskEnd(rank_, status_)", "observer.OnTaskEnd(rank_, absl::OkStatus())"),
    ],
    "runtime/worker.cc": [
        Mutant("if (rank < 0 || rank >= world_size) {", "if (rank < 0 || rank > world_size) {"),
        Mutant("if (stream.device() != device) {", "if (false) {"),
        Mutant("LOCKSTEP_RETURN_IF_ERROR(Fill(*this, 0, tensor));", ""),
    ],
    "runtime/task_observer.h": [
        Mutant("if (const auto observer = known.lock()) tell(*observer);", "if (const auto observer = known.lock()) return tell(*observer);"),
    ],
    "runtime/fork_mark.h": [
        Mutant("!page_->load(std::memory_order_relaxed)", "page_->load(std::memory_order_relaxed)"),
    ],
}
