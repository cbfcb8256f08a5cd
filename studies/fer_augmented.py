"""The search of `fer` on images that are mirrored and moved by up to four pixels, anew in every epoch.

The paper trained on the images as they are; a network of 133 million weights learns 24,000 of them by heart.

python -m hpo.run --study fer_augmented
"""

from dataclasses import replace

from studies.faces import face_trainer, fer2013_faces
from studies.fer import STUDY as FER

STUDY = replace(
    FER,
    name="fer_augmented",
    prepare=face_trainer(fer2013_faces(split="paper"), pool_stride=1, augmentation="flip-shift"),
)
