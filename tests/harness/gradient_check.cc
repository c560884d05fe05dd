#include "lockstep/tests/harness/gradient_check.h"

#include <algorithm>
#include <cmath>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/harness/compare.h"

namespace lockstep::testing {
namespace {

absl::Status SetElement(Worker& worker, const Tensor& flat, std::int64_t index, double value) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor element, flat.Slice(0, index, 1));
  return Fill(worker, value, element);
}

// One element of one rank's, and what was found.
struct Trial {
  int owner;
  std::int64_t index;
  double gradient;
  double quotient;
};

}  // namespace

absl::Status CheckGradient(Worker& worker, Communicator& comm, absl::string_view what,
                           const Tensor& x, const Tensor& gradient,
                           absl::FunctionRef<absl::StatusOr<double>()> loss,
                           GradientCheckOptions options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Tensor flat, x.Reshape({x.size()}));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> values, ToDoubles(worker, x));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<double> gradients, ToDoubles(worker, gradient));
  const std::int64_t trials = std::min<std::int64_t>(options.num_elements, x.size());
  std::vector<Trial> found;
  double largest = 1;
  for (int owner = 0; owner < (options.replicated ? 1 : comm.world_size()); ++owner) {
    // Every rank goes along, however few elements its own part has.
    for (int trial = 0; trial < options.num_elements; ++trial) {
      const bool mine = (options.replicated || owner == comm.rank()) && trial < trials;
      const std::int64_t index = mine ? trial * x.size() / trials : 0;
      double at[2] = {0, 0};
      for (const int side : {0, 1}) {
        const double step = side == 0 ? -options.step : options.step;
        if (mine) {
          LOCKSTEP_RETURN_IF_ERROR(
              SetElement(worker, flat, index, values[static_cast<std::size_t>(index)] + step));
        }
        LOCKSTEP_ASSIGN_OR_RETURN(at[side], loss());
      }
      if (!mine) continue;
      const auto i = static_cast<std::size_t>(index);
      LOCKSTEP_RETURN_IF_ERROR(SetElement(worker, flat, index, values[i]));
      const double quotient = (at[1] - at[0]) / (2 * options.step);
      largest = std::max(largest, std::abs(quotient));
      found.push_back({comm.rank(), index, gradients[i], quotient});
    }
  }
  for (const Trial& trial : found) {
    if (std::abs(trial.gradient - trial.quotient) <= options.tolerance * largest) continue;
    return absl::InternalError(absl::StrCat(
        what, ": on rank ", trial.owner, " the gradient of element ", trial.index, " of ",
        x.ToString(), " is ", trial.gradient, ", and the difference quotient ", trial.quotient));
  }
  return absl::OkStatus();
}

}  // namespace lockstep::testing
