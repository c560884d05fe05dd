#include "lockstep/tests/layers/sharded.h"

#include <algorithm>
#include <cstdlib>

#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/gpus.h"

namespace lockstep::testing {
namespace {

// This rank's part of the last axis.
absl::StatusOr<Tensor> PartOf(const Communicator& comm, const Tensor& full) {
  const Shard shard = Shard::Of(full.extent(1), comm.rank(), comm.world_size());
  return full.Slice(1, shard.begin, shard.length);
}

absl::StatusOr<Tensor> GatherLastAxis(Worker& worker, Communicator& comm, const Tensor& part,
                                      std::int64_t features) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, worker.Empty({part.extent(0), features}, part.dtype()));
  LOCKSTEP_RETURN_IF_ERROR(comm.AllGather(part, full, 1));
  return full;
}

template <typename Layer>
std::shared_ptr<Layer> Share(Layer layer) {
  return std::make_shared<Layer>(std::move(layer));
}

absl::StatusOr<double> Loss(Worker& worker, const FullLayer& layer, const Tensor& x,
                            const Array& grad_out) {
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, layer.forward(x));
  LOCKSTEP_ASSIGN_OR_RETURN(Array result, ToArray(worker, y));
  double loss = 0.0;
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    loss += result.values[i] * grad_out.values[i];
  }
  return loss;
}

// d loss / d array, where `loss` takes the array as it stands.
absl::StatusOr<Array> Difference(Array array,
                                 absl::FunctionRef<absl::StatusOr<double>(const Array&)> loss) {
  constexpr double kStep = 1e-5;
  Array gradient = Array::Constant(array.shape, 0.0);
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    const double value = array.values[i];
    array.values[i] = value + kStep;
    LOCKSTEP_ASSIGN_OR_RETURN(const double above, loss(array));
    array.values[i] = value - kStep;
    LOCKSTEP_ASSIGN_OR_RETURN(const double below, loss(array));
    array.values[i] = value;
    gradient.values[i] = (above - below) / (2.0 * kStep);
  }
  return gradient;
}

absl::Status Load(Worker& worker, const FullLayer& layer, const Inputs& inputs) {
  if (layer.parameters.size() != inputs.parameters.size()) {
    return absl::InternalError(absl::StrCat("the layer has ", layer.parameters.size(),
                                            " parameters, not ", inputs.parameters.size()));
  }
  for (std::size_t i = 0; i < inputs.parameters.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, ToTensor(worker, inputs.parameters[i], inputs.dtype));
    LOCKSTEP_RETURN_IF_ERROR(layer.parameters[i]->LoadFull(worker, full));
  }
  return absl::OkStatus();
}

absl::Status CheckUnchanged(Worker& worker, const char* which, const Tensor& tensor,
                            const Array& before) {
  LOCKSTEP_ASSIGN_OR_RETURN(Array after, ToArray(worker, tensor));
  if (SameBits(after, before)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("the layer changed ", which));
}

}  // namespace

absl::StatusOr<Ranks> CreateRanks(int world_size) {
  RequireGpuTag();
  const char* const named = std::getenv("LOCKSTEP_TEST_DEVICES");
  LOCKSTEP_ASSIGN_OR_RETURN(std::vector<Device> devices,
                            ParseDevices(named == nullptr ? "cpu" : named));
  devices.resize(std::min(devices.size(), static_cast<std::size_t>(world_size)), Device::Cpu());
  return Ranks::Create(world_size, {}, std::move(devices));
}

LayerMaker Make(Linear::Options options) {
  return [options](Worker& worker, Communicator&) -> absl::StatusOr<FullLayer> {
    LOCKSTEP_ASSIGN_OR_RETURN(auto layer, Linear::Create(worker, options));
    auto shared = Share(std::move(layer));
    return FullLayer{[shared](const Tensor& x) { return shared->Forward(x); },
                     [shared](const Tensor& x, const Tensor& grad_out, BackwardOptions how) {
                       return shared->Backward(x, grad_out, how);
                     },
                     shared->parameters()};
  };
}

