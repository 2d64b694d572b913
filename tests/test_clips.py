"""Clips as inputs, their targets and their detections."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

import ssd_zoo
from ssd_zoo.detector.frames import join_frames, split_frames, targets_of_frames
from ssd_zoo.video import detect_stream

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = torch.rand(3, 3, 80, 60, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[5.0, 5, 40, 50], [10, 10, 50, 60], [20, 20, 55, 75]])
TARGET = {"boxes": BOXES, "labels": torch.tensor([1, 2, 1]), "frame_index": torch.tensor([0, 0, 2])}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ssd_zoo.ssdlite300_mobilenet_v2_3d(weights_backbone=None, num_classes=3, size=96)


def losses_of(model, clips, targets):
    model.eval()
    with torch.no_grad():
        return model(clips, targets, return_losses=True)[1]


def images_and_targets(frames, target):
    """The same clip as images."""
    of_frames, _ = targets_of_frames([target], [frames])
    return [CLIP[frame] for frame in frames], of_frames


def test_losses_of_a_clip_are_those_of_its_frames():
    torch.manual_seed(0)
    image = ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=3, size=96)
    images, of_images = images_and_targets([0, 1, 2], TARGET)
    torch.testing.assert_close(losses_of(image, [CLIP], [TARGET]), losses_of(image, images, of_images))


def test_unlabeled_frames_take_no_part():
    torch.manual_seed(0)
    image = ssd_zoo.ssdlite300_mobilenet_v2(weights_backbone=None, num_classes=3, size=96)
    labeled = {**TARGET, "labeled_frames": torch.tensor([0, 2])}
    images, of_images = images_and_targets([0, 2], TARGET)
    actual = losses_of(image, [CLIP], [labeled])
    torch.testing.assert_close(actual, losses_of(image, images, of_images))
    assert actual["classification"] != losses_of(image, [CLIP], [TARGET])["classification"]


def test_trains_on_clips_of_any_lengths(model):
    model.train()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "frame_index": torch.zeros(0).long()}
    losses = model([CLIP, CLIP[:1, :, :50]], [TARGET, nothing])
    sum(losses.values()).backward()
    kernel = model.backbone.blocks[8].depthwise.conv.weight
    assert kernel.grad[: 2 * len(kernel) // 3].abs().sum() > 0, "taps for the past learn, though they start from zero"


def test_transforms_and_tv_tensors_go_in(model):
    clip = tv_tensors.Video((CLIP * 255).byte())
    target = {**TARGET, "boxes": tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(80, 60))}
    transform = v2.Compose([v2.RandomHorizontalFlip(1), v2.Resize((40, 30))])
    flipped, moved = transform(clip, target)
    assert flipped.shape == (3, 3, 40, 30)
    torch.testing.assert_close(moved["boxes"][0].as_subclass(torch.Tensor), torch.tensor([10, 2.5, 27.5, 25]))
    assert losses_of(model, [flipped], [moved])["bbox_regression"] > 0


def test_a_batch_of_clips(model):
    model.eval()
    with torch.no_grad():
        listed, batched = model([CLIP, CLIP.flip(0)]), model(torch.stack([CLIP, CLIP.flip(0)]))
    torch.testing.assert_close(listed, batched)


def test_join_and_split_are_inverse():
    frames = [
        {"boxes": torch.rand(n, 4), "labels": torch.ones(n).long(), "scores": torch.rand(n)} for n in (2, 0, 3, 1)
    ]
    one, two = join_frames(frames, [[5, 6, 7], [0]])
    assert one["frame_index"].tolist() == [5, 5, 7, 7, 7]
    parts = split_frames(one, 3, start=5) + split_frames(two, 1)
    assert len(parts) == 4
    for part, frame in zip(parts, frames, strict=True):
        torch.testing.assert_close(part, frame)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("images", [list(CLIP), CLIP, [CLIP[0]]])
def test_images_for_a_model_that_looks_back_are_told_once(images, training):
    model = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights_backbone=None, num_classes=3, size=96).train(training)
    targets = [{"boxes": BOXES[:1], "labels": torch.tensor([1])}] * len(images)
    with pytest.warns(UserWarning, match=r"images \(C, H, W\).* one by one.*a clip \(T, C, H, W\) in a list") as caught:
        model(images, targets)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    model(images, targets)


def test_a_clip_of_one_frame_is_an_image():
    torch.manual_seed(0)
    model = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights_backbone=None, num_classes=3, size=96, inflate="average").eval()
    with torch.no_grad():
        [clip] = model([CLIP[:1]])
        with pytest.warns(UserWarning, match="one by one"):
            [image] = model([CLIP[0]])
    assert set(clip.pop("frame_index").tolist()) == {0}
    torch.testing.assert_close(clip, image)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (CLIP[0], r"Got one tensor of shape \(3, 80, 60\); step takes a list .*: step\(\[frame\], state\)\."),
        (CLIP, r"Got one tensor of shape \(3, 3, 80, 60\).*: step\(\[frames\], state\), or step\(list\(frames\)"),
        ([], "Got no images"),
        (["frame.jpg"], r"images\[0\] is a str, not a tensor"),
        ([CLIP, CLIP[0]], r"clips\[1\] has shape \(3, 80, 60\)"),
    ],
)
@pytest.mark.parametrize("name", ["ssdlite300_mobilenet_v2", "ssdlite300_mobilenet_v2_3d"])
def test_frames_of_streams_come_in_a_list(images, message, name):
    model = ssd_zoo.get_model(name, weights_backbone=None, num_classes=3, size=96).eval()
    with pytest.raises((ValueError, TypeError), match=message):
        model.step(images)


@pytest.mark.parametrize("call", [lambda model: model([CLIP]), lambda model: model.step([CLIP])])
def test_models_that_do_not_look_back_yet_say_so(call, caplog):
    settings = {"weights_backbone": None, "num_classes": 3, "size": 96}
    model = ssd_zoo.ssdlite300_mobilenet_v2_3d(**settings).eval()
    call(model)
    call(model)
    assert [record.getMessage()[:40] for record in caplog.records] == ["This model does not look back yet: its w"]
    caplog.clear()
    trained = ssd_zoo.ssdlite300_mobilenet_v2_3d(**settings, temporal="3d").eval()
    trained.backbone.blocks[8].depthwise.conv.weight.data[0] = 1
    others = [
        ssd_zoo.ssdlite300_mobilenet_v2_3d(**settings, temporal="shift"),
        ssd_zoo.ssdlite300_mobilenet_v2(**settings),
    ]
    for model in (trained, *others):
        call(model.eval())
    assert not caplog.records


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([CLIP, CLIP[0]], r"clips\[1\] has shape \(3, 80, 60\).*image.unsqueeze\(0\)"),
        ([CLIP.transpose(0, 1)[:, :2]], r"clips\[0\] has shape \(3, 2, 80, 60\).*puts time first"),
        ([CLIP[:0]], r"clips\[0\] has shape .* no frame"),
        ([CLIP.long()], "dtype"),
    ],
)
def test_bad_clips(model, clips, message):
    model.eval()
    with pytest.raises((ValueError, TypeError), match=message):
        model(clips)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_index": torch.tensor([0, 0, 3])}, r"targets\[0\]\['frame_index'\] goes from 0 to 3; .*are 0 to 2"),
        ({"frame_index": torch.tensor([0, 0])}, "has 3 boxes and a frame_index of shape"),
        ({"frame_index": torch.tensor([0.0, 0, 1])}, "'frame_index'.* has dtype torch.float32"),
        ({"labeled_frames": torch.tensor([0])}, "box on frame 2, which is not among its labeled_frames"),
        ({"labels": torch.tensor([1, 2, 3])}, r"targets\[0\]\['labels'\]\[2\] is 3"),
        ({"frame_index": None}, "has no 'frame_index'"),
    ],
)
def test_bad_targets(model, change, message):
    target = {key: value for key, value in {**TARGET, **change}.items() if value is not None}
    with pytest.raises((ValueError, TypeError), match=message):
        losses_of(model, [CLIP], [target])


def test_clips_without_a_labeled_frame_have_no_loss(model):
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "frame_index": torch.zeros(0).long()}
    with pytest.raises(ValueError, match="no frame that gets feature maps is labeled"):
        losses_of(model, [CLIP], [{**empty, "labeled_frames": torch.zeros(0).long()}])


def test_fit_trains_on_clips(tmp_path):
    pytest.importorskip("accelerate")
    from ssd_zoo.training import fit

    torch.manual_seed(0)
    model = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights_backbone=None, num_classes=3, size=64)
    before = model.backbone.blocks[8].depthwise.conv.weight.clone()
    clips = [((CLIP * 255).byte(), {**TARGET, "labeled_frames": torch.tensor([0, 2])})] * 2
    settings = {"augmentation": None, "tensorboard": False, "progress": False}
    result = fit(model, clips, output=tmp_path, epochs=1, batch_size=2, **settings)
    assert not torch.equal(result.model.backbone.blocks[8].depthwise.conv.weight.cpu(), before)


@pytest.mark.parametrize("name", ["coco", torch.nn.Identity()])
def test_detect_stream_takes_a_detector(name):
    with pytest.raises(TypeError, match=r"Expected a detector, got .*ssd_zoo.prediction.open_detector"):
        next(detect_stream(name, CLIP))


def test_detect_stream_takes_frames(model):
    with pytest.raises(TypeError, match=r"got 'street.mp4'.*ssd_zoo.data.open_video"):
        next(detect_stream(model, "street.mp4"))
