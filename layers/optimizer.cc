#include "lockstep/layers/optimizer.h"

#include <cmath>

#include "absl/types/span.h"

namespace lockstep {
namespace {

absl::Status CheckParameters(absl::string_view optimizer, absl::Span<Parameter* const> parameters) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i] == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(optimizer, ": parameter ", i, " of ",
                                                     parameters.size(),
                                                     " is null; leave out what is not there"));
    }
    // A value listed twice would take two steps at a time.
    const Tensor& value = parameters[i]->value();
    for (std::size_t j = 0; j < i; ++j) {
      if (value.size() == 0 || value.raw_data() != parameters[j]->value().raw_data()) continue;
      return absl::InvalidArgumentError(absl::StrCat(optimizer, ": parameter ", i, ", ",
                                                     parameters[i]->name(), ", is parameter ", j,
                                                     " again; each may be listed once"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOption(absl::string_view optimizer, absl::string_view option, double value,
                         bool right, absl::string_view rule) {
  if (right) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(optimizer, ": ", option, " is ", value, "; it must be ", rule));
}

absl::Status CheckNotNegative(absl::string_view optimizer, absl::string_view option, double value) {
  return CheckOption(optimizer, option, value, std::isfinite(value) && value >= 0.0,
                     "finite and at least 0");
}

absl::Status CheckBelowOne(absl::string_view optimizer, absl::string_view option, double value) {
  return CheckOption(optimizer, option, value, value >= 0.0 && value < 1.0,
                     "at least 0 and below 1");
}

// What the updates are computed on: the value itself, or a float32 copy of a 16-bit one. The first
// step finds that nothing is copied yet, and does it.
absl::StatusOr<Tensor> MasterOf(Worker& worker, const Parameter& parameter) {
  const Tensor& value = parameter.value();
  if (!IsReducedPrecision(value.dtype())) return value;
  return worker.Zeros(value.shape(), DType::kFloat32);
}

absl::StatusOr<Tensor> ZerosLikeGradient(Worker& worker, const Parameter& parameter) {
  return worker.Zeros(parameter.gradient().shape(), parameter.gradient().dtype());
}

}  // namespace

Sgd::Sgd(Worker& worker, SgdOptions options, std::vector<State> states)
    : worker_(&worker), options_(options), states_(std::move(states)) {}

absl::StatusOr<Sgd> Sgd::Create(Worker& worker, const std::vector<Parameter*>& parameters,
                                SgdOptions options) {
  LOCKSTEP_RETURN_IF_ERROR(CheckParameters("Sgd", parameters));
  LOCKSTEP_RETURN_IF_ERROR(CheckNotNegative("Sgd", "learning_rate", options.learning_rate));
  LOCKSTEP_RETURN_IF_ERROR(CheckBelowOne("Sgd", "momentum", options.momentum));
  LOCKSTEP_RETURN_IF_ERROR(CheckNotNegative("Sgd", "weight_decay", options.weight_decay));
  std::vector<State> states;
  for (const Parameter* parameter : parameters) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor master, MasterOf(worker, *parameter));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor velocity, ZerosLikeGradient(worker, *parameter));
    states.push_back({*parameter, std::move(master), std::move(velocity)});
  }
  return Sgd(worker, options, std::move(states));
}

absl::Status Sgd::Step() {
  for (const State& state : states_) {
    LOCKSTEP_RETURN_IF_ERROR(SgdUpdate(*worker_, options_, state.parameter.gradient(),
                                       state.velocity, state.master, state.parameter.value()));
    LOCKSTEP_RETURN_IF_ERROR(state.parameter.ZeroGradient(*worker_));
  }
  return absl::OkStatus();
}

AdamW::AdamW(Worker& worker, AdamWOptions options, std::vector<State> states)
    : worker_(&worker), options_(options), states_(std::move(states)) {}

absl::StatusOr<AdamW> AdamW::Create(Worker& worker, const std::vector<Parameter*>& parameters,
                                    AdamWOptions options) {
  LOCKSTEP_RETURN_IF_ERROR(CheckParameters("AdamW", parameters));
  LOCKSTEP_RETURN_IF_ERROR(CheckNotNegative("AdamW", "learning_rate", options.learning_rate));
  LOCKSTEP_RETURN_IF_ERROR(CheckBelowOne("AdamW", "beta1", options.beta1));
  LOCKSTEP_RETURN_IF_ERROR(CheckBelowOne("AdamW", "beta2", options.beta2));
  LOCKSTEP_RETURN_IF_ERROR(CheckOption("AdamW", "epsilon", options.epsilon,
                                       std::isfinite(options.epsilon) && options.epsilon > 0.0,
                                       "finite and above 0"));
  LOCKSTEP_RETURN_IF_ERROR(CheckNotNegative("AdamW", "weight_decay", options.weight_decay));
  std::vector<State> states;
  for (const Parameter* parameter : parameters) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor master, MasterOf(worker, *parameter));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor mean, ZerosLikeGradient(worker, *parameter));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor mean_square, ZerosLikeGradient(worker, *parameter));
    states.push_back({*parameter, std::move(master), std::move(mean), std::move(mean_square)});
  }
  return AdamW(worker, options, std::move(states));
}

absl::Status AdamW::Step() {
  ++step_;
  for (const State& state : states_) {
    LOCKSTEP_RETURN_IF_ERROR(AdamWUpdate(*worker_, options_, step_, state.parameter.gradient(),
                                         state.mean, state.mean_square, state.master,
                                         state.parameter.value()));
    LOCKSTEP_RETURN_IF_ERROR(state.parameter.ZeroGradient(*worker_));
  }
  return absl::OkStatus();
}

}  // namespace lockstep
