// Against numbers from outside: outside_numbers.py prints them, by PyTorch 2.11 in float64. (JAX
// 0.10.2 with Optax 0.2.8 has the same ones.)
#include <cmath>

#include "lockstep/layers/optimizer.h"
#include "lockstep/layers/parallel_mlp.h"
#include "lockstep/runtime/elementwise.h"
#include "lockstep/tests/catch.h"
#include "lockstep/tests/layers/sharded.h"

namespace lockstep::testing {
namespace {

// As wave() there: sines of start, start + 1, ...
Array Wave(Shape shape, double start) {
  Array array = Array::Constant(std::move(shape), 0.0);
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    array.values[i] = std::sin(start + static_cast<double>(i));
  }
  return array;
}

bool Near(const Array& found, const std::vector<double>& expected) {
  return Distance(found, {found.shape, expected}) < 1e-12;
}

struct Step {
  std::vector<double> first;
  std::vector<double> second;
};

// Three steps over two parameters, whose gradients change from step to step.
template <typename Optimizer, typename Options>
void RequireSteps(const Options& options, const std::vector<Step>& expected) {
  auto worker = Worker::Adopt(0, 1, Device::Cpu());
  REQUIRE_OK(worker);
  auto first = Parameter::Create(*worker, "first", {2, 2}, DType::kFloat64);
  auto second = Parameter::Create(*worker, "second", {3}, DType::kFloat64);
  REQUIRE_OK(first);
  REQUIRE_OK(second);
  const auto write = [&](const Array& array, const Tensor& out) -> absl::Status {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor tensor, ToTensor(*worker, array, DType::kFloat64));
    return Copy(*worker, tensor, out);
  };
  REQUIRE_OK(write(Wave({2, 2}, 1), first->value()));
  REQUIRE_OK(write(Wave({3}, 2), second->value()));
  auto optimizer = Optimizer::Create(*worker, {&*first, &*second}, options);
  REQUIRE_OK(optimizer);
  for (std::size_t step = 0; step < expected.size(); ++step) {
    const auto start = static_cast<double>(step);
    Array tripled = Wave({3}, 20 + start);
    for (double& value : tripled.values) value *= 3;
    REQUIRE_OK(write(Wave({2, 2}, 10 + start), first->gradient()));
    REQUIRE_OK(write(tripled, second->gradient()));
    REQUIRE_OK(optimizer->Step());
    const auto first_value = ToArray(*worker, first->value());
    const auto second_value = ToArray(*worker, second->value());
    REQUIRE_OK(first_value);
    REQUIRE_OK(second_value);
    CAPTURE(step, first_value->values, second_value->values);
    REQUIRE(Near(*first_value, expected[step].first));
    REQUIRE(Near(*second_value, expected[step].second));
  }
}

// What rank 0 sees of three steps of training.
struct Training {
  std::vector<double> losses;
  std::vector<std::int64_t> num_correct;
  Array grad_x;
  std::vector<Array> gradients;
  std::vector<Array> values;
};

absl::Status Train(Worker& worker, Communicator& comm, Training& training) {
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto mlp,
      ParallelMlp::Create(
          worker, comm,
          {.in_features = 4, .hidden_features = 5, .out_features = 3, .dtype = DType::kFloat64}));
  double start = 1;
  for (const Parameter* parameter : mlp.parameters()) {
    LOCKSTEP_ASSIGN_OR_RETURN(
        Tensor full, ToTensor(worker, Wave(parameter->full_shape(), start++), DType::kFloat64));
    LOCKSTEP_RETURN_IF_ERROR(parameter->LoadFull(worker, full));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(
      auto sgd, Sgd::Create(worker, mlp.parameters(), {.learning_rate = 0.5, .momentum = 0.9}));
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor x, ToTensor(worker, Wave({3, 4}, 5), DType::kFloat64));
  std::int32_t classes[] = {2, 0, 2};
  LOCKSTEP_ASSIGN_OR_RETURN(Tensor labels, worker.Empty({3}, DType::kInt32));
  LOCKSTEP_RETURN_IF_ERROR(Copy(worker, Tensor::View(classes, {3}, DType::kInt32), labels));
  for (int step = 0; step < 3; ++step) {
    ParallelMlp::Activations kept;
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor logits, mlp.Forward(x, &kept));
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad, worker.Empty(logits.shape(), DType::kFloat64));
    LOCKSTEP_ASSIGN_OR_RETURN(CrossEntropyResult result,
                              SoftmaxCrossEntropy(worker, logits, labels, grad));
    training.losses.push_back(result.loss);
    training.num_correct.push_back(result.num_correct);
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor grad_x, mlp.Backward(x, kept, grad));
    if (step == 0) {
      LOCKSTEP_ASSIGN_OR_RETURN(training.grad_x, ToArray(worker, grad_x));
      for (const Parameter* parameter : mlp.parameters()) {
        LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, parameter->GatherFullGradient(worker, comm));
        LOCKSTEP_ASSIGN_OR_RETURN(training.gradients.emplace_back(), ToArray(worker, full));
      }
    }
    LOCKSTEP_RETURN_IF_ERROR(sgd.Step());
  }
  for (const Parameter* parameter : mlp.parameters()) {
    LOCKSTEP_ASSIGN_OR_RETURN(Tensor full, parameter->GatherFull(worker, comm));
    LOCKSTEP_ASSIGN_OR_RETURN(training.values.emplace_back(), ToArray(worker, full));
  }
  return absl::OkStatus();
}

}  // namespace

