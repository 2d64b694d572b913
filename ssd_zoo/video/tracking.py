"""Track objects over frames with ByteTrack."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Tracker"]


class Tracker:
    """Tracker of a video's objects: ByteTrack per class.

    ByteTrack is that of the package `trackers`. The tracker's length is the number of tracks.

    Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box". https://arxiv.org/abs/2110.06864

    Args:
        fps: Frames per second of the video.
        score_thresh: Detections with higher scores start tracks; others can only continue a track.

    Raises:
        ImportError: If `trackers` is not installed.
    """

    def __init__(self, *, fps: float, score_thresh: float = 0.5) -> None:
        try:
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise ImportError('Tracks need the package trackers: pip install "ssd_zoo[track]".') from error
        self._new = lambda: ByteTrackTracker(
            frame_rate=fps, track_activation_threshold=score_thresh, high_conf_det_threshold=score_thresh
        )
        self._of_class: dict[int, ByteTrackTracker] = {}
        self._fps, self._time = fps, 0.0
        self._numbers: dict[tuple[int, int], int] = {}

    def update(self, detections: Mapping[str, Tensor], time: float) -> Tensor:
        """Assign the next frame's detections to tracks.

        Args:
            detections: `boxes (n, 4)`, xyxy in pixels, on the CPU, `labels (n,)` and `scores (n,)` of a frame.
            time: The frame's time in seconds. A gap counts as frames without objects, so that tracks end in it.

        Returns:
            Track of each detection, `(n,)`, int64, from 1, over all classes; -1 for detections without a track.
        """
        from supervision import Detections

        # After two seconds every track has ended.
        missed = min(round((time - self._time) * self._fps) - 1, round(2 * self._fps))
        self._time = time
        for tracker in self._of_class.values():
            for _ in range(missed):
                tracker.update(Detections.empty())

        tracks = torch.full_like(detections["labels"], -1)
        present = set(detections["labels"].tolist())
        for label in sorted(present | self._of_class.keys()):
            tracker = self._of_class.setdefault(label, self._new())
            rows = (detections["labels"] == label).nonzero().squeeze(1)
            given = Detections(
                xyxy=detections["boxes"][rows].float().numpy(),
                confidence=detections["scores"][rows].float().numpy(),
                data={"row": rows.numpy()},
            )
            tracked = tracker.update(given)
            numbers = () if tracked.tracker_id is None else tracked.tracker_id
            for row, track in zip(tracked.data.get("row", ()), numbers, strict=False):
                if track >= 0:
                    number = self._numbers.setdefault((label, int(track)), len(self._numbers) + 1)
                    tracks[int(row)] = number
        return tracks

    def __len__(self) -> int:
        return len(self._numbers)
