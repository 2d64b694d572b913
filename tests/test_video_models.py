"""What clips, streams and 2-D models have to do with each other."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from quick import quick
from safetensors.torch import load, save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ssd_zoo
from ssd_zoo.backbones.inflated import VideoMobileNet, VideoVGG16D
from ssd_zoo.backbones.mobilenet_v3 import MobileNetV3
from ssd_zoo.backbones.temporal import CausalConv3d, Past
from ssd_zoo.backbones.vgg import VGG16D
from ssd_zoo.deploy import optimize
from ssd_zoo.detector.frames import split_frames
from ssd_zoo.video import export_step, reset_streams

pytestmark = pytest.mark.usefixtures("one_thread")

TEMPORAL = ("3d", "2plus1d", "depthwise", "shift")
LIGHT = ("ssdlite300_mobilenet_v2_3d", "ssdlite320_mobilenet_v3_large_3d")
# One in each run, all of them in CI's.
CHOSEN = quick(TEMPORAL[0], of=TEMPORAL)
VARIANTS = [*((LIGHT[0], temporal) for temporal in TEMPORAL), (LIGHT[1], "3d")]
SIZE = (48, 64)


def build(name, **kwargs):
    torch.manual_seed(0)
    return ssd_zoo.get_model(
        name, weights=None, weights_backbone=None, **{"num_classes": 3, "size": SIZE, "score_thresh": 0.0, **kwargs}
    )


def double(model):
    """In float64, with norms that keep the signal as large as it is in trained networks."""
    model.double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.forward_raw(model.prepare([clip(4, seed=7)]), [4])
    return model.eval()


def train_in_time(model):
    """Stands for training: what looks back gets weights that do."""
    generator = torch.Generator().manual_seed(6)
    for module in model.modules():
        if isinstance(module, CausalConv3d):
            deviation = module.weight.detach()[-module.out_channels :].abs().mean()
            module.weight.data += deviation * torch.randn(
                module.weight.shape, generator=generator, dtype=module.weight.dtype
            )
    return model


def clip(length, seed=0, size=SIZE):
    return torch.rand(length, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def raw_of(model, *clips):
    with torch.no_grad():
        return model.forward_raw(model.prepare(list(clips)), [len(frames) for frames in clips])


def image_model(name, video):
    """The 2-D model of the same weights."""
    model = double(build(name.removesuffix("_3d")))
    with torch.no_grad():
        own = model.state_dict()
        for key, value in video.state_dict().items():
            if key in own:
                own[key] = value if value.shape == own[key].shape else value.unflatten(0, (3, -1)).sum(0)
    model.load_state_dict(own)
    return model


def same(left, right):
    assert left.keys() == right.keys()
    for key, value in left.items():
        torch.testing.assert_close(value, right[key], rtol=1e-9, atol=1e-9)


def differ(left, right):
    return not torch.allclose(left["cls_logits"], right["cls_logits"], rtol=1e-4, atol=1e-6)


@pytest.fixture
def double_by_default():
    """Three thirds of a float32 are one but for 3e-8."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module", params=CHOSEN)
def model(request):
    return train_in_time(double(build(LIGHT[0], temporal=request.param)))


# Parameters and multiply-adds of 8 frames, 300 × 300, 91 classes, worked out by hand from the layers.
@pytest.mark.parametrize(
    ("temporal", "stages", "parameters", "gmacs"),
    [
        ("3d", (4, 5), 61.59, 456.0),
        ("3d", (1, 2, 3, 4, 5), 65.06, 723.9),
        ("2plus1d", (3, 4, 5), 40.95, 339.5),
        ("depthwise", (3, 4, 5), 35.66, 279.0),
        ("shift", (3, 4, 5), 35.64, 278.9),
    ],
)
def test_counts(temporal, stages, parameters, gmacs):
    with torch.device("meta"):
        model = build("ssd300_vgg16d_3d", temporal=temporal, temporal_stages=stages, num_classes=91, size=300).eval()
        frames = torch.empty(8, 3, 300, 300)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.forward_raw(frames, [8])
    # What takes each channel alone is no convolution and not counted: three taps of 8 frames of conv3, 4 and 5.
    alone = 3 * 8 * 3 * (75**2 * 256 + 38**2 * 512 + 19**2 * 512) if temporal == "depthwise" else 0
    assert round((counter.get_total_flops() / 2 + alone) / 1e9, 1) == gmacs