TEST_CASE("AdamW takes PyTorch's three steps, over two parameters") {
  RequireSteps<AdamW>(
      AdamWOptions{
          .learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.1},
      {{{0.8506294954414828, 0.9183881193987681, 0.1509788694150461, -0.7660456690126185},
        {0.8983881330500412, 0.13097889203592203, -0.746046069390559}},
       {{0.8596158122096555, 0.9267892397664873, 0.15093302300513212, -0.7748817469856696},
        {0.8875365313331992, 0.1245649338682092, -0.7374776059434374}},
       {{0.8682619689596895, 0.9297256691273891, 0.14504765866106598, -0.7837344897600481},
        {0.8794116313705156, 0.1263353458850531, -0.7277653064661065}}});
}

TEST_CASE("SGD with momentum and weight decay takes PyTorch's three steps, over two parameters") {
  RequireSteps<Sgd>(
      SgdOptions{.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 0.1},
      {{{0.8644646854283256, 0.9547504500190884, 0.16724305391958963, -0.7740268346727206},
        {0.7678091520824091, 0.01491606223915945, -0.7516907864378279}},
       {{0.9308362028871052, 1.0177130645430807, 0.1689092280824098, -0.8351889737124136},
        {0.5111323132726433, -0.09741437291711275, -0.616398733896273}},
       {{1.0127450334855932, 1.0482825004506264, 0.12003387090379239, -0.9185733459874312},
        {0.2788951931710515, -0.07109163206689655, -0.35571713863839854}}});
}

TEST_CASE("An MLP trains over three images as PyTorch has it: losses, gradients and values",
          "[gpu]") {
  auto group = CreateRanks(GENERATE(1, 2, 3, 6));
  REQUIRE_OK(group);
  std::vector<Training> trainings(static_cast<std::size_t>(group->world_size()));
  REQUIRE_OK(group->Run([&](Worker& worker, Communicator& comm) {
    return Train(worker, comm, trainings[worker.rank()]);
  }));
  for (const Training& found : trainings) {
    CAPTURE(found.losses, found.num_correct);
    REQUIRE(
        Near({{3}, found.losses}, {1.2401559550687986, 0.35815080569765145, 0.0850352446949462}));
    REQUIRE(found.num_correct == std::vector<std::int64_t>{2, 3, 3});
    REQUIRE(
        Near(found.grad_x, {-0.18052904184421964, -0.4342779903886227, -0.0658474458602098,
                            0.39692112958886555, 0.02465234286014817, 0.17618592407770076,
                            0.07530222568332914, -0.1334651362625443, 0.019581016196689054,
                            0.023220490902856765, -0.0064074658026224245, -0.026855602408562294}));
    REQUIRE(Near(
        found.gradients[0],
        {-0.025103619932154143, -0.005796752644443651, 0.1221882576593261,   0.31002466640948523,
         -0.45392514200321316,  0.17824526346703498,   -0.26260251350651465, 0.1620935252680524,
         0.0487813287406418,    -0.16608931930042029,  0.21771627365478027,  -0.2779727345042347,
         0.052970753277922444,  -0.25731133760572417,  0.27444825760703956,  0.057019945894358444,
         -0.03777610533570575,  -0.10485308498878476,  -0.32683314680941805, 0.4626593721535737}));
    REQUIRE(
        Near(found.gradients[1], {-0.0666812966744976, 0.059455967924867875, 0.14013435399425986,
                                  -0.4086017521714884, 0.4830986805588832}));
    REQUIRE(
        Near(found.gradients[2],
             {-0.3977631700833369, 0.14503148643898786, 0.252731683644349, -0.08280426639242021,
              0.13066240775395888, -0.04785814136153865, 0.051576713397915995, 0.03784634900147386,
              -0.08942306239938984, 0.07018780144157634, 0.0054789847210281965,
              -0.07566678616260454, 0.5338939399816093, 0.08348200852135147, -0.6173759485029608}));
    REQUIRE(
        Near(found.gradients[3], {0.19528488923470128, 0.18043324785264847, -0.3757181370873497}));
    REQUIRE(Near(
        found.values[0],
        {0.8785134301098616,  0.9424963056605707,   -0.07835545718283805, -1.2928760140812374,
         -0.2604126341991867, -0.6427667107634514,  1.171666389482091,    0.682441282651812,
         0.36351692353730436, -0.28300735545510847, -1.429671647829864,   -0.01360644136903677,
         0.3079866153815704,  1.474161802752763,    0.2338288675420332,   -0.388867851124292,
         -0.9109572962114965, -0.565292963560169,   0.7210099368837498,   0.20190400888655394}));
    REQUIRE(Near(found.values[1], {1.0175975999239066, 0.09685741513629802, -1.0333815499549692,
                                   -0.1929672118642704, -1.0199301154040268}));
    REQUIRE(
        Near(found.values[2],
             {0.8567970968476517, -1.0138427193376924, -1.4175611394211591, -0.18406994487035683,
              0.373409306008712, 1.1775899860048895, 0.3188554381459452, -0.6127444457915749,
              -0.838003824552687, -0.6832907873334373, 0.34256230863649173, 1.214929953218022,
              -0.13870032272004604, -0.4641725840986996, 0.003859938431240606}));
    REQUIRE(Near(found.values[3], {-1.0709781373677436, -1.3706817006302376, 0.44651756982798835}));
  }
}

}  // namespace lockstep::testing
