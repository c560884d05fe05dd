#include "lockstep/tests/harness/gradient_check.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <string>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/harness/compare.h"
#include "lockstep/tests/harness/exchange.h"

namespace lockstep::testing {
namespace {

bool IsPositive(double number) { return number > 0 && std::isfinite(number); }

absl::Status CheckOptions(const GradientCheckOptions& options) {
  if (options.num_elements < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_elements is ", options.num_elements, "; it must be at least 1"));
  }
  if (!IsPositive(options.step)) {
    return absl::InvalidArgumentError(
        absl::StrCat("step is ", options.step, "; it must be finite, and more than 0"));
  }
  if (!IsPositive(options.tolerance) || options.tolerance >= 1) {
    return absl::InvalidArgumentError(absl::StrCat("tolerance is ", options.tolerance,
                                                   "; it must be more than 0, and less than "
                                                   "1, which any gradient of 0 would pass"));
  }
  return absl::OkStatus();
}

absl::Status CheckTensors(Worker& worker, const Tensor& x, const Tensor& gradient) {
  if (x.shape() != gradient.shape() || x.dtype() != gradient.dtype() || !IsFloating(x.dtype())) {
    return absl::InvalidArgumentError(
        absl::StrCat("x is ", x.ToString(), " and gradient is ", gradient.ToString(),
                     "; they must have one shape and one floating type"));
  }
  for (const Tensor* tensor : {&x, &gradient}) {
    const absl::string_view name = tensor == &x ? "x" : "gradient";
    if (tensor->device() != worker.device() || !tensor->is_contiguous()) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, " is ", tensor->ToString(), tensor->is_contiguous() ? "" : " and strided",
          "; it must be contiguous, on ", worker.device().ToString()));
    }
  }
  return absl::OkStatus();
}

// One element of a tensor, put back as it was, bit for bit, on every way out.
class BorrowedElement {
 public:
  BorrowedElement(Worker& worker, Tensor element, Tensor saved)
      : worker_(worker), element_(std::move(element)), saved_(std::move(saved)) {}
  BorrowedElement(const BorrowedElement&) = delete;
  BorrowedElement& operator=(const BorrowedElement&) = delete;
  ~BorrowedElement() { Copy(worker_, saved_, element_).IgnoreError(); }

  // Returns what the element's type makes of the value.
  absl::StatusOr<double> Set(double value) {
    LOCKSTEP_RETURN_IF_ERROR(Fill(worker_, value, element_));
    LOCKSTEP_ASSIGN_OR_RETURN(const auto held, ToDoubles(worker_, element_));
    return held[0];
  }

 private:
  Worker& worker_;
  const Tensor element_;
  const Tensor saved_;
};

// What one rank knows of its x, and what it found.
struct Findings {
  Tensor x;      // flat
  Tensor saved;  // the same on the CPU, as it was
  std::vector<double> values;
  std::vector<double> gradients;

  struct Trial {
    std::int64_t index;
    double quotient;
  };
  std::vector<Trial> trials;
  // The first reason why no quotient could be had.
  std::string problem;

  void CannotTell(std::string why) {
    if (problem.empty()) problem = std::move(why);
  }
};

absl::StatusOr<Findings> Begin(Worker& worker, const Tensor& x, const Tensor& gradient,
                               const GradientCheckOptions& options) {
  LOCKSTEP_RETURN_IF_ERROR(CheckOptions(options));
  LOCKSTEP_RETURN_IF_ERROR(CheckTensors(worker, x, gradient));
  Findings mine;
  LOCKSTEP_ASSIGN_OR_RETURN(mine.values, ToDoubles(worker, x));
  LOCKSTEP_ASSIGN_OR_RETURN(mine.gradients, ToDoubles(worker, gradient));
  LOCKSTEP_ASSIGN_OR_RETURN(mine.x, x.Reshape({x.size()}));
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor saved, ToHost(worker, x));
  LOCKSTEP_ASSIGN_OR_RETURN(mine.saved, saved.Reshape({x.size()}));
  return mine;
}

// Takes the loss with the element `index` of this rank's x moved down and up; with index -1 some
// other rank moves one of its own.
absl::Status Try(Worker& worker, std::int64_t index, double step, Findings& mine,
                 absl::FunctionRef<absl::StatusOr<double>()> loss) {
  std::optional<BorrowedElement> element;
  if (index >= 0) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor moved, mine.x.Slice(0, index, 1));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor saved, mine.saved.Slice(0, index, 1));
    element.emplace(worker, std::move(moved), std::move(saved));
  }
  const double value = index >= 0 ? mine.values[static_cast<std::size_t>(index)] : 0;
  double at[2] = {0, 0};
  double losses[2] = {0, 0};
  for (const int side : {0, 1}) {
    if (element.has_value()) {
      LOCKSTEP_ASSIGN_OR_RETURN(at[side], element->Set(value + (side == 0 ? -step : step)));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(losses[side], loss());
  }
  const std::string where = index < 0
                                ? "an element of another rank"
                                : absl::StrCat("element ", index, " at ", at[0], " and ", at[1]);
  for (const double found : losses) {
    if (!std::isfinite(found)) {
      mine.CannotTell(absl::StrCat("the loss is ", losses[0], " and ", losses[1], " with ", where,
                                   "; it must be finite"));
    }
  }
  if (index < 0) return absl::OkStatus();
  if (!(at[0] < at[1]) || !std::isfinite(at[1] - at[0])) {
    mine.CannotTell(absl::StrCat("a step of ", step, " from ", value, " puts ", where, " in ",
                                 Name(mine.x.dtype()), "; take one that moves it"));
  }
  // Over the way that the element went, which its type has rounded.
  const double quotient = (losses[1] - losses[0]) / (at[1] - at[0]);
  if (!std::isfinite(quotient)) {
    mine.CannotTell(absl::StrCat("the difference quotient is ", quotient, ", of the losses ",
                                 losses[0], " and ", losses[1], " with ", where));
  }
  mine.trials.push_back({index, quotient});
  return absl::OkStatus();
}