@pytest.mark.parametrize("inflate", ["identity", "average"])
@pytest.mark.parametrize(("name", "temporal"), quick(VARIANTS[0], of=VARIANTS))
def test_static_clip_is_the_2d_model_on_the_frame(name, temporal, inflate, double_by_default):
    video = double(build(name, temporal=temporal, inflate=inflate, temporal_stages=(1, 4, 5)))
    frame = clip(1)
    expected = raw_of(image_model(name, video), frame)
    actual = raw_of(video, frame.expand(3, -1, -1, -1))
    same(actual, {key: value.expand(3, -1, -1) for key, value in expected.items()})


@pytest.mark.parametrize(("name", "temporal"), quick(VARIANTS[0], of=(v for v in VARIANTS if "shift" not in v)))
def test_identity_is_the_2d_model_on_each_frame(name, temporal):
    video = double(build(name, temporal=temporal))
    frames = clip(4)
    same(raw_of(video, frames), raw_of(image_model(name, video), frames))


def test_average_and_shift_are_not_the_2d_model_on_each_frame():
    for settings in ({"inflate": "average"}, {"temporal": "shift"}):
        video = double(build(LIGHT[0], **settings))
        frames = clip(4)
        assert differ(raw_of(video, frames), raw_of(image_model(LIGHT[0], video), frames))


@pytest.mark.parametrize("chunks", [[1] * 10, [3, 1, 6]])
def test_stream_is_the_clip(model, chunks):
    frames = clip(10)
    state, outputs = None, []
    for chunk in model.prepare([frames]).split(chunks):
        with torch.no_grad():
            raw, state = model.step_raw(chunk, [len(chunk)], state)
        outputs.append(raw)
    same({key: torch.cat([raw[key] for raw in outputs]) for key in outputs[0]}, raw_of(model, frames))
    assert state["frames_seen"].tolist() == [10]


def test_streams_in_a_batch_are_each_alone(model):
    one, two = clip(6, 1), clip(7, 2)
    with torch.no_grad():
        first, state = model.step_raw(torch.cat([one[:2], two[:3]]) * 2 - 1, [2, 3])
        second, state = model.step_raw(torch.cat([one[2:], two[3:]]) * 2 - 1, [4, 4], state)
    expected = raw_of(model, one), raw_of(model, two)
    for key in first:
        torch.testing.assert_close(torch.cat([first[key][:2], second[key][:4]]), expected[0][key])
        torch.testing.assert_close(torch.cat([first[key][2:], second[key][4:]]), expected[1][key])


def test_the_future_changes_nothing(model):
    frames = clip(6)
    other = torch.cat([frames[:4], clip(2, seed=9)])
    past, same_past = raw_of(model, frames), raw_of(model, other)
    same({key: value[:4] for key, value in past.items()}, {key: value[:4] for key, value in same_past.items()})
    assert differ(past, same_past)


def test_lengths_in_a_batch_are_each_alone(model):
    clips = clip(3, 1), clip(5, 2), clip(1, 3)
    batch = raw_of(model, *clips)
    alone = [raw_of(model, frames) for frames in clips]
    same(batch, {key: torch.cat([raw[key] for raw in alone]) for key in batch})


def test_shuffled_time_changes_the_last_frame(model):
    frames = clip(5)
    order = [3, 1, 0, 2, 4]
    kept, shuffled = raw_of(model, frames), raw_of(model, frames[order])
    assert differ({"cls_logits": kept["cls_logits"][-1]}, {"cls_logits": shuffled["cls_logits"][-1]})


def test_last_frame_alone(model):
    clips = clip(3, 1), clip(2, 2)
    every = raw_of(model, *clips)
    everything = model(list(clips))
    model.backbone.frames = "last"
    last, detections = raw_of(model, *clips), model(list(clips))
    model.backbone.frames = "all"
    same(last, {key: value[[2, 4]] for key, value in every.items()})
    for found, complete, length in zip(detections, everything, (3, 2), strict=True):
        assert set(found["frame_index"].tolist()) == {length - 1}
        assert torch.equal(found["boxes"], split_frames(complete, length)[-1]["boxes"])


def hook_before(layer):
    layer.register_forward_pre_hook(lambda _, args: (args[0] * 2, *args[1:]))


def hook_after(layer):
    layer.register_forward_hook(lambda _module, _args, out: (out[0] + 1, out[1]) if isinstance(out, tuple) else out + 1)


def replace_forward(layer):
    def forward(features, *past, before=layer.forward):
        return before(features.abs() + 0.5, *past)

    layer.forward = forward


