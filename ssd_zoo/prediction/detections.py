"""The detections in one image."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from ssd_zoo.data.draw import draw_detections
from ssd_zoo.prediction.results import ResultRow, result_rows, table
from ssd_zoo.prediction.sources import Source, read_pixels, rgb_bytes

if TYPE_CHECKING:
    import pandas
    import supervision

__all__ = ["Detections"]

_MOST_ROWS = 20


class Detections(dict[str, Tensor]):
    """Detections in one image: torchvision's dict of tensors, with names.

    The keys are `boxes (n, 4)`, xyxy in the image's pixels, `labels (n,)` and `scores (n,)`, in falling order of score.
    `print` shows them as a table, and a notebook shows the picture with its boxes.

    Args:
        found: The dict of a detector. Its tensors are not copied.
        categories: Class names by label, background first. Labels without a name are called by their number.
        image: The image, as it was given to `predict`; None if it was not kept.
        title: Name of the image, such as its path.

    Attributes:
        categories: Class names by label, background first.
        image: The image, as it was given; None if it was not kept.
        title: Name of the image, such as its path.
    """

    def __init__(
        self,
        found: Mapping[str, Tensor],
        categories: Sequence[str] = (),
        *,
        image: Source | bytes | None = None,
        title: str = "image",
    ) -> None:
        super().__init__(found)
        self.categories, self.image, self.title = list(categories), image, title

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        known = self._known()
        return [known[label] for label in self["labels"].tolist()]

    def _known(self) -> list[str]:
        count = max(self["labels"].tolist(), default=-1) + 1
        return [*self.categories, *map(str, range(len(self.categories), count))]

    def draw(self, image: Source | None = None) -> Image.Image:
        """Draw boxes, class names and scores on the image.

        Args:
            image: Anything that `predict` takes as one image; by default the image of the detections. A file is read
                again.

        Returns:
            The picture, in the image's size.

        Raises:
            ConnectionError: If the image's address can't be fetched.
            FileNotFoundError: If the image's file is gone.
            ValueError: If the image was not kept, because it came from an iterator, or it is not RGB or grey.
        """
        source = self.image if image is None else image
        if source is None:
            raise ValueError("The image was not kept, because it came from an iterator: give it to draw(image).")
        return draw_detections(rgb_bytes(read_pixels(source)), self, self._known())

    def to_coco(self, image_id: int = 0) -> list[ResultRow]:
        """Convert to COCO's results, with names of file and class.

        Args:
            image_id: The image's id.

        Returns:
            A dict per detection: `image_id`, `file_name`, `category_id`, `category`, `bbox` (x, y, width, height) and
            `score`. The ids of COCO's 80 classes are the official ones; otherwise they are the labels.
        """
        return result_rows(self, self._known(), image_id, self.title)

    def to_supervision(self) -> "supervision.Detections":
        """Convert to `supervision.Detections`, for its annotators and trackers.

        Class names are in `data["class_name"]`.

        Raises:
            ImportError: If the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs the package supervision: pip install supervision.") from error
        import numpy as np

        return supervision.Detections(
            xyxy=self["boxes"].float().cpu().numpy().reshape(-1, 4),
            confidence=self["scores"].float().cpu().numpy(),
            class_id=self["labels"].cpu().numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def to_dataframe(self) -> "pandas.DataFrame":
        """Convert to a pandas table: a row per detection.

        Returns:
            Columns `file_name`, `name`, `label`, `score`, `x1`, `y1`, `x2` and `y2`; boxes in pixels of the image.

        Raises:
            ImportError: If the package pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe needs the package pandas: pip install pandas.") from error
        corners = zip(("x1", "y1", "x2", "y2"), self["boxes"].reshape(-1, 4).T.tolist(), strict=True)
        labels, scores = self["labels"].tolist(), self["scores"].tolist()
        start = {"file_name": self.title, "name": self.names, "label": labels, "score": scores}
        return pandas.DataFrame({**start, **dict(corners)}, index=range(len(labels)))

    def __repr__(self) -> str:
        return table(self.title, self.to_coco(), most=_MOST_ROWS).rstrip("\n")

    def _repr_png_(self) -> bytes | None:
        """Return the picture for notebooks; None if the image is gone, so that the text is shown."""
        try:
            picture = self.draw()
        except (OSError, ValueError):
            return None
        stream = io.BytesIO()
        picture.save(stream, format="PNG")
        return stream.getvalue()
