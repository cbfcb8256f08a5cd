"""Training as a user would write it: torch's own layers in the paper's order, float32, PNG files, a DataLoader.

What our own is measured beside; it imports nothing of this project.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


def network(stride: int, dropout: float, image_size: int = 48) -> nn.Module:
    """The network, compact (stride 2) or as published (1)."""
    layers: list[nn.Module] = []
    n_in, size = 1, image_size
    for n_out in (64, 128, 256):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
        layers += [nn.MaxPool2d(2, stride), nn.Dropout(dropout)]
        n_in, size = n_out, (size - 2) // stride + 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_in * size**2, 256), nn.ReLU(), nn.Linear(256, 7))


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Reads a PNG file an image, `folder/<class>/<name>.png`, as torchvision's ImageFolder does."""

    def __init__(self, folder: Path) -> None:
        self.files = [(path, int(path.parent.name)) for path in sorted(folder.glob("*/*.png"))]

    def __len__(self) -> int:
        """How many images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image float32 [1, S, S] and class."""
        path, label = self.files[index]
        pixels = np.asarray(Image.open(path).convert("L"), np.float32) / 255
        return (torch.from_numpy(pixels)[None] - 0.5) / 0.25, label


def write_images(images: Any, labels: Any, folder: Path) -> None:
    """Write images uint8 [N, S, S] to where `ImageFolder` reads them."""
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / str(int(label))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{row}.png")


def make_optimizer(name: str, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """By the names of this project's studies."""
    kinds: dict[str, Any] = {
        "sgd": lambda p: torch.optim.SGD(p, learning_rate),
        "momentum": lambda p: torch.optim.SGD(p, learning_rate, momentum=0.9, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, learning_rate),
        "adamw": lambda p: torch.optim.AdamW(p, learning_rate),
        "rmsprop": lambda p: torch.optim.RMSprop(p, learning_rate),
    }
    found: torch.optim.Optimizer = kinds[name](model.parameters())
    return found


def train_epoch(model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """Loss and accuracy over an epoch, read from the device at every step."""
    criterion = nn.CrossEntropyLoss()
    model.train()
    total, hits, n = 0.0, 0, 0
    for images, labels in loader:
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        hits += int((outputs.argmax(1) == labels).sum().item())
        n += len(labels)
    return total / n, hits / n


def validate(model: nn.Module, loader: DataLoader[Any]) -> tuple[float, float]:
    """Loss and accuracy on the validation images."""
    criterion = nn.CrossEntropyLoss()
    model.eval()
    total, hits, n = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in loader:
            outputs = model(images)
            total += criterion(outputs, labels).item() * len(labels)
            hits += int((outputs.argmax(1) == labels).sum().item())
            n += len(labels)
    return total / n, hits / n


def epochs(folder: Path, params: dict[str, Any], image_size: int, weights: Path) -> Iterator[dict[str, float]]:
    """Train the compact network as `params` say; yields an epoch's metrics, and keeps the best weights in a file."""
    model = network(2, params["dropout"], image_size)
    training = DataLoader(ImageFolder(folder / "train"), params["batch_size"], shuffle=True)
    validation = DataLoader(ImageFolder(folder / "validation"), params["batch_size"])
    optimizer = make_optimizer(params["optimizer"], model, params["learning_rate"])
    best = -1.0
    for _ in range(params["epochs"]):
        train_loss, train_accuracy = train_epoch(model, training, optimizer)
        val_loss, val_accuracy = validate(model, validation)
        if val_accuracy > best:
            best = val_accuracy
            torch.save(model.state_dict(), weights)
        yield {
            "train_loss": train_loss, "train_accuracy": train_accuracy, "val_loss": val_loss,
            "val_accuracy": val_accuracy,
        }  # fmt: skip