@pytest.fixture(scope="module")
def backbone():
    """A backbone whose layers all look back in time, and its output for a clip of two frames."""
    settings = {"temporal": "3d", "temporal_stages": (1, 2, 3, 4, 5), "inflate": "average", "frames": "all"}
    torch.manual_seed(0)
    video = VideoMobileNet(MobileNetV3([]), **settings).double()
    for module in video.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        video(clip(2, size=(32, 32)), [2])
        return video.eval(), video(clip(2, size=(32, 32)), [2])


@pytest.mark.parametrize("change", [hook_before, hook_after, replace_forward])
@pytest.mark.parametrize("place", ["stem", "blocks.1", "blocks.3.depthwise"])
def test_what_users_add_to_layers_takes_part_in_clips_and_streams(backbone, place, change):
    video, before = copy.deepcopy(backbone[0]), backbone[1]
    frames = clip(2, size=(32, 32))
    change(video.get_submodule(place))
    with torch.no_grad():
        maps = video(frames, [2])
        first, state = video.step(frames[:1], [1])
        second, _ = video.step(frames[1:], [1], state)
    for left, early, late, plain in zip(maps, first, second, before, strict=True):
        torch.testing.assert_close(left, torch.cat([early, late]))
        assert not torch.allclose(left, plain, rtol=1e-3)


@pytest.mark.slow
def test_vgg():
    torch.manual_seed(0)
    plain = VGG16D([(8, 16, 3, 2, 1)], norm_layer=nn.BatchNorm2d).double().eval()
    frames = clip(5, size=(24, 24))
    with torch.no_grad():
        expected = plain(frames)
        video = VideoVGG16D(plain, temporal="3d", temporal_stages=(4, 5), inflate="identity", frames="all").eval()
        for left, right in zip(video(frames, [5]), expected, strict=True):
            torch.testing.assert_close(left, right)
        maps = train_in_time(video)(frames, [5])
        first, state = video.step(frames[:2], [2])
        second, _ = video.step(frames[2:], [3], state)
    for left, early, late in zip(maps, first, second, strict=True):
        torch.testing.assert_close(left, torch.cat([early, late]))
    assert not torch.allclose(maps[0], expected[0])