absl::Status Judge(const Findings& mine, double tolerance, int rank) {
  if (!mine.problem.empty()) {
    return absl::InternalError(
        absl::StrCat("the gradient cannot be checked: on rank ", rank, " ", mine.problem));
  }
  double largest = 1;
  for (const Findings::Trial& trial : mine.trials) {
    largest = std::max(largest, std::abs(trial.quotient));
  }
  for (const Findings::Trial& trial : mine.trials) {
    const double gradient = mine.gradients[static_cast<std::size_t>(trial.index)];
    if (std::abs(gradient - trial.quotient) <= tolerance * largest) continue;  // false for NaN
    return absl::InternalError(absl::StrCat(
        "on rank ", rank, " the gradient of element ", trial.index, " of ", mine.x.ToString(),
        " is ", gradient, ", and the difference quotient ", trial.quotient));
  }
  return absl::OkStatus();
}

// How many elements each rank tries, once all have begun well and ask for the same.
absl::StatusOr<std::vector<std::int64_t>> Agree(Worker& worker, Communicator& comm,
                                                const absl::StatusOr<Findings>& mine,
                                                const Tensor& x,
                                                const GradientCheckOptions& options) {
  const absl::Status begun =
      mine.ok() ? absl::OkStatus()
                : absl::Status(mine.status().code(),
                               absl::StrCat("on rank ", comm.rank(), " ", mine.status().message()));
  LOCKSTEP_ASSIGN_OR_RETURN(
      const auto ranks,
      Exchange(
          worker, comm, begun,
          {options.replicated, options.num_elements, std::bit_cast<std::int64_t>(options.step),
           std::bit_cast<std::int64_t>(options.tolerance), static_cast<int>(x.dtype()), x.size()}));
  constexpr const char* kNames[] = {"replicated", "num_elements", "step",
                                    "tolerance",  "element type", "number of elements"};
  const auto text = [&](std::size_t field, std::int64_t number) {
    if (field == 2 || field == 3) return absl::StrCat(std::bit_cast<double>(number));
    if (field == 4) return std::string(Name(static_cast<DType>(number)));
    return absl::StrCat(number);
  };
  std::vector<std::int64_t> trials;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    for (std::size_t field = 0; field < (options.replicated ? 6 : 5); ++field) {
      if (ranks[rank][field] == ranks[0][field]) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "the ranks differ in ", kNames[field], ": ", text(field, ranks[0][field]), " on rank 0, ",
          text(field, ranks[rank][field]), " on rank ", rank, "; it must be the same on all"));
    }
    trials.push_back(std::min<std::int64_t>(options.num_elements, ranks[rank][5]));
  }
  return trials;
}

absl::Status Check(Worker& worker, Communicator& comm, const Tensor& x, const Tensor& gradient,
                   absl::FunctionRef<absl::StatusOr<double>()> loss,
                   const GradientCheckOptions& options) {
  absl::StatusOr<Findings> mine = Begin(worker, x, gradient, options);
  LOCKSTEP_ASSIGN_OR_RETURN(const auto trials, Agree(worker, comm, mine, x, options));
  // A replicated x moves on all ranks together.
  const int num_owners = options.replicated ? 1 : comm.world_size();
  for (int owner = 0; owner < num_owners; ++owner) {
    const bool is_mine = options.replicated || owner == comm.rank();
    const std::int64_t count = trials[static_cast<std::size_t>(owner)];
    for (std::int64_t trial = 0; trial < count; ++trial) {
      const std::int64_t index = is_mine ? trial * x.size() / count : -1;
      LOCKSTEP_RETURN_IF_ERROR(Try(worker, index, options.step, *mine, loss));
    }
  }
  return Exchange(worker, comm, Judge(*mine, options.tolerance, comm.rank()), {}).status();
}

}  // namespace

absl::Status CheckGradient(Worker& worker, Communicator& comm, absl::string_view what,
                           const Tensor& x, const Tensor& gradient,
                           absl::FunctionRef<absl::StatusOr<double>()> loss,
                           GradientCheckOptions options) {
  const absl::Status status = Check(worker, comm, x, gradient, loss, options);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

}  // namespace lockstep::testing
