"""PathDiff's faithfulness scores (section 4.3): how far images follow their masks, by a segmenter S of real images.

    FS1 = Dice(S(made), given mask)      FS2 = Dice(S(made), S(real))      reference = Dice(S(real), given mask)

S errs on real images too, so FS1 is compared with the reference: their ratio is 1 if made images are as good as real
ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.data.listings import DatasetInvalid
from workers.evaluation.dice import class_dices, dice_by_image, foreground_of, pooled_dice
from workers.evaluation.metrics import confusion_matrix
from workers.evaluation.realism import rounded
from workers.evaluation.segmenter import TrainedSegmenter

TARGET_RATIO = 0.90
"""The ratio of FS1 to the reference that a good model reaches."""


def classes_to_follow(masks: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """The foreground classes of the masks. Raises :class:`DatasetInvalid` if there are none."""
    classes = foreground_of(masks, num_classes)
    if not classes:
        raise DatasetInvalid(
            f"all {len(masks)} test masks are empty (class 0 alone); faithfulness needs masks with foreground"
        )
    return classes


@dataclass(frozen=True)
class Reference:
    """Real test images ``(N, s, s, 3)`` and masks ``(N, s, s)``, with S's prediction and the foreground classes."""

    segmenter: TrainedSegmenter
    images: np.ndarray
    masks: np.ndarray
    found: np.ndarray
    classes: tuple[int, ...]

    @classmethod
    def of(cls, segmenter: TrainedSegmenter, images: np.ndarray, masks: np.ndarray) -> Reference:
        """Raises :class:`DatasetInvalid` as :func:`classes_to_follow` does."""
        classes = classes_to_follow(masks, segmenter.network.head.out_channels)
        return cls(segmenter, images, masks, segmenter.predict(images), classes)

    @property
    def num_classes(self) -> int:
        """All classes, background included."""
        return self.segmenter.network.head.out_channels

    def figures(self) -> dict[str, Any]:
        """The figures of S on the real test images."""
        return {
            "dice": rounded(self._pooled(self.masks, self.found)),
            "dice_mean_of_images": rounded(dice_by_image(self.masks, self.found, self.num_classes).mean()),
            "classes": list(self.classes),
        }

    def faithfulness(self, made: np.ndarray) -> dict[str, Any]:
        """FS1, FS2 and their ratio to the reference, of images ``(N, s, s, 3)``, one for each mask in order.

        Dice is over all pixels of all images at once, the mean over the foreground classes that occur in the masks; the
        means of the images' own Dice stand beside it.
        """
        seen = self.segmenter.predict(made)
        fs1, reference = self._pooled(self.masks, seen), self._pooled(self.masks, self.found)
        by_class = class_dices(confusion_matrix(self.masks, seen, self.num_classes))
        return {
            "fs1": rounded(fs1),
            "fs2": rounded(self._pooled(self.found, seen)),
            "reference": rounded(reference),
            "ratio": rounded(fs1 / reference if reference else float("nan")),
            "fs1_mean_of_images": rounded(dice_by_image(self.masks, seen, self.num_classes).mean()),
            "fs2_mean_of_images": rounded(dice_by_image(self.found, seen, self.num_classes).mean()),
            "fs1_by_class": {str(index): rounded(by_class[index]) for index in self.classes},
        }

    def _pooled(self, true: np.ndarray, predicted: np.ndarray) -> float:
        return pooled_dice(true, predicted, self.num_classes, self.classes)