LayerMaker Make(ColumnParallelLinear::Options options) {
  return [options](Worker& worker, Communicator& comm) -> absl::StatusOr<FullLayer> {
    LOCKSTEP_ASSIGN_OR_RETURN(auto layer, ColumnParallelLinear::Create(worker, comm, options));
    auto shared = Share(std::move(layer));
    const auto forward = [&, shared, options](const Tensor& x) -> absl::StatusOr<Tensor> {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, shared->Forward(x));
      if (options.gather_output) return y;
      return GatherLastAxis(worker, comm, y, options.out_features);
    };
    const auto backward = [&, shared, options](const Tensor& x, const Tensor& grad_out,
                                               BackwardOptions how) -> absl::StatusOr<Tensor> {
      if (options.gather_output) return shared->Backward(x, grad_out, how);
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, PartOf(comm, grad_out));
      return shared->Backward(x, part, how);
    };
    return FullLayer{forward, backward, shared->parameters()};
  };
}

LayerMaker Make(RowParallelLinear::Options options) {
  return [options](Worker& worker, Communicator& comm) -> absl::StatusOr<FullLayer> {
    LOCKSTEP_ASSIGN_OR_RETURN(auto layer, RowParallelLinear::Create(worker, comm, options));
    auto shared = Share(std::move(layer));
    const auto forward = [&, shared, options](const Tensor& x) -> absl::StatusOr<Tensor> {
      if (!options.input_is_parallel) return shared->Forward(x);
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, PartOf(comm, x));
      return shared->Forward(part);
    };
    const auto backward = [&, shared, options](const Tensor& x, const Tensor& grad_out,
                                               BackwardOptions how) -> absl::StatusOr<Tensor> {
      if (!options.input_is_parallel) return shared->Backward(x, grad_out, how);
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor part, PartOf(comm, x));
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_part, shared->Backward(part, grad_out, how));
      return GatherLastAxis(worker, comm, grad_part, options.in_features);
    };
    return FullLayer{forward, backward, shared->parameters()};
  };
}

LayerMaker Make(ParallelMlp::Options options) {
  return [options](Worker& worker, Communicator& comm) -> absl::StatusOr<FullLayer> {
    LOCKSTEP_ASSIGN_OR_RETURN(auto layer, ParallelMlp::Create(worker, comm, options));
    auto shared = Share(std::move(layer));
    auto kept = std::make_shared<ParallelMlp::Activations>();
    return FullLayer{[=](const Tensor& x) { return shared->Forward(x, kept.get()); },
                     [=](const Tensor& x, const Tensor& grad_out, BackwardOptions how) {
                       return shared->Backward(x, *kept, grad_out, how);
                     },
                     shared->parameters()};
  };
}

LayerMaker MakeUnsharded(ParallelMlp::Options options) {
  const auto make_up = Make(Linear::Options{.in_features = options.in_features,
                                            .out_features = options.hidden_features,
                                            .bias = options.bias,
                                            .dtype = options.dtype});
  const auto make_down = Make(Linear::Options{.in_features = options.hidden_features,
                                              .out_features = options.out_features,
                                              .bias = options.bias,
                                              .dtype = options.dtype});
  return [=](Worker& worker, Communicator& comm) -> absl::StatusOr<FullLayer> {
    LOCKSTEP_ASSIGN_OR_RETURN(FullLayer up, make_up(worker, comm));
    LOCKSTEP_ASSIGN_OR_RETURN(FullLayer down, make_down(worker, comm));
    const auto kept = std::make_shared<ParallelMlp::Activations>();
    const auto forward = [=, &worker](const Tensor& x) -> absl::StatusOr<Tensor> {
      LOCKSTEP_ASSIGN_OR_RETURN(kept->before, up.forward(x));
      LOCKSTEP_ASSIGN_OR_RETURN(kept->after, worker.Empty(kept->before.shape(), options.dtype));
      LOCKSTEP_RETURN_IF_ERROR(Activate(worker, options.activation, kept->before, kept->after));
      return down.forward(kept->after);
    };
    const auto backward = [=, &worker](const Tensor& x, const Tensor& grad_out,
                                       BackwardOptions how) -> absl::StatusOr<Tensor> {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad, down.backward(kept->after, grad_out, how));
      LOCKSTEP_RETURN_IF_ERROR(
          ActivateBackward(worker, options.activation, kept->before, grad, grad));
      return up.backward(x, grad, how);
    };
    std::vector<Parameter*> parameters = up.parameters;
    parameters.insert(parameters.end(), down.parameters.begin(), down.parameters.end());
    return FullLayer{forward, backward, parameters};
  };
}

