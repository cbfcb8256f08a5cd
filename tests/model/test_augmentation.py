"""Training images are mirrored and moved, and stay the faces that they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.augmentation import moved, reach, varied

IMAGES = torch.randint(0, 256, (5, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ROWS = torch.tensor([3, 0, 3, 4])


def drawn(augmentation, seed: int):
    return varied(IMAGES, ROWS, augmentation, torch.Generator().manual_seed(seed))


def test_none_leaves_images_and_generator_as_they_are():
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()

    assert torch.equal(varied(IMAGES, ROWS, "none", generator), IMAGES[ROWS])
    assert torch.equal(generator.get_state(), before)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_flip_gives_each_image_or_its_mirror(seed):
    for row, image in zip(ROWS, drawn("flip", seed), strict=True):
        assert torch.equal(image, IMAGES[row]) or torch.equal(image, IMAGES[row].flip(1))


def test_half_are_mirrored():
    many = torch.zeros(4_000, dtype=torch.int64)
    images = varied(IMAGES, many, "flip", torch.Generator().manual_seed(0))

    assert (images == IMAGES[0]).all(dim=(1, 2)).float().mean().item() == pytest.approx(0.5, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1), st.integers(-2, 2), st.integers(-2, 2))
def test_a_moved_image_has_its_own_pixels_and_its_edge_where_it_was_uncovered(flip, down, right):
    (image,) = moved(IMAGES, torch.tensor([2]), torch.tensor([flip]), torch.tensor([[down], [right]]))

    padded = torch.nn.functional.pad(IMAGES[2].float()[None, None], (2, 2, 2, 2), mode="replicate")[0, 0]
    expected = padded[2 - down : 26 - down, 2 - right : 26 - right]
    assert torch.equal(image.float(), expected.flip(1) if flip else expected)


def test_a_shift_reaches_a_twelfth_of_the_side():
    assert (reach("flip-shift", 48), reach("flip-shift", 24), reach("flip", 48)) == (4, 2, 0)


def test_the_same_generator_varies_the_same():
    assert torch.equal(drawn("flip-shift", 5), drawn("flip-shift", 5))
    assert not torch.equal(drawn("flip-shift", 5), drawn("flip-shift", 6))
