import numpy as np
import pytest

from data.synthetic import synthetic_faces


def test_equal_arguments_give_equal_bytes_and_another_seed_others():
    first, again = (synthetic_faces(n_train=20, n_validation=8, seed=3) for _ in range(2))
    other = synthetic_faces(n_train=20, n_validation=8, seed=4)

    assert np.array_equal(first.images, again.images)
    assert first.digest == again.digest != other.digest


def test_faces_are_uint8_balanced_and_split_as_asked():
    faces = synthetic_faces(n_train=70, n_validation=14, n_test=7, image_size=24)

    assert faces.images.shape == (91, 24, 24)
    assert faces.images.dtype == np.uint8
    assert faces.counts() == {"train": [10] * 7, "validation": [2] * 7, "test": [1] * 7}


def test_clean_faces_of_one_emotion_are_alike_and_of_two_differ():
    faces = synthetic_faces(n_train=14, n_validation=0, variation=0)
    by_label = {label: faces.images[faces.labels == label] for label in range(7)}

    assert all(np.array_equal(images[0], images[1]) for images in by_label.values())
    assert len({images[0].tobytes() for images in by_label.values()}) == 7


@pytest.mark.parametrize("wrong", [{"n_train": 3}, {"n_train": -1}, {"n_train": 20, "image_size": 8}])
def test_counts_and_sizes_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="need at least"):
        synthetic_faces(**{"n_validation": 2, **wrong})