Inputs Inputs::Uniform(DType dtype, std::int64_t tokens, const std::vector<std::int64_t>& features,
                       bool bias) {
  Inputs inputs{.dtype = dtype,
                .parameters = {},
                .x = Array::Uniform({tokens, features.front()}, 1),
                .grad_out = Array::Uniform({tokens, features.back()}, 2)};
  for (std::size_t i = 0; i + 1 < features.size(); ++i) {
    inputs.parameters.push_back(Array::Uniform({features[i], features[i + 1]}, 3 + 2 * i));
    if (bias) inputs.parameters.push_back(Array::Uniform({features[i + 1]}, 4 + 2 * i));
  }
  return inputs;
}

absl::StatusOr<Pass> RunPass(Worker& worker, Communicator& comm, const FullLayer& layer,
                             const Inputs& inputs, BackwardOptions options) {
  LOCKSTEP_RETURN_IF_ERROR(Load(worker, layer, inputs));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, ToTensor(worker, inputs.x, inputs.dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_out, ToTensor(worker, inputs.grad_out, inputs.dtype));
  LOCKSTEP_ASSIGN_OR_RETURN(Array x_before, ToArray(worker, x));
  LOCKSTEP_ASSIGN_OR_RETURN(Array grad_out_before, ToArray(worker, grad_out));

  Pass pass;
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, layer.forward(x));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_x, layer.backward(x, grad_out, options));
  LOCKSTEP_ASSIGN_OR_RETURN(pass.y, ToArray(worker, y));
  LOCKSTEP_ASSIGN_OR_RETURN(pass.grad_x, ToArray(worker, grad_x));
  for (const Parameter* parameter : layer.parameters) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor gradient, parameter->GatherFullGradient(worker, comm));
    LOCKSTEP_ASSIGN_OR_RETURN(pass.gradients.emplace_back(), ToArray(worker, gradient));
  }
  LOCKSTEP_RETURN_IF_ERROR(CheckUnchanged(worker, "x", x, x_before));
  LOCKSTEP_RETURN_IF_ERROR(CheckUnchanged(worker, "grad_out", grad_out, grad_out_before));
  return pass;
}

absl::StatusOr<std::vector<Pass>> RunPasses(Ranks& group, const LayerMaker& make,
                                            const Inputs& inputs) {
  std::vector<Pass> passes(static_cast<std::size_t>(group.world_size()));
  const absl::Status status = group.Run([&](Worker& worker, Communicator& comm) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(FullLayer layer, make(worker, comm));
    LOCKSTEP_ASSIGN_OR_RETURN(passes[worker.rank()], RunPass(worker, comm, layer, inputs));
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return passes;
}

absl::StatusOr<Pass> DifferencePass(Worker& worker, const FullLayer& layer, const Inputs& inputs) {
  LOCKSTEP_RETURN_IF_ERROR(Load(worker, layer, inputs));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, ToTensor(worker, inputs.x, inputs.dtype));
  Pass pass;
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor y, layer.forward(x));
  LOCKSTEP_ASSIGN_OR_RETURN(pass.y, ToArray(worker, y));
  const auto loss_of_x = [&](const Array& moved) -> absl::StatusOr<double> {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor moved_x, ToTensor(worker, moved, inputs.dtype));
    return Loss(worker, layer, moved_x, inputs.grad_out);
  };
  LOCKSTEP_ASSIGN_OR_RETURN(pass.grad_x, Difference(inputs.x, loss_of_x));
  for (std::size_t i = 0; i < inputs.parameters.size(); ++i) {
    const auto loss = [&](const Array& moved) -> absl::StatusOr<double> {
      LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, ToTensor(worker, moved, inputs.dtype));
      LOCKSTEP_RETURN_IF_ERROR(layer.parameters[i]->LoadFull(worker, full));
      return Loss(worker, layer, x, inputs.grad_out);
    };
    LOCKSTEP_ASSIGN_OR_RETURN(pass.gradients.emplace_back(),
                              Difference(inputs.parameters[i], loss));
    LOCKSTEP_RETURN_IF_ERROR(Load(worker, layer, inputs));
  }
  return pass;
}

}  // namespace lockstep::testing