def test_many_channels_give_what_conv3d_gives():
    torch.manual_seed(0)
    layer = train_in_time(CausalConv3d(nn.Conv2d(128, 128, 3, padding=1), "average"))
    frames = torch.randn(5, 128, 24, 24, requires_grad=True)
    given = [frames, layer.weight, layer.bias]
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    kernel = torch.stack(exact[1].split(128), dim=2)
    clip_before = torch.cat([exact[0][:1].expand(2, -1, -1, -1), exact[0]]).transpose(0, 1)
    expected = F.conv3d(clip_before, kernel, exact[2], padding=(0, 1, 1)).transpose(0, 1)
    result = layer(frames, Past([5], frames.device))
    with torch.no_grad():
        without_gradients = layer(frames, Past([5], frames.device))
    upstream = torch.randn(expected.shape, dtype=torch.float64)
    gradients = torch.autograd.grad(result, given, upstream.float())
    for one, other in (
        (result, expected),
        (without_gradients, expected),
        *zip(gradients, torch.autograd.grad(expected, exact, upstream), strict=True),
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


def test_sees_13_frames():
    torch.manual_seed(0)
    plain = VGG16D([(8, 16, 3, 2, 1)], norm_layer=nn.BatchNorm2d).eval()
    video = VideoVGG16D(plain, temporal="3d", temporal_stages=(4, 5), inflate="average", frames="last")
    frames = clip(15, size=(24, 24)).float().requires_grad_()
    sum(features.sum() for features in video(frames, [15])[1:]).backward()
    seen = frames.grad.abs().flatten(1).sum(1) > 0
    assert seen.tolist() == [False] * 2 + [True] * 13


def test_detections_of_streams_are_those_of_the_clip(model):
    clips = [clip(4, 1, (50, 70)), clip(4, 2, (120, 80))]
    with torch.no_grad():
        whole = model(clips)
        state, parts = None, [[], []]
        for t in range(4):
            detections, state = model.step([frames[t] for frames in clips], state)
            for part, found in zip(parts, detections, strict=True):
                part.append(found)
    for complete, part in zip(whole, parts, strict=True):
        same(complete, {key: torch.cat([found[key] for found in part]) for key in complete})


def test_state_is_saved_chosen_joined_and_reset(model):
    frames = clip(8)
    with torch.no_grad():
        _, state = model.step([frames[:3], frames[1:4]])
        kept = load(save({key: value.contiguous() for key, value in state.items()}))
        expected, _ = model.step([frames[3:5]], {key: value[:1] for key, value in kept.items()})
        joined = {key: torch.cat([value[1:], value[:1]]) for key, value in kept.items()}
        both, _ = model.step([frames[4:5], frames[3:5]], joined)
        same(both[1], expected[0])
        fresh, after = model.step([frames[4:5], frames[3:5]], reset_streams(joined, [0]))
        same(fresh[1], expected[0])
        same(fresh[0], model([frames[4:5]])[0])
    assert after["frames_seen"].tolist() == [1, 5]
    assert state["frames_seen"].tolist() == [3, 3], "the state that went in is what it was"


def test_state_of_other_streams_is_refused(model):
    _, state = model.step([clip(1)])
    with pytest.raises(ValueError, match="state has 1 streams, but there are frames of 2"):
        model.step([clip(1), clip(1)], state)


def test_image_models_take_clips_and_streams():
    model = double(build("ssdlite300_mobilenet_v2"))
    frames = clip(3)
    with torch.no_grad():
        [whole] = model([frames])
        images = model(list(frames))
        first, state = model.step([frames[0]])
        second, state = model.step([frames[1:]], state)
    assert [len(found["scores"]) for found in split_frames(whole, 3)] == [len(found["scores"]) for found in images]
    same(whole, {key: torch.cat([first[0][key], second[0][key]]) for key in whole})
    same({"boxes": images[2]["boxes"]}, {"boxes": split_frames(whole, 3)[2]["boxes"]})


# torch 2.6 warns of itself.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
@pytest.mark.filterwarnings("ignore:Node .* does not reference an nn.Module:UserWarning")
@pytest.mark.parametrize("temporal", ["3d", "shift"])
def test_step_exports(temporal):
    model = train_in_time(build(LIGHT[0], temporal=temporal, temporal_stages=(5,))).eval()
    program, state = export_step(model, num_streams=2)
    assert {value.ndim for key, value in state.items() if key != "frames_seen"} == {4}
    step, expected_state = program.module(), None
    for t in range(3):
        frames = torch.stack([clip(3, 1)[t], clip(3, 2)[t]]).float()
        raw, state = step(frames, state)
        with torch.no_grad():
            expected, expected_state = model.step_raw(frames, [1, 1], expected_state)
        for key, value in expected.items():
            torch.testing.assert_close(raw[key], value, rtol=1e-4, atol=1e-5)
    assert state["frames_seen"].tolist() == [3, 3]
    # The second stream alone, and three streams, of which one is new.
    for rows in ([1], [0, 1, 0]):
        before = {key: value[rows] for key, value in state.items()}
        before["frames_seen"] = before["frames_seen"] * torch.tensor([1] * (len(rows) - 1) + [len(rows) % 3])
        frames = torch.stack([clip(4, seed)[3] for seed in rows]).float()
        raw, after = step(frames, before)
        with torch.no_grad():
            expected, expected_after = model.step_raw(frames, [1] * len(rows), before)
        torch.testing.assert_close({**raw, **after}, {**expected, **expected_after}, rtol=1e-4, atol=1e-5)


def test_one_frame_each_needs_a_state():
    model = build(LIGHT[0], temporal_stages=(5,)).eval()
    with pytest.raises(ValueError, match=r"lengths=None needs the state of the streams"):
        model.step_raw(torch.zeros(1, 3, *model.size), None)


@pytest.mark.parametrize("temporal", CHOSEN)
def test_state_of_a_2d_model_loads(temporal):
    image = build("ssdlite300_mobilenet_v2")
    video = build(LIGHT[0], temporal=temporal)
    for parameter in video.parameters():
        nn.init.ones_(parameter)
    fresh = build(LIGHT[0], temporal=temporal)
    fresh.load_state_dict(image.state_dict())
    frames = clip(1).float().expand(3, -1, -1, -1)
    with torch.no_grad():
        expected = image.eval().forward_raw(image.prepare([frames]))
        actual = fresh.eval().forward_raw(fresh.prepare([frames]), [3])
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-4, atol=1e-4)
    file = io.BytesIO()
    torch.save(video.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert all((value == 1).all() for value in fresh.parameters())


def test_weights_are_inflated_and_reported():
    image = ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1", score_thresh=0.5).eval()
    video = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="COCO_TF_V1", temporal="2plus1d", score_thresh=0.5).eval()
    report = ssd_zoo.load_report(video).tensors
    assert report["backbone.stem.conv.weight"] == "loaded"
    assert report["backbone.blocks.8.project.conv.temporal.weight"] == "inflated"
    video = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="COCO_TF_V1", temporal="3d", score_thresh=0.5).eval()
    assert ssd_zoo.load_report(video).tensors["backbone.blocks.8.depthwise.conv.weight"] == "inflated"
    frame = ssd_zoo.data.read_image("examples/astronaut.jpg")
    with torch.no_grad():
        [expected] = image([frame])
        [actual] = video([torch.stack([frame, frame.flip(-1)])])
    torch.testing.assert_close(split_frames(actual, 2)[0], expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("temporal", "stages"),
    [("depthwise", (4, 5)), ("3d", (3, 4, 5)), ("2plus1d", (3, 4, 5)), ("shift", (3, 4, 5)), ("shift", (1,))],
)
def test_weights_of_clips_need_the_layers_in_time_that_they_were_trained_with(tmp_path, temporal, stages):
    light = {"weights_backbone": None, "num_classes": 3, "size": 64}
    saved = ssd_zoo.ssdlite300_mobilenet_v2_3d(temporal="depthwise", temporal_stages=(3, 4, 5), **light)
    ssd_zoo.save_pretrained(saved, tmp_path / "clips")
    with pytest.raises(ValueError, match=r"does not fit this model.*the temporal and temporal_stages of the weights"):
        ssd_zoo.ssdlite300_mobilenet_v2_3d(weights=tmp_path / "clips", temporal=temporal, temporal_stages=stages)
    more = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights=tmp_path / "clips", temporal_stages=(2, 3, 4, 5))
    assert "new" in set(ssd_zoo.load_report(more).tensors.values())


