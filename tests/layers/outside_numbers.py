"""Prints the numbers that outside_numbers_test.cc expects. Needs PyTorch."""
import torch

torch.set_default_dtype(torch.float64)


def show(name, tensor):
    print(name, ", ".join(f"{value!r}" for value in tensor.detach().flatten().tolist()))


def wave(shape, start):
    return torch.sin(start + torch.arange(torch.Size(shape).numel(), dtype=torch.float64)).reshape(shape)


def optimizers():
    for name, make in [
            ("adamw", lambda values: torch.optim.AdamW(values, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
            ("sgd", lambda values: torch.optim.SGD(values, lr=0.05, momentum=0.9, weight_decay=0.1))]:
        values = [torch.nn.Parameter(wave((2, 2), 1)), torch.nn.Parameter(wave((3,), 2))]
        optimizer = make(values)
        for step in range(3):
            values[0].grad = wave((2, 2), 10 + step)
            values[1].grad = 3 * wave((3,), 20 + step)
            optimizer.step()
            for index, value in enumerate(values):
                show(f"{name}, step {step + 1}, parameter {index}:", value)


def mlp():
    up, down = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)
    with torch.no_grad():
        for parameter, value in [(up.weight, wave((4, 5), 1).T), (up.bias, wave((5,), 2)), (down.weight, wave((5, 3), 3).T),
                                 (down.bias, wave((3,), 4))]:
            parameter.copy_(value)
    parameters = [up.weight, up.bias, down.weight, down.bias]
    x = wave((3, 4), 5).requires_grad_()
    labels = torch.tensor([2, 0, 2])
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        logits = down(torch.nn.functional.gelu(up(x)))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        show(f"step {step + 1}, loss:", loss)
        print("correct:", int((logits.argmax(dim=1) == labels).sum()))
        if step == 0:
            show("grad_x:", x.grad)
            for index, parameter in enumerate(parameters):
                show(f"gradient {index}:", parameter.grad.T)
        optimizer.step()
    for index, parameter in enumerate(parameters):
        show(f"value {index}:", parameter.T)


print("PyTorch", torch.__version__)
optimizers()
mlp()
