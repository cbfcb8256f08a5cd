"""Optimizers by name, and the learning rate's decay. A new optimizer is one more entry of `OPTIMIZERS`.

Importing this takes no time: the studies read the table, and torch comes when an optimizer is made.
"""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter
    from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Kind:
    """An optimizer.

    Attributes:
        name: of the class in torch.optim.
        reference_rate: a learning rate that is sensible on small convolution networks: the middle of a search.
        state_tensors: how many tensors of the size of the weights it keeps, zeros at first: what its checkpoint costs.
        is_fused: whether torch has it as one pass over the weights.
        is_capturable: whether it has to be told that its steps are captured.
        constants: what else it is made with; all others are torch's defaults.
    """

    name: str
    reference_rate: float
    state_tensors: int
    constants: dict[str, Any]
    is_fused: bool = True
    is_capturable: bool = True

    def make(
        self, weights: "Iterable[Parameter]", learning_rate: float, weight_decay: float, *, captured: bool = False
    ) -> "Optimizer":
        """An optimizer of these weights, all updated in one pass.

        Args:
            weights: to update.
            learning_rate: of the first update.
            weight_decay: an L2 penalty, or as the optimizer has it.
            captured: whether its steps are captured as a CUDA graph, with the learning rate as a tensor.
        """
        import torch.optim

        _spare_the_compiler()
        kind = getattr(torch.optim, self.name)
        how = {"fused" if self.is_fused else "foreach": True}
        if captured and self.is_capturable:
            how["capturable"] = True
        made: Optimizer = kind(weights, lr=learning_rate, weight_decay=weight_decay, **how, **self.constants)
        return made


def update(optimizer: "Optimizer") -> None:
    """One update of the weights by their gradients: the optimizer's own `step`.

    Without what torch wraps it in, hooks that nobody has here among it: that imports its compiler, 1.8 s for every
    worker, only to be left alone by it.
    """
    import torch

    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


def _spare_the_compiler() -> None:
    """Let none of an optimizer's other methods import torch's compiler.

    `torch._compile._disable_dynamo` does so on a method's first call, unless the method has this attribute; in a torch
    that names it otherwise this does nothing. It is for the whole process: whoever compiles these methods in it, as
    nobody does here, has them compiled.
    """
    import torch.optim

    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        plain = inspect.unwrap(getattr(torch.optim.Optimizer, name))
        plain.__dict__.setdefault("__dynamo_disable", plain)


OPTIMIZERS = {
    "sgd": Kind("SGD", 0.05, 0, {}, is_capturable=False),
    "momentum": Kind("SGD", 0.005, 1, {"momentum": 0.9, "nesterov": True}, is_capturable=False),
    "adam": Kind("Adam", 3e-4, 2, {}),
    "adamw": Kind("AdamW", 3e-4, 2, {}),
    "rmsprop": Kind("RMSprop", 1e-4, 1, {}, is_fused=False),
}
"""By the names that a study suggests.

Source of the rates: sgd is the paper's; momentum's is that times (1 - 0.9); the best rates of three-layer CNNs in
DeepOBS's baselines are 0.025 to 0.16 for SGD and 1e-4 to 1e-3 for Adam.
"""


def decayed(learning_rate: float, decay: float, updates: int) -> float:
    """The learning rate after some updates: learning_rate / (1 + decay · updates).

    Source: Keras's SGD of 2016 to 2019 (`decay`), which "decay 1e-5 after each update" of the paper names.
    """
    return learning_rate / (1 + decay * updates)


def set_learning_rate(optimizer: "Optimizer", learning_rate: float) -> None:
    """Give the optimizer this learning rate for its next update."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def state_to(optimizer: "Optimizer", device: "torch.device") -> None:
    """Move what the optimizer remembers to the device of its weights."""
    import torch

    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                state[name] = value.to(device)