@pytest.mark.parametrize(("temporal", "stages"), [("depthwise", (4, 5)), ("3d", (3, 4, 5)), ("shift", (1,))])
def test_weights_that_ship_need_their_layers_in_time(temporal, stages):
    with pytest.raises(ValueError, match=r"COCO_CLIPS_V1 does not fit this model.*the temporal and temporal_stages"):
        ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="COCO_CLIPS_V1", temporal=temporal, temporal_stages=stages)


def test_weights_of_clips_complete_those_of_images():
    entry = ssd_zoo.SSDLite300_MobileNet_V2_3D_Weights.COCO_CLIPS_V1
    video, image = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="DEFAULT"), entry.value.base.get_state_dict()
    state = video.state_dict()
    torch.testing.assert_close(state["head.cls_logits.0.1.weight"], image["head.cls_logits.0.1.weight"])
    assert not torch.equal(state["backbone.stem.conv.weight"], image["backbone.stem.conv.weight"])
    assert set(ssd_zoo.load_report(video).tensors.values()) == {"loaded"}
    taken = ssd_zoo.ssdlite300_mobilenet_v2_3d(weights=ssd_zoo.SSDLite300_MobileNet_V2_Weights.BCCD_V1)
    assert taken.categories == ssd_zoo.ssdlite300_mobilenet_v2_3d(weights="BCCD_V1").categories


def test_moves_to_channels_last(model):
    frames = clip(2)
    before = raw_of(model, frames)
    model.to(memory_format=torch.channels_last)
    same(raw_of(model, frames), before)


def test_optimized(model):
    frames = clip(3)
    same(raw_of(optimize(model, compile=False), frames), raw_of(model, frames))


def test_freezing_reaches_kernels_in_time():
    frozen = ssd_zoo.ssdlite300_mobilenet_v2_3d(
        weights="COCO_TF_V1", trainable_backbone_layers=1, temporal_stages=(4, 5), temporal="depthwise"
    )
    assert not frozen.backbone.blocks[8].depthwise.conv.temporal.weight.requires_grad
    assert frozen.backbone.blocks[14].depthwise.conv.temporal.weight.requires_grad


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temporal": "4d"}, "temporal must be one of '3d', '2plus1d', 'depthwise', 'shift', got '4d'"),
        ({"inflate": "zero"}, "inflate must be one of 'identity', 'average', got 'zero'"),
        ({"frames": "first"}, "frames must be one of 'all', 'last', got 'first'"),
        ({"temporal_stages": (5, 6)}, r"stages from 1 to 5, got \(5, 6\)"),
        ({"temporal_stages": ()}, r"stages from 1 to 5, got \(\).*the 2-D model"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build(LIGHT[0], **settings)
